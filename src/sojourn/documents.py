"""Documents: named bytes with a content type, in collections, of a session or of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.arguments import flag
from sojourn.errors import Corrupt, InvalidQuery, NotFound, TooLarge, Unserializable
from sojourn.expiry import span_of
from sojourn.limits import MAX_DOCUMENT, MAX_PAGE
from sojourn.model import Document
from sojourn.names import check_name, is_name
from sojourn.session import Session
from sojourn.store import Change, DocumentQuery, Drop, Put
from sojourn.timestamps import LATEST, NO_DATE, to_datetime

if TYPE_CHECKING:
    from sojourn.context import Context
    from sojourn.model import StoredDocument
    from sojourn.store import Committed, Durability


class Documents:
    """The documents of one session, or with no session, of the app."""

    def __init__(self, context: Context, session: Session | str | None) -> None:
        """Made by `SessionManager.documents`."""
        if not isinstance(session, Session | str | None):
            raise InvalidQuery(
                "session",
                f"give a Session, an id, or None for the app, not {type(session).__name__}",
            )
        self._context = context
        self._session = session if isinstance(session, Session) else None
        self._id = session.id if isinstance(session, Session) else session

    async def put(
        self,
        collection: str,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Store a document; the same collection and key replace it. `ttl` is in seconds.

        Raises `NotFound` (or `Ended`) when the session is missing, `TooLarge` over `MAX_DOCUMENT`
        bytes, `Unserializable` for something that is not bytes.
        """
        if not isinstance(body, bytes | bytearray | memoryview):
            raise Unserializable("body", f"give bytes, not {type(body).__name__}")
        body = bytes(body)
        if len(body) > MAX_DOCUMENT:
            raise TooLarge("bytes in a document", len(body), MAX_DOCUMENT)
        span = None if ttl is None else span_of("ttl", ttl)
        now = self._context.now()
        put = Put(
            collection=check_name("collection", collection),
            key=check_name("document key", key),
            body=body,
            content_type=check_name("content type", content_type),
            expires_at=None if span is None else min(now + span, LATEST),
        )
        await self._commit(put, durability)

    async def get(self, collection: str, key: str, *, expired: bool = False) -> Document | None:
        """Return a document with its body, `None` when there is none.

        `expired` also reads those of a session past its deadline, for its end hooks.
        """
        now, expired = self._context.now(), flag("expired", expired)
        if not (is_name(collection) and is_name(key)) or not self._has_owner():
            return None
        query = DocumentQuery(
            app=self._context.app,
            id=self._id,
            collection=collection,
            key=key,
            now=now,
            expired=expired,
        )
        found = await self._context.store.document(query)
        return None if found is None else _document(found)

    async def list(
        self, collection: str, *, after: str | None = None, limit: int = 100, expired: bool = False
    ) -> list[Document]:
        """Return documents without bodies, ascending by key, those behind the key `after`.

        Raises `InvalidQuery` for a `limit` that is not 1 to `MAX_PAGE`. `expired` as for `get`.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
            raise InvalidQuery("limit", f"give a whole number from 1 to {MAX_PAGE}")
        if after is not None:
            check_name("after", after)
        now, expired = self._context.now(), flag("expired", expired)
        if not is_name(collection) or not self._has_owner():
            return []
        query = DocumentQuery(
            app=self._context.app,
            id=self._id,
            collection=collection,
            now=now,
            after=after,
            limit=limit,
            expired=expired,
        )
        return [_document(found) for found in await self._context.store.documents(query)]

    async def drop(self, collection: str, key: str | None = None) -> None:
        """Remove a document, or with no key the whole collection. Missing is fine.

        Raises `NotFound` (or `Ended`) when the session is missing.
        """
        drop = Drop(
            collection=check_name("collection", collection),
            key=None if key is None else check_name("document key", key),
        )
        await self._commit(drop, None)

    def _has_owner(self) -> bool:
        return self._id is None or is_name(self._id)

    async def _commit(self, part: Put | Drop, durability: Durability | None) -> None:
        if not self._has_owner():
            raise NotFound(str(self._id))
        session = self._session
        if session is not None and not session.stored:
            raise NotFound(session.id, "it has not been saved yet")
        change = Change(
            app=self._context.app,
            id=self._id,
            op=self._context.ids.operation(),
            now=self._context.now(),
            epoch=None if session is None else session.epoch,
            documents=(part,),
            durability=self._context.durability(durability),
        )
        await self._context.commit(change, self._taken)

    def _taken(self, committed: Committed) -> None:
        if self._session is not None:
            self._session.committed(committed.header, committed.revision)


def _document(found: StoredDocument) -> Document:
    try:
        return Document(
            collection=found.collection,
            key=found.key,
            content_type=found.content_type,
            size=found.size,
            seq=found.seq,
            created_at=to_datetime(found.created_at),
            updated_at=to_datetime(found.updated_at),
            expires_at=None if found.expires_at is None else to_datetime(found.expires_at),
            body=found.body,
        )
    except OverflowError:
        raise Corrupt(f"document {found.key!r} of {found.collection!r}", NO_DATE) from None

"""What a copy notes down in its target: what it has put there, so that it can take it away again.

A session that the source deletes must not stay in the target, and one that the target has of its
own must not go. So before anything is put, a note in the target says what it is. The notes are
documents of the app, in a collection that no caller can name; they expire by themselves.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from sojourn.errors import Corrupt
from sojourn.store import Change, DocumentQuery, Drop, Put
from sojourn.transfer.walking import OWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.ports import Clock, IdSource
    from sojourn.transfer.walking import TransferStore

KEPT_MICROSECONDS = 30 * 86_400_000_000
"""How long notes are kept: a copy that is taken up again comes sooner."""

PAGE = 100
"""Notes listed at a time, without their bodies."""


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Things that were put together: sessions as (id, epoch, revision), users, documents."""

    sessions: tuple[tuple[str, str, int], ...] = ()
    users: tuple[str | None, ...] = ()
    documents: tuple[tuple[str, str], ...] = ()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Note).decode


class Journal:
    """The notes of copies from one source into one app of a target."""

    def __init__(
        self, target: TransferStore, source: str, app: str, *, clock: Clock, ids: IdSource
    ) -> None:
        """`source` is the place of the source: copies from elsewhere have notes of their own."""
        self._target = target
        self._app = app
        self._collection = f"{OWN}copy {sha256(source.encode()).hexdigest()[:16]}"
        self._clock = clock
        self._ids = ids

    async def add(self, note: Note) -> None:
        """Write a note; when this returns, it is kept."""
        put = Put(
            collection=self._collection,
            key=self._ids.session_id(),
            body=_encode(note),
            content_type="application/json",
            expires_at=self._clock.now() + KEPT_MICROSECONDS,
        )
        await self._commit(put)

    async def notes(self) -> AsyncIterator[Note]:
        """Yield every note, by key."""
        after: str | None = None
        while True:
            query = self._query(after=after, limit=PAGE)
            page = await self._target.documents(query)
            for listed in page:
                found = await self._target.document(self._query(key=listed.key))
                if found is not None and found.body is not None:
                    yield _read(found.body)
            if len(page) < PAGE:
                return
            after = page[-1].key

    async def clear(self) -> None:
        """Remove all notes."""
        await self._commit(Drop(collection=self._collection))

    def _query(
        self, *, key: str | None = None, after: str | None = None, limit: int = PAGE
    ) -> DocumentQuery:
        return DocumentQuery(
            app=self._app,
            id=None,
            collection=self._collection,
            now=self._clock.now(),
            key=key,
            after=after,
            limit=limit,
        )

    async def _commit(self, part: Put | Drop) -> None:
        await self._target.commit(
            Change(
                app=self._app,
                id=None,
                op=self._ids.operation(),
                now=self._clock.now(),
                documents=(part,),
            )
        )


def _read(body: bytes) -> Note:
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise Corrupt("a note of the copy", str(error)) from error

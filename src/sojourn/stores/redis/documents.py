"""Reads of documents: one with its body, or a page of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import Corrupt
from sojourn.expiry import is_past
from sojourn.stores.redis import routes, rows, scripts
from sojourn.stores.redis.client import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from sojourn.model import StoredDocument
    from sojourn.store import DocumentQuery
    from sojourn.stores.planning import Loaded
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.finding import Finder
    from sojourn.stores.redis.keys import Keys, Owned
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Reply

NUMBER_DIGITS = 16
"""Digits of a document's number, as it stands in the order of places."""


class DocumentReader:
    """Answers reads of documents, of sessions and of apps."""

    def __init__(self, client: Client, keys: Keys, finder: Finder) -> None:
        self._client = client
        self._keys = keys
        self._finder = finder

    async def document(self, query: DocumentQuery) -> StoredDocument | None:
        """Return one document; see `Store.document`. A long one takes a second look."""
        key = query.key or ""
        field = rows.collection_prefix(query.collection) + key
        parts: tuple[str, ...] = (field,)
        size = 0

        def calls(route: Route, owned: Owned) -> list[Call]:
            return [
                Call(route, ("HGET", owned.docs, field)),
                Call(route, ("HMGET", owned.bodies, *parts), size),
            ]

        while True:
            found = await self._read(query, calls)
            if found is None or found[0] is None:
                return None
            facts, pieces = found
            body = b"".join(piece for piece in pieces if piece is not None)
            document = rows.to_document(query.collection, key, facts, body)
            if is_past(document.expires_at, query.now):
                return None
            if document.size == len(body):
                return document
            if len(parts) > 1 and document.size == size:
                raise Corrupt(f"document {key!r} of {query.collection!r}", "its body is cut short")
            parts, size = (field, f"{field}\0"), document.size

    async def documents(self, query: DocumentQuery) -> list[StoredDocument]:
        """Return documents of a collection; see `Store.documents`."""
        bound = query.after or ""
        if query.newest:
            bound = "" if query.before is None else _number(query.before)
        kept: list[StoredDocument] = []
        while len(kept) < query.limit:
            page = await self._page(query, bound)
            kept += [item for item in page if not is_past(item.expires_at, query.now)]
            if len(page) < query.limit:
                break
            bound = _number(page[-1].number) if query.newest else page[-1].key
        return kept[: query.limit]

    async def _page(self, query: DocumentQuery, bound: str) -> list[StoredDocument]:
        order = "places" if query.newest else "keys"
        prefix = rows.collection_prefix(query.collection)

        def calls(route: Route, owned: Owned) -> list[Call]:
            keys = (owned.docs, owned.dockeys, owned.docplaces, owned.bodies)
            what = (order, prefix, bound, query.limit, query.lead)
            return [Call(route, ("EVALSHA", scripts.DOCUMENTS.sha, 4, *keys, *what))]

        found = await self._read(query, calls)
        if found is None:
            return []
        (flat,) = found
        return [
            rows.to_document(
                query.collection,
                flat[at].decode(),
                flat[at + 1],
                flat[at + 2] if query.lead else None,
            )
            for at in range(0, len(flat), 3)
        ]

    async def _read(
        self, query: DocumentQuery, calls: Callable[[Route, Owned], list[Call]]
    ) -> list[Reply] | None:
        """Return the replies of calls to an owner's keys, `None` if it is missing or expired."""
        deadline = self._client.deadline()
        app, id = query.app, query.id
        if id is None:
            route = routes.of_app(app)
            return await self._client.ask(calls(route, self._keys.owned(route, app, "")), deadline)
        key = (app, id)
        spot = self._finder.spots.get(key)
        if spot is not None:
            all_ = [
                self._finder.row_call(spot, key),
                *calls(spot.route, self._keys.owned(spot.route, *key)),
            ]
            fields, *replies = await self._client.ask(all_, deadline)
            loaded = self._finder.taken(spot, key, fields)
            if loaded is not None:
                return replies if _shows(loaded, query) else None
        loaded = (await self._finder.load([key], deadline))[key]
        if loaded is None or not _shows(loaded, query):
            return None
        if isinstance(loaded, rows.Unreadable):
            raise loaded
        route = loaded.row.route
        return await self._client.ask(calls(route, self._keys.owned(route, *key)), deadline)


def _shows(loaded: Loaded | rows.Unreadable, query: DocumentQuery) -> bool:
    """Return whether a session's documents can be seen. Raises `Corrupt` if it can not be read."""
    if isinstance(loaded, rows.Unreadable):
        raise loaded
    return query.expired or not is_past(loaded.header.expires_at, query.now)


def _number(number: int) -> str:
    return f"{max(number, 0):0{NUMBER_DIGITS}d}"

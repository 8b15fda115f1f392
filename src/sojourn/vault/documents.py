"""The documents of one session or app in memory: by key in collections, and by order of puts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from sojourn.expiry import is_past
from sojourn.model import StoredDocument
from sojourn.store import Put

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sojourn.store import DocumentQuery, Drop


class Documents:
    """What one owner keeps. Each listing costs its page, whatever else there is."""

    __slots__ = ("_collections",)

    def __init__(self) -> None:
        self._collections: dict[str, Collection] = {}

    def apply(
        self, changes: Iterable[Put | Drop], *, seq: int, now: int, numbers: Iterator[int]
    ) -> None:
        """Put and drop in order; a document that is new takes the next of `numbers`."""
        for change in changes:
            if isinstance(change, Put):
                collection = self._of(change.collection)
                collection.put(stored(change, collection.get(change.key), seq, now, numbers))
            elif change.key is None:
                self._collections.pop(change.collection, None)
            elif (found := self._collections.get(change.collection)) is not None:
                found.drop(change.key)
                if not found.by_key:
                    del self._collections[change.collection]

    def _of(self, name: str) -> Collection:
        collection = self._collections.get(name)
        if collection is None:
            collection = self._collections[name] = Collection()
        return collection

    def copied(self, at: int) -> Documents:
        """Return those that were put at event `at` or before it, in their places."""
        copy = Documents()
        for name, collection in self._collections.items():
            kept = [item for item in collection.by_place() if item.seq <= at]
            if kept:
                copy._collections[name] = Collection()
            for item in reversed(kept):
                copy._collections[name].put(item)
        return copy

    def __bool__(self) -> bool:
        return bool(self._collections)

    def has(self, document: StoredDocument) -> bool:
        """Return whether there is one of this collection and key."""
        collection = self._collections.get(document.collection)
        return collection is not None and collection.get(document.key) is not None

    def place(self, document: StoredDocument, numbers: Iterator[int]) -> None:
        """Put a document exactly as it is, in its place or behind all others."""
        collection = self._of(document.collection)
        collection.put(self.placed(document, collection.get(document.key), numbers))

    def placed(
        self, document: StoredDocument, old: StoredDocument | None, numbers: Iterator[int]
    ) -> StoredDocument:
        """Return a document with its number: that of the `old` one, or the next."""
        number = next(numbers) if old is None else old.number
        return msgspec.structs.replace(document, number=number)

    def everything(self) -> Iterator[StoredDocument]:
        """Yield all of them, by collection and in their places."""
        for name in sorted(self._collections):
            yield from reversed(list(self._collections[name].by_place()))

    def one(self, query: DocumentQuery) -> StoredDocument | None:
        """Return one document; see `Store.document`."""
        collection = self._collections.get(query.collection)
        found = None if collection is None else collection.get(query.key or "")
        return None if found is None or is_past(found.expires_at, query.now) else found

    def several(self, query: DocumentQuery) -> list[StoredDocument]:
        """Return a listing; see `Store.documents`."""
        candidates = self.candidates(query)
        there = (item for item in candidates if not is_past(item.expires_at, query.now))
        return [_listed(item, query.lead) for item in islice(there, query.limit)]

    def candidates(self, query: DocumentQuery) -> Iterator[StoredDocument]:
        """Yield those that a listing goes through, expired ones too."""
        collection = self._collections.get(query.collection)
        if collection is None:
            return iter(())
        if query.newest:
            return collection.by_place(query.before)
        return collection.ascending(query.after)


class Collection:
    """The documents of one collection, with their keys and their places in order."""

    __slots__ = ("_by_number", "_keys", "_numbers", "by_key")

    def __init__(self) -> None:
        self.by_key: dict[str, StoredDocument] = {}
        self._by_number: dict[int, str] = {}
        self._keys: list[str] = []
        self._numbers: list[int] = []

    def get(self, key: str) -> StoredDocument | None:
        """Return a document, expired or not."""
        return self.by_key.get(key)

    def put(self, document: StoredDocument) -> None:
        """Put a document in the place of the one of its key, or behind all others."""
        if document.key not in self.by_key:
            insort(self._keys, document.key)
            self._numbers.append(document.number)  # higher than all that are there
            self._by_number[document.number] = document.key
        self.by_key[document.key] = document

    def drop(self, key: str) -> None:
        """Drop a document. Missing is fine."""
        document = self.by_key.pop(key, None)
        if document is not None:
            del self._by_number[document.number]
            del self._keys[bisect_left(self._keys, key)]
            del self._numbers[bisect_left(self._numbers, document.number)]

    def ascending(self, after: str | None = None) -> Iterator[StoredDocument]:
        """Yield by key, those behind `after`."""
        first = 0 if after is None else bisect_right(self._keys, after)
        return (self.by_key[self._keys[at]] for at in range(first, len(self._keys)))

    def by_place(self, before: int | None = None) -> Iterator[StoredDocument]:
        """Yield by number, the highest first, those below `before`."""
        end = len(self._numbers) if before is None else bisect_left(self._numbers, before)
        places = range(end - 1, -1, -1)
        return (self.by_key[self._by_number[self._numbers[at]]] for at in places)


def stored(
    put: Put, old: StoredDocument | None, seq: int, now: int, numbers: Iterator[int]
) -> StoredDocument:
    """Return a document as it will be kept, in the place of the one that it replaces."""
    return StoredDocument(
        collection=put.collection,
        key=put.key,
        content_type=put.content_type,
        size=len(put.body),
        seq=seq,
        created_at=now if old is None or is_past(old.expires_at, now) else old.created_at,
        updated_at=now,
        expires_at=put.expires_at,
        number=next(numbers) if old is None else old.number,
        body=put.body,
    )


def _listed(document: StoredDocument, lead: int) -> StoredDocument:
    """Return a document with the first `lead` bytes of its body, with none for 0."""
    body = document.body[:lead] if lead and document.body is not None else None
    return msgspec.structs.replace(document, body=body)

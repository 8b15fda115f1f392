"""The documents of one owner, with their bodies left on the disk."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sojourn.expiry import is_past
from sojourn.store import Drop
from sojourn.vault.documents import Documents, stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sojourn.model import StoredDocument
    from sojourn.store import DocumentQuery, Put
    from sojourn.stores.filesystem.files import UnreadDocument


class PlacedDocuments(Documents):
    """What one owner keeps, unread: `Files.document` reads the bodies."""

    def put(self, document: UnreadDocument) -> None:
        """Put a document where its number says, or in the place of the one of its key."""
        self._of(document.collection).put(document)

    def find(self, collection: str, key: str) -> StoredDocument | None:
        """Return a document, expired or not."""
        found = self._collections.get(collection)
        return None if found is None else found.get(key)

    def drop(self, collection: str, key: str | None) -> None:
        """Drop a document, or a whole collection."""
        self.apply((Drop(collection=collection, key=key),), seq=0, now=0, numbers=iter(()))

    def several(self, query: DocumentQuery) -> list[StoredDocument]:
        """Return a listing, unread."""
        there = (d for d in self.candidates(query) if not is_past(d.expires_at, query.now))
        return list(islice(there, query.limit))

    def copied(self, at: int) -> PlacedDocuments:
        """Return those that were put at event `at` or before it, in their places."""
        copy = PlacedDocuments()
        for document in self.everything():
            if document.seq <= at:
                copy._of(document.collection).put(document)
        return copy


class WorkingDocuments(Documents):
    """The documents of one owner while changes to them are decided; what is below stays.

    `put_lines` and `dropped` are what came of the changes since they were last taken.
    """

    def __init__(self, below: PlacedDocuments | None) -> None:
        """Look through to `below` for what is not changed here."""
        super().__init__()
        self._below = below
        self._changed: dict[tuple[str, str], StoredDocument | None] = {}
        self._hidden: set[str] = set()
        self._news: list[StoredDocument | Drop] = []

    def __bool__(self) -> bool:
        return True

    def taken(self) -> list[StoredDocument | Drop]:
        """Return what came of the changes since the last call, in order."""
        news, self._news = self._news, []
        return news

    def _find(self, collection: str, key: str) -> StoredDocument | None:
        where = (collection, key)
        if where in self._changed:
            return self._changed[where]
        if self._below is None or collection in self._hidden:
            return None
        return self._below.find(collection, key)

    def apply(
        self, changes: Iterable[Put | Drop], *, seq: int, now: int, numbers: Iterator[int]
    ) -> None:
        """Decide what becomes of each."""
        for change in changes:
            if not isinstance(change, Drop):
                old = self._find(change.collection, change.key)
                self._note(stored(change, old, seq, now, numbers))
                continue
            self._news.append(change)
            if change.key is not None:
                self._changed[change.collection, change.key] = None
                continue
            self._hidden.add(change.collection)
            for where in [where for where in self._changed if where[0] == change.collection]:
                del self._changed[where]

    def _note(self, document: StoredDocument) -> None:
        self._news.append(document)
        self._changed[document.collection, document.key] = document

    def has(self, document: StoredDocument) -> bool:
        """Return whether there is one of this collection and key."""
        return self._find(document.collection, document.key) is not None

    def place(self, document: StoredDocument, numbers: Iterator[int]) -> None:
        """Put a document exactly as it is, in its place or behind all others."""
        self._note(self.placed(document, self._find(document.collection, document.key), numbers))

"""The files that hold what a vault keeps only the place of: events and bodies of documents."""

from __future__ import annotations

import os
import weakref
import zlib
from typing import TYPE_CHECKING

import msgspec

from sojourn.errors import Corrupt
from sojourn.model import StoredDocument
from sojourn.mounts import Whereabouts
from sojourn.stores.filesystem import effects
from sojourn.stores.filesystem.frames import HEAD_BYTES, Reader, salt_of
from sojourn.stores.filesystem.log import Unread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sojourn.model import Entry
    from sojourn.stores.filesystem.disk import Disk

OFFSET_BITS = 48
"""Low bits of a place that hold the offset in a file; the number of the file is above them."""

GAP = 4_096
"""Bytes between two events that are read along rather than read around."""

RECENT_BYTES = 2 * 1024 * 1024
"""Bytes of the newest events of an app that stay in memory."""

STRETCH = 1024 * 1024
"""Bytes of events that are read at once at most."""


class DataFile:
    """An open snapshot or journal.

    It stays readable when its name is gone, and is closed when nobody holds it any more.
    """

    def __init__(self, disk: Disk, path: str, file: int, salt: bytes) -> None:
        """Take over an open file."""
        self.path = path
        self.file = file
        self.salt = salt
        self._disk = disk
        self._where = Whereabouts(path, file)
        self._close = weakref.finalize(self, os.close, file)
        self._close.atexit = False  # threads may still read and write then

    def close(self) -> None:
        """Close it. Twice is fine."""
        self.file = -1
        self._close()

    @classmethod
    def opened(cls, disk: Disk, path: str) -> DataFile:
        """Open a file. Raises `Corrupt` or `NewerSchema` for one that is not of this format."""
        file = disk.open(path)
        try:
            return cls(disk, path, file, salt_of(disk.read(file, HEAD_BYTES, 0), path))
        except BaseException:
            os.close(file)
            raise

    def is_lost(self) -> bool:
        """Return whether nobody finds it any more under its name."""
        return self._where.is_lost()

    def reader(self) -> Reader:
        """Return a reader of its frames."""
        return Reader(self._disk, self.file, self.salt)

    def read(self, size: int, offset: int) -> bytes:
        """Return so many bytes. Raises `Corrupt` if they are not there."""
        found = self._disk.read(self.file, size, offset)
        if len(found) != size:
            raise Corrupt(self.path, f"it ends before byte {offset + size}")
        return found

    def size(self) -> int:
        """Return how long it is."""
        return self._disk.size(self.file)


class UnreadDocument(StoredDocument, frozen=True, kw_only=True, gc=False):
    """A document whose body is still on the disk: `place` and `sum` say where and what."""

    place: int = 0
    sum: int = 0


class Files:
    """The files of one vault, by number, and the words that stand for kinds of events."""

    def __init__(self) -> None:
        self.all: list[DataFile] = []
        self._kinds: dict[str, int] = {}
        self._recent: dict[int, bytes] = {}
        self._recent_size = 0

    def add(self, file: DataFile) -> int:
        """Take a file and return its number."""
        self.all.append(file)
        return len(self.all) - 1

    def close(self) -> None:
        """Close them all."""
        for file in self.all:
            file.close()

    def kind_number(self, kind: str) -> int:
        """Return the number of a kind, a new one if it has none."""
        return self._kinds.setdefault(kind, len(self._kinds))

    def known_kind(self, kind: str) -> int:
        """Return the number of a kind, -1 for one that no event has."""
        return self._kinds.get(kind, -1)

    def remember(self, place: int, text: memoryview) -> None:
        """Keep the text of an event that was just written: it is what is read next."""
        self._recent[place] = bytes(text)
        self._recent_size += len(text)
        while self._recent_size > RECENT_BYTES:
            oldest = next(iter(self._recent))
            self._recent_size -= len(self._recent.pop(oldest))

    def texts(self, events: Sequence[Entry]) -> Iterator[tuple[Unread, bytes]]:
        """Yield events with their text on the disk. Those side by side are read at once.

        Raises `Corrupt` for one that is not what was written.
        """
        start = 0
        while start < len(events):
            first, end = _unread(events[start]), start + 1
            recent = self._recent.get(first.place)
            if recent is not None:
                yield first, recent
                start = end
                continue
            stop = first.place + first.size
            while end < len(events):
                other = _unread(events[end])
                last = other.place + other.size
                if not stop <= other.place <= stop + GAP or last - first.place > STRETCH:
                    break
                stop, end = last, end + 1
            file, offset = self._at(first.place)
            data = file.read(stop - first.place, offset)
            for index in range(start, end):
                event = _unread(events[index])
                at = event.place - first.place
                text = data[at : at + event.size]
                if zlib.crc32(text) != event.sum:
                    raise Corrupt(f"event {event.seq} in {file.path}", "it is not what was written")
                yield event, text
            start = end

    def entries(self, events: Sequence[Entry]) -> list[Entry]:
        """Return events, read."""
        return [effects.entry_of(text, f"event {event.seq}") for event, text in self.texts(events)]

    def document(self, document: StoredDocument, lead: int | None = None) -> StoredDocument:
        """Return a document with its body, or only the first `lead` bytes of it.

        A whole body that is not what was written is `Corrupt`.
        """
        if not isinstance(document, UnreadDocument):
            return document
        size = document.size if lead is None else min(lead, document.size)
        file, offset = self._at(document.place)
        body = file.read(size, offset) if size else b""
        if size == document.size and zlib.crc32(body) != document.sum:
            key = f"document {document.collection!r} {document.key!r} in {file.path}"
            raise Corrupt(key, "it is not what was written")
        return unplaced(document, body)

    def documents(self, documents: Iterable[StoredDocument], lead: int) -> list[StoredDocument]:
        """Return documents as in a listing: with the first `lead` bytes, with none for 0."""
        return [
            self.document(document, lead) if lead else unplaced(document, None)
            for document in documents
        ]

    def _at(self, place: int) -> tuple[DataFile, int]:
        return self.all[place >> OFFSET_BITS], place & ((1 << OFFSET_BITS) - 1)


def _unread(event: Entry) -> Unread:
    assert isinstance(event, Unread)  # a vault over files keeps no others
    return event


_DOCUMENT_FIELDS = StoredDocument.__struct_fields__


def unplaced(document: StoredDocument, body: bytes | None) -> StoredDocument:
    """Return a document without its place."""
    facts = {name: getattr(document, name) for name in _DOCUMENT_FIELDS}
    return StoredDocument(**{**facts, "body": body})


def unread_document(line: effects.DocumentLine, place: int) -> UnreadDocument:
    """Return what is kept in memory of a document whose body is at `place`."""
    facts = msgspec.structs.asdict(line)
    return UnreadDocument(**facts, place=place)

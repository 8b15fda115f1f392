"""One session as a person reads it: lines of JSON, the session first, then what it owns."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from sojourn.errors import NotFound, PathTaken
from sojourn.stores.filesystem.snapshots import UNFINISHED
from sojourn.timestamps import to_datetime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sojourn.model import Entry, Header, StoredDocument
    from sojourn.store import Snapshot
    from sojourn.stores.filesystem.disk import Disk

_TIMES = ("created_at", "active_at", "expires_at", "updated_at", "at")
_INNER = ("remembered", "holder", "leased_until", "due_at", "number", "body")


class Export:
    """A file that is written part by part, and has its name once it is whole."""

    def __init__(self, disk: Disk, path: str, id: str) -> None:
        """Nothing is written yet."""
        self._disk = disk
        self._path = path
        self._id = id
        self._offset = 0
        self._file = -1

    async def write(self, parts: AsyncIterator[Snapshot]) -> int:
        """Write all parts and return how many lines that took.

        Raises `NotFound` if there are none, `PathTaken` if there is a file already.
        """
        self._refuse_taken()
        count = 0
        try:
            async for part in parts:
                count += self._put(part)
            if not count:
                raise NotFound(self._id)
            self._disk.sync(self._file)
            self._disk.rename(self._path + UNFINISHED, self._path)
        finally:
            self._clean()
        return count

    def _refuse_taken(self) -> None:
        if os.path.lexists(self._path):
            raise PathTaken(self._path, "there is a file already; an export does not overwrite it")

    def _clean(self) -> None:
        """Remove what did not become whole."""
        if self._file >= 0:
            os.close(self._file)
            if os.path.lexists(self._path + UNFINISHED):
                self._disk.remove(self._path + UNFINISHED)

    def _put(self, part: Snapshot) -> int:
        if self._file < 0:
            self._file = self._disk.open(self._path + UNFINISHED, create=True)
        lines = list(_lines(part))
        data = b"".join(line + b"\n" for line in lines)
        self._disk.write(self._file, data, self._offset)
        self._offset += len(data)
        return len(lines)


def _lines(part: Snapshot) -> Iterator[bytes]:
    if part.part == 0:
        yield msgspec.json.encode({"session": _facts(part.header), "state": part.state})
    for entry in part.entries:
        yield msgspec.json.encode({"event": _event(entry)})
    for document in part.documents:
        yield msgspec.json.encode({"document": _document(document)})


def _facts(record: Header | Entry | StoredDocument) -> dict[str, Any]:
    """Return the fields that say something to a person, with times as dates."""
    facts: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if value is None or name in _INNER:
            continue
        facts[name] = to_datetime(value) if name in _TIMES else value
    return facts


def _event(entry: Entry) -> dict[str, Any]:
    facts = _facts(entry)
    for name in ("changes", "deleted"):
        if name in facts:
            facts[name] = Raw(facts[name])
    return {**facts, "body": Raw(entry.body)}


def _document(document: StoredDocument) -> dict[str, Any]:
    body = document.body or b""
    try:
        return {**_facts(document), "text": body.decode()}
    except UnicodeDecodeError:
        return {**_facts(document), "base64": base64.b64encode(body).decode()}

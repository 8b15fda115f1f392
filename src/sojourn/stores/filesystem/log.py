"""The log of one session: where each event stands on the disk, in some fifty bytes of memory."""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from sojourn.commit import is_repeat
from sojourn.model import Entry
from sojourn.store import Ends
from sojourn.vault.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sojourn.model import Draft
    from sojourn.store import EventQuery
    from sojourn.stores.filesystem.files import Files

_RECORD = struct.Struct("<qqqQIII")
_SEQ = struct.Struct("<q")
_PEAK = struct.Struct("<16xq")
_IDENT = struct.Struct("<I")

DELTA = 1
"""The bit of a record's kind that says that the event has a delta."""


class Unread(Entry, frozen=True, gc=False):
    """An event that is still on the disk: `place`, `size` and `sum` say where and what.

    Only its `seq` and `at` are its own; `Files.entries` reads the rest.
    """

    place: int = 0
    size: int = 0
    sum: int = 0


class PlacedLog(Log):
    """Records in ascending order of `seq`: seq, at, peak, place, size, checksum, kind.

    `_idents` are checksums of the ids, so that a repeat is looked for without reading.
    """

    __slots__ = ("_by_kind", "_idents", "_records", "files")

    def __init__(self, files: Files) -> None:
        """`files` is where the events stand."""
        self.files = files
        self._records = bytearray()
        self._idents = bytearray()
        self._by_kind: dict[int, array[int]] = {}  # type: ignore[assignment]  # by number here

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    def put(self, id: str, kind: str, event: Unread, *, changing: bool) -> None:
        """Append an event; its `seq` is above all others."""
        at = event.at
        peak = max(self._peak(-1), at) if self._records else at
        number = self.files.kind_number(kind)
        self._by_kind.setdefault(number, array("I")).append(len(self))
        facts = (event.seq, at, peak, event.place, event.size, event.sum)
        self._records += _RECORD.pack(*facts, number << 1 | (DELTA if changing else 0))
        self._idents += _IDENT.pack(zlib.crc32(id.encode()))

    def _record(self, index: int) -> tuple[int, ...]:
        return _RECORD.unpack_from(self._records, index * _RECORD.size)

    def _unread(self, index: int) -> Unread:
        seq, at, _, place, size, checksum, _ = self._record(index)
        return Unread(seq, "", "", None, at, "", None, None, place, size, checksum)

    def _seq(self, index: int) -> int:
        seq: int = _SEQ.unpack_from(self._records, index * _RECORD.size)[0]
        return seq

    def _peak(self, index: int) -> int:
        peak: int = _PEAK.unpack_from(self._records, (index % len(self)) * _RECORD.size)[0]
        return peak

    def _behind(self, seq: int) -> int:
        """Return how many events have a number up to `seq`."""
        return bisect_right(range(len(self)), seq, key=self._seq)

    def repeated(self, draft: Draft) -> Entry | None:
        """Return the event that `draft` is again, if there is one. Reads those it could be."""
        ident, size = _IDENT.pack(zlib.crc32(draft.id.encode())), _IDENT.size
        at = self._idents.find(ident)
        while at >= 0:
            if at % size == 0:
                (entry,) = self.files.entries([self._unread(at // size)])
                if is_repeat(draft, entry):
                    return entry
            at = self._idents.find(ident, at + 1)
        return None

    def truncate(self, after: int) -> None:
        """Forget the events with a `seq` above `after`."""
        kept = self._behind(after)
        del self._records[kept * _RECORD.size :]
        del self._idents[kept * _IDENT.size :]
        for indexes in self._by_kind.values():
            del indexes[bisect_left(indexes, kept) :]

    def tail(self, count: int, upto: int | None = None) -> tuple[int, ...]:
        """Return the last `count` sequence numbers, those up to `upto`."""
        end = len(self) if upto is None else self._behind(upto)
        return tuple(map(self._seq, range(max(0, end - count), end)))

    def all(self) -> list[Entry]:
        """Return every event, unread."""
        return list(map(self._unread, range(len(self))))

    def changing(self) -> list[Entry]:
        """Return the events that have a delta, read."""
        changing = [n for n in range(len(self)) if self._record(n)[-1] & DELTA]
        return self.files.entries(list(map(self._unread, changing)))

    def copied(self, at: int) -> PlacedLog:
        """Return a log with the events up to `at`, which stay where they are."""
        kept = self._behind(at)
        copy = PlacedLog(self.files)
        copy._records = self._records[: kept * _RECORD.size]
        copy._idents = self._idents[: kept * _IDENT.size]
        for number, indexes in self._by_kind.items():
            copy._by_kind[number] = indexes[: bisect_left(indexes, kept)]
        return copy

    def window(self, query: EventQuery) -> list[Entry]:
        """Return the events of a window, ascending, unread. Costs what it returns."""
        if query.first is not None:
            return list(islice(self._matches(query, newest_first=False), query.first))
        newest = self._matches(query, newest_first=True)
        found = list(newest if query.last is None else islice(newest, query.last))
        found.reverse()
        if type(query) is Ends and found and len(found) == query.last:
            first = self._matches(query, newest_first=False)
            before = takewhile(lambda event: event.seq < found[0].seq, first)
            return [*islice(before, query.opening), *found]
        return found

    def _matches(self, query: EventQuery, *, newest_first: bool) -> Iterator[Entry]:
        count = len(self)
        low = 0 if query.after_seq is None else self._behind(query.after_seq)
        since = query.since_instant
        if since is not None:
            low = max(low, bisect_left(range(count), since, key=self._peak))
        high = count if query.before_seq is None else self._behind(query.before_seq - 1)
        numbers, places = None, range(low, high)
        only: Sequence[int] = range(count)  # the events that count, by their place among them
        if query.kinds is not None:
            numbers = set(map(self.files.known_kind, query.kinds))
            if len(numbers) == 1:
                only = self._by_kind.get(next(iter(numbers)), ())
                places = range(bisect_left(only, low), bisect_left(only, high))
        for place in reversed(places) if newest_first else places:
            index = only[place]
            _, at, _, _, _, _, kind = self._record(index)
            if since is not None and at < since:
                continue
            if numbers is not None and kind >> 1 not in numbers:
                continue
            yield self._unread(index)

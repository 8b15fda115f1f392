"""The log of one session in memory: entries by number, by id and by kind."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import islice, takewhile
from operator import attrgetter
from typing import TYPE_CHECKING

from sojourn.commit import is_repeat
from sojourn.store import Ends
from sojourn.timestamps import EARLIEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sojourn.model import Draft, Entry
    from sojourn.store import EventQuery

_seq = attrgetter("seq")


class Log:
    """Entries in ascending order of `seq`, which has gaps where a tail was cut.

    Most logs are only appended to and read from the end. So what finds an entry by its id, its kind
    or its time is brought up to date when somebody asks for it.
    """

    __slots__ = ("_by_id", "_by_kind", "_entries", "_peaks")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._peaks: list[int] = []
        """The latest time up to each entry, of as many as are indexed. It never falls, so the
        reader of "since t" knows where, going back, nothing can match any more."""
        self._by_kind: dict[str, list[Entry]] = {}
        self._by_id: dict[str, list[Entry]] = {}

    def add(self, entry: Entry) -> None:
        """Append an entry; its `seq` is above all others."""
        self._entries.append(entry)

    def _index(self) -> None:
        """Index what was appended since the last time."""
        peaks = self._peaks
        peak = peaks[-1] if peaks else EARLIEST
        for entry in self._entries[len(peaks) :]:
            peak = max(peak, entry.at)
            peaks.append(peak)
            self._by_kind.setdefault(entry.kind, []).append(entry)
            self._by_id.setdefault(entry.id, []).append(entry)

    def repeated(self, draft: Draft) -> Entry | None:
        """Return the entry that `draft` is again, if there is one."""
        self._index()
        found = self._by_id.get(draft.id, ())
        return next((entry for entry in found if is_repeat(draft, entry)), None)

    def truncate(self, after: int) -> None:
        """Remove the entries with a `seq` above `after`."""
        kept = bisect_right(self._entries, after, key=_seq)
        removed = self._entries[kept : len(self._peaks)]
        del self._entries[kept:]
        del self._peaks[kept:]
        for entry in reversed(removed):
            self._by_kind[entry.kind].pop()
            self._by_id[entry.id].pop()
            if not self._by_id[entry.id]:
                del self._by_id[entry.id]

    def tail(self, count: int) -> tuple[int, ...]:
        """Return the last `count` sequence numbers, ascending."""
        return tuple(entry.seq for entry in self._entries[-count:]) if count > 0 else ()

    def all(self) -> list[Entry]:
        """Return every entry."""
        return list(self._entries)

    def changing(self) -> list[Entry]:
        """Return the entries that have a delta."""
        return [e for e in self._entries if e.changes is not None or e.deleted is not None]

    def copied(self, at: int) -> Log:
        """Return a log with the entries up to `at`."""
        copy = Log()
        copy._entries = self._entries[: bisect_right(self._entries, at, key=_seq)]
        return copy

    def window(self, query: EventQuery) -> list[Entry]:
        """Return the entries of a window, ascending. Costs what it returns, not what is there."""
        if query.first is not None:
            return list(islice(self._matching(query, newest_first=False), query.first))
        found = self._newest(query)
        if type(query) is Ends and len(found) == query.last and found:
            rest = takewhile(
                lambda entry: entry.seq < found[0].seq, self._matching(query, newest_first=False)
            )
            return [*islice(rest, query.opening), *found]
        return found

    def _newest(self, query: EventQuery) -> list[Entry]:
        """Return the last entries of a window, or all."""
        last = query.last
        if query.since is None and (query.kinds is None or len(query.kinds) == 1):
            source, low, high = self._bounds(query)
            return source[low if last is None else max(low, high - last) : high]
        newest = self._matching(query, newest_first=True)
        found = list(newest if last is None else islice(newest, last))
        found.reverse()
        return found

    def _bounds(self, query: EventQuery) -> tuple[list[Entry], int, int]:
        """Return a list of entries, and from where to where those between the bounds are in it."""
        source = self._entries
        if query.kinds is not None and len(query.kinds) == 1:
            self._index()
            source = self._by_kind.get(query.kinds[0], [])
        low = bisect_right(source, query.after_seq, key=_seq) if query.after_seq else 0
        high = len(source)
        if query.before_seq is not None:
            high = bisect_left(source, query.before_seq, key=_seq)
        return source, low, max(low, high)

    def _matching(self, query: EventQuery, *, newest_first: bool) -> Iterator[Entry]:
        source, low, high = self._bounds(query)
        since = query.since_instant
        if since is not None:
            self._index()
            lowest = bisect_left(self._peaks, since)
            if lowest == len(self._entries):
                return
            low = max(low, bisect_left(source, self._entries[lowest].seq, key=_seq))
        indexes = range(high - 1, low - 1, -1) if newest_first else range(low, high)
        for index in indexes:
            entry = source[index]
            if since is not None and entry.at < since:
                continue
            if query.kinds is not None and entry.kind not in query.kinds:
                continue
            yield entry

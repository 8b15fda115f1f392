"""Tails: ends of logs that were just read, so that to read one again is to read what is new of it.

A conversation is read as it goes on: its last messages, after each of them. Where the session has
not moved on, nothing of its log is read. Where it has, the last event that is kept is read again
with what stands behind it. As long as that one is there, nothing before it has changed: logs are
only cut from behind, and a session gives no number twice. So what other processes do is seen, too.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from sojourn.stores.sqlite import windows

if TYPE_CHECKING:
    import apsw

    from sojourn.model import Entry
    from sojourn.store import EventQuery

TAILS = 256
"""Tails kept: of the conversations that go on at one time. Each has as many bytes of bodies as may
be read on the event loop's thread, at the most."""

STEP = 16
"""So many new events are read behind a tail; where there are more, all of it is read anew."""


class Log(NamedTuple):
    """A log as it stands: the number of its session's row, and what says whether it has changed.

    `remembered` are the session's last operations, so every commit makes it another one. `top` is
    the last number that the session has given out.
    """

    row: int
    epoch: str
    remembered: bytes
    top: int


class _Tail(NamedTuple):
    """The entries of a window as it was; `size` is no less than the bytes of their bodies."""

    remembered: bytes
    entries: list[Entry]
    size: int


class Tails:
    """Reads windows of logs on one connection, and keeps those that end where the log does."""

    def __init__(self, db: apsw.Connection, most: int) -> None:
        """`most` is how many bytes of bodies a window may have."""
        self._db = db
        self._most = most
        self._kept: dict[tuple[int, str, EventQuery], _Tail] = {}

    def entries(self, log: Log, window: EventQuery) -> list[Entry]:
        """Return a window of a log, ascending. Raises `TooLong` for one with too many bytes."""
        if not _ends_with_the_log(window):
            return windows.entries(self._db, log.row, log.top, window, self._most)
        key = (log.row, log.epoch, window)
        kept = self._kept.pop(key, None)
        tail = None if kept is None else self._continued(kept, log, window)
        if tail is None:
            found = windows.entries(self._db, log.row, log.top, window, self._most)
            tail = _Tail(log.remembered, found, _size(found))
        self._keep(key, tail)
        return tail.entries.copy()

    def clear(self) -> None:
        """Forget all: of a session that was removed nothing is to stay, in memory neither."""
        self._kept.clear()

    def _continued(self, kept: _Tail, log: Log, window: EventQuery) -> _Tail | None:
        """Return a tail as it is now, `None` if it has to be read anew."""
        if log.remembered and log.remembered == kept.remembered:
            return kept
        if not kept.entries:
            return None
        seam = kept.entries[-1]
        found = windows.behind(
            self._db, log.row, log.top, window, after=seam.seq - 1, limit=STEP + 2, most=self._most
        )
        if not found or found[0] != seam or len(found) == STEP + 2:
            return None
        added = found[1:]
        entries = windows.shown(kept.entries + added, window)
        size = kept.size + _size(added)
        return _Tail(log.remembered, entries, size if size <= self._most else _size(entries))

    def _keep(self, key: tuple[int, str, EventQuery], tail: _Tail) -> None:
        """Keep a tail as the one used last, and not more than so many."""
        if tail.size > self._most:
            return
        self._kept[key] = tail
        if len(self._kept) > TAILS:
            del self._kept[next(islice(self._kept, 1))]


def _ends_with_the_log(window: EventQuery) -> bool:
    """Return whether a window is the last so many of what there is, of all kinds or of one."""
    return (
        window.last is not None
        and window.last > 0
        and window.before_seq is None
        and window.since is None
        and (window.kinds is None or len(window.kinds) == 1)
    )


def _size(entries: list[Entry]) -> int:
    return sum([len(entry.body) for entry in entries])

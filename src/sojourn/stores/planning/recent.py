"""Sessions that this process has just written: the next write to one of them needs no read.

What is kept may be old, for others write too. Then the backend finds that a unit's expectation does
not hold, and the session is read: a wrong cache costs a round trip, never data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.stores.weighing import Weighing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.stores.planning.known import Key, Known, Loaded

SESSIONS = 4_096
"""Sessions kept: those in use at one time, at a kilobyte or two each."""

BYTES = 16 * 1024 * 1024
"""Bytes of states kept in all: a small part of what a process takes anyway."""

STATE_BYTES = 64 * 1024
"""Sessions with a larger state are read again rather than kept: one must not push out hundreds."""


class Recent:
    """The sessions used last, the oldest first, within bounds of number and size."""

    def __init__(self, *, sessions: int = SESSIONS, size: int = BYTES) -> None:
        """Start with nothing. `sessions` and `size` (bytes of states) bound what is kept."""
        self._most_sessions = sessions
        self._most_bytes = size
        self._bytes = 0
        self._sessions: dict[Key, Loaded] = {}
        self.weighing = Weighing()
        """What was written to shared tiers."""

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: Key) -> Loaded | None:
        """Return a session as it was written last by this process, `None` if it is not kept."""
        return self._sessions.get(key)

    def recall(self, keys: Iterable[Key], known: Known) -> None:
        """Add those of some sessions that are kept to what is known, unless they are read there."""
        kept = self._sessions
        for key in keys:
            loaded = kept.get(key)
            if loaded is not None:
                known.recall(key, loaded)

    def keep(self, key: Key, loaded: Loaded) -> None:
        """Keep a session as the one used last; drop the oldest beyond the bounds."""
        sessions = self._sessions
        old = sessions.pop(key, None)
        if old is not None:
            self._bytes -= len(old.state)
        if len(loaded.state) > STATE_BYTES:
            return
        sessions[key] = loaded
        self._bytes += len(loaded.state)
        while len(sessions) > self._most_sessions or self._bytes > self._most_bytes:
            self.drop(next(iter(sessions)))

    def drop(self, key: Key) -> None:
        """Forget a session."""
        old = self._sessions.pop(key, None)
        if old is not None:
            self._bytes -= len(old.state)

    def clear(self) -> None:
        """Forget all."""
        self._sessions.clear()
        self._bytes = 0

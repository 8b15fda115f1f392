"""A clock and a source of ids that a test controls."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from hashlib import blake2b

from sojourn.timestamps import from_seconds, parse_instant, to_datetime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a `FakeClock` starts unless it is told otherwise."""


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime | float = NEW_YEAR) -> None:
        """Start at an aware datetime or at seconds since the epoch.

        Raises `ValueError` for a naive datetime or an implausible number.
        """
        self._now = parse_instant(start)
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"FakeClock({to_datetime(self._now).isoformat()})"

    def now(self) -> int:
        """Return the instant in microseconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock; a negative number steps it back. Whoever slept until then is woken."""
        self._now += from_seconds(seconds)
        for sleeper in [one for one in self._sleepers if one[0] <= self._now]:
            self._sleepers.remove(sleeper)
            _wake(sleeper[1])

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been moved on by so much, however long that takes."""
        until = self._now + from_seconds(seconds)
        if until <= self._now:
            return
        sleeper = (until, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)


def _wake(sleeper: asyncio.Future[None]) -> None:
    """Let a sleeper go on, in whichever thread's loop it sleeps; one that gave up is fine."""

    def settle() -> None:
        if not sleeper.done():
            sleeper.set_result(None)

    with contextlib.suppress(RuntimeError):  # its loop is closed: nobody sleeps there any more
        sleeper.get_loop().call_soon_threadsafe(settle)


class SequenceIds:
    """Ids that count up: the same in every run.

    Two sources on one store need two prefixes: an operation id that comes twice is a retry.
    """

    def __init__(self, prefix: str = "s") -> None:
        """Session ids are the prefix and a number: `s1`, `s2`, ..."""
        self._prefix = prefix
        self._sessions = self._events = self._epochs = self._operations = 0

    def session_id(self) -> str:
        """Return `s1`, then `s2`, ..."""
        self._sessions += 1
        return f"{self._prefix}{self._sessions}"

    def event_id(self) -> str:
        """Return `s-event-1`, then `s-event-2`, ..."""
        self._events += 1
        return f"{self._prefix}-event-{self._events}"

    def epoch(self) -> str:
        """Return `s-epoch-1`, then `s-epoch-2`, ..."""
        self._epochs += 1
        return f"{self._prefix}-epoch-{self._epochs}"

    def operation(self) -> bytes:
        """Return 8 bytes that depend on the prefix and on how many were given out before."""
        self._operations += 1
        return blake2b(f"{self._prefix}:{self._operations}".encode(), digest_size=8).digest()

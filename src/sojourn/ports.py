"""What is passed in from outside: the clock, the source of ids, end hooks and cleaners."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn.session import Session


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> int:
        """Return the instant in microseconds since the epoch."""


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        """Return the instant in microseconds since the epoch."""
        return time.time_ns() // 1000


class IdSource(Protocol):
    """Makes ids. Each call returns a new one."""

    def session_id(self) -> str:
        """Return an id for a session: unguessable is not required, unique is."""

    def event_id(self) -> str:
        """Return an id for an event, unique in its session."""

    def epoch(self) -> str:
        """Return a random id for one incarnation of a session."""

    def operation(self) -> bytes:
        """Return a random id of exactly 8 bytes for one commit."""


class RandomIds:
    """UUIDv7 (RFC 9562, 5.7) as 32 hex characters for sessions and events; the rest is random.

    128 bits, the first 48 of them the time in milliseconds, so that ids made one after the other
    sit beside each other in an index; six bits are fixed and the other 74 random. Nothing is kept
    between calls: a forked process repeats nothing.
    """

    def session_id(self) -> str:
        """Return a UUIDv7 as 32 lowercase hex characters."""
        return _uuid7_hex()

    def event_id(self) -> str:
        """Return a UUIDv7 as 32 lowercase hex characters."""
        return _uuid7_hex()

    def epoch(self) -> str:
        """Return 64 random bits as 16 lowercase hex characters."""
        return os.urandom(8).hex()

    def operation(self) -> bytes:
        """Return 8 random bytes."""
        return os.urandom(8)


def _uuid7_hex() -> str:
    """Return a UUIDv7 as 32 lowercase hex characters."""
    high, low = _NOISE.unpack(os.urandom(_NOISE.size))
    millis = time.time_ns() // 1_000_000
    return f"{millis:012x}7{high & _RANDOM_HIGH:03x}{low & _RANDOM_LOW | _VARIANT:016x}"


_NOISE = struct.Struct("=HQ")
_RANDOM_HIGH = 0xFFF
"""The twelve random bits behind the version."""
_RANDOM_LOW = 0x3FFF_FFFF_FFFF_FFFF
_VARIANT = 0x8000_0000_0000_0000
"""The two bits that say whose layout it is, and the 62 random ones behind them."""


Hook: TypeAlias = "Callable[[Session, str], Awaitable[object]]"
"""`async def hook(session, reason)`: runs before an ended session is removed; raise to be retried.

It runs at least once, so it has to bear being run again.
"""


class Cleaner(Protocol):
    """Frees what a session holds outside: a process, a socket, a worktree."""

    async def clean(self, session: Session, reason: str, /) -> None:
        """Free it. Already free is success. Raise to be retried."""

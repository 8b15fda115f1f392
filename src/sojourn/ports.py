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
    sit beside each other in an index; six bits are fixed and the other 74 random. Ids are unique,
    not secret: what a browser has to know is made elsewhere, from the kernel's noise alone.
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
        return _EIGHT_BYTES(_random_word(time.time_ns()))


def _uuid7_hex() -> str:
    """Return a UUIDv7 as 32 lowercase hex characters."""
    now = time.time_ns()
    high = now // 1_000_000 << 16 | _VERSION | _random_word(now) & _RANDOM_HIGH
    return _SIXTEEN_BYTES(high, _random_word(now) & _RANDOM_LOW | _VARIANT).hex()


def _random_word(now: int) -> int:
    """Return 64 random bits that nobody else gets, mixed with the nanosecond it is.

    They are fetched many at a time, as the way into the kernel is most of their price. A forked
    process drops what is left, and so repeats nothing; a copy of the whole machine can not know
    that it is one, and is told from its twin by the time.
    """
    try:
        word = _words.pop()
    except IndexError:
        *more, word = _WORDS.unpack(os.urandom(_WORDS.size))
        _words.extend(more)
    return word ^ now


_WORDS = struct.Struct("=128Q")
"""As many as are fetched at a time: 1 KB, which takes the kernel as long as a few words alone."""
_words: list[int] = []
if hasattr(os, "register_at_fork"):  # where there is no fork there is nothing to drop
    os.register_at_fork(after_in_child=_words.clear)

_EIGHT_BYTES = struct.Struct(">Q").pack
_SIXTEEN_BYTES = struct.Struct(">QQ").pack
_VERSION = 0x7000
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

"""What observers are told: the call as it starts, the outcome as it ends, and nothing secret."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from sojourn.errors import (
    AlreadyExists,
    Closed,
    Conflict,
    Corrupt,
    LeaseHeld,
    LeaseLost,
    NotFound,
    RoleTaken,
    SojournError,
    Unavailable,
)

SECONDS_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Upper bounds of the buckets of durations: from a read in memory to a store that is stuck."""


class Result(StrEnum):
    """How a call ended, in one word."""

    OK = "ok"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    UNAVAILABLE = "unavailable"
    CORRUPT = "corrupt"
    FAILED = "failed"


TROUBLE = frozenset({Result.CLOSED, Result.UNAVAILABLE, Result.CORRUPT, Result.FAILED})
"""Results that are nobody's ordinary answer: somebody should look."""

_RESULTS: tuple[tuple[type[SojournError], Result], ...] = (
    (NotFound, Result.NOT_FOUND),
    (Conflict, Result.CONFLICT),
    (AlreadyExists, Result.CONFLICT),
    (RoleTaken, Result.CONFLICT),
    (LeaseHeld, Result.CONFLICT),
    (LeaseLost, Result.CONFLICT),
    (Corrupt, Result.CORRUPT),
    (Closed, Result.CLOSED),
    (Unavailable, Result.UNAVAILABLE),
    (SojournError, Result.REFUSED),
)


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A call of a store's verb, as it starts.

    `store` is the kind of store ("sqlite"), never where it is. `session` is the fingerprint of the
    session's id (see `Fingerprint`), never the id; `None` where the call is about no one session.
    `events` are the events that it carries, `size` the bytes of state, events and documents that
    it carries. `trigger` is what moves the session's phase, if it does. `limit` is the most that
    it may return or remove, if it says so.
    """

    store: str
    verb: str
    app: str | None = None
    session: str | None = None
    events: int = 0
    size: int = 0
    trigger: str | None = None
    limit: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a call ended.

    `seconds` is how long it took, waiting included. `error` is the name of the error's class and
    nothing else of it: messages name ids. `items` are the sessions, events or documents that came
    back or were removed, `size` the bytes of what came back. `durability` is what a write
    reached; `repeated` says that it had been applied before and was only answered.
    """

    result: Result
    seconds: float
    error: str | None = None
    items: int = 0
    size: int = 0
    durability: str | None = None
    repeated: bool = False


class Observer(Protocol):
    """Is told of every call of an observed store, on the loop's thread: return quickly, never wait.

    What it raises is logged now and then and harms nobody.
    """

    def started(self, call: Call, /) -> object:
        """Take note of a call that starts; what is returned comes back with its end."""

    def finished(self, call: Call, note: object, outcome: Outcome, /) -> None:
        """Take note of how it ended; `note` is what `started` returned."""


def result_of(error: BaseException) -> Result:
    """Return the word for a call that ended with this error."""
    for kind, result in _RESULTS:
        if isinstance(error, kind):
            return result
    # GeneratorExit too: whoever waited is gone.
    return Result.FAILED if isinstance(error, Exception) else Result.CANCELLED

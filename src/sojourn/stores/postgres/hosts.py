"""Several hosts of one store: asked one after the other, each for its share of the time.

A host that is silent, because it hangs or because what is sent to it is dropped, must not keep its
store from the others. The driver has one time limit around all of them, so each is asked alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from sojourn.errors import ReadOnly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
Place = tuple[str, int]
"""A host and its port."""

HOST_SECONDS = 2.0
"""Longest wait for a host behind which there is another one: most are there in milliseconds."""

_REPLICA = (asyncpg.TargetServerAttributeNotMatched, ReadOnly)
"""What a host that only reads comes with."""

_NOT_THERE = (
    OSError,  # a time that is up, too
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
)
"""What a host comes with that is not there. What it refuses, the others would refuse too."""


class Found:
    """Where a connection was made last: whoever makes the next one begins there."""

    def __init__(self) -> None:
        """None was made yet."""
        self.place: Place | None = None


async def first_there(
    places: Sequence[Place | None],
    found: Found,
    make: Callable[[Place | None], Awaitable[T]],
    seconds: float,
) -> T:
    """Return what `make` makes at the first place that is there and can be written.

    Places that were too slow for their share are asked again, if the others leave time for that.
    Raises what the last place in order came with, a replica only if there is nothing else.
    """
    until = asyncio.get_running_loop().time() + seconds
    failures: dict[Place | None, Exception] = {}
    waiting = sorted(places, key=lambda place: place != found.place)
    try:
        for bound in (HOST_SECONDS, seconds):
            for number, place in enumerate(waiting):
                share = _share(until, len(waiting) - number, bound)
                try:
                    async with asyncio.timeout(share):
                        made = await make(place)
                except (*_NOT_THERE, *_REPLICA) as error:
                    failures[place] = error
                    continue
                found.place = place
                return made
            waiting = [at for at in waiting if isinstance(failures[at], TimeoutError)]
            if len(places) == 1 or _share(until, 1, bound) <= 0:
                break
        raise _told([failures[place] for place in places])
    finally:
        failures.clear()  # they hold this frame, and it would hold them


def _share(until: float, left: int, bound: float) -> float:
    """Return the seconds for one place, the last one of those that are left or not."""
    rest = until - asyncio.get_running_loop().time()
    return rest if left == 1 else min(rest / left, bound)


def _told(failures: Sequence[Exception]) -> Exception:
    """Return the failure that says most: why a host is not there, not that one only reads."""
    absent = [error for error in failures if not isinstance(error, _REPLICA)]
    return (absent or failures)[-1]

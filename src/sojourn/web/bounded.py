"""Waiting for a store, but only so long. What is answered without waiting costs no timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sojourn.begun import Begun
from sojourn.errors import Unavailable
from sojourn.expiry import span_of
from sojourn.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sojourn.store import Store

T = TypeVar("T")


class Bounded:
    """Waits for one store, each time for so many seconds at most."""

    def __init__(self, store: Store, seconds: float) -> None:
        """Raises `InvalidQuery` for what is no finite number of seconds above 0."""
        span_of("timeout", seconds)
        self._store = store
        self._seconds = seconds
        self._timeouts = Timeouts()

    async def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine. Raises `Unavailable` when it takes too long.

        A store in this process answers in the first step of the coroutine, which is run here; only
        one that is waited for gets a time limit.
        """
        try:
            first = work.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        return await self.rest(first, work)

    async def rest(self, first: object, work: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine that has taken its first step and waits for `first`, as above."""
        try:
            with self._timeouts.within(self._seconds):
                return await Begun(work, first)
        except TimeoutError as error:
            reason = f"it did not answer within {self._seconds:g} s"
            raise Unavailable(self._store.name, reason) from error

"""Arrivals: what one task waits for, and goes on with at once when it comes.

A task that waits for a future goes on in the loop's next turn. Where the loop itself hands out what
has come, as it does for a socket, that turn does nothing, and costs a tenth of the round trip.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

T = TypeVar("T")


class Arrival(Generic[T]):
    """Waited for by one task at most, once.

    To that task it is a future: it has the part of that protocol which tasks use
    (https://docs.python.org/3/library/asyncio-future.html, `asyncio.isfuture`).
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_context",
        "_done",
        "_error",
        "_loop",
        "_result",
        "_wake",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing has come yet."""
        self._loop = loop
        self._done = False
        self._error: BaseException | None = None
        self._wake: Callable[[Any], object] | None = None
        self._asyncio_future_blocking = False

    def __await__(self) -> Generator[Any, None, T]:
        """Return what arrives, or raise it."""
        if not self._done:
            self._asyncio_future_blocking = True  # says to the task that it is to wait
            yield self
        return self.result()

    def done(self) -> bool:
        """Return whether it has come, or nobody waits any more."""
        return self._done

    def arrive(self, result: T) -> None:
        """Let the task go on now. To be called by the loop alone, not from within another task."""
        self._result = result
        self._done = True
        if self._wake is not None:
            self._context.run(self._wake, self)

    def set_result(self, result: T) -> None:
        """Let the task go on in the loop's next turn."""
        self._result = result
        self._end(None)

    def set_exception(self, error: BaseException) -> None:
        """The same, with an error."""
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._error = error
        self._done = True
        if self._wake is not None:
            self._loop.call_soon(self._wake, self, context=self._context)

    # --- what the task that waits calls --------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that it belongs to."""
        return self._loop

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context) -> None:
        """Note how the task goes on."""
        if self._done:
            self._loop.call_soon(wake, self, context=context)
        else:
            self._wake, self._context = wake, context

    def cancel(self, msg: object = None) -> bool:
        """Wait no more; return whether that made a difference."""
        if self._done:
            return False
        self._end(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    def result(self) -> T:
        """Return what has come, or raise it."""
        if self._error is not None:
            raise self._error
        return self._result

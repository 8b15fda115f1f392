"""Async iterators as plain ones: each step runs in the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self, TypeVar

from sojourn.blocking.deadline import late_or_not, leave
from sojourn.errors import Closed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from sojourn.blocking.gateway import Gateway
    from sojourn.manager import SessionManager

T = TypeVar("T")


class _Stopped(Exception):
    """The iterator was closed, or is at its end."""


class Iteration(Iterator[T]):
    """What a `for` statement works with in place of an `async for`.

    Several threads may share it: each item goes to one of them. `close`, from whichever thread,
    ends it for all, also for one that waits. So does an exception, an interruption or a timeout;
    a watch is taken up again behind the last event that was seen.
    """

    def __init__(
        self, gateway: Gateway, make: Callable[[SessionManager], AsyncIterator[T]]
    ) -> None:
        """Made by `SessionManager.watch` and the like; raises what making the async one does."""
        self._bridge = gateway.bridge()
        self._source = make(self._bridge.sessions)
        self._turn = threading.Lock()
        self._step: asyncio.Task[object] | None = None
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._turn:
            if self._over:
                raise StopIteration
            try:
                return self._bridge.run(self._next)
            except (_Stopped, Closed):
                if not self._over:
                    raise
                raise StopIteration from None
            except BaseException:
                self._over = True
                raise

    async def _next(self, _sessions: SessionManager) -> T:
        self._step = asyncio.current_task()
        try:
            if self._over:
                raise _Stopped
            return await anext(self._source)
        except StopAsyncIteration:
            self._over = True
            raise _Stopped from None
        finally:
            self._step = None

    def close(self) -> None:
        """End it, whether there is time left or not. Twice is fine."""
        self._over = True
        with contextlib.suppress(Closed):  # then it is closed with the manager
            late_or_not(lambda: self._bridge.run(self._end), lambda: self._bridge.run(self._end))

    async def _end(self, _sessions: SessionManager) -> None:
        step = self._step
        if step is not None:
            step.cancel()
            await asyncio.wait([step])
        aclose = getattr(self._source, "aclose", None)
        if aclose is not None:
            await aclose()

    def __enter__(self) -> Self:
        """Close it at the end of a `with` statement."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave(self.close, error)

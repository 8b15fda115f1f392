"""Time limits of calls: one timer for all of them, which hardly ever rings.

`asyncio.timeout_at` arms a timer for each call and disarms it again, which costs more than much of
what the call does. Most calls end long before their time is up.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    Task = asyncio.Task[Any]


class Timeouts:
    """Limits the calls of one owner, whichever event loop they are made in."""

    def __init__(self) -> None:
        """No call is under way yet."""
        self._timer: _Timer | None = None

    def call(self, deadline: float) -> _Call:
        """Return a block that ends with `TimeoutError` once the loop's time is past `deadline`.

        Like `asyncio.timeout_at`, it does so by cancelling the task that is in the block.
        """
        return _Call(self._timer_in(asyncio.get_running_loop()), deadline)

    def within(self, seconds: float) -> _Call:
        """Return a block that ends with `TimeoutError` after so many seconds, as `call` does."""
        loop = asyncio.get_running_loop()
        return _Call(self._timer_in(loop), loop.time() + seconds)

    def _timer_in(self, loop: asyncio.AbstractEventLoop) -> _Timer:
        timer = self._timer
        if timer is None or timer.loop is not loop:
            # Calls in another loop keep their timer: it can only ring there.
            timer = self._timer = _Timer(loop)
        return timer

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None


class _Timer:
    """The calls that are under way in one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: set[_Call] = set()
        self._armed: asyncio.TimerHandle | None = None

    def begin(self, call: _Call) -> None:
        """Note a call."""
        self._calls.add(call)
        if self._armed is None or call.deadline < self._armed.when():
            self._arm(call.deadline)

    def end(self, call: _Call) -> None:
        """Forget a call. The timer stays: the next call needs one as well."""
        self._calls.discard(call)

    def close(self) -> None:
        """Ring no more."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self, deadline: float) -> None:
        self.close()
        self._armed = self.loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        """Stop the calls that are overdue, and wait for the next deadline of the others."""
        rung, self._armed = self._armed, None
        now = self.loop.time() if rung is None else max(self.loop.time(), rung.when())
        overdue = [call for call in self._calls if call.deadline <= now]
        self._calls.difference_update(overdue)
        for call in overdue:
            call.stop()
        if self._calls:
            self._arm(min(call.deadline for call in self._calls))


class _Call:
    """A block of a task that has to end in time."""

    __slots__ = ("_cancelled_before", "_is_overdue", "_task", "_timer", "deadline")

    def __init__(self, timer: _Timer, deadline: float) -> None:
        self.deadline = deadline
        self._timer = timer
        self._is_overdue = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "calls are made by tasks"
        self._task: Task = task
        self._cancelled_before = task.cancelling()
        self._timer.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.end(self)
        if self._is_overdue:
            ours_alone = self._task.uncancel() <= self._cancelled_before
            if ours_alone and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def stop(self) -> None:
        """Cancel the task: its time is up."""
        self._is_overdue = True
        self._task.cancel()

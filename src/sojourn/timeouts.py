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
    """The calls that are under way."""

    def __init__(self) -> None:
        """None is yet."""
        self._calls: set[_Call] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, deadline: float) -> _Call:
        """Return a block that ends with `TimeoutError` once the loop's time is past `deadline`.

        Like `asyncio.timeout_at`, it does so by cancelling the task that is in the block.
        """
        return _Call(self, deadline)

    def begin(self, call: _Call, loop: asyncio.AbstractEventLoop) -> None:
        """Note a call."""
        self._calls.add(call)
        if self._timer is None or call.deadline < self._timer.when() or self._loop is not loop:
            self._arm(loop, call.deadline)

    def end(self, call: _Call) -> None:
        """Forget a call. The timer stays: the next call needs one as well."""
        self._calls.discard(call)

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        self.close()
        self._loop = loop
        self._timer = loop.call_at(deadline, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop the calls that are overdue, and wait for the next deadline of the others."""
        rung, self._timer = self._timer, None
        now = loop.time() if rung is None else max(loop.time(), rung.when())
        overdue = [call for call in self._calls if call.deadline <= now]
        self._calls.difference_update(overdue)
        for call in overdue:
            call.stop()
        if self._calls:
            self._arm(loop, min(call.deadline for call in self._calls))


class _Call:
    """A block of a task that has to end in time."""

    __slots__ = ("_cancelled_before", "_is_overdue", "_task", "_timeouts", "deadline")

    def __init__(self, timeouts: Timeouts, deadline: float) -> None:
        self.deadline = deadline
        self._timeouts = timeouts
        self._is_overdue = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "calls are made by tasks"
        self._task: Task = task
        self._cancelled_before = task.cancelling()
        self._timeouts.begin(self, task.get_loop())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timeouts.end(self)
        if self._is_overdue:
            ours_alone = self._task.uncancel() <= self._cancelled_before
            if ours_alone and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def stop(self) -> None:
        """Cancel the task: its time is up."""
        self._is_overdue = True
        self._task.cancel()

"""An event loop that a seed decides: who is next is drawn, and time jumps to the next timer.

It has no sockets, no threads and no wall clock. What is ready runs, one callback after the other,
in an order drawn from the seed, and each takes the same little time; when nothing is ready, the
clock moves to the next timer. So one seed is one run, however often it is repeated and wherever.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from selectors import DefaultSelector
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVarTuple

from sojourn.errors import SojournError
from sojourn.testing.simulator.draw import Draw

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from selectors import SelectorKey

Arguments = TypeVarTuple("Arguments")

STEP_SECONDS = 0.000_01
"""Virtual time that one callback takes: whoever is busy does not stop the clocks of the others."""

MAX_STEPS = 300_000
"""Callbacks in one run: far beyond an honest one, so that one that never ends says so."""


class Timed(Protocol):
    """What tells the time of a run: `steps` counts what has run, if anybody counts."""

    steps: int

    def time(self) -> float:
        """Return the time of the run in seconds since it began."""


class Stuck(SojournError):
    """The simulation can not go on: nothing is left to run, or it does not come to an end."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """Which of the two it is, in words."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop with virtual time and a seeded order; `steps` counts what has run."""

    def __init__(self, seed: int, *, max_steps: int = MAX_STEPS) -> None:
        """Make a loop at time 0; what it runs next is drawn from `seed`."""
        super().__init__()
        self.steps = 0
        """How many callbacks have run."""
        self._draw = Draw(seed, "order")
        self._max_steps = self._limit = max_steps
        self._virtual = 0.0
        self._waiting: list[asyncio.Handle] = []
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._made = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._thread = threading.get_ident()

    def time(self) -> float:
        """Return the virtual time in seconds since the loop was made."""
        return self._virtual

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Have a callback run, in whichever order is drawn."""
        self._check_closed()  # type: ignore[attr-defined]  # typeshed leaves it out
        handle = asyncio.Handle(callback, args, self, context)
        self._waiting.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Have a callback run. From another thread: `RuntimeError`, a simulation has one."""
        if threading.get_ident() != self._thread:
            message = "a simulation has one thread: its order would not be the seed's"
            raise RuntimeError(message)
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have a callback run at a virtual time."""
        self._check_closed()  # type: ignore[attr-defined]  # typeshed leaves it out
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1  # of two at one time, the one that was made first
        heapq.heappush(self._later, (when, self._made, handle))
        return handle

    def create_task(self, *given: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task, and remember it: a set of tasks has no order that a seed could decide."""
        task: asyncio.Task[Any] = super().create_task(*given, **options)
        self._tasks.append(task)
        return task

    @property
    def unfinished(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not come to an end, in the order in which they were made."""
        self._tasks = [task for task in self._tasks if not task.done()]
        return list(self._tasks)

    def run_in_executor(  # type: ignore[override]  # typeshed wants it to be generic
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function right here and now: a simulation has no other thread."""
        del executor
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is handed to whoever awaits the future
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        """Run one callback; asyncio calls this over and over until the loop is stopped."""
        self._collect_due()
        if self.steps == self._limit:
            self._limit += self._max_steps  # for what is to be wound up now
            raise Stuck(f"it goes on after {self.steps} steps")
        self.steps += 1
        waiting = self._waiting
        handle = waiting.pop(self._draw.randrange(len(waiting)) if len(waiting) > 1 else 0)
        self._virtual += STEP_SECONDS
        if not handle.cancelled():
            handle._run()  # noqa: SLF001 - what a loop does with a handle

    def _collect_due(self) -> None:
        """Let the timers that are due run; with nothing else to run, move on to the next one."""
        later, waiting = self._later, self._waiting
        while later and (later[0][0] <= self._virtual or not waiting):
            when, _, handle = heapq.heappop(later)
            if not handle.cancelled():
                self._virtual = max(self._virtual, when)
                waiting.append(handle)
        if not waiting:
            raise Stuck("everything waits, and nothing is left to run")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: a cancelled timer is skipped when its time has come."""

    def _process_events(self, event_list: object) -> None:
        """Nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Nothing: there is no selector to wake."""


class HurriedLoop(asyncio.SelectorEventLoop):
    """A real event loop, with sockets and threads, whose clock runs faster than the wall's.

    Who waits for ten seconds waits for one; what a server does takes as long as it takes.
    """

    steps = 0
    """Nobody counts."""

    def __init__(self, speed: float) -> None:
        """Make a loop at time 0, whose seconds are so many times shorter."""
        self._speed = speed
        self._begun = monotonic()
        super().__init__(_HurriedSelector(speed))

    def time(self) -> float:
        """Return the time in hurried seconds since the loop was made."""
        return (monotonic() - self._begun) * self._speed


class _HurriedSelector(DefaultSelector):
    """Waits for hurried seconds."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        return super().select(timeout and timeout / self._speed)

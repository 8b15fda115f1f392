"""One event loop in a daemon thread of its own, and the calls that other threads make into it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import math
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from sojourn.blocking.deadline import seconds_left
from sojourn.errors import Closed, WouldBlock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine
    from contextvars import Context

T = TypeVar("T")

log = logging.getLogger("sojourn")

EXIT_SECONDS = 2.0
"""Longest wait for a loop's thread when the interpreter exits: what was acknowledged is stored."""


SIGNAL_SECONDS = 0.2
"""Longest time for which Ctrl-C may go unnoticed: no person minds, and a look costs nothing."""


def refuse_inside_a_loop() -> None:
    """Raise `WouldBlock` in a thread in which an event loop runs: waiting would stop that loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WouldBlock("a call of sojourn.blocking")


def wait_for(over: threading.Event, seconds: float | None = None) -> bool:
    """Wait for an event, for so long at most; return whether it is set.

    The main thread looks up now and then: a signal that comes just before a thread goes to
    sleep is handled only once it wakes.
    """
    if threading.current_thread() is not threading.main_thread():
        return over.wait(seconds)
    left = math.inf if seconds is None else seconds
    while left > SIGNAL_SECONDS:
        if over.wait(SIGNAL_SECONDS):
            return True
        left -= SIGNAL_SECONDS
    return over.wait(left)


class Lodger(Protocol):
    """What lives in a loop, begins work by itself, and has to stop before the loop does."""

    async def stop(self, *, cancel: bool) -> object:
        """Begin nothing more, and cut short what is under way."""


class Call(Generic[T]):
    """One coroutine on its way through the loop, and the thread that waits for its outcome."""

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, T]],
        context: Context,
        tell: Callable[[], object] | None = None,
    ) -> None:
        """`start` is called in the loop; the coroutine runs in `context`.

        `tell` is called once the outcome is final, in the loop's thread or in the one that gave up.
        """
        self.context = context
        self._start = start
        self._tell = tell
        self._task: asyncio.Task[T] | None = None
        self._error: BaseException | None = None
        self._result: list[T] = []
        self._over = threading.Event()

    def begin(self, done: Callable[[Call[T]], object]) -> None:
        """Start it, and call `done` with it once it is over; called in the loop."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._start(), context=self.context)
        self._task.add_done_callback(self._end)
        self._task.add_done_callback(lambda _task: done(self))

    def give_up(self, done: Callable[[Call[T]], object]) -> None:
        """Cancel it; called in the loop. One that has not begun by now never will."""
        if self._task is None:  # interrupted while it was submitted
            self.lose()
            done(self)
        else:
            self._task.cancel()

    def lose(self) -> None:
        """Note that there will be no outcome, if there is none yet."""
        if not self._over.is_set():
            self._error = Closed("session manager", "closed while this call was under way")
            self._finish()

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.lose()
            return
        self._error = task.exception()
        if self._error is None:
            self._result.append(task.result())
        self._finish()

    def _finish(self) -> None:
        self._over.set()
        if self._tell is not None:
            self._tell()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until its outcome is final; return whether it is."""
        return wait_for(self._over, seconds)

    def was_cancelled(self) -> bool:
        """Return whether it came to nothing because it was cancelled."""
        return self._task is None or self._task.cancelled()

    def outcome(self) -> T:
        """Return its result, or raise what it failed with."""
        if self._error is None:
            return self._result[0]
        try:
            raise self._error
        finally:
            self._error = None  # else the error, by its traceback, would keep itself alive
            del self


async def _until_set(over: asyncio.Event) -> None:
    """Wait for an event, whoever cancels meanwhile; the first cancellation is raised anyway."""
    while not over.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await over.wait()


class LoopThread:
    """An event loop that runs in a daemon thread until it is stopped."""

    def __init__(
        self,
        lodgers: Collection[Lodger] = (),
        last: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Start the thread. Raises `Closed` where none can be started: at interpreter exit.

        `lodgers` are stopped before anything else when the loop is: whoever is there then. `last`
        is awaited behind everything else, in whichever way the loop is stopped.
        """
        self._lodgers = lodgers
        self._last = last
        self._loop = asyncio.new_event_loop()
        self._lock = threading.RLock()  # a signal handler may come back while its thread holds it
        self._calls: set[Call[Any]] = set()
        self._closed = False
        self._ending: asyncio.Task[None] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="sojourn blocking", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._loop.close()
            raise Closed("session manager", f"out of reach: {error}") from error
        _threads.add(self)

    def run(self, start: Callable[[], Coroutine[Any, Any, T]], context: Context) -> T:
        """Run a coroutine in the loop and return its result.

        Whoever is interrupted meanwhile has it cancelled and leaves once its outcome is final; a
        second interruption leaves at once. Raises `TimeoutError` after the thread's deadline and
        `Closed` once the loop is stopped, also to those who wait then.
        """
        left = seconds_left()
        if left is not None and left <= 0:
            raise TimeoutError("no time is left for this call")
        call = Call(start, context)
        try:
            self._submit(call)
            ended = call.wait(left)
        except BaseException:
            self._give_up(call)
            raise
        if not ended:
            self._give_up(call)
            if call.was_cancelled():
                raise TimeoutError("the call took too long and was cancelled")
        return call.outcome()

    async def awaited(self, start: Callable[[], Coroutine[Any, Any, T]], context: Context) -> T:
        """Run a coroutine in this loop for one that runs in another loop; return its result.

        Whoever is cancelled meanwhile has it cancelled, and goes on once its outcome is final.
        Raises `Closed` as `run` does.
        """
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop of whoever waited is closed
                loop.call_soon_threadsafe(over.set)

        call = Call(start, context, tell)
        self._submit(call)
        try:
            await over.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so the call is over
                self._loop.call_soon_threadsafe(call.give_up, self._calls.discard)
            await _until_set(over)
            raise
        return call.outcome()

    def _submit(self, call: Call[Any]) -> None:
        with self._lock:
            if self._closed:
                raise Closed("session manager")
            self._calls.add(call)
            self._loop.call_soon_threadsafe(self._begin, call, context=call.context)

    def _begin(self, call: Call[Any]) -> None:
        call.begin(self._calls.discard)

    def _give_up(self, call: Call[Any]) -> None:
        """Cancel a call and wait until its outcome is final."""
        if call not in self._calls:  # it is over, or was never submitted
            call.lose()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so the call is over
            self._loop.call_soon_threadsafe(call.give_up, self._calls.discard)
        call.wait()

    # --- stopping ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more calls, cancel those under way, and return once the thread is gone."""
        self.stop_soon()
        self._thread.join()

    def stop_soon(self) -> None:
        """Do what `stop` does without waiting, from any thread."""
        with self._lock, contextlib.suppress(RuntimeError):  # the loop is closed already
            self._closed = True
            self._loop.call_soon_threadsafe(self._begin_ending)

    def join(self, seconds: float) -> None:
        """Wait so long at most for the thread to be gone."""
        self._thread.join(seconds)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def _begin_ending(self) -> None:
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        try:
            stops = [lodger.stop(cancel=True) for lodger in list(self._lodgers)]
            await asyncio.gather(*stops, return_exceptions=True)
            others = asyncio.all_tasks() - {self._ending}
            for task in others:
                task.cancel()
            if others:
                await asyncio.wait(others)
            await self._loop.shutdown_asyncgens()
            if self._last is not None:
                await self._last()
        except Exception:
            log.exception("the background loop of a session manager did not end well")
        finally:
            self._stopped = True
            self._loop.stop()

    def _serve(self) -> None:
        """Run the loop until it is stopped, whatever else a task may raise out of it."""
        try:
            while not self._stopped:
                try:
                    self._loop.run_forever()
                except BaseException:
                    log.exception("something tried to end the loop of a session manager")
        finally:
            with self._lock:
                self._closed = True
                self._loop.close()
            for call in tuple(self._calls):  # nobody waits for ever, whatever went wrong
                call.lose()


_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()


def _stop_all() -> None:
    """Stop the threads that are left at the end of the interpreter, in bounded time."""
    threads = list(_threads)
    for thread in threads:
        thread.stop_soon()
    for thread in threads:
        thread.join(EXIT_SECONDS)


atexit.register(_stop_all)


def forget_all() -> None:
    """Leave the loops to the process that this one was forked from; called in the child."""
    _threads.clear()

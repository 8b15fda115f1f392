"""Threads: the ambient session in threads and executors, where it does not come by itself.

A working copy is not locked: let one thread at a time change it, as `run_in_scope` does by itself.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from concurrent.futures import Executor
from contextvars import copy_context
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from sojourn.errors import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")

ELSEWHERE = {"ProcessPoolExecutor", "InterpreterPoolExecutor"}
"""Executors whose workers share no memory with this interpreter: nothing ambient can go there."""


def in_scope(fn: Callable[P, T]) -> Callable[P, T]:
    """Return `fn` bound to what is ambient here, the session and other context variables alike.

    For `threading.Thread`, `Executor.submit` and callbacks. Once the scope is left, what is bound
    sees no session any more. May be called many times, by several threads at once.
    """
    _check_plain(fn)
    context = copy_context()

    @functools.wraps(fn)
    def bound(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.copy().run(fn, *args, **kwargs)

    return bound


async def run_in_scope(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that blocks in a thread, inside the scope at hand, and return its result.

    It runs in the loop's default executor. The scope is not left while it runs: whoever is
    cancelled here waits for it first, unless it had not begun, and then it never runs.
    """
    _check_plain(fn)
    run = _Run(in_scope(functools.partial(fn, *args, **kwargs)))
    running = asyncio.get_running_loop().run_in_executor(None, run)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError as cancelled:
        if run.withdraw():
            running.cancel()
            raise
        await _until_done(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            cancelled.add_note(f"and what ran in the thread raised {error!r}")
        raise


class ScopedExecutor(Executor):
    """An executor of threads that runs each call inside the scope in which it was submitted.

    For `loop.run_in_executor(ScopedExecutor(pool), fn)` and libraries that take an executor.
    """

    def __init__(self, executor: Executor) -> None:
        """Wrap an executor. Raises `InvalidQuery` for one of other processes: `carry` goes there.

        Shutting the wrapper down shuts it down.
        """
        if not isinstance(executor, Executor):
            raise InvalidQuery("executor", f"give an Executor, not {type(executor).__name__}")
        if ELSEWHERE & {kind.__name__ for kind in type(executor).__mro__}:
            reason = "nothing ambient goes to another process: send carry() there, and resume it"
            raise InvalidQuery("executor", reason)
        self._executor = executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn` called by a thread, inside the scope at hand."""
        return self._executor.submit(in_scope(fn), *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is Executor's
        """Take no more calls; see `Executor.shutdown`."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


class _Run(Generic[T]):
    """A call on its way to a thread: it begins once, or is withdrawn before that."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._begins = threading.Lock()

    def __call__(self) -> T:
        if not self._begins.acquire(blocking=False):
            raise asyncio.CancelledError
        try:
            return self._call()
        except StopIteration as error:  # a future cannot hold it: whoever waits would wait for ever
            raise RuntimeError("the function raised StopIteration") from error

    def withdraw(self) -> bool:
        """Keep it from beginning; return `False` if it has begun already."""
        return self._begins.acquire(blocking=False)


async def _until_done(running: asyncio.Future[T]) -> None:
    """Wait until a thread is done, however often somebody cancels meanwhile."""
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:  # the caller raises the first one when this is done
            continue


def _check_plain(fn: object) -> None:
    """Raise `InvalidQuery` for what cannot be called by a thread."""
    if not callable(fn):
        raise InvalidQuery("fn", f"give a function, not {type(fn).__name__}")
    if inspect.iscoroutinefunction(fn):
        raise InvalidQuery("fn", "it is async and needs no thread: await it")

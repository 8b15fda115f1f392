"""Work that blocks, off the event loop: also while the interpreter exits.

Python ends the threads of its executors before it calls what `atexit` knows. Many an application
closes its store there, and then there is nobody left to hand work to.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

P = ParamSpec("P")
T = TypeVar("T")

_Outcome: TypeAlias = "asyncio.Future[tuple[T | None, BaseException | None]]"
"""What came of a call. An error is not set as the future's own, which does not take every kind."""


def off_loop(
    executor: Executor | None, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> asyncio.Future[T]:
    """Have `work(…)` called by a thread of `executor`, or by one of its own for `None`.

    The loop's own threads are not used: whatever an application hands to them may never return.
    Where no thread takes it any more it is called here: the loop has little else to do then.
    """
    loop = asyncio.get_running_loop()
    call = partial(work, *args, **kwargs)
    try:
        if executor is None:
            return asyncio.ensure_future(_arrived(_begun(call, "sojourn work")))
        return loop.run_in_executor(executor, call)
    except RuntimeError:  # nobody takes it; what the work itself raises comes by the future
        done: asyncio.Future[T] = loop.create_future()
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed on, whatever it is
            done.set_exception(error)
        return done


async def called_in_thread(call: Callable[[], T], name: str) -> T:
    """Call a function in a thread of its own: many that wait for one another are no trouble.

    It is a daemon, so that a program can end although a call never does. It sees the context of
    whoever awaits, and is not stopped when nobody waits any more.
    """
    return await _arrived(_begun(call, name))


def _begun(call: Callable[[], T], name: str) -> _Outcome[T]:
    """Begin a call. Raises `RuntimeError` where no thread can be started."""
    loop = asyncio.get_running_loop()
    outcome: _Outcome[T] = loop.create_future()
    context = copy_context()

    def arrive(result: T | None, error: BaseException | None) -> None:
        if not outcome.done():  # cancelled: nobody waits for it any more
            outcome.set_result((result, error))

    def work() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = context.run(call)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed meanwhile
            loop.call_soon_threadsafe(arrive, result, failure)

    threading.Thread(target=work, name=name, daemon=True).start()
    return outcome


async def _arrived(outcome: _Outcome[T]) -> T:
    result, error = await outcome
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # without an error it is the function's

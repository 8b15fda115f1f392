"""Work that blocks, off the event loop: also while the interpreter exits.

Python ends the threads of its executors before it calls what `atexit` knows. Many an application
closes its store there, and then there is nobody left to hand work to.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

P = ParamSpec("P")
T = TypeVar("T")


def off_loop(
    executor: Executor | None, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> asyncio.Future[T]:
    """Have `work(…)` called by a thread of `executor`, or of the loop's own for `None`.

    Where no thread takes it any more it is called here: the loop has little else to do then.
    """
    loop = asyncio.get_running_loop()
    call = partial(work, *args, **kwargs)
    try:
        return loop.run_in_executor(executor, call)
    except RuntimeError:  # nobody takes it; what the work itself raises comes by the future
        done: asyncio.Future[T] = loop.create_future()
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed on, whatever it is
            done.set_exception(error)
        return done

"""How long a thread is willing to wait: a deadline around the calls that it makes."""

from __future__ import annotations

import contextlib
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from sojourn.errors import Closed, InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

T = TypeVar("T")

LONGEST_SECONDS = 4_000_000.0
"""Longest time that can be waited for, some 46 days: what a lock takes on every platform."""

_until: ContextVar[float | None] = ContextVar("sojourn_until", default=None)


@contextmanager
def timeout(seconds: float) -> Iterator[None]:
    """Give the calls inside so many seconds together; a call that has no time left is cancelled.

    It raises `TimeoutError` then, once its outcome is final: nothing goes on behind the caller's
    back. A call that came to its end all the same returns its result. Of nested ones the first to
    be over counts. Raises `InvalidQuery` for a number below 0.
    """
    if type(seconds) not in (int, float) or not seconds >= 0:  # nor is not-a-number one
        raise InvalidQuery("seconds", f"give a number from 0, not {seconds!r}")
    until = time.monotonic() + min(seconds, LONGEST_SECONDS)
    around = _until.get()
    token = _until.set(until if around is None else min(until, around))
    try:
        yield
    finally:
        _until.reset(token)


def seconds_left() -> float | None:
    """Return how long this thread may still wait, `None` for as long as it takes."""
    until = _until.get()
    return None if until is None else until - time.monotonic()


@contextmanager
def no_deadline() -> Iterator[None]:
    """Give the calls inside as long as they take: what has to be done, late or not."""
    token = _until.set(None)
    try:
        yield
    finally:
        _until.reset(token)


def late_or_not(end: Callable[[], T], at_once: Callable[[], object]) -> T:
    """Return what `end` does: something that has to be ended, whether there is time for it or not.

    Who has none left, or runs out of it meanwhile, may have asked for nothing yet: then it is ended
    by `at_once`, for as long as that takes, and the `TimeoutError` is raised once it is.
    """
    try:
        return end()
    except TimeoutError:
        with no_deadline(), contextlib.suppress(Closed):  # then it has ended with the manager
            at_once()
        raise


def leave(end: Callable[[], object], error: BaseException | None) -> None:
    """End something with the body that it was for; what the body raised is what matters then.

    With nothing raised, `TimeoutError` and `Closed` of the end are.
    """
    try:
        end()
    except (Closed, TimeoutError):  # `Closed`: a fork's child leaves the body of its parent
        if error is None:
            raise


def without_deadline(context: Context) -> Context:
    """Return the context with no deadline in it: who waits is in a hurry, not what it waits for."""
    if context.get(_until) is not None:
        context.run(_until.set, None)
    return context

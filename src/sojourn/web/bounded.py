"""Waiting for a store, but only so long. What is answered without waiting costs no timer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sojourn.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from sojourn.store import Store

T = TypeVar("T")


async def rest(first: object, work: Coroutine[Any, Any, T], seconds: float, store: Store) -> T:
    """Await a coroutine, which waits for `first`, for so many seconds at most.

    Raises `Unavailable` after that.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _Begun(work, first)
    except TimeoutError as error:
        reason = f"it did not answer within {seconds:g} s"
        raise Unavailable(store.name, reason) from error


async def bounded(work: Coroutine[Any, Any, T], seconds: float, store: Store) -> T:
    """Await a coroutine for so many seconds at most. Raises `Unavailable` after that.

    A store in this process answers in the first step of the coroutine, which is run here; only one
    that is waited for gets a timer.
    """
    try:
        first = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return await rest(first, work, seconds, store)


class _Begun(Generic[T]):
    """Awaits a coroutine that has taken its first step and waits for `first`."""

    __slots__ = ("_waited", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], first: object) -> None:
        self._work = work
        self._waited = first

    def __await__(self) -> Generator[Any, Any, T]:
        waited = self._waited
        while True:
            try:
                try:
                    sent = yield waited
                except BaseException as error:  # noqa: BLE001 - handed on, whatever it is
                    waited = self._work.throw(error)
                else:
                    waited = self._work.send(sent)
            except StopIteration as done:
                result: T = done.value
                return result

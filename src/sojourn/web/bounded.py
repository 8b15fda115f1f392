"""Waiting for a store, but only so long. What is answered without waiting costs no timer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sojourn.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

T = TypeVar("T")


class Bounded(Generic[T]):
    """Awaits a coroutine for so many seconds at most. Raises `Unavailable` after that.

    A store in this process answers in the first step of the coroutine, which is run here; only one
    that is waited for gets a timer.
    """

    def __init__(self, work: Coroutine[Any, Any, T], seconds: float, name: str) -> None:
        """`name` is what the error calls the store."""
        self._work = work
        self._seconds = seconds
        self._name = name

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            first = self._work.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        return (yield from self._rest(first).__await__())

    async def _rest(self, first: object) -> T:
        try:
            async with asyncio.timeout(self._seconds):
                return await _Begun(self._work, first)
        except TimeoutError as error:
            reason = f"it did not answer within {self._seconds:g} s"
            raise Unavailable(self._name, reason) from error


class _Begun(Generic[T]):
    """Awaits a coroutine that has taken its first step and waits for `first`."""

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

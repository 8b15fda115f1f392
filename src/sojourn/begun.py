"""Coroutines whose first step is taken at once, by whoever starts them.

What ends in its first step needs no task, and what is sent there leaves a turn of the loop earlier.
That step has no task of its own: it must not ask for the current one, as a time limit does, nor
wait for a future that others wait for too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

T = TypeVar("T")


class Begun(Generic[T]):
    """Awaits a coroutine that has taken its first step and waits for `first`."""

    __slots__ = ("_waited", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], first: object) -> None:
        """`first` is what the first `send` returned."""
        self._work = work
        self._waited = first

    def __await__(self) -> Generator[Any, Any, T]:
        """Return what the coroutine does, or raise it."""
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

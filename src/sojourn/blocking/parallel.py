"""A bounded parallel map for functions that block: each of a few threads takes item after item."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from contextvars import copy_context
from operator import length_hint
from typing import TYPE_CHECKING, Generic, TypeVar

from sojourn.arguments import at_a_time
from sojourn.background import PARALLEL
from sojourn.blocking.deadline import seconds_left
from sojourn.blocking.gateway import gateway_to
from sojourn.blocking.loop import refuse_inside_a_loop, wait_for
from sojourn.blocking.spans import Span, as_it_is
from sojourn.errors import OutOfScope
from sojourn.scopes import carry, current_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

Item = TypeVar("Item")
T = TypeVar("T")


def parallel_map(
    fn: Callable[[Item], T],
    items: Iterable[Item],
    *,
    limit: int = PARALLEL,
    child: bool = False,
) -> list[T]:
    """Return `fn(item)` for each item, in the order of the items, up to `limit` at a time.

    Each is called in a thread. All see the ambient session, as the same working copy, which only
    one thread at a time may change; with `child=True` each works on one of its own, in a child
    scope that saves it when the item is done. Items are taken as they are needed. After the first
    error no more are taken, it is raised once those under way are done, and what they saved stays;
    so it is with an interruption, and with `timeout`. Raises `OutOfScope` for child scopes where no
    session is ambient, and `WouldBlock` where an event loop runs.
    """
    at_a_time(limit)
    refuse_inside_a_loop()
    work = _Work(fn, items, _child_scopes() if child else nullcontext)
    work.run(min(limit, max(1, length_hint(items, limit))))
    return work.outcome()


def _child_scopes() -> Callable[[], AbstractContextManager[object]]:
    """Return what makes child scopes of the ambient one. Raises `OutOfScope` without one."""
    scope = current_scope()
    if scope is None:
        raise OutOfScope("parallel_map(child=True)")
    gateway, carried = gateway_to(scope), carry(scope.session)
    return lambda: Span(gateway, lambda sessions: sessions.resume(carried), as_it_is)


class _Work(Generic[Item, T]):
    """The items of one call, and the threads that take them."""

    def __init__(
        self,
        fn: Callable[[Item], T],
        items: Iterable[Item],
        around: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._fn = fn
        self._numbered = enumerate(items)
        self._around = around
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # of who takes an item: its source may take its time
        self._overs: list[threading.Event] = []  # of each thread, set once it is done
        self._begun: set[threading.Event] = set()
        self._enough = False
        self._results: dict[int, T] = {}
        self._error: BaseException | None = None

    def run(self, threads: int) -> None:
        """Work with so many threads, until all are done. A second interruption leaves at once."""
        try:
            for _ in range(threads):
                self._begin()
            self._wait()
        except BaseException:
            self._enough = True
            self._wait()
            raise

    def _wait(self) -> None:
        for over in self._overs:
            wait_for(over)

    def outcome(self) -> list[T]:
        """Return the results, or raise the first error."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # else the error, by its traceback, would keep itself alive
                del self
        return [self._results[number] for number in range(len(self._results))]

    def _begin(self) -> None:
        """Start a thread, in the context of whoever calls."""
        over = threading.Event()
        work = copy_context().run
        # A daemon, so that whoever was interrupted twice can end the program.
        thread = threading.Thread(
            target=work, args=(self._take_all, over), name="sojourn parallel", daemon=True
        )
        try:
            self._overs.append(over)
            thread.start()
        except BaseException:
            with self._lock:
                if over not in self._begun:  # interrupted, it may have begun all the same
                    over.set()
            raise

    def _take_all(self, over: threading.Event) -> None:
        """Take item after item until there are no more, or one has failed."""
        with self._lock:
            if over.is_set():  # nobody waits for this thread
                return
            self._begun.add(over)
        try:
            while (taken := self._take()) is not None:
                number, item = taken
                with self._around():
                    result = self._fn(item)
                self._results[number] = result
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._fail(error)
        finally:
            over.set()

    def _take(self) -> tuple[int, Item] | None:
        """Return the next item with its number. Raises `TimeoutError` if there is no time left."""
        with self._turn:
            taken = None if self._enough else next(self._numbered, None)
        left = seconds_left()
        if taken is not None and left is not None and left <= 0:
            raise TimeoutError("no time is left for the next item")
        return None if self._enough else taken

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._enough = True
            if self._error is None:
                self._error = error

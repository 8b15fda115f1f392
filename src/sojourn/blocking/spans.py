"""Async context managers as plain ones: entered and left in the loop, in one context."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from contextvars import Context, ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sojourn.blocking.deadline import no_deadline, seconds_left, without_deadline
from sojourn.errors import Closed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from sojourn.blocking.gateway import Bridge, Gateway
    from sojourn.manager import SessionManager

Inner = TypeVar("Inner")
T = TypeVar("T")


class Span(AbstractContextManager[T], Generic[Inner, T]):
    """What a `with` statement works with in place of an `async with`.

    What entering sets in the context (the ambient session) is set for the thread that enters, and
    for what it calls, until it leaves.
    """

    def __init__(
        self,
        gateway: Gateway,
        make: Callable[[SessionManager], AbstractAsyncContextManager[Inner]],
        shown: Callable[[Bridge, Inner], T],
    ) -> None:
        """`make` makes the async one; `shown` makes of its value what the body is given."""
        self._gateway = gateway
        self._make = make
        self._shown = shown
        self._entered: list[_Entered] = []

    def __enter__(self) -> T:
        bridge = self._gateway.bridge()
        context = without_deadline(copy_context())
        before = context.copy()
        inside: list[AbstractAsyncContextManager[Inner]] = []

        async def enter(sessions: SessionManager) -> Inner:
            manager = self._make(sessions)
            value = await manager.__aenter__()
            inside.append(manager)
            return value

        try:
            value = bridge.run(enter, context)
        except BaseException as error:
            if inside:  # interrupted too late: nobody is there to leave it, so it is left here
                _Entered(bridge, context, inside[0]).leave(type(error), error, None)
            raise
        entered = _Entered(bridge, context, inside[0])
        entered.adopt(before)
        self._entered.append(entered)
        return self._shown(bridge, value)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._entered.pop().leave(kind, error, trace)


class _Entered:
    """One passage through a `with` statement."""

    def __init__(
        self, bridge: Bridge, context: Context, manager: AbstractAsyncContextManager[Any]
    ) -> None:
        self._bridge = bridge
        self._context = context
        self._manager = manager
        self._tokens: list[tuple[ContextVar[Any], Token[Any]]] = []

    def adopt(self, before: Context) -> None:
        """Set for this thread what entering has set in the context, which was as `before`."""
        unset = object()
        for variable, value in self._context.items():
            if before.get(variable, unset) is not value:
                self._tokens.append((variable, variable.set(value)))

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Leave the async context manager, then undo what entering set in the context.

        Who has no time left leaves it all the same: else it would be held for ever. A body that
        was done too late has failed then, with the `TimeoutError` that is raised.
        """
        left = seconds_left()
        try:
            if left is None or left > 0:
                return self._aexit(kind, error, trace)
            with no_deadline():
                if error is not None:
                    return self._aexit(kind, error, trace)
                late = TimeoutError("no time is left for what is done at the end of this body")
                self._aexit(TimeoutError, late, None)
                raise late
        except Closed:
            if error is None:
                raise
            return False  # what the body raised is what matters
        finally:
            for variable, token in reversed(self._tokens):
                # Left by another thread than entered: there it was never set.
                with contextlib.suppress(ValueError):
                    variable.reset(token)

    def _aexit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        async def leave(_sessions: SessionManager) -> bool | None:
            return await self._manager.__aexit__(kind, error, trace)

        return self._bridge.run(leave, self._context)


def as_it_is(_bridge: Bridge, value: T) -> T:
    """Show the body what the async context manager shows."""
    return value

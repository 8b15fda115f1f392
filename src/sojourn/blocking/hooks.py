"""Functions of the user that block: each call gets a thread, so that the loop goes on meanwhile."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sojourn.exiting import called_in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sojourn import ports
    from sojourn.session import Session

Hook: TypeAlias = "Callable[[Session, str], object]"
"""`def hook(session, reason)`: runs before an ended session is removed; raise to be retried.

It runs at least once, so it has to bear being run again. A plain function gets a thread; an async
one runs in the manager's loop, where it must not block.
"""


class Cleaner(Protocol):
    """Frees what a session holds outside: a process, a socket, a worktree."""

    def clean(self, session: Session, reason: str, /) -> object:
        """Free it, in a thread, or async. Already free is success. Raise to be retried."""


def in_thread(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return an async function that calls a plain one in a thread; an async one stays as it is.

    The thread sees the context of whoever awaits. It is not stopped when nobody waits any more.
    What cannot be called is returned as it is, to be refused where it is used.
    """
    call = getattr(function, "__call__", None)  # noqa: B004 - that of an object may be async
    if call is None or inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        return function

    async def called(*arguments: Any) -> Any:
        made = await called_in_thread(lambda: function(*arguments), "sojourn hook")
        return await made if inspect.isawaitable(made) else made

    return called


class _ThreadedCleaner:
    """A cleaner as the async manager takes it."""

    def __init__(self, cleaner: Cleaner) -> None:
        self._clean = in_thread(cleaner.clean)

    async def clean(self, session: Session, reason: str, /) -> None:
        """Free what the session holds outside."""
        await self._clean(session, reason)


def threaded_cleaners(cleaners: Sequence[Cleaner]) -> tuple[ports.Cleaner, ...]:
    """Return cleaners as the async manager takes them; what is none is left for it to refuse."""
    return tuple(
        _ThreadedCleaner(cleaner) if callable(getattr(cleaner, "clean", None)) else cleaner  # type: ignore[misc]  # refused by the manager
        for cleaner in cleaners
    )

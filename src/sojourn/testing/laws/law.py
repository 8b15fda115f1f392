"""What a law is: a promise of the contract with a name, the abilities it needs, and its check."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sojourn.testing.laws.corner import Corner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn.store import Store

    Check = Callable[[Corner], Awaitable[None]]


class Reopen(Protocol):
    """The ability to be closed and opened again with the same data, as laws see it."""

    async def __call__(self) -> Store:
        """Close the store if it is open, and return a new one over the same data, opened."""


class Law(NamedTuple):
    """One promise of the contract."""

    name: str
    noun: str
    text: str
    check: Check
    needs: type[Any] | None
    behaviours: tuple[int, ...]

    def missing(self, store: Store, reopen: Reopen | None) -> str | None:
        """Return the ability that this law needs and the store lacks, `None` if there is none."""
        if self.needs is None:
            return None
        there = reopen is not None if self.needs is Reopen else isinstance(store, self.needs)
        return None if there else self.needs.__name__

    async def __call__(self, store: Store, reopen: Reopen | None = None) -> None:
        """Raise `Broken` if the open store breaks this law."""
        await self.check(Corner(store, self.name, reopen))


REGISTRY: dict[str, Law] = {}
"""Every law that was marked so far, by name."""


def law(
    *, needs: type[Any] | None = None, behaviours: tuple[int, ...] = ()
) -> Callable[[Check], Check]:
    """Mark a function as a law.

    `needs` is the ability it is about: a `Supports...` protocol, or `Reopen`. `behaviours` are the
    rows of the list of behaviours that it covers. Raises `ValueError` for a name that is taken, and
    for a law without a docstring.
    """

    def mark(check: Check) -> Check:
        name = getattr(check, "__name__", "")
        text = inspect.getdoc(check)
        if name in REGISTRY:
            raise ValueError(f"there is a law called {name!r} already")
        if not text:
            raise ValueError(f"the law {name!r} has no docstring to say what it promises")
        noun = check.__module__.rpartition(".")[2]
        REGISTRY[name] = Law(name, noun, text, check, needs, behaviours)
        return check

    return mark

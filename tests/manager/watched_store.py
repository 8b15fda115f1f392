"""A real store behind glass: what is asked of it is noted, and a call can be held or failed."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from sojourn import SessionManager, open_store
from sojourn.context import uninterrupted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sojourn.store import Store

When = Literal["before", "after"]


class Gate:
    """Where a call stands still: `arrived` is set once it is there, `go` lets it on."""

    def __init__(self, when: When) -> None:
        self.when = when
        self.arrived = asyncio.Event()
        self._open = asyncio.Event()

    def go(self) -> None:
        """Let the call on."""
        self._open.set()

    async def stand(self) -> None:
        """Wait here."""
        self.arrived.set()
        await self._open.wait()


class WatchedStore:
    """Passes everything on to a real store. A gate or a failure is for the next such call only."""

    def __init__(self, store: Store) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.name = store.name
        self._store = store
        self._gates: dict[str, Gate] = {}
        self._failures: dict[str, tuple[When, Exception]] = {}
        # Set, and not looked up when asked for: from Python 3.12 on a protocol sees nothing else.
        for verb in set(dir(store)) - set(dir(self)):
            if inspect.iscoroutinefunction(getattr(store, verb)):
                setattr(self, verb, self._passed(verb))

    @property
    def verbs(self) -> list[str]:
        """The names of the calls so far."""
        return [verb for verb, _ in self.calls]

    def forget_calls(self) -> None:
        """Start counting anew."""
        self.calls.clear()

    def hold(self, verb: str, when: When) -> Gate:
        """Hold the next call of a verb before the store sees it, or after the store has done it."""
        gate = self._gates[verb] = Gate(when)
        return gate

    def fail(self, verb: str, error: Exception, when: When = "before") -> None:
        """Fail the next call of a verb, before the store sees it or after the store has done it."""
        self._failures[verb] = (when, error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _passed(self, verb: str) -> Callable[..., Any]:
        """Return what passes calls of a verb on."""

        async def call(*arguments: Any) -> Any:
            found = getattr(self._store, verb)
            self.calls.append((verb, arguments))
            gate = self._gates.pop(verb, None)
            when, error = self._failures.pop(verb, ("before", None))
            if gate is not None and gate.when == "before":
                await gate.stand()
            if error is not None and when == "before":
                raise error
            result = await uninterrupted(found(*arguments))
            if gate is not None and gate.when == "after":
                await gate.stand()
            if error is not None:
                raise error
            return result

        return call


@asynccontextmanager
async def watched(
    url: str, **collaborators: Any
) -> AsyncIterator[tuple[SessionManager, WatchedStore]]:
    """Open the store of a URL behind glass, with a manager in front."""
    store = open_store(url)
    await store.open()
    glass = WatchedStore(store)
    try:
        async with SessionManager(cast("Store", glass), **collaborators) as sessions:
            yield sessions, glass
    finally:
        await store.close()

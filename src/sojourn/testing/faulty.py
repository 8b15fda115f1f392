"""A store that goes wrong when a test says so, around any store that works.

It can refuse a call, cut it off, lose its reply after it was applied, send it twice, hold it back,
or cancel its caller: the nth call of a verb, those that a predicate picks, or by a random plan.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sojourn import store as contract
from sojourn.errors import InvalidQuery, SojournError
from sojourn.store import Store, place_of
from sojourn.testing.faults import Call, Cancel, Cut, Delay, Fail, Lose, Repeat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from sojourn.model import Entry, Header, Record, StoredDocument
    from sojourn.store import (
        Change,
        Committed,
        Create,
        Delete,
        DocumentQuery,
        Due,
        EventQuery,
        Fork,
        Get,
        Listed,
        Query,
        Tiers,
        Touch,
    )
    from sojourn.testing.fakes import FakeClock
    from sojourn.testing.faults import Fault, Until

    Plan = Callable[[Call], Iterable[Fault]]
    """Says of each call what happens to it."""

Reply = TypeVar("Reply")

ABILITIES: tuple[type, ...] = tuple(
    value for name, value in vars(contract).items() if name.startswith("Supports")
)
"""The optional protocols of a store."""


def _coroutines(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if inspect.iscoroutinefunction(value)]


VERBS: frozenset[str] = frozenset(
    name for protocol in (Store, *ABILITIES) for name in _coroutines(protocol)
)
"""The verbs that faults can happen to: every one that is awaited."""


class Armed:
    """A fault that waits for its calls. `hits` says how many it has met."""

    def __init__(
        self,
        fault: Fault,
        verbs: frozenset[str],
        *,
        nth: int,
        times: int | None,
        when: Callable[[Call], bool] | None,
    ) -> None:
        """Made by `FaultyStore.arm`."""
        self.fault = fault
        """What happens to the calls that it meets."""
        self.hits = 0
        """How many calls it has met."""
        self._verbs = verbs
        self._nth = nth
        self._times = times
        self._when = when
        self._seen = 0
        self._met = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Armed {self.fault!r} hits {self.hits}>"

    def meets(self, call: Call) -> bool:
        """Count a call if it is one of its kind, and return whether the fault happens to it."""
        if call.verb not in self._verbs or (self._when is not None and not self._when(call)):
            return False
        self._seen += 1
        late = self._times is not None and self._seen >= self._nth + self._times
        if self._seen < self._nth or late:
            return False
        self.hits += 1
        self._met.set()
        return True

    async def met(self) -> None:
        """Return once it has met a call: one that is held back is on its way by then."""
        await self._met.wait()


class FaultyStore:
    """Wraps a store and lets faults happen to chosen calls; without any, it is that store.

    What the store can do beyond the contract (watch, lease, backup), this one can too. `calls`
    counts the calls of each verb. Give every manager one of its own around the same store, and
    each has a connection of its own to break. Closing it closes the store.
    """

    def __new__(cls, store: Store) -> Self:
        """Make one that has the abilities of `store`, and no others."""
        abilities = tuple(ability for ability in ABILITIES if isinstance(store, ability))
        made = super().__new__(_with_abilities(cls, abilities))  # type: ignore[arg-type]  # a class has a hash
        assert isinstance(made, cls)  # its class is derived from this one
        return made

    def __init__(self, store: Store) -> None:
        """Wrap a store, opened or not; raises `InvalidQuery` for what is none."""
        if not callable(getattr(store, "commit", None)):
            raise InvalidQuery("store", f"give a store to wrap, not {store!r}")
        self.name = store.name
        """The name of the store inside."""
        self.wrapped = store
        """The store inside, in which nothing goes wrong."""
        self.calls: Counter[str] = Counter()
        """How many calls of each verb came here so far, those that failed too."""
        self._armed: list[Armed] = []
        self._plan: Plan | None = None

    def __repr__(self) -> str:
        return f"<FaultyStore around {self.name}>"

    @property
    def place(self) -> str:
        """Where the data of the store inside is."""
        return place_of(self.wrapped)

    # --- what goes wrong -----------------------------------------------------------------------

    def arm(
        self,
        fault: Fault,
        *verbs: str,
        nth: int = 1,
        times: int | None = 1,
        when: Callable[[Call], bool] | None = None,
    ) -> Armed:
        """Let a fault happen to the `nth` call from now, and to those after it, `times` in all.

        Calls are counted that are of one of the verbs (of any, if none is named) and for which
        `when(call)` is true. `times=None` is every one until `heal`. Raises `InvalidQuery` for a
        verb that this store does not have: the fault would never happen.
        """
        for verb in verbs:
            if verb not in VERBS or not hasattr(self.wrapped, verb):
                known = ", ".join(sorted(name for name in VERBS if hasattr(self.wrapped, name)))
                raise InvalidQuery("verb", f"{verb!r} is none of this store's: {known}")
        if nth < 1 or (times is not None and times < 1):
            raise InvalidQuery("nth and times", "give numbers from 1")
        armed = Armed(fault, frozenset(verbs) or VERBS, nth=nth, times=times, when=when)
        self._armed.append(armed)
        return armed

    def fail(self, *verbs: str, error: BaseException | None = None, **which: Any) -> Armed:
        """Refuse a call at once, with `Unavailable` or another error. `which` as for `arm`."""
        return self.arm(Fail(error), *verbs, **which)

    def cut(self, *verbs: str, error: BaseException | None = None, **which: Any) -> Armed:
        """Break a call on its way, before it is applied. `which` as for `arm`."""
        return self.arm(Cut(error), *verbs, **which)

    def lose(self, *verbs: str, error: BaseException | None = None, **which: Any) -> Armed:
        """Lose the reply of a call that the store has applied. `which` as for `arm`."""
        return self.arm(Lose(error), *verbs, **which)

    def repeat(self, *verbs: str, **which: Any) -> Armed:
        """Send a call twice; it only means something for verbs with an id. `which` as for `arm`."""
        return self.arm(Repeat(), *verbs, **which)

    def cancel(self, *verbs: str, applied: bool = False, **which: Any) -> Armed:
        """Cancel the task that calls, before the store is asked or after. `which` as for `arm`."""
        return self.arm(Cancel(applied), *verbs, **which)

    def delay(
        self,
        *verbs: str,
        until: Until | None = None,
        clock: FakeClock | None = None,
        seconds: float = 0,
        applied: bool = False,
        **which: Any,
    ) -> Armed:
        """Hold a call back until an event is set, or until `clock` has moved on by `seconds`.

        With `applied` it is the reply that is held back. Raises `InvalidQuery` unless it is told
        exactly one of `until` and `clock`. `which` as for `arm`.
        """
        if (until is None) == (clock is None):
            raise InvalidQuery("until", "give an event, or a clock and seconds")
        if clock is not None:
            until = lambda: clock.sleep(seconds)  # noqa: E731 - it is handed on, not named
        assert until is not None  # one of the two was given
        return self.arm(Delay(until, applied), *verbs, **which)

    def follow(self, plan: Plan | None) -> None:
        """Ask `plan(call)` at every call which faults happen to it, beside those that are armed."""
        self._plan = plan

    def heal(self) -> None:
        """Let nothing go wrong any more. Calls that are held back stay so."""
        self._armed.clear()
        self._plan = None

    def _met(self, call: Call) -> Sequence[Fault]:
        planned = () if self._plan is None else self._plan(call)
        return [*(armed.fault for armed in self._armed if armed.meets(call)), *planned]

    async def _call(
        self, verb: str, send: Callable[..., Awaitable[Reply]], *arguments: Any
    ) -> Reply:
        """Send a call to the store, with what happens to it on the way there and back."""
        self.calls[verb] += 1
        if not self._armed and self._plan is None:
            return await send(*arguments)
        call = Call(self.name, verb, self.calls[verb], arguments)
        faults = self._met(call)
        for fault in faults:
            await fault.before(call)
        try:
            for _again in range(1, max((fault.sends for fault in faults), default=1)):
                await send(*arguments)
            reply = await send(*arguments)
        except SojournError:
            for fault in faults:
                await fault.after(call)
            raise
        for fault in faults:
            await fault.after(call)
        return reply

    # --- the verbs -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store."""
        await self._call("open", self.wrapped.open)

    async def close(self) -> None:
        """Close the store."""
        await self._call("close", self.wrapped.close)

    async def create(self, create: Create, /) -> Committed:
        """Store a new session."""
        return await self._call("create", self.wrapped.create, create)

    async def fork(self, fork: Fork, /) -> Committed:
        """Copy a session in one step."""
        return await self._call("fork", self.wrapped.fork, fork)

    async def commit(self, change: Change, /) -> Committed:
        """Apply a change."""
        return await self._call("commit", self.wrapped.commit, change)

    async def get(self, get: Get, /) -> Record | None:
        """Return a session."""
        return await self._call("get", self.wrapped.get, get)

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log."""
        return await self._call("events", self.wrapped.events, app, id, now, window)

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions."""
        return await self._call("list", self.wrapped.list, query)

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match."""
        return await self._call("count", self.wrapped.count, query)

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline."""
        return await self._call("touch", self.wrapped.touch, touch)

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns."""
        return await self._call("delete", self.wrapped.delete, delete)

    async def forget(self, app: str, user: str, /) -> int:
        """Remove everything of a user."""
        return await self._call("forget", self.wrapped.forget, app, user)

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return what the reaper has to look at."""
        return await self._call("due", self.wrapped.due, due)

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove what is due."""
        return await self._call("reap", self.wrapped.reap, due)

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return shared state."""
        return await self._call("tiers", self.wrapped.tiers, app, user)

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return one document."""
        return await self._call("document", self.wrapped.document, query)

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents without bodies."""
        return await self._call("documents", self.wrapped.documents, query)


@cache
def _with_abilities(made: type[FaultyStore], abilities: tuple[type, ...]) -> type[FaultyStore]:
    """Return a class that also has the methods of these protocols.

    They have to be methods of a class: whether an object has an ability is looked up without
    asking it.
    """
    methods = {
        name: _faulty(name) if inspect.iscoroutinefunction(method) else _passed_on(name)
        for ability in abilities
        for name, method in vars(ability).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }
    return type(made.__name__, (made,), methods)


def _faulty(verb: str) -> Callable[..., Awaitable[Any]]:
    async def call(self: FaultyStore, *arguments: Any) -> Any:
        return await self._call(verb, getattr(self.wrapped, verb), *arguments)

    call.__name__ = verb
    return call


def _passed_on(verb: str) -> Callable[..., Any]:
    """Return a method that only passes on: what is not awaited can not be late or lost."""

    def call(self: FaultyStore, *arguments: Any) -> Any:
        return getattr(self.wrapped, verb)(*arguments)

    call.__name__ = verb
    return call

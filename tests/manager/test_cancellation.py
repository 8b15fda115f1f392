"""Cancelled at any await, by the thousand: all or nothing, the copy knows, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.soak import Progress, count, scaled

from sojourn import Event, Session, SessionManager
from sojourn.stores import open_store
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.testing.faults import Delay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sojourn.testing import Call, Fault

    Act = Callable[["Bench", int], Awaitable[object]]

CANCELLED = 1_000
SEEDS = range(count(1, 10))
"""Ten thousand calls are cancelled in the long run: ten times a thousand, each in bounded time."""

TURNS = 14
"""Turns of the loop after which a call is cancelled, at most: beyond most of them."""


class Slowly:
    """A plan: calls take a few turns there and a few back, so that there is time to cancel."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, call: Call) -> Sequence[Fault]:
        del call
        return (Delay(self.turns), Delay(self.turns, applied=True))

    async def turns(self) -> None:
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)


class Bench:
    """A manager, the session that is worked on, and the copy that is held of it."""

    def __init__(self, store: FaultyStore, sessions: SessionManager, session: Session) -> None:
        self.store = store
        self.sessions = sessions
        self.session = session


@asynccontextmanager
async def bench(url: str, chance: random.Random) -> AsyncIterator[Bench]:
    """Yield a bench whose store is slow by chance."""
    store = FaultyStore(open_store(url))
    await store.open()
    try:
        sessions = SessionManager(store, durability="relaxed")
        state = {"turn": 0, "user:turn": 0, "app:turn": 0, "n": 0}
        session = await sessions.create(id="s1", user="u", state=state)
        store.follow(Slowly(chance))
        yield Bench(store, sessions, session)
    finally:
        store.heal()
        await store.close()


async def append(on: Bench, number: int) -> None:
    """Append two events with a delta over three tiers."""
    delta = {"turn": number, "user:turn": number, "app:turn": number}
    both = [Event(kind="a", body=number), Event(kind="b", body=number)]
    await on.sessions.append(on.session, *both, state=delta)


async def save(on: Bench, number: int) -> None:
    on.session.state["n"] = number
    await on.sessions.save(on.session, conflict="fail")


async def scope(on: Bench, number: int) -> None:
    async with on.sessions.scope(on.session) as session:
        session.state["n"] = number


async def lease(on: Bench, number: int) -> None:
    async with on.sessions.lease("s1", wait=5) as held:
        await on.sessions.append(on.session, Event(kind="c", body=number), lease=held)


async def watch(on: Bench, number: int) -> None:
    del number
    after = on.session.header.seq
    stream: Any = on.sessions.watch("s1", after=after)
    async with contextlib.aclosing(stream):
        async for _ in stream:
            return


async def come_and_go(on: Bench, number: int) -> None:
    """Create a session with a child, and end it."""
    await on.sessions.create(id=f"new-{number}", state={"n": number}, events=[Event(kind="a")])
    await on.sessions.create(id=f"child-{number}", parent=f"new-{number}")
    await on.sessions.end(f"new-{number}")


async def fork(on: Bench, number: int) -> None:
    await on.sessions.fork("s1", new_id=f"fork-{number}")
    await on.sessions.delete(f"fork-{number}")


ACTS: tuple[Act, ...] = (append, save, scope, lease, watch, come_and_go, fork)


async def cancelled_after(turns: int, work: Awaitable[object]) -> bool:
    """Run something, cancel it after so many turns, and return whether that was in time."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return task.cancelled()


async def check(on: Bench) -> None:
    """Assert that what is stored is whole, and that the copy agrees with it."""
    found = await on.sessions.require("s1", events=3)
    turn = found.state["turn"]
    assert found.state["user:turn"] == found.state["app:turn"] == turn
    pairs = [event.body for event in found.events if event.kind != "c"]
    if [event.kind for event in found.events[-2:]] == ["a", "b"]:
        assert pairs[-2:] == [turn, turn]
    copy = on.session
    assert (copy.revision, copy.state["turn"]) == (found.revision, turn)
    if copy.modified:  # it was not applied, and is still to be saved
        assert copy.state["n"] != found.state["n"]
    else:
        assert copy.state["n"] == found.state["n"]


@scaled
@pytest.mark.parametrize("seed", SEEDS)
async def test_cancelled_anywhere_it_is_all_or_nothing(url: str, seed: int) -> None:
    """Appends, saves, scopes, leases, watches, creates, ends and forks."""
    kind = url.partition(":")[0]
    total = count(CANCELLED if kind == "memory" else 400, CANCELLED)
    chance = random.Random(seed)
    progress = Progress(f"cancelled, {kind}, seed {seed}", total)
    async with bench(url, chance) as on:
        cancelled = tried = 0
        while cancelled < total:
            tried += 1
            act = chance.choice(ACTS)
            cancelled += await cancelled_after(chance.randrange(TURNS), act(on, tried))
            await on.sessions.ending.settle()
            await check(on)
            progress.at(cancelled)
        if kind == "memory":  # a thread that writes can be slower than any number of turns
            assert tried > cancelled  # some came through: it is not always the same await
        await nothing_is_left(on)
        progress.figure(f"cancelled {kind} {seed}", cancelled=cancelled, tried=tried)


async def nothing_is_left(on: Bench) -> None:
    """Assert that no task, lease, scope or subscription outlives what was cancelled."""
    on.store.heal()
    for _ in range(10):
        await asyncio.sleep(0)
    own = {
        "Store",
        "Batcher",
        "Watchers",
        "Keeper",
        "Wire",
    }  # what a store keeps running while it is open
    tasks = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    names = {getattr(task.get_coro(), "__qualname__", "").partition(".")[0] for task in tasks}
    assert {name for name in names if name not in own} - {"bounded"} == set(), names
    async with on.sessions.lease("s1"):  # nobody has it
        pass
    assert not on.sessions.scopes.live()
    assert on.session.scopes == 0
    while left := await ids_left(on):  # they were never ended, or their end was cut short
        for id in left:
            await on.sessions.end(id)
    assert await on.sessions.count() == 1  # no child without its parent
    if isinstance(on.store.wrapped, MemoryStore):
        assert on.store.wrapped._open.watchers == {}


async def ids_left(on: Bench) -> list[str]:
    """Return the ids of sessions that are not over and have no parent, the one at hand aside."""
    page = await on.sessions.list(limit=1_000)
    return [one.id for one in page.items if one.id != "s1" and one.parent is None]

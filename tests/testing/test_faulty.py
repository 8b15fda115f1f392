"""The store that goes wrong: each fault at the call that was chosen, and nothing else changed."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.manager.faulty_store import faulty

from sojourn import Event, InvalidQuery, NotFound, SessionManager, StorageFull, Unavailable
from sojourn import store as contract
from sojourn.store import Store, SupportsLease, SupportsWatch
from sojourn.stores import open_store
from sojourn.stores.memory import MemoryStore
from sojourn.testing import (
    FakeClock,
    Fault,
    FaultyStore,
    RandomFaults,
    SequenceIds,
    check_store,
)
from sojourn.testing.faults import Call, Fail, Repeat
from sojourn.testing.faulty import ABILITIES, VERBS

if TYPE_CHECKING:
    from pathlib import Path


async def value(sessions: SessionManager) -> Any:
    """Return what is stored under the key that these tests write."""
    found = await sessions.get("s1")
    return None if found is None else found.state.get("k")


# ----------------------------------------------------------------------------------- without faults


async def test_without_faults_it_keeps_every_law() -> None:
    """Nothing is lost in passing on: every law that the store keeps, its wrapper keeps."""
    report = await check_store(lambda: FaultyStore(MemoryStore()))
    assert report.ok, report.broken
    bare = MemoryStore()
    missing = [ability.__name__ for ability in ABILITIES if not isinstance(bare, ability)]
    lacking = {f"the store has no {name}" for name in [*missing, "Reopen"]}
    assert set(report.not_applicable.values()) <= lacking


async def test_it_has_the_abilities_of_the_store_and_no_others(url: str) -> None:
    """Watching, leasing, backups: also those that come with a later version of the contract."""
    wrapped = open_store(url)
    store = FaultyStore(wrapped)
    for ability in ABILITIES:
        assert isinstance(store, ability) is isinstance(wrapped, ability), ability.__name__
    bare = FaultyStore(cast("Store", Bare(MemoryStore())))
    assert not any(isinstance(bare, ability) for ability in ABILITIES)
    assert type(bare).__name__ == "FaultyStore"
    assert isinstance(bare, FaultyStore)


class Bare:
    """A store without any ability beyond the contract."""

    def __init__(self, store: MemoryStore) -> None:
        self.name = "bare"
        for name, verb in vars(Store).items():
            if inspect.iscoroutinefunction(verb):
                setattr(self, name, getattr(store, name))


def test_it_has_every_verb_of_the_contract() -> None:
    """Verbs are named by hand: one that the contract gets later has to be named, too."""
    verbs = [name for name, value in vars(Store).items() if inspect.iscoroutinefunction(value)]
    for verb in verbs:
        assert verb in vars(FaultyStore), verb
    assert set(verbs) < VERBS
    assert {ability.__name__ for ability in ABILITIES} == {
        name for name in vars(contract) if name.startswith("Supports")
    }


async def test_watch_and_lease_work_through_it(url: str) -> None:
    """What the manager does by the abilities, it does here."""
    async with faulty(url) as (store, sessions):
        assert isinstance(store, SupportsWatch)
        assert isinstance(store, SupportsLease)
        session = await sessions.create(id="s1")
        async with sessions.lease("s1") as lease:
            await sessions.append(session, Event(kind="a"), lease=lease)
        async for event in sessions.watch("s1"):
            assert event.kind == "a"
            break
        assert store.calls["acquire"] == store.calls["renew"] == 1


async def test_backup_and_check_can_fail(tmp_path: Path) -> None:
    """Abilities have verbs like any others: they pass, and faults happen to them."""
    store: Any = FaultyStore(open_store(f"sqlite:///{tmp_path / 'a.db'}"))
    await store.open()
    store.fail("backup")
    with pytest.raises(Unavailable):
        await store.backup(str(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()
    await store.backup(str(tmp_path / "copy.db"))
    assert (tmp_path / "copy.db").exists()
    assert list(await store.check()) == []
    await store.close()


def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="give a store to wrap"):
        FaultyStore(None)  # type: ignore[arg-type]  # what it refuses is the point
    assert repr(FaultyStore(MemoryStore("here"))) == "<FaultyStore around memory://here>"


# --------------------------------------------------------------------------------------- each fault


@pytest.mark.parametrize("how", ["fail", "cut"])
async def test_a_call_that_fails_is_not_applied(url: str, how: str) -> None:
    """`Unavailable`, which names the call; the next one works."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"k": 1})
        armed = getattr(store, how)("commit")
        session.state["k"] = 2
        with pytest.raises(Unavailable, match="injected fault, commit #1"):
            await sessions.save(session)
        assert armed.hits == 1
        assert await value(sessions) == 1
        await sessions.save(session)
        assert await value(sessions) == 2
        assert armed.hits == 1


async def test_a_call_fails_with_the_error_that_was_given(url: str) -> None:
    """An error of one's own, whatever it is."""
    async with faulty(url) as (store, sessions):
        await sessions.create(id="s1")
        for name in ("fail", "cut", "lose"):
            error = StorageFull("disk", "no space left")
            getattr(store, name)("touch", error=error)
            with pytest.raises(StorageFull) as caught:
                await sessions.heartbeat("s1")
            assert caught.value is error


async def test_a_cut_lets_others_run_and_a_failure_does_not() -> None:
    """A call that is cut off was under way; one that fails never left."""
    async with faulty("memory://") as (store, sessions):
        await sessions.create(id="s1")
        for name, turns in (("fail", 0), ("cut", 1)):
            ran: list[int] = []
            asyncio.get_running_loop().call_soon(ran.append, 1)
            getattr(store, name)("touch")
            with pytest.raises(Unavailable):
                await sessions.heartbeat("s1")
            assert len(ran) == turns
            await asyncio.sleep(0)


async def test_a_lost_reply_is_of_a_call_that_was_applied(url: str) -> None:
    """The store has it; who called can't know. The manager looks, and knows."""
    async with faulty(url) as (store, sessions):
        store.lose("touch")
        store.lose("delete")
        session = await sessions.create(id="s1", state={"k": 1})
        with pytest.raises(Unavailable, match="its reply was lost"):
            await sessions.heartbeat("s1")
        lost = store.lose("commit")
        session.state["k"] = 2
        await sessions.save(session, conflict="fail")
        assert lost.hits == 1
        assert (await value(sessions), session.revision) == (2, 2)
        with pytest.raises(Unavailable):
            await sessions.delete("s1")
        assert await sessions.get("s1") is None


async def test_a_refusal_can_be_lost_as_well(url: str) -> None:
    """The store refused; what arrives is that the line broke."""
    async with faulty(url) as (store, sessions):
        store.lose("touch")
        with pytest.raises(Unavailable):
            await sessions.heartbeat("nobody")
        with pytest.raises(NotFound):
            await sessions.heartbeat("nobody")


@pytest.mark.parametrize("applied", [False, True])
async def test_a_caller_is_cancelled_before_or_after(url: str, applied: bool) -> None:
    """The task is cancelled for real, and store and copy agree on what was applied."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"k": 1})
        store.cancel("commit", applied=applied)
        session.state["k"] = 2
        task = asyncio.ensure_future(sessions.save(session))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert await value(sessions) == (2 if applied else 1)
        assert session.modified is not applied


@pytest.mark.parametrize("applied", [False, True])
async def test_a_call_is_held_back_until_an_event(url: str, applied: bool) -> None:
    """On the way there nothing has happened yet; on the way back it has."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"k": 1})
        go, there = asyncio.Event(), asyncio.Event()

        async def held_back() -> None:
            there.set()
            await go.wait()

        store.delay("commit", until=held_back, applied=applied)
        session.state["k"] = 2
        task = asyncio.ensure_future(sessions.save(session))
        await there.wait()
        assert await value(sessions) == (2 if applied else 1)
        assert not task.done()
        go.set()
        await task
        assert await value(sessions) == 2


async def test_a_call_is_held_back_by_a_clock(url: str) -> None:
    """The clock that the test moves, not the one on the wall."""
    clock = FakeClock()
    async with faulty(url) as (store, sessions):
        await sessions.create(id="s1")
        held = store.delay("touch", clock=clock, seconds=5)
        task = asyncio.ensure_future(sessions.heartbeat("s1"))
        await held.met()
        clock.advance(4.9)
        await asyncio.sleep(0)
        assert not task.done()
        clock.advance(0.1)
        await task


async def test_a_cancelled_call_that_was_held_back_is_dropped() -> None:
    """Held back before it was applied, it never is."""
    async with faulty("memory://") as (store, sessions):
        session = await sessions.create(id="s1", state={"k": 1})
        held = store.delay("commit", clock=FakeClock(), seconds=1)
        session.state["k"] = 2
        task = asyncio.ensure_future(sessions.save(session))
        await held.met()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await value(sessions) == 1


async def test_a_call_is_sent_twice(url: str) -> None:
    """As by a driver that retries: the store knows it again."""
    async with faulty(url) as (store, sessions):
        repeated = store.repeat("create", "commit", times=None)
        session = await sessions.create(id="s1")
        await sessions.append(session, Event(kind="a"))
        assert repeated.hits == 2
        assert session.revision == 2
        assert [event.seq for event in await sessions.events("s1")] == [1]


async def test_a_delay_is_told_how_long() -> None:
    store = FaultyStore(MemoryStore())
    with pytest.raises(InvalidQuery, match="give an event, or a clock and seconds"):
        store.delay("commit")
    with pytest.raises(InvalidQuery, match="give an event, or a clock and seconds"):
        store.delay("commit", until=asyncio.Event(), clock=FakeClock())


# ---------------------------------------------------------------------------------- the chosen call


async def test_the_nth_call_from_now_and_so_many_after_it(url: str) -> None:
    """Calls are counted from when the fault was armed, those of the verb alone."""
    async with faulty(url) as (store, sessions):
        await sessions.create(id="s1")
        await sessions.heartbeat("s1")
        armed = store.fail("touch", nth=2, times=2)
        outcomes = []
        for _ in range(5):
            await sessions.get("s1")
            try:
                await sessions.heartbeat("s1")
                outcomes.append("ok")
            except Unavailable:
                outcomes.append("failed")
        assert outcomes == ["ok", "failed", "failed", "ok", "ok"]
        assert armed.hits == 2
        assert repr(armed) == "<Armed Fail(error=None) hits 2>"
        assert store.calls["touch"] == 6


async def test_a_predicate_picks_calls(url: str) -> None:
    """It sees the verb, the number and what was asked."""
    async with faulty(url) as (store, sessions):
        for id in ("s1", "s2"):
            await sessions.create(id=id)
        store.fail(when=lambda call: getattr(call.asked, "id", "") == "s2", times=None)
        await sessions.heartbeat("s1")
        for _ in range(3):
            with pytest.raises(Unavailable):
                await sessions.heartbeat("s2")
        with pytest.raises(Unavailable):
            await sessions.get("s2")
        store.heal()
        await sessions.heartbeat("s2")


async def test_calls_without_arguments_are_calls(url: str) -> None:
    store = FaultyStore(open_store(url))
    seen: list[Call] = []

    def note(call: Call) -> list[Fault]:
        seen.append(call)
        return []

    store.follow(note)
    await store.open()
    await store.close()
    assert [(call.verb, call.asked, call.number) for call in seen] == [
        ("open", None, 1),
        ("close", None, 1),
    ]


def test_a_fault_that_could_never_happen_is_refused() -> None:
    """A typo in a verb would be a test that can not fail."""
    store = FaultyStore(MemoryStore())
    with pytest.raises(InvalidQuery, match=r"'comit' is none of this store's: acquire, .*commit"):
        store.fail("comit")
    with pytest.raises(InvalidQuery, match="'backup' is none"):
        store.fail("backup")
    with pytest.raises(InvalidQuery, match="give numbers from 1"):
        store.fail("commit", nth=0)
    with pytest.raises(InvalidQuery, match="give numbers from 1"):
        store.fail("commit", times=0)


async def test_two_faults_can_meet_one_call() -> None:
    """Late and then lost: both happen, in the order in which they were armed."""
    async with faulty("memory://") as (store, sessions):
        await sessions.create(id="s1")
        go = asyncio.Event()
        held = store.delay("touch", until=go)
        lost = store.lose("touch")
        task = asyncio.ensure_future(sessions.heartbeat("s1"))
        await held.met()
        go.set()
        with pytest.raises(Unavailable):
            await task
        assert lost.hits == 1


async def test_a_fault_of_ones_own() -> None:
    """Whatever a test thinks of; one that does nothing does nothing."""

    class Spy(Fault):
        def __init__(self) -> None:
            self.seen: list[str] = []

        async def before(self, call: Call) -> None:
            self.seen.append(f"before {call}")

        async def after(self, call: Call) -> None:
            self.seen.append(f"after {call}")

    async with faulty("memory://") as (store, sessions):
        spy = Spy()
        store.arm(spy, "create")
        store.arm(Fault(), "create")
        await sessions.create(id="s1")
        assert spy.seen == ["before create #1", "after create #1"]


# ------------------------------------------------------------------------------------ random faults


async def story(seed: int, **plan: Any) -> list[str]:
    """Return what becomes of a hundred appends under a random plan."""
    async with faulty("memory://") as (store, _):
        sessions = SessionManager(store, ids=SequenceIds(), clock=FakeClock())
        await sessions.create(id="s1")
        store.follow(RandomFaults(seed, **plan))
        outcomes = []
        for _ in range(100):
            try:
                await sessions.append("s1", Event(kind="a"))
                outcomes.append("ok")
            except Unavailable as error:
                outcomes.append(str(error))
        return outcomes


async def test_a_random_plan_is_the_same_for_the_same_seed() -> None:
    assert await story(1) == await story(1) != await story(2)
    assert set(await story(1)) > {"ok"}


async def test_a_random_plan_keeps_to_its_chance_its_verbs_and_its_faults() -> None:
    assert set(await story(1, chance=0)) == {"ok"}
    assert "ok" not in await story(1, chance=1, faults=[Fail()])
    assert set(await story(1, chance=1, verbs=["touch"])) == {"ok"}
    assert set(await story(1, chance=1, verbs=["commit"], faults=[Repeat()])) == {"ok"}


async def test_a_random_plan_repeats_only_what_can_be_repeated() -> None:
    """A verb without an id of its own means something else the second time."""
    plan = RandomFaults(1, chance=1, faults=[Repeat()])
    assert plan(Call("s", "commit", 1, ()))
    assert not plan(Call("s", "delete", 1, ()))


def test_a_plan_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="from 0 to 1"):
        RandomFaults(1, chance=2)
    with pytest.raises(InvalidQuery, match="at least one"):
        RandomFaults(1, faults=[])

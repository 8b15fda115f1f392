"""What observers are told of each call, and that the store is the same with them and without."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest
from tests.telemetry.recorder import Recorder, Stopwatch, Told

from sojourn import (
    Closed,
    Conflict,
    Corrupt,
    Event,
    Expiry,
    InvalidQuery,
    InvalidTransition,
    LeaseHeld,
    NotFound,
    Reaper,
    RoleTaken,
    SessionManager,
    Unavailable,
    open_store,
    store,
)
from sojourn.model import Header
from sojourn.store import (
    Dumped,
    Get,
    Headers,
    Restore,
    RestoreShared,
    Shared,
    Snapshot,
    SupportsBackup,
    SupportsCheck,
    SupportsLease,
    SupportsTransfer,
    SupportsWatch,
    Tier,
    Walk,
)
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SqliteStore
from sojourn.telemetry import Fingerprint, ObservedStore, Result
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

KEY = b"k" * 32


def told_of(recorder: Recorder, verb: str) -> Told:
    """Return what was told of a verb that was called once."""
    (told,) = recorder.of(verb)
    return told


# ------------------------------------------------------------------------------- what is told


async def test_a_write_is_told_with_what_it_carries_and_what_it_reached(opened: Opener) -> None:
    recorder = Recorder()
    async with opened(app="shop", observers=[recorder], observer_key=KEY) as sessions:
        s = await sessions.create(id="s-1", user="u-1", state={"ключ": "é"})
        await sessions.append(s, Event(kind="message", body="hi"), Event(kind="message", body="é"))
        await sessions.documents(s.id).put("notes", "one", b"12345")

    created = told_of(recorder, "create")
    assert created.call.app == "shop"
    assert created.call.session == Fingerprint(KEY).of("shop", "s-1")
    assert created.call.size == len("ключ".encode()) + len('"é"'.encode())
    appended, put = recorder.of("commit")
    assert appended.call.events == 2
    assert appended.call.size == len('"hi"') + len('"é"'.encode())
    assert appended.outcome.durability in {"memory", "durable"}
    assert put.call.size == 5
    assert {told.outcome.result for told in (created, appended, put)} == {Result.OK}


async def test_a_read_is_told_with_what_came_back(opened: Opener) -> None:
    recorder = Recorder()
    async with opened(observers=[recorder]) as sessions:
        s = await sessions.create(state={"a": 1, "app:b": 22})
        await sessions.append(s, Event(kind="message", body="hi"))
        await sessions.documents(s.id).put("notes", "one", b"12345")
        await sessions.get(s.id, events=5)
        await sessions.events(s.id, last=5)
        await sessions.list(limit=7)
        await sessions.count()
        await sessions.app_state()
        await sessions.documents(s.id).get("notes", "one")
        await sessions.documents(s.id).list("notes")
        assert await sessions.get("nobody") is None
        assert await sessions.documents(s.id).get("notes", "two") is None
        with pytest.raises(NotFound):
            await sessions.events("nobody")

    def facts(told: Told) -> tuple[str, int, int]:
        return told.outcome.result, told.outcome.items, told.outcome.size

    assert [facts(told) for told in recorder.of("get")] == [
        ("ok", 1, len("a1") + len("b22") + len('"hi"')),
        ("not_found", 0, 0),
    ]
    assert [facts(told) for told in recorder.of("events")] == [
        ("ok", 1, len('"hi"')),
        ("not_found", 0, 0),
    ]
    listed = told_of(recorder, "list")
    assert (listed.outcome.items, listed.call.limit) == (1, 7)
    assert facts(told_of(recorder, "count")) == ("ok", 0, 0)
    assert facts(recorder.last("tiers")) == ("ok", 0, len("b22"))
    assert [facts(told) for told in recorder.of("document")] == [("ok", 1, 5), ("not_found", 0, 0)]
    assert told_of(recorder, "documents").outcome.items == 1


async def test_an_end_and_what_removes_are_told(opened: Opener) -> None:
    recorder = Recorder()
    async with opened(observers=[recorder]) as sessions:
        ended, deleted = await sessions.create(), await sessions.create()
        await sessions.create(user="u-1")
        recorder.told.clear()
        await sessions.end(ended.id)
        await sessions.delete(deleted.id)
        await sessions.delete(deleted.id)
        await sessions.forget("u-1")
    triggers = [told.call.trigger for told in recorder.of("commit")]
    assert "END" in triggers
    deletes = [told.outcome for told in recorder.of("delete")]
    assert [d.result for d in deletes if d.items == 0][-1] is Result.NOT_FOUND
    assert sum(d.items for d in deletes) >= 1
    assert told_of(recorder, "forget").outcome.items == 1
    assert told_of(recorder, "forget").call.session is None


@pytest.mark.parametrize("hooks", [False, True], ids=["without hooks", "with a hook"])
async def test_what_a_reaper_does_is_told(opened: Opener, *, hooks: bool) -> None:
    recorder, clock, seen = Recorder(), FakeClock(), []
    async with opened(observers=[recorder], clock=clock, expiry=Expiry(idle=60)) as sessions:
        if hooks:

            async def hook(session: Any, _reason: str) -> None:
                seen.append(session.id)

            sessions.on_end(hook)
        for _ in range(3):
            await sessions.create()
        clock.advance(60)
        assert await Reaper(sessions, batch=2).sweep() == 3
    swept = recorder.of("due" if hooks else "reap")
    assert swept
    assert all(told.call.limit is not None for told in swept)
    if hooks:
        assert len(seen) == 3
        assert [told.call.trigger for told in recorder.of("commit")].count("END") == 3
    else:
        assert sum(told.outcome.items for told in swept) == 3


async def test_leases_and_watches_are_told(opened: Opener) -> None:
    recorder = Recorder()
    async with opened(observers=[recorder]) as sessions:
        s = await sessions.create()
        async with sessions.lease(s.id, ttl=30):
            with pytest.raises(LeaseHeld):
                async with sessions.lease(s.id, ttl=30):
                    raise AssertionError
        await sessions.append(s, Event(kind="message"))
        async for event in sessions.watch(s.id):
            assert event.seq == 1
            break
    held, refused = recorder.of("acquire")
    assert (held.outcome.result, refused.outcome.result) == (Result.OK, Result.CONFLICT)
    assert refused.outcome.error == "LeaseHeld"
    assert recorder.last("renew").outcome.result is Result.OK
    assert recorder.last("subscribe").call.session is not None


async def test_opening_closing_and_looking_after_a_file_are_told(tmp_path: Path) -> None:
    recorder = Recorder()
    observed: Any = ObservedStore(open_store(f"sqlite:///{tmp_path}/a.db"), [recorder])
    await observed.open()
    assert await observed.check() == []
    await observed.backup(str(tmp_path / "secret copy.db"))
    await observed.close()
    with pytest.raises(Closed):
        observed.subscribe("app", "s-1")
    verbs = [(told.call.verb, told.outcome.result) for told in recorder.told]
    assert verbs == [
        ("open", "ok"),
        ("check", "ok"),
        ("backup", "ok"),
        ("close", "ok"),
        ("subscribe", "closed"),
    ]
    assert {told.call.store for told in recorder.told} == {"sqlite"}


# ---------------------------------------------------------------------------------- outcomes


async def test_an_error_is_told_by_its_class_and_goes_on_as_it_is(opened: Opener) -> None:
    recorder = Recorder()
    async with opened(observers=[recorder]) as sessions:
        s = await sessions.create(labels={"role": "writer"}, exclusive=("role",))
        mine = await sessions.require(s.id)
        s.state["a"] = 1
        await sessions.save(s)
        mine.state["a"] = 2
        with pytest.raises(Conflict):
            await sessions.save(mine, conflict="fail")
        assert recorder.last("commit").outcome.error == "Conflict"
        assert recorder.last("commit").outcome.result is Result.CONFLICT
        with pytest.raises(RoleTaken):
            await sessions.create(labels={"role": "writer"}, exclusive=("role",))
        assert recorder.last("create").outcome.result is Result.CONFLICT
        await sessions.delete(s.id)
        with pytest.raises(NotFound):
            await sessions.save(mine)
        assert recorder.last("commit").outcome.result is Result.NOT_FOUND


class Raising(MemoryStore):
    """Raises what it is told to when it is read, or waits for ever."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error
        self.arrived = asyncio.Event()

    async def get(self, _get: Get, /) -> Any:
        self.arrived.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Unavailable("a.db", "no disk"), Result.UNAVAILABLE),
        (Corrupt("session 's-1'", "cut"), Result.CORRUPT),
        (Closed("a.db"), Result.CLOSED),
        (InvalidTransition("A", "B", "c"), Result.REFUSED),
        (ZeroDivisionError("s-1"), Result.FAILED),
        (KeyboardInterrupt(), Result.CANCELLED),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_each_kind_of_failure_has_a_word(error: BaseException, result: Result) -> None:
    recorder = Recorder()
    observed = ObservedStore(Raising(error), [recorder])
    with pytest.raises(type(error)) as caught:
        await observed.get(Get(app="a", id="s-1", now=0))
    assert caught.value is error
    outcome = told_of(recorder, "get").outcome
    assert (outcome.result, outcome.error) == (result, type(error).__name__)


async def test_a_call_that_is_cancelled_is_told_and_no_longer_under_way() -> None:
    recorder, inside = Recorder(), Raising(None)
    observed = ObservedStore(inside, [recorder])
    task = asyncio.create_task(observed.get(Get(app="a", id="s-1", now=0)))
    await inside.arrived.wait()
    assert [call.verb for call in recorder.under_way] == ["get"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.under_way == []
    assert told_of(recorder, "get").outcome.result is Result.CANCELLED


async def test_the_time_is_that_of_the_stopwatch_and_never_below_zero() -> None:
    recorder, stopwatch = Recorder(), Stopwatch(step=0.5)
    observed = ObservedStore(MemoryStore(), [recorder], stopwatch=stopwatch)
    await observed.get(Get(app="a", id="s-1", now=0))
    stopwatch.step = -3
    await observed.get(Get(app="a", id="s-1", now=0))
    assert [told.outcome.seconds for told in recorder.told] == [0.5, 0.0]


async def test_an_odd_result_of_a_store_is_handed_on_all_the_same() -> None:
    class Odd(MemoryStore):
        async def get(self, _get: Get, /) -> Any:
            return "not a record"

    recorder = Recorder()
    observed = ObservedStore(Odd(), [recorder])
    assert await observed.get(Get(app="a", id="s-1", now=0)) == "not a record"  # type: ignore[comparison-overlap]  # the store breaks its contract
    assert told_of(recorder, "get").outcome.result is Result.OK


# ------------------------------------------------------------------------------ moving sessions


class Moving(MemoryStore):
    """A store whose sessions can be moved, which has one session in two parts, and takes any."""

    header = Header(app="a", id="s-1", epoch="e", created_at=0, active_at=0)
    halves = (
        Snapshot(header=header, state={"k": msgspec.Raw(b'"v"')}, last=False),
        Snapshot(header=header, part=1),
    )

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        return ["a", "b"][:limit] if not after else []

    async def headers(self, walk: Walk, /) -> Headers:
        return Headers([self.header][: walk.limit], None)

    async def dump(self, walk: Walk, /) -> Dumped:
        return Dumped(list(self.halves[: walk.limit]), None)

    async def parts(self, _app: str, _id: str, _now: int, /) -> AsyncGenerator[Snapshot, None]:
        for half in self.halves:
            yield half

    async def shared(self, _app: str, _now: int, _position: str | None, /) -> Shared:
        return Shared([Tier(user=None, state={})], None)

    async def restore(self, _restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        return "restored"

    async def restore_shared(self, _restore: RestoreShared, /) -> None:
        return None


async def test_moving_sessions_is_told() -> None:
    recorder, inside = Recorder(), Moving()
    observed: Any = ObservedStore(inside, [recorder], key=KEY)
    assert isinstance(observed, SupportsTransfer)
    walk = Walk(app="a", now=0)
    assert await observed.apps("", 9) == ["a", "b"]
    assert (await observed.headers(walk)).headers == [inside.header]
    assert len((await observed.dump(walk)).snapshots) == 2
    assert [part async for part in observed.parts("a", "s-1", 0)] == list(inside.halves)
    assert len((await observed.shared("a", 0, None)).items) == 1
    restore = Restore(snapshot=inside.halves[0], op=b"o" * 8, abandoned_at=0)
    assert await observed.restore(restore) == "restored"
    await observed.restore_shared(RestoreShared(app="a", items=()))

    told = {told.call.verb: told for told in recorder.told}
    items = {verb: each.outcome.items for verb, each in told.items()}
    assert items == {
        "apps": 2,
        "headers": 1,
        "dump": 2,
        "parts": 2,
        "shared": 1,
        "restore": 0,
        "restore_shared": 0,
    }
    assert {each.outcome.result for each in told.values()} == {Result.OK}
    assert told["dump"].outcome.size == told["restore"].call.size == len('k"v"')
    assert told["restore"].call.session == Fingerprint(KEY).of("a", "s-1")


async def test_parts_that_are_not_read_to_the_end_are_let_go_of() -> None:
    closed: list[str] = []

    class Closing(Moving):
        async def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
            try:
                async with aclosing(super().parts(app, id, now)) as parts:
                    async for part in parts:
                        yield part
            finally:
                closed.append(id)

    recorder = Recorder()
    observed: Any = ObservedStore(Closing(), [recorder])
    async with aclosing(observed.parts("a", "s-1", 0)) as parts:
        async for _ in parts:
            break
    assert closed == ["s-1"]
    outcome = told_of(recorder, "parts").outcome
    assert (outcome.result, outcome.items) == (Result.CANCELLED, 1)
    assert recorder.under_way == []


# ------------------------------------------------------------------------------- the wrapping

ABILITIES = [SupportsWatch, SupportsLease, SupportsCheck, SupportsBackup, SupportsTransfer]


class Bare:
    """A store with no ability at all."""

    name = "bare://"


class Checking(Bare):
    """A store that can check itself and not copy itself."""

    async def check(self) -> list[str]:
        return []


class Watching(Bare):
    """A store with one ability."""

    def subscribe(self, app: str, id: str, /) -> Any:
        raise AssertionError((app, id))


def stores(folder: Path) -> list[Any]:
    """Return stores with all abilities, some, one, none."""
    return [SqliteStore(folder / "a.db"), MemoryStore(), Watching(), Checking(), Bare()]


def test_it_has_the_abilities_of_the_store_inside_and_no_others(tmp_path: Path) -> None:
    for inside in stores(tmp_path):
        observed = ObservedStore(inside, [])
        assert isinstance(observed, ObservedStore)
        assert type(observed).__name__ == "ObservedStore"
        assert observed.wrapped is inside
        assert observed.name == inside.name
        for ability in ABILITIES:
            there = isinstance(observed, ability)
            assert there == isinstance(inside, ability), (inside, ability)
            methods = [name for name in vars(ability) if not name.startswith("_")]
            assert methods
            # Newer Pythons look for the methods without asking the instance.
            found = {name: inspect.getattr_static(observed, name, None) for name in methods}
            assert all((method is not None) == there for method in found.values())


def test_every_ability_that_the_contract_knows_is_passed_on() -> None:
    known = {value for name, value in vars(store).items() if name.startswith("Supports")}
    assert known == set(ABILITIES)


def test_every_verb_of_the_contract_is_observed() -> None:
    verbs = {n for n, value in vars(store.Store).items() if inspect.iscoroutinefunction(value)}
    assert verbs <= set(vars(ObservedStore))


def test_wrapped_twice_it_still_has_the_abilities() -> None:
    once = ObservedStore(MemoryStore(), [])
    twice = type(once)(once, [])
    assert isinstance(twice, SupportsLease)
    assert not isinstance(twice, SupportsBackup)


async def test_without_observers_nothing_stands_in_between(url: str) -> None:
    async with SessionManager.open(url) as sessions:
        assert not isinstance(sessions.store, ObservedStore)
    async with SessionManager.open(url, observers=[Recorder()]) as sessions:
        assert isinstance(sessions.store, ObservedStore)


async def test_one_store_can_be_observed_for_several_managers() -> None:
    recorder = Recorder()
    observed = ObservedStore(MemoryStore(), [recorder])
    one, two = SessionManager(observed, app="one"), SessionManager(observed, app="two")
    await one.create(id="s-1")
    await two.create(id="s-1")
    first, second = (told.call for told in recorder.of("create"))
    assert (first.app, second.app) == ("one", "two")
    assert first.session != second.session


@asynccontextmanager
async def many(recorder: Recorder) -> AsyncIterator[SessionManager]:
    """Open a manager on memory, observed."""
    async with SessionManager.open("memory://", observers=[recorder]) as sessions:
        yield sessions


async def test_many_at_once_are_each_told_once() -> None:
    recorder = Recorder()
    async with many(recorder) as sessions:
        s = await sessions.create()
        await asyncio.gather(
            *(sessions.append(s.id, Event(kind="message", body=n)) for n in range(50))
        )
    assert len(recorder.of("commit")) == 50
    assert recorder.under_way == []


# ------------------------------------------------------------------------------ fingerprints


def test_a_fingerprint_is_the_same_for_a_key_and_another_for_another() -> None:
    one, other = Fingerprint(KEY), Fingerprint(b"o" * 16)
    assert one.of("a", "s-1") == Fingerprint(KEY).of("a", "s-1")
    assert len({one.of("a", "s-1"), other.of("a", "s-1"), one.of("a", "s-2")}) == 3
    assert one.of("ab", "c") != one.of("a", "bc")
    assert len(one.of("a", "\ud800 s")) == 16
    assert Fingerprint().of("a", "s-1") == Fingerprint().of("a", "s-1")
    assert Fingerprint().of("a", "s-1") != one.of("a", "s-1")
    assert KEY.decode() not in repr(one)


@pytest.mark.parametrize("key", [b"", b"short", b"k" * 65, "k" * 32], ids=repr)
def test_a_key_that_could_be_tried_or_is_none_is_refused(key: Any) -> None:
    with pytest.raises(InvalidQuery, match="16 to 64 bytes"):
        Fingerprint(key)
    with pytest.raises(InvalidQuery):
        SessionManager.open("memory://", observers=[Recorder()], observer_key=key)

"""Copies: the target follows the source, whatever happens meanwhile, and keeps what is its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.transfer.contents import CLOCK, FOREVER, contents, fill, ids_of, opened

from sojourn import Event, Expiry, SessionManager
from sojourn.errors import AlreadyExists, Conflict, Corrupt, InvalidQuery, RoleTaken, Unavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from sojourn.testing.faults import Cut, Fail
from sojourn.testing.faulty import FaultyStore
from sojourn.transfer import checksum, copy
from sojourn.transfer.walking import OWN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from sojourn.model import Header
    from sojourn.store import Dumped, Headers, Restore, Snapshot, Walk
    from sojourn.transfer import Copied
    from sojourn.transfer.walking import TransferStore

OTHER = "sqlite:///{}/other.db"


async def copied(source: Any, target: Any, **options: Any) -> Copied:
    return await copy(source, target, clock=CLOCK, **options)


def manager(store: Any, app: str = "shop") -> SessionManager:
    return SessionManager(store, app=app, clock=CLOCK)


async def notes_in(store: TransferStore, app: str = "shop") -> int:
    """Return how many notes a copy has left in its target."""
    items = (await store.shared(app, CLOCK.now(), None)).items
    return sum(getattr(item, "collection", "").startswith(OWN) for item in items)


@pytest.mark.parametrize("other", ["memory://", OTHER])
async def test_a_copy_is_the_same_in_every_field(url: str, other: str, tmp_path: Path) -> None:
    async with opened(url) as source, opened(other.format(tmp_path)) as target:
        for app in ("shop", "other app"):
            await fill(source, app)
        before = await contents(source)
        first = await copied(source, target)
        assert await contents(target) == before
        assert await contents(source) == before
        sessions = sum(len(app["sessions"]) for app in before.values())
        assert (first.put, first.verified, first.shared) == (sessions, sessions, 10)
        assert first.complete
        again = await copied(source, target, final=True)
        assert (again.put, again.verified, again.shared, again.removed) == (0, sessions, 0, 0)
        assert await contents(target) == before
        assert await notes_in(target) == 0


async def test_a_large_session_is_copied_in_parts(url: str, tmp_path: Path) -> None:
    async with opened(url) as source, opened(OTHER.format(tmp_path)) as target:
        ours = manager(source)
        large = await ours.create(id="large", user="u", state={"n": 1})
        for number in range(4):
            await ours.append(large, Event(kind="k", body="é" * 300_000))
            await ours.documents("large").put("d", f"{number}", bytes(400_000))
        await copied(source, target)
        assert await contents(target) == await contents(source)
        await ours.truncate(large, after=2)
        await ours.documents("large").put("d", "1", bytes(900_000))
        outcome = await copied(source, target)
        assert (outcome.put, outcome.verified) == (1, 1)
        assert await contents(target) == await contents(source)
        await ours.delete("large")
        assert (await copied(source, target)).removed == 1
        assert await ids_of(target, "shop") == []
        assert await target.check() == []  # type: ignore[attr-defined]  # a SQLite store can


async def test_the_children_of_a_large_session_come_after_it(url: str) -> None:
    async with opened(url) as source, opened("memory://") as target:
        ours = manager(source)
        for id, parent in (("a", None), ("z", "a"), ("b", "z"), ("c", "b")):
            await ours.create(id=id, parent=parent)
        for id in ("a", "b"):
            for number in range(3):
                await ours.documents(id).put("d", f"{number}", bytes(500_000))
        assert (await copied(source, target)).put == 4
        assert await contents(target) == await contents(source)


async def test_changes_come_with_the_next_copy(url: str) -> None:
    async with opened(url) as source, opened("memory://") as target:
        await fill(source)
        await copied(source, target)
        ours = manager(source)
        s = await ours.require("shop-000")
        await ours.append(s, Event(kind="new"), state={"n": "new", "app:last": "new"})
        await ours.documents(None).put("assets", "logo", b"new")
        await ours.delete("shop-003")
        await ours.delete("shop-004")
        again = await ours.create(id="shop-004", state={"again": True})
        await ours.create(id="added", parent="shop-004")
        await ours.forget("u-1")
        outcome = await copied(source, target)
        assert outcome.complete
        after, before = await contents(target), await contents(source)
        assert after["shop"]["shared"] == before["shop"]["shared"]
        assert _by_id(after) == _by_id(before)
        assert outcome.removed > 0
        assert (await manager(target).require(again.id)).epoch == again.epoch


def _by_id(found: dict[str, Any]) -> dict[str, Any]:
    return {session[0].id: session for session in found["shop"]["sessions"]}


async def test_activity_and_deadlines_come_along(url: str) -> None:
    clock = FakeClock()
    async with opened(url) as source, opened("memory://") as target:
        ours = SessionManager(source, app="shop", clock=clock)
        theirs = SessionManager(target, app="shop", clock=clock)
        for id in ("touched there", "touched here"):
            await ours.create(id=id, expiry=Expiry(idle=100))
        await copy(source, target, clock=clock)
        clock.advance(90)
        await ours.touch(await ours.require("touched there"))
        await theirs.touch(await theirs.require("touched here"))
        outcome = await copy(source, target, clock=clock)
        assert outcome.complete
        assert outcome.put == 0
        clock.advance(50)
        for id in ("touched there", "touched here"):
            assert await theirs.get(id) is not None
        assert await ours.get("touched here") is None


async def test_what_the_target_has_of_its_own_stays(url: str) -> None:
    async with opened(url) as source, opened("memory://") as target:
        ours, theirs = manager(source), manager(target)
        for id in ("same", "moved on", "taken", "role"):
            labels = {"r": "w"} if id == "role" else {}
            await ours.create(id=id, labels=labels, exclusive=tuple(labels), state={"n": 1})
        assert (await copied(source, target)).complete
        moved = await theirs.require("moved on")
        moved.state["n"] = 2
        await theirs.save(moved)
        for id in ("taken", "role"):
            await theirs.delete(id)
        await theirs.create(id="taken", state={"mine": True})
        await theirs.create(id="rival", labels={"r": "w"}, exclusive=("r",))
        await theirs.create(id="own")
        await theirs.documents(None).put("c", "own", b"1")
        outcome = await copied(source, target)
        assert not outcome.complete
        assert (outcome.verified, outcome.different, outcome.behind) == (1, 3, 0)
        kinds = {refusal.id: type(refusal.error) for refusal in outcome.refusals}
        assert kinds == {"moved on": Conflict, "taken": AlreadyExists, "role": RoleTaken}
        await ours.delete("moved on")
        await ours.delete("same")
        outcome = await copied(source, target)
        assert outcome.removed == 1
        left = sorted(await ids_of(target, "shop"))
        assert left == ["moved on", "own", "rival", "taken"]
        assert (await theirs.require("moved on")).state["n"] == 2
        assert (await theirs.require("taken")).state["mine"] is True
        assert await theirs.documents(None).get("c", "own") is not None


async def test_a_final_copy_forgets_what_it_put(url: str) -> None:
    async with opened(url) as source, opened("memory://") as target:
        await fill(source)
        await copied(source, target)
        assert await notes_in(target) > 0
        await copied(source, target, final=True)
        assert await notes_in(target) == 0
        await manager(source).delete("shop-000")
        assert (await copied(source, target)).removed == 0
        assert "shop-000" in await ids_of(target, "shop")


async def test_a_source_that_is_empty_now_empties_its_copy(url: str) -> None:
    async with opened(url) as source, opened("memory://") as target:
        ours = manager(source)
        await ours.create(id="a", user="u", state={"user:x": 1, "app:x": 1})
        await ours.documents(None).put("c", "k", b"1")
        await copied(source, target)
        await ours.forget("u")
        await ours.documents(None).drop("c", "k")
        await source.commit(_dropping_app_key())
        assert await source.apps("", 9) == []
        outcome = await copied(source, target, final=True)
        assert outcome.removed == 4
        assert (await contents(target)) == {}


def _dropping_app_key() -> Any:
    from sojourn.store import Change, TierDelta

    delta = TierDelta({}, ("x",))
    return Change(app="shop", id=None, op=b"12345678", now=CLOCK.now(), app_tier=delta)


async def test_apps_can_be_chosen() -> None:
    async with opened("memory://") as source, opened("memory://") as target:
        for app in ("a", "b"):
            await fill(source, app)
        await copied(source, target, apps=["b"])
        assert await target.apps("", 9) == ["b"]


async def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    async with opened("memory://") as source, opened("memory://") as target:
        for number in range(300):
            await manager(source).create(id=str(number))
        await copied(source, target, progress=lambda *facts: told.append(facts))
    counts = [(0, 300), (256, 300), (300, 300)]
    assert told == [(what, *count) for what in ("copying", "verifying") for count in counts]


async def test_a_store_is_not_copied_onto_itself() -> None:
    async with opened("memory://") as store:
        with pytest.raises(InvalidQuery, match="two stores"):
            await copied(store, store)


# ------------------------------------------------------------------------------ what is interrupted


@pytest.mark.parametrize("fault", [Fail(Unavailable("target", "away")), Cut()])
async def test_a_copy_goes_on_from_where_it_was_interrupted(url: str, fault: Any) -> None:
    async with opened("memory://") as source, opened(url) as inside:
        for number in range(600):
            await manager(source).create(id=f"{number:03}", state={"n": number})
        target = FaultyStore(inside)
        target.arm(fault, "restore", nth=300)
        with pytest.raises(Exception, match=r"away|cut"):
            await copied(source, target)
        there = len(await ids_of(inside, "shop"))
        assert 256 <= there < 600
        target.heal()
        outcome = await copied(source, target)
        assert (outcome.put, outcome.verified) == (600 - there, 600)
        assert _by_id(await contents(inside)) == _by_id(await contents(source))


async def test_a_copy_that_is_cancelled_anywhere_can_be_taken_up(url: str) -> None:
    """Its order of creation may be another then: some were put when it was cancelled, some not."""
    async with opened("memory://") as source, opened(url) as target:
        await fill(source)
        before = await contents(source)
        for turns in range(0, 60, 4):
            task = asyncio.create_task(copied(source, target))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (await copied(source, target)).complete
        after = await contents(target)
        assert _by_id(after) == _by_id(before)
        assert after["shop"]["shared"] == before["shop"]["shared"]


# ------------------------------------------------------------------------------- writers that go on


class Busy(MemoryStore):
    """Lets things happen behind a reader's back: after each page of one verb, a step."""

    def __init__(self, verb: str, *steps: Callable[[SessionManager], Awaitable[object]]) -> None:
        super().__init__()
        self.verb = verb
        self.steps = list(steps)
        self.awake = False

    async def _step(self, verb: str) -> None:
        if self.awake and verb == self.verb and self.steps:
            await self.steps.pop(0)(manager(self))

    async def headers(self, walk: Walk, /) -> Headers:
        page = await super().headers(walk)
        await self._step("headers")
        return page

    async def dump(self, walk: Walk, /) -> Dumped:
        page = await super().dump(walk)
        await self._step("dump")
        return page


async def busy(verb: str, *steps: Callable[[SessionManager], Awaitable[object]]) -> Busy:
    """Return a source with three sessions where the steps will happen."""
    store = Busy(verb, *steps)
    for id in ("a", "b", "c"):
        await manager(store).create(id=id, state={"n": 0}, expiry=FOREVER)
    store.awake = True
    return store


async def changed(sessions: SessionManager, id: str = "b") -> None:
    s = await sessions.require(id)
    s.state["n"] += 1
    await sessions.save(s)


async def reborn(sessions: SessionManager) -> None:
    await sessions.delete("b")
    await sessions.create(id="b", state={"n": 99})


async def nothing(sessions: SessionManager) -> None:
    await sessions.get("a")


async def touched(sessions: SessionManager) -> None:
    clock = FakeClock()
    clock.advance(1000)
    later = SessionManager(sessions._context.store, app="shop", clock=clock)
    await later.touch(await later.require("b"))


STEPS: dict[str, Callable[[SessionManager], Awaitable[object]]] = {
    "a change": changed,
    "a touch": touched,
    "a deletion": lambda sessions: sessions.delete("b"),
    "another with that id": reborn,
    "a new one": lambda sessions: sessions.create(id="d"),
    "an end": lambda sessions: sessions.end("b"),
}


LAST_LOOK = {"headers": 3, "dump": 2}
"""How many times a copy of three sessions reads the source before its last look at what is gone."""


@pytest.mark.parametrize("pause", range(4))
@pytest.mark.parametrize("verb", ["headers", "dump"])
@pytest.mark.parametrize("what", list(STEPS))
async def test_what_happens_meanwhile_is_in_the_copy(what: str, verb: str, pause: int) -> None:
    source = await busy(verb, *[nothing] * pause, STEPS[what])
    async with opened("memory://") as target:
        first = await copied(source, target)
        in_time = not source.steps
        source.awake = False
        if what == "a deletion" and pause < LAST_LOOK[verb]:
            assert await ids_of(target, "shop") == ["a", "c"]
        if in_time and pause == 0:
            assert first.complete
            assert _by_id(await contents(target)) == _by_id(await contents(source))
        again = await copied(source, target)
        assert again.complete
        assert _by_id(await contents(target)) == _by_id(await contents(source))


async def test_a_session_that_never_rests_is_behind() -> None:
    source = await busy("dump", *[changed] * 100)
    async with opened("memory://") as target:
        outcome = await copied(source, target)
        assert (outcome.verified, outcome.behind, outcome.different) == (2, 1, 0)
        assert not outcome.complete
        source.awake = False
        assert (await copied(source, target)).complete


# ---------------------------------------------------------------------------------------- checksums


class Lying(MemoryStore):
    """Keeps another state than it was given."""

    async def restore(self, restore: Restore, /) -> Any:
        state = {**restore.snapshot.state, "n": msgspec.Raw(b"0")}
        changed = msgspec.structs.replace(restore.snapshot, state=state)
        return await super().restore(msgspec.structs.replace(restore, snapshot=changed))


async def test_a_target_that_keeps_something_else_is_found_out() -> None:
    target = Lying()
    async with opened("memory://") as source:
        await manager(source).create(id="a", state={"n": 1})
        await manager(source).create(id="b", state={"n": 0})
        outcome = await copied(source, target)
    assert (outcome.verified, outcome.different) == (1, 1)
    (refusal,) = outcome.refusals
    assert refusal.id == "a"
    assert isinstance(refusal.error, Corrupt)
    assert "checksums differ" in str(refusal.error)


async def test_checksums_are_of_values_and_of_every_fact() -> None:
    async with opened("memory://") as store:
        await fill(store, sessions=3)
        from sojourn.store import Walk

        walk = Walk(app="shop", now=CLOCK.now(), ids=("shop-002",))
        (snapshot,) = (await store.dump(walk)).snapshots
    base = checksum(snapshot)
    assert checksum(snapshot) == base
    spaced = {key: msgspec.Raw(b" " + bytes(value)) for key, value in snapshot.state.items()}
    assert checksum(msgspec.structs.replace(snapshot, state=spaced)) == base
    seen = {base}
    for field in snapshot.header.__struct_fields__:
        other = checksum(_with(snapshot, field))
        if field in {"active_at", "expires_at", "due_at", "fence", "holder", "leased_until"}:
            assert other == base, field
        else:
            assert other not in seen, field
            seen.add(other)
    documents = snapshot.documents
    others: tuple[dict[str, Any], ...] = (
        {"documents": documents[:1]},
        {"documents": documents[::-1]},
        {"documents": (msgspec.structs.replace(documents[0], body=b"x"), documents[1])},
        {"state": {**snapshot.state, "n": msgspec.Raw(b"2.0")}},
        {"state": {}},
    )
    for fields in others:
        other = checksum(msgspec.structs.replace(snapshot, **fields))
        assert other not in seen
        seen.add(other)


def _with(snapshot: Snapshot, field: str) -> Snapshot:
    """Return a session with one fact of its header changed."""
    header: Header = snapshot.header
    value: Any = getattr(header, field)
    changed: Any = {str: "changed", int: -1, dict: {"changed": "x"}, tuple: ("kind",)}.get(
        type(value), "changed"
    )
    if isinstance(value, bytes):
        changed = b"changed"
    return msgspec.structs.replace(
        snapshot, header=msgspec.structs.replace(header, **{field: changed})
    )

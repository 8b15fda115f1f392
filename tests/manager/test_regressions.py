"""Faults that were found once, each with the property that it broke."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    Closed,
    Ended,
    EndFailed,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    Reaper,
    Session,
    SessionManager,
    Trigger,
)
from sojourn.testing.fakes import FakeClock
from sojourn.timestamps import LATEST, to_datetime

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

HUGE = (1e15, 1e300, 10**400)
"""Numbers of seconds that no instant can hold."""

BAD = (0, -1, math.nan, math.inf, True, "1")
"""What is no span of time."""


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


class Blocker:
    """An end hook that says that it runs, and goes on when it is told to."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.runs: list[str] = []

    async def __call__(self, session: Session, _reason: str) -> None:
        self.runs.append(session.id)
        self.entered.set()
        await self.leave.wait()


async def _reached(sessions: SessionManager, id: str, revision: int) -> None:
    """Return once a session has got to a revision; tasks that are ready run meanwhile."""
    while True:
        if (await sessions.require(id)).revision >= revision:
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("hooks", [0, 1])
async def test_of_many_callers_over_an_expired_id_all_get_the_session(
    opened: Opener, clock: FakeClock, hooks: int
) -> None:
    """An expired session is finished once, and every get-or-create returns the one after it."""
    runs: list[str] = []

    async def hook(session: Session, _reason: str) -> None:
        for _ in range(50):  # the others get as far as they can
            await asyncio.sleep(0)
        runs.append(session.epoch)

    async with opened(clock=clock) as sessions:
        for _ in range(hooks):
            sessions.on_end(hook)
        old = await sessions.create(id="x", expiry=Expiry(idle=10))
        clock.advance(11)
        found = await asyncio.gather(*(sessions.get_or_create("x") for _ in range(5)))
        assert {session.epoch for session in found} == {found[0].epoch}
        assert found[0].epoch != old.epoch
        assert runs == [old.epoch] * hooks


async def test_a_late_first_save_stores_a_session_that_can_be_read(
    opened: Opener, clock: FakeClock
) -> None:
    """The idle time of a session that was not stored counts from its first save."""
    async with opened(clock=clock) as sessions:
        session = sessions.new(state={"a": 1}, expiry=Expiry(idle=10, absolute=100))
        clock.advance(11)
        await sessions.save(session)
        stored = await sessions.require(session.id)
        assert stored.state["a"] == 1
        assert stored.active_at == to_datetime(clock.now())
        assert stored.expires_at == session.expires_at == to_datetime(clock.now() + 10_000_000)


async def test_a_first_save_past_the_absolute_deadline_is_refused(
    opened: Opener, clock: FakeClock
) -> None:
    """The absolute deadline counts from the start; a save past it says so and stores nothing."""
    async with opened(clock=clock) as sessions:
        session = sessions.new(state={"a": 1}, expiry=Expiry(absolute=10))
        clock.advance(10)
        with pytest.raises(Ended):
            await sessions.save(session)
        assert not session.stored
        assert await sessions.get(session.id, expired=True) is None


@pytest.mark.parametrize("renew", [True, False])
async def test_a_cancellation_while_a_lease_is_let_go_is_kept_and_the_lease_is_free(
    opened: Opener, *, renew: bool
) -> None:
    """Cancelled at the end of its body, a lease is released and the task is cancelled."""
    async with opened() as sessions:
        session = await sessions.create()
        went_on: list[bool] = []

        async def work() -> None:
            async with sessions.lease(session.id, renew=renew):
                asyncio.get_running_loop().call_soon(task.cancel)
            went_on.append(True)

        task = asyncio.ensure_future(work())
        await asyncio.wait([task])
        assert task.cancelled()
        assert not went_on
        async with sessions.lease(session.id) as lease:
            assert lease.token > 1


async def test_a_close_that_is_cancelled_closes_the_store_all_the_same(opened: Opener) -> None:
    """Cancelled while it waits for an end, `close` leaves nothing open."""
    async with opened() as sessions:
        hook = Blocker()
        sessions.on_end(hook)
        session = await sessions.create()
        end = asyncio.ensure_future(sessions.end(session.id))
        await hook.entered.wait()
        close = asyncio.ensure_future(sessions.close())
        await asyncio.sleep(0)
        close.cancel()
        await asyncio.wait([close])
        assert close.cancelled()
        with pytest.raises(Closed):
            sessions.now()
        with pytest.raises(Closed):
            await sessions.store.tiers("default", None)
        hook.leave.set()
        assert isinstance((await asyncio.gather(end, return_exceptions=True))[0], Exception)


async def test_an_end_that_has_begun_takes_a_later_retain(opened: Opener) -> None:
    """`retain` counts for a session that is ending already; without one the earlier one stays."""
    async with opened() as sessions:
        session = await sessions.create()
        await sessions.apply(session.id, Trigger.END)
        assert await sessions.end(session.id, retain=3600)
        assert (await sessions.require(session.id)).phase == "ENDED"

        hook = Blocker()
        sessions.on_end(hook)
        session = await sessions.create()
        first = asyncio.ensure_future(sessions.end(session.id))
        await hook.entered.wait()
        ends = [asyncio.ensure_future(sessions.end(session.id, retain=3600))]
        await _reached(sessions, session.id, 3)
        ends.append(asyncio.ensure_future(sessions.end(session.id)))
        await _reached(sessions, session.id, 4)
        hook.leave.set()
        assert await asyncio.gather(first, *ends) == [True, True, True]
        assert (await sessions.require(session.id)).phase == "ENDED"


async def test_an_end_leaves_a_later_session_with_the_same_id_alone(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced between claim and hooks, an end runs no hook and ends no child of its successor."""
    async with opened() as sessions:
        ran: list[str] = []

        async def hook(session: Session, _reason: str) -> None:
            ran.append(session.id)

        sessions.on_end(hook)
        await sessions.create(id="x")
        store: Any = sessions.store
        acquire = store.acquire

        async def replaced(grant: object) -> object:
            token = await acquire(grant)
            monkeypatch.setattr(store, "acquire", acquire)
            await sessions.delete("x")
            await sessions.create(id="x")
            await sessions.create(id="child", parent="x")
            return token

        monkeypatch.setattr(store, "acquire", replaced)
        assert not await sessions.end("x")
        assert ran == []
        assert (await sessions.require("x")).phase == "OPEN"
        assert (await sessions.require("child")).phase == "OPEN"


@pytest.mark.parametrize("seconds", HUGE)
async def test_spans_beyond_the_calendar_end_with_it(opened: Opener, seconds: float) -> None:
    """Idle and absolute time, ttl and retain are cut at the last instant there is."""
    async with opened() as sessions:
        last = to_datetime(LATEST)
        for expiry in (Expiry(idle=seconds), Expiry(absolute=seconds)):
            found = await sessions.create(expiry=expiry)
            assert (await sessions.require(found.id)).expires_at == last
        session = await sessions.create()
        await sessions.documents().put("c", "k", b"", ttl=seconds)
        assert [kept.expires_at for kept in await sessions.documents().list("c")] == [last]
        await sessions.end(session.id, retain=seconds)
        assert (await sessions.require(session.id)).expires_at == last


@pytest.mark.parametrize("seconds", BAD)
async def test_what_is_no_span_is_refused_as_a_callers_mistake(
    opened: Opener, seconds: Any
) -> None:
    """`retain`, `ttl` of a document and of a lease: `InvalidQuery`, and nothing happens."""
    async with opened() as sessions:
        session = await sessions.create()
        with pytest.raises(InvalidQuery, match="retain"):
            await sessions.end(session.id, retain=seconds)
        with pytest.raises(InvalidQuery, match="ttl"):
            await sessions.documents().put("c", "k", b"", ttl=seconds)
        with pytest.raises(InvalidQuery, match="ttl"):
            async with sessions.lease(session.id, ttl=seconds):
                pass
        assert (await sessions.require(session.id)).phase == "OPEN"
        assert await sessions.documents().list("c") == []


@pytest.mark.parametrize("reason", ["\ud800", "x" * 1_001, object(), 1])
async def test_a_reason_that_cannot_be_stored_is_refused(opened: Opener, reason: Any) -> None:
    """A reason is text of at most 1,000 characters: `InvalidQuery`, and nothing happens."""
    async with opened() as sessions:
        session = await sessions.create()
        with pytest.raises(InvalidQuery, match="reason"):
            await sessions.end(session.id, reason=reason)
        with pytest.raises(InvalidQuery, match="reason"):
            await sessions.apply(session.id, Trigger.END, reason=reason)
        assert (await sessions.require(session.id)).revision == 1
        await sessions.apply(session.id, Trigger.END, reason="x" * 1_000)


async def test_kinds_and_places_that_are_no_names_are_refused(opened: Opener) -> None:
    """A kind, and the key behind which documents are listed, are names."""
    async with opened() as sessions:
        session = await sessions.create(events=[Event(kind="k"), Event(kind="l")])
        for kind in ("\ud800", ["k", "\ud800"], [1]):
            with pytest.raises(InvalidId, match="kind"):
                await sessions.events(session.id, kind=kind)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(InvalidQuery, match="kind"):
            await sessions.events(session.id, kind=1)  # type: ignore[arg-type]  # wrong on purpose
        assert len(await sessions.events(session.id, kind=iter(["k", "l"]))) == 2
        for after in ("\ud800", "", 1):
            with pytest.raises(InvalidId, match="after"):
                await sessions.documents().list("c", after=after)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_repeated_event_of_a_create_changes_state_once(opened: Opener) -> None:
    """An event that is there twice is applied where it was first, stored and in the copy."""
    events = [
        Event(kind="k", id="x", delta={"n": 1, "app:n": 1, "user:n": 1}),
        Event(kind="k", id="y", delta={"n": 2, "app:n": 2, "user:n": 2}),
        Event(kind="k", id="x", delta={"n": 1, "app:n": 1, "user:n": 1}),
    ]
    async with opened() as sessions:
        created = await sessions.create(user="u", events=events)
        stored = await sessions.require(created.id)
        for session in (created, stored):
            assert dict(session.state) == {"n": 2, "app:n": 2, "user:n": 2}
        assert [event.id for event in created.events] == ["x", "y"]


async def test_a_hook_that_ends_its_own_session_is_answered_at_once(opened: Opener) -> None:
    """Inside a hook, ending the session (or the parent that ends it) is `False`, no deadlock."""
    async with opened() as sessions:
        parent = await sessions.create()
        child = await sessions.create(parent=parent.id)
        answers: list[bool] = []

        async def hook(session: Session, _reason: str) -> None:
            answers.append(await sessions.end(session.id))
            answers.append(await sessions.finish(session.id))
            answers.append(await sessions.end(parent.id))

        sessions.on_end(hook)
        assert await sessions.end(parent.id)
        assert answers == [False] * 6
        assert await sessions.get(child.id) is None
        assert await sessions.get(parent.id) is None


async def test_what_a_hook_left_running_can_end_the_session_later(opened: Opener) -> None:
    """Only while the end runs is it the hook's own: a task it left may try a failed one again."""
    async with opened() as sessions:
        session = await sessions.create()
        failed = asyncio.Event()
        later: list[asyncio.Future[bool]] = []

        async def again() -> bool:
            await failed.wait()
            return await sessions.end(session.id)

        async def hook(_session: Session, _reason: str) -> None:
            if not later:
                later.append(asyncio.ensure_future(again()))
                raise OSError("not now")

        sessions.on_end(hook)
        with pytest.raises(EndFailed):
            await sessions.end(session.id)
        failed.set()
        assert await later[0]
        assert await sessions.get(session.id) is None


async def test_a_reaper_that_stops_waits_for_one_batch(opened: Opener, clock: FakeClock) -> None:
    """`stop` waits for the batch under way, not for all that is due; a later sweep is whole."""
    async with opened(clock=clock) as sessions:
        hook = Blocker()
        sessions.on_end(hook)
        for _ in range(3):
            await sessions.create(expiry=Expiry(idle=10))
        clock.advance(11)
        reaper = Reaper(sessions, batch=1, interval=3600)
        async with reaper:
            await hook.entered.wait()
            stop = asyncio.ensure_future(reaper.stop())
            await asyncio.sleep(0)
            hook.leave.set()
            await stop
            assert len(hook.runs) == 1
        assert await reaper.sweep() == 2


async def test_a_reaper_without_hooks_stops_between_batches(
    opened: Opener, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fast sweep, too, goes on with no other batch once it is told to stop."""
    async with opened(clock=clock) as sessions:
        for _ in range(3):
            await sessions.create(expiry=Expiry(idle=10))
        clock.advance(11)
        reaper = Reaper(sessions, batch=1, interval=3600)
        reap = sessions.ending.reap
        stops: list[asyncio.Future[None]] = []
        stopped = asyncio.Event()

        async def stopping(limit: int) -> object:
            if not stops:
                stops.append(asyncio.ensure_future(reaper.stop()))
                stopped.set()
                await asyncio.sleep(0)
            return await reap(limit)

        monkeypatch.setattr(sessions.ending, "reap", stopping)
        async with reaper:
            await stopped.wait()
            await stops[0]
            assert len(await sessions.ending.due(10)) == 2

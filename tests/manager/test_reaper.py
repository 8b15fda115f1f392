"""The reaper: bounded sweeps that end what has expired, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from sojourn import (
    Expiry,
    InvalidQuery,
    Phase,
    Reaper,
    Session,
    SessionManager,
    Unavailable,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

IDLE = Expiry(idle=100)
TICK = 0.000_001

hooked = pytest.mark.parametrize("with_hook", [False, True], ids=["no hook", "hook"])
"""Without hooks a sweep is one removal in the store; with them each session goes its way alone."""


class Recorder:
    """An end hook that notes the ids, and fails for those in `broken`."""

    def __init__(self, *broken: str) -> None:
        self.ended: list[str] = []
        self.broken = set(broken)

    async def __call__(self, session: Session, _reason: str) -> None:
        if session.id in self.broken:
            raise OSError(f"{session.id} resists")
        self.ended.append(session.id)


async def expired_sessions(sessions: SessionManager, clock: FakeClock, count: int) -> list[str]:
    """Create so many sessions, let them expire, and return their ids."""
    ids = [f"s{number}" for number in range(count)]
    for id in ids:
        await sessions.create(id=id, expiry=IDLE)
    clock.advance(100)
    return ids


async def ids_there(sessions: SessionManager, *ids: str) -> set[str]:
    """Return which of these ids are stored, expired or not."""
    return {id for id in ids if await sessions.get(id, expired=True) is not None}


def spy(
    monkeypatch: pytest.MonkeyPatch, sessions: SessionManager, verb: str, seen: list[Any]
) -> None:
    """Note what a verb of the manager's store is called with."""
    real = getattr(sessions.store, verb)

    async def noting(asked: Any, /) -> Any:
        seen.append(asked)
        return await real(asked)

    monkeypatch.setattr(sessions.store, verb, noting)


# ------------------------------------------------------------------------------------- what it ends


@pytest.mark.behaviour(53)
@hooked
async def test_a_sweep_removes_what_has_expired_and_only_that(
    opened: Opener, with_hook: bool
) -> None:
    """Expired ones go; ones with time left, even a microsecond, and never-expiring ones stay."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        if with_hook:
            sessions.on_end(Recorder())
        await sessions.create(id="expired", expiry=Expiry(idle=100))
        await sessions.create(id="too late", expiry=Expiry(absolute=99))
        await sessions.create(id="young", expiry=Expiry(idle=100 + TICK))
        await sessions.create(id="eternal")
        clock.advance(100)
        assert await Reaper(sessions).sweep() == 2
        assert {s.id for s in (await sessions.list()).items} == {"young", "eternal"}
        assert not await ids_there(sessions, "expired", "too late")
        assert await Reaper(sessions).sweep() == 0


@hooked
async def test_a_sweep_stays_in_its_app(opened: Opener, with_hook: bool) -> None:
    """What expired in another app of the same store is left to that app's reaper."""
    clock = FakeClock()
    async with opened(clock=clock) as ours, opened(clock=clock, app="theirs") as theirs:
        if with_hook:
            ours.on_end(Recorder())
        await expired_sessions(theirs, clock, 1)
        assert await Reaper(ours).sweep() == 0
        assert await ids_there(theirs, "s0") == {"s0"}


async def test_what_was_used_since_it_was_found_is_left_alone(opened: Opener) -> None:
    """Found due, and then touched by a process whose clock is behind: nothing happens to it."""
    clock, behind, hook = FakeClock(), FakeClock(), Recorder()
    async with opened(clock=clock) as sessions, opened(clock=behind) as others:
        sessions.on_end(hook)
        await expired_sessions(sessions, clock, 1)
        (header,) = await sessions.ending.due(10)
        behind.advance(100 - TICK)
        await others.heartbeat("s0")
        assert await sessions.ending.finish_due(header) is False
        assert hook.ended == []
        assert (await sessions.require("s0")).phase is Phase.OPEN


async def test_what_changed_since_it_was_found_is_left_to_the_next_sweep(opened: Opener) -> None:
    """Another revision than the one found due is not ended, even if it has expired as well."""
    clock, behind, hook = FakeClock(), FakeClock(), Recorder()
    async with opened(clock=clock) as sessions, opened(clock=behind) as others:
        sessions.on_end(hook)
        await expired_sessions(sessions, clock, 1)
        (header,) = await sessions.ending.due(10)
        session = await others.require("s0")
        session.state["k"] = 1
        await others.save(session)
        assert await sessions.ending.finish_due(header) is False
        assert hook.ended == []
        assert await Reaper(sessions).sweep() == 1
        assert hook.ended == ["s0"]


async def test_what_was_created_anew_since_it_was_found_is_left_alone(opened: Opener) -> None:
    """The id may belong to another session by then: it is not touched."""
    clock, hook = FakeClock(), Recorder()
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await expired_sessions(sessions, clock, 1)
        (header,) = await sessions.ending.due(10)
        await sessions.delete("s0")
        await sessions.create(id="s0", expiry=IDLE)
        clock.advance(100)
        assert await sessions.ending.finish_due(header) is False
        assert hook.ended == []
        assert await ids_there(sessions, "s0") == {"s0"}


async def test_two_reapers_at_once_run_each_hook_once(opened: Opener) -> None:
    """Sweeps of two managers on one store share the work without repeating any."""
    clock, hook = FakeClock(), Recorder()
    async with opened(clock=clock) as here, opened(clock=clock) as there:
        here.on_end(hook)
        there.on_end(hook)
        ids = await expired_sessions(here, clock, 8)
        await asyncio.gather(Reaper(here).sweep(), Reaper(there).sweep())
        assert sorted(hook.ended) == sorted(ids)
        assert not await ids_there(here, *ids)


# -------------------------------------------------------------------------------------- live scopes


@pytest.mark.behaviour(55)
@hooked
async def test_a_session_with_a_live_scope_is_left_alone(opened: Opener, with_hook: bool) -> None:
    """However late, it is not swept while any scope is in it, and the others are; then it is."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        if with_hook:
            sessions.on_end(Recorder())
        reaper = Reaper(sessions)
        await sessions.create(id="in use", expiry=IDLE)
        async with sessions.scope("in use"):
            async with sessions.scope("in use"):
                await sessions.create(id="idle", expiry=IDLE)
                clock.advance(100)
                assert await reaper.sweep() == 1
            assert await reaper.sweep() == 0
            assert await ids_there(sessions, "in use", "idle") == {"in use"}
        assert await reaper.sweep() == 1
        assert not await ids_there(sessions, "in use")


@pytest.mark.behaviour(55)
@hooked
async def test_an_absolute_deadline_ends_even_a_session_with_a_live_scope(
    opened: Opener, with_hook: bool
) -> None:
    """Idle time is extended by a scope; absolute time is not."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        if with_hook:
            sessions.on_end(Recorder())
        await sessions.create(id="s0", expiry=Expiry(idle=50, absolute=100))
        async with sessions.scope("s0"):
            clock.advance(100 - TICK)
            assert await Reaper(sessions).sweep() == 0
            clock.advance(TICK)
            assert await Reaper(sessions).sweep() == 1
            assert not await ids_there(sessions, "s0")


# ------------------------------------------------------------------------------------------- bounds


@hooked
async def test_a_sweep_goes_in_bounded_batches(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, with_hook: bool
) -> None:
    """Each step asks for no more than `batch` sessions, and all of them are ended in one sweep."""
    clock, steps = FakeClock(), list[Any]()
    async with opened(clock=clock) as sessions:
        if with_hook:
            sessions.on_end(Recorder())
        spy(monkeypatch, sessions, "due" if with_hook else "reap", steps)
        ids = await expired_sessions(sessions, clock, 25)
        assert await Reaper(sessions, batch=4).sweep() == 25
        assert {step.limit for step in steps} == {4}
        assert not await ids_there(sessions, *ids)


async def test_what_stays_due_does_not_hide_the_rest(opened: Opener) -> None:
    """More live scopes than a batch holds: a sweep looks past them, once, and ends the others."""
    clock, hook = FakeClock(), Recorder()
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        scopes = [sessions.scope(await sessions.create(expiry=IDLE)) for _ in range(5)]
        for scope in scopes:
            await scope.__aenter__()
        ids = await expired_sessions(sessions, clock, 5)
        assert await Reaper(sessions, batch=2).sweep() == 5
        assert sorted(hook.ended) == ids
        for scope in scopes:
            await scope.__aexit__(None, None, None)


@pytest.mark.behaviour(56)
async def test_hooks_of_no_more_sessions_than_allowed_run_at_once(opened: Opener) -> None:
    """10 sessions, limit 2: two at a time, never three."""
    clock, pair = FakeClock(), asyncio.Barrier(2)
    running: set[str] = set()
    peaks: list[int] = []
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def meet(session: Session, _reason: str) -> None:
            running.add(session.id)
            await pair.wait()
            peaks.append(len(running))
            await asyncio.sleep(0)
            peaks.append(len(running))
            running.remove(session.id)

        await expired_sessions(sessions, clock, 10)
        assert await Reaper(sessions, concurrency=2).sweep() == 10
        assert len(peaks) == 20
        assert max(peaks) == 2


async def test_a_sweep_drops_documents_past_their_own_deadline(tmp_path: Path) -> None:
    """They are missing at their deadline; the sweep frees their space, hooks or no hooks."""
    file, clock = tmp_path / "sessions.db", FakeClock()
    async with SessionManager.open(f"sqlite:///{file}", clock=clock) as sessions:
        for hook in (None, Recorder()):
            if hook is not None:
                sessions.on_end(hook)
            await sessions.create(id=f"{hook}")
            for documents in (sessions.documents(), sessions.documents(f"{hook}")):
                await documents.put("c", "short", b"x", ttl=10)
                await documents.put("c", "long", b"x", ttl=1_000)
            clock.advance(10)
            await Reaper(sessions).sweep()
            with closing(apsw.Connection(str(file))) as db:
                assert set(db.execute("SELECT key FROM documents")) == {("long",)}


# ----------------------------------------------------------------------------------------- failures


@pytest.mark.behaviour(57)
async def test_a_session_that_fails_is_logged_and_stops_nobody(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """Its id and cause are in the log, it stays, and the others of its batch and the next go."""
    clock, hook = FakeClock(), Recorder("s1")
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        ids = await expired_sessions(sessions, clock, 6)
        with caplog.at_level(logging.ERROR, logger="sojourn"):
            assert await Reaper(sessions, batch=2).sweep() == 5
        assert sorted(hook.ended) == [id for id in ids if id != "s1"]
        assert await ids_there(sessions, *ids) == {"s1"}
        (record,) = caplog.records
        assert "'s1'" in record.getMessage()
        assert record.exc_info is not None
        assert "s1 resists" in str(record.exc_info[1])


@pytest.mark.behaviour(57)
@hooked
async def test_a_scan_that_fails_does_not_kill_the_loop(
    opened: Opener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    with_hook: bool,
) -> None:
    """The failure is logged, and the next sweep does the work."""
    clock, swept = FakeClock(), asyncio.Event()
    async with opened(clock=clock) as sessions:
        if with_hook:
            sessions.on_end(Recorder())
        await expired_sessions(sessions, clock, 1)
        verb = "due" if with_hook else "reap"
        real = getattr(sessions.store, verb)
        calls: list[object] = []

        async def failing_once(asked: Any, /) -> Any:
            calls.append(asked)
            if len(calls) == 1:
                raise Unavailable("disk", "no answer")
            found = await real(asked)
            if len(found) == 0:
                swept.set()
            return found

        monkeypatch.setattr(sessions.store, verb, failing_once)
        async with Reaper(sessions, interval=0.001):
            await swept.wait()
        assert not await ids_there(sessions, "s0")
        assert any("a sweep failed" in record.getMessage() for record in caplog.records)


async def test_a_sweep_by_hand_says_when_the_store_is_in_trouble(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the loop carries on; a caller of `sweep` gets the error."""

    async def broken(_asked: Any, /) -> Any:
        raise Unavailable("disk", "no answer")

    async with opened() as sessions:
        monkeypatch.setattr(sessions.store, "reap", broken)
        with pytest.raises(Unavailable):
            await Reaper(sessions).sweep()


# ------------------------------------------------------------------------------- starting, stopping


@pytest.mark.behaviour(59)
@pytest.mark.parametrize("name", ["batch", "concurrency", "interval"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
async def test_its_numbers_are_positive(opened: Opener, name: str, value: float) -> None:
    """`InvalidQuery`, naming which one is not."""
    numbers: dict[str, Any] = {name: value}
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match=name):
            Reaper(sessions, **numbers)


@pytest.mark.behaviour(59)
def test_it_sweeps_every_minute_unless_told_otherwise() -> None:
    """The default interval is 60 s."""
    assert inspect.signature(Reaper).parameters["interval"].default == 60


@pytest.mark.behaviour(59)
async def test_it_sweeps_in_the_background_until_it_is_stopped(opened: Opener) -> None:
    """What expires while it runs is ended; once stopped, no task is left. Twice is fine."""
    clock, ended = FakeClock(), asyncio.Event()
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def note(_session: Session, _reason: str) -> None:
            ended.set()

        reaper = Reaper(sessions, interval=0.001)
        async with reaper:
            async with reaper:
                assert tasks_of_reapers() == 1
                await expired_sessions(sessions, clock, 1)
                await ended.wait()
            assert tasks_of_reapers() == 0
            await reaper.stop()
        await reaper.stop()
        assert tasks_of_reapers() == 0


def tasks_of_reapers() -> int:
    """Return how many tasks of reapers there are; a store has its own."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return sum("Reaper" in name for name in names)


@pytest.mark.behaviour(59)
async def test_stopping_waits_for_the_sweep_under_way(opened: Opener) -> None:
    """No hook is cut off: `stop` returns once the sweep is done."""
    clock, entered, leave = FakeClock(), asyncio.Event(), asyncio.Event()
    finished: list[str] = []
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def slow(session: Session, _reason: str) -> None:
            entered.set()
            await leave.wait()
            finished.append(session.id)

        await expired_sessions(sessions, clock, 1)
        reaper = await Reaper(sessions).__aenter__()
        await entered.wait()
        stop = asyncio.ensure_future(reaper.stop())
        await asyncio.sleep(0)
        assert not stop.done()
        leave.set()
        await stop
        assert finished == ["s0"]
        assert not await ids_there(sessions, "s0")


async def test_it_can_be_started_again(opened: Opener) -> None:
    """A reaper that was stopped sweeps again when it is entered again."""
    clock = FakeClock()
    ended: asyncio.Queue[str] = asyncio.Queue()
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def note(session: Session, _reason: str) -> None:
            ended.put_nowait(session.id)

        reaper = Reaper(sessions, interval=0.001)
        for id in ("first", "second"):
            await sessions.create(id=id, expiry=IDLE)
            clock.advance(100)
            async with reaper:
                assert await ended.get() == id

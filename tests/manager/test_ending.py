"""Ending a session: one path, hooks before anything is removed, failures that are tried again."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from sojourn import (
    Closed,
    Ended,
    EndFailed,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    InvalidTransition,
    LeaseLost,
    Phase,
    Reaper,
    Session,
    SessionManager,
    Trigger,
)
from sojourn.limits import END_CLAIM_SECONDS
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

TICK = 0.000_001


class Recorder:
    """An end hook, and a cleaner, that notes each run and fails while `broken`."""

    def __init__(self, *, broken: bool = False) -> None:
        self.runs: list[tuple[str, str]] = []
        self.broken = broken

    async def __call__(self, session: Session, reason: str) -> None:
        self.runs.append((session.id, reason))
        if self.broken:
            raise OSError("not now")

    async def clean(self, session: Session, reason: str, /) -> None:
        await self(session, reason)


class Blocker:
    """An end hook that says that it runs and goes on when it is told to."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()

    async def __call__(self, _session: Session, _reason: str) -> None:
        self.entered.set()
        await self.leave.wait()


async def phase_of(sessions: SessionManager, id: str = "s1") -> Phase | None:
    found = await sessions.get(id, expired=True)
    return None if found is None else found.phase


# ------------------------------------------------------------------------------- one end, its order


@pytest.mark.behaviour(136)
async def test_an_end_runs_hooks_and_then_removes(opened: Opener) -> None:
    """Each hook sees the whole session, still there, with the reason; then it is gone."""
    seen: list[tuple[str, object, str, bool]] = []
    async with opened() as sessions:
        await sessions.create(id="s1", state={"k": 1})

        @sessions.on_end
        async def note(session: Session, reason: str) -> None:
            there = await sessions.get("s1") is not None
            seen.append((session.phase, session.state["k"], reason, there))

        assert await sessions.end("s1", reason="logout") is True
        assert seen == [(Phase.ENDING, 1, "logout", True)]
        assert await sessions.get("s1", expired=True) is None


async def test_an_ending_session_takes_nothing_new(opened: Opener) -> None:
    """While hooks run: no writes, no scopes, no leases, no children; reads and heartbeats work."""
    async with opened() as sessions:
        session = await sessions.create(id="s1", state={"k": 1}, events=[Event(kind="a")])
        blocker = Blocker()
        sessions.on_end(blocker)
        end = asyncio.ensure_future(sessions.end("s1"))
        await blocker.entered.wait()

        session.state["k"] = 2
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: sessions.save(session),
            lambda: sessions.append("s1", Event(kind="b")),
            lambda: sessions.truncate(session, after=0),
            lambda: sessions.replace_suffix(session, expected=[1], events=[]),
            lambda: sessions.bind(session, "u1"),
            lambda: sessions.label(session, {"a": "b"}),
            lambda: sessions.documents("s1").put("c", "k", b"x"),
            lambda: sessions.create(parent="s1"),
            lambda: sessions.scope("s1").__aenter__(),
            lambda: sessions.lease("s1").__aenter__(),
        ]
        for write in refused:
            with pytest.raises(Ended):
                await write()
        assert (await sessions.require("s1", events=5)).state["k"] == 1
        assert len(await sessions.events("s1")) == 1
        await sessions.heartbeat("s1")

        blocker.leave.set()
        assert await end is True


async def test_hooks_run_in_parallel_and_cleaners_after_them(opened: Opener) -> None:
    """Two hooks that wait for each other both finish, then two such cleaners."""
    order: list[str] = []

    class Meeting:
        def __init__(self, name: str) -> None:
            self.name, self.party = name, asyncio.Barrier(2)

        async def __call__(self, _session: Session, _reason: str) -> None:
            await self.party.wait()
            order.append(self.name)

        async def clean(self, session: Session, reason: str, /) -> None:
            await self(session, reason)

    cleaner, hook = Meeting("cleaner"), Meeting("hook")
    async with opened(cleaners=[cleaner, cleaner]) as sessions:
        sessions.on_end(hook)
        sessions.on_end(hook)
        await sessions.create(id="s1")
        await sessions.end("s1")
        assert order == ["hook", "hook", "cleaner", "cleaner"]


async def test_on_end_takes_functions_only_and_returns_them(opened: Opener) -> None:
    """It works as a decorator, and refuses what cannot be called at once."""
    async with opened() as sessions:
        hook = Recorder()
        assert sessions.on_end(hook) is hook
        with pytest.raises(InvalidQuery):
            sessions.on_end("not a hook")  # type: ignore[arg-type]  # what this is about


@pytest.mark.behaviour(117)
async def test_ending_what_is_not_there_is_fine(opened: Opener) -> None:
    """An unknown id, one that was ended, and one that was deleted: `False`, and no hook runs."""
    hook = Recorder()
    async with opened() as sessions:
        sessions.on_end(hook)
        assert await sessions.end("unknown") is False
        assert await sessions.finish("unknown") is False
        await sessions.create(id="s1")
        assert await sessions.end("s1") is True
        assert await sessions.end("s1") is False
        await sessions.create(id="s2")
        await sessions.delete("s2")
        assert await sessions.end("s2") is False
        assert hook.runs == [("s1", "ended")]
        for verb in (sessions.end, sessions.finish, sessions.delete):
            with pytest.raises(InvalidId):
                await verb("")


async def test_a_deleted_session_runs_no_hooks(opened: Opener) -> None:
    """Delete removes at once: hooks and cleaners belong to the end."""
    hook = Recorder()
    async with opened(cleaners=[hook]) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1")
        assert await sessions.delete("s1") is True
        assert hook.runs == []


# ---------------------------------------------------------------------------------- several runners


@pytest.mark.behaviour(136)
async def test_five_ends_at_once_run_the_hooks_once(opened: Opener) -> None:
    """Callers in one process join the one end; each returns once it is complete."""
    hook, cleaner = Recorder(), Recorder()
    async with opened(cleaners=[cleaner]) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1")
        outcomes = await asyncio.gather(*(sessions.end("s1") for _ in range(5)))
        assert any(outcomes)
        assert hook.runs == cleaner.runs == [("s1", "ended")]
        assert await sessions.get("s1", expired=True) is None


@pytest.mark.behaviour(136)
@pytest.mark.parametrize("retain", [None, 60])
async def test_five_ends_in_two_managers_run_the_hooks_once(
    opened: Opener, retain: float | None
) -> None:
    """Two managers on one store: one of them runs hooks and cleaners, whoever it is."""
    hook, cleaner = Recorder(), Recorder()
    async with (
        opened(cleaners=[cleaner]) as here,
        opened(cleaners=[cleaner]) as there,
    ):
        here.on_end(hook)
        there.on_end(hook)
        await here.create(id="s1")
        managers = [here, there, here, there, here]
        outcomes = await asyncio.gather(*(m.end("s1", retain=retain) for m in managers))
        assert any(outcomes)
        assert len(hook.runs) == len(cleaner.runs) == 1
        assert await phase_of(there) == (Phase.ENDED if retain else None)


async def test_a_caller_that_gives_up_leaves_the_end_running(opened: Opener) -> None:
    """Cancelling one of two callers of `end` interrupts no hook; the other gets the result."""
    blocker, cleaner = Blocker(), Recorder()
    async with opened(cleaners=[cleaner]) as sessions:
        sessions.on_end(blocker)
        await sessions.create(id="s1")
        first = asyncio.ensure_future(sessions.end("s1"))
        await blocker.entered.wait()
        second = asyncio.ensure_future(sessions.finish("s1"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        blocker.leave.set()
        assert await second is True
        assert cleaner.runs == [("s1", "ended")]
        assert await phase_of(sessions) is None


async def test_an_id_that_is_created_again_at_once_has_an_end_of_its_own(opened: Opener) -> None:
    """Whatever the timing, an end of the new session never joins the one of its predecessor."""
    ended: list[str] = []
    async with opened() as sessions:

        @sessions.on_end
        async def note(session: Session, _reason: str) -> None:
            ended.append(session.epoch)

        async def live_and_end() -> str:
            while True:
                session = await sessions.get_or_create("s1")
                if session.phase is Phase.OPEN:
                    await sessions.end("s1")
                    return session.epoch
                await asyncio.sleep(0)

        for _ in range(20):
            epochs = set(await asyncio.gather(*(live_and_end() for _ in range(4))))
            assert epochs <= set(ended)
            assert await sessions.get("s1", expired=True) is None
        assert len(ended) == len(set(ended))


async def test_the_end_revokes_a_workers_lease(opened: Opener) -> None:
    """An end does not wait for who runs the session: the lease is lost, at the latest on use."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        outcomes: list[type[Exception]] = []
        async with sessions.lease("s1", renew=False) as lease:

            @sessions.on_end
            async def use_it(_session: Session, _reason: str) -> None:
                with pytest.raises(Ended) as refused:
                    await sessions.append("s1", Event(kind="a"), lease=lease)
                outcomes.append(refused.type)
                with pytest.raises(LeaseLost) as lost:
                    await lease.renew()
                outcomes.append(lost.type)

            assert await sessions.end("s1") is True
            assert outcomes == [Ended, LeaseLost]
            assert lease.lost


# ------------------------------------------------------------------------------------ in two halves


async def test_finish_is_the_second_half_of_an_end(opened: Opener) -> None:
    """`apply` begins the end and runs nothing; `finish` runs hooks and cleaners and removes."""
    hook, cleaner = Recorder(), Recorder()
    async with opened(cleaners=[cleaner]) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1")
        assert await sessions.apply("s1", Trigger.END, reason="closing time") is Phase.ENDING
        assert hook.runs == []
        assert await phase_of(sessions) is Phase.ENDING
        assert await sessions.finish("s1") is True
        assert hook.runs == cleaner.runs == [("s1", "closing time")]
        assert await phase_of(sessions) is None


async def test_finish_refuses_a_session_whose_end_has_not_begun(opened: Opener) -> None:
    """`InvalidTransition`, nothing is changed and no hook runs."""
    hook = Recorder()
    async with opened() as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1")
        with pytest.raises(InvalidTransition, match="not begun"):
            await sessions.finish("s1")
        found = await sessions.require("s1")
        assert (found.phase, found.revision, hook.runs) == (Phase.OPEN, 1, [])


async def test_what_was_begun_and_never_finished_is_finished_by_the_reaper(opened: Opener) -> None:
    """An end begun with `apply` whose caller never came back is taken over after the claim time."""
    clock, hook = FakeClock(), Recorder()
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1")
        await sessions.apply("s1", Trigger.END)
        clock.advance(END_CLAIM_SECONDS - TICK)
        assert await Reaper(sessions).sweep() == 0
        clock.advance(TICK)
        assert await Reaper(sessions).sweep() == 1
        assert hook.runs == [("s1", "ended")]


# ----------------------------------------------------------------------------------------- failures


@pytest.mark.behaviour(116)
@pytest.mark.parametrize("part", ["hook", "cleaner"])
async def test_a_failing_hook_leaves_the_session_ending_and_readable(
    opened: Opener, part: str
) -> None:
    """`EndFailed` carries the cause; data stays readable, nothing new is taken; a retry ends it."""
    recorder = Recorder(broken=True)
    async with opened(cleaners=[recorder] if part == "cleaner" else []) as sessions:
        if part == "hook":
            sessions.on_end(recorder)
        await sessions.create(id="s1", state={"k": 1}, events=[Event(kind="a")])
        await sessions.documents("s1").put("c", "k", b"x")
        with pytest.raises(EndFailed, match="not now") as failed:
            await sessions.end("s1")
        assert failed.value.id == "s1"
        assert [type(cause) for cause in failed.value.causes] == [OSError]

        found = await sessions.require("s1", events=5)
        assert (found.phase, found.state["k"], len(found.events)) == (Phase.ENDING, 1, 1)
        assert await sessions.documents("s1").get("c", "k") is not None
        assert await sessions.count() == 1
        with pytest.raises(Ended):
            await sessions.append("s1", Event(kind="b"))

        recorder.broken = False
        assert await sessions.end("s1") is True
        assert len(recorder.runs) == 2
        assert await phase_of(sessions) is None


async def test_every_hook_runs_even_if_others_fail_and_causes_keep_their_order(
    opened: Opener,
) -> None:
    """The causes come in the order of registration; cleaners wait until all hooks succeed."""
    fine, cleaner = Recorder(), Recorder()
    async with opened(cleaners=[cleaner]) as sessions:
        await sessions.create(id="s1")

        @sessions.on_end
        async def slow(_session: Session, _reason: str) -> None:
            await asyncio.sleep(0)
            raise KeyError("first")

        sessions.on_end(fine)

        @sessions.on_end
        async def quick(_session: Session, _reason: str) -> None:
            raise ValueError("second")

        with pytest.raises(EndFailed) as failed:
            await sessions.end("s1")
        assert [type(cause) for cause in failed.value.causes] == [KeyError, ValueError]
        assert len(fine.runs) == 1
        assert cleaner.runs == []


async def test_a_hook_that_fails_before_it_awaits_is_a_failed_hook(opened: Opener) -> None:
    """A hook that is no async function, and raises when called, is reported and retried as any."""
    fine = Recorder()

    def plain(_session: Session, _reason: str) -> Awaitable[object]:
        raise TypeError("I am not async")

    async with opened() as sessions:
        sessions.on_end(fine)
        sessions.on_end(plain)
        await sessions.create(id="s1")
        with pytest.raises(EndFailed, match="I am not async"):
            await sessions.end("s1")
        assert len(fine.runs) == 1
        assert await phase_of(sessions) is Phase.ENDING


@pytest.mark.parametrize("part", ["hook", "cleaner"])
async def test_a_hook_that_never_ends_fails_in_bounded_time(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """It is cancelled after its time, counts as failed, and the other hooks were not held up."""
    monkeypatch.setattr("sojourn.ending.HOOK_SECONDS", 0.01)
    cancelled, fine = asyncio.Event(), Recorder()

    class Hanging:
        async def __call__(self, _session: Session, _reason: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async def clean(self, session: Session, reason: str, /) -> None:
            await self(session, reason)

    hanging = Hanging()
    async with opened(cleaners=[hanging, fine] if part == "cleaner" else []) as sessions:
        if part == "hook":
            sessions.on_end(hanging)
            sessions.on_end(fine)
        await sessions.create(id="s1")
        with pytest.raises(EndFailed) as failed:
            await sessions.end("s1")
        assert [type(cause) for cause in failed.value.causes] == [TimeoutError]
        assert cancelled.is_set()
        assert len(fine.runs) == 1
        assert await phase_of(sessions) is Phase.ENDING


async def test_the_reaper_retries_a_failed_end_with_doubling_waits(opened: Opener) -> None:
    """1 s, 2 s, 4 s, ... 256 s, then every 300 s; not a microsecond earlier; then it succeeds."""
    clock, hook = FakeClock(), Recorder(broken=True)
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        reaper = Reaper(sessions)
        await sessions.create(id="s1")
        with pytest.raises(EndFailed):
            await sessions.end("s1")
        waits = [2.0**n for n in range(9)] + [300.0, 300.0, 300.0]
        for number, wait in enumerate(waits, start=1):
            clock.advance(wait - TICK)
            assert await reaper.sweep() == 0
            assert len(hook.runs) == number
            clock.advance(TICK)
            assert await reaper.sweep() == 0
            assert len(hook.runs) == number + 1
        hook.broken = False
        clock.advance(300)
        assert await reaper.sweep() == 1
        assert await phase_of(sessions) is None


# --------------------------------------------------------------------------------- runners that die


async def test_an_end_whose_runner_was_cancelled_is_picked_up(opened: Opener) -> None:
    """Cancelled amid its hooks, it leaves the session ending and whole; the reaper ends it."""
    clock, blocker, hook = FakeClock(), Blocker(), Recorder()
    async with opened(clock=clock) as sessions, opened(clock=clock) as others:
        sessions.on_end(blocker)
        others.on_end(hook)
        await sessions.create(id="s1", state={"k": 1})
        end = asyncio.ensure_future(sessions.end("s1"))
        await blocker.entered.wait()
        (runner,) = sessions.ending._running.values()
        runner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await end
        found = await others.require("s1")
        assert (found.phase, found.state["k"]) == (Phase.ENDING, 1)
        clock.advance(END_CLAIM_SECONDS)
        assert await Reaper(others).sweep() == 1
        assert hook.runs == [("s1", "ended")]


RUNNER = """
import asyncio, sys
from sojourn import SessionManager
from sojourn.testing.fakes import FakeClock

async def main(url):
    async with SessionManager.open(url, clock=FakeClock()) as sessions:
        @sessions.on_end
        async def hang(session, reason):
            print("in the hook", flush=True)
            await asyncio.Event().wait()
        await sessions.end("s1", reason="told to")

asyncio.run(main(sys.argv[1]))
"""
"""A process that never gets out of an end hook."""


async def test_an_end_whose_process_was_killed_is_picked_up(tmp_path: Path) -> None:
    """Its claim holds for a while; then another process's reaper runs the hooks and ends it."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    clock, hook = FakeClock(), Recorder()
    async with SessionManager.open(url, clock=clock) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1", state={"k": 1})
        pipe = asyncio.subprocess.PIPE
        runner = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUNNER, url, stdout=pipe
        )
        assert runner.stdout is not None
        assert await runner.stdout.readline() == b"in the hook\n"
        runner.kill()
        await runner.communicate()

        assert (await sessions.require("s1")).state["k"] == 1
        clock.advance(END_CLAIM_SECONDS - TICK)
        assert await Reaper(sessions).sweep() == 0
        clock.advance(TICK)
        assert await Reaper(sessions).sweep() == 1
        assert hook.runs == [("s1", "told to")]
        assert await phase_of(sessions) is None


async def test_closing_a_manager_waits_for_the_ends_under_way(opened: Opener) -> None:
    """An end that runs when its manager closes is completed first."""
    blocker, cleaner = Blocker(), Recorder()
    async with opened() as others:
        async with opened(cleaners=[cleaner]) as sessions:
            sessions.on_end(blocker)
            await sessions.create(id="s1")
            end = asyncio.ensure_future(sessions.end("s1"))
            await blocker.entered.wait()
            asyncio.get_running_loop().call_soon(blocker.leave.set)
        assert await end is True
        assert cleaner.runs == [("s1", "ended")]
        assert await phase_of(others) is None


# ---------------------------------------------------------------------------------------- retention


async def test_a_retained_record_stays_readable_and_is_then_removed(opened: Opener) -> None:
    """Ended, with state, events, documents and reason, for `retain` seconds from its completion."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1", state={"k": 1}, events=[Event(kind="a")])
        await sessions.documents("s1").put("c", "k", b"x")
        assert await sessions.end("s1", reason="done", retain=60) is True

        clock.advance(60 - TICK)
        assert await Reaper(sessions).sweep() == 0
        found = await sessions.require("s1", events=5, touch=True)
        assert (found.phase, found.reason) == (Phase.ENDED, "done")
        assert (found.state["k"], len(found.events)) == (1, 1)
        assert await sessions.documents("s1").get("c", "k") is not None
        assert await sessions.count(phase=Phase.ENDED) == 1

        clock.advance(TICK)
        assert await sessions.get("s1") is None
        assert await sessions.count() == 0
        assert await Reaper(sessions).sweep() == 1
        assert await sessions.get("s1", expired=True) is None


async def test_an_ended_record_takes_nothing_and_is_not_ended_again(opened: Opener) -> None:
    """Writes, heartbeats and scopes raise `Ended`; a second end is `False` and runs no hook."""
    hook = Recorder()
    async with opened() as sessions:
        sessions.on_end(hook)
        session = await sessions.create(id="s1")
        await sessions.end("s1", retain=60)
        session.state["k"] = 1
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: sessions.save(session),
            lambda: sessions.append("s1", Event(kind="b")),
            lambda: sessions.heartbeat("s1"),
            lambda: sessions.scope("s1").__aenter__(),
            lambda: sessions.lease("s1").__aenter__(),
        ]
        for write in refused:
            with pytest.raises(Ended):
                await write()
        assert await sessions.end("s1") is False
        assert await sessions.finish("s1") is False
        assert hook.runs == [("s1", "ended")]
        assert await phase_of(sessions) is Phase.ENDED


async def test_retention_outlives_the_deadline_that_the_session_had(opened: Opener) -> None:
    """An ended record is kept for its retention time, not for what was left of its idle time."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1", expiry=Expiry(idle=10, absolute=20))
        await sessions.end("s1", retain=60)
        clock.advance(60 - TICK)
        assert await Reaper(sessions).sweep() == 0
        assert (await sessions.require("s1")).phase is Phase.ENDED


async def test_retention_survives_a_failed_end(opened: Opener) -> None:
    """What `retain` asked for holds when the end succeeds only later, and counts from then."""
    clock, hook = FakeClock(), Recorder(broken=True)
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1")
        with pytest.raises(EndFailed):
            await sessions.end("s1", retain=60)
        hook.broken = False
        clock.advance(500)
        assert await Reaper(sessions).sweep() == 1
        clock.advance(60 - TICK)
        assert await phase_of(sessions) is Phase.ENDED
        assert await sessions.get("s1") is not None


@pytest.mark.parametrize("retain", [0, -1, float("nan")])
async def test_a_retention_that_is_not_positive_is_refused(opened: Opener, retain: float) -> None:
    """`InvalidQuery`, and the session was not touched."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        with pytest.raises(InvalidQuery, match="retain"):
            await sessions.end("s1", retain=retain)
        assert await phase_of(sessions) is Phase.OPEN


# ------------------------------------------------------------------------------------------ expired


@pytest.mark.behaviour(58)
async def test_an_expired_session_takes_the_same_path(opened: Opener) -> None:
    """Hooks and cleaners run with its data, whether the reaper ends it or an explicit `end`."""
    clock, cleaner = FakeClock(), Recorder()
    persisted: list[tuple[str, list[str], object]] = []
    async with opened(clock=clock, cleaners=[cleaner]) as sessions:

        @sessions.on_end
        async def persist(session: Session, reason: str) -> None:
            events = await sessions.events(session.id, expired=True)
            persisted.append((reason, [event.kind for event in events], session.state["k"]))

        for id in ("swept", "ended"):
            await sessions.create(
                id=id, expiry=Expiry(idle=10), state={"k": id}, events=[Event(kind="a")]
            )
        clock.advance(10)
        assert await sessions.end("ended", reason="by hand") is True
        assert await Reaper(sessions).sweep() == 1
        assert persisted == [("by hand", ["a"], "ended"), ("expired", ["a"], "swept")]
        assert cleaner.runs == [("ended", "by hand"), ("swept", "expired")]
        assert await phase_of(sessions, "swept") is None
        assert await phase_of(sessions, "ended") is None


async def test_an_expired_session_whose_end_fails_stays_missing(opened: Opener) -> None:
    """Failing to end it does not revive it: reads do not see it, hooks can, the reaper goes on."""
    clock, hook = FakeClock(), Recorder(broken=True)
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1", expiry=Expiry(idle=10), state={"k": 1})
        clock.advance(10)
        assert await Reaper(sessions).sweep() == 0
        assert await sessions.get("s1") is None
        assert await sessions.count() == 0
        left = await sessions.get("s1", expired=True)
        assert left is not None
        assert (left.phase, left.state["k"]) == (Phase.ENDING, 1)
        hook.broken = False
        clock.advance(1)
        assert await Reaper(sessions).sweep() == 1
        assert await phase_of(sessions) is None


async def test_a_hook_can_not_close_its_manager(opened: Opener) -> None:
    """Closing waits for the ends under way, and so for the hook: it would never return."""
    refused: list[InvalidQuery] = []
    async with opened() as sessions, SessionManager.open("memory://") as other:

        @sessions.on_end
        async def close(_session: Session, _reason: str) -> None:
            with pytest.raises(InvalidQuery, match="invalid close: an end hook can not") as caught:
                await sessions.close()
            refused.append(caught.value)
            await other.close()

        assert await sessions.end((await sessions.create()).id)
        assert len(refused) == 1
        await sessions.create()
        with pytest.raises(Closed):
            await other.create()

"""Leases: one worker at a time, a token that rises, and writes that fail once it is another's."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.faulty_store import faulty

from sojourn import (
    EndFailed,
    Event,
    InvalidQuery,
    LeaseHeld,
    LeaseLost,
    NotFound,
    SessionManager,
    Trigger,
    Unavailable,
)
from sojourn.limits import LEASE_MAX_SECONDS
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sojourn import Lease, Session

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

TICK = 0.000_001


async def is_free(sessions: SessionManager, id: str = "s1") -> bool:
    """Tell whether a lease can be had at once (and let go of it)."""
    try:
        async with sessions.lease(id, ttl=1, renew=False):
            return True
    except LeaseHeld:
        return False


# ------------------------------------------------------------------------------------ one at a time


async def test_a_lease_that_is_held_is_refused_at_once(opened: Opener) -> None:
    """`LeaseHeld` says of which session and until when, here and in another manager."""
    clock = FakeClock()
    async with opened(clock=clock) as here, opened(clock=clock) as there:
        await here.create(id="s1")
        async with here.lease("s1", ttl=30, renew=False) as lease:
            assert lease.id == "s1"
            for manager in (here, there):
                with pytest.raises(LeaseHeld) as refused:
                    await manager.lease("s1").__aenter__()
                assert refused.value.id == "s1"
                assert refused.value.until == clock.now() + 30_000_000


async def test_a_lease_is_free_again_after_its_body(opened: Opener) -> None:
    """Released at the end, whether the body returned, raised or was cancelled."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1"):
            assert not await is_free(sessions)
        assert await is_free(sessions)

        async def failing() -> None:
            async with sessions.lease("s1"):
                raise KeyError("body")

        with pytest.raises(KeyError):
            await failing()
        assert await is_free(sessions)

        held = asyncio.Event()

        async def cancelled() -> None:
            async with sessions.lease("s1"):
                held.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(cancelled())
        await held.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await is_free(sessions)


async def test_the_token_rises_with_every_holder(opened: Opener) -> None:
    """Over releases, expiries and managers, each holder's token is above all before it."""
    clock = FakeClock()
    async with opened(clock=clock) as here, opened(clock=clock) as there:
        await here.create(id="s1")
        tokens: list[int] = []
        for manager in (here, there, here):
            async with manager.lease("s1", renew=False) as lease:
                tokens.append(lease.token)
        stale = here.lease("s1", ttl=10, renew=False)
        tokens.append((await stale.__aenter__()).token)
        clock.advance(10)
        async with there.lease("s1", renew=False) as lease:
            tokens.append(lease.token)
            await stale.__aexit__(None, None, None)
            assert not await is_free(here)
        assert tokens == sorted(set(tokens))


async def test_waiting_for_a_lease_gets_it_once_it_is_released(opened: Opener) -> None:
    """`wait=` seconds are given to the holder; a waiter of another manager gets it too."""
    async with opened() as here, opened() as there:
        await here.create(id="s1")
        first = here.lease("s1")
        token = (await first.__aenter__()).token

        async def work() -> int:
            async with there.lease("s1", wait=30) as lease:
                return lease.token

        waiter = asyncio.create_task(work())
        await asyncio.sleep(0)
        assert not waiter.done()
        await first.__aexit__(None, None, None)
        assert await waiter > token


async def test_waiting_for_a_lease_ends_after_its_time(opened: Opener) -> None:
    """Still held by then: `LeaseHeld`, and the holder keeps it."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1") as lease:
            with pytest.raises(LeaseHeld):
                await sessions.lease("s1", wait=0.01).__aenter__()
            await sessions.append("s1", Event(kind="a"), lease=lease)


async def test_workers_that_wait_take_turns(opened: Opener) -> None:
    """Five workers of two managers: never two inside, each with a token of its own."""
    inside: list[int] = []
    tokens: list[int] = []
    async with opened() as here, opened() as there:
        await here.create(id="s1")

        async def work(manager: SessionManager, number: int) -> None:
            async with manager.lease("s1", wait=30) as lease:
                inside.append(number)
                await asyncio.sleep(0)
                assert inside == [number]
                inside.remove(number)
                tokens.append(lease.token)

        await asyncio.gather(*(work((here, there)[n % 2], n) for n in range(5)))
        assert tokens == sorted(set(tokens))
        assert len(tokens) == 5


# ----------------------------------------------------------------------------------------- its time


async def test_a_lease_runs_out_at_its_end_and_not_before(opened: Opener) -> None:
    """One microsecond before `ttl` it is held; at `ttl` the next worker gets it."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1", ttl=30, renew=False):
            clock.advance(30 - TICK)
            assert not await is_free(sessions)
            clock.advance(TICK)
            assert await is_free(sessions)


async def test_renewing_starts_the_span_over(opened: Opener) -> None:
    """Renewed after 20 of 30 seconds it ends at 50, with the token that it had."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1", ttl=30, renew=False) as lease:
            token = lease.token
            clock.advance(20)
            await lease.renew()
            clock.advance(30 - TICK)
            assert not await is_free(sessions)
            assert lease.token == token
            clock.advance(TICK)
            assert await is_free(sessions)


async def test_a_lease_is_renewed_in_the_background(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the body runs it is kept, over a failure of the store as well."""
    clock, ttl = FakeClock(), 0.03  # a renewal every 10 ms
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1")
        renewals: asyncio.Queue[object] = asyncio.Queue()
        real = sessions.store.renew  # type: ignore[attr-defined]  # both stores have leases

        async def noting(asked: Any, /) -> None:
            if renewals.empty() and not calls:
                calls.append(asked)
                raise Unavailable("disk", "no answer")
            await real(asked)
            renewals.put_nowait(asked)

        calls: list[object] = []
        monkeypatch.setattr(sessions.store, "renew", noting)
        async with sessions.lease("s1", ttl=ttl) as lease:
            for _ in range(3):
                clock.advance(ttl * 0.9)
                await renewals.get()
                assert not await is_free(sessions)
            assert calls
            assert not lease.lost
        assert await is_free(sessions)


async def test_a_lease_that_was_taken_over_is_lost(opened: Opener) -> None:
    """`renew` raises `LeaseLost` and `lost` says so; releasing it harms nobody."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1", ttl=10, renew=False) as old:
            clock.advance(10)
            async with sessions.lease("s1", ttl=10, renew=False) as new:
                with pytest.raises(LeaseLost) as lost:
                    await old.renew()
                assert (lost.value.id, lost.value.token) == ("s1", old.token)
                assert old.lost
                await old.release()
                await new.renew()
                assert not await is_free(sessions)


async def test_a_released_lease_is_over(opened: Opener) -> None:
    """Released early the next worker gets it; renewing or writing with it is `LeaseLost`."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1") as lease:
            await lease.release()
            assert await is_free(sessions)
            with pytest.raises(LeaseLost):
                await lease.renew()
            with pytest.raises(LeaseLost):
                await sessions.append("s1", Event(kind="a"), lease=lease)
            await lease.release()


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), LEASE_MAX_SECONDS + 1])
async def test_a_lease_lasts_some_time_and_not_for_ever(opened: Opener, ttl: float) -> None:
    """Zero, negative, no number, over the limit: `InvalidQuery`, and nothing is held."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        with pytest.raises(InvalidQuery, match="ttl"):
            await sessions.lease("s1", ttl=ttl).__aenter__()
        assert await is_free(sessions)


@pytest.mark.parametrize("id", ["unknown", "", "deleted"])
async def test_there_is_no_lease_of_nothing(opened: Opener, id: str) -> None:
    """Unknown, malformed and deleted ids are `NotFound`; nothing is created."""
    async with opened() as sessions:
        await sessions.create(id="deleted")
        await sessions.delete("deleted")
        with pytest.raises(NotFound):
            await sessions.lease(id).__aenter__()
        assert await sessions.count() == 0


async def test_a_lease_is_no_change_of_the_session(opened: Opener) -> None:
    """Taking, renewing and releasing raise no revision: a strict save goes through."""
    async with opened() as sessions:
        session = await sessions.create(id="s1")
        async with sessions.lease("s1") as lease:
            await lease.renew()
            session.state["k"] = 1
            await sessions.save(session, conflict="fail", lease=lease)
        assert (await sessions.require("s1")).revision == 2


# ------------------------------------------------------------------------------------------ fencing


def writes(sessions: SessionManager, session: Any, lease: Lease) -> list[Awaitable[object]]:
    """Return one call of every write that takes a lease."""
    return [
        sessions.save(session, lease=lease),
        sessions.append(session, Event(kind="b"), lease=lease),
        sessions.append("s1", Event(kind="b"), lease=lease),
        sessions.truncate(session, after=0, lease=lease),
        sessions.replace_suffix(session, expected=[1], events=[], lease=lease),
        sessions.apply("s1", Trigger.END, lease=lease),
    ]


async def test_writes_with_a_superseded_lease_are_refused(opened: Opener) -> None:
    """The old holder's writes are `LeaseLost` and change nothing; the new holder's go through."""
    clock = FakeClock()
    async with opened(clock=clock) as here, opened(clock=clock) as there:
        session = await here.create(id="s1", events=[Event(kind="a")])
        session.state["k"] = 1
        async with here.lease("s1", ttl=10, renew=False) as old:
            clock.advance(10)
            async with there.lease("s1", ttl=10, renew=False) as new:
                for write in writes(here, session, old):
                    with pytest.raises(LeaseLost) as lost:
                        await write
                    assert lost.value.token == old.token
                found = await there.require("s1", events=9)
                assert (found.revision, len(found.events), dict(found.state)) == (1, 1, {})
                assert session.modified
                await there.append("s1", Event(kind="c"), lease=new)
                await here.save(session)


async def test_clearing_with_a_superseded_lease_deletes_nothing(opened: Opener) -> None:
    """The save of a cleared session is a write as well."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s1", state={"k": 1})
        session.state.clear()
        async with sessions.lease("s1", ttl=10, renew=False) as old:
            clock.advance(10)
            async with sessions.lease("s1", ttl=10, renew=False):
                with pytest.raises(LeaseLost):
                    await sessions.save(session, lease=old)
                assert (await sessions.require("s1")).state["k"] == 1


async def test_every_write_goes_through_with_the_lease_that_holds(opened: Opener) -> None:
    """None of them is refused for its lease while nobody else has taken it, run out or not."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s1", events=[Event(kind="a")])
        session.state["k"] = 1
        async with sessions.lease("s1", ttl=10, renew=False) as lease:
            await sessions.save(session, lease=lease)
            clock.advance(10)
            await sessions.append(session, Event(kind="b"), lease=lease)
            await sessions.replace_suffix(session, expected=[2], events=[], lease=lease)
            await sessions.truncate(session, after=0, lease=lease)
            await sessions.apply("s1", Trigger.END, lease=lease)


async def test_a_lease_of_an_earlier_session_with_the_same_id_fences_nothing(
    opened: Opener,
) -> None:
    """Deleted and created anew, leased anew: the old lease, of the same token, writes nothing."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1", renew=False) as old:
            await sessions.delete("s1")
            await sessions.create(id="s1")
            async with sessions.lease("s1", renew=False) as new:
                assert new.token == old.token
                with pytest.raises((LeaseLost, NotFound)):
                    await sessions.append("s1", Event(kind="a"), lease=old)
                with pytest.raises((LeaseLost, NotFound)):
                    await sessions.apply("s1", Trigger.END, lease=old)
                assert await sessions.events("s1") == []
                await sessions.append("s1", Event(kind="a"), lease=new)


async def test_a_lease_is_of_one_session(opened: Opener) -> None:
    """Handed to a write of another session it is refused, whatever the tokens are."""
    async with opened() as sessions:
        session = await sessions.create(id="s1")
        await sessions.create(id="s2")
        async with (
            sessions.lease("s1", renew=False),
            sessions.lease("s2", renew=False) as other,
        ):
            for target in (session, "s1"):
                with pytest.raises(InvalidQuery, match="lease"):
                    await sessions.append(target, Event(kind="a"), lease=other)
            assert await sessions.events("s1") == []


WORKER = """
import asyncio, sys
from sojourn import Event, LeaseLost, SessionManager
from sojourn.testing.fakes import FakeClock

async def main(url):
    async with SessionManager.open(url, clock=FakeClock()) as sessions:
        async with sessions.lease("s1", ttl=30, renew=False) as lease:
            print(lease.token, flush=True)
            sys.stdin.readline()
            try:
                await sessions.append("s1", Event(kind="late"), lease=lease)
                print("written", flush=True)
            except LeaseLost as error:
                print(type(error).__name__, error.token, flush=True)

asyncio.run(main(sys.argv[1]))
"""
"""A worker that takes the lease and writes when it is told to."""


@pytest.mark.parametrize("killed", [False, True])
async def test_fencing_holds_across_processes(tmp_path: Path, killed: bool) -> None:
    """A worker in another process holds it till its end, dead or alive; then it is fenced off."""
    url, clock = f"sqlite:///{tmp_path / 'sessions.db'}", FakeClock()
    pipe = asyncio.subprocess.PIPE
    async with SessionManager.open(url, clock=clock) as sessions:
        await sessions.create(id="s1")
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, url, stdin=pipe, stdout=pipe
        )
        assert worker.stdout is not None
        token = int(await worker.stdout.readline())
        if killed:
            worker.kill()
            await worker.communicate()
        clock.advance(30 - TICK)
        assert not await is_free(sessions)
        clock.advance(TICK)
        async with sessions.lease("s1") as lease:
            assert lease.token > token
            if not killed:
                output, _ = await worker.communicate(b"\n")
                assert output.decode().split() == ["LeaseLost", str(token)]
            assert await sessions.events("s1") == []
            await sessions.append("s1", Event(kind="mine"), lease=lease)


# --------------------------------------------------------------------------- a release that fails


async def test_what_the_body_raised_is_raised_though_the_release_fails(url: str) -> None:
    """A note says that the lease was not released. One whose body was fine says it itself."""
    async with faulty(url) as (store, sessions):

        async def hold(id: str, *, raising: bool) -> None:
            await sessions.create(id=id)
            async with sessions.lease(id, renew=False):
                store.fail("renew", times=None)
                if raising:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as raised:
            await hold("s1", raising=True)
        assert "its lease was not released" in raised.value.__notes__[0]
        with pytest.raises(Unavailable):
            await hold("s2", raising=False)


async def test_a_hook_that_failed_is_told_though_the_release_fails(url: str) -> None:
    """An end holds a lease as well: what its hook raised matters more."""
    async with faulty(url) as (store, sessions):

        async def hook(_session: Session, _reason: str) -> None:
            store.fail("renew", times=None)
            raise ZeroDivisionError

        sessions.on_end(hook)
        await sessions.create(id="s1")
        with pytest.raises(EndFailed) as raised:
            await sessions.end("s1")
        assert [type(cause) for cause in raised.value.causes] == [ZeroDivisionError]
        assert "its lease was not released" in raised.value.__notes__[0]


async def test_a_body_that_is_cancelled_is_cancelled_though_the_release_fails(url: str) -> None:
    """Else a time limit around it would end with another error than its own."""
    async with faulty(url) as (store, sessions):

        async def hold() -> None:
            async with asyncio.timeout(None) as limit, sessions.lease("s1", renew=False):
                store.fail("renew", times=None)
                limit.reschedule(asyncio.get_running_loop().time())
                await asyncio.Event().wait()

        await sessions.create(id="s1")
        with pytest.raises(TimeoutError):
            await hold()


# ------------------------------------------------------------------------------------- cancellation


async def test_a_cancelled_wait_leaves_nothing_held(opened: Opener) -> None:
    """A waiter that gives up does not get the lease behind everybody's back."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        async with sessions.lease("s1"):
            waiter = asyncio.create_task(sessions.lease("s1", wait=30).__aenter__())
            for _ in range(5):
                await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        assert await is_free(sessions)


@pytest.mark.parametrize("steps", range(1, 12))
async def test_an_acquisition_cancelled_on_its_way_leaves_nothing_held(
    opened: Opener, steps: int
) -> None:
    """Whenever the cancellation comes, the lease is free at once afterwards."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def work() -> None:
            async with sessions.lease("s1", ttl=3_600):
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await is_free(sessions)

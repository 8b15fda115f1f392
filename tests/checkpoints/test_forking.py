"""Forking from a checkpoint: a session that starts where it was saved."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.checkpoints.contents import bodies, ids
from tests.manager.watched_store import watched

from sojourn import (
    AlreadyExists,
    CheckpointMissing,
    Event,
    Expiry,
    NotFound,
    Reaper,
    Unavailable,
)
from sojourn.checkpoints.verbs import MAKING_SECONDS
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.manager.watched_store import When

    from sojourn import Session, SessionManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


@pytest.mark.parametrize("size", [1, 40, 200])
async def test_a_fork_starts_from_its_checkpoint(opened: Opener, small: None, size: int) -> None:
    """It is the latest there, with its line; log and state are as it was saved; later ones stay."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="u", labels={"a": "b"})
        checkpoints = sessions.checkpoints(session)
        parent = None
        for number in range(5):
            event = Event(kind="step", body=number, delta={"n": number})
            await sessions.append(session, event)
            parent = await checkpoints.save(bytes([number]) * size, id=f"c{number}", parent=parent)
        await checkpoints.save(b"aside", id="aside", parent="c1")
        fork = await checkpoints.fork("c2", new_id="f", expiry=Expiry(idle=60))
        assert (fork.id, fork.user, fork.forked_from, dict(fork.labels)) == (
            "f",
            "u",
            "s",
            {"a": "b"},
        )
        assert fork.expires_at is not None
        assert fork.state["n"] == 2
        assert [event.body for event in await sessions.events("f")] == [0, 1, 2]
        there = sessions.checkpoints("f")
        assert await ids(there) == ["c2", "c1", "c0"]
        latest = await there.latest()
        assert latest is not None
        assert (latest.id, latest.body) == ("c2", b"\x02" * size)
        assert [item.id for item in await there.lineage("c2")] == ["c2", "c1", "c0"]
        assert await ids(checkpoints) == ["aside", "c4", "c3", "c2", "c1", "c0"]


@pytest.mark.parametrize("size", [1, 40, 200])
async def test_those_saved_later_at_the_same_event_do_not_come_along(
    opened: Opener, small: None, size: int
) -> None:
    """Nor do their bodies; what both have is not shared between the sessions."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        for number in range(6):
            await checkpoints.save(bytes([number % 4]) * size, id=f"c{number}")
        fork = await checkpoints.fork("c2")
        there = sessions.checkpoints(fork)
        assert await ids(there) == ["c2", "c1", "c0"]
        assert len(await bodies(sessions, fork.id)) == (3 if size > 16 else 0)
        fork.state["x"] = 1
        await sessions.save(fork, conflict="fail")  # what it returned knows all of its commits
        await sessions.delete(session.id)
        for number in range(3):
            found = await there.get(f"c{number}")
            assert found is not None
            assert found.body == bytes([number]) * size
        await there.save(b"\x03" * size, id="c3", parent="c2")
        latest = await there.latest()
        assert latest is not None
        assert latest.body == b"\x03" * size


async def test_an_ancestor_that_was_saved_anew_comes_along(opened: Opener) -> None:
    """Even if that was later in the order: the line is whole, and the latest is right."""
    async with opened() as sessions:
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        await checkpoints.save(b"first", id="root")
        await checkpoints.save(b"child", id="child", parent="root")
        await checkpoints.save(b"later", id="later", parent="child")
        await checkpoints.save(b"anew", id="root")
        fork = await checkpoints.fork("child")
        there = sessions.checkpoints(fork)
        assert await ids(there) == ["child", "root"]
        assert [item.id for item in await there.lineage("child")] == ["child", "root"]
        found = await there.latest()
        assert found is not None
        assert found.body == b"child"


@pytest.mark.parametrize("size", [1, 40, 200])
async def test_an_ancestor_that_was_saved_anew_down_the_log_stays_behind(
    opened: Opener, small: None, size: int
) -> None:
    """Log and state are as the checkpoint was saved; its line ends before that ancestor."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        for turn, (name, parent) in enumerate(
            [("oldest", None), ("root", "oldest"), ("child", "root")]
        ):
            await sessions.append(session, Event(kind="step", body=turn, delta={"turn": turn}))
            await checkpoints.save(name.encode() * size, id=name, parent=parent)
        await sessions.append(session, Event(kind="step", body=3, delta={"turn": 3}))
        await checkpoints.save(b"anew", id="root", parent="oldest")
        fork = await checkpoints.fork("child")
        assert fork.state["turn"] == 2
        assert [event.body for event in await sessions.events(fork.id)] == [0, 1, 2]
        there = sessions.checkpoints(fork)
        assert await ids(there) == ["child", "oldest"]
        (last,) = await there.lineage("child")
        assert (last.id, last.parent) == ("child", "root")  # so it shows that the line was cut
        found = await there.latest()
        assert found is not None
        assert found.body == b"child" * size


async def test_forking_from_what_is_not_there(opened: Opener) -> None:
    """No checkpoint, no session, an id that is taken: typed errors, and no session more."""
    async with opened() as sessions:
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        await checkpoints.save(b"", id="a")
        for id in ("unknown", "", "a\nb"):
            with pytest.raises(CheckpointMissing):
                await checkpoints.fork(id)
        for session in ("unknown", "\n"):
            with pytest.raises(NotFound, match="no such session"):
                await sessions.checkpoints(session).fork("a")
        with pytest.raises(AlreadyExists):
            await checkpoints.fork("a", new_id="s")
        assert await sessions.count() == 1


async def test_a_fork_that_fails_on_the_way_is_no_session(url: str) -> None:
    """The store fails, or the caller is cancelled, between the copy and what is taken off it."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        for name in ("a", "b"):
            await checkpoints.save(b"", id=name)
        store.fail("commit", Unavailable("test", "trouble"))
        with pytest.raises(Unavailable):
            await checkpoints.fork("a", new_id="f")
        assert await sessions.get("f") is None

        gate = store.hold("commit", "before")
        forking = asyncio.create_task(checkpoints.fork("a", new_id="f"))
        await gate.arrived.wait()
        forking.cancel()
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await forking
        assert await sessions.get("f") is None

        gate = store.hold("fork", "before")
        forking = asyncio.create_task(checkpoints.fork("a", new_id="f"))
        await gate.arrived.wait()
        await checkpoints.delete("a")
        gate.go()
        with pytest.raises(CheckpointMissing):
            await forking
        assert await sessions.count() == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["fork", "get", "document", "documents", "commit", "delete"])
async def test_a_fork_that_is_cancelled_leaves_no_copy(url: str, verb: str, when: When) -> None:
    """Wherever it is, and none that a hook would be told of later."""
    clock, told = FakeClock(), list[str]()
    async with watched(url, clock=clock) as (sessions, store):

        @sessions.on_end
        async def hook(session: Session, _reason: str) -> None:
            told.append(session.id)

        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        for name in ("a", "b"):
            await checkpoints.save(b"", id=name)
        gate = store.hold("fork" if verb == "delete" else verb, when)
        forking = asyncio.create_task(checkpoints.fork("a"))
        await gate.arrived.wait()
        forking.cancel()
        if verb == "delete":  # cancelled once more, while the copy is removed
            gate = store.hold("delete", when)
            await gate.arrived.wait()
            forking.cancel()
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await forking
        assert [session.id for session in (await sessions.list()).items] == ["s"]
        clock.advance(MAKING_SECONDS)
        await Reaper(sessions).sweep()
        assert told == []


async def test_a_cancelled_fork_is_cancelled_whatever_the_store_says(url: str) -> None:
    """That the copy could not be removed is not what its caller has to hear then."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        await checkpoints.save(b"", id="a")
        for verb in ("fork", "commit"):
            gate = store.hold(verb, "after")
            store.fail("delete", Unavailable("test", "trouble"))
            forking = asyncio.create_task(checkpoints.fork("a"))
            await gate.arrived.wait()
            forking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forking


async def test_a_fork_whose_process_dies_on_the_way_is_gone_in_a_while(url: str) -> None:
    """Nobody is left to take it back: until it is finished it has a deadline of its own."""
    clock = FakeClock()
    async with watched(url, clock=clock) as (sessions, store):
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        for name in ("a", "b"):
            await checkpoints.save(b"", id=name)
        store.fail("commit", Unavailable("test", "the process is gone"))
        store.fail("delete", Unavailable("test", "the process is gone"))
        with pytest.raises(Unavailable):
            await checkpoints.fork("a", new_id="f")
        assert await sessions.get("f") is not None
        clock.advance(MAKING_SECONDS)
        assert await sessions.get("f") is None

        whole = await checkpoints.fork("a", new_id="f", expiry=Expiry(idle=60, absolute=3_600))
        again = await sessions.require("f")
        assert again.header == whole.header
        assert again.expires_at == again.active_at + timedelta(seconds=60)
        lasting = await checkpoints.fork("a")
        assert lasting.expires_at is None
        clock.advance(MAKING_SECONDS)
        assert await sessions.get(lasting.id) is not None

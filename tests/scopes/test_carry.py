"""Carrying a session into a queue and taking it up again; sessions that end with their scope."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    Ended,
    EndFailed,
    Expiry,
    InvalidId,
    InvalidQuery,
    NotFound,
    OutOfScope,
    Session,
    SessionManager,
    carry,
    current_scope,
    current_session,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


class Oops(Exception):
    """What a body raises."""


# --------------------------------------------------------------------------------- carry and resume


async def test_what_is_carried_is_small_json_without_data(opened: Opener) -> None:
    """App, id and epoch: nothing of what the session holds, whose it is, or how it is labelled."""
    async with opened(app="shop") as sessions:
        await sessions.create(
            id="s1", user="u-1", state={"card": "4111", "user:k": "v"}, labels={"a": "b"}
        )
        async with sessions.scope("s1") as s:
            carried = carry()
            assert carried == {"app": "shop", "session": "s1", "epoch": s.epoch}
            assert carry(s) == carried
        assert json.loads(json.dumps(carried)) == carried


async def test_a_job_works_in_the_session_that_was_carried(opened: Opener) -> None:
    """Elsewhere, later, on a copy of its own; what it changed is saved, and nothing has ended."""
    async with opened() as sessions, opened() as worker:
        await sessions.create(id="s1", state={"n": 0})
        async with sessions.scope("s1") as asked:
            queue = [json.dumps(carry())]
        async with worker.resume(json.loads(queue.pop())) as s:
            assert s is current_session()
            assert s is not asked
            s.state["n"] = 1
        assert current_session() is None
        assert (await sessions.require("s1")).state["n"] == 1


async def test_a_job_that_fails_saves_nothing_unless_asked(opened: Opener) -> None:
    """The options of a scope are those of a resumed one."""
    async with opened() as sessions:
        carried = carry(await sessions.create(id="s1"))

        async def work(**options: bool) -> None:
            async with sessions.resume(carried, **options) as s:
                s.state["k"] = "set"
                raise Oops

        with pytest.raises(Oops):
            await work()
        assert "k" not in (await sessions.require("s1")).state
        with pytest.raises(Oops):
            await work(save_on_error=True)
        assert (await sessions.require("s1")).state["k"] == "set"
        with pytest.raises(Oops):
            await work(end=True)
        assert await sessions.get("s1") is None


async def test_nothing_is_carried_where_nothing_is_ambient(opened: Opener) -> None:
    """Neither outside of scopes, nor a session that is not stored, nor something else."""
    with pytest.raises(OutOfScope, match=r"carry\(\)"):
        carry()
    async with opened() as sessions:
        async with sessions.scope(sessions.new(id="s1")):
            with pytest.raises(NotFound, match="save it before"):
                carry()
        with pytest.raises(InvalidQuery, match="give a Session, not str"):
            carry("s1")  # type: ignore[arg-type]  # what a caller without types may do


async def test_a_later_session_with_the_id_is_not_the_one_that_was_carried(opened: Opener) -> None:
    """A job of the old one is refused, and does not count as use of the new one."""
    clock = FakeClock()
    async with opened(clock=clock, expiry=Expiry(idle=100)) as sessions:
        carried = carry(await sessions.create(id="s1"))
        await sessions.delete("s1")
        with pytest.raises(NotFound):
            await sessions.resume(carried).__aenter__()
        later = await sessions.create(id="s1")
        clock.advance(50)
        with pytest.raises(NotFound, match="a later one"):
            await sessions.resume(carried).__aenter__()
        assert (await sessions.require("s1")).active_at == later.active_at
        assert sessions.scopes.live() == frozenset()
        del carried["epoch"]  # who names only the id, means whichever has it
        async with sessions.resume(carried) as s:
            assert s.epoch == later.epoch


async def test_an_ended_session_is_not_taken_up_again(opened: Opener) -> None:
    """A job that waited too long is told so."""
    async with opened() as sessions:
        carried = carry(await sessions.create(id="s1"))
        await sessions.end("s1", retain=60)
        with pytest.raises(Ended):
            await sessions.resume(carried).__aenter__()


@pytest.mark.parametrize(
    ("carried", "error"),
    [
        (None, InvalidQuery),
        ("s1", InvalidQuery),
        ([], InvalidQuery),
        ({}, InvalidQuery),
        ({"session": "s1"}, InvalidQuery),
        ({"app": "default"}, InvalidQuery),
        ({"app": "other", "session": "s1", "epoch": "x"}, InvalidQuery),
        ({"app": "default", "session": "", "epoch": "x"}, InvalidId),
        ({"app": "default", "session": None}, InvalidId),
        ({"app": "default", "session": "a\x00"}, InvalidId),
        ({"app": "default", "session": "s1", "epoch": 7}, NotFound),
    ],
)
async def test_what_carry_did_not_make_is_refused(
    opened: Opener, carried: Any, error: type[Exception]
) -> None:
    """A queue may hold anything."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        with pytest.raises(error):
            await sessions.resume(carried).__aenter__()


# ---------------------------------------------------------------------------- ending with the scope


@pytest.mark.behaviour(124)
@pytest.mark.parametrize("raising", [False, True])
async def test_a_session_may_end_with_its_last_scope(opened: Opener, raising: bool) -> None:
    """Whatever the order in which its scopes are left; saved first, then ended, hooks and all."""
    seen: list[tuple[Any, str]] = []

    async def hook(session: Session, reason: str) -> None:
        seen.append((session.state.get("k"), reason))

    async with opened() as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1")
        other = sessions.scope("s1")
        await other.__aenter__()

        async def work() -> None:
            async with sessions.scope("s1", end=True) as s:
                s.state["k"] = "set"
                if raising:
                    raise Oops

        if raising:
            with pytest.raises(Oops):
                await work()
        else:
            await work()
        assert await sessions.get("s1") is not None, "the other scope still works in it"
        assert seen == []
        await other.__aexit__(None, None, None)
        assert await sessions.get("s1") is None
        assert seen == [(None if raising else "set", "its last scope was left")]


@pytest.mark.behaviour(124)
async def test_a_session_that_was_not_asked_to_end_outlives_its_scopes(opened: Opener) -> None:
    """An end that was asked for in an earlier life of the id is not one of the later."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        async with sessions.scope("s1"):
            pass
        assert await sessions.get("s1") is not None
        outer = sessions.scope("s1")
        await outer.__aenter__()
        async with sessions.scope("s1", end=True):
            pass
        await sessions.delete("s1")
        await sessions.create(id="s1")
        async with sessions.scope("s1"):
            await outer.__aexit__(None, None, None)
        assert await sessions.get("s1") is not None


async def test_ending_with_a_scope_what_was_never_stored_or_is_gone_is_fine(opened: Opener) -> None:
    """There is nothing to end; a later session with the id is left alone."""
    async with opened() as sessions:
        async with sessions.scope(sessions.new(id="s1"), end=True):
            pass
        await sessions.create(id="s2")
        async with sessions.scope("s2", end=True):
            await sessions.delete("s2")
            await sessions.create(id="s2")
        assert await sessions.get("s2") is not None
        async with sessions.scope(sessions.new(id="s3"), end=True) as s:
            s.state["k"] = 1
        assert await sessions.get("s3") is None


async def test_an_end_with_a_scope_that_fails_is_told_and_tried_again(opened: Opener) -> None:
    """After a good body it is raised; after a bad one it is a note on what the body raised."""
    async with opened() as sessions:
        broken = True

        async def hook(session: Session, reason: str) -> None:
            if broken:
                raise OSError("disk full")

        sessions.on_end(hook)

        async def work(id: str, *, raising: bool) -> None:
            await sessions.create(id=id)
            async with sessions.scope(id, end=True):
                if raising:
                    raise Oops

        with pytest.raises(EndFailed):
            await work("s1", raising=False)
        with pytest.raises(Oops) as caught:
            await work("s2", raising=True)
        assert "was not ended" in caught.value.__notes__[0]
        assert sessions.scopes.live() == frozenset()
        broken = False
        for id in ("s1", "s2"):
            assert await sessions.end(id)


async def test_an_end_with_a_scope_is_seen_through_when_cancelled(opened: Opener) -> None:
    """Whoever is cancelled while it ends still sees it end, and then is cancelled."""
    async with opened() as sessions:
        in_hook, go = asyncio.Event(), asyncio.Event()

        async def hook(session: Session, reason: str) -> None:
            in_hook.set()
            await go.wait()

        sessions.on_end(hook)
        await sessions.create(id="s1")

        async def work() -> None:
            async with sessions.scope("s1", end=True):
                assert current_scope() is not None

        task = asyncio.create_task(work())
        await in_hook.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await sessions.get("s1") is None


@pytest.mark.behaviour(58)
async def test_one_that_expires_in_its_scope_ends_with_it_all_the_same(opened: Opener) -> None:
    """Past its absolute deadline its save says `Ended`; its hooks run."""
    clock = FakeClock()
    ended: list[str] = []

    async def hook(session: Session, reason: str) -> None:
        ended.append(session.id)

    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="s1", expiry=Expiry(absolute=100))

        async def work() -> None:
            async with sessions.scope("s1", end=True) as s:
                clock.advance(100)
                s.state["k"] = "too late"

        with pytest.raises(Ended):
            await work()
        assert ended == ["s1"]
        assert await sessions.get("s1", expired=True) is None

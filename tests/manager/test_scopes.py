"""Scopes: the ambient session, its saving at the end, and what ends while code works in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    Ended,
    Event,
    Expiry,
    NotFound,
    Reaper,
    Session,
    SessionManager,
    Unavailable,
    Unserializable,
    current_session,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


class Oops(Exception):
    """What a body raises."""


async def in_scope(sessions: SessionManager, session: Session | str, **options: Any) -> None:
    """Set `k` in a scope whose body then raises `Oops`."""
    async with sessions.scope(session, **options) as s:
        s.state["k"] = "set"
        raise Oops


# ---------------------------------------------------------------------------------- what is ambient


@pytest.mark.behaviour(132)
async def test_the_session_is_ambient_inside_its_scope_only(opened: Opener) -> None:
    """None before, the scope's own copy inside, none after."""
    async with opened() as sessions:
        await sessions.create(id="s1", state={"k": 1})
        assert current_session() is None
        async with sessions.scope("s1") as s:
            assert current_session() is s
            assert s.state["k"] == 1
        assert current_session() is None


@pytest.mark.behaviour(132)
async def test_two_tasks_see_their_own_session(opened: Opener) -> None:
    """Both scopes are open at the same time; each task sees its own session throughout."""
    party = asyncio.Barrier(2)
    async with opened() as sessions:

        async def work(id: str) -> list[str | None]:
            seen: list[str | None] = []
            async with sessions.scope(id):
                for _ in range(3):
                    await party.wait()
                    session = current_session()
                    seen.append(session.id if session else None)
            seen.append(getattr(current_session(), "id", None))
            return seen

        await sessions.create(id="s1")
        await sessions.create(id="s2")
        first, second = await asyncio.gather(work("s1"), work("s2"))
        assert first == ["s1", "s1", "s1", None]
        assert second == ["s2", "s2", "s2", None]
        assert current_session() is None


async def test_a_task_started_in_a_scope_inherits_it(opened: Opener) -> None:
    """Work that the body starts sees the session that was ambient where it was started."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def look() -> Session | None:
            return current_session()

        async with sessions.scope("s1") as s:
            assert await asyncio.create_task(look()) is s


async def test_nested_scopes_are_undone_one_by_one(opened: Opener) -> None:
    """The innermost session is ambient; leaving a scope brings back the one around it."""
    async with opened() as sessions:
        await sessions.create(id="outer")
        await sessions.create(id="inner", parent="outer")
        async with sessions.scope("outer") as outer:
            async with sessions.scope("inner") as inner:
                assert current_session() is inner
                assert inner.parent == outer.id
                with pytest.raises(Oops):
                    await in_scope(sessions, "outer")
                assert current_session() is inner
            assert current_session() is outer
        assert current_session() is None


@pytest.mark.behaviour(127)
@pytest.mark.behaviour(132)
async def test_the_scope_is_left_even_when_the_body_raises(opened: Opener) -> None:
    """The body's own exception is what propagates; nothing stays ambient, nothing stays live."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        with pytest.raises(Oops):
            await in_scope(sessions, "s1")
        assert current_session() is None
        assert sessions.scopes.live() == frozenset()


@pytest.mark.behaviour(132)
async def test_nothing_is_ambient_when_a_scope_can_not_be_entered(opened: Opener) -> None:
    """An unknown, a malformed and an ended id are refused, and leave no trace."""
    async with opened() as sessions:
        await sessions.create(id="ended")
        await sessions.end("ended", retain=60)
        for id, error in (("unknown", NotFound), ("", NotFound), ("ended", Ended)):
            with pytest.raises(error):
                await sessions.scope(id).__aenter__()
            assert current_session() is None
        assert sessions.scopes.live() == frozenset()


@pytest.mark.behaviour(125)
async def test_a_session_is_live_as_long_as_any_of_its_scopes(opened: Opener) -> None:
    """Five scopes that are left at the same time count down to none."""
    party = asyncio.Barrier(6)
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def work() -> None:
            async with sessions.scope("s1"):
                await party.wait()

        tasks = [asyncio.create_task(work()) for _ in range(5)]
        await party.wait()
        assert sessions.scopes.live() == {"s1"}
        await asyncio.gather(*tasks)
        assert sessions.scopes.live() == frozenset()


async def test_background_work_takes_a_scope_of_its_own_and_ends_nothing(opened: Opener) -> None:
    """It outlives the request's scope on the same session, and leaves the session as live."""
    request_over = asyncio.Event()
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def work() -> None:
            async with sessions.scope("s1") as s:
                await request_over.wait()
                s.state["job"] = "done"

        async with sessions.scope("s1") as s:
            job = asyncio.create_task(work())
            s.state["request"] = "done"
        request_over.set()
        await job
        assert dict((await sessions.require("s1")).state) == {"job": "done", "request": "done"}


# -------------------------------------------------------------------------------- saving at the end


async def test_what_changed_is_saved_at_the_end(opened: Opener) -> None:
    """Nested changes count; a scope that changed nothing writes nothing."""
    async with opened() as sessions:
        await sessions.create(id="s1", state={"cart": []})
        async with sessions.scope("s1") as s:
            s.state["cart"].append("tea")
        assert (await sessions.require("s1")).state["cart"] == ["tea"]
        revision = (await sessions.require("s1")).revision
        async with sessions.scope("s1") as s:
            assert s.state["cart"] == ["tea"]
        assert (await sessions.require("s1")).revision == revision


async def test_a_scope_of_a_copy_works_on_that_copy(opened: Opener) -> None:
    """A session that was loaded, or was never stored, is used as it is, and stored at the end."""
    async with opened() as sessions:
        loaded = await sessions.create(id="s1")
        fresh = sessions.new(id="s2")
        for session in (loaded, fresh):
            async with sessions.scope(session) as s:
                assert s is current_session() is session
                s.state["k"] = 1
            assert (await sessions.require(session.id)).state["k"] == 1
        async with sessions.scope(sessions.new(id="s3")):
            pass
        assert await sessions.get("s3") is None


async def test_two_scopes_merge_key_by_key(opened: Opener) -> None:
    """Each saves what it changed, and neither overwrites the other's keys."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        async with sessions.scope("s1") as first, sessions.scope("s1") as second:
            first.state["a"] = 1
            second.state["b"] = 2
        assert dict((await sessions.require("s1")).state) == {"a": 1, "b": 2}


@pytest.mark.behaviour(127)
@pytest.mark.parametrize("save_on_error", [False, True])
async def test_a_body_that_raises_is_saved_only_on_request(
    opened: Opener, save_on_error: bool
) -> None:
    """Not by default; with `save_on_error` it is, and the body's exception propagates anyway."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        with pytest.raises(Oops):
            await in_scope(sessions, "s1", save_on_error=save_on_error)
        assert ("k" in (await sessions.require("s1")).state) is save_on_error


@pytest.mark.behaviour(127)
async def test_a_failing_save_does_not_hide_what_the_body_raised(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `save_on_error` and a store in trouble, the body's exception propagates and notes it."""

    async def broken(_change: Any, /) -> Any:
        raise Unavailable("disk", "no answer")

    async with opened() as sessions:
        await sessions.create(id="s1")
        monkeypatch.setattr(sessions.store, "commit", broken)
        with pytest.raises(Oops) as raised:
            await in_scope(sessions, "s1", save_on_error=True)
        assert any("no answer" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("save_on_error", [False, True])
async def test_a_body_that_is_cancelled_is_one_that_raises(
    opened: Opener, save_on_error: bool
) -> None:
    """The cancellation propagates; what was changed is saved only if asked for."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        inside = asyncio.Event()

        async def work() -> None:
            async with sessions.scope("s1", save_on_error=save_on_error) as s:
                s.state["k"] = "set"
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ("k" in (await sessions.require("s1")).state) is save_on_error
        assert sessions.scopes.live() == frozenset()


async def test_a_save_that_fails_at_the_end_is_raised(opened: Opener) -> None:
    """The body went well, its state cannot be stored: the caller is told; the scope is left."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def work() -> None:
            async with sessions.scope("s1") as s:
                s.state["k"] = object()

        with pytest.raises(Unserializable, match=r"state\.k"):
            await work()
        assert current_session() is None
        assert sessions.scopes.live() == frozenset()


# --------------------------------------------------------------------------- ended while in a scope


@pytest.mark.parametrize("how", ["removed", "retained", "deleted"])
async def test_what_ends_in_a_live_scope_lets_the_body_go_on(opened: Opener, how: str) -> None:
    """The body runs to its end and its save raises `Ended`; nothing is revived."""
    reached: list[str] = []
    async with opened() as sessions:
        await sessions.create(id="s1", state={"k": 1})

        async def work() -> None:
            async with sessions.scope("s1") as s:
                s.state["k"] = "too late"
                if how == "deleted":
                    await sessions.delete("s1")
                else:
                    await sessions.end("s1", retain=60 if how == "retained" else None)
                with pytest.raises(Ended):
                    await sessions.save(s)
                reached.append(s.state["k"])

        with pytest.raises(Ended):
            await work()
        assert reached == ["too late"]
        found = await sessions.get("s1")
        assert (found is None) == (how != "retained")
        assert found is None or found.state["k"] == 1


async def test_the_end_of_one_session_is_not_that_of_its_successor(opened: Opener) -> None:
    """A scope whose session ended and whose id was created anew leaves the new one alone."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def work() -> None:
            async with sessions.scope("s1") as s:
                s.state["k"] = "too late"
                await sessions.end("s1")
                await sessions.create(id="s1", state={"k": "new"})

        with pytest.raises(Ended):
            await work()
        assert (await sessions.require("s1")).state["k"] == "new"


@pytest.mark.behaviour(55)
@pytest.mark.parametrize("swept", [False, True])
async def test_an_absolute_deadline_in_a_live_scope_makes_its_saves_raise_ended(
    opened: Opener, swept: bool
) -> None:
    """Swept or not: an explicit save, an append and the one at the end all say so."""
    clock = FakeClock()
    said: list[type[Exception]] = []
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1", expiry=Expiry(absolute=100))

        async def work() -> None:
            async with sessions.scope("s1") as s:
                s.state["k"] = 1
                clock.advance(100)
                assert await Reaper(sessions).sweep() == 1 if swept else True
                with pytest.raises(NotFound) as saved:
                    await sessions.save(s)
                with pytest.raises(NotFound) as appended:
                    await sessions.append(s, Event(kind="a"))
                said.extend((saved.type, appended.type))

        with pytest.raises(Ended):
            await work()
        assert said == [Ended, Ended]


async def test_a_copy_that_missed_the_end_takes_no_new_scope(opened: Opener) -> None:
    """Loaded before another manager ended it: its scope is refused once it is touched."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions, opened(clock=clock) as others:
        held = await sessions.create(id="s1", expiry=Expiry(idle=100))
        clock.advance(50)
        await others.end("s1", retain=60)
        with pytest.raises(Ended):
            await sessions.scope(held).__aenter__()
        assert current_session() is None


# ------------------------------------------------------------------------------ scopes count as use


async def touches_of(
    sessions: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> asyncio.Queue[Any]:
    """Return a queue of the touches that reach the store."""
    touches: asyncio.Queue[Any] = asyncio.Queue()
    touch = sessions.store.touch

    async def noting(asked: Any, /) -> Any:
        header = await touch(asked)
        touches.put_nowait(header)
        return header

    monkeypatch.setattr(sessions.store, "touch", noting)
    return touches


async def test_entering_a_scope_is_use(opened: Opener) -> None:
    """It touches, so that the idle deadline counts from there."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s1", expiry=Expiry(idle=100))
        clock.advance(60)
        async with sessions.scope("s1") as s:
            assert (s.active_at - session.active_at).total_seconds() == 60
        clock.advance(99)
        assert await sessions.get("s1") is not None


@pytest.mark.behaviour(55)
async def test_a_live_scope_keeps_its_session_from_the_reapers_of_others(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It touches while it lives: another manager's reaper sees a session in use, time and again."""
    clock = FakeClock()
    idle = 0.03  # the scope touches every 10 ms
    async with opened(clock=clock) as sessions, opened(clock=clock) as others:
        await sessions.create(id="s1", expiry=Expiry(idle=idle))
        touches = await touches_of(sessions, monkeypatch)
        async with sessions.scope("s1"):
            for _ in range(4):
                clock.advance(idle * 0.9)
                await touches.get()
                assert await Reaper(others).sweep() == 0
                assert await others.get("s1") is not None
        clock.advance(idle)
        assert await Reaper(others).sweep() == 1


@pytest.mark.parametrize("before", [None, 3600.0])
async def test_a_scope_keeps_pace_with_the_idle_time_that_its_session_gets(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, before: float | None
) -> None:
    """The session had none when the scope began, or a long one: it is kept in use all the same."""
    clock = FakeClock()
    idle = 0.03  # from the save on the scope touches every 10 ms
    async with opened(clock=clock) as sessions, opened(clock=clock) as others:
        await sessions.create(id="s1", expiry=Expiry(idle=before))
        touches = await touches_of(sessions, monkeypatch)
        async with sessions.scope("s1") as copy:
            await sessions.save(copy, expiry=Expiry(idle=idle))
            for _ in range(4):
                clock.advance(idle * 0.9)
                async with asyncio.timeout(30):  # else it would wait for ever
                    await touches.get()
                assert await Reaper(others).sweep() == 0
        clock.advance(idle)
        assert await Reaper(others).sweep() == 1


@pytest.mark.behaviour(55)
async def test_a_scope_survives_a_touch_that_fails(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble with the store is no end of the scope: the next touch works again."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s1", expiry=Expiry(idle=0.03))
        real = sessions.store.touch
        calls: list[object] = []
        worked = asyncio.Event()

        async def failing_once(asked: Any, /) -> Any:
            calls.append(asked)
            if len(calls) == 1:
                raise Unavailable("disk", "no answer")
            header = await real(asked)
            worked.set()
            return header

        async with sessions.scope("s1") as s:
            monkeypatch.setattr(sessions.store, "touch", failing_once)
            clock.advance(0.02)
            await worked.wait()
            assert s.active_at == (await sessions.require("s1")).active_at
            s.state["k"] = 1
        assert (await sessions.require("s1")).state["k"] == 1


async def test_no_task_is_left_behind_by_a_scope(opened: Opener) -> None:
    """What kept the session in use ends with the scope."""
    async with opened() as sessions:
        await sessions.create(id="s1", expiry=Expiry(idle=100))
        before = asyncio.all_tasks()
        async with sessions.scope("s1"):
            assert len(asyncio.all_tasks() - before) == 1
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

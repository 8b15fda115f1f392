"""Looking at one session: get and require, windows, touching, expired ones, damage."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from tests.manager.watched_store import watched

from sojourn import (
    Corrupt,
    Ended,
    Event,
    EventQuery,
    Expiry,
    InvalidQuery,
    NotFound,
    Phase,
    SessionManager,
    Trigger,
    Unavailable,
)
from sojourn.model import Header, Record
from sojourn.session import read_back
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def test_get_and_require_return_the_session(opened: Opener) -> None:
    """Both give a copy of what is stored, each its own."""
    async with opened() as sessions:
        await sessions.create(id="s", user="u", state={"n": [1]})
        one, two = await sessions.get("s"), await sessions.require("s", user="u")
        assert one is not None
        assert one is not two
        one.state["n"].append(2)
        assert two.state["n"] == [1]


async def test_no_events_are_loaded_unless_asked_for(opened: Opener) -> None:
    """The default window is none; a number is the last so many; a query is the query."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        await sessions.append(session, *(Event(kind=kind) for kind in "abcab"))

        async def window(events: Any) -> list[int | None]:
            return [event.seq for event in (await sessions.require("s", events=events)).events]

        assert (await sessions.require("s")).events == []
        assert await window(None) == []
        assert await window(0) == []
        assert await window(2) == [4, 5]
        assert await window(99) == [1, 2, 3, 4, 5]
        assert await window(EventQuery()) == [1, 2, 3, 4, 5]
        assert await window(EventQuery(kinds=("a",), last=1)) == [4]
        assert await window(EventQuery(after_seq=2, before_seq=5)) == [3, 4]


@pytest.mark.parametrize("events", [-1, True, 1.0, "2", EventQuery(last=-1)], ids=str)
async def test_a_window_that_makes_no_sense_is_refused(url: str, events: Any) -> None:
    """`InvalidQuery` names the field; the store is not asked."""
    async with watched(url) as (sessions, store):
        for call in (
            sessions.get("s", events=events),
            sessions.require("s", events=events),
        ):
            with pytest.raises(InvalidQuery) as caught:
                await call
            assert caught.value.field == "last"
        assert store.calls == []


@pytest.mark.behaviour(94)
async def test_an_event_out_of_range_is_an_index_error(opened: Opener) -> None:
    """The window is a list: beyond either end it raises, inside it counts from both."""
    async with opened() as sessions:
        session = await sessions.create(id="s", events=[Event(kind="a"), Event(kind="b")])
        session = await sessions.require("s", events=5)
        assert (session.events[0].kind, session.events[-1].kind) == ("a", "b")
        for index in (2, -3):
            with pytest.raises(IndexError):
                session.events[index]


@pytest.mark.behaviour(51)
async def test_get_does_not_touch(url: str) -> None:
    """Neither get, require, events, list nor count writes, or extends the deadline."""
    clock = FakeClock(START)
    async with watched(url, clock=clock) as (sessions, store):
        made = await sessions.create(id="s", expiry=Expiry(idle=3600))
        clock.advance(1800)
        store.forget_calls()
        await sessions.get("s", events=5)
        await sessions.require("s")
        await sessions.events("s")
        await sessions.list()
        await sessions.count()
        assert set(store.verbs) == {"get", "events", "list", "count"}
        back = await sessions.require("s")
        assert (back.active_at, back.expires_at) == (START, made.expires_at)


@pytest.mark.behaviour(51)
@pytest.mark.behaviour(52)
async def test_touching_extends_the_idle_deadline_and_not_the_revision(opened: Opener) -> None:
    """`touch=True` counts as use; the handle and the store show it, the data is not rewritten."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s", expiry=Expiry(idle=3600, absolute=5400))
        clock.advance(1800)
        for session in (await sessions.get("s", touch=True), await sessions.get("s")):
            assert session is not None
            assert session.active_at == START + HOUR / 2
            assert session.expires_at == START + HOUR * 1.5
            assert session.revision == 1
        clock.advance(1800)
        session = await sessions.require("s", touch=True)
        assert session.expires_at == START + HOUR * 1.5
        clock.advance(1800)
        assert await sessions.get("s", touch=True) is None


async def test_a_touch_is_throttled(url: str) -> None:
    """Within a tenth of the idle time nothing is written; without an idle time nothing ever is."""
    clock = FakeClock(START)
    async with watched(url, clock=clock) as (sessions, store):
        session = await sessions.create(id="s", expiry=Expiry(idle=1000))
        fixed = await sessions.create(id="fixed", expiry=Expiry(absolute=10_000))
        store.forget_calls()
        clock.advance(99.9)
        await sessions.touch(session)
        await sessions.require("s", touch=True)
        await sessions.touch(fixed)
        assert store.verbs == ["get"]
        clock.advance(0.1)
        await sessions.touch(session)
        await sessions.touch(session)
        await sessions.touch(fixed)
        assert store.verbs == ["get", "touch"]


async def test_require_of_another_user_does_not_touch(url: str) -> None:
    """Whoever is refused does not keep the session alive."""
    clock = FakeClock(START)
    async with watched(url, clock=clock) as (sessions, store):
        await sessions.create(id="s", user="u", expiry=Expiry(idle=1000))
        clock.advance(500)
        with pytest.raises(NotFound):
            await sessions.require("s", user="v", touch=True)
        assert "touch" not in store.verbs


async def test_gone_between_the_look_and_the_touch_is_missing(url: str) -> None:
    """Deleted by somebody else in between: `None` from get, `NotFound` from require."""
    clock = FakeClock(START)
    async with watched(url, clock=clock) as (sessions, store):
        for read in (sessions.get, sessions.require):
            await sessions.create(id="s", expiry=Expiry(idle=1000))
            clock.advance(500)
            gate = store.hold("touch", "before")
            task: asyncio.Task[Any] = asyncio.create_task(read("s", touch=True))
            await gate.arrived.wait()
            await sessions.delete("s")
            gate.go()
            if read == sessions.get:
                assert await task is None
            else:
                with pytest.raises(NotFound):
                    await task


@pytest.mark.behaviour(49)
async def test_past_its_deadline_it_is_missing_unless_asked_for(opened: Opener) -> None:
    """At the instant, to every read; `expired=True` still finds it until its end is finished."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        await sessions.create(
            id="s", state={"n": 1}, events=[Event(kind="x")], expiry=Expiry(idle=10)
        )
        clock.advance(9.999999)
        assert await sessions.get("s") is not None
        clock.advance(0.000001)
        assert await sessions.get("s") is None
        for call in (sessions.require("s"), sessions.events("s")):
            with pytest.raises(NotFound):
                await call
        found = await sessions.get("s", expired=True, events=5)
        assert found is not None
        assert (dict(found.state), len(found.events)) == ({"n": 1}, 1)
        assert len(await sessions.events("s", expired=True)) == 1
        assert await sessions.end("s") is True
        assert await sessions.get("s", expired=True) is None


@pytest.mark.behaviour(50)
async def test_an_expired_session_is_not_revived(opened: Opener) -> None:
    """Not by looking with a touch, not by a touch of a handle, not by a heartbeat or a save."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s", expiry=Expiry(idle=10))
        clock.advance(10)
        assert await sessions.get("s", touch=True) is None
        session.state["n"] = 1
        for call in (sessions.touch(session), sessions.heartbeat("s"), sessions.save(session)):
            with pytest.raises(Ended):
                await call
        assert await sessions.get("s") is None


async def test_a_clock_that_steps_back_revives_nothing(opened: Opener) -> None:
    """What a manager has seen expire stays expired to it."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        await sessions.create(id="s", expiry=Expiry(idle=10))
        clock.advance(10)
        assert await sessions.get("s") is None
        clock.advance(-5)
        assert await sessions.get("s") is None


async def test_ending_sessions_are_readable(opened: Opener) -> None:
    """While it ends its phase, reason and data can be read."""
    async with opened() as sessions:
        await sessions.create(id="s", state={"n": 1})
        await sessions.apply("s", Trigger.END, reason="logout")
        session = await sessions.require("s")
        assert (session.phase, session.reason) == (Phase.ENDING, "logout")
        assert dict(session.state) == {"n": 1}


async def test_trouble_is_raised_as_what_it_is(url: str) -> None:
    """`Unavailable` is never "no session"; afterwards it is there again."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s")
        for call in (sessions.get, sessions.require, sessions.events):
            store.fail("get", Unavailable("store", "down"))
            store.fail("events", Unavailable("store", "down"))
            with pytest.raises(Unavailable):
                await call("s")
        store.fail("get", Unavailable("store", "down"))
        assert await sessions.events("s") == []


# --- damage, by editing the file --------------------------------------------------------------


def damage(path: Path, statement: str) -> None:
    """Change a closed SQLite file behind Sojourn's back."""
    db = apsw.Connection(str(path))
    db.execute(statement)
    assert db.changes() == 1
    db.close()


@pytest.mark.behaviour(27)
@pytest.mark.parametrize(
    "column",
    [
        "state = '{\"n\":'",
        "state = '[]'",
        "state = ''",
        "labels = '{'",
        "labels = '{\"a\":1}'",
        "exclusive = 'x'",
        "phase = 'ASLEEP'",
        "active_at = -99999999999999999",
        "created_at = 999999999999999999",
        "expires_at = 999999999999999999",
    ],
)
async def test_a_corrupt_record_is_not_missing(tmp_path: Path, column: str) -> None:
    """Reading it is `Corrupt` naming the session, not `None`; it is not created over."""
    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.create(id="s1", state={"n": 1}, labels={"a": "b"})
    damage(path, f"UPDATE sessions SET {column}")  # noqa: S608 - the column is the test's own
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        for call in (
            sessions.get("s1"),
            sessions.get("s1", expired=True, events=3),
            sessions.require("s1"),
            sessions.get_or_create("s1"),
        ):
            with pytest.raises(Corrupt) as caught:
                await call
            assert "s1" in caught.value.key
            assert caught.value.reason


@pytest.mark.behaviour(27)
def test_a_time_that_is_no_number_is_corrupt() -> None:
    """As in a torn row of a file."""
    torn: Any = None
    header = Header(app="a", id="s1", epoch="e", created_at=0, active_at=torn)
    with pytest.raises(Corrupt, match="'s1' is corrupt: one of its times"):
        read_back(Record(header=header, state={}, user_state={}, app_state={}))


@pytest.mark.behaviour(27)
@pytest.mark.parametrize("column", ["body = '{'", "at = 999999999999999999"])
async def test_a_corrupt_event_is_an_error_and_not_skipped(tmp_path: Path, column: str) -> None:
    """The window that holds it is `Corrupt` naming the event; other windows are read."""
    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.create(id="s1", events=[Event(kind="x", body=n) for n in range(3)])
    damage(path, f"UPDATE events SET {column} WHERE seq = 2")  # noqa: S608 - the test's own
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        for call in (sessions.events("s1"), sessions.get("s1", events=2)):
            with pytest.raises(Corrupt) as caught:
                await call
            assert "event 2" in caught.value.key
        assert [event.body for event in await sessions.events("s1", last=1)] == [2]
        assert await sessions.get("s1") is not None


@pytest.mark.behaviour(27)
async def test_a_corrupt_shared_key_does_not_hide_the_session(tmp_path: Path) -> None:
    """Looking at that key is `Corrupt` naming it; everything else is there."""
    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.create(id="s1", state={"app:bad": 1, "app:good": 2, "own": 3})
    damage(path, "UPDATE tiers SET value = '{' WHERE name = 'bad'")
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        session = await sessions.require("s1")
        assert (session.state["app:good"], session.state["own"]) == (2, 3)
        with pytest.raises(Corrupt, match="app:bad"):
            session.state["app:bad"]
        session.state["app:bad"] = 4
        await sessions.save(session)
        assert (await sessions.require("s1")).state["app:bad"] == 4

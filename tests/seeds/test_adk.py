"""ADK's semantics, against the public face and without its package: scoped state, an event log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import DELETE, AlreadyExists, Conflict, Event, EventQuery, NotFound, NotOwner

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import SessionManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

START = datetime(2025, 1, 1, tzinfo=UTC)


def said(number: int, **more: Any) -> Event:
    """Return the event of one step of an invocation, so many hours after the start."""
    at = START + timedelta(hours=number)
    return Event(id=f"e{number}", kind="event", author="agent", body=number, at=at, **more)


def bodies(events: list[Event]) -> list[Any]:
    """Return what the events hold."""
    return [event.body for event in events]


# -------------------------------------------------------------------------------- create, get, list


async def test_create(opened: Opener) -> None:
    """Its example: app, user, state; the id is made up; and a given id is used as it is, once."""
    async with opened(app="myapp") as sessions:
        session = await sessions.create(user="user123", state={"foo": "bar"})
        assert (session.app, session.user, session.state["foo"]) == ("myapp", "user123", "bar")
        assert session.id
        await sessions.create(id="sess456", user="user123", state={"foo": 1})
        with pytest.raises(AlreadyExists):
            await sessions.create(id="sess456", user="user123", state={"foo": 2})
        assert (await sessions.require("sess456")).state["foo"] == 1


@pytest.mark.behaviour(89)
async def test_get_with_recent_events_after_a_time(opened: Opener) -> None:
    """Its example: the last ten of those since a time; the time is inclusive and comes first."""
    async with opened(app="myapp") as sessions:
        await sessions.create(
            id="sess456", user="user123", events=[said(number) for number in range(1, 6)]
        )

        async def got(**window: Any) -> list[Any]:
            query = EventQuery(**window)
            return bodies((await sessions.require("sess456", events=query)).events)

        assert await got(last=10, since=START) == [1, 2, 3, 4, 5]
        assert await got(last=3) == [3, 4, 5]
        assert await got(since=START + timedelta(hours=2)) == [2, 3, 4, 5]
        assert await got(last=2, since=START + timedelta(hours=1)) == [4, 5]
        assert await got(last=3, since=START + timedelta(hours=4)) == [4, 5]
        assert await got(since=START + timedelta(hours=9)) == []
        assert bodies(await sessions.events("sess456")) == [1, 2, 3, 4, 5]


@pytest.mark.behaviour(14)
@pytest.mark.behaviour(16)
@pytest.mark.behaviour(23)
@pytest.mark.behaviour(24)
async def test_whose_sessions_are_whose(opened: Opener) -> None:
    """By app and user; another's is not to be had; a list has state and no events."""
    async with opened(app="app") as sessions, opened(app="app2") as others:
        await sessions.create(id="s", user="a", state={"n": 1}, events=[said(1)])
        await sessions.create(id="t", user="b")
        await others.create(id="s", user="a", state={"n": 2})
        assert (await others.require("s", user="a")).state["n"] == 2
        with pytest.raises(NotOwner):
            await sessions.require("s", user="b")
        (listed,) = (await sessions.list(user="a")).items
        assert (listed.id, dict(listed.state), listed.events) == ("s", {"n": 1}, [])
        assert {session.id for session in (await sessions.list()).items} == {"s", "t"}
        assert (await sessions.list(user="nobody")).items == []


@pytest.mark.behaviour(18)
@pytest.mark.behaviour(19)
@pytest.mark.behaviour(21)
async def test_delete(opened: Opener) -> None:
    """Idempotent and whole: nothing of it is in a session made anew, no old handle revives it."""
    async with opened() as sessions:
        old = await sessions.create(id="s", user="u", state={"k": 1}, events=[said(1)])
        assert await sessions.delete("s")
        assert not await sessions.delete("s")
        with pytest.raises(NotFound):
            await sessions.append(old, said(2))
        assert bodies(old.events) == [1]
        new = await sessions.create(id="s", user="u")
        assert (dict(new.state), await sessions.events("s")) == ({}, [])


# ------------------------------------------------------------------------------------ append, state


@pytest.mark.behaviour(70)
@pytest.mark.behaviour(71)
@pytest.mark.behaviour(72)
async def test_layers_of_state(opened: Opener) -> None:
    """`app:` for all, `user:` for all sessions of a user, the rest for this one; merged on read."""
    async with opened(app="myapp") as sessions:
        mine = await sessions.create(user="u1", state={"app:motd": "hi", "user:lang": "en"})
        early = await sessions.create(user="u1")
        other = await sessions.create(user="u2")
        delta = {"app:motd": "hello", "user:lang": "de", "step": 1}
        await sessions.append(mine, said(1, delta=delta))
        assert dict(mine.state) == delta
        assert dict((await sessions.require(early.id)).state) == {
            "app:motd": "hello",
            "user:lang": "de",
        }
        assert dict((await sessions.require(other.id)).state) == {"app:motd": "hello"}
        assert await sessions.user_state("u1") == {"lang": "de"}


@pytest.mark.behaviour(73)
@pytest.mark.behaviour(74)
@pytest.mark.behaviour(77)
async def test_temporary_state_lives_for_the_invocation(opened: Opener) -> None:
    """Readable on the handle, in no fresh copy, in no stored delta; the caller's event keeps it."""
    async with opened() as sessions:
        session = await sessions.create(user="u")
        event = said(1, delta={"temp:draft": "x", "kept": 1})
        stored = await sessions.append(session, event)
        assert session.state["temp:draft"] == "x"
        assert event.delta == {"temp:draft": "x", "kept": 1}
        assert stored.delta == {"kept": 1}
        fresh = await sessions.require(session.id, events=10)
        assert dict(fresh.state) == {"kept": 1}
        assert fresh.events[0].delta == {"kept": 1}


@pytest.mark.behaviour(78)
@pytest.mark.behaviour(79)
async def test_state_that_is_missing_local_or_deleted(opened: Opener) -> None:
    """A missing key is an error; set without a commit nobody sees it; `None` is not deleted."""
    async with opened() as sessions:
        session = await sessions.create(user="u", state={"a": None, "b": 1, "user:c": 1})
        with pytest.raises(KeyError):
            session.state["missing"]
        session.state["local"] = 1
        assert "local" not in (await sessions.require(session.id)).state
        await sessions.append(session, said(1, delta={"b": DELETE, "user:c": DELETE}))
        assert dict((await sessions.require(session.id)).state) == {"a": None}
        assert session.state["local"] == 1


@pytest.mark.behaviour(83)
@pytest.mark.behaviour(84)
async def test_appending(opened: Opener) -> None:
    """In order, whatever their times say; a partial one is accepted, not kept, not applied."""
    async with opened() as sessions:
        session = await sessions.create(user="u")
        for number in (3, 1, 2):
            await sessions.append(session, said(number))
        partial = said(4, partial=True, delta={"k": 1})
        assert await sessions.append(session, partial) is partial
        assert bodies(session.events) == bodies(await sessions.events(session.id)) == [3, 1, 2]
        assert [event.seq for event in session.events] == [1, 2, 3]
        assert "k" not in session.state


@pytest.mark.behaviour(106)
async def test_a_stale_handle_is_told_and_keeps_no_phantom(opened: Opener) -> None:
    """Of two handles of one revision the second is refused, unchanged; refreshed, it goes on."""
    async with opened() as sessions:
        await sessions.create(id="s", user="u")
        one, other = await sessions.require("s"), await sessions.require("s")
        await sessions.append(one, said(1), conflict="fail")
        with pytest.raises(Conflict) as caught:
            await sessions.append(other, said(2, delta={"k": 1}), conflict="fail")
        assert (caught.value.expected[1], caught.value.actual[1]) == (1, 2)
        assert (other.events, dict(other.state)) == ([], {})
        await sessions.refresh(other)
        await sessions.append(other, said(2), conflict="fail")
        assert bodies(await sessions.events("s")) == [1, 2]


@pytest.mark.behaviour(97)
async def test_many_at_once_are_all_kept(opened: Opener) -> None:
    """Thread-safe, in its words: nothing of fifty concurrent appends is lost, each counts."""
    async with opened() as sessions:
        await sessions.create(id="s", user="u")
        await asyncio.gather(
            *(sessions.append("s", said(n, delta={f"k{n}": n})) for n in range(50))
        )
        session = await sessions.require("s", events=100)
        assert sorted(bodies(session.events)) == list(range(50))
        assert len(session.state) == 50

"""Saving with a user or an expiry: what changes of the session itself, in the same commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sojourn import (
    AlreadyBound,
    Conflict,
    Ended,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    TooLarge,
)
from sojourn.limits import MAX_LABELS
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import SessionManager

    Opened = Callable[..., AbstractAsyncContextManager[SessionManager]]


async def test_user_and_deadlines_come_with_the_state_in_one_commit(opened: Opened) -> None:
    clock = FakeClock()
    async with opened(clock=clock, expiry=Expiry(idle=60, absolute=100)) as sessions:
        await sessions.share({"user:theme": "dark"}, user="u")
        session = await sessions.create(state={"n": 1})
        clock.advance(50)
        session.state["n"] = 2
        await sessions.save(session, user="u", expiry=Expiry(idle=30, absolute=500))
        assert session.revision == 2
        assert session.user == "u"
        assert session.state["user:theme"] == "dark"
        stored = await sessions.require(session.id, user="u")
        assert (stored.state["n"], stored.revision) == (2, 2)
        clock.advance(29)
        await sessions.heartbeat(session.id)
        for _ in range(17):  # long past the first absolute deadline
            clock.advance(25)
            await sessions.heartbeat(session.id)
        clock.advance(30)
        assert await sessions.get(session.id) is None


async def test_a_clean_session_is_written_for_them(opened: Opened) -> None:
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create()
        await sessions.save(session, user="u")
        assert (await sessions.require(session.id)).user == "u"
        await sessions.save(session, user="u")  # is so already
        assert session.revision == 2
        await sessions.save(session, expiry=Expiry(idle=5))
        assert session.revision == 3
        clock.advance(5)
        assert await sessions.get(session.id) is None
        with pytest.raises(Ended):
            await sessions.save(session, expiry=Expiry())


async def test_a_clean_session_of_a_user_is_not_written(opened: Opened) -> None:
    """Nor is one that is over refused where there is nothing to write."""
    async with opened() as sessions:
        session = await sessions.create(user="u", state={"n": 1})
        await sessions.save(session)
        assert session.revision == 1
        assert (await sessions.require(session.id)).revision == 1
        await sessions.delete(session.id)
        await sessions.save(session)


async def test_a_new_session_is_stored_so_at_once(opened: Opened) -> None:
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = sessions.new(state={"n": 1})
        await sessions.save(session, user="u", expiry=Expiry(absolute=10))
        assert session.revision == 1
        assert (await sessions.require(session.id, user="u")).state["n"] == 1
        clock.advance(10)
        assert await sessions.get(session.id) is None


async def test_nothing_is_written_where_it_is_refused(opened: Opened) -> None:
    async with opened() as sessions:
        session = await sessions.create(user="u", state={"n": 1})
        session.state["n"] = 2
        with pytest.raises(AlreadyBound):
            await sessions.save(session, user="another")
        with pytest.raises(InvalidQuery):
            await sessions.save(session, expiry=30)  # type: ignore[arg-type]  # what is refused
        await sessions.append(session.id, Event(kind="note"))
        with pytest.raises(Conflict):
            await sessions.save(session, expiry=Expiry(idle=1), conflict="fail")
        stored = await sessions.require(session.id)
        assert (stored.state["n"], stored.expires_at) == (1, None)


async def test_one_of_two_users_gets_it(opened: Opened) -> None:
    """Whoever comes second is refused, state and all."""
    async with opened() as sessions:
        session = await sessions.create()
        other = await sessions.require(session.id)
        await sessions.save(session, user="u")
        other.state["n"] = 1
        with pytest.raises(AlreadyBound):
            await sessions.save(other, user="v")
        assert "n" not in (await sessions.require(session.id)).state


async def test_labels_come_in_the_same_commit(opened: Opened) -> None:
    async with opened() as sessions:
        session = await sessions.create(labels={"a": "1", "b": "1"})
        session.state["n"] = 1
        await sessions.save(session, user="u", labels={"a": None, "b": "2", "c": "3"})
        assert session.revision == 2
        stored = await sessions.require(session.id, user="u")
        assert (stored.labels, stored.state["n"]) == ({"b": "2", "c": "3"}, 1)
        await sessions.save(session, labels={})  # nothing to write
        assert session.revision == 2


async def test_a_new_session_has_its_labels_at_once(opened: Opened) -> None:
    async with opened() as sessions:
        session = sessions.new(labels={"a": "1", "b": "1"})
        await sessions.save(session, labels={"a": None, "c": "3"})
        assert session.revision == 1
        (found,) = (await sessions.list(labels={"c": "3"})).items
        assert found.labels == session.labels == {"b": "1", "c": "3"}


@pytest.mark.parametrize("new", [True, False])
async def test_bad_labels_are_refused_and_nothing_is_written(opened: Opened, *, new: bool) -> None:
    async with opened() as sessions:
        session = sessions.new(state={"n": 1})
        if not new:
            await sessions.save(session)
        for labels in ({"": "1"}, {"a": ""}, {str(n): "1" for n in range(MAX_LABELS + 1)}):
            with pytest.raises((InvalidId, TooLarge)):
                await sessions.save(session, user="u", labels=labels)
            assert session.user is None
        found = await sessions.get(session.id)
        assert (None if found is None else found.user) is None
        assert session.revision == (0 if new else 1)

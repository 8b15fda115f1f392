"""Melody's usage, against the public face: the bag. Clean means no write, cleared means deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.manager.watched_store import watched

if TYPE_CHECKING:
    from sojourn import SessionManager


async def update_session(sessions: SessionManager, id: str) -> str:
    """Its example: load the session or start a new one, set a key, save; return the id."""
    session = await sessions.get(id) or sessions.new()
    session.state["userId"] = "u-123"
    await sessions.save(session)
    return session.id


@pytest.mark.behaviour(15)
@pytest.mark.behaviour(32)
async def test_the_example(url: str) -> None:
    """An unknown id is never adopted: the session gets one of its own; the second call loads it."""
    async with watched(url) as (sessions, store):
        id = await update_session(sessions, "no-such-session")
        assert id != "no-such-session"
        assert (await sessions.require(id)).state["userId"] == "u-123"
        store.forget_calls()
        assert await update_session(sessions, id) == id
        assert store.verbs == ["get", "commit"]
        assert await sessions.count() == 1


@pytest.mark.behaviour(32)
@pytest.mark.behaviour(33)
async def test_only_what_is_modified_is_written(url: str) -> None:
    """A new session that nobody touched, one that was only read, one that was just saved: clean."""
    async with watched(url) as (sessions, store):
        fresh = sessions.new()
        assert not fresh.modified
        await sessions.save(fresh)
        assert store.calls == []
        assert await sessions.get(fresh.id) is None

        id = await update_session(sessions, "")
        store.forget_calls()
        session = await sessions.require(id)
        assert session.state["userId"] == "u-123"
        assert "missing" not in session.state
        await sessions.save(session)
        assert store.verbs == ["get"]

        session.state["theme"] = "dark"
        await sessions.save(session)
        assert not session.modified
        await sessions.save(session)
        assert store.verbs == ["get", "commit"]


@pytest.mark.behaviour(34)
@pytest.mark.behaviour(35)
async def test_a_cleared_session_is_deleted_when_it_is_saved(url: str) -> None:
    """Until then it is there; afterwards it is not, and saving it again brings nothing back."""
    async with watched(url) as (sessions, store):
        id = await update_session(sessions, "")
        session = await sessions.require(id)
        session.state.clear()
        assert session.modified
        assert dict(session.state) == {}
        assert await sessions.get(id) is not None
        await sessions.save(session)
        assert await sessions.get(id) is None
        store.forget_calls()
        await sessions.save(session)
        assert store.calls == []


@pytest.mark.behaviour(36)
async def test_cleared_and_set_again_keeps_the_session_with_the_new_keys(url: str) -> None:
    """The id stays, the old keys go."""
    async with watched(url) as (sessions, _):
        id = await update_session(sessions, "")
        session = await sessions.require(id)
        session.state.clear()
        session.state["flash"] = "signed out"
        await sessions.save(session)
        assert dict((await sessions.require(id)).state) == {"flash": "signed out"}


@pytest.mark.behaviour(38)
@pytest.mark.behaviour(39)
async def test_get_string_has_all_and_delete(url: str) -> None:
    """Its accessors: `get`, `text`, `in`, a copy of everything, and deleting what is not there."""
    async with watched(url) as (sessions, _):
        session = await sessions.create(state={"name": "Ada", "age": 36, "nick": None})
        state = session.state
        assert (state.get("name"), state.get("missing")) == ("Ada", None)
        assert (state.text("name"), state.text("age"), state.text("missing")) == ("Ada", "", "")
        assert ("nick" in state, "missing" in state) == (True, False)
        everything = dict(state)
        everything["name"] = "Eve"
        assert state["name"] == "Ada"
        state.pop("missing", None)
        assert not session.modified
        del state["name"]
        assert session.modified


@pytest.mark.behaviour(45)
async def test_two_copies_of_one_session_do_not_overwrite_each_other(url: str) -> None:
    """Where it saved the whole map, and the last one won, keys are merged."""
    async with watched(url) as (sessions, _):
        id = await update_session(sessions, "")
        one, other = await sessions.require(id), await sessions.require(id)
        one.state["cart"] = ["tea"]
        other.state["theme"] = "dark"
        await sessions.save(one)
        await sessions.save(other)
        assert dict((await sessions.require(id)).state) == {
            "userId": "u-123",
            "cart": ["tea"],
            "theme": "dark",
        }

"""Tiers: shared by the app, shared by the user, the session's own, and temporary."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import DELETE, Event, InvalidId, NotFound, SessionManager, Unbound, Unserializable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import Session

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]
    Setter = Callable[[SessionManager, Session, str, Any], Awaitable[object]]


async def by_save(sessions: SessionManager, session: Session, key: str, value: Any) -> None:
    """Set a key on the handle and save."""
    if value is DELETE:
        del session.state[key]
    else:
        session.state[key] = value
    await sessions.save(session)


async def by_delta(sessions: SessionManager, session: Session, key: str, value: Any) -> None:
    """Set a key by the delta of an event."""
    await sessions.append(session, Event(kind="x", delta={key: value}))


async def by_state(sessions: SessionManager, session: Session, key: str, value: Any) -> None:
    """Set a key by what comes with an append."""
    await sessions.append(session, Event(kind="x"), state={key: value})


async def by_id(sessions: SessionManager, session: Session, key: str, value: Any) -> None:
    """Set a key by an append to the id, without a handle."""
    await sessions.append(session.id, Event(kind="x"), state={key: value})


every_way = pytest.mark.parametrize(
    "put", [by_save, by_delta, by_state, by_id], ids=lambda put: put.__name__
)


@pytest.mark.behaviour(70)
@every_way
async def test_an_app_key_is_seen_in_every_session(opened: Opener, put: Setter) -> None:
    """Of any user or none, made earlier or later, on its next load; not in another app."""
    async with opened(app="one") as sessions, opened(app="two") as others:
        await sessions.create(id="earlier", user="v")
        await others.create(id="elsewhere")
        session = await sessions.create(id="s", user="u")
        await put(sessions, session, "app:k", [1])
        for id in ("earlier", "s", (await sessions.create()).id):
            assert (await sessions.require(id)).state["app:k"] == [1]
        assert "app:k" not in (await others.require("elsewhere")).state
        assert await sessions.app_state() == {"k": [1]}
        assert await others.app_state() == {}


@pytest.mark.behaviour(70)
async def test_a_new_session_shows_what_is_shared(opened: Opener) -> None:
    """The handle that `create` returns has the shared keys already, the given ones on top."""
    async with opened() as sessions:
        await sessions.create(user="u", state={"app:a": 1, "app:b": 1, "user:c": 1})
        made = await sessions.create(id="s", user="u", state={"app:b": 2, "d": 3})
        expected = {"app:a": 1, "app:b": 2, "user:c": 1, "d": 3}
        assert dict(made.state) == expected
        assert not made.modified
        assert dict((await sessions.require("s")).state) == expected


@pytest.mark.behaviour(71)
@every_way
async def test_a_user_key_is_seen_in_that_users_sessions_only(opened: Opener, put: Setter) -> None:
    """In all of theirs, and in nobody else's, anonymous ones included."""
    async with opened() as sessions:
        for id, user in (("mine", "u"), ("yours", "v"), ("nobodys", None)):
            await sessions.create(id=id, user=user)
        session = await sessions.create(id="s", user="u")
        await put(sessions, session, "user:k", 1)
        seen = [id for id in ("mine", "yours", "nobodys", "s") if await has(sessions, id, "user:k")]
        assert seen == ["mine", "s"]


async def has(sessions: SessionManager, id: str, key: str) -> bool:
    """Tell whether a fresh load of a session shows a key."""
    return key in (await sessions.require(id)).state


@pytest.mark.behaviour(72)
@every_way
async def test_an_unprefixed_key_is_private(opened: Opener, put: Setter) -> None:
    """Only its own session shows it, also when it looks a little like a prefix."""
    async with opened() as sessions:
        await sessions.create(id="other", user="u")
        session = await sessions.create(id="s", user="u")
        for key in ("k", "App:k", "apps:k", "x:app:k", "app", "user", ":k"):
            await put(sessions, session, key, 1)
            assert await has(sessions, "s", key)
            assert not await has(sessions, "other", key)
        assert await sessions.app_state() == await sessions.user_state("u") == {}


@pytest.mark.behaviour(72)
async def test_one_name_in_three_tiers_is_three_keys(opened: Opener) -> None:
    """They do not shadow each other."""
    async with opened() as sessions:
        state = {"k": 1, "user:k": 2, "app:k": 3, "user:app:k": 4, "app:user:k": 5}
        await sessions.create(id="s", user="u", state=state)
        assert dict((await sessions.require("s")).state) == state
        assert await sessions.user_state("u") == {"k": 2, "app:k": 4}
        assert await sessions.app_state() == {"k": 3, "user:k": 5}


@pytest.mark.behaviour(73)
@pytest.mark.behaviour(74)
async def test_a_temporary_key_lives_on_this_copy_only(url: str) -> None:
    """Readable on the handle after the append, over saves and refreshes; in no fresh state."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", state={"temp:a": "fleeting"})
        await sessions.append(session, Event(kind="x", delta={"temp:b": "fleeting", "k": 1}))
        await sessions.append(session, Event(kind="x"), state={"temp:c": "fleeting"})
        session.state["temp:d"] = "fleeting"
        await sessions.save(session)
        temporary = {"temp:a", "temp:b", "temp:c", "temp:d"}
        expected = {"k": 1, **dict.fromkeys(temporary, "fleeting")}
        assert dict(session.state) == expected
        await sessions.refresh(session)
        assert dict(session.state) == expected
        assert dict((await sessions.require("s")).state) == {"k": 1}
        assert [event.delta for event in await sessions.events("s")] == [{"k": 1}, {}]
        sent = repr(store.calls)
        assert "temp:" not in sent
        assert "fleeting" not in sent


@pytest.mark.behaviour(73)
async def test_a_temporary_key_is_removed_by_delete(opened: Opener) -> None:
    """In a delta, and on the handle."""
    async with opened() as sessions:
        session = await sessions.create(state={"temp:a": 1, "temp:b": 1})
        await sessions.append(session, Event(kind="x", delta={"temp:a": DELETE, "temp:z": DELETE}))
        del session.state["temp:b"]
        assert dict(session.state) == {}


@pytest.mark.behaviour(78)
async def test_a_missing_key_is_a_key_error(opened: Opener) -> None:
    """In every tier, with the key as its argument."""
    async with opened() as sessions:
        session = await sessions.create(user="u")
        for key in ("k", "app:k", "user:k", "temp:k"):
            with pytest.raises(KeyError) as caught:
                session.state[key]
            assert caught.value.args == (key,)


@pytest.mark.behaviour(79)
@every_way
@pytest.mark.parametrize("key", ["k", "user:k", "app:k"])
async def test_delete_removes_and_none_is_a_value(opened: Opener, put: Setter, key: str) -> None:
    """In each tier: `None` is there and reads as `None`; a deleted key is gone, for everybody."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="u", state={key: 1, "other": 1})
        await put(sessions, session, key, None)
        fresh = await sessions.require("s")
        assert key in fresh.state
        assert fresh.state[key] is None
        await put(sessions, fresh, key, DELETE)
        fresh = await sessions.require("s")
        assert key not in fresh.state
        assert dict(fresh.state) == {"other": 1}


@pytest.mark.behaviour(79)
async def test_delete_of_a_missing_key_is_fine(opened: Opener) -> None:
    """In a delta, in every tier; the others are applied."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="u")
        delta = {"k": DELETE, "user:k": DELETE, "app:k": DELETE, "set": 1}
        await sessions.append(session, Event(kind="x", delta=delta))
        assert dict((await sessions.require("s")).state) == {"set": 1}
        (event,) = await sessions.events("s")
        assert event.delta == delta
        assert event.delta["k"] is DELETE


@pytest.mark.behaviour(80)
async def test_user_state_needs_no_session(opened: Opener) -> None:
    """Keys come without their prefix; unknown users have nothing; each user has their own."""
    async with opened() as sessions:
        assert await sessions.user_state("u") == {}
        assert await sessions.app_state() == {}
        await sessions.share({"user:theme": "dark", "app:open": True}, user="u")
        assert await sessions.user_state("u") == {"theme": "dark"}
        assert await sessions.user_state("v") == {}
        assert await sessions.app_state() == {"open": True}
        await sessions.share({"user:theme": DELETE, "app:open": None}, user="u")
        assert await sessions.user_state("u") == {}
        assert await sessions.app_state() == {"open": None}
        assert await sessions.count() == 0


@pytest.mark.behaviour(80)
async def test_user_state_outlives_the_sessions_and_not_the_user(opened: Opener) -> None:
    """A delete leaves it, `forget` removes it, another user's and the app's stay."""
    async with opened() as sessions:
        for user in ("u", "v"):
            await sessions.create(id=user, user=user, state={"user:k": user, "app:k": 1})
        await sessions.delete("u")
        assert await sessions.user_state("u") == {"k": "u"}
        await sessions.create(user="u")
        assert await sessions.forget("u") == 1
        assert await sessions.user_state("u") == {}
        assert await sessions.user_state("v") == {"k": "v"}
        assert await sessions.app_state() == {"k": 1}


# --- user keys need a user --------------------------------------------------------------------


async def test_a_user_key_on_an_anonymous_session_is_refused(url: str) -> None:
    """`Unbound` names session and key, whichever way it is set; the store is not asked."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        store.forget_calls()
        with pytest.raises(Unbound) as caught:
            session.state["user:k"] = 1
        assert (caught.value.id, caught.value.key) == ("s", "user:k")
        for call in (
            sessions.create(state={"user:k": 1}),
            sessions.append(session, Event(kind="x", delta={"user:k": 1})),
            sessions.append(session, Event(kind="x"), state={"user:k": DELETE}),
        ):
            with pytest.raises(Unbound):
                await call
        assert store.calls == []
        with pytest.raises(Unbound):
            sessions.new(state={"user:k": 1})
        assert "user:k" not in session.state
        assert session.state.get("user:k") is None


async def test_without_a_handle_the_store_refuses_it(opened: Opener) -> None:
    """An append to the id of an anonymous session: `Unbound`, and nothing of it is stored."""
    async with opened() as sessions:
        await sessions.create(id="s")
        with pytest.raises(Unbound):
            await sessions.append("s", Event(kind="x"), state={"user:k": 1, "k": 1, "app:k": 1})
        back = await sessions.require("s", events=5)
        assert (dict(back.state), back.events, back.revision) == ({}, [], 1)
        with pytest.raises(Unbound):
            await sessions.share({"user:k": 1})
        assert await sessions.app_state() == {}


async def test_once_bound_user_keys_are_fine(opened: Opener) -> None:
    """Through the handle that was bound, and through one from before once it is refreshed."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        stale = await sessions.require("s")
        await sessions.bind(session, "u")
        session.state["user:k"] = 1
        await sessions.save(session)
        with pytest.raises(Unbound):
            stale.state["user:l"] = 1
        await sessions.refresh(stale)
        stale.state["user:l"] = 1
        await sessions.save(stale)
        assert await sessions.user_state("u") == {"k": 1, "l": 1}


# --- sharing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"app:": 1}, InvalidId),
        ({7: 1}, InvalidId),
        ({"app:k": {1}}, Unserializable),
        ({"app:k": 1, "k": 1}, InvalidId),  # nobody's: it would be dropped without a word
        ({"temp:k": 1}, InvalidId),
    ],
    ids=ascii,
)
async def test_what_cannot_be_shared_is_refused(
    url: str, changes: Any, kind: type[Exception]
) -> None:
    """Bad keys and values; the store is not asked."""
    async with watched(url) as (sessions, store):
        with pytest.raises(kind):
            await sessions.share(changes, user="u")
        assert store.calls == []


async def test_writers_of_different_shared_keys_all_survive(opened: Opener) -> None:
    """Twenty sessions at once, each setting its own key of the app's and the user's tier."""
    async with opened() as sessions:
        made = [await sessions.create(id=f"s{n}", user="u") for n in range(20)]
        for n, session in enumerate(made):
            session.state.update({f"app:{n}": n, f"user:{n}": n})
        await asyncio.gather(*(sessions.save(session) for session in made))
        expected = {str(n): n for n in range(20)}
        assert await sessions.app_state() == expected
        assert await sessions.user_state("u") == expected


async def test_a_commit_of_all_tiers_is_all_or_nothing(opened: Opener) -> None:
    """Refused for one reason, no tier shows any of it."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="u")
        await sessions.delete("s")
        session.state.update({"k": 1, "app:k": 1, "user:k": 1})
        with pytest.raises(NotFound):
            await sessions.save(session)
        assert await sessions.app_state() == await sessions.user_state("u") == {}


async def test_a_save_sends_only_the_tiers_it_touches(url: str) -> None:
    """Shared keys that were only read are in no delta."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s", user="u", state={"k": [1], "app:k": [1], "user:k": [1]})
        session = await sessions.require("s")
        assert [session.state[key] for key in session.state] == [[1], [1], [1]]
        session.state["k"].append(2)
        await sessions.save(session)
        (change,) = store.calls[-1][1]
        assert (change.user_tier, change.app_tier) == (None, None)
        assert list(change.session.set) == ["k"]

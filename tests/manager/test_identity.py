"""Who a session is: ids, users and apps, and that none of them reaches into another."""

from __future__ import annotations

import os
import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import (
    AlreadyBound,
    AlreadyExists,
    Closed,
    Corrupt,
    Ended,
    Event,
    InvalidId,
    NotFound,
    NotOwner,
    SessionManager,
    Unavailable,
)
from sojourn.limits import CREATE_ATTEMPTS, MAX_NAME
from sojourn.ports import RandomIds
from sojourn.testing.fakes import FakeClock, SequenceIds

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

MALFORMED = ["", " ", "a\x00", "a\nb", "\ud800", "x" * (MAX_NAME + 1), None, 7, b"s1", ["s1"]]
QUOTES = ['u"', "u'", "u' OR '1'='1", 'u" OR "1"="1', "u%", "u_", "*", "u\\", "u;--", "u/", "u|"]


@pytest.mark.behaviour(1)
def test_generated_ids_are_32_hex_characters_and_unique() -> None:
    """Ten thousand ids of each kind: no two alike, and each a UUIDv7 (or 64 random bits)."""
    ids = RandomIds()
    for make in (ids.session_id, ids.event_id):
        made = [make() for _ in range(10_000)]
        assert len(set(made)) == len(made)
        assert all(re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", id) for id in made)
    assert len({ids.epoch() for _ in range(10_000)}) == 10_000
    operations = {ids.operation() for _ in range(10_000)}
    assert len(operations) == 10_000
    assert {len(operation) for operation in operations} == {8}


def test_threads_share_no_ids() -> None:
    """Eight threads at once, each with ten thousand ids of two kinds: no two alike."""
    ids = RandomIds()

    def made(_: int) -> list[str]:
        return [id for _ in range(5_000) for id in (ids.event_id(), ids.operation().hex())]

    with ThreadPoolExecutor(8) as threads:
        all_of_them = [id for each in threads.map(made, range(8)) for id in each]
    assert len(set(all_of_them)) == 80_000


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # where threads are running
def test_a_forked_process_repeats_no_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even at the same nanosecond: what was left of the noise is dropped in the child."""
    monkeypatch.setattr("sojourn.ports.time.time_ns", lambda: 1_800_000_000_000_000_000)
    ids = RandomIds()
    ids.operation()  # noise is at hand now
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = [id for _ in range(100) for id in (ids.event_id(), ids.operation().hex())]
            os.write(writer, " ".join(told).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        theirs = pipe.read().split()
    os.waitpid(child, 0)
    ours = [id for _ in range(100) for id in (ids.event_id(), ids.operation().hex())]
    assert len({*ours, *theirs}) == 400


def test_the_twin_of_a_machine_repeats_no_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was resumed with the same noise at hand: a nanosecond later its ids are others."""
    ids = RandomIds()
    noise = [random.Random(number).getrandbits(64) for number in range(1_000)]
    made: list[str] = []
    for now in (1_800_000_000_000_000_000, 1_800_000_000_000_000_001):
        monkeypatch.setattr("sojourn.ports.time.time_ns", lambda now=now: now)
        monkeypatch.setattr("sojourn.ports._words", noise.copy())
        made += [id for _ in range(100) for id in (ids.event_id(), ids.operation().hex())]
    assert len(set(made)) == 400


@pytest.mark.behaviour(1)
async def test_created_sessions_get_such_ids(opened: Opener) -> None:
    """Without an id source and an id, `create` and `new` make one that fits the form."""
    async with opened() as sessions:
        made = [(await sessions.create()).id for _ in range(20)]
        made += [sessions.new().id for _ in range(20)]
    assert len(set(made)) == 40
    assert all(re.fullmatch(r"[0-9a-f]{32}", id) for id in made)


@pytest.mark.behaviour(2)
@pytest.mark.parametrize(
    "id",
    [
        "",
        "abc",
        "0" * 31,
        "0" * 33,
        "ABCDEF0123456789ABCDEF0123456789",
        "0" * 31 + "g",
        "0" * 31 + " ",
    ],
    ids=ascii,
)
async def test_an_id_that_was_never_given_out_is_no_session(opened: Opener, id: str) -> None:
    """Whatever its form: it is not found, and looking does not make it."""
    async with opened() as sessions:
        await sessions.create(id="0" * 32)
        assert await sessions.get(id) is None
        with pytest.raises(NotFound):
            await sessions.require(id)
        assert await sessions.count() == 1


@pytest.mark.behaviour(3)
@pytest.mark.parametrize("id", MALFORMED, ids=lambda id: ascii(id)[:12])
async def test_a_malformed_id_on_a_read_never_reaches_the_store(url: str, id: Any) -> None:
    """It is just no session: `None` or `NotFound`, and the store was not asked."""
    async with watched(url) as (sessions, store):
        assert await sessions.get(id) is None
        assert await sessions.get(id, events=5, touch=True, expired=True) is None
        for read in (sessions.require(id), sessions.require(id, user="u"), sessions.events(id)):
            with pytest.raises(NotFound):
                await read
        with pytest.raises(NotFound):
            await anext(aiter(sessions.watch(id)))
        for enter in (sessions.lease(id), sessions.scope(id)):
            with pytest.raises((NotFound, InvalidId)):
                await enter.__aenter__()
        if isinstance(id, str):  # documents of anything else are refused at once
            assert await sessions.documents(id).get("c", "k") is None
        assert store.calls == []


@pytest.mark.behaviour(4)
@pytest.mark.behaviour(10)
@pytest.mark.parametrize("id", MALFORMED, ids=lambda id: ascii(id)[:12])
async def test_a_malformed_id_on_a_write_is_refused_before_the_store(url: str, id: Any) -> None:
    """Delete, end, append and the rest name the id, and the store was not asked."""
    async with watched(url) as (sessions, store):
        for write in (
            sessions.delete(id),
            sessions.end(id),
            sessions.finish(id),
            sessions.heartbeat(id),
            sessions.append(id, Event(kind="note")),
            sessions.get_or_create(id),
            sessions.fork(id),
        ):
            with pytest.raises(InvalidId) as caught:
                await write
            assert caught.value.what == "session id"
        assert store.calls == []


@pytest.mark.behaviour(4)
@pytest.mark.behaviour(18)
async def test_deleting_an_unknown_id_is_fine(opened: Opener) -> None:
    """It succeeds, says that nothing was there, and so does deleting twice."""
    async with opened() as sessions:
        assert await sessions.delete("unknown") is False
        session = await sessions.create()
        assert await sessions.delete(session.id) is True
        assert await sessions.delete(session.id) is False
        assert await sessions.end(session.id) is False


class Repeating(SequenceIds):
    """An id source that gives the same session id so many times before it goes on."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def session_id(self) -> str:
        """Return `taken` until the times are up."""
        if self._left > 0:
            self._left -= 1
            return "taken"
        return super().session_id()


@pytest.mark.behaviour(7)
async def test_a_generated_id_that_exists_is_replaced(opened: Opener) -> None:
    """Another one is tried until one is free; the session that had it is untouched."""
    async with opened(ids=Repeating(CREATE_ATTEMPTS - 1)) as sessions:
        first = await sessions.create(id="taken", state={"n": 1})
        second = await sessions.create(state={"n": 2})
        assert second.id == "s1"
        assert dict((await sessions.require("taken")).state) == {"n": 1}
        assert (await sessions.require("taken")).epoch == first.epoch
        assert dict((await sessions.require("s1")).state) == {"n": 2}


@pytest.mark.behaviour(7)
async def test_a_broken_id_source_fails_loudly(opened: Opener) -> None:
    """After a bounded number of tries it is `AlreadyExists`; nothing was overwritten or made."""
    async with opened(ids=Repeating(10_000)) as sessions:
        await sessions.create(state={"n": 1})
        for make in (sessions.create(), sessions.fork("taken")):
            with pytest.raises(AlreadyExists, match=f"{CREATE_ATTEMPTS} generated ids were taken"):
                await make
        new = sessions.new(state={"n": 2})
        with pytest.raises(AlreadyExists):
            await sessions.save(new)
        assert await sessions.count() == 1
        assert dict((await sessions.require("taken")).state) == {"n": 1}


@pytest.mark.behaviour(8)
async def test_clock_and_ids_are_injected(opened: Opener) -> None:
    """A session carries exactly the injected id, epoch and time; an event its id and time."""
    clock = FakeClock()
    async with opened(clock=clock, ids=SequenceIds("x")) as sessions:
        session = await sessions.create()
        assert (session.id, session.epoch) == ("x1", "x-epoch-1")
        assert session.created_at.isoformat() == "2026-01-01T00:00:00+00:00"
        assert session.active_at == session.created_at
        clock.advance(1.5)
        event = await sessions.append(session, Event(kind="note"))
        assert event.id == "x-event-1"
        assert event.at is not None
        assert event.at.isoformat() == "2026-01-01T00:00:01.500000+00:00"
        back = await sessions.require("x1", events=1)
        assert (back.created_at, back.active_at) == (session.created_at, event.at)
        assert back.events == [event]


@pytest.mark.behaviour(9)
@pytest.mark.parametrize(
    "id", ["a", "A", "user/1:2|3", "..", "' OR 1=1", "\u00e9", "\U0001f600", " x ", "x" * MAX_NAME]
)
async def test_a_given_id_is_used_verbatim(opened: Opener, id: str) -> None:
    """Not trimmed, folded or escaped: it comes back as it went in and finds only itself."""
    async with opened() as sessions:
        assert (await sessions.create(id=id)).id == id
        assert (await sessions.require(id)).id == id
        for other in {id.upper(), id.lower(), id.strip(), id + "x", "e\u0301"} - {id}:
            assert await sessions.get(other) is None


@pytest.mark.behaviour(10)
@pytest.mark.parametrize("value", ["", " ", "a\x00", 7, b"u"], ids=ascii)
@pytest.mark.parametrize("what", ["user", "parent", "session id"])
async def test_a_malformed_part_of_a_create_is_named(url: str, what: str, value: Any) -> None:
    """`InvalidId` says which argument it was; nothing is stored."""
    async with watched(url) as (sessions, store):
        argument = "id" if what == "session id" else what
        with pytest.raises(InvalidId) as caught:
            await sessions.create(**{argument: value})
        assert caught.value.what == what
        with pytest.raises(InvalidId):
            sessions.new(**{"id" if what == "session id" else "user": value})
        assert store.calls == []


@pytest.mark.behaviour(10)
@pytest.mark.parametrize("app", ["", " ", None, 7, "a\n"])
def test_an_app_has_a_name(app: Any) -> None:
    """A manager without a proper app is refused at once."""
    with pytest.raises(InvalidId) as caught:
        SessionManager.open("memory://", app=app)
    assert caught.value.what == "app"


@pytest.mark.behaviour(10)
@pytest.mark.parametrize("user", ["", " ", "a\x00", 7], ids=ascii)
async def test_a_malformed_user_is_named_everywhere(url: str, user: Any) -> None:
    """Lists, shared state, binding and forgetting refuse it before the store is asked."""
    async with watched(url) as (sessions, store):
        new = sessions.new()
        for call in (
            sessions.list(user=user),
            sessions.count(user=user),
            sessions.user_state(user),
            sessions.share({"user:k": 1}, user=user),
            sessions.forget(user),
            sessions.bind(new, user),
        ):
            with pytest.raises(InvalidId) as caught:
                await call
            assert caught.value.what == "user"
        assert store.calls == []


@pytest.mark.behaviour(11)
@pytest.mark.parametrize("user", QUOTES)
async def test_no_user_id_widens_a_query(opened: Opener, user: str) -> None:
    """Quotes, wildcards and separators are just characters: each user sees only their own."""
    async with opened() as sessions:
        for each in ("u", "u2", user):
            await sessions.create(id=f"of {each}", user=each, state={"user:k": each})
        page = await sessions.list(user=user)
        assert [session.id for session in page.items] == [f"of {user}"]
        assert await sessions.count(user=user) == 1
        assert await sessions.user_state(user) == {"k": user}
        assert await sessions.forget(user) == 1
        assert await sessions.count() == 2


@pytest.mark.behaviour(14)
@pytest.mark.parametrize("other", ["app2", "ap", "app ", "APP", "app:x", "app'"])
async def test_the_same_id_in_two_apps_is_two_sessions(opened: Opener, other: str) -> None:
    """Each keeps its own state, events, shared keys and end."""
    async with opened(app="app") as one, opened(app=other) as two:
        for sessions in (one, two):
            session = await sessions.create(id="s", user="u", state={"n": sessions.app})
            session.state.update({"app:k": sessions.app, "user:k": sessions.app})
            await sessions.save(session)
            await sessions.append(session, Event(kind="note", body=sessions.app))
        for sessions in (one, two):
            session = await sessions.require("s", events=10)
            mine = sessions.app
            assert dict(session.state) == {"n": mine, "app:k": mine, "user:k": mine}
            assert [event.body for event in session.events] == [mine]
            assert await sessions.user_state("u") == {"k": mine}
        assert await one.forget("u") == 1
        assert await one.get("s") is None
        assert (await two.require("s")).state["user:k"] == other


@pytest.mark.behaviour(14)
@pytest.mark.behaviour(12)
async def test_the_same_id_under_two_users_is_one_session(opened: Opener) -> None:
    """Identity is app and id: the second user is told so and gets nothing of the first."""
    async with opened() as sessions:
        await sessions.create(id="s", user="one", state={"n": 1})
        with pytest.raises(AlreadyExists):
            await sessions.create(id="s", user="two", state={"n": 2})
        session = await sessions.require("s")
        assert (session.user, dict(session.state)) == ("one", {"n": 1})


@pytest.mark.behaviour(16)
async def test_another_users_session_is_denied_and_leaks_nothing(opened: Opener) -> None:
    """`NotOwner` is a `NotFound`, whose message names neither the owner nor anything inside."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="alice", state={"secret": "tea"})
        await sessions.append(session, Event(kind="note", body="milk"))
        for call in (
            sessions.require("s", user="bob"),
            sessions.require("s", user="bob", events=5, touch=True),
            sessions.get_or_create("s", user="bob"),
        ):
            with pytest.raises(NotOwner) as caught:
                await call
            shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
            assert not [word for word in ("alice", "tea", "milk") if word in shown]
            assert isinstance(caught.value, NotFound)
        assert (await sessions.require("s", user="alice")).user == "alice"


@pytest.mark.behaviour(16)
async def test_an_anonymous_session_is_nobodys(opened: Opener) -> None:
    """Asking for it as a user is `NotOwner`; without a user it is there."""
    async with opened() as sessions:
        await sessions.create(id="s")
        with pytest.raises(NotOwner):
            await sessions.require("s", user="bob")
        assert (await sessions.require("s")).user is None


@pytest.mark.behaviour(17)
async def test_deleting_as_the_wrong_user_sends_nothing(url: str) -> None:
    """`require` with the user comes first and refuses; no delete reaches the store."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s", user="alice")
        store.forget_calls()
        with pytest.raises(NotOwner):
            await sessions.delete((await sessions.require("s", user="bob")).id)
        assert store.verbs == ["get"]
        assert (await sessions.require("s", user="alice")).id == "s"


@pytest.mark.behaviour(17)
async def test_deleting_in_another_app_leaves_the_session(opened: Opener) -> None:
    """The other app's delete finds nothing, and so does its forget."""
    async with opened(app="one") as one, opened(app="two") as two:
        await one.create(id="s", user="u")
        assert await two.delete("s") is False
        assert await two.end("s") is False
        assert await two.forget("u") == 0
        assert (await one.require("s", user="u")).id == "s"


async def test_a_user_is_bound_once(opened: Opener) -> None:
    """Binding again to the same user is fine, to another one is refused, from any handle."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        stale = await sessions.require("s")
        await sessions.bind(session, "alice")
        await sessions.bind(session, "alice")
        for handle in (session, stale):
            with pytest.raises(AlreadyBound):
                await sessions.bind(handle, "bob")
        assert (await sessions.require("s", user="alice")).user == "alice"


async def test_binding_shows_what_the_user_shares(opened: Opener) -> None:
    """Before it is stored and after; unsaved changes stay."""
    async with opened() as sessions:
        await sessions.share({"user:theme": "dark"}, user="alice")
        session = await sessions.create()
        session.state["n"] = 1
        await sessions.bind(session, "alice")
        assert dict(session.state) == {"user:theme": "dark", "n": 1}
        assert session.modified
        new = sessions.new()
        await sessions.bind(new, "alice")
        assert new.user == "alice"
        new.state["user:k"] = 1
        await sessions.save(new)
        assert await sessions.user_state("alice") == {"theme": "dark", "k": 1}


@pytest.mark.behaviour(31)
@pytest.mark.behaviour(15)
async def test_missing_trouble_and_not_yours_differ_by_type(url: str) -> None:
    """`None`/`NotFound`, `NotOwner`, `Unavailable`, `Corrupt` and `Closed` never look alike."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s", user="u")
        assert await sessions.get("other") is None
        with pytest.raises(NotFound) as missing:
            await sessions.require("other")
        assert missing.type is NotFound
        with pytest.raises(NotOwner):
            await sessions.require("s", user="v")
        for trouble in (Unavailable("store", "down"), Corrupt("session 's'", "torn")):
            for call in (sessions.get, sessions.require, sessions.get_or_create):
                store.fail("get", trouble)
                with pytest.raises(type(trouble)) as caught:
                    await call("s")
                assert not isinstance(caught.value, NotFound)
        assert await sessions.get("s") is not None
        await sessions.close()
        with pytest.raises(Closed):
            await sessions.get("s")


@pytest.mark.behaviour(31)
async def test_trouble_never_creates(url: str) -> None:
    """When the store cannot say whether there is a session, `get_or_create` does not make one."""
    async with watched(url) as (sessions, store):
        store.fail("get", Unavailable("store", "down"))
        with pytest.raises(Unavailable):
            await sessions.get_or_create("s")
        assert "create" not in store.verbs
        assert await sessions.get("s") is None


async def test_an_ending_session_says_so(opened: Opener) -> None:
    """To writers it is `Ended`, a `NotFound` with the phase; to readers it is there."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        await sessions.end("s", reason="logout", retain=60)
        session.state["n"] = 1
        with pytest.raises(Ended) as caught:
            await sessions.save(session)
        assert (caught.value.phase, caught.value.reason) == ("ENDED", "logout")
        assert (await sessions.require("s")).reason == "logout"


async def test_identity_does_not_change_with_the_contents(opened: Opener) -> None:
    """Epoch and creation time stay over saves; a recreated session has another epoch."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        epoch, made = session.epoch, session.created_at
        session.state["n"] = 1
        await sessions.save(session)
        back = await sessions.require("s")
        assert (back.epoch, back.created_at) == (epoch, made)
        await sessions.delete("s")
        assert (await sessions.create(id="s")).epoch != epoch

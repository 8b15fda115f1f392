"""Making sessions: what is stored and what is refused, wholly or not at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import (
    DELETE,
    AlreadyExists,
    Conflict,
    Ended,
    EndFailed,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    NotFound,
    NotOwner,
    Phase,
    RoleTaken,
    Session,
    SessionManager,
    TooLarge,
    Trigger,
    Unavailable,
    Unbound,
    Unserializable,
)
from sojourn.limits import MAX_EVENTS_PER_COMMIT, MAX_LABELS
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

START = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_created_session_is_as_it_was_asked_for(opened: Opener) -> None:
    """The handle that comes back and a fresh one show every fact alike."""
    async with opened(clock=FakeClock(START)) as sessions:
        await sessions.create(id="p")
        made = await sessions.create(
            id="s",
            user="u",
            state={"cart": [1], "user:theme": "dark", "app:open": True, "temp:x": 1},
            events=[Event(kind="note", author="me", body={"n": 1}, delta={"n": 2})],
            labels={"kind": "chat"},
            parent="p",
            expiry=Expiry(idle=60, absolute=600),
        )
        back = await sessions.require("s", events=10)
    stored = {"cart": [1], "n": 2, "user:theme": "dark", "app:open": True}
    assert dict(made.state) == {**stored, "temp:x": 1}
    assert dict(back.state) == stored
    assert made.events == back.events
    assert [(event.seq, event.body, event.delta) for event in back.events] == [
        (1, {"n": 1}, {"n": 2})
    ]
    for session in (made, back):
        assert (session.id, session.app, session.user) == ("s", "default", "u")
        assert (session.phase, session.lifecycle, session.reason) == (Phase.OPEN, "open", None)
        assert (session.revision, session.epoch) == (1, made.epoch)
        assert (session.created_at, session.active_at) == (START, START)
        assert session.expires_at == START + timedelta(seconds=60)
        assert (dict(session.labels), session.parent) == ({"kind": "chat"}, "p")
        assert (session.stored, session.modified, session.forked_from) == (True, False, None)


@pytest.mark.behaviour(46)
async def test_a_session_without_anything_is_usable(opened: Opener) -> None:
    """Created with no state it reads back empty, and takes its first key."""
    async with opened() as sessions:
        await sessions.create(id="s")
        session = await sessions.require("s")
        assert (dict(session.state), session.events, dict(session.labels)) == ({}, [], {})
        session.state["n"] = 1
        await sessions.save(session)
        assert dict((await sessions.require("s")).state) == {"n": 1}


@pytest.mark.behaviour(12)
async def test_the_same_id_twice_is_refused(opened: Opener) -> None:
    """`AlreadyExists`, and the first session is as it was: state, events, revision, epoch."""
    async with opened() as sessions:
        first = await sessions.create(id="s", user="u", state={"n": 1, "user:k": 1, "app:k": 1})
        with pytest.raises(AlreadyExists) as caught:
            await sessions.create(
                id="s",
                user="u",
                state={"n": 2, "user:k": 2, "app:k": 2},
                events=[Event(kind="note")],
                labels={"a": "b"},
            )
        assert (caught.value.id, caught.value.expired) == ("s", False)
        back = await sessions.require("s", events=10)
        assert dict(back.state) == {"n": 1, "user:k": 1, "app:k": 1}
        assert (back.revision, back.epoch, back.events) == (1, first.epoch, [])
        assert await sessions.count(labels={"a": "b"}) == 0


@pytest.mark.behaviour(15)
async def test_looking_never_creates(opened: Opener) -> None:
    """Get and require of an unknown id say so and leave nothing behind."""
    async with opened() as sessions:
        assert await sessions.get("s") is None
        with pytest.raises(NotFound) as caught:
            await sessions.require("s")
        assert caught.value.id == "s"
        assert await sessions.count() == 0
        await sessions.create(id="s")


@pytest.mark.behaviour(19)
async def test_an_id_that_is_used_again_shows_nothing_old(opened: Opener) -> None:
    """State, events, labels, documents and children of the deleted session are gone."""
    async with opened() as sessions:
        session = await sessions.create(
            id="s", state={"old": 1}, labels={"old": "1", "role": "r"}, exclusive=("role",)
        )
        await sessions.append(session, Event(kind="note", body="old", id="e"))
        await sessions.documents("s").put("c", "k", b"old")
        await sessions.create(id="child", parent="s")
        await sessions.delete("s")
        for id in ("s", "child"):
            assert await sessions.get(id) is None
        again = await sessions.create(id="s", labels={"role": "r"}, exclusive=("role",))
        assert dict(again.state) == {}
        event = await sessions.append(again, Event(kind="note", body="old", id="e"))
        assert event.seq == 1
        assert [each.body for each in await sessions.events("s")] == ["old"]
        assert await sessions.documents("s").get("c", "k") is None
        assert await sessions.count(labels={"old": "1"}) == 0
        assert (await sessions.list(parent="s")).items == []


@pytest.mark.behaviour(19)
async def test_shared_tiers_outlive_the_session(opened: Opener) -> None:
    """A delete removes what the session owned, and not what it shared."""
    async with opened() as sessions:
        await sessions.create(id="s", user="u", state={"app:a": 1, "user:b": 2, "c": 3})
        await sessions.delete("s")
        assert await sessions.app_state() == {"a": 1}
        assert await sessions.user_state("u") == {"b": 2}


@pytest.mark.behaviour(21)
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "recreated"])
async def test_an_old_handle_does_not_resurrect(opened: Opener, again: bool) -> None:
    """Every write through a handle from before a delete fails, even if the id exists again."""
    async with opened() as sessions:
        old = await sessions.create(id="s", state={"n": 1})
        await sessions.delete("s")
        if again:
            await sessions.create(id="s", state={"n": 2})
        old.state["n"] = 3
        for write in (
            sessions.save(old),
            sessions.append(old, Event(kind="note"), state={"n": 3}),
            sessions.truncate(old, after=0),
            sessions.replace_suffix(old, expected=[1], events=[]),
            sessions.bind(old, "u"),
            sessions.label(old, {"a": "b"}),
        ):
            with pytest.raises(NotFound):
                await write
        back = await sessions.get("s", events=10)
        if again:
            assert back is not None
            assert (dict(back.state), back.events, back.revision) == ({"n": 2}, [], 1)
            with pytest.raises(Conflict) as caught:
                await sessions.save(old, conflict="fail")
            assert (caught.value.expected, caught.value.actual) == ((old.epoch, 1), (back.epoch, 1))
        else:
            assert back is None


# --- presets, labels, claims, parents ---------------------------------------------------------


async def test_the_presets(opened: Opener) -> None:
    """`open` is the default and starts OPEN, `agent` starts CREATED, others are refused."""
    async with opened() as sessions:
        assert (await sessions.create()).phase is Phase.OPEN
        agent = await sessions.create(id="a", lifecycle="agent")
        assert (agent.phase, agent.lifecycle) == (Phase.CREATED, "agent")
        assert (await sessions.require("a")).lifecycle == "agent"
        with pytest.raises(InvalidQuery, match="open, agent") as caught:
            await sessions.create(lifecycle="other")
        assert caught.value.field == "lifecycle"


async def test_the_open_preset_ends_in_two_steps(opened: Opener) -> None:
    """OPEN - END - ENDING - FINISH - ENDED, where FINISH is `finish`'s alone."""
    async with opened() as sessions:
        await sessions.create(id="s")
        assert await sessions.apply("s", Trigger.END, reason="bye") is Phase.ENDING
        assert (await sessions.require("s")).reason == "bye"
        assert await sessions.finish("s") is True
        assert await sessions.get("s") is None
        await sessions.create(id="kept")
        await sessions.end("kept", retain=60)
        assert (await sessions.require("kept")).phase is Phase.ENDED


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ({"": "v"}, "label name"),
        ({7: "v"}, "label name"),
        ({"a\x00": "v"}, "label name"),
        ({"a": ""}, "label 'a'"),
        ({"a": 7}, "label 'a'"),
        ({"a": None}, "label 'a'"),
        ({"a": "v\n"}, "label 'a'"),
    ],
)
async def test_labels_are_names(url: str, labels: Any, what: str) -> None:
    """A bad label is named, in `create` and `new` alike; the store is not asked."""
    async with watched(url) as (sessions, store):
        with pytest.raises(InvalidId) as caught:
            await sessions.create(labels=labels)
        assert caught.value.what == what
        with pytest.raises(InvalidId):
            sessions.new(labels=labels)
        assert store.calls == []


async def test_labels_are_bounded_and_copied(opened: Opener) -> None:
    """`MAX_LABELS` fit, one more is `TooLarge`; the given mapping is not kept."""
    async with opened() as sessions:
        labels = {str(n): "v" for n in range(MAX_LABELS)}
        session = await sessions.create(id="s", labels=labels)
        labels["more"] = "v"
        assert "more" not in session.labels
        with pytest.raises(TooLarge):
            await sessions.create(labels=labels)
        assert await sessions.count() == 1


@pytest.mark.behaviour(118)
async def test_an_exclusive_claim_has_one_live_holder(opened: Opener) -> None:
    """The values of the labels together are unique; the refusal names the holder."""
    async with opened() as sessions:

        async def claim(workspace: str, role: str) -> Session:
            labels = {"workspace": workspace, "role": role, "note": workspace + role}
            return await sessions.create(labels=labels, exclusive=("workspace", "role"))

        holder = await claim("w", "r")
        await claim("w", "other")
        await claim("other", "r")
        with pytest.raises(RoleTaken) as caught:
            await claim("w", "r")
        assert caught.value.holder == holder.id
        assert caught.value.claim == {"workspace": "w", "role": "r"}
        assert await sessions.count() == 3
        await sessions.create(labels={"workspace": "w", "role": "r"})
        await sessions.end(holder.id)
        assert (await claim("w", "r")).id != holder.id


@pytest.mark.behaviour(122)
async def test_of_many_claims_at_once_one_wins(opened: Opener) -> None:
    """Ten concurrent creates of one role: exactly one is there, the others name it."""
    async with opened() as sessions:
        outcomes = await asyncio.gather(
            *(sessions.create(labels={"role": "r"}, exclusive=("role",)) for _ in range(10)),
            return_exceptions=True,
        )
        winners = [each for each in outcomes if isinstance(each, Session)]
        losers = [each for each in outcomes if isinstance(each, RoleTaken)]
        assert (len(winners), len(losers)) == (1, 9)
        assert {each.holder for each in losers} == {winners[0].id}
        assert await sessions.count() == 1


@pytest.mark.parametrize("exclusive", ["role", ("missing",), ("role", "missing"), ("",), (7,)])
async def test_exclusive_names_labels_of_the_session(url: str, exclusive: Any) -> None:
    """A name that is no label, or one string in place of a list, is refused at once."""
    async with watched(url) as (sessions, store):
        with pytest.raises(InvalidId) as caught:
            await sessions.create(labels={"role": "r"}, exclusive=exclusive)
        assert caught.value.what == "exclusive"
        assert store.calls == []


async def test_a_child_needs_a_live_parent(opened: Opener) -> None:
    """Missing, of another app, ending, and expired parents take none; nothing is stored."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions, opened(app="other") as others:
        await others.create(id="elsewhere")
        await sessions.create(id="ending")
        await sessions.apply("ending", Trigger.END)
        await sessions.create(id="expired", expiry=Expiry(absolute=1))
        clock.advance(1)
        for parent, kind in (
            ("missing", NotFound),
            ("elsewhere", NotFound),
            ("ending", Ended),
            ("expired", Ended),
        ):
            with pytest.raises(kind):
                await sessions.create(id="child", parent=parent)
            assert await sessions.get("child") is None


async def test_a_child_has_a_phase_of_its_own(opened: Opener) -> None:
    """Its end does not end the parent; deleting the parent deletes it."""
    async with opened() as sessions:
        await sessions.create(id="p")
        for id in ("a", "b"):
            await sessions.create(id=id, parent="p", lifecycle="agent")
        await sessions.end("a")
        assert (await sessions.require("p")).phase is Phase.OPEN
        assert (await sessions.require("b")).phase is Phase.CREATED
        await sessions.delete("p")
        assert await sessions.get("b") is None


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"state": {"a": {1}}}, Unserializable),
        ({"state": {"a": [{"b": (1,)}]}}, Unserializable),
        ({"state": {"ok": 1, "user:k": 1}}, Unbound),
        ({"state": {"app:": 1}}, InvalidId),
        ({"state": {7: 1}}, InvalidId),
        ({"events": [Event(kind="note", body=b"x")]}, Unserializable),
        ({"events": [Event(kind="note"), Event(kind="")]}, InvalidId),
        ({"events": [Event(kind="note", delta={"user:k": 1})]}, Unbound),
        ({"events": [None]}, InvalidQuery),
        ({"events": [{"kind": "note"}]}, InvalidQuery),
        ({"events": [Event(kind="x")] * (MAX_EVENTS_PER_COMMIT + 1)}, TooLarge),
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_a_create_is_all_or_nothing(
    url: str, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    """One bad part, and neither the session nor any shared key is stored."""
    async with watched(url) as (sessions, store):
        with pytest.raises(kind):
            await sessions.create(id="s", **arguments)
        assert store.calls == []
        assert await sessions.get("s") is None
        assert await sessions.app_state() == {}


async def test_the_path_of_a_bad_value_is_named(opened: Opener) -> None:
    """`Unserializable` says where in the state it sits."""
    async with opened() as sessions:
        with pytest.raises(Unserializable) as caught:
            await sessions.create(state={"cart": [{"price": 1j}]})
        assert caught.value.path == "state.cart[0].price"


async def test_partial_events_are_left_out(opened: Opener) -> None:
    """They are accepted and not stored; the others count from 1 without a gap."""
    async with opened() as sessions:
        made = await sessions.create(
            id="s",
            events=[
                Event(kind="a", partial=True, delta={"n": 1}),
                Event(kind="b", delta={"n": 2}),
                Event(kind="c", partial=True),
                Event(kind="d"),
            ],
        )
        assert [(event.seq, event.kind) for event in made.events] == [(1, "b"), (2, "d")]
        assert dict(made.state) == {"n": 2}
        back = await sessions.require("s", events=10)
        assert (back.events, dict(back.state)) == (made.events, {"n": 2})


async def test_first_events_change_the_state_in_order(opened: Opener) -> None:
    """Over the given state, each delta in turn; a `DELETE` removes."""
    async with opened() as sessions:
        made = await sessions.create(
            id="s",
            state={"a": 0, "b": 0, "c": 0},
            events=[
                Event(kind="x", delta={"a": 1, "temp:t": 1}),
                Event(kind="x", delta={"a": 2, "b": DELETE}),
            ],
        )
        assert dict(made.state) == {"a": 2, "c": 0, "temp:t": 1}
        assert dict((await sessions.require("s")).state) == {"a": 2, "c": 0}


async def test_what_was_given_is_not_kept(opened: Opener) -> None:
    """Neither the store nor the handle shares a list with the caller's state or events."""
    async with opened() as sessions:
        items, body = [1], {"x": [1]}
        made = await sessions.create(
            id="s", state={"items": items}, events=[Event(kind="x", body=body)]
        )
        items.append(2)
        body["x"].append(2)
        assert made.state["items"] == [1]
        assert made.events[0].body == {"x": [1]}
        back = await sessions.require("s", events=1)
        assert (back.state["items"], back.events[0].body) == ([1], {"x": [1]})


# --- over an expired session ------------------------------------------------------------------


async def test_over_an_expired_id_the_old_session_is_finished_first(opened: Opener) -> None:
    """Its hooks run, with its data; then the new one is there, and nothing of the old."""
    clock = FakeClock(START)
    seen: list[tuple[str, dict[str, Any], str]] = []

    async def hook(session: Session, reason: str) -> None:
        seen.append((session.epoch, dict(session.state), reason))

    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        old = await sessions.create(id="s", state={"n": 1}, expiry=Expiry(idle=10))
        clock.advance(10)
        new = await sessions.create(id="s", state={"m": 2})
        assert seen == [(old.epoch, {"n": 1}, "expired")]
        assert dict((await sessions.require("s")).state) == {"m": 2}
        assert new.epoch != old.epoch


async def test_over_an_expired_id_whose_end_fails_the_refusal_says_so(opened: Opener) -> None:
    """`AlreadyExists` with the reason and the cause; the old one is left to be retried."""
    clock = FakeClock(START)

    async def hook(_session: Session, _reason: str) -> None:
        raise OSError("disk")

    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        old = await sessions.create(id="s", expiry=Expiry(idle=10))
        clock.advance(10)
        for call in (sessions.create(id="s"), sessions.get_or_create("s")):
            with pytest.raises(AlreadyExists, match="its end failed") as caught:
                await call
            assert caught.value.expired
            assert isinstance(caught.value.__cause__, EndFailed)
        there = await sessions.get("s", expired=True)
        assert there is not None
        assert there.epoch == old.epoch


async def test_a_claim_of_an_expired_session_is_freed(opened: Opener) -> None:
    """An exclusive label is not held beyond the deadline, swept or not."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        facts: dict[str, Any] = {"labels": {"role": "r"}, "exclusive": ("role",)}
        await sessions.create(id="old", expiry=Expiry(absolute=10), **facts)
        with pytest.raises(RoleTaken):
            await sessions.create(id="new", **facts)
        clock.advance(10)
        assert (await sessions.create(id="new", **facts)).id == "new"
        assert await sessions.get("old", expired=True) is None


# --- get or create ----------------------------------------------------------------------------


@pytest.mark.behaviour(29)
async def test_get_or_create_creates_what_is_missing(opened: Opener) -> None:
    """With the facts given; the second time it is the one that is there, as it is."""
    async with opened() as sessions:
        with pytest.raises(NotFound):
            await sessions.require("s")
        made = await sessions.get_or_create("s", user="u", state={"n": 1}, labels={"a": "b"})
        assert (made.user, dict(made.state), dict(made.labels)) == ("u", {"n": 1}, {"a": "b"})
        found = await sessions.get_or_create("s", user="u", state={"n": 2})
        assert (found.epoch, dict(found.state)) == (made.epoch, {"n": 1})
        assert (await sessions.require("s")).epoch == made.epoch
        assert (await sessions.get_or_create("s")).epoch == made.epoch


async def test_get_or_create_is_not_for_another_user(opened: Opener) -> None:
    """`NotOwner`, and nothing is made or changed."""
    async with opened() as sessions:
        await sessions.create(id="s", user="u")
        with pytest.raises(NotOwner):
            await sessions.get_or_create("s", user="v")
        assert await sessions.count() == 1


@pytest.mark.behaviour(128)
async def test_of_many_get_or_creates_at_once_one_creates(opened: Opener) -> None:
    """Twenty first requests get one and the same session."""
    async with opened() as sessions:
        made = await asyncio.gather(
            *(sessions.get_or_create("s", user="u", state={"n": n}) for n in range(20))
        )
        assert len({session.epoch for session in made}) == 1
        assert len({session.state["n"] for session in made}) == 1
        assert await sessions.count() == 1


async def test_a_lost_race_is_not_an_error(url: str) -> None:
    """Created by somebody else between the look and the create: theirs is returned."""
    async with watched(url) as (sessions, store):
        gate = store.hold("create", "before")
        task = asyncio.create_task(sessions.get_or_create("s", state={"n": "mine"}))
        await gate.arrived.wait()
        await sessions.create(id="s", state={"n": "theirs"})
        gate.go()
        assert (await task).state["n"] == "theirs"


# --- trouble ----------------------------------------------------------------------------------


async def test_a_failed_create_stores_nothing(url: str) -> None:
    """`Unavailable` before the store did anything: there is no session, and trying again works."""
    async with watched(url) as (sessions, store):
        store.fail("create", Unavailable("store", "down"))
        with pytest.raises(Unavailable):
            await sessions.create(id="s", state={"app:k": 1})
        assert await sessions.get("s") is None
        assert await sessions.app_state() == {}
        await sessions.create(id="s")


async def test_a_lost_reply_of_a_create_is_no_error(url: str) -> None:
    """The store created it and the answer was lost: the handle is the stored session's."""
    async with watched(url) as (sessions, store):
        store.fail("create", Unavailable("store", "lost"), "after")
        made = await sessions.create(id="s", state={"n": 1})
        assert (made.stored, made.revision, dict(made.state)) == (True, 1, {"n": 1})
        made.state["n"] = 2
        await sessions.save(made, conflict="fail")
        assert (await sessions.require("s")).state["n"] == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cancelled_create_is_there_or_not(url: str, when: Any) -> None:
    """Cancelled before the store had it nothing is stored; afterwards all of it is."""
    async with watched(url) as (sessions, store):
        gate = store.hold("create", when)
        task = asyncio.create_task(
            sessions.create(id="s", state={"n": 1}, events=[Event(kind="x")])
        )
        await gate.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        back = await sessions.get("s", events=5)
        if when == "before":
            assert back is None
        else:
            assert back is not None
            assert (dict(back.state), len(back.events)) == ({"n": 1}, 1)


# --- the manager itself -----------------------------------------------------------------------


@pytest.mark.behaviour(69)
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"store": None}, "store"),
        ({"store": object()}, "store"),
        ({"clock": object()}, "clock"),
        ({"ids": 7}, "ids"),
        ({"expiry": 60}, "expiry"),
        ({"expiry": None}, "expiry"),
        ({"cleaners": [object()]}, "cleaners"),
        ({"cleaners": [None]}, "cleaners"),
    ],
)
async def test_a_missing_collaborator_is_refused_at_once(
    url: str, arguments: dict[str, Any], field: str
) -> None:
    """The constructor names what it was not given, before anything is used."""
    async with watched(url) as (_, store):
        with pytest.raises(InvalidQuery) as caught:
            SessionManager(**{"store": store, **arguments})
        assert caught.value.field == field
        assert store.calls == []

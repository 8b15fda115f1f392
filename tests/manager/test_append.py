"""Appending: one commit for events and their deltas, once each, in order, whoever else appends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import (
    DELETE,
    Conflict,
    Event,
    InvalidId,
    InvalidQuery,
    NotFound,
    SessionManager,
    TooLarge,
    Unserializable,
)
from sojourn.limits import MAX_EVENTS_PER_COMMIT
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import Session

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

START = datetime(2026, 1, 1, tzinfo=UTC)


def facts(session: Session) -> tuple[Any, ...]:
    """Return all that a handle shows."""
    return (
        session.revision,
        session.epoch,
        dict(session.state),
        list(session.events),
        session.active_at,
        session.expires_at,
        session.modified,
        session.phase,
        session.user,
    )


@pytest.mark.behaviour(83)
async def test_an_appended_event_is_read_back(opened: Opener) -> None:
    """With its id, in order, numbered from 1 without a gap; the handle shows the same."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        one = await sessions.append(session, Event(kind="message", body={"n": 1}, id="mine"))
        two = await sessions.append(session, Event(kind="message", body={"n": 2}))
        assert (one.id, one.seq, two.seq) == ("mine", 1, 2)
        assert two.id
        assert await sessions.events("s") == [one, two]
        assert session.events == [one, two]
        assert session.revision == 3


@pytest.mark.behaviour(83)
async def test_several_events_in_one_append_are_one_commit(url: str) -> None:
    """One revision more, the last one is returned, their deltas apply in order."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        store.forget_calls()
        last = await sessions.append(
            session,
            Event(kind="a", delta={"n": 1, "m": 1}),
            Event(kind="b", delta={"n": 2, "m": DELETE}),
            Event(kind="c"),
            state={"k": 3},
        )
        assert store.verbs == ["commit"]
        assert (last.kind, last.seq, last.delta) == ("c", 3, {"k": 3})
        assert dict(session.state) == {"n": 2, "k": 3}
        back = await sessions.require("s", events=5)
        assert (dict(back.state), back.revision) == ({"n": 2, "k": 3}, 2)
        assert back.events == session.events
        assert [event.delta for event in back.events] == [
            {"n": 1, "m": 1},
            {"n": 2, "m": DELETE},
            {"k": 3},
        ]


async def test_to_an_id_without_a_handle(opened: Opener) -> None:
    """The same commit, for those who have not loaded the session."""
    async with opened() as sessions:
        await sessions.create(id="s")
        event = await sessions.append("s", Event(kind="x", body=1), state={"k": 1})
        assert (event.seq, event.delta) == (1, {"k": 1})
        assert (await sessions.require("s")).state["k"] == 1
        with pytest.raises(InvalidQuery) as caught:
            await sessions.append("s", Event(kind="x"), conflict="fail")
        assert caught.value.field == "conflict"


async def test_the_given_state_is_part_of_the_events_delta(opened: Opener) -> None:
    """Over the delta that the event has; `DELETE` reads back as `DELETE`, `None` as `None`."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"gone": 1})
        event = Event(kind="x", delta={"a": 1, "b": 1})
        stored = await sessions.append(session, event, state={"b": 2, "gone": DELETE, "n": None})
        assert stored.delta == {"a": 1, "b": 2, "gone": DELETE, "n": None}
        (back,) = await sessions.events("s")
        assert back.delta == stored.delta
        assert back.delta["gone"] is DELETE
        assert dict(session.state) == {"a": 1, "b": 2, "n": None}


async def test_unsaved_changes_wait_for_the_save(opened: Opener) -> None:
    """An append commits its own delta only, and leaves the rest modified on the handle."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"l": [1], "gone": 1})
        session.state["unsaved"] = 1
        session.state["l"].append(2)
        del session.state["gone"]
        await sessions.append(session, Event(kind="x"), state={"k": 1})
        assert dict((await sessions.require("s")).state) == {"l": [1], "gone": 1, "k": 1}
        assert dict(session.state) == {"l": [1, 2], "k": 1, "unsaved": 1}
        assert session.modified
        await sessions.save(session)
        assert dict((await sessions.require("s")).state) == {"l": [1, 2], "k": 1, "unsaved": 1}


async def test_an_appended_key_overrides_the_unsaved_one(opened: Opener) -> None:
    """What the event says of a key is what the handle shows from then on."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"b": [1], "c": 1})
        session.state["a"] = "unsaved"
        session.state["b"].append("unsaved")
        del session.state["c"]
        await sessions.append(session, Event(kind="x"), state={"a": 1, "b": [2], "c": 2})
        assert dict(session.state) == {"a": 1, "b": [2], "c": 2}
        assert not session.modified


@pytest.mark.behaviour(84)
async def test_a_partial_event_is_accepted_and_not_stored(url: str) -> None:
    """It comes back as it is; log, state, revision and handle are as before, nothing is asked."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", state={"n": 1})
        before = facts(session)
        store.forget_calls()
        partial = Event(kind="x", body="half", delta={"n": 2, "temp:t": 1}, partial=True)
        assert await sessions.append(session, partial) is partial
        assert await sessions.append("s", partial) is partial
        assert store.calls == []
        assert facts(session) == before
        assert await sessions.events("s") == []
        assert (await sessions.require("s")).revision == 1


@pytest.mark.behaviour(84)
async def test_partial_events_among_others_are_left_out(opened: Opener) -> None:
    """The others are stored without a gap; the last one given is what is returned."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        half = Event(kind="half", delta={"n": 1}, partial=True)
        whole = Event(kind="whole", delta={"m": 1})
        assert (await sessions.append(session, half, whole, state={"k": 1})).kind == "whole"
        assert await sessions.append(session, whole, half, state={"l": 1}) is half
        assert [(event.seq, event.kind) for event in session.events] == [(1, "whole"), (2, "whole")]
        assert await sessions.events("s") == session.events
        assert dict((await sessions.require("s")).state) == {"m": 1, "k": 1, "l": 1}


@pytest.mark.behaviour(85)
@pytest.mark.parametrize("how", ["deleted", "unsaved"])
async def test_an_append_to_what_is_not_there_changes_nothing(opened: Opener, how: str) -> None:
    """`NotFound`, the handle is as it was, and nothing was created."""
    async with opened() as sessions:
        if how == "deleted":
            session = await sessions.create(id="s", state={"n": 1})
            await sessions.delete("s")
        else:
            session = sessions.new(id="s", state={"n": 1})
        session.state["m"] = [1]
        before = facts(session)
        for target in (session, "s"):
            with pytest.raises(NotFound):
                await sessions.append(target, Event(kind="x"), state={"n": 2, "temp:t": 1})
        assert facts(session) == before
        assert await sessions.get("s") is None


@pytest.mark.behaviour(77)
async def test_the_callers_event_is_not_changed(opened: Opener) -> None:
    """Not its delta, its `temp:` key is still there, not its body, id, time or number."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="u")
        body: dict[str, Any] = {"l": [1]}
        delta: dict[str, Any] = {"k": [1], "temp:t": 1, "user:u": 1, "gone": DELETE}
        given = {"z": [1]}
        event = Event(kind="x", body=body, delta=delta)
        stored = await sessions.append(session, event, state=given)
        assert event == Event(
            kind="x", body={"l": [1]}, delta={"k": [1], "temp:t": 1, "user:u": 1, "gone": DELETE}
        )
        assert event.body is body
        assert event.delta is delta
        assert given == {"z": [1]}
        assert stored is not event
        assert "temp:t" not in stored.delta


@pytest.mark.behaviour(87)
@pytest.mark.parametrize("event", [None, {}, {"kind": "x"}, "x", Event], ids=ascii)
async def test_what_is_no_event_is_refused(url: str, event: Any) -> None:
    """`InvalidQuery` says so, also among others, before the store is asked."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        store.forget_calls()
        for call in (
            sessions.append(session, event),
            sessions.append("s", Event(kind="x"), event),
            sessions.replace_suffix(session, expected=[1], events=[event]),
        ):
            with pytest.raises(InvalidQuery) as caught:
                await call
            assert caught.value.field == "event"
        assert store.calls == []


@pytest.mark.behaviour(87)
@pytest.mark.parametrize("session", [None, 7, {}, object()], ids=lambda s: type(s).__name__)
async def test_what_is_no_session_is_refused(url: str, session: Any) -> None:
    """Every verb that takes one says what it was given, before the store is asked."""
    async with watched(url) as (sessions, store):
        for call in (
            sessions.append(session, Event(kind="x")),
            sessions.save(session),
            sessions.truncate(session, after=0),
            sessions.replace_suffix(session, expected=[1], events=[]),
            sessions.bind(session, "u"),
            sessions.label(session, {"a": "b"}),
            sessions.refresh(session),
            sessions.touch(session),
        ):
            with pytest.raises((InvalidQuery, InvalidId), match=type(session).__name__):
                await call
        assert store.calls == []


@pytest.mark.behaviour(87)
async def test_an_id_is_no_session_to_verbs_that_need_a_copy(url: str) -> None:
    """They refuse it before anything is written, not after."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s", events=[Event(kind="x")])
        store.forget_calls()
        id: Any = "s"
        for call in (
            sessions.save(id),
            sessions.truncate(id, after=0),
            sessions.replace_suffix(id, expected=[1], events=[]),
            sessions.bind(id, "u"),
            sessions.label(id, {"a": "b"}),
            sessions.refresh(id),
            sessions.touch(id),
        ):
            with pytest.raises(InvalidQuery) as caught:
                await call
            assert caught.value.field == "session"
        assert store.calls == []


@pytest.mark.parametrize(
    ("event", "kind", "where"),
    [
        (Event(kind="x", body=b"x"), Unserializable, "body"),
        (Event(kind="x", body={"a": [(1,)]}), Unserializable, "body.a[0]"),
        (Event(kind="x", delta={"a": [{1}]}), Unserializable, "delta.a[0]"),
        (Event(kind="x", delta={"": 1}), InvalidId, "state key"),
        (Event(kind="x", delta={"user:": 1}), InvalidId, "state key"),
        (Event(kind=""), InvalidId, "event kind"),
        (Event(kind="x\x00"), InvalidId, "event kind"),
        (Event(kind="x", author=""), InvalidId, "event author"),
        (Event(kind="x", id=""), InvalidId, "event id"),
        (Event(kind="x", id="a\n"), InvalidId, "event id"),
        (Event(kind="x", at=datetime(2026, 1, 1)), Unserializable, "event.at"),  # noqa: DTZ001 - it is naive
        (
            Event(kind="x", at=datetime.min.replace(tzinfo=timezone(timedelta(hours=9)))),
            Unserializable,
            "event.at",
        ),
    ],
    ids=ascii,
)
async def test_an_event_that_cannot_be_stored_is_refused(
    url: str, event: Event, kind: type[Exception], where: str
) -> None:
    """The error names what it was; nothing of the append is stored, the handle is as it was."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        before = facts(session)
        store.forget_calls()
        with pytest.raises(kind) as caught:
            await sessions.append(session, Event(kind="fine"), event, state={"k": 1})
        assert getattr(caught.value, "path", getattr(caught.value, "what", None)) == where
        assert store.calls == []
        assert facts(session) == before


async def test_an_append_has_a_greatest_number_of_events(url: str) -> None:
    """One more than fits is `TooLarge`, before the store is asked."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        store.forget_calls()
        with pytest.raises(TooLarge):
            await sessions.append(session, *[Event(kind="x")] * (MAX_EVENTS_PER_COMMIT + 1))
        assert store.calls == []


@pytest.mark.behaviour(92)
async def test_all_fields_come_back(opened: Opener) -> None:
    """Kind, author, body, delta, id and time, each as given; what was left out is filled in."""
    clock = FakeClock(START)
    body: Any = {
        "text": "hi",
        "error": None,
        "tools": [{"id": "t1", "args": {"x": [1, 2.5]}}],
        "": {},
    }
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s")
        at = START - timedelta(days=400, microseconds=1)
        full = Event(kind="tool call", author="user/1", body=body, delta={"k": {}}, id="e 1", at=at)
        bare = Event(kind="x")
        for event in (full, bare):
            await sessions.append(session, event)
        one, two = await sessions.events("s")
        assert one == Event(
            kind="tool call", author="user/1", body=body, delta={"k": {}}, id="e 1", at=at, seq=1
        )
        assert (two.author, two.body, two.delta, two.at) == (None, None, {}, START)
        assert (two.partial, two.seq) == (False, 2)
        assert two.id


async def test_order_is_the_number_and_not_the_time(opened: Opener) -> None:
    """Ties, clocks that step back and times from elsewhere do not reorder a log."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s")
        for step in (0, 0, -100, 50):
            clock.advance(step)
            await sessions.append(session, Event(kind="x"))
        await sessions.append(session, Event(kind="x", at=START - timedelta(days=1)))
        await sessions.append(session, Event(kind="x", at=START + timedelta(days=1)))
        assert [event.seq for event in await sessions.events("s")] == [1, 2, 3, 4, 5, 6]


# --- the same event again ---------------------------------------------------------------------


async def test_the_same_event_again_is_harmless(opened: Opener) -> None:
    """Same id and equal content: not added again, its number comes back."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        event = Event(kind="x", id="e", author="me", body={"a": 1, "b": 2}, delta={"n": 1})
        first = await sessions.append(session, event)
        await sessions.append(session, Event(kind="y"))
        again = Event(kind="x", id="e", author="me", body={"b": 2, "a": 1}, delta={"n": 1})
        second = await sessions.append(session, again)
        assert second.seq == first.seq == 1
        assert [item.kind for item in await sessions.events("s")] == ["x", "y"]
        assert [item.seq for item in session.events] == [1, 2]


async def test_the_same_event_again_does_not_undo_what_came_since(opened: Opener) -> None:
    """Its delta was applied when it came first; later values stay, on the handle as well."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        event = Event(kind="x", id="e", delta={"n": 1, "app:n": 1})
        await sessions.append(session, event)
        await sessions.append(session, Event(kind="x"), state={"n": 2, "app:n": 2})
        for target in (session, "s"):
            await sessions.append(target, event)
            assert dict(session.state) == {"n": 2, "app:n": 2}
            assert dict((await sessions.require("s")).state) == {"n": 2, "app:n": 2}
        await sessions.append(session, event, Event(kind="new", delta={"m": 3}))
        assert dict((await sessions.require("s")).state) == {"n": 2, "app:n": 2, "m": 3}


async def test_the_same_event_twice_in_one_append_is_one(opened: Opener) -> None:
    """A repeat is a repeat, whether what it repeats was stored before or just now."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        event = Event(kind="x", id="e", body=1)
        last = await sessions.append(session, event, Event(kind="y"), event)
        assert last.seq == 1
        assert [item.kind for item in await sessions.events("s")] == ["x", "y"]
        assert [item.seq for item in session.events] == [1, 2]


@pytest.mark.parametrize(
    "other",
    [
        Event(kind="x", id="e", body=2),
        Event(kind="x", id="e", body=1.0),
        Event(kind="x", id="e", body=True),
        Event(kind="y", id="e", body=1),
        Event(kind="x", id="e", body=1, author="me"),
        Event(kind="x", id="e", body=1, delta={"n": 1}),
        Event(kind="x", id="e", body=1, delta={"n": DELETE}),
        Event(kind="x", id="e", body=1, at=START),
    ],
    ids=ascii,
)
async def test_two_different_events_that_share_an_id_are_both_kept(
    opened: Opener, other: Event
) -> None:
    """Whatever differs, neither replaces the other; each again is a repeat of its own."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        one = Event(kind="x", id="e", body=1)
        for event in (one, other, one, other):
            await sessions.append(session, event)
        seqs = [event.seq for event in await sessions.events("s")]
        assert seqs == [1, 2]


async def test_a_given_time_is_part_of_the_content(opened: Opener) -> None:
    """The same time again is a repeat, another is another event; no time is no part of it."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s")
        stamped = Event(kind="x", id="e", at=START)
        assert (await sessions.append(session, stamped)).seq == 1
        assert (await sessions.append(session, stamped)).seq == 1
        later = Event(kind="x", id="e", at=START + timedelta(seconds=1))
        assert (await sessions.append(session, later)).seq == 2
        clock.advance(5)
        assert (await sessions.append(session, Event(kind="x", id="e"))).seq == 1


async def test_a_repeat_leaves_the_log_as_it_is(opened: Opener) -> None:
    """Through any handle or the id, later too: the log keeps the first with its time."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s")
        event = Event(kind="x", id="e", body={"a": 1})
        first = await sessions.append(session, event)
        clock.advance(5)
        for target in (session, "s", await sessions.require("s")):
            again = await sessions.append(target, event)
            assert (again.id, again.seq, again.body) == (first.id, first.seq, first.body)
        assert session.events == [first]
        assert await sessions.events("s") == [first]


# --- several writers --------------------------------------------------------------------------


@pytest.mark.behaviour(97)
@pytest.mark.parametrize("handles", [1, 50], ids=["one handle", "fifty handles"])
async def test_fifty_appends_at_once_are_fifty_events(opened: Opener, handles: int) -> None:
    """None is lost, none is doubled, and the numbers have no gap; each shows its own."""
    async with opened() as sessions:
        await sessions.create(id="s")
        held = [await sessions.require("s") for _ in range(handles)]
        stored = await asyncio.gather(
            *(
                sessions.append(held[n % handles], Event(kind="x", body=n), state={f"k{n}": n})
                for n in range(50)
            )
        )
        back = await sessions.require("s", events=100)
        assert [event.seq for event in back.events] == list(range(1, 51))
        assert sorted(event.body for event in back.events) == list(range(50))
        assert {event.seq: event.body for event in stored} == {
            event.seq: event.body for event in back.events
        }
        assert dict(back.state) == {f"k{n}": n for n in range(50)}
        assert back.revision == 51
        if handles == 1:
            assert held[0].events == back.events
            assert held[0].revision == 51


@pytest.mark.behaviour(109)
async def test_sessions_do_not_wait_for_each_other(url: str) -> None:
    """While the commit of one hangs, another session's goes through."""
    async with watched(url) as (sessions, store):
        one, two = await sessions.create(id="one"), await sessions.create(id="two")
        gate = store.hold("commit", "before")
        slow = asyncio.create_task(sessions.append(one, Event(kind="slow")))
        await gate.arrived.wait()
        assert (await sessions.append(two, Event(kind="quick"))).seq == 1
        assert not slow.done()
        gate.go()
        assert (await slow).seq == 1


@pytest.mark.behaviour(106)
async def test_of_two_strict_appends_the_first_wins(opened: Opener) -> None:
    """The second is a `Conflict` with both revisions in its message, and changes nothing."""
    async with opened() as sessions:
        await sessions.create(id="s")
        one, two = await sessions.require("s"), await sessions.require("s")
        await sessions.append(one, Event(kind="x"), state={"n": 1}, conflict="fail")
        two.state["unsaved"] = 1
        before = facts(two)
        with pytest.raises(Conflict) as caught:
            await sessions.append(two, Event(kind="y"), state={"n": 2}, conflict="fail")
        epoch = one.epoch
        assert (caught.value.expected, caught.value.actual) == ((epoch, 1), (epoch, 2))
        assert f"({epoch!r}, 1)" in str(caught.value)
        assert f"({epoch!r}, 2)" in str(caught.value)
        assert facts(two) == before
        assert [event.kind for event in await sessions.events("s")] == ["x"]
        await sessions.refresh(two)
        await sessions.append(two, Event(kind="y"), state={"n": 2}, conflict="fail")
        assert dict((await sessions.require("s")).state) == {"n": 2}


async def test_by_default_appends_of_two_handles_merge(opened: Opener) -> None:
    """Both events are there in the order of their commits, keys merged; each handle has its own."""
    async with opened() as sessions:
        await sessions.create(id="s")
        one, two = await sessions.require("s"), await sessions.require("s")
        await sessions.append(one, Event(kind="x"), state={"a": 1, "both": 1})
        await sessions.append(two, Event(kind="y"), state={"b": 2, "both": 2})
        back = await sessions.require("s", events=5)
        assert [event.kind for event in back.events] == ["x", "y"]
        assert dict(back.state) == {"a": 1, "b": 2, "both": 2}
        assert [event.seq for event in two.events] == [2]


async def test_a_partial_window_never_loses_history(opened: Opener) -> None:
    """Through a copy that holds the last event only, all others stay; so do they over a save."""
    async with opened() as sessions:
        session = await sessions.create(id="s", events=[Event(kind="x")] * 5)
        part = await sessions.require("s", events=1)
        assert [event.seq for event in part.events] == [5]
        await sessions.append(part, Event(kind="x"))
        part.state["k"] = 1
        part.events.clear()
        await sessions.save(part)
        assert [event.seq for event in await sessions.events("s")] == [1, 2, 3, 4, 5, 6]
        await sessions.refresh(session)
        assert len(session.events) == 6


@pytest.mark.behaviour(105)
async def test_a_summary_hides_nothing(opened: Opener) -> None:
    """Compaction adds an event that says what it covers; what it covers can still be read."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        for n in range(5):
            await sessions.append(session, Event(kind="message", body=n))
        covered = {"text": "five messages", "covers": [1, 5]}
        await sessions.append(session, Event(kind="summary", body=covered))
        log = await sessions.events("s")
        assert [event.body for event in log] == [0, 1, 2, 3, 4, covered]
        (summary,) = await sessions.events("s", kind="summary", last=1)
        first, last = summary.body["covers"]
        raw = await sessions.events("s", after_seq=first - 1, before_seq=last + 1)
        assert [event.body for event in raw] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("conflict", ["", "error", None, True], ids=ascii)
async def test_an_unknown_policy_is_refused(url: str, conflict: Any) -> None:
    """`InvalidQuery` on every verb that takes one, before the store is asked."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        session.state["k"] = 1
        store.forget_calls()
        for call in (
            sessions.append(session, Event(kind="x"), conflict=conflict),
            sessions.save(session, conflict=conflict),
            sessions.truncate(session, after=0, conflict=conflict),
            sessions.replace_suffix(session, expected=[1], events=[], conflict=conflict),
            sessions.label(session, {"a": "b"}, conflict=conflict),
        ):
            with pytest.raises(InvalidQuery) as caught:
                await call
            assert caught.value.field == "conflict"
        assert store.calls == []

"""Saving when somebody else saved, when it fails, and when the saver is cancelled in the middle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import (
    Conflict,
    Ended,
    Event,
    Expiry,
    LeaseLost,
    NotFound,
    SessionManager,
    Trigger,
    Unavailable,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.manager.watched_store import WatchedStore

    from sojourn import Session

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]
    Write = Callable[[SessionManager, Session], Awaitable[object]]


def facts(session: Session) -> tuple[Any, ...]:
    """Return all that a handle shows."""
    return (
        session.revision,
        session.epoch,
        dict(session.state),
        list(session.events),
        dict(session.labels),
        session.user,
        session.phase,
        session.stored,
        session.modified,
        session.active_at,
        session.expires_at,
    )


async def stored_state(sessions: SessionManager, id: str = "s") -> dict[str, Any]:
    """Return the state that a fresh load shows."""
    return dict((await sessions.require(id)).state)


# --- merging and conflicts --------------------------------------------------------------------


async def test_merging_keeps_both_writers_keys(opened: Opener) -> None:
    """Per key: set and deleted ones of both survive; of one key the last writer's counts."""
    async with opened() as sessions:
        await sessions.create(id="s", user="u", state={"a": 1, "b": 1, "both": 1, "app:a": 1})
        one, two = await sessions.require("s"), await sessions.require("s")
        one.state.update({"one": 1, "both": "one", "user:one": 1, "app:both": "one"})
        del one.state["a"]
        two.state.update({"two": 2, "both": "two", "user:two": 2, "app:both": "two"})
        del two.state["b"]
        await sessions.save(one)
        await sessions.save(two)
        assert await stored_state(sessions) == {
            "one": 1,
            "two": 2,
            "both": "two",
            "user:one": 1,
            "user:two": 2,
            "app:a": 1,
            "app:both": "two",
        }


async def test_many_writers_lose_nothing(opened: Opener) -> None:
    """Thirty handles at once, each with a key of its own: thirty keys, thirty revisions."""
    async with opened() as sessions:
        await sessions.create(id="s")
        handles = [await sessions.require("s") for _ in range(30)]
        for n, handle in enumerate(handles):
            handle.state[f"k{n}"] = n
        await asyncio.gather(*(sessions.save(handle) for handle in handles))
        back = await sessions.require("s")
        assert dict(back.state) == {f"k{n}": n for n in range(30)}
        assert back.revision == 31


async def test_of_many_strict_writers_one_wins(opened: Opener) -> None:
    """All from the same revision: one is saved, every other one is a `Conflict`."""
    async with opened() as sessions:
        await sessions.create(id="s")
        handles = [await sessions.require("s") for _ in range(10)]
        for n, handle in enumerate(handles):
            handle.state["winner"] = n
        outcomes = await asyncio.gather(
            *(sessions.save(handle, conflict="fail") for handle in handles),
            return_exceptions=True,
        )
        lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        (won,) = [handle for handle in outcomes if handle in handles]
        assert len(lost) == 9
        assert (await stored_state(sessions))["winner"] == handles.index(won)


@pytest.mark.behaviour(45)
async def test_a_strict_save_conflicts_when_the_session_moved_on(opened: Opener) -> None:
    """`Conflict` carries both sides; nothing is written, the handle is as it was; then refresh."""
    async with opened() as sessions:
        await sessions.create(id="s", user="u")
        one, two = await sessions.require("s"), await sessions.require("s")
        one.state["one"] = 1
        await sessions.save(one, conflict="fail")
        two.state.update({"two": 2, "app:two": 2, "user:two": 2})
        before = facts(two)
        with pytest.raises(Conflict) as caught:
            await sessions.save(two, conflict="fail")
        error = caught.value
        assert (error.id, error.expected, error.actual) == ("s", (two.epoch, 1), (one.epoch, 2))
        assert facts(two) == before
        assert await stored_state(sessions) == {"one": 1}
        await sessions.refresh(two)
        two.state["two"] = 2
        await sessions.save(two, conflict="fail")
        assert await stored_state(sessions) == {"one": 1, "two": 2}


async def label(sessions: SessionManager, session: Session) -> object:
    """Commit a label."""
    return await sessions.label(session, {"l": "x"})


async def bind(sessions: SessionManager, session: Session) -> object:
    """Bind to a user."""
    return await sessions.bind(session, "u")


async def append(sessions: SessionManager, session: Session) -> object:
    """Append an event."""
    return await sessions.append(session, Event(kind="x"))


async def truncate(sessions: SessionManager, session: Session) -> object:
    """Truncate the log."""
    return await sessions.truncate(session, after=0)


async def save(sessions: SessionManager, session: Session) -> object:
    """Save a key."""
    session.state["k"] = object.__hash__(session)
    return await sessions.save(session)


async def put_document(sessions: SessionManager, session: Session) -> object:
    """Put a document."""
    await sessions.documents(session.id).put("c", "k", b"x")
    return session


every_commit = pytest.mark.parametrize(
    "write",
    [save, append, label, bind, truncate, put_document],
    ids=lambda write: write.__name__,
)
every_copy_commit = pytest.mark.parametrize(
    "write", [save, append, label, bind, truncate], ids=lambda write: write.__name__
)


@every_commit
async def test_every_commit_raises_the_revision_by_one(opened: Opener, write: Write) -> None:
    """So that a strict save of whoever has not seen it conflicts."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        stale = await sessions.require("s")
        await write(sessions, session)
        assert (await sessions.require("s")).revision == 2
        stale.state["stale"] = 1
        with pytest.raises(Conflict):
            await sessions.save(stale, conflict="fail")


@pytest.mark.behaviour(52)
async def test_touches_are_no_commits(opened: Opener) -> None:
    """Neither touch nor heartbeat makes a strict save conflict."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s", expiry=Expiry(idle=100))
        clock.advance(50)
        await sessions.heartbeat("s")
        await sessions.require("s", touch=True)
        session.state["k"] = 1
        await sessions.save(session, conflict="fail")
        assert session.revision == 2


@every_copy_commit
async def test_a_copy_that_saw_everything_stays_strict(opened: Opener, write: Write) -> None:
    """Its own commits move the revision it has seen, so the next strict save goes through."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        await write(sessions, session)
        assert session.revision == 2
        session.state["next"] = 1
        await sessions.save(session, conflict="fail")
        assert session.revision == 3


@every_copy_commit
async def test_merging_over_unseen_commits_keeps_the_revision_seen(
    opened: Opener, write: Write
) -> None:
    """A later strict save still conflicts, until the copy is refreshed."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        other = await sessions.require("s")
        other.state["other"] = 1
        await sessions.save(other)
        await write(sessions, session)
        assert session.revision == 1
        await write(sessions, session)
        assert session.revision == 1
        session.state["next"] = 1
        with pytest.raises(Conflict) as caught:
            await sessions.save(session, conflict="fail")
        assert caught.value.expected == (session.epoch, 1)
        await sessions.refresh(session)
        session.state["next"] = 1
        await sessions.save(session, conflict="fail")
        assert (await stored_state(sessions))["next"] == 1


async def test_a_strict_save_of_nothing_is_nothing(opened: Opener) -> None:
    """A clean copy does not ask whether it is stale."""
    async with opened() as sessions:
        await sessions.create(id="s")
        one, two = await sessions.require("s"), await sessions.require("s")
        one.state["k"] = 1
        await sessions.save(one)
        await sessions.save(two, conflict="fail")
        assert two.revision == 1


# --- clearing is a write like any other -------------------------------------------------------


async def test_a_strict_clear_conflicts(opened: Opener) -> None:
    """The session that moved on is not deleted; merging, it is."""
    async with opened() as sessions:
        await sessions.create(id="s")
        one, two = await sessions.require("s"), await sessions.require("s")
        one.state["k"] = 1
        await sessions.save(one)
        two.state.clear()
        with pytest.raises(Conflict):
            await sessions.save(two, conflict="fail")
        assert await stored_state(sessions) == {"k": 1}
        assert two.modified
        await sessions.save(two)
        assert await sessions.get("s") is None


async def test_a_strict_clear_of_what_did_not_move_deletes(opened: Opener) -> None:
    """With shared keys written in the same save as well."""
    async with opened() as sessions:
        for state in ({}, {"app:k": 1}):
            session = await sessions.create(id="s")
            session.state.update(state)
            session.state.clear()
            await sessions.save(session, conflict="fail")
            assert await sessions.get("s") is None
        assert await sessions.app_state() == {"k": 1}


async def test_a_clear_does_not_delete_what_is_ending(opened: Opener) -> None:
    """`Ended`: its hooks are still to run, and a save is no way around them."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        await sessions.apply("s", Trigger.END, reason="logout")
        session.state.clear()
        with pytest.raises(Ended):
            await sessions.save(session)
        assert (await sessions.require("s")).reason == "logout"


async def test_a_clear_does_not_delete_what_expired(opened: Opener) -> None:
    """`Ended`: the end path is the reaper's."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s", expiry=Expiry(idle=10))
        clock.advance(10)
        session.state.clear()
        with pytest.raises(Ended):
            await sessions.save(session)
        assert await sessions.get("s", expired=True) is not None


async def test_a_clear_through_an_old_handle_does_not_delete_the_new_session(
    opened: Opener,
) -> None:
    """The id exists again, and it is not the session that was cleared."""
    async with opened() as sessions:
        old = await sessions.create(id="s", state={"n": 1})
        await sessions.delete("s")
        await sessions.create(id="s", state={"n": 2})
        old.state.clear()
        with pytest.raises(NotFound):
            await sessions.save(old)
        with pytest.raises((NotFound, Conflict)):
            await sessions.save(old, conflict="fail")
        assert await stored_state(sessions) == {"n": 2}


async def test_a_clear_of_what_is_gone_is_fine(opened: Opener) -> None:
    """Deleted by somebody else already: that is what was wanted."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        await sessions.delete("s")
        session.state.clear()
        await sessions.save(session)
        assert not session.modified


# --- leases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("clear", [False, True], ids=["save", "clear"])
async def test_a_save_with_a_lost_lease_is_refused(opened: Opener, clear: bool) -> None:
    """Once another worker holds it: `LeaseLost`; nothing is written or deleted."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"n": 1})
        async with sessions.lease("s", renew=False) as first:
            session.state["n"] = 2
            await sessions.save(session, lease=first)
        async with sessions.lease("s", renew=False) as second:
            session.state["n"] = 3
            if clear:
                session.state.clear()
            before = facts(session)
            with pytest.raises(LeaseLost):
                await sessions.save(session, lease=first)
            with pytest.raises(LeaseLost):
                await sessions.append(session, Event(kind="x"), lease=first)
            assert facts(session) == before
            assert await stored_state(sessions) == {"n": 2}
            await sessions.save(session, lease=second)
        assert (await sessions.get("s") is None) is clear


# --- one handle, several tasks ----------------------------------------------------------------


async def test_two_saves_of_one_handle_at_once(url: str) -> None:
    """Both go through, the state is stored, and the handle is clean and strict afterwards."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        session.state["a"] = 1
        gate = store.hold("commit", "before")
        first = asyncio.create_task(sessions.save(session))
        await gate.arrived.wait()
        session.state["b"] = 2
        await sessions.save(session)
        gate.go()
        await first
        assert await stored_state(sessions) == {"a": 1, "b": 2}
        assert not session.modified
        assert dict(session.state) == {"a": 1, "b": 2}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_two_first_saves_of_one_handle_at_once(url: str, when: Any) -> None:
    """The session is stored once, with what both had; neither is told that it exists already."""
    async with watched(url) as (sessions, store):
        session = sessions.new(id="s", state={"a": 1})
        gate = store.hold("create", when)
        first = asyncio.create_task(sessions.save(session))
        await gate.arrived.wait()
        session.state["b"] = 2
        second = asyncio.create_task(sessions.save(session))
        if when == "before":
            await second
        gate.go()
        if when == "after":
            await first
            await second
        else:
            await first
        assert await stored_state(sessions) == {"a": 1, "b": 2}
        assert dict(session.state) == {"a": 1, "b": 2}
        assert not session.modified


async def test_many_appends_and_saves_of_one_handle_at_once(opened: Opener) -> None:
    """The handle ends up as the store is: keys, events, revision."""
    async with opened() as sessions:
        session = await sessions.create(id="s")

        async def work(n: int) -> None:
            session.state[f"saved {n}"] = n
            await sessions.save(session)
            await sessions.append(session, Event(kind="x", body=n), state={f"sent {n}": n})

        await asyncio.gather(*(work(n) for n in range(20)))
        back = await sessions.require("s", events=100)
        assert dict(session.state) == dict(back.state)
        assert len(back.state) == 40
        assert session.events == back.events
        assert session.revision == back.revision
        session.state["strict"] = 1
        await sessions.save(session, conflict="fail")


SAVED = {"kept": 1, "gone": 1, "list": [1]}
MEANWHILE: list[tuple[str, Callable[[Any], object], dict[str, Any]]] = [
    ("nothing", lambda _state: None, {**SAVED, "new": 1}),
    ("set another", lambda state: state.update(late=2), {**SAVED, "new": 1, "late": 2}),
    ("set the same", lambda state: state.update(new=2), {**SAVED, "new": 2}),
    ("change inside", lambda state: state["list"].append(2), {**SAVED, "new": 1, "list": [1, 2]}),
    ("delete the new", lambda state: state.pop("new"), SAVED),
    ("delete a stored", lambda state: state.pop("gone"), {"kept": 1, "list": [1], "new": 1}),
    ("set back", lambda state: (state.pop("new"), state.update(new=3)), {**SAVED, "new": 3}),
    ("clear and set", lambda state: (state.clear(), state.update(only=1)), {"only": 1}),
]


@pytest.mark.parametrize(
    ("change", "expected"), [each[1:] for each in MEANWHILE], ids=[each[0] for each in MEANWHILE]
)
@pytest.mark.parametrize("first", [False, True], ids=["stored", "new"])
async def test_what_is_done_while_a_save_is_under_way_is_for_the_next(
    url: str, change: Callable[[Any], object], expected: dict[str, Any], first: bool
) -> None:
    """Set, changed, deleted or cleared meanwhile: the handle shows it, the next save sends it."""
    async with watched(url) as (sessions, store):
        if first:
            session = sessions.new(id="s", state={**SAVED, "list": [1]})
        else:
            await sessions.create(id="s", state=SAVED)
            session = await sessions.require("s")
        session.state["new"] = 1
        gate = store.hold("create" if first else "commit", "after")
        saving = asyncio.create_task(sessions.save(session))
        await gate.arrived.wait()
        change(session.state)
        gate.go()
        await saving
        assert await stored_state(sessions) == {**SAVED, "new": 1}
        assert dict(session.state) == expected
        await sessions.save(session)
        assert dict(session.state) == expected
        assert await stored_state(sessions) == expected
        assert not session.modified


async def test_what_is_set_while_a_cleared_save_is_under_way_keeps_what_was_saved(
    url: str,
) -> None:
    """The clear happened once: the next save does not empty the session again."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", state={"old": 1})
        session.state.clear()
        session.state["a"] = 1
        gate = store.hold("commit", "after")
        saving = asyncio.create_task(sessions.save(session))
        await gate.arrived.wait()
        session.state["b"] = 2
        gate.go()
        await saving
        await sessions.save(session)
        assert dict(session.state) == {"a": 1, "b": 2}
        assert await stored_state(sessions) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.update(k="mine"), {"k": "mine", "gone": 1}),
        (lambda state: state.pop("gone"), {"k": "sent"}),
        (lambda state: state.update(other=1), {"k": "sent", "gone": 1, "other": 1}),
        (lambda state: (state.update(k=1), state.pop("k")), {"gone": 1}),
    ],
    ids=["set", "delete", "other", "set and delete"],
)
async def test_what_is_done_while_an_append_is_under_way_is_for_the_next_save(
    url: str, change: Callable[[Any], object], expected: dict[str, Any]
) -> None:
    """The event's delta does not undo what the caller did after it was sent."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", state={"gone": 1})
        gate = store.hold("commit", "after")
        sending = asyncio.create_task(
            sessions.append(session, Event(kind="x"), state={"k": "sent", "gone": 1})
        )
        await gate.arrived.wait()
        change(session.state)
        gate.go()
        await sending
        assert dict(session.state) == expected
        await sessions.save(session)
        assert await stored_state(sessions) == expected
        assert not session.modified


# --- cancelled --------------------------------------------------------------------------------


async def start(store: WatchedStore, verb: str, when: Any, write: Awaitable[object]) -> None:
    """Start a write, let it come to the store, cancel it there, and wait for its end."""
    gate = store.hold(verb, when)

    async def run() -> None:
        await write

    task = asyncio.create_task(run())
    await gate.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@every_copy_commit
async def test_cancelled_before_the_store_had_it_nothing_happened(url: str, write: Write) -> None:
    """Handle and store are as before, and the same write works afterwards."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", events=[Event(kind="x")], labels={"a": "b"})
        session.state["k"] = 1
        before = facts(session)
        await start(store, "commit", "before", write_once(write, sessions, session))
        there = await sessions.require("s", events=5)
        assert (there.revision, len(there.events), there.user) == (1, 1, None)
        assert (dict(there.state), dict(there.labels)) == ({}, {"a": "b"})
        assert facts(session) == before
        await write_once(write, sessions, session)
        assert session.revision == 2
        await agree(sessions, session)


async def write_once(write: Write, sessions: SessionManager, session: Session) -> object:
    """Write, but for a save leave the state as it is."""
    return await (sessions.save(session) if write is save else write(sessions, session))


async def agree(sessions: SessionManager, session: Session) -> None:
    """Check that a handle shows what is stored, and that it is strict."""
    there = await sessions.require("s", events=100)
    assert session.revision == there.revision
    assert dict(session.labels) == dict(there.labels)
    assert (session.user, session.epoch) == (there.user, there.epoch)
    if session.modified:
        await sessions.save(session, conflict="fail")
        there = await sessions.require("s", events=100)
    assert dict(session.state) == dict(there.state)
    session.state["strict"] = 1
    await sessions.save(session, conflict="fail")


@every_copy_commit
async def test_cancelled_after_the_store_had_it_everything_happened(url: str, write: Write) -> None:
    """The commit is finished, and the handle took it over before the cancellation went on."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", events=[Event(kind="x")])
        session.state["k"] = 1
        await start(store, "commit", "after", write_once(write, sessions, session))
        assert session.revision == 2
        assert (await sessions.require("s")).revision == 2
        assert session.modified is (write is not save)
        await agree(sessions, session)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cancelled_append_shows_its_event_or_does_not(url: str, when: Any) -> None:
    """Event, delta and temporary keys are on the handle exactly if they are in the store."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        event = Event(kind="x", delta={"k": 1, "temp:t": 1})
        await start(store, "commit", when, sessions.append(session, event))
        there = await sessions.events("s")
        assert session.events == there
        if when == "before":
            assert (there, dict(session.state)) == ([], {})
        else:
            assert (len(there), dict(session.state)) == (1, {"k": 1, "temp:t": 1})
        assert (await sessions.append(session, event)).seq == len(there) + 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cancelled_first_save_is_stored_or_is_not(url: str, when: Any) -> None:
    """The handle knows which, and saving it again is right in either case."""
    async with watched(url) as (sessions, store):
        session = sessions.new(id="s", state={"k": 1})
        await start(store, "create", when, sessions.save(session))
        happened = when == "after"
        assert (await sessions.get("s") is not None) is happened
        assert session.stored is happened
        assert session.modified is not happened
        assert session.revision == int(happened)
        await sessions.save(session)
        session.state["k"] = 2
        await sessions.save(session, conflict="fail")
        assert await stored_state(sessions) == {"k": 2}


async def test_a_cancelled_save_that_was_merged_keeps_the_revision_seen(url: str) -> None:
    """The rule of merging holds for what was taken over on the way out, too."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        other = await sessions.require("s")
        other.state["other"] = 1
        await sessions.save(other)
        session.state["k"] = 1
        await start(store, "commit", "after", sessions.save(session))
        assert (session.revision, session.modified) == (1, False)
        assert await stored_state(sessions) == {"other": 1, "k": 1}


async def test_a_cancelled_commit_with_a_later_one_behind_it(url: str) -> None:
    """Others may have committed before it is known: its own part is taken over, no more."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        session.state["k"] = 1
        gate = store.hold("commit", "after")
        task = asyncio.create_task(sessions.save(session))
        await gate.arrived.wait()
        other = await sessions.require("s")
        other.state["other"] = 1
        await sessions.save(other)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (session.revision, session.modified) == (2, False)
        session.state["k"] = 2
        with pytest.raises(Conflict):
            await sessions.save(session, conflict="fail")


async def test_a_save_cancelled_for_real_is_final(opened: Opener) -> None:
    """Cancelled at every point that a real store yields at: handle and store always agree."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"n": 0})
        for turns in range(12):
            session.state["n"] = turns + 1
            task = asyncio.create_task(sessions.save(session))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            there = await sessions.require("s")
            assert session.revision == there.revision
            assert session.modified is (there.state["n"] != turns + 1)
            await sessions.save(session, conflict="fail")
            assert await stored_state(sessions) == {"n": turns + 1}


# --- failed -----------------------------------------------------------------------------------


@every_copy_commit
async def test_a_failed_commit_leaves_the_handle_as_it_was(url: str, write: Write) -> None:
    """`Unavailable` is raised, the store is as before, and trying again works."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", events=[Event(kind="x")])
        session.state["k"] = 1
        before = facts(session)
        store.fail("commit", Unavailable("store", "down"))
        with pytest.raises(Unavailable):
            await write_once(write, sessions, session)
        assert facts(session) == before
        assert (await sessions.require("s")).revision == 1
        await write_once(write, sessions, session)
        assert session.revision == 2
        await agree(sessions, session)


@every_copy_commit
async def test_a_lost_reply_is_no_error(url: str, write: Write) -> None:
    """The commit was applied and the answer was lost: applied once, and the handle knows."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", events=[Event(kind="x")])
        session.state["k"] = 1
        store.fail("commit", Unavailable("store", "lost"), "after")
        await write_once(write, sessions, session)
        assert session.revision == 2
        assert (await sessions.require("s")).revision == 2
        await agree(sessions, session)


async def test_when_it_cannot_be_known_the_trouble_is_raised(url: str) -> None:
    """The answer was lost and so is the question: `Unavailable`; a merge later is right anyway."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        session.state["k"] = 1
        store.fail("commit", Unavailable("store", "lost"), "after")
        store.fail("get", Unavailable("store", "down"))
        with pytest.raises(Unavailable, match="lost"):
            await sessions.save(session)
        assert session.modified
        await sessions.save(session)
        assert await stored_state(sessions) == {"k": 1}


@pytest.mark.behaviour(21)
async def test_gone_while_a_save_is_under_way(url: str) -> None:
    """Deleted before the commit came to the store: `NotFound`, nothing comes back to life."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        session.state["k"] = 1
        gate = store.hold("commit", "before")
        task = asyncio.create_task(sessions.save(session))
        await gate.arrived.wait()
        await sessions.delete("s")
        gate.go()
        with pytest.raises(NotFound):
            await task
        assert await sessions.get("s") is None
        assert session.modified

"""Replies that are lost once a commit is applied, by the thousand: none doubled, no conflict."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.soak import Progress, count, scaled

from sojourn import Event, SessionManager, Unavailable
from sojourn.limits import OPERATIONS_REMEMBERED
from sojourn.stores import open_store
from sojourn.testing import FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sojourn.testing import Call

LOST = 10_000


def total(url: str) -> int:
    """Return how many replies this run loses."""
    return count(1_000 if url.startswith("memory") else 300, LOST)


@asynccontextmanager
async def faulty(url: str) -> AsyncIterator[tuple[FaultyStore, SessionManager]]:
    """Yield a faulty store around the one at `url`, and a manager on it."""
    store = FaultyStore(open_store(url))
    await store.open()
    try:
        yield store, SessionManager(store, durability="relaxed")
    finally:
        store.heal()
        await store.close()


def first_time() -> Callable[[Call], bool]:
    """Return a predicate for the calls whose operation was not sent before."""
    sent: set[bytes] = set()

    def is_new(call: Call) -> bool:
        asked: Any = call.asked
        known = asked.op in sent
        sent.add(asked.op)
        return not known

    return is_new


@scaled
@pytest.mark.behaviour(106)
async def test_lost_replies_double_nothing_and_conflict_with_nobody(url: str) -> None:
    """Strict saves, appends and creates, each of which loses its first reply."""
    replies = total(url)
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"count": 0})
        lost = store.lose("commit", "create", times=None, when=first_time())
        progress = Progress(f"lost replies, {url.partition(':')[0]}", replies)
        appended = counted = created = 0
        while lost.hits < replies:
            session.state["count"] += 1
            await sessions.save(session, conflict="fail")
            stored = await sessions.append(session, Event(kind="a"), state={"turn": counted})
            counted, appended = counted + 1, appended + 1
            assert (stored.seq, session.revision) == (appended, 1 + counted + appended)
            if counted % 50 == 0:
                await sessions.create(id=f"new-{counted}")
                created += 1
                progress.at(lost.hits)
        found = await sessions.require("s1")
        assert (found.state["count"], found.revision) == (counted, 1 + counted + appended)
        seqs = [event.seq for event in await sessions.events("s1")]
        assert seqs == list(range(1, appended + 1))
        assert await sessions.count() == 1 + created
        progress.figure(f"lost replies {url.partition(':')[0]}", lost=lost.hits, doubled=0)


@scaled
async def test_what_is_sent_again_is_applied_once(url: str) -> None:
    """A driver that sends the very same commit until a reply arrives, others in between."""
    replies = total(url)
    async with faulty(url) as (store, sessions):
        await sessions.create(id="s1")
        sent: list[Any] = []

        def note(call: Call) -> bool:
            sent.append(call.asked)
            return False

        store.fail("commit", times=None, when=note)
        others = 0
        for number in range(replies // 2):
            await sessions.append("s1", Event(kind="a"), state={"n": number})
            change = sent[-1]
            for _ in range(number % 3):
                await sessions.append("s1", Event(kind="other"))
                others += 1
            again = await store.wrapped.commit(change)
            assert again.repeated
            assert again.seqs == (1 + number + others - number % 3,)
        assert len(await sessions.events("s1", kind="a")) == replies // 2
        assert len(await sessions.events("s1")) == replies // 2 + others


@scaled
async def test_a_caller_who_appends_again_appends_once(url: str) -> None:
    """Even the look whether it was applied fails; the caller tries again with the event's id."""
    replies = total(url)
    async with faulty(url) as (store, sessions):
        await sessions.create(id="s1")
        store.lose("commit", "get", times=None, when=lambda call: call.number % 2 == 1)
        failed = 0
        for number in range(1, replies // 2 + 1):
            event = Event(kind="a", id=f"e{number}", delta={"turn": number})
            seq, tries = await append_until_told(sessions, event)
            assert seq == number
            failed += tries
        assert failed >= replies // 8
        store.heal()
        assert len(await sessions.events("s1")) == replies // 2
        assert (await sessions.require("s1")).state["turn"] == replies // 2


async def append_until_told(sessions: SessionManager, event: Event) -> tuple[int | None, int]:
    """Append an event until the store answers; return its number and how often it did not."""
    failed = 0
    while True:
        try:
            return (await sessions.append("s1", event)).seq, failed
        except Unavailable:
            failed += 1


async def test_what_is_sent_again_never_reaches_a_later_session_with_the_id(url: str) -> None:
    """Between the look and the second sending the id was deleted and made anew."""
    async with faulty(url) as (store, sessions):
        other = SessionManager(store.wrapped)
        await other.create(id="s1")

        async def meanwhile() -> None:
            await other.delete("s1")
            await other.create(id="s1")

        store.lose("commit")
        store.delay("commit", nth=2, until=meanwhile)
        with pytest.raises(Unavailable):
            await sessions.append("s1", Event(kind="mine"))
        assert await other.events("s1") == []


async def test_what_is_sent_again_is_not_doubled_once_it_is_forgotten(url: str) -> None:
    """So many others commit before the second sending that the operation is not remembered."""
    async with faulty(url) as (store, sessions):
        other = SessionManager(store.wrapped)
        await other.create(id="s1")

        async def meanwhile() -> None:
            for _ in range(OPERATIONS_REMEMBERED + 1):
                await other.append("s1", Event(kind="theirs"))

        store.lose("commit")
        store.delay("commit", nth=2, until=meanwhile)
        with pytest.raises(Unavailable):
            await sessions.append("s1", Event(kind="mine"))
        assert [event.seq for event in await other.events("s1", kind="mine")] == [1]


async def test_a_strict_save_whose_outcome_nobody_knew_is_settled_by_the_next(url: str) -> None:
    """The reply is lost and the look after it too: the retry finds its own write, no conflict."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"n": 0})
        for count_ in range(1, 4):
            session.state["n"] = count_
            store.lose("commit")
            store.fail("get")
            with pytest.raises(Unavailable):
                await sessions.save(session, conflict="fail")
            store.heal()
            assert session.state.modified  # as far as anybody knew
            session.state["later"] = count_
            await sessions.save(session, conflict="fail")
            assert not session.modified
            assert session.revision == 1 + 2 * count_
        found = await sessions.require("s1")
        assert dict(found.state) == {"n": 3, "later": 3}
        assert found.revision == 7


async def test_a_store_that_hangs_when_it_is_asked_what_came_of_a_commit_is_left(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sojourn.context.HANG_SECONDS", 0.0)  # so that this commit took long
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1")
        session.state["n"] = 1
        store.lose("commit")
        store.delay("get", until=asyncio.Event().wait)
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable):
                await sessions.save(session)
        await sessions.save(session)  # the outcome is found out now
        assert session.revision == 2
        assert dict((await sessions.require("s1")).state) == {"n": 1}


async def test_a_save_whose_outcome_stays_unknown_is_refused_and_not_sent_again(url: str) -> None:
    """As long as the store can not be asked; `refresh` settles it as well."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"n": 0})
        session.state["n"] = 1
        store.lose("commit")
        store.fail("get", times=2)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await sessions.save(session, conflict="fail")
        await sessions.refresh(session)
        assert (session.revision, session.state["n"], session.modified) == (2, 1, False)
        session.state["n"] = 2
        await sessions.save(session, conflict="fail")
        assert session.revision == 3


async def test_events_whose_fate_was_unknown_are_on_the_copy_before_the_next(url: str) -> None:
    """Each is there once, in the log and on the copy."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1")
        store.lose("commit")
        store.fail("get")
        with pytest.raises(Unavailable):
            await sessions.append(session, Event(kind="first"), state={"a": 1})
        assert session.events == []
        await sessions.append(session, Event(kind="second"), conflict="fail")
        kinds = [event.kind for event in session.events]
        assert kinds == [event.kind for event in await sessions.events("s1")] == ["first", "second"]
        assert session.state["a"] == 1


async def test_a_clear_after_an_append_that_nobody_knew_of_clears_what_it_brought(
    url: str,
) -> None:
    """The append was found to be there only by the save that is to remove the session."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"old": 1})
        store.lose("commit", "get", times=None)
        with pytest.raises(Unavailable):
            await sessions.append(session, Event(kind="a"), state={"new": 2})
        store.heal()
        session.state.clear()
        await sessions.save(session)
        assert await sessions.get("s1") is None


async def test_an_append_that_nobody_knew_of_stays_after_a_clear_before_it(url: str) -> None:
    """What is set after a clear keeps the session, with only that."""
    async with faulty(url) as (store, sessions):
        session = await sessions.create(id="s1", state={"old": 1})
        session.state.clear()
        store.lose("commit", "get", times=None)
        with pytest.raises(Unavailable):
            await sessions.append(session, Event(kind="a"), state={"new": 2})
        store.heal()
        await sessions.save(session)
        assert dict((await sessions.require("s1")).state) == {"new": 2}

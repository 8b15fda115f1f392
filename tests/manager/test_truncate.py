"""Cutting a log: truncate and replace_suffix, whose numbers are never used again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    DELETE,
    Conflict,
    Event,
    InvalidQuery,
    NotFound,
    Session,
    SessionManager,
    TailMismatch,
    Unserializable,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def note(body: Any, **fields: Any) -> Event:
    return Event(kind="note", body=body, **fields)


async def a_log(sessions: SessionManager, count: int = 5) -> Session:
    """Create `s1` with so many events, and return a copy with all of them loaded."""
    await sessions.create(id="s1", state={"k": 1}, events=[note(n) for n in range(1, count + 1)])
    return await sessions.require("s1", events=100)


async def stored(sessions: SessionManager) -> list[int | None]:
    return [event.seq for event in await sessions.events("s1")]


def held(session: Session) -> list[int | None]:
    return [event.seq for event in session.events]


# ----------------------------------------------------------------------------------------- truncate


@pytest.mark.parametrize("after", [0, 1, 4, 5, 9])
async def test_truncate_removes_what_is_behind(opened: Opener, after: int) -> None:
    """Events behind `after` go, from the log and from the copy; the state stays."""
    async with opened() as sessions:
        session = await a_log(sessions)
        assert await sessions.truncate(session, after=after) is session
        left = list(range(1, min(after, 5) + 1))
        assert await stored(sessions) == held(session) == left
        assert dict((await sessions.require("s1")).state) == {"k": 1}


async def test_numbers_are_never_used_again(opened: Opener) -> None:
    """After any cut the next event gets a number above all that were ever given out."""
    async with opened() as sessions:
        session = await a_log(sessions)
        await sessions.truncate(session, after=0)
        assert (await sessions.append(session, note("a"))).seq == 6
        await sessions.truncate(session, after=5)
        assert (await sessions.append(session, note("b"))).seq == 7
        (replaced,) = await sessions.replace_suffix(session, expected=[7], events=[note("c")])
        assert replaced.seq == 8
        assert await stored(sessions) == held(session) == [8]


async def test_windows_of_a_cut_log(opened: Opener) -> None:
    """Last, bounds, kinds and times speak of what is left and what came after the cut."""
    async with opened() as sessions:
        times = [NOON + timedelta(hours=hours) for hours in (0, 9, 1, 2)]
        session = await sessions.create(
            id="s1", events=[note(n, at=t) for n, t in enumerate(times)]
        )
        await sessions.truncate(session, after=1)
        await sessions.append(session, note("new", at=NOON + timedelta(hours=1)), Event(kind="b"))

        async def seqs(**window: Any) -> list[int | None]:
            return [event.seq for event in await sessions.events("s1", **window)]

        assert await seqs() == [1, 5, 6]
        assert await seqs(last=2) == [5, 6]
        assert await seqs(after_seq=1) == [5, 6]
        assert await seqs(before_seq=6) == [1, 5]
        assert await seqs(kind="note") == [1, 5]
        assert await seqs(since=NOON + timedelta(minutes=30), before_seq=6) == [5]


@pytest.mark.parametrize("after", [2**28 - 1, 2**28, 2**40, 2**63, 2**70])
async def test_truncating_behind_any_number_removes_nothing(opened: Opener, after: int) -> None:
    """However large the number: this log and its neighbours stay, and so do windows by time."""
    async with opened() as sessions:
        session = await sessions.create(id="s1", events=[note(1, at=NOON)])
        await sessions.create(id="s2", events=[note(1, at=NOON - timedelta(days=9))])
        await sessions.truncate(session, after=after)
        await sessions.append(session, note(2, at=NOON - timedelta(hours=1)))
        assert await stored(sessions) == [1, 2]
        assert [e.seq for e in await sessions.events("s1", since=NOON)] == [1]
        assert len(await sessions.events("s2")) == 1


@pytest.mark.parametrize("after", [-1, True, 1.0, "1", None])
async def test_truncate_takes_the_number_of_an_event(opened: Opener, after: Any) -> None:
    """Anything but a whole number from 0 is `InvalidQuery`, and nothing is removed."""
    async with opened() as sessions:
        session = await a_log(sessions)
        with pytest.raises(InvalidQuery, match="after"):
            await sessions.truncate(session, after=after)
        assert await stored(sessions) == [1, 2, 3, 4, 5]


async def test_a_cut_event_can_be_appended_again(opened: Opener) -> None:
    """A repeat of an event is recognised only while it is in the log."""
    async with opened() as sessions:
        session = await a_log(sessions, 1)
        mine = note("mine", id="e1")
        assert [(await sessions.append(session, mine)).seq for _ in range(2)] == [2, 2]
        await sessions.truncate(session, after=1)
        assert (await sessions.append(session, mine)).seq == 3
        assert await stored(sessions) == held(session) == [1, 3]


async def test_truncate_is_a_commit(opened: Opener) -> None:
    """It raises the revision; with `conflict="fail"` it is refused when the session moved on."""
    async with opened() as sessions, opened() as others:
        session = await a_log(sessions)
        await others.append("s1", note("theirs"))
        with pytest.raises(Conflict):
            await sessions.truncate(session, after=2, conflict="fail")
        assert await stored(sessions) == [1, 2, 3, 4, 5, 6]
        assert held(session) == [1, 2, 3, 4, 5]
        await sessions.truncate(session, after=2)
        assert await stored(sessions) == [1, 2]
        assert (await sessions.require("s1")).revision == 3


async def test_a_log_that_is_not_there_can_not_be_cut(opened: Opener) -> None:
    """A copy that was never saved, and one of a deleted session: `NotFound`, nothing is created."""
    async with opened() as sessions:
        fresh = sessions.new(id="fresh")
        gone = await a_log(sessions)
        await sessions.delete("s1")
        for session in (fresh, gone):
            with pytest.raises(NotFound):
                await sessions.truncate(session, after=0)
            with pytest.raises(NotFound):
                await sessions.replace_suffix(session, expected=[1], events=[])
        assert await sessions.count() == 0
        assert held(gone) == [1, 2, 3, 4, 5]


# ----------------------------------------------------------------------------------- replace_suffix


async def test_replace_suffix_puts_others_in_the_place_of_the_last_ones(opened: Opener) -> None:
    """One commit: the old ones go, the new ones come with fresh numbers and their deltas apply."""
    async with opened() as sessions:
        session = await a_log(sessions)
        new = await sessions.replace_suffix(
            session,
            expected=[4, 5],
            events=[
                note("a", delta={"x": 1, "k": DELETE}),
                Event(kind="shown", partial=True),
                note("b", delta={"app:y": 2}),
            ],
        )
        assert [(event.seq, event.body) for event in new] == [(6, "a"), (7, "b")]
        assert await stored(sessions) == held(session) == [1, 2, 3, 6, 7]
        found = await sessions.require("s1")
        assert dict(found.state) == dict(session.state) == {"x": 1, "app:y": 2}
        assert found.revision == session.revision == 2


async def test_replacing_by_nothing_is_a_cut(opened: Opener) -> None:
    """No events: the expected tail goes, if it is the tail."""
    async with opened() as sessions:
        session = await a_log(sessions)
        assert await sessions.replace_suffix(session, expected=[3, 4, 5], events=[]) == []
        assert await stored(sessions) == held(session) == [1, 2]


@pytest.mark.parametrize(
    ("expected", "actual"),
    [([4], (5,)), ([3, 4], (4, 5)), ([3, 5], (4, 5)), ([5, 6], (4, 5)), ([2**70], (5,))],
)
async def test_another_tail_than_the_expected_one_is_refused(
    opened: Opener, expected: list[int], actual: tuple[int, ...]
) -> None:
    """`TailMismatch`, a `Conflict`, carries both tails; log, state and copy stay as they were."""
    async with opened() as sessions:
        session = await a_log(sessions)
        with pytest.raises(TailMismatch) as refused:
            await sessions.replace_suffix(
                session, expected=expected, events=[note("new", delta={"k": 2})]
            )
        assert isinstance(refused.value, Conflict)
        assert refused.value.expected_tail == tuple(expected)
        assert refused.value.actual_tail == actual
        assert await stored(sessions) == held(session) == [1, 2, 3, 4, 5]
        assert (await sessions.require("s1")).state["k"] == session.state["k"] == 1
        assert session.revision == 1


async def test_more_is_expected_than_there_is(opened: Opener) -> None:
    """A longer tail than the log, and any tail of an empty log, do not match."""
    async with opened() as sessions:
        session = await a_log(sessions, 1)
        for tail in ([1, 2], [2]):
            with pytest.raises(TailMismatch):
                await sessions.replace_suffix(session, expected=tail, events=[])
        await sessions.truncate(session, after=0)
        with pytest.raises(TailMismatch) as refused:
            await sessions.replace_suffix(session, expected=[1], events=[])
        assert refused.value.actual_tail == ()


@pytest.mark.parametrize("expected", [[], [5, 4], [0], [-1], [True], ["5"], [4.0, 5.0]])
async def test_the_expected_tail_is_a_list_of_numbers(opened: Opener, expected: Any) -> None:
    """At least one, whole, positive, ascending: all else is `InvalidQuery`."""
    async with opened() as sessions:
        session = await a_log(sessions)
        with pytest.raises(InvalidQuery, match="expected"):
            await sessions.replace_suffix(session, expected=expected, events=[])
        assert await stored(sessions) == [1, 2, 3, 4, 5]


async def test_what_can_not_be_stored_replaces_nothing(opened: Opener) -> None:
    """`Unserializable` names the path, and the old tail is still there."""
    async with opened() as sessions:
        session = await a_log(sessions)
        with pytest.raises(Unserializable, match="body"):
            await sessions.replace_suffix(session, expected=[5], events=[note({"x": object()})])
        assert await stored(sessions) == held(session) == [1, 2, 3, 4, 5]


async def test_an_event_of_the_old_tail_can_be_in_the_new_one(opened: Opener) -> None:
    """Same id and content as one that is replaced: stored anew; as one that stays: not again."""
    async with opened() as sessions:
        session = await sessions.create(
            id="s1", events=[note("stays", id="a"), note("goes", id="b")]
        )
        new = await sessions.replace_suffix(
            session, expected=[2], events=[note("goes", id="b"), note("stays", id="a")]
        )
        assert [event.seq for event in new] == [3, 1]
        assert await stored(sessions) == [1, 3]


# -------------------------------------------------------------------------------------- concurrency


async def test_of_many_replacements_of_one_tail_one_succeeds(opened: Opener) -> None:
    """Ten at once, in two managers: one replaces, the others are told that the tail is another."""
    async with opened() as here, opened() as there:
        await a_log(here)
        copies = [(m, await m.require("s1")) for m in (here, there) for _ in range(5)]
        outcomes = await asyncio.gather(
            *(
                manager.replace_suffix(copy, expected=[5], events=[note(number)])
                for number, (manager, copy) in enumerate(copies)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, list) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, TailMismatch) for outcome in outcomes) == 9
        assert await stored(here) == [1, 2, 3, 4, 6]


async def test_cuts_amid_appends_never_give_a_number_twice(opened: Opener) -> None:
    """Forty appends and ten truncations by two managers: every number is given out once."""
    async with opened() as here, opened() as there:
        session = await a_log(here, 1)
        given: list[int | None] = []

        async def write(manager: SessionManager) -> None:
            for number in range(20):
                event = await manager.append("s1", note(number))
                given.append(event.seq)

        async def cut() -> None:
            for _ in range(10):
                await here.truncate(session, after=1)

        await asyncio.gather(write(here), write(there), cut())
        assert sorted(seq or 0 for seq in given) == list(range(2, 42))
        left = [seq or 0 for seq in await stored(here)]
        assert left == sorted(set(left))
        assert set(left) <= {1, *(seq or 0 for seq in given)}

"""Windows of a log: every combination of bounds, against a plain filter of the whole log."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import Event, EventQuery, InvalidQuery, NotFound, SessionManager
from sojourn.limits import MAX_SEQ

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

START = datetime(2026, 1, 1, tzinfo=UTC)


def t(seconds: float) -> datetime:
    """Return the moment so many seconds after the start."""
    return START + timedelta(seconds=seconds)


LOG = [
    ("message", 1),
    ("tool", 2),
    ("message", 2),
    ("note", 5),
    ("message", 3),
    ("tool", 1),
    ("message", 6),
    ("message", 4),
    ("note", 6),
]
"""Kinds and times, out of order and with ties, as they come from clocks that step back."""


async def filled(sessions: SessionManager) -> list[Event]:
    """Make a session with the log, and return what is in it."""
    events = [Event(kind=kind, at=t(at), body=n) for n, (kind, at) in enumerate(LOG, start=1)]
    return (await sessions.create(id="s", events=events)).events


async def five(sessions: SessionManager) -> None:
    """Make a session with five events at t1 to t5."""
    await sessions.create(id="s", events=[Event(kind="x", at=t(n)) for n in range(1, 6)])


async def seqs(sessions: SessionManager, **window: Any) -> list[int]:
    """Return the numbers of the events in a window."""
    return [event.seq or 0 for event in await sessions.events("s", **window)]


@pytest.mark.behaviour(89)
@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"last": 3}, [3, 4, 5]),
        ({"since": t(2)}, [2, 3, 4, 5]),
        ({"last": 2, "since": t(1)}, [4, 5]),
        ({"last": 3, "since": t(4)}, [4, 5]),
        ({"last": 99}, [1, 2, 3, 4, 5]),
        ({}, [1, 2, 3, 4, 5]),
        ({"last": None}, [1, 2, 3, 4, 5]),
        ({"last": 0}, []),
        ({"last": 0, "since": t(1)}, []),
        ({"since": t(5)}, [5]),
        ({"since": t(5.000001)}, []),
        ({"since": t(0)}, [1, 2, 3, 4, 5]),
        ({"first": 2}, [1, 2]),
        ({"first": 2, "since": t(2)}, [2, 3]),
        ({"first": 0}, []),
        ({"after_seq": 3}, [4, 5]),
        ({"before_seq": 3}, [1, 2]),
        ({"after_seq": 1, "before_seq": 5, "last": 2}, [3, 4]),
        ({"after_seq": 5}, []),
        ({"before_seq": 1}, []),
        ({"before_seq": 0}, []),
        ({"after_seq": 4, "before_seq": 2}, []),
    ],
    ids=str,
)
async def test_windows_over_five_events(
    opened: Opener, window: dict[str, Any], expected: list[int]
) -> None:
    """Time includes, numbers exclude; the bounds first, then the last so many; ascending."""
    async with opened() as sessions:
        await five(sessions)
        assert await seqs(sessions, **window) == expected
        loaded = await sessions.require("s", events=EventQuery(**window))
        assert [event.seq for event in loaded.events] == expected


def plain(log: list[Event], window: dict[str, Any]) -> list[int]:
    """Return what a window should hold, by filtering the whole log."""
    found = [
        event.seq or 0
        for event in log
        if (window["after_seq"] is None or (event.seq or 0) > window["after_seq"])
        and (window["before_seq"] is None or (event.seq or 0) < window["before_seq"])
        and (window["since"] is None or (event.at or START) >= window["since"])
        and (window["kind"] is None or event.kind in window["kind"])
    ]
    if window["first"] is not None:
        return found[: window["first"]]
    return found if window["last"] is None else found[max(len(found) - window["last"], 0) :]


AFTER = (None, 0, 3, 8)
BEFORE = (None, 2, 7, 10)
SINCE = (None, t(2), t(6), t(7))
KINDS: tuple[tuple[str, ...] | None, ...] = (None, ("message",), ("tool", "note"), ("none",), ())
LIMITS = ((None, None), (0, None), (2, None), (20, None), (None, 0), (None, 2))


@pytest.mark.behaviour(89)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_every_combination_is_a_filter(opened: Opener, kind: tuple[str, ...] | None) -> None:
    """All bounds together, over a log whose times are out of order."""
    async with opened() as sessions:
        log = await filled(sessions)
        for after, before, since, (last, first) in itertools.product(AFTER, BEFORE, SINCE, LIMITS):
            window = {
                "after_seq": after,
                "before_seq": before,
                "since": since,
                "kind": kind,
                "last": last,
                "first": first,
            }
            assert await seqs(sessions, **window) == plain(log, window), window


@pytest.mark.behaviour(89)
async def test_over_a_log_with_gaps(opened: Opener) -> None:
    """Numbers that a truncation took are not used again, and windows count events, not numbers."""
    async with opened() as sessions:
        session = await sessions.create(id="s", events=[Event(kind="x")] * 5)
        await sessions.truncate(session, after=3)
        await sessions.append(session, *[Event(kind="y")] * 2)
        assert await seqs(sessions) == [1, 2, 3, 6, 7]
        assert await seqs(sessions, last=3) == [3, 6, 7]
        assert await seqs(sessions, after_seq=3) == await seqs(sessions, after_seq=5) == [6, 7]
        assert await seqs(sessions, before_seq=6, last=1) == [3]
        assert await seqs(sessions, kind="y", first=1) == [6]


async def test_one_kind_or_several(opened: Opener) -> None:
    """A string is one kind, an iterable several, the same twice is once, none is nothing."""
    async with opened() as sessions:
        await filled(sessions)
        assert await seqs(sessions, kind="tool") == [2, 6]
        assert await seqs(sessions, kind=["tool", "note"]) == [2, 4, 6, 9]
        assert await seqs(sessions, kind=["tool", "tool"]) == [2, 6]
        assert await seqs(sessions, kind=iter(["note"])) == [4, 9]
        assert await seqs(sessions, kind=[]) == []
        one: Any = "tool"
        loaded = await sessions.require("s", events=EventQuery(kinds=one))
        assert [event.seq for event in loaded.events] == [2, 6]


async def test_a_time_in_any_zone(opened: Opener) -> None:
    """The same instant is the same bound."""
    from datetime import timezone

    async with opened() as sessions:
        await five(sessions)
        moment = t(4).astimezone(timezone(timedelta(hours=-7)))
        assert await seqs(sessions, since=moment) == [4, 5]


async def test_a_long_log(opened: Opener) -> None:
    """Long windows take another way through the store than short ones, to the same result."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        wide = "x" * 500
        for start in range(0, 1_000, 250):
            events = [Event(kind=f"k{n % 2}", body=wide) for n in range(start, start + 250)]
            await sessions.append(session, *events)
        everything = list(range(1, 1_001))
        assert await seqs(sessions) == everything
        for last in (49, 50, 51, 300, 1_000, 1_001):
            assert await seqs(sessions, last=last) == everything[-last:]
        assert await seqs(sessions, first=400, after_seq=100) == everything[100:500]
        assert await seqs(sessions, kind="k0", last=300) == everything[::2][-300:]
        loaded = await sessions.require("s", events=700)
        assert [event.seq for event in loaded.events] == everything[-700:]


@pytest.mark.parametrize(
    ("window", "field"),
    [
        *(
            ({field: value}, field)
            for field in ("last", "first", "after_seq", "before_seq")
            for value in (-1, True, 1.0, "1")
        ),
        ({"last": 1, "first": 1}, "first"),
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001 - a naive one is refused
        ({"since": "yesterday"}, "since"),
        ({"since": True}, "since"),
        ({"since": float("nan")}, "since"),
    ],
    ids=str,
)
async def test_a_window_that_makes_no_sense_is_refused(
    url: str, window: dict[str, Any], field: str
) -> None:
    """`InvalidQuery` names the argument; the store is not asked."""
    async with watched(url) as (sessions, store):
        for call in (
            sessions.events("s", **window),
            sessions.get("s", events=EventQuery(**window)),
        ):
            with pytest.raises(InvalidQuery) as caught:
                await call
            assert caught.value.field == field
        assert store.calls == []


@pytest.mark.parametrize("huge", [MAX_SEQ, MAX_SEQ + 1, 2**63, 10**30])
async def test_huge_numbers_are_just_far_away(opened: Opener, huge: int) -> None:
    """More than there can be is all, or nothing, depending on the side."""
    async with opened() as sessions:
        await five(sessions)
        everything = [1, 2, 3, 4, 5]
        assert await seqs(sessions, last=huge) == everything
        assert await seqs(sessions, first=huge) == everything
        assert await seqs(sessions, before_seq=huge) == everything
        assert await seqs(sessions, after_seq=huge) == []
        assert await seqs(sessions, kind="x", last=huge) == everything
        assert await seqs(sessions, kind="x", after_seq=huge) == []


@pytest.mark.parametrize("sign", [1, -1])
async def test_instants_far_away(opened: Opener, sign: int) -> None:
    """An instant beyond the calendar, in a query, is before or after everything."""
    async with opened() as sessions:
        await five(sessions)
        loaded = await sessions.require("s", events=EventQuery(since=sign * 10**30))
        assert len(loaded.events) == (0 if sign > 0 else 5)


@pytest.mark.behaviour(15)
async def test_the_log_of_an_unknown_session(opened: Opener) -> None:
    """`NotFound`, which an empty log is not."""
    async with opened() as sessions:
        await sessions.create(id="empty")
        assert await sessions.events("empty") == []
        with pytest.raises(NotFound):
            await sessions.events("unknown")


async def test_windows_of_two_sessions_are_independent(opened: Opener) -> None:
    """Each log is numbered for itself; neither shows the other's."""
    async with opened() as sessions:
        for id in ("a", "b"):
            await sessions.create(id=id)
        for n in range(6):
            await sessions.append("ab"[n % 2], Event(kind="x", body=n))
        for id, bodies in (("a", [0, 2, 4]), ("b", [1, 3, 5])):
            log = await sessions.events(id)
            assert [(event.seq, event.body) for event in log] == list(enumerate(bodies, start=1))

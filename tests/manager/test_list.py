"""Lists and counts: every filter, every order, pages by keyset, and damage that hides nothing."""

from __future__ import annotations

import contextlib
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from tests.manager.watched_store import watched

from sojourn import (
    Corrupt,
    Event,
    Expiry,
    InvalidCursor,
    InvalidId,
    InvalidQuery,
    Phase,
    SessionManager,
    Trigger,
)
from sojourn.cursors import issue
from sojourn.limits import MAX_PAGE
from sojourn.store import Query
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sojourn import Page, Session

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

START = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = ["created", "-created", "active", "-active"]


def ids(page: Page[Session]) -> list[str]:
    """Return the ids of a page, in its order."""
    return [session.id for session in page.items]


async def walk(sessions: SessionManager, limit: int, **query: Any) -> list[list[str]]:
    """Return the pages of a list, to the last."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await sessions.list(limit=limit, cursor=cursor, **query)
        pages.append(ids(page))
        cursor = page.cursor
        if cursor is None:
            return pages


# --- who sees what ----------------------------------------------------------------------------


@pytest.mark.behaviour(23)
async def test_a_list_shows_its_own_app_and_user_only(opened: Opener) -> None:
    """By app all users of that app; by user only theirs; unknown users nothing, as a list."""
    async with opened(app="app") as one, opened(app="app2") as two, opened(app="ap") as three:
        for sessions in (one, two):
            for user in ("u", "u2", None):
                await sessions.create(id=f"{user} of {sessions.app}", user=user)
        assert set(ids(await one.list())) == {"u of app", "u2 of app", "None of app"}
        assert ids(await one.list(user="u")) == ["u of app"]
        assert ids(await one.list(anonymous=True)) == ["None of app"]
        assert ids(await two.list(user="u")) == ["u of app2"]
        assert (await one.list(user="unknown")).items == []
        assert (await three.list()).items == []
        counts = [await one.count(), await one.count(user="u"), await one.count(anonymous=True)]
        assert counts == [3, 1, 1]
        assert [await one.count(user="unknown"), await three.count()] == [0, 0]


@pytest.mark.behaviour(24)
async def test_listed_sessions_carry_state_and_no_events(opened: Opener) -> None:
    """Merged tiers, each of its own user, like a fresh load; and they are working copies."""
    async with opened() as sessions:
        for user in ("u", "v", None):
            session = await sessions.create(
                id=str(user),
                user=user,
                state={"own": user, "app:k": 1},
                events=[Event(kind="x")],
                labels={"a": "b"},
            )
            if user:
                session.state["user:k"] = user
                await sessions.save(session)
        page = await sessions.list(order="created")
        assert [dict(session.state) for session in page.items] == [
            {"own": "u", "user:k": "u", "app:k": 1},
            {"own": "v", "user:k": "v", "app:k": 1},
            {"own": None, "app:k": 1},
        ]
        assert [session.events for session in page.items] == [[], [], []]
        for listed in page.items:
            fresh = await sessions.require(listed.id)
            assert (listed.revision, listed.epoch) == (fresh.revision, fresh.epoch)
            assert dict(listed.labels) == {"a": "b"}
            listed.state["own"] = "changed"
            await sessions.save(listed, conflict="fail")
        assert (await sessions.require("u")).state["own"] == "changed"


@pytest.mark.behaviour(28)
async def test_filters_are_anded_and_none_is_all(opened: Opener) -> None:
    """User, phase, labels and parent, each alone and every two together."""
    async with opened() as sessions:
        await sessions.create(id="parent")
        facts: dict[str, tuple[Any, ...]] = {}
        for user, agent, label, child in itertools.product(("u", "v"), (0, 1), ("x", "y"), (0, 1)):
            id = f"{user}{agent}{label}{child}"
            facts[id] = (user, agent, label, child)
            await sessions.create(
                id=id,
                user=user,
                lifecycle="agent" if agent else "open",
                labels={"l": label, "m": user},
                parent="parent" if child else None,
            )
        filters: list[tuple[dict[str, Any], Callable[[tuple[Any, ...]], bool]]] = [
            ({"user": "u"}, lambda fact: fact[0] == "u"),
            ({"phase": Phase.CREATED}, lambda fact: fact[1] == 1),
            ({"labels": {"l": "x"}}, lambda fact: fact[2] == "x"),
            ({"labels": {"l": "x", "m": "v"}}, lambda fact: (fact[2], fact[0]) == ("x", "v")),
            ({"parent": "parent"}, lambda fact: fact[3] == 1),
        ]
        for one, two in itertools.combinations_with_replacement(filters, 2):
            query = {**one[0], **two[0]}
            if one[0].keys() == two[0].keys() and one is not two:
                continue
            expected = {id for id, fact in facts.items() if one[1](fact) and two[1](fact)}
            assert set(ids(await sessions.list(**query))) == expected, query
            assert await sessions.count(**query) == len(expected), query
        assert len((await sessions.list()).items) == await sessions.count() == 17
        assert ids(await sessions.list(labels={"l": "none"})) == []
        assert len(ids(await sessions.list(labels={}))) == 17


@pytest.mark.behaviour(28)
async def test_phases(opened: Opener) -> None:
    """One, several, by name, twice the same, none at all: list and count agree."""
    async with opened() as sessions:
        await sessions.create(id="open")
        await sessions.create(id="agent", lifecycle="agent")
        await sessions.create(id="active", lifecycle="agent")
        for trigger in (Trigger.SPAWN, Trigger.ACTIVATE):
            await sessions.apply("active", trigger)
        await sessions.create(id="ending")
        await sessions.apply("ending", Trigger.END)
        everything = {"open", "agent", "active", "ending"}
        cases: list[tuple[Any, set[str]]] = [
            (None, everything),
            (Phase.OPEN, {"open"}),
            ("ACTIVE", {"active"}),
            ([Phase.OPEN, Phase.ENDING], {"open", "ending"}),
            (iter((Phase.CREATED, Phase.ACTIVE)), {"agent", "active"}),
            ([Phase.OPEN, Phase.OPEN], {"open"}),
            (frozenset(Phase), everything),
            ([], set()),
            ((), set()),
        ]
        for phase, expected in cases:
            again = tuple(phase) if not isinstance(phase, str | None) else phase
            for anonymous in (False, True):
                query: dict[str, Any] = {"phase": again, "anonymous": anonymous}
                assert set(ids(await sessions.list(**query))) == expected
                assert await sessions.count(**query) == len(expected)


@pytest.mark.behaviour(49)
async def test_expired_sessions_are_in_neither(opened: Opener) -> None:
    """Swept or not, whatever the filter; ended ones are there while they are kept."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        for id, expiry in (("dies", Expiry(idle=10)), ("lives", Expiry(idle=20))):
            await sessions.create(id=id, user="u", labels={"a": "b"}, expiry=expiry)
        await sessions.create(id="kept", user="u", labels={"a": "b"})
        await sessions.end("kept", retain=15)
        clock.advance(10)
        filters: list[dict[str, Any]] = [
            {},
            {"user": "u"},
            {"labels": {"a": "b"}},
            {"phase": [Phase.OPEN, Phase.ENDED]},
            {"user": "u", "labels": {"a": "b"}},
        ]
        for query in filters:
            assert set(ids(await sessions.list(**query))) == {"lives", "kept"}
            assert await sessions.count(**query) == 2
        clock.advance(5)
        for query in filters:
            assert ids(await sessions.list(**query)) == ["lives"]
            assert await sessions.count(**query) == 1


async def test_counts_follow_what_happens(opened: Opener) -> None:
    """Created, bound, labelled, moved, deleted: kept counts are right at every step."""
    async with opened() as sessions:

        async def counts() -> list[int]:
            return [
                await sessions.count(),
                await sessions.count(anonymous=True),
                await sessions.count(user="u"),
                await sessions.count(labels={"a": "b"}),
                await sessions.count(phase=Phase.OPEN),
            ]

        session = await sessions.create(id="s")
        assert await counts() == [1, 1, 0, 0, 1]
        await sessions.bind(session, "u")
        assert await counts() == [1, 0, 1, 0, 1]
        await sessions.label(session, {"a": "b"})
        assert await counts() == [1, 0, 1, 1, 1]
        await sessions.apply("s", Trigger.END)
        assert await counts() == [1, 0, 1, 1, 0]
        await sessions.delete("s")
        assert await counts() == [0, 0, 0, 0, 0]


# --- orders and pages -------------------------------------------------------------------------


async def busy(sessions: SessionManager, clock: FakeClock) -> None:
    """Make seven sessions, several at one instant, and use some of them later."""
    for n in range(7):
        await sessions.create(
            id=f"s{n}", user="u", labels={"a": "b"}, expiry=Expiry(idle=1_000_000)
        )
        clock.advance(n % 2)
    for n in (4, 1):
        clock.advance(10)
        await sessions.heartbeat(f"s{n}")


CREATED = [f"s{n}" for n in range(7)]
ACTIVE = ["s0", "s2", "s3", "s5", "s6", "s4", "s1"]
IN_ORDER = {
    "created": CREATED,
    "-created": CREATED[::-1],
    "active": ACTIVE,
    "-active": ACTIVE[::-1],
}


@pytest.mark.parametrize("order", ORDERS)
async def test_the_four_orders(opened: Opener, order: Any) -> None:
    """By creation or by last use, either way; of equal instants the one made later is later."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        await busy(sessions, clock)
        assert ids(await sessions.list(order=order)) == IN_ORDER[order]
        assert ids(await sessions.list()) == IN_ORDER["-active"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
@pytest.mark.parametrize(
    "query",
    [{}, {"user": "u"}, {"labels": {"a": "b"}}, {"phase": [Phase.OPEN, Phase.CREATED]}],
    ids=str,
)
async def test_pages_together_are_the_list(
    opened: Opener, order: Any, limit: int, query: dict[str, Any]
) -> None:
    """Nothing twice, nothing left out, each page full but the last, no page empty."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        await busy(sessions, clock)
        pages = await walk(sessions, limit, order=order, **query)
        assert [id for page in pages for id in page] == IN_ORDER[order]
        assert all(len(page) == limit for page in pages[:-1])
        assert 0 < len(pages[-1]) <= limit


async def test_the_last_page_has_no_cursor(opened: Opener) -> None:
    """Also when it is exactly full, and when there is nothing."""
    async with opened() as sessions:
        assert (await sessions.list()).cursor is None
        for n in range(4):
            await sessions.create(id=str(n))
        assert (await sessions.list(limit=4)).cursor is None
        first = await sessions.list(limit=2, order="created")
        assert first.cursor is not None
        second = await sessions.list(limit=2, order="created", cursor=first.cursor)
        assert (ids(second), second.cursor) == (["2", "3"], None)


@pytest.mark.parametrize("order", ["created", "-created"])
async def test_pages_are_keysets_and_not_offsets(opened: Opener, order: Any) -> None:
    """Removed and added sessions do not shift what is left: nothing twice, nothing skipped."""
    async with opened() as sessions:
        for n in range(6):
            await sessions.create(id=str(n))
        first = await sessions.list(limit=3, order=order)
        for gone in ids(first):
            await sessions.delete(gone)
        await sessions.create(id="late")
        rest = ids(await sessions.list(limit=10, order=order, cursor=first.cursor))
        expected = ["3", "4", "5", "late"] if order == "created" else ["2", "1", "0"]
        assert rest == expected


async def test_a_session_used_meanwhile_is_not_listed_twice(opened: Opener) -> None:
    """By last use, newest first: what moves to the front is not met again behind the cursor."""
    clock = FakeClock(START)
    async with opened(clock=clock) as sessions:
        for n in range(6):
            await sessions.create(id=str(n))
            clock.advance(1)
        first = await sessions.list(limit=3)
        assert ids(first) == ["5", "4", "3"]
        await sessions.append("4", Event(kind="x"))
        rest = await sessions.list(limit=10, cursor=first.cursor)
        assert ids(rest) == ["2", "1", "0"]


async def test_the_limit_may_change_from_page_to_page(opened: Opener) -> None:
    """A cursor says where, not how many."""
    async with opened() as sessions:
        for n in range(6):
            await sessions.create(id=str(n))
        first = await sessions.list(limit=1, order="created")
        second = await sessions.list(limit=3, order="created", cursor=first.cursor)
        assert ids(second) == ["1", "2", "3"]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": MAX_PAGE + 1}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 1.0}, "limit"),
        ({"limit": None}, "limit"),
        ({"order": "id"}, "order"),
        ({"order": "ACTIVE"}, "order"),
        ({"order": None}, "order"),
        ({"phase": "ASLEEP"}, "phase"),
        ({"phase": [Phase.OPEN, "ASLEEP"]}, "phase"),
        ({"phase": [None]}, "phase"),
        ({"user": "u", "anonymous": True}, "anonymous"),
    ],
    ids=str,
)
async def test_a_query_that_makes_no_sense_is_refused(
    url: str, query: dict[str, Any], field: str
) -> None:
    """`InvalidQuery` names the argument; the store is not asked."""
    async with watched(url) as (sessions, store):
        with pytest.raises(InvalidQuery) as caught:
            await sessions.list(**query)
        assert caught.value.field == field
        if query.keys() <= {"phase", "user", "anonymous"}:
            with pytest.raises(InvalidQuery):
                await sessions.count(**query)
        assert store.calls == []


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ({"user": ""}, "user"),
        ({"parent": "a\x00"}, "parent"),
        ({"labels": {"": "b"}}, "label name"),
        ({"labels": {"a": ""}}, "label 'a'"),
        ({"labels": {"a": None}}, "label 'a'"),
    ],
    ids=str,
)
async def test_a_filter_that_is_no_name_is_refused(
    url: str, query: dict[str, Any], what: str
) -> None:
    """`InvalidId` names it; the store is not asked."""
    async with watched(url) as (sessions, store):
        for call in (sessions.list(**query), sessions.count(**query)):
            with pytest.raises(InvalidId) as caught:
                await call
            assert caught.value.what == what
        assert store.calls == []


async def test_the_largest_page(opened: Opener) -> None:
    """`MAX_PAGE` is a limit that one may ask for."""
    async with opened() as sessions:
        await sessions.create(id="s")
        assert ids(await sessions.list(limit=MAX_PAGE)) == ["s"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!", "AAAA", "caf\u00e9", "\ud800", 7, b"AAAA", ["x"]], ids=ascii
)
async def test_a_malformed_cursor_is_refused(url: str, cursor: Any) -> None:
    """`InvalidCursor`, and the store is not asked."""
    async with watched(url) as (sessions, store):
        with pytest.raises(InvalidCursor):
            await sessions.list(cursor=cursor)
        assert store.calls == []


async def test_a_cursor_of_another_query_is_refused(url: str) -> None:
    """Another filter, order or app: `InvalidCursor`, and the store is not asked."""
    async with watched(url, app="one") as (sessions, store):
        for n in range(3):
            await sessions.create(id=str(n), user="u", labels={"a": "b"})
        page = await sessions.list(user="u", limit=1)
        cursor = page.cursor
        assert cursor is not None
        store.forget_calls()
        others: list[dict[str, Any]] = [
            {},
            {"user": "v"},
            {"anonymous": True},
            {"user": "u", "labels": {"a": "b"}},
            {"user": "u", "phase": Phase.OPEN},
            {"user": "u", "parent": "0"},
            {"user": "u", "order": "active"},
        ]
        for query in others:
            with pytest.raises(InvalidCursor, match="another query"):
                await sessions.list(cursor=cursor, **query)
        async with SessionManager(sessions.store, app="two") as two:
            with pytest.raises(InvalidCursor, match="another query"):
                await two.list(user="u", cursor=cursor)
        assert store.calls == []
        assert ids(await sessions.list(user="u", cursor=cursor)) == ["1", "0"]


@pytest.mark.parametrize(
    "position",
    ["", "x", "1.2.3", "1", "1.x", ".", "nan", "1e5", f"{'9' * 30}.1", f"1.{'9' * 30}", "9" * 5000],
    ids=lambda position: position[:12],
)
async def test_a_forged_position_is_refused_or_finds_nothing_foreign(
    opened: Opener, position: str
) -> None:
    """Whoever makes up a cursor gets `InvalidCursor`, or a page of the very same query."""
    async with opened() as sessions:
        await sessions.create(id="s")
        forged = issue(Query(app="default", now=0), position)
        found: set[str] = set()
        with contextlib.suppress(InvalidCursor):
            found = set(ids(await sessions.list(cursor=forged)))
        assert found <= {"s"}


# --- damage, by editing the file --------------------------------------------------------------


@pytest.mark.behaviour(27)
@pytest.mark.parametrize(
    "column",
    [
        "state = '{'",
        "state = '[1]'",
        "state = CAST(x'7b2261223a22ff227d' AS TEXT)",
        "labels = 'x'",
        "exclusive = '{'",
        "active_at = -99999999999999999",
        "created_at = -99999999999999999",
        "expires_at = 999999999999999999",
    ],
)
async def test_a_corrupt_record_does_not_hide_the_others(tmp_path: Path, column: str) -> None:
    """The others are listed, it is named in `page.corrupt`, and paging goes on behind it."""
    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        for n in range(5):
            await sessions.create(id=f"s{n}", user="u", state={"n": n}, labels={"a": "b"})
    db = apsw.Connection(str(path))
    db.execute(f"UPDATE sessions SET {column} WHERE id = 's2'")  # noqa: S608 - the column is ours
    assert db.changes() == 1
    db.close()
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        for query in ({}, {"user": "u"}, {"labels": {"a": "b"}}):
            for limit in (1, 2, 5):
                seen: list[str] = []
                corrupt: list[Corrupt] = []
                cursor: str | None = None
                while True:
                    page = await sessions.list(order="created", limit=limit, cursor=cursor, **query)
                    seen += ids(page)
                    corrupt += page.corrupt
                    cursor = page.cursor
                    if cursor is None:
                        break
                assert seen == ["s0", "s1", "s3", "s4"]
                assert [error.key for error in corrupt] == ["session 's2'"]
        with pytest.raises(Corrupt):
            await sessions.get("s2")


@pytest.mark.behaviour(27)
async def test_an_unknown_phase_hides_no_other_session(tmp_path: Path) -> None:
    """A record in a phase that there is not is `Corrupt` by its id; the others are listed."""
    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        for n in range(3):
            await sessions.create(id=f"s{n}")
    db = apsw.Connection(str(path))
    db.execute("UPDATE sessions SET phase = 'ASLEEP' WHERE id = 's1'")
    db.close()
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        assert ids(await sessions.list(order="created")) == ["s0", "s2"]
        with pytest.raises(Corrupt, match="s1"):
            await sessions.get("s1")


@pytest.mark.behaviour(27)
async def test_a_whole_page_has_nothing_corrupt(opened: Opener) -> None:
    """Without damage `page.corrupt` is empty."""
    async with opened() as sessions:
        await sessions.create()
        assert (await sessions.list()).corrupt == ()

"""Removal: what is deleted, ended, swept or forgotten is gone, down to the last row of the file."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from sojourn import (
    AlreadyExists,
    Event,
    Expiry,
    InvalidId,
    NotFound,
    Reaper,
    Session,
    SessionManager,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


ID, USER = "the-id", "the-user"


async def ids(sessions: SessionManager) -> set[str]:
    return {session.id for session in (await sessions.list()).items}


async def a_full_session(sessions: SessionManager, **facts: Any) -> Session:
    """Create a session that owns something of every kind, with a child."""
    given: dict[str, Any] = {
        "id": ID,
        "user": USER,
        "state": {"k": "the-state", "user:theme": "the-theme", "app:motd": "hi"},
        "labels": {"room": "the-room", "role": "the-role"},
        "exclusive": ("role",),
        "events": [Event(kind="a", body="the-body"), Event(kind="b", delta={"x": "the-delta"})],
        "expiry": Expiry(idle=100),
    }
    session = await sessions.create(**given | facts)
    await sessions.documents(session.id).put("c", "the-key", b"the-bytes", ttl=1_000)
    await sessions.create(id=f"{session.id} child", parent=session.id, events=[Event(kind="a")])
    return session


# ------------------------------------------------------------------------------------------- forget


async def test_forget_removes_everything_of_a_user(opened: Opener) -> None:
    """Every session in every phase, expired ones and children too, and the user's shared state."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await a_full_session(sessions)
        await sessions.create(id="expired", user=USER, expiry=Expiry(idle=10))
        await sessions.create(id="ended", user=USER)
        await sessions.end("ended", retain=1_000)
        later = await sessions.create(id="bound later")
        await sessions.bind(later, USER)
        clock.advance(10)
        assert await sessions.forget(USER) == 4
        assert await sessions.user_state(USER) == {}
        for id in (ID, f"{ID} child", "expired", "ended", "bound later"):
            assert await sessions.get(id, expired=True) is None
        assert await sessions.count() == await sessions.count(user=USER) == 0
        assert await sessions.count(labels={"room": "the-room"}) == 0
        assert await Reaper(sessions).sweep() == 0
        clock.advance(10_000)
        assert await Reaper(sessions).sweep() == 0


async def test_forget_speaks_of_one_user_of_one_app(opened: Opener) -> None:
    """Other users, anonymous sessions, the app's state, and the same user in another app stay."""
    async with opened() as sessions, opened(app="other") as others:
        for manager in (sessions, others):
            await a_full_session(manager)
        await a_full_session(sessions, id="s2", user="u2", exclusive=())
        await sessions.create(id="anonymous")
        await sessions.documents().put("c", "k", b"app")
        await sessions.forget(USER)
        assert await ids(sessions) == {"s2", "s2 child", "anonymous"}
        assert await sessions.user_state("u2") == {"theme": "the-theme"}
        assert await sessions.app_state() == {"motd": "hi"}
        assert await sessions.documents().get("c", "k") is not None
        assert await ids(others) == {ID, f"{ID} child"}
        assert await others.user_state(USER) == {"theme": "the-theme"}


async def test_forget_removes_shared_state_of_a_user_without_sessions(opened: Opener) -> None:
    """What was shared for a user without any session is theirs, too."""
    async with opened() as sessions:
        await sessions.share({"user:theme": "dark"}, user=USER)
        assert await sessions.forget(USER) == 0
        assert await sessions.user_state(USER) == {}


async def test_forget_runs_no_hooks_and_finds_nobody_twice(opened: Opener) -> None:
    """It removes at once; unknown users are fine, malformed ones are `InvalidId`."""
    ran: list[str] = []
    async with opened() as sessions:

        @sessions.on_end
        async def note(session: Session, _reason: str) -> None:
            ran.append(session.id)

        await a_full_session(sessions)
        assert await sessions.forget(USER) == 1
        assert await sessions.forget(USER) == 0
        assert await sessions.forget("unknown") == 0
        assert ran == []
        with pytest.raises(InvalidId, match="user"):
            await sessions.forget("")


async def test_a_user_who_comes_back_starts_from_nothing(opened: Opener) -> None:
    """After `forget` the same ids and the same user show nothing of before."""
    async with opened() as sessions:
        await a_full_session(sessions)
        await sessions.forget(USER)
        again = await sessions.create(id=ID, user=USER)
        assert dict(again.state) == {"app:motd": "hi"}
        assert await sessions.events(ID) == []
        assert await sessions.documents(ID).list("c") == []
        assert await sessions.count(user=USER) == 1


# ------------------------------------------------------------------------------------------ removal


async def forget(sessions: SessionManager, _clock: FakeClock) -> None:
    await sessions.forget(USER)


async def delete(sessions: SessionManager, _clock: FakeClock) -> None:
    await sessions.delete(ID)


async def end(sessions: SessionManager, _clock: FakeClock) -> None:
    await sessions.end(ID)


async def clear(sessions: SessionManager, _clock: FakeClock) -> None:
    session = await sessions.require(ID)
    session.state.clear()
    await sessions.save(session)


async def sweep(sessions: SessionManager, clock: FakeClock) -> None:
    clock.advance(100)
    await Reaper(sessions).sweep()


async def sweep_with_hooks(sessions: SessionManager, clock: FakeClock) -> None:
    async def note(_session: Session, _reason: str) -> None:
        return

    sessions.on_end(note)
    await sweep(sessions, clock)


async def replace(sessions: SessionManager, clock: FakeClock) -> None:
    clock.advance(100)
    await sessions.create(id=ID)
    await sessions.delete(ID)


WAYS: dict[str, Callable[[SessionManager, FakeClock], Awaitable[None]]] = {
    "forget": forget,
    "delete": delete,
    "end": end,
    "clear and save": clear,
    "sweep": sweep,
    "sweep with hooks": sweep_with_hooks,
    "create over it": replace,
}
"""Every way in which a session goes."""


@pytest.mark.behaviour(19)
@pytest.mark.parametrize("way", WAYS)
async def test_a_session_that_is_made_again_shows_nothing_of_the_old_one(
    opened: Opener, way: str
) -> None:
    """No state, event, document, child, label or role is left for who gets the id next."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await a_full_session(sessions)
        await WAYS[way](sessions, clock)
        assert await sessions.get(ID, expired=True) is None
        assert await sessions.get(f"{ID} child", expired=True) is None
        again = await sessions.create(
            id=ID, user="u2", labels={"role": "the-role"}, exclusive=["role"]
        )
        assert dict(again.state) == {"app:motd": "hi"}
        assert await sessions.events(ID) == []
        assert await sessions.documents(ID).list("c") == []
        assert await sessions.count(parent=ID) == 0
        assert await sessions.count(labels={"room": "the-room"}) == 0
        assert await sessions.count(user=USER) == 0
        assert (again.revision, (await sessions.append(again, Event(kind="a"))).seq) == (1, 1)


async def in_scope(sessions: SessionManager, session: Session) -> None:
    async with sessions.scope(session):
        pass


@pytest.mark.behaviour(21)
@pytest.mark.parametrize("recreated", [False, True])
async def test_an_old_handle_writes_nothing(opened: Opener, recreated: bool) -> None:
    """After a delete, each write through a copy of before is `NotFound`, and resurrects nothing."""
    async with opened() as sessions:
        old = await a_full_session(sessions)
        await sessions.delete(ID)
        if recreated:
            await sessions.create(id=ID, state={"k": "new"})
        old.state["k"] = "old"
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: sessions.save(old),
            lambda: sessions.append(old, Event(kind="a")),
            lambda: sessions.truncate(old, after=0),
            lambda: sessions.replace_suffix(old, expected=[2], events=[]),
            lambda: sessions.bind(old, USER),
            lambda: sessions.label(old, {"a": "b"}),
            lambda: in_scope(sessions, old),
        ]
        for write in writes:
            with pytest.raises(NotFound):
                await write()
        found = await sessions.get(ID, events=9)
        assert (found is not None) is recreated
        if found is not None:
            assert (dict(found.state), found.events) == ({"k": "new", "app:motd": "hi"}, [])
        assert old.state["k"] == "old"
        assert old.modified


@pytest.mark.behaviour(18)
async def test_deleting_twice_is_fine(opened: Opener) -> None:
    """The first says that it was there, the second that it was not, and unknown ids are fine."""
    async with opened() as sessions:
        await a_full_session(sessions)
        assert await sessions.delete(ID) is True
        assert await sessions.delete(ID) is False
        assert await sessions.delete("unknown") is False


async def test_a_delete_amid_writes_wins(opened: Opener) -> None:
    """Appends, saves and creates of two managers around a delete: nothing half is left behind."""
    async with opened() as here, opened() as there:
        for number in range(10):
            id = f"s{number}"
            await here.create(id=id, state={"k": 0})
            copy = await there.require(id)
            copy.state["k"] = 1
            await asyncio.gather(
                here.append(id, Event(kind="a")),
                there.save(copy),
                here.delete(id),
                there.append(id, Event(kind="b")),
                here.append(id, Event(kind="c")),
                return_exceptions=True,
            )
            assert await there.get(id, expired=True) is None
            with pytest.raises(NotFound):
                await there.events(id)


async def test_a_removed_session_can_be_made_by_one_of_many(opened: Opener) -> None:
    """Ten creates of the id right after the delete: one makes it, nine are told it is there."""
    async with opened() as here, opened() as there:
        await a_full_session(here)
        outcomes = await asyncio.gather(
            here.delete(ID),
            *((here, there)[n % 2].create(id=ID, state={"n": n}) for n in range(10)),
            return_exceptions=True,
        )
        made = [outcome for outcome in outcomes if isinstance(outcome, Session)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, AlreadyExists)]
        assert len(made) <= 1
        assert len(made) + len(refused) == 10
        found = await here.get(ID)
        assert (found is None) == (not made)
        assert found is None or found.epoch == made[0].epoch


# ----------------------------------------------------------------------------------------- the file


def cells(file: Path) -> dict[str, set[str]]:
    """Return the text of every cell of every table of a SQLite file, by table."""
    with closing(apsw.Connection(str(file))) as db:
        tables = [
            name
            for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if name != "sqlite_sequence"
        ]
        return {
            table: {
                cell.decode("latin-1") if isinstance(cell, bytes) else str(cell)
                for row in db.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the file's own names
                for cell in row
            }
            for table in tables
        }


MARKS = (
    *(ID, USER, "the-state", "the-theme", "the-room", "the-role"),
    *("the-body", "the-delta", "the-key", "the-bytes"),
)
"""Text that nothing in the file contains but what belongs to the session or its user."""


def marked(file: Path) -> dict[str, set[str]]:
    """Return which marks are in which table."""
    return {
        table: {mark for mark in MARKS if any(mark in cell for cell in found)}
        for table, found in cells(file).items()
    }


@pytest.mark.behaviour(19)
@pytest.mark.parametrize("way", [way for way in WAYS if way != "create over it"])
async def test_no_row_of_the_file_holds_anything_of_it(tmp_path: Path, way: str) -> None:
    """Every cell of every table: counts, labels and claims hold no trace, nor does any tier.

    Only `forget` removes what the user shares: until then it is there for other sessions.
    """
    file, clock = tmp_path / "sessions.db", FakeClock()
    async with SessionManager.open(f"sqlite:///{file}", clock=clock) as sessions:
        await sessions.create(id="stranger", user="somebody", labels={"room": "red"})
        await a_full_session(sessions)
        assert set[str]().union(*marked(file).values()) == set(MARKS)
        await WAYS[way](sessions, clock)
        left = {table: marks for table, marks in marked(file).items() if marks}
        assert left == ({} if way == "forget" else {"tiers": {USER, "the-theme"}})
        assert await ids(sessions) == {"stranger"}
        store: Any = sessions.store
        assert await store.check() == []

"""Moving sessions out of and into a SQLite file: damage, connections, and what a check finds."""

from __future__ import annotations

import asyncio
import io
import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from tests.transfer.contents import CLOCK, fill, ids_of, opened

from sojourn import Closed, Event, SessionManager
from sojourn.errors import Corrupt, InvalidCursor
from sojourn.store import Restore, Walk
from sojourn.stores.sqlite import SqliteStore
from sojourn.stores.sqlite.restoring import STAGING
from sojourn.transfer import copy, export_sessions

if TYPE_CHECKING:
    from pathlib import Path

DAMAGES = {
    "a phase that is none": "UPDATE sessions SET phase = 'LOST' WHERE id = :id",
    "labels that are no JSON": "UPDATE sessions SET labels = '{' WHERE id = :id",
    "state that is no JSON": "UPDATE sessions SET state = '{' WHERE id = :id",
    "state that is no text": "UPDATE sessions SET state = CAST(x'7bff7d' AS TEXT) WHERE id = :id",
    "a user that is no text": "UPDATE sessions SET user = CAST(x'ff' AS TEXT) WHERE id = :id",
    "an event that is no text": """UPDATE events SET body = CAST(x'22ff22' AS TEXT)
        WHERE session = (SELECT row FROM sessions WHERE id = :id)""",
}


def damage(path: Path, sql: str, id: str) -> None:
    """Change the file behind the store's back."""
    with apsw.Connection(str(path)) as db:
        db.execute(sql, {"id": id})
        assert db.changes() > 0


@pytest.mark.parametrize("what", list(DAMAGES))
async def test_a_damaged_session_is_reported_and_hides_no_other(what: str, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with opened(f"sqlite:///{path}") as source, opened("memory://") as target:
        await fill(source)
        everything = await ids_of(source, "shop")
        bad = "shop-gapped"
        await copy(source, target, clock=CLOCK)
        damage(path, DAMAGES[what], bad)
        stream = io.BytesIO()
        exported = await export_sessions(source, stream, clock=CLOCK)
        assert (exported.sessions, exported.corrupt_count) == (len(everything) - 1, 1)
        assert isinstance(exported.corrupt[0], Corrupt)
        assert f'"id":"{bad}"'.encode() not in stream.getvalue()
        outcome = await copy(source, target, clock=CLOCK)
        assert (outcome.different, outcome.removed) == (1, 0)
        assert isinstance(outcome.refusals[0].error, Corrupt)
        assert await ids_of(target, "shop") == everything


async def test_unfinished_restores_are_nobodys_and_the_file_checks_out(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with opened(f"sqlite:///{path}") as store:
        sessions = SessionManager(store, app="shop", clock=CLOCK)
        s = await sessions.create(id="large", user="u", labels={"a": "b"}, exclusive=("a",))
        for _ in range(4):
            await sessions.append(s, Event(kind="k", body="x" * 600_000))
        parts = [part async for part in store.parts("shop", "large", CLOCK.now())]
        await sessions.delete("large")
        for part in parts[:-1]:
            await store.restore(Restore(snapshot=part, op=b"restore1", abandoned_at=CLOCK.now()))
        assert await store.check() == []  # type: ignore[attr-defined]  # a SQLite store can
        assert await sessions.count() == 0
        with apsw.Connection(str(path)) as db:
            assert db.execute("SELECT app FROM sessions").fetchall() == [(f"{STAGING}shop",)]
        await sessions.forget("u")
        with apsw.Connection(str(path)) as db:
            for table in ("sessions", "events", "counts", "documents", "labels", "claims"):
                assert not db.execute(f"SELECT count(*) FROM {table}").get, table  # noqa: S608 - our own names


KEPT = 8
"""Files that SQLite keeps open for the next connection while another one holds a lock."""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone will do


async def large(store: Any) -> None:
    sessions = SessionManager(store, app="shop", clock=CLOCK)
    s = await sessions.create(id="large")
    for _ in range(4):
        await sessions.append(s, Event(kind="k", body="x" * 600_000))


async def test_reading_parts_leaves_no_connection_open(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/app.db") as store:
        await large(store)
        before = open_files()
        for stop_after in (1, 2, 99) * 10:
            reading = store.parts("shop", "large", CLOCK.now())
            async for part in reading:
                if part.part + 1 == stop_after:
                    break
            await reading.aclose()
            assert open_files() <= before + KEPT


async def test_a_reader_that_is_cancelled_leaves_no_connection_open(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/app.db") as store:
        await large(store)
        before = open_files()

        async def read() -> None:
            async with aclosing(store.parts("shop", "large", CLOCK.now())) as reading:
                async for _ in reading:
                    pass

        for turns in (0, 1, 2, 3, 4, 5) * 6:
            task = asyncio.create_task(read())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert open_files() <= before + KEPT
        await store.delete(_delete("large"))


def _delete(id: str) -> Any:
    from sojourn.store import Delete

    return Delete(app="shop", id=id, now=CLOCK.now())


async def test_a_closed_store_gives_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "app.db")
    walk = Walk(app="shop", now=CLOCK.now())
    for opened_before in (False, True):
        for call in (store.apps("", 1), store.headers(walk), store.dump(walk)):
            with pytest.raises(Closed):
                await call
        with pytest.raises(Closed):
            await anext(store.parts("shop", "a", CLOCK.now()))
        if not opened_before:
            await store.open()
        await store.close()


@pytest.mark.parametrize("position", ["x", "t", "d:x:y"])
async def test_a_position_of_nowhere_is_refused(url: str, position: str) -> None:
    async with opened(url) as store:
        await fill(store)
        with pytest.raises(InvalidCursor):
            await store.dump(Walk(app="shop", now=CLOCK.now(), position="x"))
        if position != "t":
            with pytest.raises(InvalidCursor):
                await store.shared("shop", CLOCK.now(), position)

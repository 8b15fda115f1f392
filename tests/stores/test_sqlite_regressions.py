"""Faults of the SQLite store that were found once: each must not come back."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import apsw
import pytest

from sojourn import (
    DELETE,
    Closed,
    Corrupt,
    Event,
    Expiry,
    InvalidQuery,
    NewerSchema,
    Reaper,
    SessionManager,
    TooLarge,
)
from sojourn.stores import open_store
from sojourn.stores.sqlite import SqliteStore
from sojourn.stores.weighing import WEIGH_BYTES
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def edit(path: Path, statement: str) -> None:
    """Change the file behind everybody's back."""
    db = apsw.Connection(str(path))
    db.execute(statement)
    db.close()


async def test_a_file_that_became_newer_is_never_written_again(tmp_path: Path) -> None:
    """Every write is refused, not only the first, alone and in company."""
    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        s = await sessions.create(state={"a": 0})
        edit(path, "PRAGMA user_version=99")
        for n in range(3):
            s.state["a"] = n + 1
            with pytest.raises(NewerSchema):
                await sessions.save(s)
        writes = (sessions.create(id=f"s{n}") for n in range(4))
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {NewerSchema}
        found = await sessions.get(s.id)
        assert found is not None
        assert found.state["a"] == 0


async def test_opening_twice_at_once_is_opening_once(tmp_path: Path) -> None:
    """Both calls return, and the store works."""
    store = SqliteStore(tmp_path / "s.db")
    await asyncio.gather(store.open(), store.open(), store.open())
    async with SessionManager(store) as sessions:
        await sessions.create(id="s")
        assert await sessions.count() == 1
    await store.close()


async def test_closing_while_opening_stays_closed(tmp_path: Path) -> None:
    """A store that was closed is not brought back by an `open` under way."""
    store = SqliteStore(tmp_path / "s.db")
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(Closed):
        await opening
    with pytest.raises(Closed):
        await store.check()
    again = SqliteStore(tmp_path / "s.db")
    await again.open()
    assert await again.check() == []
    await again.close()


async def test_a_close_that_is_cancelled_is_completed_all_the_same(tmp_path: Path) -> None:
    """The next call waits for its end; no thread and no gate is left."""
    store = SqliteStore(tmp_path / "s.db")
    await store.open()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await store.close()
    assert store._writer is not None
    assert not store._writer._thread.is_alive()
    assert not (tmp_path / "s.db-wal").exists()


async def test_a_header_in_a_callers_hands_changes_nothing_stored(tmp_path: Path) -> None:
    """Labels that a caller gets are not the ones that the writer keeps."""
    async with SessionManager.open(f"sqlite:///{tmp_path / 's.db'}") as sessions:
        for labels in ({"a": "1"}, {}):
            s = await sessions.create(labels=labels)
            s.header.labels["evil"] = "x"
            await sessions.label(s, {"b": "2"})
            s.header.labels["worse"] = "x"
            await sessions.save(s)
            found = await sessions.require(s.id)
            assert dict(found.labels) == {**labels, "b": "2"}
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # SQLite has it


@pytest.mark.behaviour(27)
async def test_a_corrupt_record_can_be_erased_and_keeps_nobody_else_alive(tmp_path: Path) -> None:
    """With hooks or without, a sweep ends the others; `delete` and `forget` remove the damage."""
    path, clock = tmp_path / "s.db", FakeClock()
    async with SessionManager.open(f"sqlite:///{path}", clock=clock) as sessions:
        for hooked in (False, True):
            for id in ("a", "bad", "z", "gone"):
                expiry = Expiry(idle=10) if id != "gone" else None
                await sessions.create(id=id, user="u", labels={"k": "v"}, expiry=expiry)
            edit(path, "UPDATE sessions SET labels = '{' WHERE id IN ('bad', 'gone')")
            clock.advance(11)
            if hooked:
                sessions.on_end(lambda _session, _reason: asyncio.sleep(0))
            assert await Reaper(sessions).sweep() == (2 if hooked else 3)
            with pytest.raises(Corrupt):
                await sessions.get("gone")
            assert await sessions.delete("gone")
            assert await sessions.forget("u") == (1 if hooked else 0)
            assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it has it


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE sessions SET state = NULL",
        "UPDATE sessions SET revision = NULL",
        "UPDATE events SET body = NULL",
        "UPDATE documents SET created_at = NULL",
    ],
)
async def test_a_row_without_what_every_row_has_is_corrupt(tmp_path: Path, damage: str) -> None:
    """A torn page can hold half a row, which SQLite reads as one that ends in NULLs."""

    async def read(sessions: SessionManager) -> None:
        await sessions.require("s", events=10)
        await sessions.documents("s").list("c")

    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        session = await sessions.create(id="s", state={"a": 1})
        await sessions.append(session, Event(kind="k"))
        await sessions.documents("s").put("c", "d", b"x")
        await read(sessions)
    db = sqlite3.connect(path)
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'")
    db.commit()
    db.close()
    edit(path, damage)
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        with pytest.raises(Corrupt):
            await read(sessions)


async def test_expired_documents_go_faster_than_a_batch_of_sessions(tmp_path: Path) -> None:
    """One sweep removes them though no session is due."""
    clock = FakeClock()
    async with SessionManager.open(f"sqlite:///{tmp_path / 's.db'}", clock=clock) as sessions:
        documents = sessions.documents()
        await asyncio.gather(*(documents.put("c", f"k{n}", b"x", ttl=1) for n in range(200)))
        clock.advance(2)
        await Reaper(sessions, batch=8).sweep()
        db = apsw.Connection(str(tmp_path / "s.db"))
        assert db.execute("SELECT count(*) FROM documents").get == 0
        db.close()


@pytest.mark.parametrize("how", ["delete", "forget", "sweep"])
async def test_a_damaged_session_is_removed_though_it_is_watched(tmp_path: Path, how: str) -> None:
    """What its watchers had not read is lost on them; that keeps nobody from erasing it."""
    path, clock = tmp_path / "s.db", FakeClock()
    async with SessionManager.open(f"sqlite:///{path}", clock=clock) as sessions:
        await sessions.create(id="s", user="u", events=[Event(kind="k")], expiry=Expiry(idle=10))
        seen = asyncio.Event()

        async def watch() -> None:
            async for _ in sessions.watch("s"):
                seen.set()

        watching = asyncio.create_task(watch())
        await seen.wait()
        db = apsw.Connection(str(path))
        db.execute("UPDATE sessions SET labels = '{' WHERE id = 's'")
        if how == "delete":
            assert await sessions.delete("s") is True
        elif how == "forget":
            assert await sessions.forget("u") == 1
        else:
            clock.advance(11)
            await Reaper(sessions).sweep()
        assert db.execute("SELECT count(*) FROM sessions").get == 0
        db.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_small_writes_do_not_outgrow_a_shared_tier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is refused in the end, and all after it, until there is room; bytes count."""
    monkeypatch.setattr("sojourn.stores.sqlite.gathering.MAX_STATE", 64 * 1024)
    async with SessionManager.open(f"sqlite:///{tmp_path / 's.db'}") as sessions:
        await sessions.share({"app:big": "é" * (24 * 1024)})
        for n in range(16):
            try:
                await sessions.share({f"app:k{n}": "é" * 1024})
            except TooLarge:
                break
        size = sum(len(value.encode()) for value in (await sessions.app_state()).values())
        assert 60 * 1024 < size < (64 + WEIGH_BYTES // 1024) * 1024
        for _ in range(4):
            with pytest.raises(TooLarge):
                await sessions.share({"app:more": "é" * 1024})
        await sessions.share({"app:big": DELETE})
        await sessions.share({"app:more": "é" * 1024})


async def test_a_shared_tier_is_as_large_as_its_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly the limit fits, a byte more does not."""
    monkeypatch.setattr("sojourn.stores.sqlite.gathering.MAX_STATE", 8 * 1024)
    async with SessionManager.open(f"sqlite:///{tmp_path / 's.db'}") as sessions:
        around = len('{"a":"","b":"é"}'.encode())
        await sessions.share({"app:b": "é"})
        with pytest.raises(TooLarge):
            await sessions.share({"app:a": "x" * (8 * 1024 - around + 1)})
        await sessions.share({"app:a": "x" * (8 * 1024 - around)})


@pytest.mark.parametrize("url", ["sqlite:///a#b.db", "sqlite:///a.db?x", "sqlite:///a.db?x=1"])
def test_what_a_url_says_is_not_dropped_in_silence(url: str) -> None:
    """A fragment would name another file; an unknown option is refused, with a value or not."""
    with pytest.raises(InvalidQuery):
        open_store(url)

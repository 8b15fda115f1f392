"""A newer Sojourn turns an older file into its own in place: once, whole, and with all data."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import apsw
import pytest
from tests.crash.failing_vfs import FailingVFS, Fault
from tests.crash.power_loss import crash_image
from tests.crash.recording_vfs import RecordingVFS
from tests.faults.actors import opened
from tests.faults.processes import Worker
from tests.faults.soak import Progress, count, scaled
from tests.faults.workers.migrator import SECOND

from sojourn import Event, NewerSchema, SessionManager, Unavailable
from sojourn.stores.sqlite import SqliteStore, schema

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = count(60, 1_000)
OLD = schema.MIGRATIONS
NEW = (*OLD, SECOND)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the one with the newer Sojourn."""
    monkeypatch.setattr(schema, "MIGRATIONS", NEW)


async def fill(path: Path, sessions_: int = 1) -> None:
    """Make a file of the old version with some sessions."""
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        for number in range(sessions_):
            id = f"s{number or ''}"
            await sessions.create(id=id, user="u", state={"n": number, "user:u": 1, "app:a": 1})
            for body in range(5):
                await sessions.append(id, Event(kind="op", body=[number, body, "x" * 300]))
            await sessions.documents(id).put("c", "k", b"document" * 100)


async def contents(path: Path) -> Any:
    """Return everything in a file, its version last."""
    sessions = await opened(path)
    store = cast("SqliteStore", sessions.store)
    found: list[Any] = [await store.check()]
    for session in (await sessions.list(order="created")).items:
        events = [event.body for event in await sessions.events(session.id)]
        document = await sessions.documents(session.id).get("c", "k")
        found.append((session.id, dict(session.state), events, document))
    await store.close()
    return found


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


@pytest.mark.behaviour(153)
async def test_an_older_file_is_migrated_in_place_with_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same path, the same sessions, events, documents and shared state, in the new version."""
    path = tmp_path / "a.db"
    await fill(path, 20)
    before = await contents(path)
    assert (before[0], version_of(path)) == ([], len(OLD))
    monkeypatch.setattr(schema, "MIGRATIONS", NEW)
    assert await contents(path) == before
    assert version_of(path) == len(NEW)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT DISTINCT mood FROM sessions").fetchall() == [("calm",)]


async def test_a_new_file_takes_every_step(tmp_path: Path, newer: None) -> None:
    """A file that is made by the newer version has been through all steps, each once."""
    path = tmp_path / "a.db"
    await fill(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM migrated").fetchone() == (1,)
    assert version_of(path) == len(NEW)


async def test_an_older_sojourn_refuses_the_migrated_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a newer version has migrated is `NewerSchema` to the older one, and stays as it is."""
    path = tmp_path / "a.db"
    monkeypatch.setattr(schema, "MIGRATIONS", NEW)
    await fill(path)
    monkeypatch.setattr(schema, "MIGRATIONS", OLD)
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match="upgrade Sojourn"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_running_older_process_refuses_a_file_migrated_under_it(tmp_path: Path) -> None:
    """A process that had the file open before may not write what the new version forbids."""
    path = tmp_path / "a.db"
    await fill(path)
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.append("s", Event(kind="op"))
        with Worker("migrator", path) as migrator:
            assert migrator.hear() == "ready"
            migrator.say()
            assert migrator.hear() == 7
        with pytest.raises(NewerSchema):
            await sessions.append("s", Event(kind="op"))


async def test_a_step_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle of a step: typed, and the old version opens as if nothing had been."""
    path = tmp_path / "a.db"
    await fill(path)
    before = await contents(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*NEW, "DROP TABLE events; SELECT * FROM nowhere"))
    with pytest.raises(Unavailable, match="nowhere"):
        await SqliteStore(path).open()
    monkeypatch.setattr(schema, "MIGRATIONS", OLD)
    assert await contents(path) == before
    assert version_of(path) == len(OLD)


def test_processes_that_open_at_once_migrate_once(tmp_path: Path) -> None:
    """Of several new processes on an old file one migrates, and all of them go on with it."""
    path = tmp_path / "a.db"
    asyncio.run(fill(path))
    workers = [Worker("migrator", path) for _ in range(4)]
    try:
        assert [worker.hear() for worker in workers] == ["ready"] * 4
        for worker in workers:
            worker.say()
        assert sorted(worker.hear() for worker in workers) == [6, 7, 8, 9]
        assert [worker.finish() for worker in workers] == [0] * 4
    finally:
        for worker in workers:
            worker.kill()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM migrated").fetchone() == (1,)
    assert version_of(path) == len(NEW)


@scaled
def test_a_power_loss_during_a_migration_leaves_one_version_whole(
    tmp_path: Path, newer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image has the old version or the new one, with all data; opened, it is the new one."""
    path = tmp_path / "live" / "a.db"
    path.parent.mkdir()
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", OLD)
        asyncio.run(fill(path, 10))
        before = asyncio.run(contents(path))
    recorder = RecordingVFS(path.parent)

    async def migrate() -> None:
        store = SqliteStore(path, vfs=recorder.name)
        await store.open()
        await store.close()

    asyncio.run(migrate())
    recorder.close()
    trace = recorder.trace
    progress = Progress("power loss during a migration", IMAGES)
    versions: Counter[int] = Counter()
    for seed in range(IMAGES):
        rng = random.Random(seed)
        shutil.rmtree(tmp_path / "image", ignore_errors=True)
        crash_image(trace, rng.randint(0, len(trace)), rng, tmp_path / "image")
        image = tmp_path / "image" / "a.db"
        with closing(apsw.Connection(str(image))) as db:
            versions[int(db.pragma("user_version"))] += 1
        assert asyncio.run(contents(image)) == before
        assert version_of(image) == len(NEW)
        progress.at(seed + 1, versions=dict(versions))
    old, new = versions[len(OLD)], versions[len(NEW)]
    progress.figure("migration_power_loss", images=IMAGES, old=old, new=new, broken=0)
    assert set(versions) == {len(OLD), len(NEW)}, "the images are all of one version"


async def test_an_io_error_during_a_migration_leaves_one_version_whole(
    tmp_path: Path, newer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write or sync fails: a typed error or a migrated file; the next open is fine."""
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", OLD)
        await fill(tmp_path / "old.db")
        before = await contents(tmp_path / "old.db")
    vfs = FailingVFS()
    failed = 0
    for kind in ("write", "sync"):
        for nth in range(1, 1_000):
            path = tmp_path / f"{kind}{nth}.db"
            shutil.copy(tmp_path / "old.db", path)
            vfs.arm(Fault("write" if kind == "write" else "sync", nth))
            store = SqliteStore(path, vfs=vfs.name)
            try:
                await store.open()
            except Unavailable:
                failed += 1
            hits = vfs.hits
            vfs.disarm()
            await store.close()
            assert await contents(path) == before
            assert version_of(path) == len(NEW)
            if not hits:
                break
    vfs.close()
    assert failed > 3

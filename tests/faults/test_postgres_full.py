"""The server's disk is full: writes say so and leave nothing, and go on once there is space.

The disk is a small file system in memory: of the tables alone, as a tablespace, where the server
says that it is full; or of everything, where its own log does not fit any more, and it stops.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from tests.faults.disks import SmallDisk, small_disk
from tests.faults.soak import Progress, count, scaled
from tests.servers.postgres import NOBODY, PostgresServer

from sojourn import Event, SessionManager, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sojourn import Session

MEGABYTE = 1024 * 1024
TABLES = 24 * MEGABYTE
EVERYTHING = 160 * MEGABYTE
ROUNDS = count(1, 10)


@pytest.fixture
def mounted() -> Iterator[Callable[[int], SmallDisk]]:
    """Makes a small disk that the server may write to."""
    folder = Path(tempfile.mkdtemp(prefix="sojourn-disk-"))  # where the server may look
    folder.chmod(0o755)
    disks: list[Any] = []

    def make(size: int) -> SmallDisk:
        mount = small_disk(folder / "disk", size)
        disks.append(mount)
        disk = mount.__enter__()
        if not isinstance(disk, SmallDisk):
            pytest.skip("nothing may be mounted here")
        shutil.chown(disk.folder, NOBODY, NOBODY)
        return disk

    yield make
    for mount in disks:
        mount.__exit__(None, None, None)
    shutil.rmtree(folder)


async def contents(sessions: SessionManager) -> Any:
    """Return what a reader sees, over all kinds of reads."""
    session = await sessions.require("s", events=100_000)
    documents = await sessions.documents("s").list("c")
    return (
        dict(session.state),
        [event.body["n"] for event in session.events],
        [item.id for item in (await sessions.list(limit=500)).items],
        await sessions.count(),
        [document.key for document in documents],
    )


@scaled
def test_a_full_disk_of_the_tables_refuses_writes_whole(
    mounted: Callable[[int], SmallDisk],
) -> None:
    disk = mounted(TABLES)
    server = PostgresServer()
    try:
        server.start()
        asyncio.run(fill_tables(server, disk))
    finally:
        server.stop()


async def fill_tables(server: PostgresServer, disk: SmallDisk) -> None:
    db = await asyncpg.connect(server.url())
    await db.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
    await db.execute("CREATE DATABASE small TABLESPACE small TEMPLATE template0")
    await db.close()
    url = server.url().removesuffix("/postgres") + "/small?timeout=20"
    acknowledged = refused = 0
    progress = Progress("filled", ROUNDS)
    async with SessionManager.open(url) as sessions:
        session = await sessions.create(id="s", user="u", state={"n": -1})
        await sessions.documents("s").put("c", "small", b"x")
        for number in range(ROUNDS):
            disk.fill(leave=MEGABYTE)
            error: BaseException | None = None
            while error is None:
                error = await appended(sessions, session, acknowledged)
                acknowledged += error is None
            assert "space" in str(error)
            assert isinstance(error, StorageFull)
            assert isinstance(error.__cause__, asyncpg.DiskFullError)
            before = await contents(sessions)
            for _ in range(5):
                refused += isinstance(await appended(sessions, session, acknowledged), StorageFull)
                with pytest.raises(StorageFull):
                    await sessions.documents("s").put(
                        "c", "large", secrets.token_bytes(4 * MEGABYTE)
                    )
                assert await contents(sessions) == before
            disk.free()
            assert await appended(sessions, session, acknowledged) is None
            acknowledged += 1
            state, bodies, *rest = await contents(sessions)
            assert bodies == list(range(acknowledged))
            assert state == {"n": acknowledged - 1}
            assert rest == [["s"], 1, ["small"]]
            assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can
            await shortened(sessions, session, url)
            progress.at(number + 1)
    figure = {"rounds": ROUNDS, "acknowledged": acknowledged, "refused": refused, "lost": 0}
    progress.figure("postgres_full", **figure)


async def appended(sessions: SessionManager, session: Session, number: int) -> BaseException | None:
    """Append an event of 20 KB; return what it is refused with."""
    event = Event(kind="op", body={"n": number, "text": secrets.token_hex(10_000)})
    (outcome,) = await asyncio.gather(
        sessions.append(session, event, state={"n": number}), return_exceptions=True
    )
    return outcome if isinstance(outcome, BaseException) else None


async def shortened(sessions: SessionManager, session: Session, url: str) -> None:
    """Put the same events in short, and give back their space."""
    events = await sessions.events("s")
    await sessions.truncate(session, after=0)
    for at in range(0, len(events), 500):
        short = [Event(kind="op", body={"n": each.body["n"]}) for each in events[at : at + 500]]
        await sessions.append(session, *short)
    db = await asyncpg.connect(url.partition("?")[0])
    await db.execute("VACUUM FULL sojourn.events")
    await db.close()


@pytest.mark.soak
def test_a_server_without_space_for_its_log_loses_nothing_acknowledged(
    mounted: Callable[[int], SmallDisk],
) -> None:
    disk = mounted(EVERYTHING)
    server = PostgresServer(
        inside=disk.folder, settings={"max_wal_size": "32MB", "min_wal_size": "32MB"}
    )
    try:
        server.start()
        asyncio.run(fill_log(server, disk))
    finally:
        server.stop()


async def fill_log(server: PostgresServer, disk: SmallDisk) -> None:
    acknowledged: list[int] = []
    async with SessionManager.open(server.url(timeout=4)) as sessions:
        session = await sessions.create(id="s")
        disk.fill(leave=8 * MEGABYTE)
        for number in range(10_000):
            body = {"n": number, "text": secrets.token_hex(50_000)}
            try:
                await sessions.append(session, Event(kind="op", body=body))
            except Unavailable:
                break
            acknowledged.append(number)
        assert acknowledged
        assert len(acknowledged) < 10_000
    disk.free()
    server.kill()
    server.launch()
    await asyncio.to_thread(server.wait_until_ready)
    async with SessionManager.open(server.url()) as sessions:
        found = [event.body["n"] for event in await sessions.events("s")]
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) <= len(acknowledged) + 1
        await sessions.append("s", Event(kind="op", body={"n": -1}))
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can

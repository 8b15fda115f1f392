"""The disk is full: writes say so and leave nothing, reads go on, and so do writes with space."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import apsw
import pytest
from tests.faults.actors import opened
from tests.faults.disks import FailingDisk, SmallDisk, small_disk

from sojourn import Event, SessionManager, StorageFull
from sojourn.stores.sqlite import SqliteStore, writer
from sojourn.stores.sqlite.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.disks import Disk

SIZE = 4 * 1024 * 1024


@pytest.fixture(params=["mounted", "failing"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A real small disk where one may be mounted, and always one that says it is full."""
    if request.param == "mounted":
        with small_disk(tmp_path / "disk", SIZE) as disk:
            yield disk
    else:
        (tmp_path / "disk").mkdir()
        with closing(FailingDisk(tmp_path / "disk")) as disk:
            yield disk


async def contents(sessions: SessionManager) -> Any:
    """Return what a reader sees, over all kinds of reads."""
    session = await sessions.require("s", events=100)
    documents = sessions.documents("s")
    return (
        dict(session.state),
        [event.body for event in session.events],
        [session.id for session in (await sessions.list()).items],
        await sessions.count(),
        [document.key for document in await documents.list("c")],
        await sessions.app_state(),
    )


async def test_a_full_disk_refuses_writes_whole_and_serves_reads(disk: Disk) -> None:
    """`StorageFull`, nothing half written, reads work; with space again, writes do too."""
    sessions = await opened(disk.folder / "a.db", vfs=disk.vfs)
    store = cast("SqliteStore", sessions.store)
    session = await sessions.create(id="s", user="u", state={"n": 0})
    await sessions.append("s", Event(kind="op", body="first"), state={"n": 1, "app:n": 1})
    await sessions.documents("s").put("c", "small", b"x")
    before = await contents(sessions)
    disk.fill()
    for _ in range(3):
        big = Event(kind="op", body="x" * 200_000)
        with pytest.raises(StorageFull):
            await sessions.append("s", big, state={"n": 2, "user:n": 2, "app:n": 2})
        with pytest.raises(StorageFull):
            await sessions.documents("s").put("c", "big", b"x" * 200_000)
        with pytest.raises(StorageFull):
            await sessions.create(id="other", state={"big": "x" * 200_000})
        session.state["big"] = "x" * 200_000
        with pytest.raises(StorageFull):
            await sessions.save(session)
        assert session.modified, "what was not stored is still to be saved"
        assert await contents(sessions) == before
    assert await store.check() == []
    disk.free()
    stored = await sessions.append("s", Event(kind="op", body="second"), state={"n": 2})
    await sessions.save(session)
    assert stored.seq == 2
    await store.close()
    again = await opened(disk.folder / "a.db")
    state, bodies, *_ = await contents(again)
    assert bodies == ["first", "second"]
    assert (state["n"], len(state["big"])) == (2, 200_000)
    assert await cast("SqliteStore", again.store).check() == []
    await again.store.close()


async def test_a_disk_that_fills_up_bit_by_bit_keeps_what_was_acknowledged(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the space ends, also while the log is moved into the file: whole or not at all."""
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 30)
    sessions = await opened(disk.folder / "a.db", vfs=disk.vfs)
    await sessions.create(id="s", user="u")
    done = [0]
    for leave in range(0, 40 * 4096, 3 * 4096):
        disk.fill(leave=leave)
        number = done[-1] + 1
        try:
            while number < done[-1] + 60:
                event = Event(kind="op", body=[number, "x" * 3000])
                await sessions.append("s", event, state={"n": number, "user:n": number})
                done.append(number)
                number += 1
        except StorageFull:
            pass
        disk.free()
        session = await sessions.require("s")
        found = session.state.get("n", 0), session.state.get("user:n", 0)
        assert found == (done[-1], done[-1])
        delta = {"n": number, "user:n": number}
        await sessions.append("s", Event(kind="op", body=[number, ""]), state=delta)
        done.append(number)
    await sessions.store.close()
    again = await opened(disk.folder / "a.db")
    assert [event.body[0] for event in await again.events("s")] == done[1:]
    assert await cast("SqliteStore", again.store).check() == []
    await again.store.close()


async def test_a_new_file_on_a_full_disk_is_storage_full_and_works_later(disk: Disk) -> None:
    """Opening needs space: without it, it is `StorageFull`; with it, the same path opens."""
    disk.fill()
    store = SqliteStore(disk.folder / "a.db", vfs=disk.vfs)
    for _ in range(2):
        with pytest.raises(StorageFull):
            await store.open()
    disk.free()
    await store.open()
    await SessionManager(store).create(id="s")
    await store.close()


async def test_an_existing_file_can_be_read_on_a_full_disk(disk: Disk) -> None:
    """A file that was opened in time is read as ever, and written again once there is space."""
    first = await opened(disk.folder / "a.db", vfs=disk.vfs)
    await first.create(id="s", user="u", state={"n": 1})
    await first.store.close()
    again = await opened(disk.folder / "a.db", vfs=disk.vfs)
    disk.fill()
    assert (await again.require("s")).state["n"] == 1
    assert await again.count() == 1
    with pytest.raises(StorageFull):
        await again.append("s", Event(kind="op", body="x" * 200_000))
    disk.free()
    await again.append("s", Event(kind="op"))
    await again.store.close()


async def test_no_space_for_the_index_of_the_log_is_a_full_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its growth fails with an I/O error in SQLite's words; it is `StorageFull`, no broken disk."""

    def grow(_self: Batch) -> None:
        raise apsw.exception_for(apsw.SQLITE_IOERR_SHMSIZE)

    sessions = await opened(tmp_path / "a.db")
    await sessions.create(id="s")
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "commit_all", grow)
        with pytest.raises(StorageFull):
            await sessions.append("s", Event(kind="op"))
    assert (await sessions.append("s", Event(kind="op"))).seq == 1
    await sessions.store.close()


async def test_the_index_of_the_log_meets_a_really_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log grows past what its index holds while the disk has room for pages but no index."""
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 1_000_000)
    monkeypatch.setattr(writer, "IDLE_CHECKPOINT_PAGES", 1_000_000)
    with small_disk(tmp_path / "disk", 40 * 1024 * 1024) as disk:
        sessions = await opened(disk.folder / "a.db", vfs=disk.vfs)
        await sessions.create(id="s")
        await sessions.documents("s").put("c", "k", b"x" * 4040 * 4080)
        refused = 0
        done = 0
        for _ in range(40):
            disk.fill(leave=6 * 4096)
            try:
                await sessions.append("s", Event(kind="op", body=done))
            except StorageFull:
                refused += 1
            else:
                done += 1
            disk.free()
        assert [event.body for event in await sessions.events("s")] == list(range(done))
        assert done > 0
        if isinstance(disk, SmallDisk):
            assert refused > 0
        await sessions.append("s", Event(kind="op", body=done))
        assert await cast("SqliteStore", sessions.store).check() == []
        await sessions.store.close()

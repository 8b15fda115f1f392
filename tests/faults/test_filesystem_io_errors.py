"""Every call of the system fails once: it is told, and nothing acknowledged is lost or half."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.crash.failing_disk import CALLS, WRITING, FailingDisk
from tests.faults.actors import Appender, Founder, Maker, Trimmer, judge, opened_files
from tests.faults.disks import small_disk
from tests.faults.soak import Progress, count, scaled

from sojourn import Closed, Event, SojournError, StorageFull, Unavailable
from sojourn.stores.filesystem import FilesystemStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.actors import Actor

    from sojourn import SessionManager

STRIDE = count(6, 1)
"""In the short form every sixth call fails in each run; which ones differs between the errors."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where a sync costs nothing."""
    shm = Path("/dev/shm")  # noqa: S108 - memory is enough for files that nobody keeps
    made = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
    yield Path(made)
    shutil.rmtree(made)


class Told(NamedTuple):
    """What a run led to: its actors, how many steps each was told are done, and the errors."""

    actors: list[Actor]
    done: dict[str, int]
    errors: list[SojournError]


async def work(path: Path, disk: FailingDisk) -> Told:
    """Do some of everything, one after the other; whatever is refused is noted."""
    actors: list[Actor] = [Founder(), Appender("a"), Trimmer("t"), Maker("m")]
    told = Told(actors, dict.fromkeys((actor.name for actor in actors), 0), [])
    broken: set[str] = set()
    for _ in range(2):
        try:
            sessions = await opened_files(path, disk=disk)
        except SojournError as error:
            told.errors.append(error)
            continue
        try:
            await steps(sessions, told, broken)
        except SojournError as error:
            told.errors.append(error)
        await sessions.store.close()
    return told


async def steps(sessions: SessionManager, told: Told, broken: set[str]) -> None:
    """Do the steps of all actors, and compact in the middle."""
    store: Any = sessions.store
    founder, *others = told.actors
    for number in range(8):
        for actor in (founder,) if founder.left == [False] else others:
            if actor.name in broken:
                continue
            try:
                await actor.step(sessions)
            except SojournError as error:
                told.errors.append(error)
                broken.add(actor.name)  # what it knows of the store may be old now
            else:
                told.done[actor.name] = len(actor.left) - 1
        if number == 4:
            await store.compact()


async def judged(path: Path, told: Told) -> list[str]:
    """Open the folder on a disk that works and return what is wrong."""
    sessions = await opened_files(path)
    store: Any = sessions.store
    wrong = [f"check: {words}" for words in await store.check()]
    for actor in told.actors:
        verdict = judge(actor, await actor.observe(sessions), told.done[actor.name])
        if verdict != "ok":
            wrong.append(f"{actor.name} is {verdict}")
    await store.close()
    return wrong


@scaled
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EACCES])
async def test_every_call_may_fail_once(folder: Path, error: int) -> None:
    """Whichever call fails, errors are ours, and a store on a disk that works has everything."""
    disk = FailingDisk()
    told = await work(folder / "whole", disk)
    assert told.errors == []
    assert set(disk.made) >= set(CALLS) - {"truncate", "remove_folder"}
    calls = len(disk.made)
    progress = Progress(f"I/O errors {errno.errorcode[error]}", calls)
    refused = 0
    for at in range(error % STRIDE, calls, STRIDE):
        disk = FailingDisk()
        disk.arm(at, error)
        path = folder / str(at)
        told = await work(path, disk)
        disk.disarm()
        assert disk.failed, "the call to fail was never made"
        where = f"call {at} ({disk.failed[0]}) failed: {told.errors}"
        assert await judged(path, told) == [], where
        refused += bool(told.errors)
        shutil.rmtree(path)
        progress.at(at)
    assert refused > 0
    progress.figure(f"files_io_errors_{errno.errorcode[error]}", calls=calls, refused=refused)


async def test_a_failed_sync_poisons_the_app_until_it_is_opened_again(folder: Path) -> None:
    """After it nothing is written: a sync that is repeated may lie. Opening again works."""
    disk = FailingDisk()
    sessions = await opened_files(folder / "s", disk=disk)
    await sessions.create(id="s", state={"n": 1})
    disk.arm(0, errno.EIO, ("sync",))
    with pytest.raises(Unavailable) as caught:
        await sessions.append("s", Event(kind="op", body=1))
    assert isinstance(caught.value.__cause__, OSError)
    calls = len(disk.made)
    for _ in range(2):
        with pytest.raises(Unavailable, match="the disk failed"):
            await sessions.append("s", Event(kind="op", body=2))
        with pytest.raises(Unavailable, match="the disk failed"):
            await sessions.get("s")
    assert len(disk.made) == calls, "the disk was asked again"
    await sessions.store.close()
    again = await opened_files(folder / "s")
    assert (await again.require("s")).state["n"] == 1
    assert await again.events("s") == []
    assert (await again.append("s", Event(kind="op", body=3))).seq == 1
    await again.store.close()


async def test_a_full_disk_refuses_writes_whole_and_serves_reads(folder: Path) -> None:
    """`StorageFull`, nothing half-written, reads work; with space again, writes do too."""
    disk = FailingDisk()
    sessions = await opened_files(folder / "s", disk=disk)
    await sessions.create(id="s", user="u", state={"n": 0})
    await sessions.append("s", Event(kind="op", body="first"), state={"app:n": 1})
    for _ in range(3):
        disk.arm(0, errno.ENOSPC, WRITING, forever=True)
        with pytest.raises(StorageFull):
            await sessions.append("s", Event(kind="op", body="second"), state={"user:n": 2})
        with pytest.raises(StorageFull):
            await sessions.create(id="other")
        with pytest.raises(StorageFull):
            await sessions.store.compact()  # type: ignore[attr-defined]  # this store's own
        disk.disarm()
        session = await sessions.require("s", events=10)
        assert [event.body for event in session.events] == ["first"]
        assert dict(session.state) == {"n": 0, "app:n": 1}
        assert await sessions.count() == 1
    assert (await sessions.append("s", Event(kind="op", body="second"))).seq == 2
    await sessions.store.close()
    again = await opened_files(folder / "s")
    assert [event.body for event in await again.events("s")] == ["first", "second"]
    await again.store.close()


async def test_a_really_full_disk_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """Wherever the space ends: whole or not at all, and it goes on once there is space."""
    with small_disk(tmp_path / "disk", 2 * 1024 * 1024) as disk:
        if disk.vfs is not None:
            pytest.skip("no file system may be mounted here; the failing disk stands for it")
        sessions = await opened_files(disk.folder / "s")
        await sessions.create(id="s")
        done: list[int] = []
        number = 0
        for leave in range(0, 20 * 4096, 3 * 4096):
            disk.fill(leave=leave)
            try:
                for _ in range(30):
                    number += 1
                    await sessions.append("s", Event(kind="op", body=[number, "x" * 3000]))
                    done.append(number)
            except StorageFull:
                pass
            disk.free()
            assert [event.body[0] for event in await sessions.events("s")] == done
        await sessions.store.close()
        again = await opened_files(disk.folder / "s")
        store: Any = again.store
        assert [event.body[0] for event in await again.events("s")] == done
        assert await store.check() == []
        await store.close()


async def test_a_store_that_could_not_be_opened_can_be_opened_later(folder: Path) -> None:
    """A failed `open` leaves the store as it was; the same one opens once the disk works."""
    disk = FailingDisk()
    store = FilesystemStore(folder / "s", disk=disk)
    for name in ("make_folder", "sync", "rename", "sync_folder"):
        disk.arm(0, errno.EIO, (name,))
        with pytest.raises(Unavailable):
            await store.open()
    await store.open()
    await store.close()
    with pytest.raises(Closed):
        await store.open()

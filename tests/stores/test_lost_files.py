"""Files that are removed, moved or replaced under an open store: no write is acknowledged there."""

from __future__ import annotations

import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from sojourn import Event, SessionManager, Unavailable
from sojourn.mounts import Whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def removed(place: Path) -> None:
    """Remove a file or a folder."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()


def moved(place: Path) -> None:
    """Give it another name."""
    place.rename(place.with_name("elsewhere"))


def replaced(place: Path) -> None:
    """Put a copy in its place, as who restores a backup does."""
    copy = place.with_name("copy")
    if place.is_dir():
        shutil.copytree(place, copy)
        shutil.rmtree(place)
    else:
        shutil.copy(place, copy)
    copy.rename(place)


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
@pytest.mark.parametrize("lose", [removed, moved, replaced])
async def test_nothing_is_acknowledged_that_nobody_else_would_find(
    tmp_path: Path, scheme: str, lose: Callable[[Path], None]
) -> None:
    """The store says so until it is opened again; then it is what is there by now."""
    place = tmp_path / "store"
    url = f"{scheme}:///{place}"
    async with SessionManager.open(url) as sessions:
        s = await sessions.create(events=[Event(kind="k")])
        lose(place)
        for _ in range(2):
            with pytest.raises(Unavailable, match="removed, moved or replaced"):
                await sessions.append(s, Event(kind="k"))
        assert s.revision == 1
    async with SessionManager.open(url) as sessions:
        again = await sessions.create(events=[Event(kind="k")])
        assert len(await sessions.events(again.id)) == 1


@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("lose", [removed, moved, replaced])
async def test_nothing_is_written_to_a_log_that_was_lost(
    tmp_path: Path, end: str, lose: Callable[[Path], None]
) -> None:
    """Who opens the file next would begin another one. What was in it is kept by the closing."""
    url = f"sqlite:///{tmp_path / 'store'}"
    async with SessionManager.open(url) as sessions:
        s = await sessions.create(events=[Event(kind="k")])
        lose(tmp_path / f"store{end}")
        with pytest.raises(Unavailable, match="removed, moved or replaced"):
            await sessions.append(s, Event(kind="k"))
    async with SessionManager.open(url) as sessions:
        assert len(await sessions.events(s.id)) == 1


async def test_another_library_of_this_process_takes_the_log_along(tmp_path: Path) -> None:
    """It sees no locks of ours and removes the log as the last one does; nothing is lost."""
    url = f"sqlite:///{tmp_path / 'store'}"
    async with SessionManager.open(url) as sessions:
        s = await sessions.create(events=[Event(kind="k")])
        other = sqlite3.connect(tmp_path / "store")
        assert other.execute("SELECT count(*) FROM events").fetchone() == (1,)
        other.close()
        assert not (tmp_path / "store-wal").exists()
        with pytest.raises(Unavailable, match="removed, moved or replaced"):
            await sessions.append(s, Event(kind="k"))
    async with SessionManager.open(url) as sessions:
        assert len(await sessions.events(s.id)) == 1


@pytest.mark.parametrize("lose", [removed, moved, replaced])
async def test_the_files_of_one_app_are_looked_after_on_their_own(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    """Writes to the other apps of the folder go on."""
    url = f"file:///{tmp_path / 'store'}"
    async with SessionManager.open(url) as sessions:
        s = await sessions.create()
        (folder,) = (tmp_path / "store" / "apps").iterdir()
        lose(folder)
        with pytest.raises(Unavailable, match="removed, moved or replaced"):
            await sessions.append(s, Event(kind="k"))
        others = SessionManager(sessions.store, app="other")
        assert (await others.create()).revision == 1


async def test_who_has_lost_the_gate_writes_nothing_beside_who_has_it(tmp_path: Path) -> None:
    """Somebody took it for the lock that a dead process had left: two would write over another."""
    url = f"file:///{tmp_path / 'store'}"
    async with SessionManager.open(url) as first:
        await first.create(id="s")
        (tmp_path / "store" / "gate").unlink()
        async with SessionManager.open(url) as second:
            with pytest.raises(Unavailable, match="its gate is gone"):
                await first.append("s", Event(kind="first"))
            await second.append("s", Event(kind="second"))
            assert [event.kind for event in await first.events("s")] == ["second"]
    async with SessionManager.open(url) as again:
        await again.append("s", Event(kind="again"))
        assert [event.kind for event in await again.events("s")] == ["second", "again"]


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
async def test_a_folder_above_that_is_moved_takes_the_store_along(
    tmp_path: Path, scheme: str
) -> None:
    """Its path leads nowhere: what is written there would be found under no name that is known."""
    above = tmp_path / "above"
    above.mkdir()
    async with SessionManager.open(f"{scheme}:///{above / 'store'}") as sessions:
        s = await sessions.create()
        above.rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="removed, moved or replaced"):
            await sessions.append(s, Event(kind="k"))


def test_a_file_is_lost_only_where_that_is_sure(tmp_path: Path) -> None:
    """What can not be looked at is not, nor what was no file of the system's from the start."""
    file, loop = tmp_path / "file", tmp_path / "loop"
    assert not Whereabouts(str(file)).is_lost()
    file.touch()
    where = Whereabouts(str(file))
    assert not where.is_lost()
    file.unlink()
    assert where.is_lost()
    loop.symlink_to(loop)
    file.symlink_to(loop)
    assert not where.is_lost()

"""Copies of a file that is in use, and what `check` finds in one that was damaged."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import apsw
import pytest
from tests.faults.actors import Appender, Founder, Maker, Trimmer, judge, opened, run
from tests.faults.disks import SmallDisk, small_disk

from sojourn import AlreadyExists, Closed, Corrupt, Event, SessionManager, StorageFull, Unavailable
from sojourn.stores.sqlite import SqliteStore, maintenance

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.actors import Actor

    from sojourn import SojournError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def fill(path: Path, events: int = 5) -> None:
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.create(id="s", user="u", state={"n": 1}, labels={"kind": "a"})
        await sessions.create(id="t", labels={"kind": "b"}, exclusive=("kind",))
        for number in range(events):
            body = [number, "x" * 2000]
            delta = {"user:n": number, "app:n": number}
            await sessions.append("s", Event(kind="op", body=body), state=delta)
        await sessions.documents("s").put("c", "k", b"x" * 1000)


# -------------------------------------------------------------------------------------------------
# Backup


async def test_a_backup_taken_while_tasks_write_is_consistent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each copy is the file as of one moment: not older than its start, and nothing is torn."""
    monkeypatch.setattr(maintenance, "BACKUP_PAGES", 4)
    sessions = await opened(tmp_path / "a.db")
    store = cast("SqliteStore", sessions.store)
    done: dict[str, int] = {}

    def note(what: str, actor: Actor, step: int) -> None:
        if what == "done":
            done[actor.name] = step

    founder = Founder()
    await run(sessions, [founder], 1, note)
    actors: list[Actor] = [Appender("a0"), Appender("a1"), Trimmer("t0"), Maker("m0")]
    writing = asyncio.gather(*(run(sessions, [actor], 60, note) for actor in actors))
    copies: list[tuple[Path, dict[str, int]]] = []
    while not writing.done():
        known = dict(done)
        target = tmp_path / f"copy{len(copies)}.db"
        await store.backup(str(target))
        copies.append((target, known))
    await writing
    await store.close()
    assert len(copies) > 2, "the writers were done before there was a second copy"
    assert not [name for name in names(tmp_path) if name.startswith("copy") and "-" in name]
    for target, known in copies:
        copy = await opened(target)
        assert await cast("SqliteStore", copy.store).check() == []
        for actor in actors:
            assert judge(actor, await actor.observe(copy), known.get(actor.name, 0)) == "ok"
        await copy.append("shared", Event(kind="op"))
        await copy.store.close()


@pytest.mark.parametrize("there", [b"", b"precious"])
async def test_a_backup_overwrites_nothing(tmp_path: Path, there: bytes) -> None:
    """A target that exists is `AlreadyExists`, and keeps its bytes."""
    await fill(tmp_path / "a.db")
    target = tmp_path / "copy.db"
    target.write_bytes(there)
    sessions = await opened(tmp_path / "a.db")
    store = cast("SqliteStore", sessions.store)
    for taken in (target, tmp_path / "a.db", tmp_path):
        with pytest.raises(AlreadyExists):
            await store.backup(str(taken))
    assert target.read_bytes() == there
    assert await store.check() == []
    await store.close()


async def test_a_link_to_nowhere_is_no_place_for_a_backup(tmp_path: Path) -> None:
    """A dangling link is something too: `AlreadyExists`, and nothing appears where it points."""
    await fill(tmp_path / "a.db")
    (tmp_path / "copy.db").symlink_to(tmp_path / "elsewhere.db")
    sessions = await opened(tmp_path / "a.db")
    with pytest.raises(AlreadyExists):
        await cast("SqliteStore", sessions.store).backup(str(tmp_path / "copy.db"))
    await sessions.store.close()
    assert "elsewhere.db" not in names(tmp_path)


async def test_a_backup_without_a_folder_is_unavailable(tmp_path: Path) -> None:
    """A target in a folder that is not there is `Unavailable`; the store goes on."""
    await fill(tmp_path / "a.db")
    sessions = await opened(tmp_path / "a.db")
    with pytest.raises(Unavailable):
        await cast("SqliteStore", sessions.store).backup(str(tmp_path / "no" / "copy.db"))
    await sessions.append("s", Event(kind="op"))
    await sessions.store.close()


async def test_a_backup_that_does_not_fit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`StorageFull` on the target's disk: no half copy, no journal; the source is not affected."""
    await fill(tmp_path / "a.db", events=200)
    sessions = await opened(tmp_path / "a.db")
    store = cast("SqliteStore", sessions.store)
    with small_disk(tmp_path / "disk", 128 * 1024) as disk:
        if not isinstance(disk, SmallDisk):
            monkeypatch.setattr(maintenance, "_copy", out_of_space)
        with pytest.raises(StorageFull):
            await store.backup(str(disk.folder / "copy.db"))
        assert names(disk.folder) == []
    await sessions.append("s", Event(kind="op"))
    assert await store.check() == []
    await store.close()


def out_of_space(_source: Any, target: Path) -> None:
    """Fail in the middle of a copy, where no small disk can be had."""
    target.write_bytes(b"half a copy")
    raise apsw.FullError


async def test_backup_and_check_of_a_closed_store_are_refused(tmp_path: Path) -> None:
    """Both are `Closed` after close, and before open."""
    store = SqliteStore(tmp_path / "a.db")
    for closed in (False, True):
        if closed:
            await store.open()
            await store.close()
        for work in (store.backup(str(tmp_path / "copy.db")), store.check()):
            with pytest.raises(Closed):
                await work
    assert "copy.db" not in names(tmp_path)


# -------------------------------------------------------------------------------------------------
# Check

DAMAGE = {
    "an event of nobody": "UPDATE events SET key = key + (7 << 28) WHERE key & 7 = 5",
    "a session without its events' numbers": "UPDATE sessions SET seq = 2 WHERE id = 's'",
    "a document of nobody": "UPDATE documents SET session = 99",
    "a label of nobody": "UPDATE labels SET session = 99 WHERE value = 'a'",
    "a claim of nobody": "UPDATE claims SET session = 99",
    "a wrong count": "UPDATE counts SET sessions = 5 WHERE facet = 'all'",
    "a count of nothing": "INSERT INTO counts VALUES ('default', 'all', 'ENDED', 3)",
    "a missing count": "DELETE FROM counts WHERE facet = 'all'",
    "a wrong count of a user": "UPDATE counts SET sessions = 5 WHERE facet = 'user u'",
    "a wrong count of a label": "UPDATE counts SET sessions = 5 WHERE facet LIKE 'label%'",
    "state that is no JSON": "UPDATE sessions SET state = '{\"n\":' WHERE id = 's'",
    "an event that is no JSON": "UPDATE events SET body = '{' WHERE key & 268435455 = 3",
    "a delta that is no JSON": "UPDATE events SET changes = '{' WHERE key & 268435455 = 3",
    "shared state that is no JSON": "UPDATE tiers SET value = '[1,'",
    "a deadline nobody looks at": "UPDATE sessions SET due_at = 5 WHERE id = 's'",
}


def damage(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(statement).rowcount > 0, "nothing was damaged"
        db.commit()


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE)
async def test_check_finds_planted_damage(tmp_path: Path, statement: str) -> None:
    """Sound files have nothing to complain about; each kind of damage is put into words."""
    path = tmp_path / "a.db"
    await fill(path)
    for damaged in (False, True):
        if damaged:
            damage(path, statement)
        sessions = await opened(path)
        found = await cast("SqliteStore", sessions.store).check()
        await sessions.store.close()
        assert bool(found) is damaged, found
        assert all(found), "there are no words for it"


async def test_check_finds_a_broken_index(tmp_path: Path) -> None:
    """What SQLite's own check finds is told as well: index and table disagree."""
    path = tmp_path / "a.db"
    await fill(path)
    with closing(sqlite3.connect(path)) as db:
        find = "SELECT rootpage FROM sqlite_schema WHERE name = 'event_by_id'"
        start = (db.execute(find).fetchone()[0] - 1) * 4096
        (id,) = db.execute("SELECT id FROM events LIMIT 1").fetchone()
    content = bytearray(path.read_bytes())
    place = content.index(id.encode(), start, start + 4096)
    content[place] ^= 1
    path.write_bytes(content)
    sessions = await opened(path)
    assert await cast("SqliteStore", sessions.store).check() != []
    await sessions.store.close()


@pytest.mark.behaviour(27)
async def test_one_corrupt_session_does_not_hide_the_others(tmp_path: Path) -> None:
    """A list shows the others and names the corrupt one; reading it is `Corrupt`, not `None`."""
    path = tmp_path / "a.db"
    await fill(path)
    damage(path, DAMAGE["state that is no JSON"])
    errors: list[SojournError] = []
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        page = await sessions.list()
        assert [session.id for session in page.items] == ["t"]
        errors += page.corrupt
        assert ["'s'" in str(error) for error in errors] == [True]
        with pytest.raises(Corrupt, match="'s'"):
            await sessions.get("s")

"""Opening what is missing, foreign, closed to us or damaged: a typed error, nothing touched."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.processes import Worker

from sojourn import (
    Closed,
    Corrupt,
    Event,
    ForeignFile,
    InvalidQuery,
    NewerSchema,
    SessionManager,
    SojournError,
    Unavailable,
    UnsupportedFilesystem,
)
from sojourn import mounts as mounting
from sojourn.stores.sqlite import SqliteStore, schema, writer

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


async def open_and_close(path: str | os.PathLike[str]) -> None:
    store = SqliteStore(path)
    try:
        await store.open()
    finally:
        await store.close()


async def fill(path: Path, events: int = 3) -> None:
    """Make a store with a session that has events."""
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.create(id="s", user="u", state={"here": True, "user:name": "you"})
        for number in range(events):
            await sessions.append("s", Event(kind="op", body={"number": number}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -------------------------------------------------------------------------------------------------
# Files that are not ours


@pytest.mark.parametrize(
    "content",
    [b"x", b"hello, this is a letter\n" * 100, b"\x00" * 8192, b"SQLite format 2\x00" + b"x" * 99],
    ids=["byte", "text", "zeros", "almost"],
)
async def test_a_file_that_is_not_sqlite_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """It is `ForeignFile`, its bytes stay, and nothing appears beside it."""
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    with pytest.raises(ForeignFile, match="not a SQLite database"):
        await open_and_close(path)
    assert path.read_bytes() == content
    assert names(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize("size", [16, 60, 99])
async def test_the_stump_of_a_sqlite_file_is_refused_by_type(tmp_path: Path, size: int) -> None:
    """A header that was cut short is no database of ours, and is not made one."""
    await fill(tmp_path / "whole.db")
    stump = (tmp_path / "whole.db").read_bytes()[:size]
    path = tmp_path / "stump.db"
    path.write_bytes(stump)
    with pytest.raises(SojournError) as caught:
        await open_and_close(path)
    assert type(caught.value).__name__ in {"ForeignFile", "Corrupt"}
    assert path.read_bytes() == stump


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize(
    "pragma", ["application_id = 252006674", "application_id = 0", "user_version = 7"]
)
async def test_a_database_of_another_program_is_left_alone(
    tmp_path: Path, journal: str, pragma: str
) -> None:
    """With an id of its own, or with none and tables, it is `ForeignFile`; not a byte changes."""
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
        db.execute(f"PRAGMA {pragma}")
        db.execute("CREATE TABLE sessions(id TEXT)")
        db.execute("INSERT INTO sessions VALUES ('precious')")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(ForeignFile):
        await open_and_close(path)
    assert path.read_bytes() == before
    assert not [name for name in names(tmp_path) if name.endswith(("-wal", "-shm", "-journal"))]


DIES_WITH_A_LOG = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = wal")
db.execute("CREATE TABLE t(x)")
os.kill(os.getpid(), 9)
"""


def python(program: str, path: Path) -> int:
    """Run a program in a process of its own and return its exit code."""
    return subprocess.run([sys.executable, "-c", program, path], check=False).returncode


async def test_a_database_in_use_by_another_program_is_left_alone(tmp_path: Path) -> None:
    """Not even what the other program has in its log, but not in its file, is moved."""
    path = tmp_path / "foreign.db"
    assert python(DIES_WITH_A_LOG, path) == -signal.SIGKILL
    before = {name: (tmp_path / name).read_bytes() for name in ("foreign.db", "foreign.db-wal")}
    with pytest.raises(ForeignFile):
        await open_and_close(path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


async def test_a_file_of_a_newer_sojourn_is_left_alone(tmp_path: Path) -> None:
    """It is `NewerSchema`, saying both versions and what to do; not a byte changes."""
    path = tmp_path / "a.db"
    await fill(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match="upgrade Sojourn") as caught:
        await open_and_close(path)
    assert str(len(schema.MIGRATIONS) + 1) in caught.value.reason
    assert path.read_bytes() == before


async def test_an_empty_file_is_taken_over(tmp_path: Path) -> None:
    """A file without a byte (made by a tool that reserves names) becomes a store."""
    path = tmp_path / "a.db"
    path.touch()
    await fill(path)
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        assert len(await sessions.events("s")) == 3


# -------------------------------------------------------------------------------------------------
# Places where no file can be


async def test_a_missing_folder_is_unavailable_and_not_made(tmp_path: Path) -> None:
    """`Unavailable` names the folder; it is not created."""
    with pytest.raises(Unavailable, match="does not exist"):
        await open_and_close(tmp_path / "nowhere" / "a.db")
    assert names(tmp_path) == []


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A directory given as the path is `Unavailable`, and nothing appears in or beside it."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unavailable, match="directory"):
        await open_and_close(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == []


async def test_a_file_below_a_file_is_unavailable(tmp_path: Path) -> None:
    """A path that goes through a file is `Unavailable`, not an error of the operating system."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable):
        await open_and_close(tmp_path / "file" / "a.db")


@pytest.mark.parametrize("path", ["", ":memory:", "file:a.db?mode=memory"])
def test_what_is_no_path_is_refused_at_once(path: str) -> None:
    """SQLite's special names are no files: `InvalidQuery` before anything is opened."""
    with pytest.raises(InvalidQuery):
        SqliteStore(path)


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:40 / {point} rw,relatime shared:9 - {kind} server:/export rw
"""


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Where locks do not hold across machines nothing is opened, also through a link."""
    share = tmp_path / "my share"
    share.mkdir()
    (tmp_path / "link").symlink_to(share)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(point=str(share).replace(" ", r"\040"), kind=kind))
    monkeypatch.setattr(mounting, "_MOUNTS", mounts)
    for path in (share / "a.db", tmp_path / "link" / "a.db"):
        with pytest.raises(UnsupportedFilesystem, match=kind.replace(".", r"\.")):
            await open_and_close(path)
    assert names(share) == []
    await open_and_close(tmp_path / "my share beside it.db")


@contextmanager
def open_to_all() -> Iterator[Path]:
    """Give a folder that every user can reach; pytest's own are only for the one who runs it."""
    with tempfile.TemporaryDirectory(prefix="sojourn-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.parametrize("what", ["file", "folder", "new file in folder", "hidden folder"])
def test_what_can_not_be_written_is_read_only(what: str) -> None:
    """A file or folder without the right to write is `ReadOnly`; what is there stays as it is."""
    with open_to_all() as folder:
        path = folder / "a.db"
        if what in {"file", "folder"}:
            asyncio.run(fill(path))
            path.chmod(0o444 if what == "file" else 0o666)
            (folder / "a.db-gate").chmod(0o666)
        if what != "file":
            (folder / "a.db-gate").unlink(missing_ok=True)
            folder.chmod(0o700 if what == "hidden folder" else 0o555)
        before = {name: (folder / name).read_bytes() for name in names(folder)}
        with Worker("opener", path, "unprivileged") as worker:
            assert worker.hear() == "ready"
            worker.say("open")
            answer = worker.hear()
        assert answer["error"] == "ReadOnly", answer
        assert {name: (folder / name).read_bytes() for name in names(folder)} == before
        folder.chmod(0o777)


def test_a_folder_inside_a_hidden_one_is_unavailable() -> None:
    """Where nothing can be seen, it is `Unavailable`, not an error of the operating system."""
    with open_to_all() as folder:
        (folder / "inner").mkdir()
        asyncio.run(fill(folder / "inner" / "a.db"))
        folder.chmod(0o600)
        with Worker("opener", folder / "inner" / "a.db", "unprivileged") as worker:
            assert worker.hear() == "ready"
            worker.say("open")
            assert worker.hear()["error"] == "Unavailable"
        folder.chmod(0o777)


# -------------------------------------------------------------------------------------------------
# Files that are damaged


async def look(path: Path) -> str | tuple[Any, ...]:
    """Return all there is to read, or the name of the typed error that was raised instead."""
    store = SqliteStore(path)
    try:
        await store.open()
        sessions = SessionManager(store)
        session = await sessions.get("s", events=10)
        if session is None:
            return "missing"
        listed = await sessions.list()
        tail = [event.body for event in session.events]
        return dict(session.state), session.user, tail, len(listed.items), await sessions.count()
    except SojournError as error:
        return type(error).__name__
    finally:
        await store.close()


TYPED = {"Corrupt", "ForeignFile", "NewerSchema", "ReadOnly", "Unavailable"}


async def test_a_flipped_bit_in_the_header_is_found_or_harmless(tmp_path: Path) -> None:
    """For each bit of the file's header: a typed error, or everything as it was; never missing."""
    await fill(tmp_path / "a.db")
    whole = (tmp_path / "a.db").read_bytes()
    right = await look(tmp_path / "a.db")
    refused = 0
    for place in range(100 * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path = tmp_path / "b.db"
        path.write_bytes(damaged)
        found = await look(path)
        if found != right:
            assert found in TYPED, f"bit {place % 8} of byte {place // 8}: {found}"
            refused += 1
        path.unlink()
    assert refused > 16 * 8


async def test_a_destroyed_page_is_corrupt_not_missing(tmp_path: Path) -> None:
    """Whichever page is overwritten: reads raise a typed error or answer right, never `None`."""
    await fill(tmp_path / "a.db")
    whole = (tmp_path / "a.db").read_bytes()
    right = await look(tmp_path / "a.db")
    refused = 0
    for start in range(0, len(whole), 4096):
        path = tmp_path / "b.db"
        path.write_bytes(whole[:start] + b"\xa5" * 4096 + whole[start + 4096 :])
        found = await look(path)
        if found != right:
            assert found in TYPED, f"page {start // 4096 + 1}: {found}"
            refused += 1
        path.unlink()
    assert refused >= 3


async def test_writing_to_a_destroyed_page_is_corrupt(tmp_path: Path) -> None:
    """A write that meets damage raises `Corrupt`; `check` says what is wrong."""
    path = tmp_path / "a.db"
    await fill(path, events=100)
    with closing(sqlite3.connect(path)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        store: Any = sessions.store
        with pytest.raises(SojournError, match="damaged"):
            await sessions.append("s", Event(kind="op"))
        with pytest.raises(SojournError, match="damaged"):
            await sessions.events("s")
        assert await store.check() != []
        session = await sessions.require("s")
        assert session.state["here"] is True


@pytest.mark.parametrize("column", ["sessions SET state", "events SET body", "events SET kind"])
async def test_a_text_with_broken_bytes_is_corrupt(tmp_path: Path, column: str) -> None:
    """Bytes that are no text raise `Corrupt` from reads and writes, never an error of Python's."""
    path = tmp_path / "a.db"
    await fill(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE {column} = CAST(x'7b95' AS TEXT)")
        db.commit()
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        with pytest.raises(Corrupt):
            await sessions.get("s", events=10)
        with pytest.raises(Corrupt):
            await sessions.get("s", events=1_000)
        if column.startswith("sessions"):
            with pytest.raises(Corrupt):
                await sessions.append("s", Event(kind="op"), state={"n": 1})
        other = await sessions.create(id="other")
        assert (await sessions.append(other, Event(kind="op"))).seq == 1


# -------------------------------------------------------------------------------------------------
# Open, closed, twice, at the same time


async def test_open_and_close_twice_are_fine_and_closed_is_closed(tmp_path: Path) -> None:
    """After `close` every verb is `Closed`, and so is `open`."""
    store = SqliteStore(tmp_path / "a.db")
    sessions = SessionManager(store)
    with pytest.raises(Closed, match="not open yet"):
        await sessions.get("s")
    await store.open()
    await store.open()
    await sessions.create(id="s")
    await store.close()
    await store.close()
    works = [sessions.get("s"), sessions.create(), sessions.list(), store.check(), store.open()]
    for work in works:
        with pytest.raises(Closed):
            await work
    with pytest.raises(Closed):
        store.subscribe("default", "s")


def test_processes_that_open_a_new_file_at_the_same_moment_make_one(tmp_path: Path) -> None:
    """Each of several processes finds the file whole, and none undoes another's work."""
    for round_ in range(5):
        path = tmp_path / f"{round_}.db"
        workers = [Worker("opener", path) for _ in range(3)]
        try:
            assert [worker.hear() for worker in workers] == ["ready"] * 3
            steps = {"open": ["done"] * 3, "append": [1, 2, 3], "count": [3] * 3}
            for word, answers in steps.items():
                for worker in workers:
                    worker.say(word)
                assert sorted(worker.hear() for worker in workers) == answers
        finally:
            for worker in workers:
                worker.kill()


async def test_two_stores_of_one_process_share_the_file(tmp_path: Path) -> None:
    """A second store on the same file sees what the first wrote, and the other way round."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with SessionManager.open(url) as one, SessionManager.open(url) as other:
        await one.create(id="s")
        await other.append("s", Event(kind="op"))
        await one.append("s", Event(kind="op"))
        assert len(await other.events("s")) == 2


LOOK = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM events')"


async def test_a_second_store_does_not_drop_the_locks_of_the_first(tmp_path: Path) -> None:
    """POSIX locks belong to the process: opening the file once more must not let others have it.

    A program that believes to be alone (the sqlite3 shell, say) removes the log under the first
    store's feet when it closes, and with it what is written from then on.
    """
    path = tmp_path / "a.db"
    await fill(path, events=1)
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.append("s", Event(kind="op"))
        second = SqliteStore(path)
        await second.open()
        assert python(LOOK, path) == 0
        assert (tmp_path / "a.db-wal").exists(), "another program took the log away"
        await sessions.append("s", Event(kind="op"))
        with Worker("opener", path) as other:
            assert other.hear() == "ready"
            for word, answer in (("open", "done"), ("count", 3)):
                other.say(word)
                assert other.hear() == answer
        await second.close()


async def test_a_link_and_what_it_points_to_share_one_gate(tmp_path: Path) -> None:
    """However a process names the file, it waits for its turn at the same gate."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "a.db")
    await fill(tmp_path / "link.db")
    assert names(tmp_path) == ["link.db", "real"]
    assert names(tmp_path / "real") == ["a.db", "a.db-gate"]


def test_a_forked_child_is_refused_and_its_parent_goes_on(tmp_path: Path) -> None:
    """In the child every verb is `Closed`; the parent writes on, and so do other processes."""
    path = tmp_path / "a.db"
    with Worker("forker", f"sqlite:///{path}") as forker, Worker("opener", path) as other:
        told: dict[str, Any] = {}
        for _ in range(2):
            told |= forker.hear()
        assert told["parent"] == [2]
        assert told["verbs"][:-1] == ["Closed"] * 5
        assert told["verbs"][-1] == ""
        assert other.hear() == "ready"
        for word, answer in (("open", "done"), ("append", 3), ("check", [])):
            other.say(word)
            assert other.hear() == answer
        forker.say()
        assert forker.finish() == 0


# -------------------------------------------------------------------------------------------------
# A process that is stopped while it has the turn

HOLDER = """
import fcntl, os, sys
gate = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(gate, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@contextmanager
def stopped_holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Let a process take the gate and stop it; it goes on, and lets go, at the end."""
    command = [sys.executable, "-c", HOLDER, f"{path}-gate"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        try:
            yield holder
        finally:
            holder.send_signal(signal.SIGCONT)


async def test_a_stopped_process_that_holds_the_gate_makes_writes_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes fail with `Unavailable` after a bounded wait and leave nothing; then work goes on."""
    path = tmp_path / "a.db"
    await fill(path, events=1)
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        with stopped_holder(path):
            monkeypatch.setattr(writer, "GATE_SECONDS", 0.05)
            for _ in range(3):
                with pytest.raises(Unavailable, match="nothing was written"):
                    await sessions.append("s", Event(kind="late"))
            assert len(await sessions.events("s")) == 1, "reads go on meanwhile"
            monkeypatch.setattr(writer, "GATE_SECONDS", 30.0)
            waiting = asyncio.create_task(sessions.append("s", Event(kind="after")))
        assert (await waiting).seq == 2
        assert [event.kind for event in await sessions.events("s")] == ["op", "after"]


async def test_opening_and_closing_do_not_wait_for_a_stopped_process_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the gate is held, `open` is `Unavailable` and `close` ends; later, all is there."""
    path = tmp_path / "a.db"
    await fill(path)
    store = SqliteStore(path)
    await store.open()
    monkeypatch.setattr(writer, "GATE_SECONDS", 0.05)
    with stopped_holder(path):
        other = SqliteStore(path)
        with pytest.raises(Unavailable, match="another process has kept the file"):
            await other.open()
        await store.close()
    monkeypatch.setattr(writer, "GATE_SECONDS", 30.0)
    await other.open()
    sessions = SessionManager(other)
    assert (await sessions.append("s", Event(kind="after"))).seq == 4
    await other.close()

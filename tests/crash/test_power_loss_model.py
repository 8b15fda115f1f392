"""The crash tooling against bare SQLite: it must acquit the safe settings and convict the others.

A simulator that never finds anything proves nothing, so every promise here has its control:
``synchronous=OFF`` must lose, ``journal_mode=DELETE`` must show the unsynced unlink, and each
fate of an unsynced change must occur.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from tests.crash.failing_vfs import FailingVFS, Fault
from tests.crash.power_loss import SECTOR, crash_image, crash_point
from tests.crash.recording_vfs import Kind, Op, RecordingVFS, Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

COMMITS = 400
IMAGES = 300
BODY = 1024


def body(key: int) -> bytes:
    """Return the content that belongs to a key, so that a torn row shows."""
    return random.Random(key).randbytes(BODY)


def connect(path: Path, vfs: str, synchronous: str, journal: str = "wal") -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs=vfs)
    connection.set_busy_timeout(10_000)
    connection.pragma("journal_mode", journal)
    connection.pragma("synchronous", synchronous)
    connection.pragma("wal_autocheckpoint", 40)
    return connection


def create(connection: apsw.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS log(key INTEGER PRIMARY KEY, body BLOB);"
        "CREATE TABLE IF NOT EXISTS state(name TEXT PRIMARY KEY, key INT) WITHOUT ROWID;"
    )


def commit(connection: apsw.Connection, key: int) -> None:
    """Write two tables in one transaction, so that a torn transaction shows."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO log VALUES(?, ?)", (key, body(key)))
    connection.execute("INSERT INTO state VALUES(?, ?)", (f"{key * 7919 % 10_007:05}", key))
    connection.execute("COMMIT")


def record(
    directory: Path,
    synchronous: str,
    journal: str = "wal",
    *,
    commits: int = COMMITS,
    premature: bool = False,
) -> tuple[Trace, int]:
    """Return the trace of a run and the point where its set-up was done."""
    directory.mkdir()
    recorder = RecordingVFS(directory)
    connection = connect(directory / "a.db", recorder.name, synchronous, journal)
    create(connection)
    start = len(recorder.trace)
    for key in range(commits):
        if premature:
            recorder.mark(key)
        commit(connection, key)
        if not premature:
            recorder.mark(key)
    end = len(recorder.trace)
    connection.close()
    recorder.close()
    del recorder.trace.ops[end:]
    return recorder.trace, start


@dataclass
class Tally:
    """How many images showed what."""

    lost: int = 0
    torn: int = 0
    corrupt: int = 0

    def examine(self, path: Path, acknowledged: Iterable[object]) -> None:
        """Open an image the way a restarted process would, and judge it."""
        try:
            keys, states = contents(path)
        except (apsw.CorruptError, apsw.NotADBError, ValueError):
            self.corrupt += 1
            return
        self.torn += keys != states
        self.lost += not keys >= set(acknowledged)


def contents(path: Path) -> tuple[set[object], set[object]]:
    """Return the keys of both tables; damage raises."""
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("synchronous", "off")
        if connection.pragma("integrity_check") != "ok":
            raise ValueError("integrity_check")
        with suppress(apsw.SQLError):  # no table: nothing was ever committed
            rows = list(connection.execute("SELECT key, body FROM log"))
            if any(content != body(key) for key, content in rows):
                raise ValueError("body")
            states = connection.execute("SELECT key FROM state")
            return {key for key, _ in rows}, {key for (key,) in states}
        return set(), set()
    finally:
        connection.close()


def examine_images(trace: Trace, target: Path, *, images: int = IMAGES, start: int = 0) -> Tally:
    tally = Tally()
    for seed in range(images):
        rng = random.Random(seed)
        point = crash_point(trace, rng, start)
        tally.examine(target / "a.db", crash_image(trace, point, rng, target))
    return tally


# -------------------------------------------------------------------------------------------------
# What the settings of SQLite promise


def test_wal_with_full_sync_loses_nothing_acknowledged(tmp_path: Path) -> None:
    trace, _ = record(tmp_path / "live", "full")
    assert examine_images(trace, tmp_path / "image") == Tally()


def test_wal_with_normal_sync_may_lose_but_never_breaks(tmp_path: Path) -> None:
    trace, start = record(tmp_path / "live", "normal")
    tally = examine_images(trace, tmp_path / "image", start=start)
    assert (tally.torn, tally.corrupt) == (0, 0)
    assert tally.lost


def test_an_acknowledgement_before_the_commit_is_found_out(tmp_path: Path) -> None:
    trace, _ = record(tmp_path / "live", "full", commits=50, premature=True)
    assert examine_images(trace, tmp_path / "image", images=50).lost


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_without_sync_the_model_shows_loss_and_corruption(tmp_path: Path, journal: str) -> None:
    trace, start = record(tmp_path / "live", "off", journal)
    tally = examine_images(trace, tmp_path / "image", start=start)
    assert tally.lost
    assert tally.corrupt


def test_a_rollback_journal_needs_the_directory_sync_of_extra(tmp_path: Path) -> None:
    extra, _ = record(tmp_path / "extra", "extra", "delete", commits=150)
    assert examine_images(extra, tmp_path / "image") == Tally()
    full, start = record(tmp_path / "full", "full", "delete", commits=150)
    tally = examine_images(full, tmp_path / "image", start=start)
    assert (tally.torn, tally.corrupt) == (0, 0)
    assert tally.lost  # the unlinked journal came back and rolled the last commit back


def test_threads_with_connections_of_their_own_lose_nothing(tmp_path: Path) -> None:
    """Two writers in threads, one of them checkpointing, and a reader on this thread."""
    (tmp_path / "live").mkdir()
    path = tmp_path / "live" / "a.db"
    recorder = RecordingVFS(tmp_path / "live")
    reader = connect(path, recorder.name, "full")
    create(reader)

    def write(keys: range) -> None:
        connection = connect(path, recorder.name, "full")
        for key in keys:
            commit(connection, key)
            recorder.mark(key)
        connection.close()

    threads = [threading.Thread(target=write, args=(range(i, 200, 2),)) for i in range(2)]
    for thread in threads:
        thread.start()
    seen = 0
    while any(thread.is_alive() for thread in threads):
        now = reader.execute("SELECT count(*) FROM log").get
        assert now >= seen
        seen = now
    for thread in threads:
        thread.join()
    assert sorted(recorder.trace.marks(), key=str) == sorted(range(200), key=str)
    end = len(recorder.trace)
    reader.close()
    del recorder.trace.ops[end:]
    assert examine_images(recorder.trace, tmp_path / "image", images=150) == Tally()


def test_a_database_that_was_there_before_is_the_durable_start(tmp_path: Path) -> None:
    trace, _ = record(tmp_path / "live", "full", commits=10)
    recorder = RecordingVFS(trace.directory)
    connection = connect(tmp_path / "live" / "a.db", recorder.name, "full")
    for key in range(10, 60):
        commit(connection, key)
        recorder.mark(key)
    recorded = recorder.trace
    assert "a.db" in recorded.baseline
    assert examine_images(recorded, tmp_path / "image", images=50) == Tally()
    crash_image(recorded, 0, random.Random(0), tmp_path / "image")
    assert contents(tmp_path / "image" / "a.db")[0] == set(range(10))
    connection.close()


# -------------------------------------------------------------------------------------------------
# The trace and the fates


class Lucky(random.Random):
    """Everything unsynced reached the disk."""

    def choice(self, seq: Any) -> Any:
        return seq[-1]

    def random(self) -> float:
        return 0.0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return (start if stop is None else stop) - step


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_trace_replays_to_the_very_bytes_on_the_disk(tmp_path: Path, journal: str) -> None:
    live = tmp_path / "live"
    live.mkdir()
    recorder = RecordingVFS(live)
    connection = connect(live / "a.db", recorder.name, "normal", journal)
    create(connection)
    for key in range(100):
        commit(connection, key)
    connection.execute("DELETE FROM log; VACUUM")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    commit(connection, 1000)
    crash_image(recorder.trace, len(recorder.trace), Lucky(), tmp_path / "image")
    assert {Kind.WRITE, Kind.TRUNCATE, Kind.SYNC, Kind.CREATE, Kind.DIRSYNC, Kind.DELETE} <= {
        op.kind for op in recorder.trace.ops
    }
    # Only now: reading the file with another descriptor drops this process's locks on it.
    files = {path.name: path.read_bytes() for path in live.iterdir() if path.suffix != ".db-shm"}
    assert {p.name: p.read_bytes() for p in (tmp_path / "image").iterdir()} == files
    connection.close()


def test_the_same_seed_builds_the_same_image(tmp_path: Path) -> None:
    trace, _ = record(tmp_path / "live", "normal", commits=50)
    images = []
    for target in (tmp_path / "one", tmp_path / "two"):
        marks = crash_image(trace, len(trace) * 2 // 3, random.Random(5), target)
        images.append((marks, {path.name: path.read_bytes() for path in target.iterdir()}))
    assert images[0] == images[1]
    assert images[0][0] == trace.marks(len(trace) * 2 // 3)


def test_the_live_directory_is_no_target(tmp_path: Path) -> None:
    trace, _ = record(tmp_path / "live", "full", commits=1)
    with pytest.raises(ValueError, match="target"):
        crash_image(trace, 0, random.Random(0), tmp_path / "live")


OLD, NEW = b"o" * 4 * SECTOR, b"n" * 4 * SECTOR
MADE = (
    Op(Kind.CREATE, 0, name="f"),
    Op(Kind.WRITE, 0, 0, OLD),
    Op(Kind.SYNC, 0, 2),
    Op(Kind.DIRSYNC, offset=2),
)


def outcomes(ops: Sequence[Op], target: Path, name: str = "f") -> set[bytes | None]:
    """Return every content of a file that 300 seeds produce from a hand-made trace."""
    trace = Trace("/nowhere", list(ops))
    found: set[bytes | None] = set()
    for seed in range(300):
        crash_image(trace, len(ops), random.Random(seed), target)
        path = target / name
        found.add(path.read_bytes() if path.exists() else None)
    return found


def test_what_a_sync_covered_stays(tmp_path: Path) -> None:
    assert outcomes(MADE, tmp_path / "image") == {OLD}


def test_an_unsynced_write_is_kept_dropped_cut_or_torn(tmp_path: Path) -> None:
    found = outcomes((*MADE, Op(Kind.WRITE, 0, 0, NEW)), tmp_path / "image")
    assert {OLD, NEW} < found
    cut = {
        c for c in found if c and len(c.lstrip(b"n")) % SECTOR and c.lstrip(b"n").count(b"n") == 0
    }
    torn = {c for c in found if c and c.startswith(b"o") and b"n" in c}
    assert cut
    assert torn
    assert all(len(set(c[i : i + SECTOR])) == 1 for c in torn for i in range(0, len(c), SECTOR))
    assert all(c and len(c) == len(OLD) and set(c) <= set(b"on") for c in found)


def test_unsynced_writes_survive_in_any_combination(tmp_path: Path) -> None:
    writes = [Op(Kind.WRITE, 0, len(OLD) + i * SECTOR, b"%d" % i * SECTOR) for i in range(3)]
    found = outcomes((*MADE, *writes), tmp_path / "image")
    last_alone = OLD + bytes(2 * SECTOR) + b"2" * SECTOR
    assert {OLD, last_alone, OLD + b"0" * SECTOR + b"1" * SECTOR} <= found


def test_an_unsynced_truncate_is_kept_or_dropped(tmp_path: Path) -> None:
    truncate = Op(Kind.TRUNCATE, 0, 100)
    assert outcomes((*MADE, truncate), tmp_path / "image") == {OLD, OLD[:100]}
    synced = (*MADE, truncate, Op(Kind.SYNC, 0, 5))
    assert outcomes(synced, tmp_path / "image") == {OLD[:100]}


def test_a_sync_covers_only_what_came_before_it_began(tmp_path: Path) -> None:
    overtaken = (*MADE, Op(Kind.WRITE, 0, 0, NEW), Op(Kind.SYNC, 0, 4))
    assert {OLD, NEW} < outcomes(overtaken, tmp_path / "image")


def test_a_sync_does_not_save_what_a_failed_one_dropped(tmp_path: Path) -> None:
    failed = (*MADE, Op(Kind.WRITE, 0, 0, NEW), Op(Kind.SYNC_FAILED, 0, 5), Op(Kind.SYNC, 0, 6))
    assert {OLD, NEW} < outcomes(failed, tmp_path / "image")


def test_a_failed_write_may_have_happened(tmp_path: Path) -> None:
    failed = (*MADE, Op(Kind.WRITE_FAILED, 0, 0, NEW), Op(Kind.SYNC, 0, 5))
    assert {OLD, NEW} < outcomes(failed, tmp_path / "image")


def test_names_are_uncertain_until_the_directory_is_synced(tmp_path: Path) -> None:
    target = tmp_path / "image"
    assert outcomes(MADE[:3], target) == {None, OLD}
    deleted = (*MADE, Op(Kind.DELETE, 0, name="f"))
    assert outcomes(deleted, target) == {OLD, None}
    assert outcomes((*deleted, Op(Kind.DIRSYNC, offset=5)), target) == {None}
    again = (Op(Kind.CREATE, 1, name="f"), Op(Kind.WRITE, 1, 0, b"new"), Op(Kind.SYNC, 1, 7))
    assert outcomes((*deleted, *again), target) == {OLD, None, b"new"}


# -------------------------------------------------------------------------------------------------
# Failing I/O

FAULTY_COMMITS = 12


def attempt(path: Path, vfs: str, recorder: RecordingVFS | None = None) -> tuple[set[int], int]:
    """Commit with what may fail; return the acknowledged keys and the number of errors."""
    acknowledged: set[int] = set()
    errors = 0
    connection = None
    try:
        connection = connect(path, vfs, "full")
        connection.pragma("wal_autocheckpoint", 4)
        create(connection)
        for key in range(FAULTY_COMMITS):
            try:
                commit(connection, key)
                acknowledged.add(key)
                if recorder is not None:
                    recorder.mark(key)
            except apsw.Error:
                errors += 1
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
    except apsw.Error:
        errors += 1
    with suppress(apsw.Error):
        if connection is not None:
            connection.close()
    return acknowledged, errors


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("write"),
        Fault("write", suffix="-wal", error="FULL", partial=True),
        Fault("write", suffix=".db", error="FULL", partial=True),
        Fault("sync"),
        Fault("truncate"),
        Fault("read"),
    ],
    ids=lambda fault: f"{fault.kind}{fault.suffix}",
)
def test_every_nth_failure_is_raised_or_harmless(
    tmp_path: Path, fault: Fault, forever: bool
) -> None:
    vfs = FailingVFS()
    everything = set(range(FAULTY_COMMITS))
    vfs.arm(fault)
    assert attempt(tmp_path / "0.db", vfs.name) == (everything, 0)
    total = vfs.count
    assert total
    raised = 0
    for nth in range(1, total + 1):
        path = tmp_path / f"{nth}.db"
        vfs.arm(replace(fault, nth=nth, forever=forever))
        acknowledged, errors = attempt(path, vfs.name)
        vfs.disarm()
        assert vfs.hits
        assert forever or vfs.hits == 1
        assert errors or acknowledged == everything
        raised += bool(errors)
        keys, states = contents(path)
        assert acknowledged <= keys == states
    assert raised
    vfs.close()


def test_a_failure_keeps_its_code(tmp_path: Path) -> None:
    vfs = FailingVFS()
    connection = connect(tmp_path / "a.db", vfs.name, "full")
    create(connection)
    vfs.arm(Fault("sync", 1, suffix="-wal"))
    with pytest.raises(apsw.IOError) as io:
        commit(connection, 1)
    code = getattr(io.value, "extendedresult", None)  # apsw's stubs leave it out
    assert code == apsw.SQLITE_IOERR_FSYNC
    vfs.arm(Fault("write", 1, suffix="-wal", error="FULL"))
    with pytest.raises(apsw.FullError):
        commit(connection, 2)
    vfs.disarm()
    commit(connection, 3)
    connection.close()
    assert 3 in contents(tmp_path / "a.db")[0]


def test_opening_and_deleting_fail_as_well(tmp_path: Path) -> None:
    vfs = FailingVFS()
    vfs.arm(Fault("open", 1))
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(str(tmp_path / "a.db"), vfs=vfs.name)
    vfs.arm(Fault("delete", 1, suffix="-journal"))
    with pytest.raises(apsw.IOError):
        create(connect(tmp_path / "a.db", vfs.name, "full", "delete"))
    assert (vfs.count, vfs.hits) == (1, 1)


@pytest.mark.parametrize(("fault", "step"), [(Fault("sync"), 1), (Fault("write", partial=True), 5)])
def test_power_loss_after_a_failure_loses_nothing_acknowledged(
    tmp_path: Path, fault: Fault, step: int
) -> None:
    """A recorder over a failing VFS: what a failed sync dropped, no later sync brings back."""
    failing = FailingVFS()
    failing.arm(fault)
    attempt(tmp_path / "count.db", failing.name)
    tally = Tally()
    for nth in range(1, failing.count + 1, step):
        live = tmp_path / f"live{nth}"
        live.mkdir()
        recorder = RecordingVFS(live, base=failing.name)
        failing.arm(replace(fault, nth=nth))
        attempt(live / "a.db", recorder.name, recorder)
        failing.disarm()
        for seed in range(20):
            rng = random.Random(seed)
            point = crash_point(recorder.trace, rng)
            marks = crash_image(recorder.trace, point, rng, tmp_path / "image")
            tally.examine(tmp_path / "image" / "a.db", marks)
        recorder.close()
    assert tally == Tally()

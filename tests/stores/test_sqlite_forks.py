"""Forks with an open file: a child has locks of its own, or is refused the file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import apsw
import pytest

from sojourn.stores.sqlite import forking

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60

PREAMBLE = """
import asyncio, os, sys, threading, warnings
import apsw
from sojourn import Event, SessionManager, Unavailable
from sojourn.stores.sqlite import connection

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
path = sys.argv[1]

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            sys.stdout.flush()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

def done(pid):
    assert os.waitpid(pid, 0)[1] == 0

def refused(path):
    try:
        connection.connect(path, vfs=None, writer=True).close()
    except Unavailable as error:
        return "forked" in str(error)
    return False

def connected(path):
    db = connection.connect(path, vfs=None, writer=True)
    connection.make_durable(db)
    return db

"""


def printed_by(program: str, path: Path) -> list[str]:
    """Run a program on a file and return the lines that it and its children print."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), str(path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_child_that_opens_anew_loses_nothing(tmp_path: Path) -> None:
    """Its parent closes the file meanwhile, and would remove the log if nobody else were there."""
    program = """
    told, closed = os.pipe(), os.pipe()

    async def anew():
        async with SessionManager.open(f"sqlite:///{path}") as sessions:
            await sessions.append("s", Event(kind="early"))
            os.write(told[1], b"x")
            os.read(closed[0], 1)
            for _ in range(10):
                await sessions.append("s", Event(kind="late"))
            os._exit(0)  # without closing, as if it were killed

    async def main():
        async with SessionManager.open(f"sqlite:///{path}") as sessions:
            await sessions.create(id="s")
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                asyncio.run(anew())
            os.read(told[0], 1)
        os.write(closed[1], b"x")
        done(pid)
        async with SessionManager.open(f"sqlite:///{path}") as sessions:
            print(len(await sessions.events("s")), await sessions.store.check())

    asyncio.run(main())
    """
    assert printed_by(program, tmp_path / "s.db") == ["11 []"]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="no list of locks to look at")
def test_a_child_takes_locks_of_its_own(tmp_path: Path) -> None:
    program = """
    db = connected(path)
    db.execute("CREATE TABLE t (x); BEGIN; SELECT * FROM t").fetchall()

    def work():
        here = connected(path)
        here.execute("BEGIN; SELECT * FROM t").fetchall()
        locks = [line for line in open("/proc/locks") if f" {os.getpid()} " in line]
        print(len(locks) > 0)

    done(child(work))
    print(db.execute("SELECT count(*) FROM t").fetchall())
    """
    assert printed_by(program, tmp_path / "s.db") == ["True", "[(0,)]"]


def test_a_fork_waits_for_the_threads_inside(tmp_path: Path) -> None:
    """A statement is short, and the child can open the file after it."""
    program = """
    db = connected(path)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        inside.set()
        leave.wait(0.2)
        return 1

    db.create_scalar_function("hold", hold, 0)
    thread = threading.Thread(target=lambda: db.execute("SELECT hold()").fetchall())
    thread.start()
    inside.wait()
    done(child(lambda: print(refused(path))))
    thread.join()
    """
    assert printed_by(program, tmp_path / "s.db") == ["False"]


def test_a_child_is_refused_everything_while_a_thread_stays_inside(tmp_path: Path) -> None:
    """SQLite's own locks may be held by that thread, which the child does not have."""
    program = """
    db = connected(path)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        inside.set()
        leave.wait()
        return 1

    db.create_scalar_function("hold", hold, 0)
    thread = threading.Thread(target=lambda: db.execute("SELECT hold()").fetchall())
    thread.start()
    inside.wait()
    done(child(lambda: print(refused(path), refused(path + "2"))))
    pid = os.fork()
    if pid == 0:
        sys.exit(0)  # what was inherited is not closed on the way out
    done(pid)
    leave.set()
    thread.join()
    print(refused(path), db.execute("SELECT 1").fetchall())
    """
    assert printed_by(program, tmp_path / "s.db") == ["True True", "False [(1,)]"]


def test_a_child_is_refused_a_file_that_is_being_written(tmp_path: Path) -> None:
    """Closing would undo what the parent has written so far; other files are fine."""
    program = """
    db, other = connected(path), connected(path + "2")
    db.execute("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    done(child(lambda: print(refused(path), refused(path + "2"))))
    db.execute("COMMIT")
    print(db.execute("SELECT count(*) FROM t").fetchall())
    db.close()
    """
    assert printed_by(program, tmp_path / "s.db") == ["True False", "[(1,)]"]


def test_a_child_is_refused_everything_while_a_file_is_being_opened(tmp_path: Path) -> None:
    program = """
    from sojourn.stores.sqlite import forking
    with forking.opening(path):
        done(child(lambda: print(refused(path))))
    print(refused(path))
    """
    assert printed_by(program, tmp_path / "s.db") == ["True", "False"]


def test_closed_connections_are_nothing_to_a_fork(tmp_path: Path) -> None:
    program = """
    db = connected(path)
    db.close()
    (again := connected(path)).execute("CREATE TABLE t (x)")
    os.unlink(path)
    done(child(lambda: print(refused(path))))
    """
    assert printed_by(program, tmp_path / "s.db") == ["False"]


def test_a_connection_is_asked_without_harm(tmp_path: Path) -> None:
    """Whatever state it is in, and whoever is using it."""
    db = apsw.Connection(str(tmp_path / "s.db"))
    seen: list[tuple[bool, bool]] = []

    def look(*_nothing: object) -> int:
        thread = threading.Thread(
            target=lambda: seen.append((forking._is_busy(db), forking._is_writing(db)))
        )
        thread.start()
        thread.join()
        return 1

    db.create_scalar_function("look", look, 0)
    db.execute("SELECT look()").fetchall()
    assert seen == [(True, True)]
    assert (forking._is_busy(db), forking._is_writing(db)) == (False, False)
    db.execute("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    assert (forking._is_busy(db), forking._is_writing(db)) == (False, True)
    db.execute("ROLLBACK")
    db.close()
    assert (forking._is_busy(db), forking._is_writing(db)) == (False, False)
    assert forking._let_go(db)
    forking.refuse_inherited(str(tmp_path / "never made"))

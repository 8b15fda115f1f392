"""A program that ends without closing ends, and has lost nothing that was acknowledged."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.blocking.mirror import ROOT
from tests.blocking.processes import SECONDS, printed_by, url_of

from sojourn.blocking import SessionManager

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = {
    "with nothing under way": "",
    "with a thread in a watch": """
    started = threading.Event()
    def follow():
        for event in sessions.watch("s"):
            started.set()
    threading.Thread(target=follow, daemon=True).start()
    started.wait()
    """,
    "with a reaper that runs": "Reaper(sessions, interval=3600).__enter__()",
    "with a hook that never ends": """
    started = threading.Event()
    def hook(session, reason):
        started.set()
        threading.Event().wait()
    sessions.on_end(hook)
    threading.Thread(target=sessions.end, args=["t"], daemon=True).start()
    started.wait()
    """,
    "with a lease and a scope": """
    lease = sessions.lease("s")
    lease.__enter__()
    scope = sessions.scope("s")
    scope.__enter__()
    """,
    "with a call at its very end": """
    import atexit
    atexit.register(lambda: sessions.append("s", Event(kind="k")))
    """,
    "with an error": "sys.excepthook = lambda *_: os._exit(0)\n    raise ValueError",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_a_program_that_does_not_close_ends(tmp_path: Path, ending: str) -> None:
    program = f"""
    sessions = SessionManager.open(url)
    sessions.create(id="s", events=[Event(kind="k")])
    sessions.create(id="t")
    {ending}
    """
    assert printed_by(program, url_of(tmp_path)) == ""
    with SessionManager.open(url_of(tmp_path)) as sessions:
        assert len(sessions.events("s")) == (2 if "atexit" in ending else 1)
        assert list(sessions.store.check()) == []


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
@pytest.mark.parametrize("first", [True, False], ids=["used before", "used for the first time"])
def test_what_is_closed_at_exit_is_closed(tmp_path: Path, scheme: str, first: bool) -> None:
    """Python has ended its executors by then: nobody takes what blocks."""
    url = f"{scheme}:///{tmp_path}/kept"
    program = f"""
    sessions = SessionManager.open(url)
    if {first}:
        sessions.count()

    def last():
        session = sessions.create(id="s", events=[Event(kind="k")])
        sessions.append("s", Event(kind="k"))
        assert len(sessions.events("s")) == 2
        assert list(sessions.store.check()) == []
        sessions.close()
        sessions.close()
        print("closed")

    def others():
        return [thread for thread in threading.enumerate() if thread is not threading.main_thread()]

    def print_left():
        for thread in others():
            thread.join(10)  # one that has just done its work may be about to end
        print([thread.name for thread in others()])

    atexit.register(last)
    at_last.append(print_left)
    """
    assert printed_by(program, url) == "closed\n[]\n"
    with SessionManager.open(url) as sessions:
        assert len(sessions.events("s")) == 2


@pytest.mark.parametrize("use", ["used", "left", "beside"])
@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        "file",
        "postgres",
        pytest.param("redis", marks=pytest.mark.xdist_group("redis")),
    ],
)
def test_the_store_is_closed_at_exit(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, use: str
) -> None:
    """Python warns of each connection, and of each file, that nobody has closed by then."""
    if kind == "postgres":
        url = request.getfixturevalue("postgres").url(schema=f"at_exit_{use}")
    elif kind == "redis":
        url = f"{request.getfixturevalue('redis_server').url}?prefix={tmp_path.name}"
    else:
        url = f"{kind}:///{tmp_path}/kept"
    # Without what other programs here begin with: that keeps things alive for too long.
    program = f"""
from sojourn import Event
from sojourn.blocking import SessionManager
sessions = SessionManager.open({url!r})
sessions.create(id="s", events=[Event(kind="k")])
if {use == "left"}:
    next(iter(sessions.watch("s", after=0)))
    lease = sessions.lease("s")
    lease.__enter__()
elif {use == "beside"}:  # another manager, which is closed
    with SessionManager.open({url!r}) as others:
        others.count()
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=ROOT,
    )
    # Under -X dev a loop also tells of every step that took long, as it may on a busy machine.
    told = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, done.stdout, told) == (0, "", [])


def test_the_thread_is_stopped_at_exit() -> None:
    """It is not left to be cut off in the middle of something."""
    program = """
    sessions = SessionManager.open(url)
    sessions.count()
    at_last.append(lambda: print([thread.name for thread in threading.enumerate()]))
    """
    assert printed_by(program, "memory://") == "['MainThread']\n"


def test_many_managers_come_and_go() -> None:
    """None leaves a thread or a file descriptor behind."""
    program = """
    def used():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with SessionManager.open("memory://") as sessions:
        sessions.count()
    before = used()
    for _ in range(20):
        with SessionManager.open("memory://") as sessions:
            sessions.count()
    assert used() == before, (before, used())
    """
    printed_by(program, "memory://")

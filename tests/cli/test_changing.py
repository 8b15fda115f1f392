"""`end`, `delete`, `forget`, `reap` and `fork` through pipes."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import apsw
import pytest

from sojourn import Phase, SessionManager

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Runner

HERE = ("-u", "sqlite:///app.db", "--app", "shop")
HOOKS = """
import pathlib

def register(sessions):
    async def note(session, reason):
        with pathlib.Path("ended").open("a") as file:
            file.write(f"{session.id} {reason}\\n")
    sessions.on_end(note)

print("imported")

def printing(sessions):
    print("registered")

    @sessions.on_end
    async def archive(session, reason):
        print("archived", session.id)

async def failing(sessions):
    async def fail(session, reason):
        raise ValueError("no \\x1b[31m way")
    sessions.on_end(fail)

nothing = None
"""


@pytest.fixture(autouse=True)
def hooks(tmp_path: Path) -> None:
    """A module of an application's end hooks, in the current folder."""
    (tmp_path / "shop_hooks.py").write_text(HOOKS)


def phase_of(database: Path, id: str) -> Phase | None:
    """Return the phase of a session, expired or not; `None` without one."""

    async def look() -> Phase | None:
        async with SessionManager.open(f"sqlite:///{database}", app="shop") as sessions:
            session = await sessions.get(id, expired=True)
            return None if session is None else session.phase

    return asyncio.run(look())


@pytest.mark.parametrize("command", [("end", "s-1"), ("delete", "s-1"), ("forget", "u-1")])
def test_nobody_to_ask_and_no_yes_is_refused(
    database: Path, sojourn: Runner, command: tuple[str, ...]
) -> None:
    done = sojourn(*command, *HERE)
    assert done.code == 2
    assert done.err.splitlines()[-1].endswith(". try: the same with --yes")
    assert "?" not in done.err
    assert phase_of(database, "s-1") is Phase.OPEN


@pytest.mark.parametrize("command", ["end", "delete"])
def test_an_unknown_id_is_not_found(database: Path, sojourn: Runner, command: str) -> None:
    done = sojourn(command, "nope", "--yes", *HERE)
    assert done.code == 3
    assert done.err == "sojourn: session 'nope': no such session. try: sojourn ls\n"


def test_end_removes(database: Path, sojourn: Runner) -> None:
    done = sojourn("end", "s-1", "--yes", "--json", *HERE)
    assert json.loads(done.out) == {"id": "s-1", "ended": True}
    assert phase_of(database, "s-1") is None
    assert phase_of(database, "agent-1") is None


def test_end_keeps_the_record_as_long_as_told(database: Path, sojourn: Runner) -> None:
    sojourn("end", "s-1", "--yes", "--retain", "1000", "--reason", "enough", *HERE)
    assert phase_of(database, "s-1") is Phase.ENDED
    assert "reason  enough" in sojourn("show", "s-1", *HERE).out
    again = sojourn("end", "s-1", "--yes", *HERE)
    assert (again.code, again.out) == (0, "s-1 was over already\n")


def test_end_can_be_left_to_the_application(database: Path, sojourn: Runner) -> None:
    done = sojourn("end", "s-1", "--begin", "--yes", "--json", *HERE)
    assert json.loads(done.out) == {"id": "s-1", "ended": False, "phase": "ENDING"}
    assert phase_of(database, "s-1") is Phase.ENDING
    assert sojourn("end", "s-1", "--begin", "--retain", "1", "--yes", *HERE).code == 2


def test_end_runs_the_hooks_that_are_named(database: Path, sojourn: Runner) -> None:
    hooks = ("--hooks", "shop_hooks:register")
    assert sojourn("end", "agent-1", "--yes", "--reason", "r", *hooks, *HERE).code == 0
    assert (database.parent / "ended").read_text() == "agent-1 r\n"


def test_what_hooks_print_goes_to_stderr(
    database: Path, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results on stdout are for the next program to read, JSON or not."""
    monkeypatch.delitem(sys.modules, "shop_hooks", raising=False)
    hooks = ("--hooks", "shop_hooks:printing")
    done = sojourn("end", "agent-1", "--yes", "--json", *hooks, *HERE)
    assert json.loads(done.out) == {"id": "agent-1", "ended": True}
    assert done.err == "imported\nregistered\narchived agent-1\n"
    done = sojourn("end", "s-1", "--yes", *hooks, *HERE)
    assert (done.out, done.err) == ("ended s-1\n", "registered\narchived s-1\n")
    done = sojourn("reap", "--json", *hooks, *HERE)
    assert json.loads(done.out) == {"ended": 5, "failed": 0}
    assert done.err.count("archived old-") == 5


def test_a_hook_that_fails_leaves_the_session_ending(database: Path, sojourn: Runner) -> None:
    done = sojourn("end", "s-1", "--yes", "--hooks", "shop_hooks:failing", *HERE)
    assert done.code == 1
    assert "try: again, or leave it to the reaper" in done.err
    assert "\x1b" not in done.err
    assert phase_of(database, "s-1") is Phase.ENDING


@pytest.mark.parametrize(
    "named",
    ["shop_hooks", "no_such_module:f", "shop_hooks:none", "shop_hooks:nothing", ":", "os:getcwd"],
)
def test_hooks_that_are_not_there_are_refused(database: Path, sojourn: Runner, named: str) -> None:
    assert sojourn("end", "s-1", "--yes", "--hooks", named, *HERE).code == 2
    assert phase_of(database, "s-1") is Phase.OPEN


def test_a_function_that_does_not_say_what_it_takes_is_called(
    database: Path, sojourn: Runner
) -> None:
    assert sojourn("end", "agent-1", "--yes", "--hooks", "builtins:type", *HERE).code == 0


def test_delete_removes_and_runs_no_hooks(database: Path, sojourn: Runner) -> None:
    done = sojourn("delete", "s-1", "--yes", "--json", *HERE)
    assert json.loads(done.out) == {"id": "s-1", "deleted": True}
    assert phase_of(database, "s-1") is None


def test_delete_removes_a_damaged_record_too(database: Path, sojourn: Runner) -> None:
    with apsw.Connection(str(database)) as db:
        db.execute("UPDATE sessions SET state = 'no JSON' WHERE id = 'agent-1'")
    assert sojourn("show", "agent-1", *HERE).code == 1
    assert sojourn("delete", "agent-1", "--yes", *HERE).code == 0
    assert sojourn("show", "agent-1", *HERE).code == 3


def test_forget_removes_everything_of_a_user(database: Path, sojourn: Runner) -> None:
    done = sojourn("forget", "u-1", "--yes", "--json", *HERE)
    assert json.loads(done.out) == {"user": "u-1", "sessions": 1}
    assert json.loads(sojourn("ls", "--user", "u-1", "--json", *HERE).out)["sessions"] == []


def test_reap_counts_what_it_ended(database: Path, sojourn: Runner) -> None:
    done = sojourn("reap", "--batch", "2", "--json", *HERE)
    assert json.loads(done.out) == {"ended": 5, "failed": 0}
    assert not done.err  # no progress bar where there is no terminal
    assert json.loads(sojourn("reap", "--json", *HERE).out) == {"ended": 0, "failed": 0}
    assert phase_of(database, "s-1") is Phase.OPEN


def test_reap_runs_the_hooks_that_are_named(database: Path, sojourn: Runner) -> None:
    done = sojourn("reap", "--hooks", "shop_hooks:register", "--json", *HERE)
    assert json.loads(done.out) == {"ended": 5, "failed": 0}
    ended = (database.parent / "ended").read_text().splitlines()
    assert sorted(line.split()[0] for line in ended) == [f"old-{n}" for n in range(5)]


def test_reap_tells_of_what_failed(database: Path, sojourn: Runner) -> None:
    done = sojourn("reap", "--hooks", "shop_hooks:failing", "--json", *HERE)
    assert done.code == 1
    assert json.loads(done.out) == {"ended": 0, "failed": 5}
    lines = done.err.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("sojourn: ") and line.isprintable() for line in lines)
    assert phase_of(database, "old-1") is Phase.ENDING


def test_fork_as_of_an_event(database: Path, sojourn: Runner) -> None:
    done = sojourn("fork", "s-1", "--at", "3", "--id", "copy", "--json", *HERE)
    made = json.loads(done.out)
    assert (made["id"], made["forked_from"], made["events"]) == ("copy", "s-1", 3)
    shown = json.loads(sojourn("show", "copy", "--json", *HERE).out)
    assert shown["state"]["session"]["turn"] == 2


def test_fork_onto_an_id_that_is_there_is_a_conflict(database: Path, sojourn: Runner) -> None:
    done = sojourn("fork", "s-1", "--id", "agent-1", *HERE)
    assert done.code == 4
    assert "try: another name" in done.err


def test_fork_of_nothing_is_not_found(database: Path, sojourn: Runner) -> None:
    assert sojourn("fork", "nope", *HERE).code == 3

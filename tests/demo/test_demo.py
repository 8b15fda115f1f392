"""The demo: it shows what it says, and it would say so if anything had been lost."""

from __future__ import annotations

import asyncio
import io
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import apsw
import pytest

from sojourn.demo import __main__ as command
from sojourn.demo import processes
from sojourn.demo.ledger import Acknowledged, Check, compare, load
from sojourn.demo.processes import Worker
from sojourn.demo.report import Report

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 120

# The room is the first session of the file: its row is 1. Its first event is a message.
LOSE_A_MESSAGE = "DELETE FROM events WHERE session = 1 AND seq = 1"
REPEAT_A_MESSAGE = """INSERT INTO events (key, at, peak, id, kind, author, body, changes)
    SELECT key + 1000, at, peak, 'again', kind, author, body, changes
    FROM events WHERE session = 1 AND seq = 1"""
SET_A_COUNT_BACK = """UPDATE sessions SET state = json_set(state, '$."said.anna"', 3)
    WHERE row = 1"""
LOSE_A_CARD = """UPDATE sessions SET state = json_remove(state, '$."card.ben"') WHERE row = 1"""
LOSE_A_DELTA = "UPDATE events SET changes = NULL WHERE session = 1 AND seq = 1"


class Run(NamedTuple):
    """A demo that has run: its folder and what it printed."""

    folder: Path
    text: str

    def row(self, what: str) -> str:
        """Return the line of the table that begins like this."""
        return row(self.text, what)


def row(text: str, what: str) -> str:
    """Return the only line of a table that begins like this."""
    (found,) = (line for line in text.splitlines() if line.strip().startswith(what))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A demo with few messages, run as a user runs it."""
    here = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "sojourn.demo", "--messages", "8"],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return Run(here / "demo-run", done.stdout)


@pytest.fixture
def left(run: Run, tmp_path: Path) -> Path:
    """A copy of what a demo left in its folder."""
    return shutil.copytree(run.folder, tmp_path / "left")


def test_every_check_of_the_table_holds(run: Run) -> None:
    """A run ends with a table in which each line says yes, and with the place of the file."""
    lines = run.text.splitlines()
    heading = [line.split() for line in lines].index(["check", "expected", "found", "ok"])
    rows = lines[heading + 1 : lines.index("", heading)]
    assert len(rows) >= 20
    assert all(line.endswith("yes") for line in rows)
    assert "Nothing was lost." in lines
    assert str(run.folder / "demo.db") in run.text
    assert (run.folder / "demo.db").stat().st_size > 0


def test_a_process_was_killed_and_went_on(run: Run) -> None:
    """The interrupted one had more acknowledged than before its death: it came back and went on."""
    told = load(run.folder)
    assert run.row("exit code of the killed process").split()[-3:] == ["-9", "-9", "yes"]
    numbers = [
        item.number
        for item in told.acknowledged
        if item.author == told.interrupted and item.what == "message"
    ]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 8


def test_the_watcher_was_stopped_and_went_on(run: Run) -> None:
    """Two watching processes each saw a part, and the second began right behind the first."""
    first, second = load(run.folder).watched
    assert first
    assert second
    assert second[0].seq == first[-1].seq + 1


def test_nothing_is_coloured_outside_of_a_terminal(run: Run) -> None:
    """What goes into a pipe is plain text."""
    assert "\x1b" not in run.text


def test_what_is_shown_to_be_typed_works(run: Run) -> None:
    """Each query that is shown returns rows of the file that was left."""
    room = load(run.folder).room
    with apsw.Connection(str(run.folder / "demo.db"), flags=apsw.SQLITE_OPEN_READONLY) as db:
        for query in command.QUERIES:
            text = query.format(room=room)
            assert text in run.text
            assert db.execute(text).fetchall()


def test_what_a_run_left_can_be_checked_again(
    left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` finds the same again, without a demo."""
    assert command.main(["--check", "--folder", str(left)]) == 0
    assert "Nothing was lost." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (LOSE_A_MESSAGE, "acknowledged messages that are there exactly once"),
        (LOSE_A_MESSAGE, "events the watcher was given"),
        (REPEAT_A_MESSAGE, "acknowledged messages that are there exactly once"),
        (SET_A_COUNT_BACK, "anna: messages in the log, count and card"),
        (LOSE_A_CARD, "acknowledged saves that are there"),
        (LOSE_A_DELTA, "messages with their change of state"),
        ("DELETE FROM events WHERE session <> 1", "events that the fork shares"),
        ("DELETE FROM documents", "what its end hook put into the archive"),
        ("UPDATE counts SET sessions = sessions + 1", "what is wrong with the file"),
    ],
)
def test_a_planted_loss_is_found(
    left: Path, damage: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is lost from the file behind the demo's back fails its line, and the exit code."""
    with apsw.Connection(str(left / "demo.db")) as db:
        db.execute(damage)
        assert db.changes()
    assert command.main(["--check", "--folder", str(left)]) == 1
    text = capsys.readouterr().out
    assert row(text, what).endswith("NO")
    assert "FAILED" in text


def test_a_session_that_is_gone_is_told(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the room there is nothing to compare: that is said, and it is no success."""
    with apsw.Connection(str(left / "demo.db")) as db:
        db.execute("DELETE FROM sessions WHERE row = 1")
    assert command.main(["--check", "--folder", str(left)]) == 1
    assert "can not be checked" in capsys.readouterr().out


def test_a_folder_without_a_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to check where nothing ran."""
    assert command.main(["--check", "--folder", str(tmp_path)]) == 2
    assert "nothing from an earlier run" in capsys.readouterr().out


def test_somebody_elses_file_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demo.db that no demo made stays as it is, and the demo does not start."""
    (tmp_path / "demo.db").write_bytes(b"precious")
    assert command.main(["--folder", str(tmp_path)]) == 2
    assert "not made by this demo" in capsys.readouterr().out
    assert (tmp_path / "demo.db").read_bytes() == b"precious"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_can_not_be_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").touch()
    assert command.main(["--folder", str(tmp_path / place), "--quick"]) == 2
    told = capsys.readouterr().out
    assert f"{tmp_path / place} can not be used: " in told
    assert "choose another --folder" in told


def test_a_number_of_messages_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Zero messages would show nothing, so they are refused."""
    with pytest.raises(SystemExit):
        command.main(["--messages", "0"])
    assert "from 1" in capsys.readouterr().err


async def test_a_worker_that_fails_is_no_success() -> None:
    """A child process that ends before it has done its part is an error, not less to check."""
    arguments = ("memory://", "no-such-session", "anna", "1")
    worker = await Worker.start("client", *arguments, kind=Acknowledged)
    with pytest.raises(RuntimeError, match="ended after 0 reports"):
        await worker.reported(1)
    with pytest.raises(RuntimeError, match="exit code 1"):
        await worker.finished()
    await worker.abandon()


async def test_half_a_report_acknowledges_nothing() -> None:
    """What a killed process was still writing into the pipe counts as not reported."""
    whole = '{"author":"anna","what":"message","number":1}'
    script = f"import sys; sys.stdout.write('{whole}\\n' + '{whole[:20]}')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    worker = Worker(process, Acknowledged, [])
    assert await worker.ended() == 0
    assert worker.lines == [Acknowledged("anna", "message", 1)]


async def test_a_worker_that_does_not_stop_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo waits for nobody for ever; what was reported by then counts."""
    monkeypatch.setattr(processes, "STOPPING_SECONDS", 0.05)
    whole = '{"author":"anna","what":"message","number":1}'
    script = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"print('{whole}', flush=True); sys.stdin.read()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    worker = Worker(process, Acknowledged, [])
    await worker.reported(1)
    assert await worker.stop() == -signal.SIGKILL
    assert worker.lines == [Acknowledged("anna", "message", 1)]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return that it is."""
        return True


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colours, unless `NO_COLOR` asks for none."""
    checks = [compare("one", 1, 1), Check("two", "2", "3", ok=False)]
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Terminal()
    Report(coloured).table(checks)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Report(plain).table(checks)
    assert "\x1b[32myes" in coloured.getvalue()
    assert "\x1b[31mNO" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()
    assert plain.getvalue().splitlines()[1].split() == ["one", "1", "1", "yes"]


def test_the_library_does_not_import_the_demo() -> None:
    """Whoever uses the library does not load the demo."""
    code = "import sojourn, sys; print([m for m in sys.modules if m.startswith('sojourn.demo')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert done.stdout.strip() == "[]"

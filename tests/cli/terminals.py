"""Commands run as people run them: in a real terminal of a given width, or in a pipe."""

from __future__ import annotations

import codecs
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tests.cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SECONDS = 60.0
"""A program that says nothing for so long hangs."""

LINES = 50
WIDTHS = (80, 200)
PROGRAM = (sys.executable, "-m", "sojourn")


class Done(NamedTuple):
    """What came of a command in a pipe."""

    code: int
    out: str
    err: str


def surroundings(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which nobody has set anything of ours, or of the terminal."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("SOJOURN_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS")
        )
    }
    return {**kept, "TERM": "xterm-256color", "PYTHONUTF8": "1", **(extra or {})}


def piped(folder: Path, *arguments: str, typed: str = "", **variables: str) -> Done:
    """Run a command whose streams are pipes."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=surroundings(variables),
        input=typed,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Terminal:
    """A command in a terminal: type into it, wait for what it shows, see its screen."""

    def __init__(self, process: subprocess.Popen[bytes], side: int, columns: int) -> None:
        self.process = process
        self.screen = Screen(columns)
        self.raw = ""
        self._side = side
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._side, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until this stands on the screen."""
        while text not in self.screen.text:
            assert self._read(), f"it ended without {text!r}:\n{self.screen.text}"

    def finish(self) -> int:
        """Read to the end and return the exit code."""
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._side], [], [], SECONDS)
        assert ready, f"it hangs:\n{self.screen.text}"
        try:
            got = os.read(self._side, 65_536)
        except OSError:  # what Linux says when the other side is closed
            return False
        text = self._decoder.decode(got)
        self.raw += text
        self.screen.feed(text)
        return bool(got)


def enter(side: int) -> None:
    """Make a terminal that of this new process. Whoever runs the tests may ignore Ctrl-C."""
    os.login_tty(side)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def terminal(
    folder: Path, *arguments: str, columns: int = 80, **variables: str
) -> Iterator[Terminal]:
    """Run a command in a terminal of its own."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (LINES, columns))
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=surroundings(variables),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: enter(theirs),  # noqa: PLW1509 - a terminal of its own needs it
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, columns)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        os.close(ours)


class Shown(NamedTuple):
    """What a command left on the screen of a terminal of each width."""

    code: int
    screen: Screen
    raw: str


def in_terminals(folder: Path, *arguments: str, typed: str = "") -> dict[int, Shown]:
    """Run a command in a terminal of each width, at the same time; `{columns}` is the width."""
    with ExitStack() as stack:
        running = {}
        for columns in WIDTHS:
            given = [argument.replace("{columns}", str(columns)) for argument in arguments]
            running[columns] = stack.enter_context(terminal(folder, *given, columns=columns))
        shown = {}
        for columns, one in running.items():
            if typed:
                one.wait_for("[y/N]")
                one.type(typed)
            code = one.finish()
            shown[columns] = Shown(code, one.screen, one.raw)
        return shown

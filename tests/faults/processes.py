"""Real processes for the fault tests: start a worker script, tell it to go, read what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import os
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]

HANG_SECONDS = 120.0
"""A worker that lives longer hangs; it is killed, and its test sees the end of its output."""


class Worker:
    """A script of `tests/faults/workers` in a process of its own, speaking JSON lines."""

    def __init__(self, script: str, *arguments: str | os.PathLike[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.faults.workers.{script}", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(HANG_SECONDS, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process, whatever it is doing."""
        self.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, word: str = "go") -> None:
        """Send a line to the worker."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """Return the next thing that the worker says; it may not end instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker ended with {self.process.wait()} instead of an answer"
        return json.loads(line)

    def finish(self) -> int:
        """Let the worker end by itself and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait()

    def kill(self) -> None:
        """Kill the process; twice is fine."""
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

"""Freezing a process: it stops in its tracks, connections stay, nothing is answered."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

STOPPED_SECONDS = 30.0
"""Longest wait for a process to be stopped, on a busy machine."""

LOOK_SECONDS = 0.001
"""Time between two looks at whether it is."""

_never = threading.Event()


def freeze_process(pid: int) -> None:
    """Stop a process; return once it is. A signal alone lets it answer some calls more.

    Raises `ProcessLookupError` if there is none.
    """
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + STOPPED_SECONDS
    while not is_frozen(pid):
        assert time.monotonic() < end, f"process {pid} does not stop"
        _never.wait(LOOK_SECONDS)


def is_frozen(pid: int) -> bool:
    """Return whether every thread of a process is stopped (or over)."""
    try:
        threads = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    return all(facts.rpartition(")")[2].split()[0] in "TtZX" for facts in threads)

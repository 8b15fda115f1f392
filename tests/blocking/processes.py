"""Programs in processes of their own, which may fork, be killed, or end without a word."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from tests.blocking.mirror import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 60
"""A program that takes longer hangs, and its test fails."""

PREAMBLE = """
import faulthandler, os, signal, sys, threading, warnings
faulthandler.register(signal.SIGALRM, chain=True)  # what hangs says where
signal.alarm(50)
import atexit
at_last = []  # what is to be done after everything else that is done at exit
atexit.register(lambda: [work() for work in at_last])
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
from sojourn import *
from sojourn.blocking import Reaper, SessionManager

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        try:
            work()
            sys.stdout.flush()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

def done(*pids):
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
"""


def printed_by(program: str, url: str) -> str:
    """Run a program that knows `url` and return what it and its children print."""
    text = f"{PREAMBLE}\nurl = {url!r}\n{textwrap.dedent(program)}"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", text],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout


def url_of(tmp_path: Path) -> str:
    """Return the URL of a file in a folder."""
    return f"sqlite:///{tmp_path / 's.db'}"

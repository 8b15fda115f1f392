"""A pipe whose other end stalls: whoever waits for it can be stopped."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import signal
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.terminals import PROGRAM, SECONDS, surroundings
from tests.transfer.contents import opened

from sojourn import SessionManager
from sojourn.transfer import export_sessions, import_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIPE = 1024 * 1024
"""Bytes that no pipe takes as long as nobody reads: what has written more than that was read."""

STOPPED = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def heeding() -> None:
    """Have a new process heed Ctrl-C: whoever runs the tests may ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command whose streams are pipes; kill it if it does not end."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=surroundings(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        preexec_fn=heeding,  # noqa: PLW1509 - see there
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def compressed_start() -> bytes:
    """Return the beginning of one line that is compressed, of which more is to come."""
    return gzip.compress(os.urandom(3 * PIPE).hex().encode(), 1)[: 2 * PIPE]


@pytest.mark.parametrize(("number", "code"), STOPPED)
@pytest.mark.parametrize("packed", [False, True])
def test_an_import_from_a_pipe_is_stopped(
    tmp_path: Path, number: signal.Signals, code: int, packed: bool
) -> None:
    with running(tmp_path, "import", "-", "-u", "sqlite:///to.db") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        rest = memoryview(compressed_start() if packed else b"{" + b" " * 2 * PIPE)
        while rest:  # it does not end before most of it was read: the command waits for more
            rest = rest[process.stdin.write(rest) :]
        process.send_signal(number)
        assert process.wait(SECONDS) == code
        assert process.stderr.read() == b""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), STOPPED)
def test_an_export_to_a_pipe_is_stopped(tmp_path: Path, number: signal.Signals, code: int) -> None:
    async def made() -> None:
        async with SessionManager.open(f"sqlite:///{tmp_path}/from.db") as sessions:
            for _ in range(4):
                await sessions.create(state={"text": "x" * (PIPE // 2)})

    asyncio.run(made())
    with running(tmp_path, "export", "-", "-u", "sqlite:///from.db") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"{"  # it writes; the rest is more than the pipe takes
        process.send_signal(number)
        assert process.wait(SECONDS) == code
        assert process.stderr.read() == b""


class Stalling(io.RawIOBase):
    """A stream that says when it is used, and then does nothing until it is let go on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.used = asyncio.Event()
        self.go_on = threading.Event()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:
        self._stall()
        return 0

    def write(self, data: Any) -> int:
        self._stall()
        return len(data)

    def _stall(self) -> None:
        self._loop.call_soon_threadsafe(self.used.set)
        assert self.go_on.wait(SECONDS)


@pytest.mark.parametrize("move", [import_sessions, export_sessions])
async def test_a_stream_is_not_waited_for(move: Any) -> None:
    stream: Any = Stalling()
    async with opened("memory://") as store:
        task = asyncio.create_task(move(store, stream))
        await stream.used.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not stream.go_on.is_set()
        assert not stream.closed
    stream.go_on.set()

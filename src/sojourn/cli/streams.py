"""The streams of a command where the other end does not do its part: it is gone, or stalls."""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress
from typing import Any, TextIO


def drop_the_rest(stream: TextIO) -> None:
    """Stop writing to a stream: Python would fail once more when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Remarks:
    """A stream for remarks, stderr: where it can not be written to they are lost, and that is all.

    What came of a command does not depend on who reads its remarks; nor does its exit code.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, if it can be done."""
        try:
            return self._stream.write(text)
        except OSError:
            self._lost()
            return len(text)

    def flush(self) -> None:
        """Have everything written, if it can be done."""
        try:
            self._stream.flush()
        except OSError:
            self._lost()

    def _lost(self) -> None:
        with suppress(OSError):  # it is no file; then nothing flushes it later
            drop_the_rest(self._stream)


def bytes_from(stream: TextIO) -> io.BufferedReader:
    """Return what reads the bytes of a standard stream beside it.

    Python closes its own streams at its end, and could not while a thread still waits in one.
    """
    return io.BufferedReader(_Raw(stream, "rb"))


def bytes_to(stream: TextIO) -> io.RawIOBase:
    """Return what writes bytes to a standard stream beside it, all at once.

    For the reason of `bytes_from`, and so that nothing waits in it that would be written later.
    """
    return _Raw(stream, "wb")


class _Raw(io.FileIO):
    """The file behind a standard stream, by its name."""

    def __init__(self, stream: TextIO, mode: str) -> None:
        super().__init__(stream.fileno(), mode, closefd=False)
        self.name = stream.name

    def write(self, data: Any, /) -> int:
        """Write all of it: the system may take a part at a time."""
        rest = memoryview(data)
        while rest:
            done = super().write(rest)
            if done is None:  # somebody set it to not wait
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            rest = rest[done:]
        return memoryview(data).nbytes

"""The streams of a command where nobody takes what is written to them."""

from __future__ import annotations

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

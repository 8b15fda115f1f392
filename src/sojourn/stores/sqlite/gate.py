"""The gate: one process writes the file at a time, and each gets its turn.

SQLite's own lock is taken by whoever polls at the right moment, so one process can starve. The
kernel's `flock` queues its waiters. It is let go by the kernel when its holder dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import weakref

from sojourn.errors import ReadOnly, Unavailable

SUFFIX = "-gate"
"""The gate is an empty file beside the database, with this at the end of its name."""


class Gate:
    """A lock between the processes that share a file. Used by one thread of a process."""

    def __init__(self, path: str) -> None:
        """Make the gate file if need be. Raises `ReadOnly` or `Unavailable` if that fails."""
        self._file: int | None = None
        try:
            self._file = os.open(path + SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except PermissionError as error:
            raise ReadOnly(path, f"its folder can not be written: {error.strerror}") from error
        except OSError as error:
            kind = ReadOnly if error.errno == errno.EROFS else Unavailable
            raise kind(path, f"its gate can not be opened: {error.strerror}") from error
        _gates.add(self)

    def acquire(self) -> None:
        """Wait for the turn of this process."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def acquire_within(self, seconds: float) -> bool:
        """Wait so long at most, and return whether it is the turn of this process; else close.

        A thread waits, because `flock` knows no deadline. Closing the gate lets go of what that
        thread may still get.
        """
        waiter = threading.Thread(target=self.acquire, daemon=True)
        waiter.start()
        waiter.join(seconds)
        return not waiter.is_alive()

    def release(self) -> None:
        """Let the next process go."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go for good. Twice is fine."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)


_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close the gates that a forked child inherited: it would hold its parent's turn for ever."""
    for gate in list(_gates):
        gate.close()


os.register_at_fork(after_in_child=_close_in_child)

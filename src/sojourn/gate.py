"""The gate: one process writes at a time, and each gets its turn.

SQLite's own lock is taken by whoever polls at the right moment, so one process can starve. The
kernel's `flock` queues its waiters. It is let go by the kernel when its holder dies. Who waits is
marked, so that a process with a batch ready does not come back before the one that was woken.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import weakref

from sojourn.errors import ReadOnly, Unavailable

SUFFIX = "-gate"
"""The gate is an empty file beside the database, with this at the end of its name."""

MODE = 0o644
"""The permissions of a gate that is made before its file, where the umask does not take more."""


class Gate:
    """A lock between the processes that share a file. Used by one thread of a process."""

    def __init__(self, path: str, suffix: str = SUFFIX) -> None:
        """Make the gate of `path` if need be. Raises `ReadOnly` or `Unavailable` if that fails."""
        self._file: int | None = None
        try:
            self._file = _opened(path, suffix)
        except PermissionError as error:
            raise ReadOnly(path, f"its folder can not be written: {error.strerror}") from error
        except OSError as error:
            kind = ReadOnly if error.errno == errno.EROFS else Unavailable
            raise kind(path, f"its gate can not be opened: {error.strerror}") from error
        _gates.add(self)

    def acquire(self) -> None:
        """Wait for the turn of this process, or until the gate is closed."""
        file = self._file
        if file is None:
            return
        try:
            _set_mark(file, fcntl.F_RDLCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            finally:
                _set_mark(file, fcntl.F_UNLCK)
        except OSError:
            if self._file is not None:  # else it was closed meanwhile
                raise

    def acquire_at_once(self) -> bool:
        """Return whether it is the turn of this process: nobody is inside and nobody waits."""
        if self._file is None:
            return True
        if _is_marked(self._file):
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

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


def _set_mark(file: int, kind: int) -> None:
    """Mark that this process waits, or does not any more: a shared lock on the first byte.

    It belongs to the open file and not to the process, so it is let go with it. Where the system
    has no such locks nobody is marked, and who has a batch ready may be back before who waits.
    """
    if _SET is not None:
        fcntl.fcntl(file, _SET, _LOCK.pack(kind, os.SEEK_SET, 0, 1, 0))


def _is_marked(file: int) -> bool:
    """Return whether another process waits."""
    if _GET is None:
        return False
    return not fcntl.fcntl(file, _GET, _QUESTION).startswith(_NOBODY)


_SET: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_GET: int | None = getattr(fcntl, "F_OFD_GETLK", None)
_LOCK = struct.Struct("hhqqi4x")
"""`struct flock`: the kind, where the start counts from, start, length, and no process."""
_QUESTION = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
_NOBODY = struct.pack("h", fcntl.F_UNLCK)
"""What is asked, whether there is a mark, and how an answer begins that there is none."""


def _opened(path: str, suffix: str) -> int:
    """Return the gate of a file, opened. One that is made is for whoever the file is for.

    Else the first visit of an administrator would lock out the program that owns the file.
    """
    try:
        return os.open(path + suffix, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        gate = os.open(path + suffix, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    with contextlib.suppress(OSError):  # there is no file yet, or it is not ours to give away
        file = os.stat(path)  # noqa: PTH116 - beside os.open and os.fchown
        os.fchmod(gate, file.st_mode & 0o666)
        if os.geteuid() == 0:
            os.fchown(gate, file.st_uid, file.st_gid)
    return gate


_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close the gates that a forked child inherited: it would hold its parent's turn for ever."""
    for gate in list(_gates):
        gate.close()


os.register_at_fork(after_in_child=_close_in_child)

"""Forks: a child lets go of the connections it inherits, for it has none of the locks they hold.

What locks a process has on a file, SQLite remembers for all its connections together, and a forked
child inherits the memory without the locks. Whatever it opened then would work without any: others
would take away under it what it reads, and throw away the log that it writes to. So a fork waits
for a moment at which no thread is inside SQLite, and the child closes what it inherited before
anything else happens in it. Where that is not possible the child is refused the file.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import apsw

from sojourn.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET_SECONDS = 1.0
"""Longest wait of a fork for the threads inside SQLite. A write takes milliseconds; for a backup
or a long list it is not worth to wait: few children open the file."""

LOOK_SECONDS = 0.001
"""Time between two looks at whether they are done."""

File = tuple[int, int]
"""Device and inode: what SQLite knows a file by."""


class _Inheritance:
    """What this process must not use because it is its parent's."""

    def __init__(self) -> None:
        self.files: set[File] = set()
        self.everything = False


_inherited = _Inheritance()
_ours: WeakKeyDictionary[apsw.Connection, str] = WeakKeyDictionary()
_opening: dict[object, str] = {}


@contextlib.contextmanager
def opening(path: str) -> Iterator[None]:
    """Say that this thread is inside SQLite before there is a connection that shows it."""
    token = object()
    _opening[token] = path
    try:
        yield
    finally:
        del _opening[token]


def opened(db: apsw.Connection, path: str) -> None:
    """Have a forked child close this connection."""
    _ours[db] = path


def refuse_inherited(path: str) -> None:
    """Raise `Unavailable` for a file that this process can not use since it was forked."""
    if _inherited.everything or _file_of(path) in _inherited.files:
        raise Unavailable(
            path,
            "it was in the middle of being used when this process was forked, and can not be used "
            "here: fork before it is opened, or after it is closed",
        )


def _file_of(path: str) -> File | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - as everywhere in this backend
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_quiet() -> bool:
    """Return whether no thread is inside SQLite."""
    return not _opening and not any(map(_is_busy, apsw.connections()))


def _is_busy(db: apsw.Connection) -> bool:
    """Return whether a thread is inside a call on this connection; asks SQLite for its lock."""
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1)
    except apsw.ThreadingViolationError:
        return True
    except apsw.ConnectionClosedError:
        return False
    return False


def _before() -> None:
    """Wait for a quiet moment, and a little for the end of a write."""
    if not _ours and not _opening:
        return
    give_up = time.monotonic() + QUIET_SECONDS
    while not _may_fork() and time.monotonic() < give_up:
        threading.Event().wait(LOOK_SECONDS)


def _may_fork() -> bool:
    return _is_quiet() and not any(map(_is_writing, apsw.connections()))


def _is_writing(db: apsw.Connection) -> bool:
    try:
        return db.txn_state() == apsw.SQLITE_TXN_WRITE
    except apsw.ConnectionClosedError:
        return False
    except apsw.ThreadingViolationError:  # a thread has come back to it meanwhile
        return True


def _after_in_child() -> None:
    """Close what was inherited. No other thread is there; whatever one held is held for ever."""
    if not _is_quiet():
        _inherited.everything = True  # SQLite's own locks may be held: nothing may call it
    for db, path in list(_ours.items()):
        if _inherited.everything or not _let_go(db):
            _keep_for_ever(db)
            if (file := _file_of(path)) is not None:
                _inherited.files.add(file)
    _ours.clear()
    _opening.clear()


def _let_go(db: apsw.Connection) -> bool:
    """Close a connection that the parent goes on using, and touch nothing of the file.

    Return `False` for one that must stay open: undoing what it was writing would undo the parent's.
    """
    try:
        if db.txn_state() == apsw.SQLITE_TXN_WRITE:
            return False
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.close(force=True)
    except apsw.Error as error:
        return isinstance(error, apsw.ConnectionClosedError)
    return True


def _keep_for_ever(db: apsw.Connection) -> None:
    """Keep a connection from being collected, even at the end: it would be closed then."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


os.register_at_fork(before=_before, after_in_child=_after_in_child)

"""Connections to the SQLite file: how they are set up, and what their errors mean.

This is the seam: no `apsw` error leaves the store, each is mapped here with its cause kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from sojourn.errors import (
    Closed,
    Corrupt,
    ForeignFile,
    InvalidQuery,
    ReadOnly,
    SojournError,
    StorageFull,
    Unavailable,
)
from sojourn.stores.sqlite import forking
from sojourn.stores.sqlite.schema import APPLICATION_ID

BUSY_MILLISECONDS = 5_000
"""Wait for locks of programs that do not go through the gate (the sqlite3 shell, a backup tool)."""

CACHE_KIB = 65_536
"""Page cache of the writing connection."""

MAPPED_BYTES = 256 * 1024 * 1024
"""How much of the file long reads map instead of reading it."""

LOG_BYTES = 64 * 1024 * 1024
"""Size to which the write-ahead log is cut back after it has grown."""

DRIVER_ERRORS = (apsw.Error, UnicodeDecodeError)
"""What the driver raises: its own errors, and Python's for damaged text."""

_MAGIC = b"SQLite format 3\x00"
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER_BYTES = 100


def connect(path: str, *, vfs: str | None, writer: bool, long: bool = False) -> apsw.Connection:
    """Open a connection. The file exists, or `writer` makes it.

    `long` reads map the file. After each commit SQLite maps it anew, which costs more than to read
    the few pages that a short one takes.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if writer else 0)
    forking.refuse_inherited(path)
    with forking.opening(path):
        db = apsw.Connection(path, flags=flags, vfs=vfs, statementcachesize=256)
        forking.opened(db, path)
    db.set_busy_timeout(BUSY_MILLISECONDS)
    # Else a statement with a range is planned anew for each value. The plans are meant not to
    # depend on values: nothing is known of how these are spread, as nobody runs ANALYZE.
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    _configure(db, "trusted_schema=OFF", "temp_store=MEMORY", "cell_size_check=ON")
    if not writer:
        size = MAPPED_BYTES if long else 0
        _configure(db, "query_only=ON", "wal_autocheckpoint=0", f"mmap_size={size}")
    return db


def make_durable(db: apsw.Connection) -> None:
    """Put a writing connection into WAL mode with a sync at every commit."""
    _configure(
        db,
        "journal_mode=WAL",
        "synchronous=FULL",
        "wal_autocheckpoint=0",
        f"journal_size_limit={LOG_BYTES}",
        f"cache_size=-{CACHE_KIB}",
    )


def _configure(db: apsw.Connection, *pragmas: str) -> None:
    """Set pragmas one by one: behind one that answers with a row, a statement would not run."""
    for pragma in pragmas:
        db.execute(f"PRAGMA {pragma}").fetchall()


def refuse_foreign_file(path: str) -> None:
    """Raise `ForeignFile` if the file is there and its first bytes say that it is not Sojourn's."""
    if os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
        raise Unavailable(path, "it is a directory, not a file")
    header = _header_of(path) if os.path.exists(path) else b""  # noqa: PTH110 - as above
    if not header or _has_journal(path):
        return
    if not header.startswith(_MAGIC):
        raise ForeignFile(path, "the file is not a SQLite database")
    application = int.from_bytes(header[68:72])
    if application not in (0, APPLICATION_ID):
        raise ForeignFile(path, "the file is a SQLite database of another program")


def _header_of(path: str) -> bytes:
    """Return the first bytes of a file, read through SQLite's own handle.

    Closing any other handle would drop the locks that this process has on the file.
    """
    forking.refuse_inherited(path)
    try:
        file = apsw.VFSFile("", path, [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])
        try:
            size = min(_HEADER_BYTES, Path(path).stat().st_size)  # xFileSize takes 1 for empty
            return file.xRead(size, 0) if size else b""
        finally:
            file.xClose()
    except (apsw.Error, OSError) as error:
        raise mapped(error, path) from error


def _has_journal(path: str) -> bool:
    """Return whether a crash left a rollback journal: what the file holds is not final then."""
    try:
        with open(os.path.realpath(path) + "-journal", "rb") as file:  # noqa: PTH123 - as above
            return file.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC
    except OSError:
        return False


def is_full(error: Exception) -> bool:
    """Return whether an error only says that there is no space left.

    The log's index says so with an I/O error of its own; it grows before anything is committed.
    """
    code = getattr(error, "extendedresult", None)
    return isinstance(error, apsw.FullError) or code == apsw.SQLITE_IOERR_SHMSIZE


def mapped(error: Exception, name: str) -> SojournError:
    """Return what an error of the driver means to a caller."""
    if isinstance(error, SojournError):
        return error
    if is_full(error):
        return StorageFull(name, "the disk is full; nothing was written")
    for kind, result, reason in _MEANINGS:
        if isinstance(error, kind):
            return result(name, reason.format(error))
    return Unavailable(name, f"{type(error).__name__}: {error}")


_MEANINGS: tuple[tuple[type[Exception], type[Unavailable | Corrupt | Closed], str], ...] = (
    (apsw.ReadOnlyError, ReadOnly, "the file or its folder can not be written ({})"),
    (apsw.NotADBError, ForeignFile, "the file is not a SQLite database"),
    (apsw.CorruptError, Corrupt, "the file is damaged ({}); restore a backup"),
    (UnicodeDecodeError, Corrupt, "a text in the file is damaged ({}); restore a backup"),
    (apsw.BusyError, Unavailable, "another program keeps the file locked"),
    (apsw.LockedError, Unavailable, "another program keeps the file locked"),
    (apsw.CantOpenError, Unavailable, "the file can not be opened; does its folder exist? ({})"),
    (apsw.IOError, Unavailable, "the disk failed ({})"),
    (apsw.ConnectionClosedError, Closed, "closed"),
    (apsw.TooBigError, Unavailable, "a value is larger than SQLite takes ({})"),
)


def check_path(path: str | os.PathLike[str]) -> str:
    """Return the path as text. Raises `InvalidQuery` for none, or one that is not a file's."""
    text = os.fspath(path)
    if "\0" in text:
        raise InvalidQuery("path", "no file's name has a null character in it")
    if not text or text.startswith((":", "file:")):
        raise InvalidQuery("path", "name a file; for a store in memory use memory://")
    return text

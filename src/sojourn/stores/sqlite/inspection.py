"""Looking at a file without opening it as a store: its version, whose sessions, what is due.

Nothing here makes a file, changes its version, or waits for the gate.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from sojourn.model import StoredDocument
from sojourn.mounts import refuse_unsafe_place
from sojourn.stores.sqlite import connection, schema
from sojourn.stores.summary import AppSummary

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_DOCUMENT = "collection, key, content_type, size, seq, created_at, updated_at, expires_at"

NEWEST_VERSION = len(schema.MIGRATIONS)
"""The version of the files that this Sojourn writes."""

SOUND_SQLITE = (3, 51, 3)
"""The first SQLite without the bug that could damage a file while two connections write it."""


def sqlite_version() -> tuple[int, ...]:
    """Return the version of SQLite in use."""
    return tuple(int(part) for part in apsw.sqlite_lib_version().split("."))


def version_of(path: str) -> int:
    """Return the version of a file, 0 for an empty database.

    Raises `UnsupportedFilesystem`, `ForeignFile`, `NewerSchema`, `Corrupt` or `Unavailable`.
    """
    return _looked(path, lambda db: schema.check_version(db, path))


def summaries(path: str, now: int) -> list[AppSummary]:
    """Return what is kept of each app, by name. `now` is an instant in microseconds.

    Raises as `version_of` does.
    """
    return _looked(path, lambda db: [_summary(db, app, now) for app in _apps(db)])


def documents_of(
    path: str, app: str, id: str, now: int, limit: int
) -> tuple[list[StoredDocument], int]:
    """Return the first documents of a session in any collection, without bodies; and how many.

    The contract lists one collection at a time; here their names need not be known. Raises as
    `version_of` does.
    """

    def look(db: apsw.Connection) -> tuple[list[StoredDocument], int]:
        owned = """FROM documents
            WHERE session = (SELECT row FROM sessions WHERE app = ? AND id = ?)
            AND (expires_at IS NULL OR expires_at > ?)"""
        found: list[Any] = db.execute(
            f"SELECT {_DOCUMENT} {owned} ORDER BY collection, key LIMIT ?", (app, id, now, limit)
        ).fetchall()
        count = db.execute(f"SELECT count(*) {owned}", (app, id, now)).get
        names = _DOCUMENT.split(", ")
        return [StoredDocument(**dict(zip(names, row, strict=True))) for row in found], count

    return _looked(path, look)


def is_empty(path: str) -> bool:
    """Return whether a file holds no session, no document and no shared state.

    Raises as `version_of` does.
    """
    return _looked(path, lambda db: not _apps(db))


def _apps(db: apsw.Connection) -> list[str]:
    if not schema.check_version(db, "the file"):
        return []
    query = """SELECT app FROM counts WHERE facet = 'all' AND sessions > 0
        UNION SELECT app FROM tiers UNION SELECT app FROM documents ORDER BY 1"""
    # What a restore has not finished is under a name that no app can have.
    return [str(app) for (app,) in db.execute(query) if str(app) >= " "]


def _summary(db: apsw.Connection, app: str, now: int) -> AppSummary:
    phases: Any = db.execute(
        "SELECT phase, sessions FROM counts WHERE app = ? AND facet = 'all' AND sessions > 0",
        (app,),
    )
    counted = dict(phases)
    due: Any = db.execute(
        "SELECT count(*), min(due_at) FROM sessions WHERE app = ?1 AND wake_at <= ?2"
        " AND due_at <= ?2",
        (app, now),
    )
    ((number, since),) = due.fetchall()
    return AppSummary(app, counted, number, since)


def _looked(path: str, look: Callable[[apsw.Connection], T]) -> T:
    """Return what `look` finds in one snapshot of the file."""
    try:
        refuse_unsafe_place(path)
        connection.refuse_foreign_file(path)
        db = connection.connect(os.path.realpath(path), vfs=None, writer=False, long=True)
        try:
            db.execute("BEGIN")
            return look(db)
        finally:
            db.close()
    except connection.DRIVER_ERRORS as error:
        raise connection.mapped(error, path) from error

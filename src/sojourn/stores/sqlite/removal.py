"""Removing sessions with all they own, and finding the ones that are due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.limits import MAX_SEQ
from sojourn.stores.sqlite import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

    from sojourn.model import Header
    from sojourn.store import Due

REPAIRS = 1_000
"""Index entries put right in one go: each is a session used since it was last looked at."""

_FAMILY = f"""WITH RECURSIVE doomed(row) AS (
        SELECT value FROM json_each(?)
        UNION SELECT s.row FROM sessions AS s JOIN doomed AS d ON s.parent_row = d.row)
    SELECT {rows.SESSION} FROM sessions WHERE row IN (SELECT row FROM doomed)"""
_DUE = f"""SELECT {rows.SESSION} FROM sessions
    WHERE app = ? AND wake_at <= ? ORDER BY wake_at, row LIMIT ?"""
_STALE = """UPDATE sessions SET wake_at = due_at WHERE row IN (
    SELECT row FROM sessions WHERE app = ?1 AND wake_at <= ?2 AND wake_at IS NOT due_at
    ORDER BY wake_at LIMIT ?3)"""
_GONE = "IN (SELECT value FROM json_each(?))"


class Removal:
    """Deletes by row number inside a transaction that the caller owns."""

    def __init__(self, db: apsw.Connection, count: Callable[[Header, int], None]) -> None:
        """`count` is told of every session removed."""
        self._db = db
        self._count = count

    def due(self, due: Due) -> list[tuple[Any, ...]]:
        """Return the rows of due sessions, the longest due first."""
        while True:
            self._db.execute(_STALE, (due.app, due.now, REPAIRS))
            if self._db.changes() < REPAIRS:
                return self._db.execute(_DUE, (due.app, due.now, due.limit)).fetchall()

    def remove(self, doomed: list[int]) -> list[tuple[str, str]]:
        """Remove sessions and their children; return (app, id) of each."""
        if not doomed:
            return []
        family = self._db.execute(_FAMILY, (rows.to_json(doomed),)).fetchall()
        headers = [rows.to_header(row) for row in family]
        for header in headers:
            self._count(header, -1)
        numbers = rows.to_json([row[rows.ROW] for row in family])
        self._remove_logs(family)
        self._db.execute(f"DELETE FROM documents WHERE session {_GONE}", (numbers,))
        if any(header.labels for header in headers):
            self._db.execute(f"DELETE FROM labels WHERE session {_GONE}", (numbers,))
        if any(header.exclusive for header in headers):
            self._db.execute(f"DELETE FROM claims WHERE session {_GONE}", (numbers,))
        self._db.execute(f"DELETE FROM sessions WHERE row {_GONE}", (numbers,))
        return [(header.app, header.id) for header in headers]

    def _remove_logs(self, family: list[tuple[Any, ...]]) -> None:
        ranges = [
            (rows.event_key(row[rows.ROW], 0), rows.event_key(row[rows.ROW], MAX_SEQ))
            for row in family
            if row[8]  # `seq`: a session that never had an event has none to remove
        ]
        if ranges:
            self._db.executemany("DELETE FROM events WHERE key BETWEEN ? AND ?", ranges)

    def drop_expired_documents(self, due: Due) -> None:
        """Remove documents whose own deadline has passed, as many at most as sessions."""
        self._db.execute(
            "DELETE FROM documents WHERE row IN ("
            "SELECT row FROM documents WHERE app = ? AND expires_at <= ? LIMIT ?)",
            (due.app, due.now, due.limit),
        )

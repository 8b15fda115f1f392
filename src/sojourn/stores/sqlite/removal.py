"""Removing sessions with all they own, and finding the ones that are due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.limits import MAX_SEQ
from sojourn.stores.sqlite import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from sojourn.store import Due
    from sojourn.stores.sqlite.transaction import Transaction

EXPIRED_DOCUMENTS = 1_000
"""Documents removed at a time: most are small, and they must go faster than they come."""

_FAMILY = """WITH RECURSIVE doomed(number) AS (
        SELECT value FROM json_each(?)
        UNION SELECT s.row FROM sessions AS s JOIN doomed AS d ON s.parent_row = d.number)
    SELECT row, app, id, user, phase, labels, exclusive, seq FROM sessions
    WHERE row IN (SELECT number FROM doomed)"""
_LONGEST_DUE = """FROM sessions WHERE app = ?1 AND wake_at <= ?2
    AND NOT (phase IN ('ENDING', 'TERMINATING') AND holder IS NOT NULL AND leased_until > ?2)
    ORDER BY wake_at, row LIMIT ?3"""
_FIND = f"SELECT row, id, wake_at, due_at {_LONGEST_DUE}"
_DUE = f"SELECT {rows.SESSION} {_LONGEST_DUE}"
_REPAIR = "UPDATE sessions SET wake_at = due_at WHERE row = ?"
_GONE = "IN (SELECT value FROM json_each(?))"


class Removal:
    """Deletes by row number inside a transaction that the caller owns."""

    def __init__(
        self,
        db: Transaction,
        count: Callable[[str, str, tuple[str, ...], int], None],
        repaired: Callable[[], None],
    ) -> None:
        """`count` is told of every session removed: app, phase, facets, and -1.

        `repaired` is called when rows of sessions were changed that the caller may have read.
        """
        self._db = db
        self._count = count
        self._repaired = repaired

    def due_rows(self, due: Due) -> list[tuple[int, str]]:
        """Return (row, id) of due sessions, the longest due first.

        Index entries of sessions that were used since are put right on the way, and only those
        that come before what is returned: what is due elsewhere costs nothing here.
        """
        where = (due.app, due.now, due.limit)
        while True:
            found: list[Any] = self._db.execute(_FIND, where).fetchall()
            outdated = [(row,) for row, _, wake_at, due_at in found if wake_at != due_at]
            if not outdated:
                return [(row, id) for row, id, _, _ in found]
            self._db.executemany(_REPAIR, outdated)
            self._repaired()

    def due(self, due: Due) -> list[tuple[Any, ...]]:
        """Return the whole rows of due sessions, the longest due first."""
        self.due_rows(due)
        return self._db.execute(_DUE, (due.app, due.now, due.limit)).fetchall()

    def remove(self, doomed: list[int]) -> list[tuple[str, str]]:
        """Remove sessions and their children; return (app, id) of each."""
        if not doomed:
            return []
        family: list[Any] = self._db.execute(_FAMILY, (rows.to_json(doomed),)).fetchall()
        for row, app, _, user, phase, labels, _, _ in family:
            self._count(app, phase, rows.facets(user, self._labels(row, labels)), -1)
        numbers = rows.to_json([member[0] for member in family])
        self._remove_logs([(member[0], member[7]) for member in family])
        self._db.execute(f"DELETE FROM documents WHERE session {_GONE}", (numbers,))
        if any(member[5] for member in family):
            self._db.execute(f"DELETE FROM labels WHERE session {_GONE}", (numbers,))
        if any(member[6] for member in family):
            self._db.execute(f"DELETE FROM claims WHERE session {_GONE}", (numbers,))
        self._db.execute(f"DELETE FROM sessions WHERE row {_GONE}", (numbers,))
        return [(member[1], member[2]) for member in family]

    def _labels(self, row: int, text: str | None) -> dict[str, str]:
        """Return a session's labels, from their own table if its record is damaged."""
        try:
            return rows.to_labels(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            query = "SELECT name, value FROM labels WHERE session = ?"
            found: list[Any] = self._db.execute(query, (row,)).fetchall()
            return dict(found)

    def _remove_logs(self, family: list[tuple[int, int]]) -> None:
        """Remove the events of sessions, given as (row, last number)."""
        ranges = [
            (rows.event_key(row, 0), rows.event_key(row, MAX_SEQ))
            for row, seq in family
            if seq  # a session that never had an event has none to remove
        ]
        if ranges:
            self._db.executemany("DELETE FROM events WHERE key BETWEEN ? AND ?", ranges)

    def drop_expired_documents(self, due: Due) -> None:
        """Remove documents whose own deadline has passed, so many at a time."""
        self._db.execute(
            "DELETE FROM documents WHERE row IN ("
            "SELECT row FROM documents WHERE app = ? AND expires_at <= ? LIMIT ?)",
            (due.app, due.now, max(due.limit, EXPIRED_DOCUMENTS)),
        )

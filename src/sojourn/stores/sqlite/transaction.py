"""One transaction of the writer: it begins when it is first needed, or never.

What most batches write fits one statement, and that is a transaction of its own: SQLite runs it and
syncs the log in a single call, without the GIL held, so the event loop works meanwhile. A batch
that reads, or writes anything else, begins a transaction first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw

from sojourn.stores.sqlite import schema, tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sojourn.stores.sqlite.recent import Recent


class Moved(Exception):
    """The file changed after a batch was decided by what was known of it."""


class Transaction:
    """Stands for the writing connection while one batch is decided and written."""

    def __init__(
        self, db: apsw.Connection, recent: Recent, name: str, *, at_once: bool = False
    ) -> None:
        """Begin `at_once`, or if `recent` is not known to equal the file."""
        self._db = db
        self._cursor = db.cursor()
        """For what has no rows, or is read at once: making a cursor for each is dear."""
        self._recent = recent
        self._begun = at_once
        if at_once:
            self._cursor.execute("BEGIN IMMEDIATE")
        if not self._is_current():
            if not at_once:
                self._cursor.execute("BEGIN IMMEDIATE")
                self._begun = True
                self._is_current()  # what is not is forgotten
            # A newer Sojourn may have migrated the file while this one had it open.
            schema.check_version(db, name, schema.MIGRATIONS)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> apsw.Cursor:
        """Run a statement."""
        self._begin()
        return self._db.execute(sql, values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> apsw.Cursor:
        """Run a statement for each row."""
        self._begin()
        return self._db.executemany(sql, rows)

    def last_insert_rowid(self) -> int:
        """Return the number of the row that was inserted last."""
        return self._db.last_insert_rowid()

    def write(self, rows: Sequence[tally.Row]) -> None:
        """Write rows of sessions, events and tiers."""
        if rows:
            self._begin()
            tally.write(self._cursor, rows)

    def commit(self, rows: Sequence[tally.Row]) -> None:
        """Write the last rows and commit. Raises `Moved` if they were decided by what is old."""
        if self._begun or not tally.FEW < len(rows) <= tally.MOST:
            self.write(rows)
        elif rows:
            try:
                tally.write(self._cursor, rows)
            except apsw.ConstraintError as error:
                raise Moved from error
        if self._begun:
            self._cursor.execute("COMMIT")

    def _begin(self) -> None:
        """Begin, unless it has. Raises `Moved` if the file is not any more what it was."""
        if self._begun:
            return
        self._cursor.execute("BEGIN IMMEDIATE")
        self._begun = True
        if not self._is_current():
            raise Moved

    def _is_current(self) -> bool:
        return self._recent.is_current(self._cursor.execute("PRAGMA data_version").get)

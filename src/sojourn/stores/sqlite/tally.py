"""Rows of sessions, events and tiers, together in one statement.

The statement inserts into a view of the writer's connection, and triggers put each row where it
belongs. So a batch is one call into SQLite, however many rows and tables it has.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[Any, ...]
"""What the row is, and the `COLUMNS` values of it."""

SESSION, EVENT, TIER = 1, 2, 3
"""What a row can be. Others are ignored: they fill a statement up to its size."""

COLUMNS = 10

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Rows in one statement: few sizes, so that all stay prepared."""

MOST = _SIZES[-1]
"""Most rows in one statement. Larger ones gain nothing and would not stay prepared."""

FEW = 8
"""So few rows are written one by one, in a transaction: that is cheaper than the triggers."""

_FILLER: Row = (0, *[None] * COLUMNS)

_CHANGED = "the session was changed by another program"
_UPDATE = """UPDATE sessions SET revision = {c}, seq = {d}, active_at = {e}, expires_at = {f},
    due_at = {g}, remembered = {h}, peak = {i}, state = {j} WHERE row = {a} AND revision = {b}"""
_INSERT = """INSERT INTO events(key, id, kind, author, at, body, changes, deleted, peak)
    VALUES ({a}, {b}, {c}, {d}, {e}, {f}, {g}, {h}, {i})"""
_UPSERT = """INSERT INTO tiers(app, owner, name, value) VALUES ({a}, {b}, {c}, {d})
    ON CONFLICT DO UPDATE SET value = excluded.value"""

_NEW = {letter: f"NEW.{letter}" for letter in "abcdefghij"}
_VIEW = f"""
CREATE TEMP VIEW tally(kind, a, b, c, d, e, f, g, h, i, j) AS
    SELECT 0, {", ".join(["NULL"] * COLUMNS)};
CREATE TEMP TRIGGER tally_session INSTEAD OF INSERT ON tally WHEN NEW.kind = {SESSION}
BEGIN
    {_UPDATE.format(**_NEW)};
    SELECT RAISE(ABORT, '{_CHANGED}') WHERE changes() = 0;
END;
CREATE TEMP TRIGGER tally_event INSTEAD OF INSERT ON tally WHEN NEW.kind = {EVENT}
BEGIN
    {_INSERT.format(**_NEW)};
END;
CREATE TEMP TRIGGER tally_tier INSTEAD OF INSERT ON tally WHEN NEW.kind = {TIER}
BEGIN
    {_UPSERT.format(**_NEW)};
END;
"""

_NUMBERED = {letter: f"?{number}" for number, letter in enumerate("abcdefghij", 1)}
_ALONE = {
    SESSION: (_UPDATE.format(**_NUMBERED), 11),
    EVENT: (_INSERT.format(**_NUMBERED), 10),
    TIER: (_UPSERT.format(**_NUMBERED), 5),
}
"""The statement for a single row of a kind, and where in the row its values end."""


def prepare(db: apsw.Connection) -> None:
    """Make the view and its triggers, which only this connection sees."""
    db.execute(_VIEW)


def write(cursor: apsw.Cursor, rows: Sequence[Row]) -> None:
    """Write rows, `MOST` in a statement."""
    if len(rows) <= FEW:
        for row in rows:
            kind = row[0]
            statement, end = _ALONE[kind]
            cursor.execute(statement, row[1:end])
            if kind == SESSION and not cursor.connection.changes():  # as the trigger has it
                raise apsw.ConstraintError(_CHANGED)
        return
    for first in range(0, len(rows), MOST):
        some = rows[first : first + MOST]
        size = _SIZES[bisect_left(_SIZES, len(some))]
        filled = (*some, *[_FILLER] * (size - len(some)))
        cursor.execute(_statement(size), tuple(chain.from_iterable(filled)))


@cache
def _statement(size: int) -> str:
    row = f"({', '.join('?' * (COLUMNS + 1))})"
    return f"INSERT INTO tally VALUES {', '.join([row] * size)}"

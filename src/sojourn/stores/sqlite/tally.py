"""Rows of sessions, events and tiers, together in one statement.

The statement inserts into a view of the writer's connection, and triggers put each row where it
belongs. So a batch is one call into SQLite, however many rows and tables it has.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

Row = tuple[Any, ...]
"""What the row is, and the `COLUMNS` values of it."""

SESSION, EVENT, TIER = 1, 2, 3
"""What a row can be. Others are ignored: they fill a statement up to its size."""

COLUMNS = 10

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Rows in one statement: few sizes, so that all stay prepared."""

MOST = _SIZES[-1]
"""Most rows in one statement. Larger ones gain nothing and would not stay prepared."""

_FILLER: Row = (0, *[None] * COLUMNS)

_VIEW = f"""
CREATE TEMP VIEW tally(kind, a, b, c, d, e, f, g, h, i, j) AS
    SELECT 0, {", ".join(["NULL"] * COLUMNS)};
CREATE TEMP TRIGGER tally_session INSTEAD OF INSERT ON tally WHEN NEW.kind = {SESSION}
BEGIN
    UPDATE sessions SET revision = NEW.c, seq = NEW.d, active_at = NEW.e, expires_at = NEW.f,
        due_at = NEW.g, remembered = NEW.h, peak = NEW.i, state = NEW.j
        WHERE row = NEW.a AND revision = NEW.b;
    SELECT RAISE(ABORT, 'the session was changed by another program') WHERE changes() = 0;
END;
CREATE TEMP TRIGGER tally_event INSTEAD OF INSERT ON tally WHEN NEW.kind = {EVENT}
BEGIN
    INSERT INTO events(key, id, kind, author, at, body, changes, deleted, peak)
        VALUES (NEW.a, NEW.b, NEW.c, NEW.d, NEW.e, NEW.f, NEW.g, NEW.h, NEW.i);
END;
CREATE TEMP TRIGGER tally_tier INSTEAD OF INSERT ON tally WHEN NEW.kind = {TIER}
BEGIN
    INSERT INTO tiers(app, owner, name, value) VALUES (NEW.a, NEW.b, NEW.c, NEW.d)
        ON CONFLICT DO UPDATE SET value = excluded.value;
END;
"""


def prepare(db: apsw.Connection) -> None:
    """Make the view and its triggers, which only this connection sees."""
    db.execute(_VIEW)


def write(db: apsw.Connection, rows: Sequence[Row]) -> None:
    """Write rows, `MOST` in a statement."""
    for first in range(0, len(rows), MOST):
        some = rows[first : first + MOST]
        size = _SIZES[bisect_left(_SIZES, len(some))]
        filled = (*some, *[_FILLER] * (size - len(some)))
        db.execute(_statement(size), tuple(chain.from_iterable(filled)))


@cache
def _statement(size: int) -> str:
    row = f"({', '.join('?' * (COLUMNS + 1))})"
    return f"INSERT INTO tally VALUES {', '.join([row] * size)}"

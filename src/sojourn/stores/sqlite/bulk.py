"""Many rows in few statements: each statement is one call into SQLite, made without the GIL held.

A row at a time (`executemany`), the writing thread would ask for the GIL back after every row, and
wait for whatever the event loop's thread is doing.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.sqlite.transaction import Transaction

ROWS = 64
"""Most rows in one statement. Larger ones gain nothing and would not stay prepared."""


class Bulk:
    """A statement over a list of rows, written with `{rows}` where `VALUES (?, ...), ...` goes."""

    def __init__(self, sql: str, columns: int) -> None:
        """`columns` is the number of values in a row."""
        row = f"({', '.join('?' * columns)})"
        self._text = cache(lambda count: sql.format(rows="VALUES " + ", ".join([row] * count)))

    def run(self, db: Transaction, rows: Sequence[Sequence[Any]]) -> None:
        """Run it for all rows; sizes are powers of two, so that few statements are prepared."""
        first, left = 0, len(rows)
        while left:
            count = min(ROWS, 1 << (left.bit_length() - 1))
            values = tuple(chain.from_iterable(rows[first : first + count]))
            db.execute(self._text(count), values)
            first += count
            left -= count

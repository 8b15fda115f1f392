"""Windows of a log: which statement reads one, and its rows as entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.limits import EVENTS_PAGE, MAX_SEQ
from sojourn.model import Entry
from sojourn.store import Ends, EventQuery
from sojourn.stores.sqlite import rows

if TYPE_CHECKING:
    import apsw

NEAR = 2
"""Events looked at for each one of a kind that is wanted, before the index of kinds is asked: side
by side they are read in half the time, and in a conversation nearly all are messages."""

_BACK = (
    f"SELECT {rows.ENTRY} FROM events WHERE key > ? AND key < ? AND +kind = ? "
    "ORDER BY key DESC LIMIT ?"
)
_AHEAD = _BACK.replace("DESC", "ASC")
_AHEAD_OF_ALL = _AHEAD.replace("AND +kind = ? ", "")


class TooLong(Exception):
    """What was asked for is too long for the event loop's thread."""


def entries(db: apsw.Connection, row: int, top: int, window: EventQuery, most: int) -> list[Entry]:
    """Return a window of a session's log, ascending. Raises `TooLong` over `most` bytes of bodies.

    `top` is the last number that the session has given out.
    """
    limit = window.last if window.first is None else window.first
    if limit == 0:
        return []
    found = _near(db, row, top, window, most)
    if found is None:
        direction = "DESC" if window.first is None else "ASC"
        found = _read(db, row, *_window_sql(row, window, direction, limit), most)
    if window.first is None:
        found.reverse()
        if type(window) is Ends and len(found) == limit:
            return [*_opening(db, row, window, found[0].seq, most), *found]
    return found


def behind(
    db: apsw.Connection,
    row: int,
    top: int,
    window: EventQuery,
    *,
    after: int,
    limit: int,
    most: int,
) -> list[Entry]:
    """Return the first so many entries behind a number, of all kinds or of the window's one.

    Raises what `entries` does.
    """
    base = rows.event_key(row, 0)
    span = (base + after, base + top + 1)
    if window.kinds is None:
        return _read(db, row, _AHEAD_OF_ALL, (*span, limit), most)
    return _read(db, row, _AHEAD, (*span, window.kinds[0], limit), most)


def shown(known: list[Entry], window: EventQuery) -> list[Entry]:
    """Return what a window shows of entries that contain it and end where it does."""
    limit = window.last
    if limit is None or len(known) <= limit:
        return known
    newest = known[-limit:]
    if type(window) is not Ends:
        return newest
    return [*known[: min(window.opening, len(known) - limit)], *newest]


def _near(
    db: apsw.Connection, row: int, top: int, window: EventQuery, most: int
) -> list[Entry] | None:
    """Return the last so many of one kind, newest first, if they are near the end of the window.

    `None` if they are not, or if it is another sort of window.
    """
    kinds, limit = window.kinds, window.last
    if kinds is None or len(kinds) != 1 or window.since is not None:
        return None
    if limit is None or limit > EVENTS_PAGE:
        return None
    low, high = max(window.after_seq or 0, 0), top + 1
    if window.before_seq is not None and window.before_seq < high:
        high = window.before_seq
    floor = max(low, high - 1 - NEAR * limit)
    if high <= floor:
        return []
    base = rows.event_key(row, 0)
    found = _read(db, row, _BACK, (base + floor, base + high, kinds[0], limit), most)
    return found if len(found) == limit or floor == low else None


def _opening(db: apsw.Connection, row: int, window: Ends, before: int, most: int) -> list[Entry]:
    """Return the first entries of a window of those below a number."""
    kinds, low, first = window.kinds, max(window.after_seq or 0, 0), window.opening
    if before <= low + 1:
        return []
    if kinds is not None and len(kinds) == 1 and window.since is None:
        base = rows.event_key(row, 0)
        high = min(before, low + 1 + NEAR * first)
        found = _read(db, row, _AHEAD, (base + low, base + high, kinds[0], first), most)
        if len(found) == first or high == before:
            return found
    rest = EventQuery(
        after_seq=window.after_seq, before_seq=before, since=window.since, kinds=kinds
    )
    return _read(db, row, *_window_sql(row, rest, "ASC", first), most)


def _read(db: apsw.Connection, number: int, sql: str, bindings: Any, most: int) -> list[Entry]:
    """Return the entries that a statement finds. Raises `Corrupt` for a row that is none."""
    found: list[Entry] = []
    keep = found.append
    size = 0
    for row in db.execute(sql, bindings):
        body = row[5]
        if body.__class__ is not str or row[1].__class__ is not str or row[2].__class__ is not str:
            raise rows.torn_event(rows.event_key(number, row[0]))
        size += len(body)
        if size > most:
            raise TooLong
        keep(Entry(*row))
    return found


def _window_sql(
    row: int, window: EventQuery, direction: str, limit: int | None
) -> tuple[str, dict[str, Any]]:
    """Return the statement for a window: bounds on the key, or on the index of kinds."""
    low = 0 if window.after_seq is None else max(window.after_seq, 0)
    high = MAX_SEQ + 1 if window.before_seq is None else min(window.before_seq, MAX_SEQ + 1)
    bindings: dict[str, Any] = {
        "row": row,
        "low": rows.event_key(row, min(low, MAX_SEQ)),
        "high": rows.event_key(row, 0) + max(high, 0),
        "since": window.since_instant,
        "limit": -1 if limit is None else limit,
    }
    where = "key > :low AND key < :high"
    if window.since is not None:
        # Peaks never fall, so going back, nothing matches behind the first one before `since`.
        where += (
            " AND at >= :since AND key > coalesce((SELECT key FROM events WHERE key > :low"
            " AND key < :high AND peak < :since ORDER BY key DESC LIMIT 1), 0)"
        )
    if window.kinds is None:
        order = f"ORDER BY key {direction} LIMIT :limit"
        return f"SELECT {rows.ENTRY} FROM events WHERE {where} {order}", bindings
    return _kinds_sql(window.kinds, where, direction, bindings)


def _kinds_sql(
    kinds: tuple[str, ...], where: str, direction: str, bindings: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the statement for some kinds: as many of each as are wanted in all, then merged."""
    bindings["low_seq"] = bindings["low"] & MAX_SEQ
    bindings["high_seq"] = bindings["high"] - rows.event_key(bindings["row"], 0)
    parts = []
    for number, kind in enumerate(dict.fromkeys(kinds)):
        bindings[f"kind{number}"] = kind
        parts.append(
            f"SELECT {rows.ENTRY} FROM events WHERE session = :row "
            f"AND kind = :kind{number} AND seq > :low_seq AND seq < :high_seq AND {where} "
            f"ORDER BY seq {direction} LIMIT :limit"
        )
    if not parts:
        return f"SELECT {rows.ENTRY} FROM events WHERE 0", {}
    if len(parts) == 1:  # nothing to merge, so nothing to sort
        return parts[0], bindings
    parts = [f"SELECT * FROM ({part})" for part in parts]
    return " UNION ALL ".join(parts) + f" ORDER BY 1 {direction} LIMIT :limit", bindings

"""The statement that applies a lone commit: what most calls are while there is no crowd.

It does for one session, with at most one event and nothing rarer, what `write_1` does for a batch,
without its lists and in one statement of the server, that is planned once for a connection. The
session's row is compared and set; all else is written only if that was done.

A call that was given up and comes late, behind a later one of its writer, writes nothing. Neither
does one whose session had moved, and it leaves no trace of that. So where nothing was written
though the call was made before, on a connection that was lost, the writer's row says whether that
one was applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.stores.postgres import rows
from sojourn.stores.postgres.durability import chosen

if TYPE_CHECKING:
    from sojourn.stores.planning import Unit

_SESSION = """WITH s AS (
    UPDATE {s}.sessions AS s SET version = $16, revision = $6, seq = $7, active_at = $8,
        expires_at = $9, due_at = $10,
        wake_at = CASE WHEN $10::bigint IS NULL OR s.wake_at IS NULL OR $10 < s.wake_at
            OR s.wake_at <= $11 OR NOT $12 THEN $10 ELSE s.wake_at END,
        remembered = $13, peak = $14, state = coalesce($15, s.state)
    WHERE s.row = $4 AND s.version = $5
        AND NOT EXISTS (SELECT FROM {s}.writers AS w WHERE w.writer = $1 AND w.batch >= $2)
    RETURNING s.row),
activity AS (
    UPDATE {s}.activity AS a SET active_at = $8 FROM s
    WHERE a.row = s.row AND a.active_at <> $8),
written AS (
    INSERT INTO {s}.writers AS w (writer, batch, at) SELECT $1, $2, clock_timestamp() FROM s
    ON CONFLICT (writer) DO UPDATE
        SET batch = excluded.batch, at = excluded.at, moved = NULL, rows = NULL)"""
_LABELS = """,
labels AS (
    UPDATE {s}.labels AS l SET active_at = $8 FROM s
    WHERE l.row = s.row AND l.active_at <> $8)"""
_EVENT = """,
event AS (
    INSERT INTO {s}.events(session, seq, id, kind, author, at, peak, changes, deleted, body)
    SELECT s.row, $17, $18, $19, $20, $21, $22, $23, $24, $25 FROM s)"""
_TIERS = """,
shared AS (
    INSERT INTO {{s}}.tiers AS k (app, owner, digest, name, value)
    SELECT ${0}, t.* FROM s, unnest(${1}::text[], ${2}::bytea[], ${3}::text[], ${4}::text[]) AS t
    ON CONFLICT (app, owner, digest) DO UPDATE SET value = excluded.value)"""
_TIER = """,
shared AS (
    INSERT INTO {{s}}.tiers AS k (app, owner, digest, name, value)
    SELECT ${0}, ${1}, ${2}, ${3}, ${4} FROM s
    ON CONFLICT (app, owner, digest) DO UPDATE SET value = excluded.value)"""
"""One key, as most commits have: an array is dear to read, and dearer for the driver to write."""

_DONE = f"""
SELECT s.row, {chosen("$3")},
    (SELECT {{s}}.notify_1(ARRAY[s.row]) WHERE EXISTS (
        SELECT FROM {{s}}.listeners AS l WHERE l.until > clock_timestamp()))
FROM s"""

_EVENT_FROM = 17
"""The first parameter behind those of the session: of the event, or of the tiers without one."""

_TIERS_FROM = 26
"""The first parameter of the tiers where there is an event."""


def is_lone(unit: Unit) -> bool:
    """Return whether a unit is an ordinary commit with at most one event."""
    return (
        unit.old is not None
        and unit.header is not None
        and len(unit.entries) <= 1
        and unit.truncate_after is None
        and not (unit.documents or unit.guards)
        and not any(tier.drop for tier in unit.tiers)
        and not unit.rest_changed
    )


def statement_of(unit: Unit) -> str:
    """Return the statement for a lone commit: one text for each set of its parts."""
    assert unit.header is not None, "it is no removal"
    parts = [_SESSION]
    if unit.header.labels:
        parts.append(_LABELS)
    if unit.entries:
        parts.append(_EVENT)
    if unit.tiers:
        first = _TIERS_FROM if unit.entries else _EVENT_FROM
        text = _TIER if _is_one_key(unit) else _TIERS
        parts.append(text.format(*range(first, first + 5)))
    return "".join([*parts, _DONE])


def values_of(unit: Unit, writer: bytes, batch: int, *, relaxed: bool) -> list[Any]:
    """Return the arguments of a lone commit, in order."""
    old, header = unit.old, unit.header
    assert old is not None, "it is an update"
    assert header is not None, "it is no removal"
    values: list[Any] = [
        writer,
        batch,
        relaxed,
        old.row,
        old.version,
        header.revision,
        header.seq,
        header.active_at,
        header.expires_at,
        header.due_at,
        unit.now,
        header.live,
        header.remembered,
        unit.peak,
        None if unit.state is None else unit.state.decode(),
        unit.version,
    ]
    for entry, peak in zip(unit.entries, unit.peaks, strict=True):
        values += rows.from_entry(entry, peak)
    if unit.tiers:
        values.append(unit.app)
        columns = _shared(unit)
        values += [value for (value,) in columns] if _is_one_key(unit) else columns
    return values


def _is_one_key(unit: Unit) -> bool:
    """Return whether a unit sets one key of one shared tier."""
    return len(unit.tiers) == 1 and len(unit.tiers[0].set) == 1


def _shared(unit: Unit) -> list[list[Any]]:
    """Return owners, digests, names and values of shared keys, in the order of their locks."""
    keys: dict[tuple[str, bytes], tuple[str, str]] = {}
    for tier in unit.tiers:
        owner = rows.owner_of(tier.user)
        for name, value in tier.set.items():
            digest, plain = rows.key_of(name)
            keys[owner, digest] = plain, bytes(value).decode()
    found = sorted((*key, *pair) for key, pair in keys.items())
    return [list(column) for column in zip(*found, strict=True)]

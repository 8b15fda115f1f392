"""The function that applies a lone commit: what most calls are while there is no crowd.

It does for one session, with at most one event and nothing rarer, what `write_1` does for a batch,
without its lists. A session at its version needs no lock before the update: the update is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sojourn.stores.planning import Unit

OK, MOVED, STALE = range(3)
"""What came of it: written, not as expected any more, overtaken by a later batch."""

_PARAMETERS: tuple[tuple[str, str], ...] = (
    ("named", "bytea"),
    ("number", "bigint"),
    ("relaxed", "boolean"),
    ("of_row", "bigint"),
    ("at_version", "bigint"),
    ("new_revision", "bigint"),
    ("new_seq", "bigint"),
    ("new_active_at", "bigint"),
    ("new_expires_at", "bigint"),
    ("new_due_at", "bigint"),
    ("at_now", "bigint"),
    ("lazy", "boolean"),
    ("labelled", "boolean"),
    ("new_remembered", "bytea"),
    ("new_peak", "bigint"),
    ("new_state", "text"),
    ("e_seq", "bigint"),
    ("e_id", "text"),
    ("e_kind", "text"),
    ("e_author", "text"),
    ("e_at", "bigint"),
    ("e_peak", "bigint"),
    ("e_changes", "text"),
    ("e_deleted", "text"),
    ("e_body", "text"),
)

_NO_EVENT = (None,) * sum(name.startswith("e_") for name, _ in _PARAMETERS)

LONE = (
    "CREATE FUNCTION {s}.write_lone_1("
    + ", ".join(f"{name} {kind}" for name, kind in _PARAMETERS)
    + """) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off AS $body$
DECLARE known record;
BEGIN
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    UPDATE {s}.writers AS w SET batch = number, at = clock_timestamp(), moved = NULL, rows = NULL
        WHERE w.writer = named AND w.batch < number;
    IF NOT FOUND THEN
        INSERT INTO {s}.writers(writer, batch, at) VALUES (named, number, clock_timestamp())
            ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT w.batch, w.moved INTO known FROM {s}.writers AS w WHERE w.writer = named;
            RETURN CASE WHEN known.batch <> number THEN 2 WHEN known.moved IS NULL THEN 0
                ELSE 1 END;
        END IF;
    END IF;
    UPDATE {s}.sessions AS s SET version = at_version + 1, revision = new_revision, seq = new_seq,
        active_at = new_active_at, expires_at = new_expires_at, due_at = new_due_at,
        wake_at = CASE WHEN new_due_at IS NULL OR s.wake_at IS NULL OR new_due_at < s.wake_at
            OR s.wake_at <= at_now OR NOT lazy THEN new_due_at ELSE s.wake_at END,
        remembered = new_remembered, peak = new_peak, state = coalesce(new_state, s.state)
        WHERE s.row = of_row AND s.version = at_version;
    IF NOT FOUND THEN
        UPDATE {s}.writers AS w SET moved = '{0}' WHERE w.writer = named;
        RETURN 1;
    END IF;
    UPDATE {s}.activity AS a SET active_at = new_active_at
        WHERE a.row = of_row AND a.active_at <> new_active_at;
    IF labelled THEN
        UPDATE {s}.labels AS l SET active_at = new_active_at
            WHERE l.row = of_row AND l.active_at <> new_active_at;
    END IF;
    IF e_seq IS NOT NULL THEN
        INSERT INTO {s}.events(session, seq, id, kind, author, at, peak, changes, deleted, body)
            VALUES (of_row, e_seq, e_id, e_kind, e_author, e_at, e_peak, e_changes, e_deleted,
                e_body);
    END IF;
    IF EXISTS (SELECT FROM {s}.listeners AS l WHERE l.until > clock_timestamp()) THEN
        PERFORM {s}.notify_1(ARRAY[of_row]);
    END IF;
    RETURN 0;
END $body$;
"""
)

CALL_LONE = (
    "SELECT {s}.write_lone_1("
    + ", ".join(f"${number}" for number in range(1, len(_PARAMETERS) + 1))
    + ")"
)
"""How a lone commit is written."""


def is_lone(unit: Unit) -> bool:
    """Return whether a unit is an ordinary commit with at most one event."""
    return (
        unit.old is not None
        and unit.header is not None
        and len(unit.entries) <= 1
        and unit.truncate_after is None
        and not (unit.tiers or unit.documents or unit.guards)
        and not unit.rest_changed
    )


def values_of(unit: Unit, writer: bytes, batch: int, *, relaxed: bool) -> tuple[Any, ...]:
    """Return the arguments of a lone commit, in order."""
    old, header = unit.old, unit.header
    assert old is not None, "it is an update"
    assert header is not None, "it is no removal"
    event: tuple[Any, ...] = _NO_EVENT
    for entry, peak in zip(unit.entries, unit.peaks, strict=True):
        event = (
            entry.seq,
            entry.id,
            entry.kind,
            entry.author,
            entry.at,
            peak,
            entry.changes,
            entry.deleted,
            entry.body,
        )
    return (
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
        bool(header.labels),
        header.remembered,
        unit.peak,
        None if unit.state is None else unit.state.decode(),
        *event,
    )

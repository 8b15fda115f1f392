"""The function that applies a batch: one call, one transaction, each unit checked on its own.

`write_1` is what the server runs. It remembers, for each writer, the last batch and what came of
it: the same call again, after a reply was lost, is answered and not applied twice, even while the
first one is still under way. Rows are locked in the order of their numbers, then claims, names of
new sessions, tiers and counts each in the order of their keys, so that no two batches can wait for
each other.
"""

from __future__ import annotations

from sojourn.stores.postgres.durability import STATEMENTS, chosen

PARAMETERS: tuple[tuple[str, str], ...] = (
    ("writer", "bytea"),
    ("batch", "bigint"),
    ("slot", "smallint"),
    ("relaxed", "boolean"),
    # Sessions that exist, by unit: what is expected of them, and what they become.
    ("u_unit", "int[]"),
    ("u_row", "bigint[]"),
    ("u_version", "bigint[]"),
    ("u_next", "bigint[]"),
    ("u_revision", "bigint[]"),
    ("u_seq", "bigint[]"),
    ("u_active_at", "bigint[]"),
    ("u_expires_at", "bigint[]"),
    ("u_due_at", "bigint[]"),
    ("u_now", "bigint[]"),
    ("u_lazy", "boolean[]"),
    ("u_labelled", "boolean[]"),
    ("u_remembered", "bytea[]"),
    ("u_peak", "bigint[]"),
    ("u_state", "text[]"),
    # Events, behind all others of their session (by row, or by place among the new ones).
    ("e_unit", "int[]"),
    ("e_row", "bigint[]"),
    ("e_new", "int[]"),
    ("e_seq", "bigint[]"),
    ("e_id", "text[]"),
    ("e_kind", "text[]"),
    ("e_author", "text[]"),
    ("e_at", "bigint[]"),
    ("e_peak", "bigint[]"),
    ("e_changes", "text[]"),
    ("e_deleted", "text[]"),
    ("e_body", "text[]"),
    # New sessions.
    ("c_unit", "int[]"),
    ("c_header", "json[]"),
    ("c_state", "text[]"),
    # Keys of shared tiers; no value removes one.
    ("t_unit", "int[]"),
    ("t_app", "text[]"),
    ("t_owner", "text[]"),
    ("t_digest", "bytea[]"),
    ("t_name", "text[]"),
    ("t_value", "text[]"),
    # Documents in order, of a session (by row or by place) or of an app; no key drops them all.
    ("d_unit", "int[]"),
    ("d_row", "bigint[]"),
    ("d_new", "int[]"),
    ("d_app", "text[]"),
    ("d_collection", "text[]"),
    ("d_key", "text[]"),
    ("d_content_type", "text[]"),
    ("d_seq", "bigint[]"),
    ("d_now", "bigint[]"),
    ("d_expires_at", "bigint[]"),
    ("d_body", "bytea[]"),
    # What is rarer, in one object of lists.
    ("rare", "json"),
)
"""What the function takes, in order. Absent lists are NULL."""

_ROW = "coalesce({0}_row, rows[{0}_new])"

_CHECK = """
    UPDATE {s}.writers AS w SET batch = $2, at = clock_timestamp(), moved = NULL, rows = NULL
        WHERE w.writer = $1 AND w.batch < $2;
    IF NOT FOUND THEN
        INSERT INTO {s}.writers(writer, batch, at) VALUES ($1, $2, clock_timestamp())
            ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT coalesce(w.moved, '{}'), coalesce(w.rows, '{}'), w.batch <> $2
                INTO moved, rows, stale FROM {s}.writers AS w WHERE w.writer = $1;
            RETURN;
        END IF;
    END IF;
    stale := false;
    moved := '{}';
    rows := '{}';
    IF u_unit IS NOT NULL OR rare IS NOT NULL THEN
        guards := rare -> 'guards';
        locking := u_row;
        IF guards IS NOT NULL THEN
            locking := coalesce(u_row, '{}')
                || ARRAY(SELECT g.row FROM json_to_recordset(guards) AS g(row bigint));
        END IF;
        WITH locked AS MATERIALIZED (
            SELECT s.row, s.version, s.phase FROM {s}.sessions AS s
            WHERE s.row = ANY(locking) ORDER BY s.row FOR NO KEY UPDATE)
        SELECT coalesce(array_agg(c.unit), '{}') INTO moved FROM (
            SELECT u.unit FROM unnest(u_unit, u_row, u_version) AS u(unit, row, version)
                WHERE (u.row, u.version) NOT IN (SELECT l.row, l.version FROM locked AS l)
            UNION ALL
            SELECT g.unit FROM json_to_recordset(guards)
                AS g(unit int, row bigint, version bigint, phase text)
                LEFT JOIN locked AS l ON l.row = g.row
                WHERE l.row IS NULL OR (g.version IS NOT NULL AND l.version <> g.version)
                    OR (g.phase IS NOT NULL AND l.phase <> g.phase)) AS c;
    END IF;
"""
"""Has it been applied? What may be written? Everything that can move is locked.

What moved is found by NOT IN, which the server answers from a hash: a join would be a loop in a
loop, as the function has no others (see `PLANS`).
"""

_CREATE = """
    IF c_unit IS NOT NULL THEN
        rows := ARRAY(SELECT nextval('{s}.row_numbers')
            FROM generate_series(1, cardinality(c_unit)));
        IF rare -> 'claims' IS NOT NULL THEN
            INSERT INTO {s}.claims(digest, row, claim)
                SELECT decode(k.digest, 'hex'), rows[k.new], k.claim
                FROM json_to_recordset(rare -> 'claims')
                    AS k(unit int, new int, digest text, claim text)
                WHERE k.unit <> ALL(moved) ORDER BY 1 ON CONFLICT DO NOTHING;
            moved := moved || ARRAY(
                SELECT k.unit FROM json_to_recordset(rare -> 'claims')
                    AS k(unit int, new int, digest text)
                WHERE NOT EXISTS (SELECT FROM {s}.claims AS h
                    WHERE h.digest = decode(k.digest, 'hex') AND h.row = rows[k.new]));
        END IF;
        INSERT INTO {s}.sessions(row, app, id, user_id, epoch, lifecycle, phase, reason, version,
                revision, seq, created_at, active_at, idle, absolute_at, expires_at, due_at,
                wake_at, retain, attempts, parent, parent_row, forked_from, labels, exclusive,
                fence, holder, leased_until, remembered, peak, state)
            SELECT rows[c.new], h.app, h.id, h.user_id, h.epoch, h.lifecycle, h.phase, h.reason,
                h.version, h.revision, h.seq, h.created_at, h.active_at, h.idle, h.absolute_at,
                h.expires_at, h.due_at, h.due_at, h.retain, h.attempts, h.parent, h.parent_row,
                h.forked_from, h.labels, h.exclusive, h.fence, h.holder, h.leased_until,
                h.remembered, h.peak, c.state
            FROM unnest(c_unit, c_header, c_state) WITH ORDINALITY AS c(unit, header, state, new),
                json_populate_record(NULL::{s}.sessions, c.header) AS h
            WHERE c.unit <> ALL(moved) ORDER BY h.app, h.id ON CONFLICT DO NOTHING;
        moved := moved || ARRAY(
            SELECT c.unit FROM unnest(c_unit) WITH ORDINALITY AS c(unit, new)
            WHERE c.unit <> ALL(moved)
                AND NOT EXISTS (SELECT FROM {s}.sessions AS s WHERE s.row = rows[c.new]));
        IF moved <> '{}' AND rare -> 'claims' IS NOT NULL THEN
            DELETE FROM {s}.claims WHERE row IN (
                SELECT rows[k.new] FROM json_to_recordset(rare -> 'claims') AS k(unit int, new int)
                WHERE k.unit = ANY(moved));
        END IF;
        INSERT INTO {s}.activity(row, app, user_id, phase, active_at)
            SELECT s.row, s.app, s.user_id, s.phase, s.active_at
            FROM {s}.sessions AS s WHERE s.row = ANY(rows);
    END IF;
"""

_UPDATE = """
    IF u_unit IS NOT NULL THEN
        UPDATE {s}.sessions AS s SET version = u.next, revision = u.revision, seq = u.seq,
            active_at = u.active_at, expires_at = u.expires_at, due_at = u.due_at,
            wake_at = CASE WHEN u.due_at IS NULL OR s.wake_at IS NULL OR u.due_at < s.wake_at
                OR s.wake_at <= u.now OR NOT u.lazy THEN u.due_at ELSE s.wake_at END,
            remembered = u.remembered, peak = u.peak, state = coalesce(u.state, s.state)
            FROM unnest(u_unit, u_row, u_next, u_revision, u_seq, u_active_at, u_expires_at,
                u_due_at, u_now, u_lazy, u_remembered, u_peak, u_state)
                AS u(unit, row, next, revision, seq, active_at, expires_at, due_at, now, lazy,
                    remembered, peak, state)
            WHERE s.row = u.row AND u.unit <> ALL(moved);
        UPDATE {s}.activity AS a SET active_at = u.active_at
            FROM unnest(u_unit, u_row, u_active_at) AS u(unit, row, active_at)
            WHERE a.row = u.row AND a.active_at <> u.active_at AND u.unit <> ALL(moved);
        IF true = ANY(u_labelled) THEN
            UPDATE {s}.labels AS l SET active_at = u.active_at
                FROM unnest(u_unit, u_row, u_active_at, u_labelled)
                    AS u(unit, row, active_at, labelled)
                WHERE u.labelled AND l.row = u.row AND l.active_at <> u.active_at
                    AND u.unit <> ALL(moved);
        END IF;
    END IF;
"""

_REST = """
    IF rare -> 'rests' IS NOT NULL THEN
        UPDATE {s}.sessions AS s SET user_id = h.user_id, phase = h.phase, reason = h.reason,
            idle = h.idle, absolute_at = h.absolute_at, retain = h.retain, attempts = h.attempts,
            labels = h.labels, fence = h.fence, holder = h.holder, leased_until = h.leased_until
            FROM json_to_recordset(rare -> 'rests') AS r(unit int, row bigint, header json),
                json_populate_record(NULL::{s}.sessions, r.header) AS h
            WHERE s.row = r.row AND r.unit <> ALL(moved);
        UPDATE {s}.activity AS a SET user_id = s.user_id, phase = s.phase
            FROM json_to_recordset(rare -> 'rests') AS r(unit int, row bigint), {s}.sessions AS s
            WHERE a.row = r.row AND s.row = r.row AND r.unit <> ALL(moved)
                AND (a.phase <> s.phase OR a.user_id IS DISTINCT FROM s.user_id);
        UPDATE {s}.labels AS l SET phase = s.phase
            FROM json_to_recordset(rare -> 'rests') AS r(unit int, row bigint), {s}.sessions AS s
            WHERE l.row = r.row AND s.row = r.row AND r.unit <> ALL(moved)
                AND l.phase <> s.phase;
        DELETE FROM {s}.claims WHERE row IN (
            SELECT r.row FROM json_to_recordset(rare -> 'rests')
                AS r(unit int, row bigint, freed boolean)
            WHERE r.freed AND r.unit <> ALL(moved));
        DELETE FROM {s}.labels WHERE row IN (
            SELECT r.row FROM json_to_recordset(rare -> 'rests')
                AS r(unit int, row bigint, relabelled boolean)
            WHERE r.relabelled AND r.unit <> ALL(moved));
    END IF;
    IF rare -> 'labels' IS NOT NULL THEN
        INSERT INTO {s}.labels(row, digest, name, value, phase, active_at)
            SELECT s.row, decode(l.digest, 'hex'), l.name, l.value, s.phase, s.active_at
            FROM json_to_recordset(rare -> 'labels')
                AS l(unit int, row bigint, new int, digest text, name text, value text)
                JOIN {s}.sessions AS s ON s.row = coalesce(l.row, rows[l.new])
            WHERE l.unit <> ALL(moved);
    END IF;
    IF rare -> 'cuts' IS NOT NULL THEN
        DELETE FROM {s}.events AS e
            USING json_to_recordset(rare -> 'cuts') AS c(unit int, row bigint, after bigint)
            WHERE e.session = c.row AND e.seq > c.after AND c.unit <> ALL(moved);
    END IF;
    IF rare -> 'copies' IS NOT NULL THEN
        INSERT INTO {s}.events(session, seq, at, peak, id, kind, author, changes, deleted, body)
            SELECT rows[c.new], e.seq, e.at, e.peak, e.id, e.kind, e.author, e.changes, e.deleted,
                e.body
            FROM json_to_recordset(rare -> 'copies')
                AS c(unit int, new int, source bigint, upto bigint)
                JOIN {s}.events AS e ON e.session = c.source AND e.seq <= c.upto
            WHERE c.unit <> ALL(moved);
        INSERT INTO {s}.documents(row, app, session, collection, key, content_type, size, seq,
                created_at, updated_at, expires_at, body)
            SELECT nextval('{s}.row_numbers'), o.* FROM (
                SELECT d.app, rows[c.new], d.collection, d.key, d.content_type, d.size, d.seq,
                    d.created_at, d.updated_at, d.expires_at, d.body
                FROM json_to_recordset(rare -> 'copies')
                    AS c(unit int, new int, source bigint, upto bigint)
                    JOIN {s}.documents AS d ON d.session = c.source AND d.seq <= c.upto
                WHERE c.unit <> ALL(moved) ORDER BY d.row) AS o;
    END IF;
"""

_EVENTS = f"""
    IF e_unit IS NOT NULL THEN
        INSERT INTO {{s}}.events(session, seq, id, kind, author, at, peak, changes, deleted, body)
            SELECT {_ROW.format("e")}, e_seq, e_id, e_kind, e_author, e_at, e_peak, e_changes,
                e_deleted, e_body
            FROM unnest(e_unit, e_row, e_new, e_seq, e_id, e_kind, e_author, e_at, e_peak,
                e_changes, e_deleted, e_body)
                AS e(e_unit, e_row, e_new, e_seq, e_id, e_kind, e_author, e_at, e_peak,
                    e_changes, e_deleted, e_body)
            WHERE e.e_unit <> ALL(moved);
    END IF;
"""

_TIERS = """
    IF t_unit IS NOT NULL THEN
        IF array_position(t_value, NULL) IS NOT NULL THEN
            PERFORM 1 FROM {s}.tiers AS k
                WHERE (k.app, k.owner, k.digest) IN (SELECT * FROM unnest(t_app, t_owner, t_digest))
                ORDER BY k.app, k.owner, k.digest FOR UPDATE;
        END IF;
        INSERT INTO {s}.tiers AS k (app, owner, digest, name, value)
            SELECT t.app, t.owner, t.digest, t.name, t.value FROM (
                SELECT DISTINCT ON (t.app, t.owner, t.digest) t.* FROM unnest(t_unit, t_app,
                    t_owner, t_digest, t_name, t_value) WITH ORDINALITY
                    AS t(unit, app, owner, digest, name, value, place)
                WHERE t.unit <> ALL(moved)
                ORDER BY t.app, t.owner, t.digest, t.place DESC) AS t
            WHERE t.value IS NOT NULL
            ON CONFLICT ON CONSTRAINT tiers_pkey DO UPDATE SET value = excluded.value;
        IF array_position(t_value, NULL) IS NOT NULL THEN
            DELETE FROM {s}.tiers AS k USING (
                SELECT DISTINCT ON (t.app, t.owner, t.digest) t.* FROM unnest(t_unit, t_app,
                    t_owner, t_digest, t_value) WITH ORDINALITY
                    AS t(unit, app, owner, digest, value, place)
                WHERE t.unit <> ALL(moved)
                ORDER BY t.app, t.owner, t.digest, t.place DESC) AS t
            WHERE t.value IS NULL AND k.app = t.app AND k.owner = t.owner AND k.digest = t.digest;
        END IF;
    END IF;
"""

_DOCUMENTS = """
    IF d_unit IS NOT NULL THEN
        IF true = ANY(SELECT a IS NOT NULL FROM unnest(d_app) AS a) THEN
            INSERT INTO {s}.apps(app, row)
                SELECT DISTINCT ON (a) a, nextval('{s}.row_numbers') FROM unnest(d_app) AS a
                WHERE a IS NOT NULL ORDER BY a ON CONFLICT DO NOTHING;
            PERFORM 1 FROM {s}.apps AS a WHERE a.app = ANY(d_app) ORDER BY a.app FOR UPDATE;
        END IF;
        FOR i IN 1 .. cardinality(d_unit) LOOP
            CONTINUE WHEN d_unit[i] = ANY(moved);
            document_owner := coalesce(d_row[i], rows[d_new[i]],
                (SELECT a.row FROM {s}.apps AS a WHERE a.app = d_app[i]));
            IF d_body[i] IS NULL THEN
                DELETE FROM {s}.documents AS d WHERE d.session = document_owner
                    AND d.collection = d_collection[i] AND (d_key[i] IS NULL OR d.key = d_key[i]);
            ELSE
                INSERT INTO {s}.documents AS d (row, app, session, collection, key, content_type,
                    size, seq, created_at, updated_at, expires_at, body)
                VALUES (nextval('{s}.row_numbers'), coalesce(d_app[i],
                        (SELECT s.app FROM {s}.sessions AS s WHERE s.row = document_owner)),
                    document_owner, d_collection[i], d_key[i], d_content_type[i],
                    length(d_body[i]), d_seq[i], d_now[i], d_now[i], d_expires_at[i], d_body[i])
                ON CONFLICT (session, collection, key) DO UPDATE SET
                    content_type = excluded.content_type, size = excluded.size,
                    seq = excluded.seq, updated_at = excluded.updated_at,
                    expires_at = excluded.expires_at, body = excluded.body,
                    created_at = CASE WHEN d.expires_at <= excluded.updated_at
                        THEN excluded.created_at ELSE d.created_at END;
            END IF;
        END LOOP;
    END IF;
"""

_COUNTS = """
    IF rare -> 'counts' IS NOT NULL THEN
        INSERT INTO {s}.counts AS k (digest, phase, slot, app, facet, sessions)
            SELECT decode(c.digest, 'hex'), c.phase, CASE WHEN c.facet = 'all' THEN $3 ELSE 0 END,
                c.app, c.facet, sum(c.by)
            FROM json_to_recordset(rare -> 'counts')
                AS c(unit int, digest text, phase text, app text, facet text, by bigint)
            WHERE c.unit <> ALL(moved) GROUP BY c.digest, c.phase, c.app, c.facet
            HAVING sum(c.by) <> 0 ORDER BY decode(c.digest, 'hex'), c.phase COLLATE "C"
            ON CONFLICT ON CONSTRAINT counts_pkey DO UPDATE
                SET sessions = k.sessions + excluded.sessions;
        DELETE FROM {s}.counts AS k USING json_to_recordset(rare -> 'counts')
                AS c(unit int, digest text, phase text, facet text, by bigint)
            WHERE c.by < 0 AND c.facet <> 'all' AND c.unit <> ALL(moved)
                AND k.digest = decode(c.digest, 'hex') AND k.phase = c.phase AND k.sessions = 0;
    END IF;
"""

_FINISH = """
    IF EXISTS (SELECT FROM {s}.listeners AS l WHERE l.until > clock_timestamp()) THEN
        PERFORM {s}.notify_1(coalesce(ARRAY(
            SELECT u.row FROM unnest(u_unit, u_row) AS u(unit, row) WHERE u.unit <> ALL(moved)),
            '{}') || rows);
    END IF;
    IF moved <> '{}' OR rows <> '{}' THEN
        UPDATE {s}.writers AS w SET moved = write_1.moved, rows = write_1.rows
            WHERE w.writer = $1;
    END IF;
"""

PLANS = """SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off"""
"""Plan each statement once, for few rows by index: planning costs more than running them, and a
plan that was made while a table was empty would read all of it later."""

_BODY = (
    f"{STATEMENTS}{_CHECK}{_CREATE}{_UPDATE}{_REST}{_EVENTS}{_TIERS}{_DOCUMENTS}{_COUNTS}{_FINISH}"
)

NOTIFY = """
CREATE FUNCTION {s}.notify_1(changed bigint[]) RETURNS void LANGUAGE plpgsql {path} AS $body$
BEGIN
    PERFORM pg_notify('{channel}', string_agg(k.key, ' ')) FROM (
        SELECT substr(md5(s.app || chr(31) || s.id), 1, 16) AS key,
            row_number() OVER () / 400 AS part
        FROM {s}.sessions AS s WHERE s.row = ANY(changed)) AS k GROUP BY k.part;
END $body$;
"""
"""Tells the listeners which sessions changed, a few hundred in one message (of 8,000 bytes)."""

WRITE = (
    "CREATE FUNCTION {s}.write_1("
    + ", ".join(f"{name} {kind}" for name, kind in PARAMETERS)
    + ", OUT moved int[], OUT rows bigint[], OUT stale boolean) LANGUAGE plpgsql\n"
    f"{{path}} {PLANS} AS $body$\n"
    "#variable_conflict use_column\n"
    "DECLARE guards json; locking bigint[]; document_owner bigint;\n"
    f"BEGIN{_BODY}END $body$;\n"
)

AS_TEXT = ("int[]", "bigint[]", "boolean[]")
"""Types of lists that are given as their text: the driver looks long at each item of a list."""

SEPARATOR, ABSENT = "\x1f", "\x1e"
"""What stands before each text of a list that is given as one, and for one that is not there.
Neither is in any: they are names, which are printable, and JSON, which has no such characters."""


def is_joined(name: str, kind: str) -> bool:
    """Return whether a list of texts is given as one: those that nearly every call has."""
    return kind == "text[]" and name[0] in "uet"


def _given(number: int, name: str, kind: str) -> str:
    """Return how a parameter is given."""
    if kind in AS_TEXT:
        return f"${number}::text::{kind}"
    if not is_joined(name, kind):
        return f"${number}"
    # Without what stands before the first one: an empty text would be an empty list.
    return f"(string_to_array(${number}::text, '{SEPARATOR}', '{ABSENT}'))[2:]"


CALL = (
    "SELECT moved, rows, stale FROM {s}.write_1("
    + ", ".join(_given(number, *each) for number, each in enumerate(PARAMETERS, 1))
    + ")"
)
"""How a batch is written."""

LAST = f"""INSERT INTO {{s}}.writers AS w (writer, batch, at) VALUES ($1, 0, clock_timestamp())
    ON CONFLICT (writer) DO UPDATE SET at = excluded.at
    RETURNING w.batch, coalesce(w.moved, '{{}}'), coalesce(w.rows, '{{}}'), {chosen("false")}"""
"""What came of the last batch of a writer. It is an update, so it waits for the end of a call that
is still under way on a connection that was lost, and none that comes late gets past it. What it
tells to be written is durable: it waits for that, too."""

"""The functions that remove sessions with all they own, and find the ones that are due.

Removing goes by rows, locked in the order of their numbers; a child has a higher one than its
parent. An operation that removes leaves its result behind (`operations`): the same call again,
after a reply was lost, gets the same answer.
"""

from __future__ import annotations

from sojourn.stores.postgres.durability import STATEMENTS

KEPT = "1 hour"
"""How long the result of a removal is kept: retries come within seconds."""

REMOVE = """
CREATE FUNCTION {s}.remove_1(doomed bigint[]) RETURNS bigint[] LANGUAGE plpgsql {path}
SET enable_seqscan = off SET jit = off AS $body$
DECLARE family bigint[]; more bigint[];
BEGIN
    WITH RECURSIVE below(row) AS (
        SELECT unnest(doomed)
        UNION SELECT c.row FROM {s}.sessions AS c JOIN below AS b ON c.parent_row = b.row)
    SELECT array_agg(b.row) INTO family FROM below AS b;
    LOOP
        PERFORM 1 FROM {s}.sessions AS s WHERE s.row = ANY(family) ORDER BY s.row FOR UPDATE;
        SELECT array_agg(c.row) INTO more FROM {s}.sessions AS c
            WHERE c.parent_row = ANY(family) AND c.row <> ALL(family);
        EXIT WHEN more IS NULL;
        family := family || more;
    END LOOP;
    IF EXISTS (SELECT FROM {s}.listeners AS l WHERE l.until > clock_timestamp()) THEN
        PERFORM {s}.notify_1(family);
    END IF;
    INSERT INTO {s}.counts AS k (digest, phase, slot, app, facet, sessions)
        SELECT f.digest, f.phase, 0, f.app, f.facet, -count(*) FROM (
            SELECT s.app, s.phase, n.facet,
                substr(sha256(convert_to(s.app || chr(31) || n.facet, 'UTF8')), 1, 16) AS digest
            FROM {s}.sessions AS s, LATERAL (VALUES ('all'),
                (CASE WHEN s.user_id IS NULL THEN 'anonymous' ELSE 'user ' || s.user_id END))
                AS n(facet)
            WHERE s.row = ANY(family)
            UNION ALL
            SELECT s.app, s.phase, 'label', l.digest FROM {s}.sessions AS s
                JOIN {s}.labels AS l ON l.row = s.row WHERE s.row = ANY(family)) AS f
        GROUP BY f.digest, f.phase, f.app, f.facet ORDER BY f.digest, f.phase COLLATE "C"
        ON CONFLICT ON CONSTRAINT counts_pkey DO UPDATE
            SET sessions = k.sessions + excluded.sessions;
    DELETE FROM {s}.counts AS k WHERE k.sessions = 0 AND k.facet <> 'all'
        AND k.slot = 0 AND k.digest IN (
            SELECT substr(sha256(convert_to(s.app || chr(31) || CASE WHEN s.user_id IS NULL
                THEN 'anonymous' ELSE 'user ' || s.user_id END, 'UTF8')), 1, 16)
            FROM {s}.sessions AS s WHERE s.row = ANY(family)
            UNION ALL SELECT l.digest FROM {s}.labels AS l WHERE l.row = ANY(family));
    DELETE FROM {s}.events WHERE session = ANY(family);
    DELETE FROM {s}.documents WHERE session = ANY(family);
    DELETE FROM {s}.labels WHERE row = ANY(family);
    DELETE FROM {s}.claims WHERE row = ANY(family);
    DELETE FROM {s}.activity WHERE row = ANY(family);
    DELETE FROM {s}.sessions WHERE row = ANY(family);
    RETURN family;
END $body$;
"""

BEGIN_ONCE = f"""
CREATE FUNCTION {{s}}.begin_once_1(named bytea, relaxed boolean, OUT fresh boolean, OUT result text)
LANGUAGE plpgsql {{path}} AS $body$
BEGIN{STATEMENTS}
    INSERT INTO {{s}}.operations(op, at) VALUES (named, clock_timestamp()) ON CONFLICT DO NOTHING;
    fresh := FOUND;
    IF NOT fresh THEN
        SELECT o.result INTO result FROM {{s}}.operations AS o WHERE o.op = named;
    END IF;
END $body$;
CREATE FUNCTION {{s}}.end_once_1(named bytea, outcome text) RETURNS text
LANGUAGE sql {{path}} AS $body$
    UPDATE {{s}}.operations SET result = outcome WHERE op = named RETURNING result;
$body$;
"""
"""Around everything that must be done once: whoever comes with the same name gets its result."""

DELETE = """
CREATE FUNCTION {s}.delete_1(named bytea, relaxed boolean, staged text, of_app text, of_id text,
    is_epoch text, is_revision bigint, is_fence bigint) RETURNS text
LANGUAGE plpgsql {path} AS $body$
DECLARE once record; found_row bigint;
BEGIN
    once := {s}.begin_once_1(named, relaxed);
    IF NOT once.fresh THEN
        RETURN once.result;
    END IF;
    SELECT s.row INTO found_row FROM {s}.sessions AS s
        WHERE s.app = staged || of_app AND s.id = of_id FOR UPDATE;
    IF FOUND THEN
        PERFORM {s}.remove_1(ARRAY[found_row]);
    END IF;
    SELECT s.row INTO found_row FROM {s}.sessions AS s
        WHERE s.app = of_app AND s.id = of_id AND (is_epoch IS NULL OR s.epoch = is_epoch)
            AND (is_revision IS NULL OR s.revision = is_revision)
            AND (is_fence IS NULL OR (s.fence = is_fence AND s.holder IS NOT NULL)) FOR UPDATE;
    IF FOUND THEN
        PERFORM {s}.remove_1(ARRAY[found_row]);
    END IF;
    RETURN {s}.end_once_1(named, CASE WHEN found_row IS NULL THEN 'no' ELSE 'yes' END);
END $body$;
"""

FORGET = """
CREATE FUNCTION {s}.forget_1(named bytea, relaxed boolean, staged text, of_app text, of_user text,
    most int) RETURNS text LANGUAGE plpgsql {path} AS $body$
DECLARE once record; doomed bigint[]; more bigint[]; ours bigint;
BEGIN
    once := {s}.begin_once_1(named, relaxed);
    IF NOT once.fresh THEN
        RETURN once.result;
    END IF;
    SELECT array_agg(s.row) INTO doomed FROM (
        SELECT s.row FROM {s}.sessions AS s
        WHERE s.app = staged || of_app AND coalesce(s.user_id, '') = of_user LIMIT most) AS s;
    IF doomed IS NOT NULL THEN
        PERFORM {s}.remove_1(doomed);
    END IF;
    SELECT array_agg(s.row ORDER BY s.row) INTO doomed FROM (
        SELECT s.row FROM {s}.sessions AS s
        WHERE s.app = of_app AND coalesce(s.user_id, '') = of_user LIMIT most) AS s;
    ours := 0;
    IF doomed IS NOT NULL THEN
        WITH RECURSIVE below(row) AS (
            SELECT unnest(doomed)
            UNION SELECT c.row FROM {s}.sessions AS c JOIN below AS b ON c.parent_row = b.row)
        SELECT count(*) INTO ours FROM below AS b JOIN {s}.sessions AS s ON s.row = b.row
            WHERE s.user_id = of_user;
        PERFORM {s}.remove_1(doomed);
    END IF;
    DELETE FROM {s}.tiers AS t WHERE t.app = of_app AND t.owner = of_user;
    RETURN {s}.end_once_1(named, ours::text);
END $body$;
"""

DUE = """
CREATE FUNCTION {s}.due_rows_1(of_app text, at_now bigint, most int) RETURNS bigint[]
LANGUAGE plpgsql {path} SET enable_seqscan = off SET jit = off AS $body$
DECLARE late bigint[]; outdated bigint[];
BEGIN
    LOOP
        SELECT array_agg(d.row ORDER BY d.wake_at, d.row),
                array_agg(d.row ORDER BY d.row) FILTER (WHERE d.wake_at IS DISTINCT FROM d.due_at)
            INTO late, outdated FROM (
                SELECT s.row, s.wake_at, s.due_at FROM {s}.sessions AS s
                WHERE s.app = of_app AND s.wake_at <= at_now
                    AND NOT (s.phase IN ('ENDING', 'TERMINATING') AND s.holder IS NOT NULL
                        AND s.leased_until > at_now)
                ORDER BY s.wake_at, s.row LIMIT most) AS d;
        EXIT WHEN outdated IS NULL;
        WITH locked AS MATERIALIZED (
            SELECT s.row FROM {s}.sessions AS s WHERE s.row = ANY(outdated)
            ORDER BY s.row FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE {s}.sessions AS s SET wake_at = s.due_at FROM locked AS l WHERE s.row = l.row;
        IF NOT FOUND THEN  -- somebody uses all of them right now: they are not due
            late := ARRAY(SELECT f.row FROM unnest(late) WITH ORDINALITY AS f(row, place)
                WHERE f.row <> ALL(outdated) ORDER BY f.place);
            EXIT;
        END IF;
    END LOOP;
    RETURN coalesce(late, '{}');
END $body$;
CREATE FUNCTION {s}.tidy_1(of_app text, staged text, at_now bigint, most int) RETURNS void
LANGUAGE plpgsql {path} AS $body$
DECLARE abandoned bigint[];
BEGIN
    DELETE FROM {s}.documents WHERE row IN (
        SELECT d.row FROM {s}.documents AS d WHERE d.app = of_app AND d.expires_at <= at_now
        ORDER BY d.row LIMIT greatest(most, 1000) FOR UPDATE SKIP LOCKED);
    abandoned := {s}.due_rows_1(staged || of_app, at_now, most);
    IF abandoned <> '{}' THEN
        PERFORM {s}.remove_1(abandoned);
    END IF;
    DELETE FROM {s}.operations WHERE op IN (
        SELECT o.op FROM {s}.operations AS o WHERE o.at < clock_timestamp() - interval '1 hour'
        ORDER BY o.op LIMIT 1000 FOR UPDATE SKIP LOCKED);
    DELETE FROM {s}.writers WHERE writer IN (
        SELECT w.writer FROM {s}.writers AS w WHERE w.at < clock_timestamp() - interval '1 day'
        ORDER BY w.writer LIMIT 100 FOR UPDATE SKIP LOCKED);
    DELETE FROM {s}.listeners WHERE until < clock_timestamp() - interval '1 hour';
END $body$;
CREATE FUNCTION {s}.due_1(of_app text, staged text, at_now bigint, most int)
RETURNS SETOF {s}.sessions LANGUAGE plpgsql {path} AS $body$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM {s}.tidy_1(of_app, staged, at_now, most);
    RETURN QUERY SELECT s.* FROM unnest({s}.due_rows_1(of_app, at_now, most)) WITH ORDINALITY
        AS d(row, place) JOIN {s}.sessions AS s ON s.row = d.row ORDER BY d.place;
END $body$;
CREATE FUNCTION {s}.reap_1(named bytea, of_app text, staged text, at_now bigint, most int)
RETURNS text LANGUAGE plpgsql {path} AS $body$
DECLARE once record; due bigint[]; locked bigint[]; ids json;
BEGIN
    once := {s}.begin_once_1(named, true);
    IF NOT once.fresh THEN
        RETURN once.result;
    END IF;
    due := {s}.due_rows_1(of_app, at_now, most);
    SELECT array_agg(f.row) INTO locked FROM (
        SELECT s.row FROM {s}.sessions AS s WHERE s.row = ANY(due) AND s.due_at <= at_now
        ORDER BY s.row FOR UPDATE SKIP LOCKED) AS f;
    SELECT coalesce(json_agg(s.id ORDER BY d.place), '[]') INTO ids
        FROM unnest(due) WITH ORDINALITY AS d(row, place) JOIN {s}.sessions AS s ON s.row = d.row
        WHERE s.row = ANY(locked);
    IF locked IS NOT NULL THEN
        PERFORM {s}.remove_1(locked);
    END IF;
    PERFORM {s}.tidy_1(of_app, staged, at_now, most);
    RETURN {s}.end_once_1(named, ids::text);
END $body$;
"""

FUNCTIONS = REMOVE + BEGIN_ONCE + DELETE + FORGET + DUE

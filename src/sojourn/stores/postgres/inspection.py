"""Looking at a server and a schema: what they are, and whether what is kept agrees with itself.

Nothing here makes or changes anything.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from sojourn.stores.postgres import schema
from sojourn.stores.postgres.pool import Pool, one_moment
from sojourn.stores.summary import AppSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection

NEWEST_VERSION = len(schema.MIGRATIONS)
"""The version of the schema that this Sojourn writes."""

FAULTS: Sequence[tuple[int, int, str]] = (
    (140_000, 140_004, "REINDEX CONCURRENTLY can leave rows out of an index until 14.4"),
    (0, schema.OLDEST, "too old: 13 is the oldest that works"),
)
"""Versions of the server (from, up to but not including) with what is known against them."""

LAST_FIXES = {
    13: date(2025, 11, 13),
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
"""When the last release of a version with fixes comes, as its makers say."""

SHOWN = 10
"""Things that are wrong of one kind are told up to this number."""

_FACTS = """SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    current_setting('fsync')::bool, current_setting('full_page_writes')::bool,
    current_setting('server_encoding'), current_setting('max_connections')::int,
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')"""

_APPS = """SELECT app FROM {s}.counts WHERE facet = 'all' UNION SELECT app FROM {s}.tiers
    UNION SELECT app FROM {s}.apps ORDER BY 1"""
_PHASES = """SELECT phase, sum(sessions)::bigint FROM {s}.counts
    WHERE app = $1 AND facet = 'all' GROUP BY phase HAVING sum(sessions) > 0 ORDER BY phase"""
_DUE = """SELECT count(*), min(due_at) FROM {s}.sessions
    WHERE app = $1 AND wake_at <= $2 AND due_at <= $2"""

_CHECKS = (
    (
        "sessions are not among those listed by activity as they are",
        """SELECT s.app || '/' || s.id FROM {s}.sessions AS s
        LEFT JOIN {s}.activity AS a ON a.row = s.row
        WHERE (a.app, a.phase, a.active_at) IS DISTINCT FROM (s.app, s.phase, s.active_at)
            OR a.user_id IS DISTINCT FROM s.user_id""",
    ),
    (
        "events belong to no session, or have a number that their session has not given out",
        """SELECT e.session || '/' || e.seq FROM {s}.events AS e
        LEFT JOIN {s}.sessions AS s ON s.row = e.session WHERE s.row IS NULL OR e.seq > s.seq""",
    ),
    (
        "documents belong to nobody",
        """SELECT d.row::text FROM {s}.documents AS d
        WHERE NOT EXISTS (SELECT FROM {s}.sessions AS s WHERE s.row = d.session)
            AND NOT EXISTS (SELECT FROM {s}.apps AS a WHERE a.row = d.session)""",
    ),
    (
        "labels are not those of their session",
        """SELECT s.app || '/' || s.id FROM {s}.sessions AS s WHERE
            (SELECT count(*) FROM {s}.labels AS l WHERE l.row = s.row AND l.phase = s.phase
                AND l.active_at = s.active_at AND s.labels::json ->> l.name = l.value)
            <> (SELECT count(*) FROM json_object_keys(coalesce(s.labels, '{}')::json))""",
    ),
    (
        "labels or claims belong to no session",
        """SELECT x.row::text FROM (SELECT row FROM {s}.labels UNION SELECT row FROM {s}.claims
            UNION SELECT row FROM {s}.activity) AS x
        WHERE NOT EXISTS (SELECT FROM {s}.sessions AS s WHERE s.row = x.row)""",
    ),
    (
        "children have lost their parent",
        """SELECT s.app || '/' || s.id FROM {s}.sessions AS s WHERE s.parent_row IS NOT NULL
            AND NOT EXISTS (SELECT FROM {s}.sessions AS p WHERE p.row = s.parent_row)""",
    ),
    (
        "sessions would be looked at too late by the reaper",
        """SELECT s.app || '/' || s.id FROM {s}.sessions AS s
        WHERE s.due_at IS NOT NULL AND (s.wake_at IS NULL OR s.wake_at > s.due_at)""",
    ),
    (
        "counts are not those of the sessions",
        """SELECT coalesce(k.app, f.app) || ': ' || coalesce(k.facet, f.facet) FROM (
            SELECT digest, phase, min(app) AS app, min(facet) AS facet, sum(sessions) AS sessions
            FROM {s}.counts GROUP BY digest, phase HAVING sum(sessions) <> 0) AS k
        FULL JOIN (
            SELECT app, facet, phase, count(*) AS sessions,
                substr(sha256(convert_to(app || chr(31) || facet, 'UTF8')), 1, 16) AS digest
            FROM (SELECT s.app, s.phase, f.facet FROM {s}.sessions AS s, LATERAL (VALUES ('all'),
                (CASE WHEN s.user_id IS NULL THEN 'anonymous' ELSE 'user ' || s.user_id END))
                AS f(facet)) AS g GROUP BY app, facet, phase
            UNION ALL
            SELECT min(s.app), min(l.name), l.phase, count(*), l.digest FROM {s}.labels AS l
            JOIN {s}.sessions AS s ON s.row = l.row GROUP BY l.digest, l.phase) AS f
        ON f.digest = k.digest AND f.phase = k.phase
        WHERE f.sessions IS DISTINCT FROM k.sessions""",
    ),
)
"""What can be wrong, and the statement that finds it."""


class Facts(NamedTuple):
    """What a server is and how it is set. `version` is the schema's, 0 if there is none."""

    number: int
    release: str
    fsync: bool
    full_page_writes: bool
    encoding: str
    most_connections: int
    connections: int
    version: int

    def faults(self, today: date) -> list[str]:
        """Return what is known against this release."""
        found = [text for first, end, text in FAULTS if first <= self.number < end]
        last = LAST_FIXES.get(self.number // 10_000)
        if last is not None and last < today:
            found.append(f"faults of this version are not fixed any more since {last}")
        return found


async def summaries(address: Address, now: int) -> list[AppSummary]:
    """Return what there is of each app. Raises as `facts` does; there has to be a schema."""
    pool = Pool(address, 1)
    try:
        return await pool.run(lambda db: _summaries(db, address, now), again=False)
    finally:
        await pool.close()


async def _summaries(db: Connection, address: Address, now: int) -> list[AppSummary]:
    found: list[AppSummary] = []
    async with one_moment(db):
        for (app,) in await db.fetch(schema.sql(_APPS, address)):
            if app < " ":  # what a restore has not finished is under a name that no app can have
                continue
            phases = dict(await db.fetch(schema.sql(_PHASES, address), app))
            due = await db.fetchrow(schema.sql(_DUE, address), app, now)
            found.append(AppSummary(app, phases, *due))
    return found


async def facts(address: Address) -> Facts:
    """Return what is at a place. Raises `Unavailable`, `NewerSchema` and `ForeignFile`."""
    pool = Pool(address, 1)
    try:
        return await pool.run(lambda db: _facts(db, address), again=False)
    finally:
        await pool.close()


async def _facts(db: Connection, address: Address) -> Facts:
    row = await db.fetchrow(_FACTS)
    return Facts._make((*row, await schema.version_of(db, address)))


async def check(db: Connection, address: Address) -> list[str]:
    """Return what is wrong, in words; empty when all is well."""
    found: list[str] = []
    async with one_moment(db):
        for what, statement in _CHECKS:
            limited = f"{schema.sql(statement, address)} LIMIT {SHOWN + 1}"
            wrong = [name for (name,) in await db.fetch(limited)]
            if wrong:
                more = ", and more" if len(wrong) > SHOWN else ""
                found.append(f"{what}: {', '.join(map(str, wrong[:SHOWN]))}{more}")
    return found

"""Does it cost more with more of it? `python -m benchmarks.scale`: PostgreSQL, few against many.

Two schemas of one server are filled with statements of the server's own, then the same calls are
made on both in turns, through the public face: to some hundred sessions that are in use, anywhere
among all others. What else there is must not matter to them. Calls to any session, which nobody has
used for long, are measured too: they read pages that are in no memory, and the server logs each
page whole that it changes for the first time, so they have no limit to keep. What is swept became
due in the order in which it was made. The server is removed with all that it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
from tests.servers.postgres import PostgresServer, folder_of_programs

from benchmarks import report
from benchmarks.rounds import ROOT
from sojourn import Event, Expiry, SessionManager
from sojourn.reaper import BATCH
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

APP = "bench"
OF_A_USER = 50
"""Sessions of each user."""

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = 365 * 86_400
"""Seconds after which those sessions expire that are not to be swept."""

AT_ONCE = 20_000
"""Sessions that are filled in by one statement."""

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}
"""Of the server. All else is its default; every commit waits for the disk."""

IN_USE = 500
"""Sessions that calls go to, unless they go to any."""

ANY = ", any"
"""What the names of calls to any session end with."""

MOST = 1.5
"""How many times as much a call may cost."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    few: int = 10_000
    many: int = 1_000_000
    events: int = 10
    rounds: int = 7
    calls: int = 200
    sweeps: int = 2

    def __post_init__(self) -> None:
        """Refuse sizes of which the sweeps would leave too few users."""
        left = self.few - self.due * self.rounds
        if left < 2 * OF_A_USER:
            raise ValueError(f"{left} of {self.few} sessions are left by the sweeps: make more")

    @property
    def due(self) -> int:
        """Sessions that become due in each round."""
        return self.sweeps * BATCH


QUICK = Sizes(few=600, many=1200, events=3, rounds=1, calls=5, sweeps=1)
"""So little that it shows only whether it runs."""

_SESSIONS = """
WITH made AS MATERIALIZED (
    SELECT n, nextval('{s}.row_numbers') AS row, md5('s' || n) AS id, 'u-' || n / {of_a_user} AS
        user_id, {start} + n AS at,
        {start} + 1000000
            * CASE WHEN n < {due} THEN 60 + n / {each} ELSE {later}::bigint END AS ends
    FROM generate_series($1::bigint, $2::bigint) AS n),
sessions AS (
    INSERT INTO {s}.sessions(row, app, id, user_id, epoch, lifecycle, phase, version, revision, seq,
        created_at, active_at, absolute_at, expires_at, due_at, wake_at, attempts, labels, fence,
        leased_until, remembered, peak, state)
    SELECT row, '{app}', id, user_id, substr(md5('e' || n), 1, 16), 'open', 'OPEN', 1, 1, {events},
        at, at, ends, ends, ends, ends, 0, '{{"kind":"' || n % 4 || '"}}', 0, 0, '', at,
        '{{"turn":1,"title":"' || repeat('x', 100) || '"}}' FROM made),
activity AS (
    INSERT INTO {s}.activity(row, app, user_id, phase, active_at)
    SELECT row, '{app}', user_id, 'OPEN', at FROM made),
labels AS (
    INSERT INTO {s}.labels(row, digest, name, value, phase, active_at)
    SELECT row, {s}.digest('label ["kind","' || n % 4 || '"]'), 'kind', n % 4, 'OPEN', at FROM made)
INSERT INTO {s}.events(session, seq, at, peak, id, kind, author, body)
SELECT row, seq, at, at, md5('e' || n || '-' || seq), 'message', 'user',
    '{{"role":"user","text":"' || repeat('x', 200) || '"}}'
FROM made, generate_series(1, {events}) AS seq"""
_DIGEST = """CREATE FUNCTION {s}.digest(facet text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT substr(sha256(convert_to('{app}' || chr(31) || facet, 'UTF8')), 1, 16) $$"""
_COUNTS = """
INSERT INTO {s}.counts(digest, phase, slot, app, facet, sessions)
SELECT {s}.digest(facet), 'OPEN', 0, '{app}', facet, count(*) FROM (
    SELECT 'all' AS facet FROM {s}.sessions UNION ALL
    SELECT 'user ' || user_id FROM {s}.sessions UNION ALL
    SELECT 'label ["kind","' || value || '"]' FROM {s}.labels) AS f GROUP BY facet"""

_INDEXES = """SELECT indexname, indexdef FROM pg_indexes
    WHERE schemaname = $1 AND indexname NOT LIKE '%pkey' AND indexname NOT LIKE '%_key'"""


@dataclass
class Figure:
    """What one kind of call costs, in seconds: the middle of each round, with few and with many."""

    name: str
    few: list[float]
    many: list[float]

    @property
    def ratio(self) -> float:
        """How many times as much it costs: the median of the rounds."""
        return median(many / few for few, many in zip(self.few, self.many, strict=True))

    def line(self) -> str:
        """Return it as a line of a table."""
        few, many = median(self.few) * 1e6, median(self.many) * 1e6
        met = "" if self.name.endswith(ANY) else "yes" if self.ratio <= MOST else "NO"
        return f"{self.name:<12} {few:>9,.0f} µs {many:>9,.0f} µs {self.ratio:>6.2f} x  {met}"


class Side:
    """One schema, and calls on it."""

    def __init__(self, url: str, schema: str, count: int, sizes: Sizes) -> None:
        self.url = f"{url}?schema={schema}&timeout=3600"
        self._schema = schema
        self._count = count
        self._sizes = sizes
        self._random = random.Random(schema)  # noqa: S311 - the same choice in every run
        self._used = [self._any() for _ in range(IN_USE)]
        self._clock = FakeClock(START)
        self.manager = SessionManager.open(self.url, app=APP, clock=self._clock)

    async def fill(self, db: Any, tell: Callable[[str], None]) -> None:
        """Fill the schema, which has been made."""
        sizes = self._sizes
        names = {
            "s": f'"{self._schema}"',
            "app": APP,
            "of_a_user": OF_A_USER,
            "events": sizes.events,
            "start": int(START.timestamp()) * 1_000_000,
            "later": LATER,
            "due": sizes.due * sizes.rounds,
            "each": sizes.due,
        }
        await db.execute(_DIGEST.format(**names))
        indexes = await db.fetch(_INDEXES, self._schema)
        for name, _ in indexes:
            await db.execute(f'DROP INDEX "{self._schema}"."{name}"')
        for first in range(0, self._count, AT_ONCE):
            last = min(first + AT_ONCE, self._count) - 1
            await db.execute(_SESSIONS.format(**names), first, last)
            tell(f"{self._schema}: {last + 1:,} of {self._count:,} sessions")
        for name, statement in indexes:
            tell(f"{self._schema}: {name}")
            await db.execute(statement)
        await db.execute(_COUNTS.format(**names))
        tell(f"{self._schema}: vacuum")
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = $1"
        for (table,) in await db.fetch(tables, self._schema):
            await db.execute(f'VACUUM (ANALYZE, FREEZE) "{self._schema}"."{table}"')

    # --- the calls -----------------------------------------------------------------------------

    def _any(self) -> str:
        """Return the id of any session that is not to be swept."""
        number = self._random.randrange(self._sizes.due * self._sizes.rounds, self._count)
        return md5(f"s{number}".encode(), usedforsecurity=False).hexdigest()

    def _user(self) -> str:
        """Return any user of whose sessions none are to be swept."""
        first = self._sizes.due * self._sizes.rounds // OF_A_USER + 1
        return f"u-{self._random.randrange(first, self._count // OF_A_USER)}"

    def _in_use(self) -> str:
        """Return the id of any session that is in use."""
        return self._random.choice(self._used)

    async def use(self) -> None:
        """Use those that are to be in use."""
        for id in self._used:
            await self.get(id)
            await self.append(id)

    async def create(self) -> None:
        """Make a session of any user."""
        user = self._user()
        state = {"turn": 1, "title": "x" * 100}
        await self.manager.create(
            user=user, state=state, labels={"kind": "1"}, expiry=Expiry(absolute=LATER)
        )

    async def get(self, id: str) -> None:
        """Load a session with its last events."""
        found = await self.manager.require(id, events=20)
        assert len(found.events) >= self._sizes.events

    async def append(self, id: str) -> None:
        """Add an event, and change the state."""
        event = Event(kind="message", author="user", body={"role": "user", "text": "x" * 200})
        await self.manager.append(id, event, state={"turn": 2})

    async def first_page(self) -> None:
        """List a user's sessions."""
        user = self._user()
        assert (await self.manager.list(user=user, limit=20)).items

    async def first_page_of_all(self) -> None:
        """List everybody's sessions."""
        assert len((await self.manager.list(limit=20)).items) == 20  # noqa: PLR2004 - asked for

    async def count(self) -> None:
        """Count the sessions of the app."""
        assert await self.manager.count() >= self._count // 2

    async def sweep(self) -> None:
        """Sweep one batch."""
        assert len(await self.manager.ending.reap(BATCH)) == BATCH

    async def round(self, number: int) -> dict[str, float]:
        """Return the middle of the seconds that each kind of call takes."""
        self._clock.advance(60 if number == 0 else 1)
        calls, sweeps = self._sizes.calls, self._sizes.sweeps
        found = {
            name: await middle(call, calls)
            for name, call in (
                ("create", self.create),
                ("get", lambda: self.get(self._in_use())),
                ("append", lambda: self.append(self._in_use())),
                (f"get{ANY}", lambda: self.get(self._any())),
                (f"append{ANY}", lambda: self.append(self._any())),
                ("page of user", self.first_page),
                ("page of all", self.first_page_of_all),
                ("count", self.count),
            )
        }
        return {**found, "sweep batch": await middle(self.sweep, sweeps)}


async def middle(call: Callable[[], Awaitable[None]], times: int) -> float:
    """Return the middle of the seconds that a call takes."""
    taken = []
    for _ in range(times):
        start = perf_counter()
        await call()
        taken.append(perf_counter() - start)
    return median(taken)


async def measure(
    server: PostgresServer, sizes: Sizes, tell: Callable[[str], None]
) -> list[Figure]:
    """Fill both sides and compare their calls, in turns."""
    few = Side(server.url(), "few", sizes.few, sizes)
    many = Side(server.url(), "many", sizes.many, sizes)
    async with few.manager, many.manager:
        db = await asyncpg.connect(server.url())
        await db.execute("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'")
        for side in (few, many):
            await side.fill(db, tell)
        wrong = await few.manager.store.check()  # type: ignore[attr-defined]  # it can
        assert wrong == [], wrong
        await db.execute("CHECKPOINT")
        size = await db.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))")
        await db.close()
        tell(f"filled: {size}")
        for side in (few, many):
            await side.use()
        figures: dict[str, Figure] = {}
        for number in range(-1, sizes.rounds - 1):  # the first one warms up
            tell(f"round {number + 2} of {sizes.rounds}")
            order = (few, many) if number % 2 else (many, few)
            found = {side: await side.round(number + 1) for side in order}
            for name in found[few]:
                figure = figures.setdefault(name, Figure(name, [], []))
                if number >= 0 or sizes.rounds == 1:
                    figure.few.append(found[few][name])
                    figure.many.append(found[many][name])
        return list(figures.values())


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Fill, measure, print a table, and write build/figures/scale.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether it runs")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="for figures")
    parser.add_argument("--data", type=Path, help="where the server keeps its data meanwhile")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    started = monotonic()

    def tell(what: str) -> None:
        print(f"[{monotonic() - started:.0f} s] {what}", file=sys.stderr, flush=True)

    server = PostgresServer(settings=SETTINGS, programs=folder_of_programs(), inside=options.data)
    try:
        server.start()
        figures = asyncio.run(measure(server, sizes, tell))
    finally:
        server.stop()
    print(f"{'':<12} {sizes.few:>12,} {sizes.many:>12,}  at most {MOST} x")
    for figure in figures:
        print(figure.line())
    target = options.folder / "figures" / "scale.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = {**report.surroundings(sizes), "figures": [asdict(figure) for figure in figures]}
    target.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2))
    return figures


if __name__ == "__main__":
    main()

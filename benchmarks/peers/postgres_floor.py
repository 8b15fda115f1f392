"""The raw floor on a server: the least rows that hold the same data, in one prepared statement.

Nobody else is expected to write; the session's revision is compared all the same.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from benchmarks.peers import material
from benchmarks.peers.timing import at_once, awaited_in_turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.sample import Sample

_SCHEMA = """
CREATE TABLE sessions(id bigint PRIMARY KEY, revision bigint NOT NULL, user_id text, state text)
    WITH (fillfactor = 70);
CREATE TABLE users(id text PRIMARY KEY, state text) WITH (fillfactor = 70);
CREATE TABLE events(session bigint, seq bigint, body text, PRIMARY KEY(session, seq));
CREATE TABLE checkpoints(session bigint, seq bigint, parent bigint, metadata text, body bytea,
    PRIMARY KEY(session, seq));
"""
_APPEND = """
WITH moved AS (UPDATE sessions SET revision = revision + 1, state = $3
        WHERE id = $1 AND revision = $2 RETURNING id),
    shared AS (INSERT INTO users SELECT $4, $5 FROM moved
        ON CONFLICT (id) DO UPDATE SET state = excluded.state)
INSERT INTO events SELECT id, $2, $6 FROM moved RETURNING seq"""
_APPEND_ALL = """
WITH given AS MATERIALIZED (
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
            $6::text[]) AS g(id, revision, state, owner, shared, body)),
    moved AS (UPDATE sessions AS s SET revision = s.revision + 1, state = g.state FROM given AS g
        WHERE s.id = g.id AND s.revision = g.revision RETURNING s.id, g.revision, g.owner,
            g.shared, g.body),
    shared AS (INSERT INTO users SELECT owner, shared FROM moved
        ON CONFLICT (id) DO UPDATE SET state = excluded.state)
INSERT INTO events SELECT id, revision, body FROM moved RETURNING session"""
_LOAD = """
SELECT s.state, u.state, ARRAY(SELECT e.body FROM events AS e WHERE e.session = s.id
    ORDER BY e.seq DESC LIMIT $2) FROM sessions AS s JOIN users AS u ON u.id = s.user_id
WHERE s.id = $1"""
_CHECKPOINT = "INSERT INTO checkpoints VALUES ($1, $2, $3, $4, $5)"
_LATEST = "SELECT body, metadata FROM checkpoints WHERE session = $1 ORDER BY seq DESC LIMIT 1"

_json = msgspec.json.Encoder().encode
_value = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

Row = tuple[int, int, str, str, str, str]


@asynccontextmanager
async def _opened(path: str, sessions: int) -> AsyncIterator[Any]:
    """Yield a connection to an empty database with so many sessions."""
    db = await asyncpg.connect(path)
    try:
        await db.execute(_SCHEMA)
        rows = [(number, 1, f"user-{number}", _state(0)) for number in range(sessions)]
        await db.executemany("INSERT INTO sessions VALUES ($1, $2, $3, $4)", rows)
        yield db
    finally:
        await db.close()


def _text(value: object) -> str:
    return _json(value).decode()


def _state(number: int) -> str:
    return _text({**material.STATE, "turn": number})


def _row(session: int, number: int) -> Row:
    """Return what an append is made of: its session and revision, states, and the event."""
    body = {"role": "user", "text": material.text(number), **material.change(number)}
    last = _text({"last": number})
    return session, number + 1, _state(number), f"user-{session}", last, _text(body)


async def append(path: str, *, count: int, warm: int) -> Sample:
    """Append to one session, a statement each."""
    async with _opened(path, 1) as db:
        statement = await db.prepare(_APPEND)

        async def step(number: int) -> None:
            assert await statement.fetchval(*_row(0, number)) == number + 1

        measured = await awaited_in_turn(step, count=count, warm=warm)
        assert await db.fetchval("SELECT count(*) FROM events") == count + warm
        return measured


async def callers(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append from many callers at once; what waits when a call is done is the next one."""
    async with _opened(path, callers) as db:
        group = _Group(db)

        async def step(caller: int, number: int) -> None:
            await group.append(_row(caller, number))

        measured = await at_once(step, callers=callers, each=each, warm=warm)
        assert await db.fetchval("SELECT count(*) FROM events") == callers * (each + warm)
        return measured


class _Group:
    """Rows that wait, and the call that is under way."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def append(self, row: Row) -> None:
        """Return once a row is written."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((row, future))
        if self._task is None:
            self._task = loop.create_task(self._write())
        await future

    async def _write(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            await _append_all(self._db, [row for row, _ in waiting])
            for _, future in waiting:
                future.set_result(None)
            await asyncio.sleep(0)  # whoever was woken comes along
        self._task = None


async def bare(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append to many sessions, a call for each round of them; nobody waits."""
    async with _opened(path, callers) as db:

        async def step(number: int) -> None:
            await _append_all(db, [_row(caller, number) for caller in range(callers)])

        measured = await awaited_in_turn(step, count=each, warm=warm)
        return {**measured, "operations": callers * each}


async def _append_all(db: Any, rows: list[Row]) -> None:
    written = await db.fetch(_APPEND_ALL, *map(list, zip(*rows, strict=True)))
    assert len(written) == len(rows)


async def tail(path: str, *, events: int, window: int, count: int, warm: int) -> Sample:
    """Read and decode a session with the last events of its log."""
    async with _opened(path, 1) as db:
        rows = [_row(0, number) for number in range(events)]
        logged = [(session, revision, body) for session, revision, *_, body in rows]
        await db.copy_records_to_table("events", records=logged)
        await db.execute("INSERT INTO users VALUES ('user-0', '{}')")
        await db.execute("VACUUM ANALYZE")
        statement = await db.prepare(_LOAD)

        async def step(_number: int) -> None:
            state, shared, bodies = await statement.fetchrow(0, window)
            found = [_value(body) for body in bodies]
            assert {**_value(state), **_value(shared)}["turn"] == 0
            assert len(found) == window
            assert found[0]["turn"] == events - 1

        return await awaited_in_turn(step, count=count, warm=warm)


async def checkpoints(path: str, *, count: int, warm: int) -> Sample:
    """Insert a blob with its parent and metadata, then read and decode the latest."""
    wanted = [material.checkpoint(number) for number in range(warm + count)]
    async with _opened(path, 1) as db:

        async def step(number: int) -> None:
            facts = _text(material.METADATA)
            await db.execute(_CHECKPOINT, 0, number + 1, number, facts, _pack(wanted[number]))
            body, metadata = await db.fetchrow(_LATEST, 0)
            assert _value(metadata) == material.METADATA
            assert _unpack(body) == wanted[number]

        return await awaited_in_turn(step, count=count, warm=warm)

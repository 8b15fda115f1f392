"""The floor: the rows that the core writes, by plain prepared statements, no questions asked.

Same schema, same pragmas, same values; no checks, no diff, no JSON, no threads, no event loop.
"""

from __future__ import annotations

import asyncio
import queue
import struct
import threading
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.files import APP, BODY, IDLE, START, TEXT, user_of
from benchmarks.sample import Sample, sample
from sojourn.limits import MAX_SEQ, OPERATIONS_REMEMBERED
from sojourn.stores.sqlite import connection, writer
from sojourn.stores.sqlite.schema import SEQ_BITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import apsw

_UPDATE = """UPDATE sessions SET revision = ?, seq = ?, active_at = ?, expires_at = ?, due_at = ?,
    remembered = ?, peak = ?, state = ? WHERE row = ?"""
_INSERT = """INSERT INTO events(key, id, kind, author, at, body, changes, deleted, peak)
    VALUES (?, ?, 'message', 'user', ?, ?, ?, NULL, ?)"""
_TIER = """INSERT INTO tiers(app, owner, name, value) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value"""

_encode = msgspec.json.Encoder().encode
_OPERATION = struct.Struct(">8sQI")


def open_floor(path: str, checkpoint: int = writer.CHECKPOINT_PAGES) -> apsw.Connection:
    """Open a file as the store's writer does, and let it checkpoint after so many pages."""
    db = connection.connect(path, vfs=None, writer=True)
    connection.make_durable(db)
    db.execute(f"PRAGMA wal_autocheckpoint={checkpoint}").fetchall()
    return db


class Rows:
    """The rows of one append after the other, to so many sessions in turn."""

    def __init__(self, sessions: int, tiers: str) -> None:
        """`tiers` is "session+user" or "user+app"."""
        self._remembered = [b""] * (sessions + 1)
        self._sessions = sessions
        self._tiers = tiers
        self._made = 0

    def next(self) -> tuple[tuple[Any, ...], tuple[Any, ...], list[tuple[Any, ...]]]:
        """Return the values of the session's row, the event's row and the tiers' rows."""
        row = self._made % self._sessions + 1
        seq = self._made // self._sessions + 1
        self._made += 1
        at = START + self._made
        kept = self._remembered[row] + _OPERATION.pack(b"operatio", seq, seq)
        self._remembered[row] = kept = kept[-OPERATIONS_REMEMBERED * _OPERATION.size :]
        own = self._tiers == "session+user"
        state = _state(seq if own else 0)
        session = (seq + 1, seq, at, at + IDLE, at + IDLE, kept, at, state, row)
        changes = f'{{"turn":{seq},"user:last":{seq}}}' if own else _shared(seq)
        event = (row << SEQ_BITS | seq, f"{self._made:032x}", at, BODY, changes, at)
        tiers = [(APP, user_of(row, self._sessions), "last", str(seq))]
        if not own:
            tiers.append((APP, "", "last", str(seq)))
        return session, event, tiers


def _state(turn: int) -> str:
    return (
        f'{{"turn":{turn},"title":"a conversation about nothing much","model":"small","open":true}}'
    )


def _shared(seq: int) -> str:
    return f'{{"user:last":{seq},"app:last":{seq}}}'


def append_one(path: str, *, count: int, warm: int, tiers: str) -> Sample:
    """Append to one session, one transaction for each."""
    db = open_floor(path, writer.IDLE_CHECKPOINT_PAGES)
    rows = Rows(1, tiers)

    def run(times: int) -> None:
        for _ in range(times):
            session, event, shared = rows.next()
            db.execute("BEGIN IMMEDIATE")
            db.execute(_UPDATE, session)
            db.execute(_INSERT, event)
            for tier in shared:
                db.execute(_TIER, tier)
            db.execute("COMMIT")

    return _timed(db, run, count, warm)


def append_many(path: str, *, callers: int, count: int, warm: int, tiers: str) -> Sample:
    """Append to as many sessions as there are callers, one transaction for a round of them."""
    db = open_floor(path)
    rows = Rows(callers, tiers)

    def run(times: int) -> None:
        for _ in range(times // callers):
            _write_group(db, [rows.next() for _ in range(callers)])

    return _timed(db, run, count, warm)


def sweep(path: str, *, batch: int, now: int) -> Sample:
    """Remove every session that is due with its events, in batches."""
    db = open_floor(path)
    db.execute("PRAGMA synchronous=NORMAL")
    cpu, start = process_time(), perf_counter()
    removed = 0
    while found := db.execute(
        "SELECT row, seq FROM sessions WHERE app = ? AND wake_at <= ? ORDER BY wake_at LIMIT ?",
        (APP, now, batch),
    ).fetchall():
        db.execute("BEGIN IMMEDIATE")
        db.executemany("DELETE FROM events WHERE key BETWEEN ? AND ?", _logs(found))
        db.executemany("DELETE FROM sessions WHERE row = ?", [(row,) for row, _ in found])
        db.execute("COMMIT")
        removed += len(found)
    result = sample(start, cpu, removed)
    db.close()
    return result


def _logs(found: list[tuple[Any, ...]]) -> Iterator[tuple[int, int]]:
    return ((row << SEQ_BITS, row << SEQ_BITS | MAX_SEQ) for row, seq in found if seq)


def _timed(db: apsw.Connection, run: Any, count: int, warm: int) -> Sample:
    run(warm)
    cpu, start = process_time(), perf_counter()
    run(count)
    result = sample(start, cpu, count)
    db.close()
    return result


async def append_crowd(path: str, *, callers: int, count: int, warm: int, tiers: str) -> Sample:
    """Append from as many tasks as there are sessions, committed in groups by one thread."""
    db = open_floor(path)
    rows = Rows(callers, tiers)
    groups = Groups(db)

    async def caller(times: int) -> None:
        for _ in range(times):
            session, event, shared = rows.next()
            body = _encode({"role": "user", "text": TEXT}).decode()
            await groups.write((session, (*event[:3], body, *event[4:]), shared))

    async def all_of(times: int) -> None:
        await asyncio.gather(*(caller(times // callers) for _ in range(callers)))

    await all_of(warm)
    cpu, start = process_time(), perf_counter()
    await all_of(count)
    result = sample(start, cpu, count)
    groups.stop()
    db.close()
    return result


class Groups:
    """One thread that writes what came meanwhile in one transaction: the least that can be done."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[asyncio.Future[None], Any]] = []
        self._writing = False
        self._groups: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self, row: Any) -> asyncio.Future[None]:
        """Return a future that is done once the row is on disk."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((future, row))
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._depart)
        return future

    def stop(self) -> None:
        """Let the thread end."""
        self._groups.put(None)
        self._thread.join()

    def _depart(self) -> None:
        group, self._waiting = self._waiting, []
        self._writing = bool(group)
        if group:
            self._groups.put(group)

    def _arrive(self, group: list[tuple[asyncio.Future[None], Any]]) -> None:
        for future, _ in group:
            future.set_result(None)
        self._loop.call_soon(self._depart)

    def _run(self) -> None:
        while group := self._groups.get():
            _write_group(self._db, [row for _, row in group])
            self._loop.call_soon_threadsafe(self._arrive, group)


def _write_group(db: apsw.Connection, rows: list[Any]) -> None:
    sessions, events, shared = zip(*rows, strict=True)
    db.execute("BEGIN IMMEDIATE")
    db.executemany(_UPDATE, sessions)
    db.executemany(_INSERT, events)
    # What a batch writes to a shared key is one row, not one for each of its callers.
    db.executemany(_TIER, {tier[:3]: tier for group in shared for tier in group}.values())
    db.execute("COMMIT")

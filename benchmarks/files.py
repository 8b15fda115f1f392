"""SQLite files of any size, written in bulk with the store's own schema."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import apsw

from sojourn.stores.sqlite import schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = "bench"
START = 1_767_225_600_000_000
"""2026-01-01T00:00Z in microseconds: when every session in a file was made."""

IDLE = 1_800_000_000
"""Idle time of every session: half an hour."""

STATE = '{"turn":0,"title":"a conversation about nothing much","model":"small","open":true}'
TEXT = "x" * 1_000
BODY = f'{{"role":"user","text":"{TEXT}"}}'
"""The body of an event: about 1 KB of JSON."""

CHUNK = 10_000


@dataclass(frozen=True)
class Contents:
    """What a file holds: so many sessions, shared out over users, with so many events each."""

    sessions: int
    users: int
    events: int = 0

    @property
    def name(self) -> str:
        """A file name that differs when the contents or the schema do."""
        facts = "-".join(str(value) for value in asdict(self).values())
        return f"v{len(schema.MIGRATIONS)}-{facts}.db"


def session_id(number: int) -> str:
    """Return the id of a session in a file, numbers from 1."""
    return f"{number:032x}"


def user_of(number: int, users: int) -> str:
    """Return the user of a session in a file."""
    return f"user-{number % users}"


def build(path: Path, contents: Contents) -> None:
    """Write a file; sessions were last used in the order of their numbers, a millisecond apart."""
    path.unlink(missing_ok=True)
    db = apsw.Connection(str(path))
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("BEGIN")
    schema.migrate(db, str(path))
    for first in range(1, contents.sessions + 1, CHUNK):
        numbers = range(first, min(first + CHUNK, contents.sessions + 1))
        db.executemany(_INSERT_SESSION, _sessions(numbers, contents))
        db.executemany(_INSERT_EVENT, _events(numbers, contents))
    db.execute(_COUNT)
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode=WAL").fetchall()
    db.close()


def cached(folder: Path, contents: Contents) -> Path:
    """Return a file with these contents, built on first use. It is only for reading."""
    path = folder / contents.name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        build(unfinished, contents)
        unfinished.rename(path)
    return path


_INSERT_SESSION = """INSERT INTO sessions(row, app, id, user, epoch, lifecycle, phase, revision,
    seq, created_at, active_at, idle, expires_at, due_at, wake_at, attempts, fence, leased_until,
    remembered, peak, state)
    VALUES (?, ?, ?, ?, ?, 'open', 'OPEN', 1, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, x'', ?, ?)"""
_COUNT = """INSERT INTO counts
    SELECT app, 'all', phase, count(*) FROM sessions GROUP BY app, phase UNION ALL
    SELECT app, 'user ' || user, phase, count(*) FROM sessions GROUP BY app, user, phase"""
_INSERT_EVENT = """INSERT INTO events(key, at, peak, id, kind, author, body)
    VALUES (?, ?, ?, ?, 'message', 'user', ?)"""


def _sessions(numbers: range, contents: Contents) -> Iterator[tuple[object, ...]]:
    for number in numbers:
        active = START + number * 1_000
        due = active + IDLE
        yield (
            number,
            APP,
            session_id(number),
            user_of(number, contents.users),
            f"{number:016x}",
            contents.events,
            START,
            active,
            IDLE,
            due,
            due,
            due,
            START if contents.events else 0,
            STATE,
        )


def _events(numbers: range, contents: Contents) -> Iterator[tuple[object, ...]]:
    for number in numbers:
        for seq in range(1, contents.events + 1):
            key = number << schema.SEQ_BITS | seq
            yield key, START, START, f"{key:032x}", BODY

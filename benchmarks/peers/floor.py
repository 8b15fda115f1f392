"""The raw floor: the least rows that hold the same data, by plain statements or in plain dicts.

Nothing is checked, nobody else is expected to write, and there is no event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from benchmarks.peers import material
from benchmarks.peers.timing import in_turn

if TYPE_CHECKING:
    from benchmarks.sample import Sample

_SCHEMA = """
CREATE TABLE sessions(id INTEGER PRIMARY KEY, user TEXT, state TEXT) STRICT;
CREATE TABLE users(id TEXT PRIMARY KEY, state TEXT) STRICT, WITHOUT ROWID;
CREATE TABLE events(session INTEGER, seq INTEGER, body TEXT, PRIMARY KEY(session, seq))
    STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints(session INTEGER, seq INTEGER, parent INTEGER, metadata TEXT, body BLOB,
    PRIMARY KEY(session, seq)) STRICT;
"""
_STATE = "UPDATE sessions SET state = ? WHERE id = ?"
_USER = "INSERT INTO users VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state"
_EVENT = "INSERT INTO events VALUES (?, ?, ?)"
_LAST = "SELECT body FROM events WHERE session = ? ORDER BY seq DESC LIMIT ?"
_CHECKPOINT = "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)"
_LATEST = "SELECT body, metadata FROM checkpoints WHERE session = ? ORDER BY seq DESC LIMIT 1"

_json = msgspec.json.Encoder().encode
_value = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def opened(path: str) -> apsw.Connection:
    """Return an empty file in WAL mode that is synced at every commit."""
    db = apsw.Connection(path, statementcachesize=64)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute(_SCHEMA)
    return db


def reopened(path: str) -> apsw.Connection:
    """Return a second connection to such a file, to read with."""
    return apsw.Connection(path, statementcachesize=64)


def _text(value: object) -> str:
    return _json(value).decode()


def _event(number: int) -> str:
    return _text({"role": "user", "text": material.text(number), **material.change(number)})


def _state(number: int) -> str:
    return _text({**material.STATE, "turn": number})


def make(db: apsw.Connection, sessions: int) -> None:
    """Make so many sessions."""
    rows = [(number, f"user-{number}", _state(0)) for number in range(sessions)]
    db.executemany("INSERT INTO sessions VALUES (?, ?, ?)", rows)


def _commit(db: apsw.Connection, *statements: tuple[str, list[tuple[Any, ...]]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement, rows in statements:
        db.executemany(statement, rows)
    db.execute("COMMIT")


def append_to(db: apsw.Connection, sessions: range, number: int) -> None:
    """Append an event to each of the sessions, with changes of state, in one transaction."""
    last = _text({"last": number})
    _commit(
        db,
        (_STATE, [(_state(number), session) for session in sessions]),
        (_USER, [(f"user-{session}", last) for session in sessions]),
        (_EVENT, [(session, number + 1, _event(number)) for session in sessions]),
    )


def append(path: str, *, count: int, warm: int) -> Sample:
    """Append to one session, a transaction each."""
    db = opened(path)
    make(db, 1)
    measured = in_turn(lambda number: append_to(db, range(1), number), count=count, warm=warm)
    assert db.execute("SELECT count(*) FROM events").get == count + warm
    return measured


def callers(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append to many sessions, a transaction for each round of them."""
    db = opened(path)
    make(db, callers)
    sessions = range(callers)
    measured = in_turn(lambda number: append_to(db, sessions, number), count=each, warm=warm)
    assert db.execute("SELECT count(*) FROM events").get == callers * (each + warm)
    # Everybody in a transaction waits for all of it, as with Sojourn; the count is of appends.
    return {**measured, "operations": callers * each}


def tail(path: str, *, events: int, window: int, count: int, warm: int) -> Sample:
    """Read and decode the last events of a log."""
    db = opened(path)
    make(db, 1)
    _commit(db, (_EVENT, [(0, number + 1, _event(number)) for number in range(events)]))

    def step(_number: int) -> None:
        found = [_value(body) for (body,) in db.execute(_LAST, (0, window))]
        assert len(found) == window
        assert found[0]["turn"] == events - 1

    return in_turn(step, count=count, warm=warm)


def memory(*, events: int, sessions: int, each: int) -> Sample:
    """Append encoded events to lists, and change dicts."""
    logs = [[_event(number) for number in range(events)] for _ in range(sessions + 1)]
    states = [dict(material.STATE) for _ in logs]
    users: list[dict[str, Any]] = [{} for _ in logs]

    def step(number: int) -> None:
        which = number // each
        logs[which].append(_event(number))
        states[which]["turn"] = number
        users[which]["last"] = number

    measured = in_turn(step, count=each * sessions, warm=each)
    assert [len(log) for log in logs] == [events + each] * (sessions + 1)
    return measured


def chat(path: str, *, window: int, count: int, warm: int) -> Sample:
    """Insert two messages in a transaction, then read and decode the last ones."""
    db = opened(path)
    return in_turn(lambda number: _chat(db, 0, number, window), count=count, warm=warm)


def chats(path: str, *, callers: int, window: int, each: int, warm: int) -> Sample:
    """Do so in many chats in turn; all insert in one transaction, then each reads."""
    db = opened(path)

    def step(number: int) -> None:
        bodies = [_text(message) for message in material.turn(number)]
        rows = [
            (session, 2 * number + place, body)
            for session in range(callers)
            for place, body in enumerate(bodies, 1)
        ]
        _commit(db, (_EVENT, rows))
        for session in range(callers):
            load_chat(db, session, number, window)

    measured = in_turn(step, count=each, warm=warm)
    return {**measured, "operations": callers * each}


def _chat(db: apsw.Connection, session: int, number: int, window: int) -> None:
    add_turn(db, session, number)
    load_chat(db, session, number, window)


def add_turn(db: apsw.Connection, session: int, number: int) -> None:
    """Insert two messages in a transaction."""
    bodies = [_text(message) for message in material.turn(number)]
    rows = [(session, 2 * number + place, body) for place, body in enumerate(bodies, 1)]
    _commit(db, (_EVENT, rows))


def load_chat(db: apsw.Connection, session: int, number: int, window: int) -> None:
    """Read and decode the last messages."""
    found = [_value(body) for (body,) in db.execute(_LAST, (session, window))]
    assert len(found) == min(window, 2 * number + 2)
    assert found[0] == material.turn(number)[1]


def checkpoints(path: str, *, count: int, warm: int) -> Sample:
    """Insert a blob with its parent and metadata, then read and decode the latest."""
    db = opened(path)
    wanted = wanted_checkpoints(warm + count)

    def step(number: int) -> None:
        save_checkpoint(db, number, wanted[number])
        load_checkpoint(db, wanted[number])

    return in_turn(step, count=count, warm=warm)


def wanted_checkpoints(count: int) -> list[dict[str, Any]]:
    """Return so many values to save."""
    return [material.checkpoint(number) for number in range(count)]


def save_checkpoint(db: apsw.Connection, number: int, value: dict[str, Any]) -> None:
    """Insert a blob with its parent and metadata."""
    row = (0, number + 1, number, _text(material.METADATA), _pack(value))
    db.execute(_CHECKPOINT, row)


def load_checkpoint(db: apsw.Connection, wanted: dict[str, Any]) -> None:
    """Read and decode the latest one, which has to be this."""
    found: list[Any] = db.execute(_LATEST, (0,)).fetchall()
    body, metadata = found[0]
    assert _value(metadata) == material.METADATA
    assert _unpack(body) == wanted


def checkpoints_in_memory(*, count: int, warm: int) -> Sample:
    """Keep blobs in a list."""
    kept: list[tuple[int, str, bytes]] = []
    wanted = [material.checkpoint(number) for number in range(warm + count)]

    def step(number: int) -> None:
        kept.append((number, _text(material.METADATA), _pack(wanted[number])))
        _, metadata, body = kept[-1]
        assert _value(metadata) == material.METADATA
        assert _unpack(body) == wanted[number]

    return in_turn(step, count=count, warm=warm)

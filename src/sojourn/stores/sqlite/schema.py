"""The schema of the SQLite file, its versions, and how an older file becomes a newer one in place.

State and events are JSON text, so the `sqlite3` shell shows them; `session_overview` and
`event_overview` show times as dates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import Corrupt, ForeignFile, NewerSchema
from sojourn.limits import MAX_SEQ

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

APPLICATION_ID = 0x534A524E
"""'SJRN': marks a file as Sojourn's (SQLite's `application_id`, offset 68 of the header)."""

SEQ_BITS = MAX_SEQ.bit_length()
"""Low bits of an event's row id that hold its `seq`; the session's row number is above them.

One integer key keeps a session's events side by side, and 1 KB bodies do not overflow the page as
they would in a table without row ids.
"""

_FIRST = f"""
CREATE TABLE sessions(
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    app TEXT NOT NULL, id TEXT NOT NULL, user TEXT, epoch TEXT NOT NULL,
    lifecycle TEXT NOT NULL, phase TEXT NOT NULL, reason TEXT,
    revision INTEGER NOT NULL, seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL, active_at INTEGER NOT NULL,
    idle INTEGER, absolute_at INTEGER, expires_at INTEGER, due_at INTEGER, wake_at INTEGER,
    retain INTEGER, attempts INTEGER NOT NULL, parent TEXT, parent_row INTEGER, forked_from TEXT,
    labels TEXT, exclusive TEXT,
    fence INTEGER NOT NULL, holder TEXT, leased_until INTEGER NOT NULL,
    remembered BLOB NOT NULL, peak INTEGER NOT NULL, state TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX session_by_id ON sessions(app, id);
CREATE INDEX session_by_activity ON sessions(app, phase, active_at);
CREATE INDEX session_by_creation ON sessions(app, phase);
CREATE INDEX session_of_user_by_activity ON sessions(app, user, phase, active_at);
CREATE INDEX session_of_user_by_creation ON sessions(app, user, phase);
CREATE INDEX session_by_wake ON sessions(app, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX session_by_parent ON sessions(parent_row) WHERE parent_row IS NOT NULL;
CREATE TABLE events(
    key INTEGER PRIMARY KEY,
    at INTEGER NOT NULL, peak INTEGER NOT NULL,
    id TEXT NOT NULL, kind TEXT NOT NULL, author TEXT,
    changes TEXT, deleted TEXT, body TEXT NOT NULL,
    session INTEGER AS (key >> {SEQ_BITS}) VIRTUAL,
    seq INTEGER AS (key & {MAX_SEQ}) VIRTUAL
) STRICT;
CREATE INDEX event_by_id ON events(session, id);
CREATE INDEX event_by_kind ON events(session, kind, seq);
CREATE TABLE tiers(
    app TEXT NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY(app, owner, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE labels(
    app TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    session INTEGER NOT NULL, active_at INTEGER NOT NULL,
    PRIMARY KEY(app, name, value, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_by_activity ON labels(app, name, value, active_at);
CREATE INDEX label_by_session ON labels(session);
CREATE TABLE claims(
    app TEXT NOT NULL, claim TEXT NOT NULL, session INTEGER NOT NULL,
    PRIMARY KEY(app, claim)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_by_session ON claims(session);
CREATE TABLE counts(
    app TEXT NOT NULL, facet TEXT NOT NULL, phase TEXT NOT NULL, sessions INTEGER NOT NULL,
    PRIMARY KEY(app, facet, phase)
) STRICT, WITHOUT ROWID;
CREATE TABLE documents(
    row INTEGER PRIMARY KEY,
    app TEXT NOT NULL, session INTEGER NOT NULL, collection TEXT NOT NULL, key TEXT NOT NULL,
    content_type TEXT NOT NULL, size INTEGER NOT NULL, seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, expires_at INTEGER,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX document_by_key ON documents(session, app, collection, key);
CREATE INDEX document_by_expiry ON documents(app, expires_at) WHERE expires_at IS NOT NULL;
CREATE VIEW session_overview AS
SELECT app, id, user, phase, revision, seq AS last_seq,
    datetime(created_at / 1000000, 'unixepoch') AS created,
    datetime(active_at / 1000000, 'unixepoch') AS active,
    datetime(expires_at / 1000000, 'unixepoch') AS expires, labels, state
FROM sessions;
CREATE VIEW event_overview AS
SELECT s.app, s.id AS session, e.seq, e.kind, e.author,
    datetime(e.at / 1000000, 'unixepoch') AS at, e.changes, e.deleted, e.body
FROM events AS e JOIN sessions AS s ON s.row = e.session;
"""

_SECOND = """
DROP INDEX document_by_key;
CREATE UNIQUE INDEX document_by_key ON documents(collection, session, app, key);
CREATE INDEX document_by_place ON documents(session, app, collection);
"""
"""Documents in the order in which they were put: by their row number, which every index ends with.

The index of keys starts with the collection, so that it can not serve a search by session alone: a
fork copies what such a search finds, and has to find it in that order.
"""

MIGRATIONS: Sequence[str] = (_FIRST, _SECOND)
"""Scripts in order: number n turns a file of version n into one of version n + 1."""


def migrate(db: apsw.Connection, name: str, migrations: Sequence[str] = MIGRATIONS) -> int:
    """Bring the file to the newest version and return how many steps that took.

    Call it inside one write transaction: a crash leaves the old version whole. Raises `ForeignFile`
    for a file that is not Sojourn's, `NewerSchema` for one of a later version; neither is changed.
    """
    version = check_version(db, name, migrations)
    for number in range(version, len(migrations)):
        db.execute(migrations[number])
    if version < len(migrations):
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(migrations)}")
    return len(migrations) - version


def check_version(db: apsw.Connection, name: str, migrations: Sequence[str] = MIGRATIONS) -> int:
    """Return the file's version, 0 for an empty one. Raises as `migrate` does."""
    application = db.pragma("application_id")
    version = db.pragma("user_version")
    if application != APPLICATION_ID:
        if application or version or db.execute("SELECT count(*) FROM sqlite_schema").get:
            raise ForeignFile(name, "the file is a SQLite database, but not one of Sojourn's")
        return 0
    if version < 1:
        raise Corrupt(name, f"the file has version {version}, which no Sojourn wrote")
    if version > len(migrations):
        raise NewerSchema(
            name,
            f"the file has version {version}, this Sojourn knows up to {len(migrations)}; "
            "upgrade Sojourn to open it",
        )
    return int(version)

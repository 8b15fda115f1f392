"""The tables of the first version of the schema, and their indexes.

State and events are JSON text, not `jsonb`, so that values come back exactly: `jsonb` normalises
numbers and can not hold an escaped NUL. `session_overview` and `event_overview` show times as
dates. Names sort by code point (`COLLATE "C"`), whatever the database's locale.

A session's row is updated by every commit, and none of its indexed columns changes then: such an
update touches no index. What a commit does move in an index, the time of the last use, is in a
narrow table of its own (`activity`). Names can be too long for an index together, so labels,
claims, kept counts and keys of tiers are found by a digest. Users are indexed with anonymous ones
as '', which no user can be called: rows found by IS NULL do not come in the order of an index.

The indexes by id or key are made last. In an empty table all that begin with the same column cost
the same, and of those that are in no order that is asked for the server takes the newest one; it
keeps that plan until it learns what is in the table.
"""

from __future__ import annotations

TABLES = """
CREATE SEQUENCE {s}.row_numbers;
CREATE TABLE {s}.sessions(
    row bigint PRIMARY KEY,
    app text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, user_id text COLLATE "C",
    epoch text NOT NULL, lifecycle text NOT NULL, phase text COLLATE "C" NOT NULL, reason text,
    version bigint NOT NULL, revision bigint NOT NULL, seq bigint NOT NULL,
    created_at bigint NOT NULL, active_at bigint NOT NULL,
    idle bigint, absolute_at bigint, expires_at bigint, due_at bigint, wake_at bigint,
    retain bigint, attempts bigint NOT NULL,
    parent text, parent_row bigint, forked_from text, labels text, exclusive text,
    fence bigint NOT NULL, holder text, leased_until bigint NOT NULL,
    remembered bytea NOT NULL, peak bigint NOT NULL, state text NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX session_by_creation ON {s}.sessions(app, phase, row);
CREATE INDEX session_of_user ON {s}.sessions(app, coalesce(user_id, ''), phase, row);
CREATE INDEX session_by_wake ON {s}.sessions(app, wake_at, row) WHERE wake_at IS NOT NULL;
CREATE INDEX session_by_parent ON {s}.sessions(parent_row, row) WHERE parent_row IS NOT NULL;
CREATE UNIQUE INDEX session_by_id ON {s}.sessions(app, id);
CREATE TABLE {s}.activity(
    row bigint PRIMARY KEY,
    app text COLLATE "C" NOT NULL, user_id text COLLATE "C", phase text COLLATE "C" NOT NULL,
    active_at bigint NOT NULL
);
CREATE INDEX activity_by_time ON {s}.activity(app, phase, active_at, row);
CREATE INDEX activity_of_user
    ON {s}.activity(app, coalesce(user_id, ''), phase, active_at, row);
CREATE TABLE {s}.labels(
    row bigint NOT NULL, digest bytea NOT NULL,
    name text NOT NULL, value text NOT NULL, phase text COLLATE "C" NOT NULL,
    active_at bigint NOT NULL,
    PRIMARY KEY (row, digest)
);
CREATE INDEX label_by_activity ON {s}.labels(digest, phase, active_at, row);
CREATE INDEX label_by_creation ON {s}.labels(digest, phase, row);
CREATE TABLE {s}.events(
    session bigint NOT NULL, seq bigint NOT NULL,
    at bigint NOT NULL, peak bigint NOT NULL,
    id text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL, author text,
    changes text, deleted text, body text NOT NULL,
    PRIMARY KEY (session, seq)
);
CREATE INDEX event_by_kind ON {s}.events(session, kind, seq);
CREATE INDEX event_by_id ON {s}.events(session, id);
CREATE TABLE {s}.tiers(
    app text COLLATE "C" NOT NULL, owner text COLLATE "C" NOT NULL, digest bytea NOT NULL,
    name text NOT NULL, value text NOT NULL,
    PRIMARY KEY (app, owner, digest)
) WITH (fillfactor = 70);
CREATE TABLE {s}.claims(
    digest bytea PRIMARY KEY, row bigint NOT NULL, claim text NOT NULL
);
CREATE INDEX claim_by_session ON {s}.claims(row);
CREATE TABLE {s}.counts(
    digest bytea NOT NULL, phase text COLLATE "C" NOT NULL, slot smallint NOT NULL,
    app text COLLATE "C" NOT NULL, facet text NOT NULL, sessions bigint NOT NULL,
    PRIMARY KEY (digest, phase, slot)
) WITH (fillfactor = 50);
CREATE TABLE {s}.apps(app text COLLATE "C" PRIMARY KEY, row bigint NOT NULL UNIQUE);
CREATE TABLE {s}.documents(
    row bigint PRIMARY KEY,
    app text COLLATE "C" NOT NULL, session bigint NOT NULL,
    collection text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
    content_type text NOT NULL, size bigint NOT NULL, seq bigint NOT NULL,
    created_at bigint NOT NULL, updated_at bigint NOT NULL, expires_at bigint,
    body bytea NOT NULL
);
ALTER TABLE {s}.documents ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX document_by_place ON {s}.documents(session, collection, row);
CREATE UNIQUE INDEX document_by_key ON {s}.documents(session, collection, key);
CREATE INDEX document_by_expiry ON {s}.documents(app, expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE {s}.writers(
    writer bytea PRIMARY KEY, batch bigint NOT NULL, at timestamptz NOT NULL,
    moved integer[], rows bigint[]
) WITH (fillfactor = 20);
CREATE TABLE {s}.operations(
    op bytea PRIMARY KEY, at timestamptz NOT NULL, result text
);
CREATE INDEX operation_by_age ON {s}.operations(at);
CREATE UNLOGGED TABLE {s}.listeners(listener bytea PRIMARY KEY, until timestamptz NOT NULL);
CREATE VIEW {s}.session_overview AS
SELECT app, id, user_id, phase, revision, seq AS last_seq,
    to_timestamp(created_at / 1e6) AS created, to_timestamp(active_at / 1e6) AS active,
    to_timestamp(expires_at / 1e6) AS expires, labels, state
FROM {s}.sessions;
CREATE VIEW {s}.event_overview AS
SELECT s.app, s.id AS session, e.seq, e.kind, e.author, to_timestamp(e.at / 1e6) AS at,
    e.changes, e.deleted, e.body
FROM {s}.events AS e JOIN {s}.sessions AS s ON s.row = e.session;
"""

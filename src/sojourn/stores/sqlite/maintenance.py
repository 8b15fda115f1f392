"""Copying the file while it is in use, and checking it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from sojourn.errors import PathTaken
from sojourn.stores.sqlite import connection

if TYPE_CHECKING:
    from collections.abc import Callable

BACKUP_PAGES = 1_024
"""Pages copied at a time: 4 MB, so that other threads get their turn in between."""

_INVARIANTS = {
    "an event belongs to no session": """
        SELECT e.key FROM events AS e LEFT JOIN sessions AS s ON s.row = e.session
        WHERE s.row IS NULL LIMIT 1""",
    "an event's number is above its session's last": """
        SELECT e.key FROM events AS e JOIN sessions AS s ON s.row = e.session
        WHERE e.seq > s.seq LIMIT 1""",
    "a document belongs to no session": """
        SELECT d.row FROM documents AS d LEFT JOIN sessions AS s ON s.row = d.session
        WHERE d.session <> 0 AND s.row IS NULL LIMIT 1""",
    "a label belongs to no session": """
        SELECT l.session FROM labels AS l LEFT JOIN sessions AS s ON s.row = l.session
        WHERE s.row IS NULL OR s.active_at <> l.active_at LIMIT 1""",
    "a claim belongs to no session": """
        SELECT c.session FROM claims AS c LEFT JOIN sessions AS s ON s.row = c.session
        WHERE s.row IS NULL LIMIT 1""",
    "a kept count is not the real one": """
        WITH real AS (
            SELECT app, 'all' AS facet, phase, count(*) FROM sessions GROUP BY 1, 2, 3
            UNION ALL
            SELECT app, iif(user IS NULL, 'anonymous', 'user ' || user), phase, count(*)
            FROM sessions GROUP BY 1, 2, 3
            UNION ALL
            SELECT s.app, 'label ' || json_array(l.name, l.value), s.phase, count(*)
            FROM labels AS l JOIN sessions AS s ON s.row = l.session GROUP BY 1, 2, 3),
        kept AS (SELECT app, facet, phase, sessions FROM counts)
        SELECT 1 FROM (SELECT * FROM real EXCEPT SELECT * FROM kept)
        UNION ALL SELECT 1 FROM (SELECT * FROM kept EXCEPT SELECT * FROM real) LIMIT 1""",
    "a session's state or labels are not JSON": """
        SELECT row FROM sessions WHERE NOT json_valid(state)
            OR NOT json_valid(ifnull(labels, '{}')) OR NOT json_valid(ifnull(exclusive, '[]'))
        LIMIT 1""",
    "an event is not JSON": """
        SELECT key FROM events WHERE NOT json_valid(body)
            OR NOT json_valid(ifnull(changes, '{}')) OR NOT json_valid(ifnull(deleted, '[]'))
        LIMIT 1""",
    "a value of a shared tier is not JSON": """
        SELECT name FROM tiers WHERE NOT json_valid(value) LIMIT 1""",
    "a session would be looked at too late": """
        SELECT row FROM sessions
        WHERE due_at IS NOT NULL AND (wake_at IS NULL OR wake_at > due_at) LIMIT 1""",
}


def check(connect: Callable[[], apsw.Connection], name: str) -> list[str]:
    """Return what SQLite's integrity check and our own invariants find, in words."""
    db = _connected(connect, name)
    try:
        found = [str(line) for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
        if found:
            return found
        return [words for words, query in _INVARIANTS.items() if db.execute(query).get is not None]
    except (apsw.CorruptError, UnicodeDecodeError) as error:
        return [str(connection.mapped(error, name))]
    except apsw.Error as error:
        raise connection.mapped(error, name) from error
    finally:
        db.close()


def _connected(connect: Callable[[], apsw.Connection], name: str) -> apsw.Connection:
    try:
        return connect()
    except apsw.Error as error:
        raise connection.mapped(error, name) from error


def backup(connect: Callable[[], apsw.Connection], path: str, name: str) -> None:
    """Copy the file as of one moment to `path`; nothing stays behind when that fails."""
    target = Path(path)
    if os.path.lexists(target):
        raise PathTaken(path, "there is a file already; a backup does not overwrite it")
    source = _connected(connect, name)
    try:
        _copy(source, target)
    except apsw.Error as error:
        target.unlink(missing_ok=True)
        raise connection.mapped(error, name) from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        source.close()


def _copy(source: apsw.Connection, target: Path) -> None:
    copy = apsw.Connection(str(target))
    try:
        source.execute("BEGIN; SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - takes the snapshot
        with copy.backup("main", source, "main") as task:
            while not task.done:
                task.step(BACKUP_PAGES)
        copy.execute("PRAGMA journal_mode=DELETE")
    finally:
        copy.close()

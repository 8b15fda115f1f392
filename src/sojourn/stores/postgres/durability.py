"""When a commit is acknowledged: as each write asks for, whatever the server's default is.

`local` and `remote_write` are not enough for a durable one: they do not wait until the synchronous
replicas have it on their disks.
"""

from __future__ import annotations

UNSURE = "current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
"""Whether a commit would be acknowledged before it is durable."""

RELAX = "set_config('synchronous_commit', 'off', true)"
"""Have this transaction acknowledged at once."""

MAKE_SURE = "set_config('synchronous_commit', 'on', true)"
"""Have this transaction acknowledged once it is durable."""


def chosen(relaxed: str) -> str:
    """Return the expression that chooses for its transaction; `relaxed` says what was asked for."""
    return f"CASE WHEN {relaxed} THEN {RELAX} WHEN {UNSURE} THEN {MAKE_SURE} END"


STATEMENTS = f"""
    IF relaxed THEN
        PERFORM {RELAX};
    ELSIF {UNSURE} THEN
        PERFORM {MAKE_SURE};
    END IF;"""
"""The same in a function."""

"""Every bound of the core in one place: its name, its number, and the reason for the number."""

from __future__ import annotations

MAX_NAME = 255
"""Characters in an id, user, app, label, collection or document key: fits every backend's index."""

MAX_STATE_KEY = 512
"""Characters in a state key: a prefix and a name, with room to spare."""

MAX_LABELS = 16
"""Labels on a session: each costs index entries, and a filter names only a few."""

MAX_DEPTH = 100
"""Nesting of a value: far beyond honest data, far below any decoder's recursion limit."""

MAX_VALUE = 4 * 1024 * 1024
"""Bytes of one encoded value (of a state key, an event's body): larger things are documents."""

MAX_STATE = 16 * 1024 * 1024
"""Bytes of one tier's encoded state: it is read whole with the session."""

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of one document: it passes through memory whole, and through one transaction."""

MAX_EVENTS_PER_COMMIT = 10_000
"""Events in one commit: it is one transaction and holds the writer while it runs."""

MAX_SEQ = (1 << 28) - 1
"""Last sequence number of a log (268 million): the low bits of a row id in SQLite."""

MAX_PAGE = 1_000
"""Sessions in one page of a list: a page is built in memory."""

EVENTS_PAGE = 500
"""Events read at a time while a watch or a fork walks a long log."""

OPERATIONS_REMEMBERED = 32
"""Commits that a session remembers by operation id: a retry comes within a few round trips."""

BATCH_OPERATIONS = 512
"""Operations in one durable write: past this the gain is flat, the wait of the first one grows."""

BATCH_BYTES = 1024 * 1024
"""Payload bytes in one durable write, beyond its first operation."""

BATCH_QUEUE = 65_536
"""Operations that may wait for the writer before new ones are refused: memory stays bounded."""

CREATE_ATTEMPTS = 8
"""Tries at a fresh generated id: a second collision of random ids means a broken generator."""

HOOK_SECONDS = 30.0
"""Time for one end hook or cleaner: the end of a session must not hang on an outside world."""

END_CLAIM_SECONDS = 120.0
"""How long one runner owns the end of a session: longer than its hooks can take, so that a crash in
the middle is picked up by the next sweep and a slow runner is not overtaken."""

END_RETRY_FIRST_SECONDS = 1.0
"""Wait before a failed end is tried again; it doubles from here."""

END_RETRY_LAST_SECONDS = 300.0
"""Longest wait between two tries at a failed end."""

LEASE_MAX_SECONDS = 86_400.0
"""Longest lease: a worker that needs more renews."""

WATCH_POLL_SECONDS = 1.0
"""How often a watch looks by itself where a store can not wake it, and as a net where it can."""

PART_BYTES = 1024 * 1024
"""Bytes of a session that travel in one piece; a larger one is copied and exported in parts."""

DUMP_BYTES = 4 * 1024 * 1024
"""Bytes of a page of sessions or shared things that is copied or exported: it is held in memory."""

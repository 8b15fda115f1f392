"""Opens a store with a schema that has one step more, when told to, and tells how it went.

Arguments: path.
"""

from __future__ import annotations

import asyncio
import sys

from tests.faults.workers.speech import hear, say

from sojourn import Event, SessionManager
from sojourn.stores.sqlite import SqliteStore, schema

SECOND = """
CREATE TABLE migrated(process INTEGER) STRICT;
INSERT INTO migrated VALUES (1);
ALTER TABLE sessions ADD COLUMN mood TEXT;
UPDATE sessions SET mood = 'calm';
"""
"""A step that can not be taken twice, and that touches every session."""


async def main(path: str) -> None:
    schema.MIGRATIONS = (*schema.MIGRATIONS, SECOND)
    say("ready")
    hear()
    store = SqliteStore(path)
    await store.open()
    say((await SessionManager(store).append("s", Event(kind="op"))).seq)
    hear()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

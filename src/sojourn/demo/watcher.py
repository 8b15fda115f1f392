"""Somebody who reads along, a process of its own: `python -m sojourn.demo.watcher URL ROOM AFTER`.

It reports every event behind number AFTER on standard output, and ends with the last word.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from sojourn import SessionManager
from sojourn.demo.ledger import Seen

LAST_WORD = "closed"
"""The kind of the event after which nobody has to read on."""


async def read_along(url: str, room: str, after: int) -> None:
    """Report events until the last word."""
    async with SessionManager.open(url, app="chat") as sessions:
        async for event in sessions.watch(room, after=after):
            seen = Seen(event.seq or 0, event.id or "")
            sys.stdout.write(msgspec.json.encode(seen).decode() + "\n")
            sys.stdout.flush()
            if event.kind == LAST_WORD:
                return


if __name__ == "__main__":
    asyncio.run(read_along(sys.argv[1], sys.argv[2], int(sys.argv[3])))

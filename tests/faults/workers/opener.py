"""Opens a store when told to, tells what came of it, and does more when told to.

Arguments: path, and perhaps `unprivileged`: then it gives up root's rights first.
Words: `open`, `append` (to the session `s`, made if need be), `count` (its events), `close`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from typing import Any

from tests.faults.workers.speech import hear, say

from sojourn import Event, SessionManager, SojournError
from sojourn.stores.sqlite import SqliteStore

NOBODY = 65_534


async def obey(sessions: SessionManager, word: str) -> Any:
    store: Any = sessions.store
    if word == "open":
        await store.open()
    elif word == "append":
        await sessions.get_or_create("s")
        return (await sessions.append("s", Event(kind="op", body=os.getpid()))).seq
    elif word == "count":
        return len(await sessions.events("s"))
    elif word == "check":
        return await store.check()
    else:
        await store.close()
    return "done"


async def main(path: str) -> None:
    sessions = SessionManager(SqliteStore(path))
    say("ready")
    while word := hear():
        try:
            say(await obey(sessions, word))
        except SojournError as error:
            say({"error": type(error).__name__, "words": str(error)})


async def rehearse() -> None:
    """Do everything once, so that all is imported that may be out of reach without rights."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = SessionManager(SqliteStore(folder + "/a.db"))
        for word in ("open", "append", "count", "check", "close"):
            await obey(sessions, word)


if __name__ == "__main__":
    asyncio.run(rehearse())
    if "unprivileged" in sys.argv[2:] and os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    asyncio.run(main(sys.argv[1]))

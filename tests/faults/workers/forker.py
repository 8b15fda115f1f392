"""Forks with an open store, and tells what the child could do with it and what the parent could.

Arguments: URL.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import warnings

from tests.faults.workers.speech import say

from sojourn import Event, SessionManager, SojournError


async def verdicts(sessions: SessionManager) -> list[str]:
    """Return what each verb leads to: the name of its error, or nothing."""
    found: list[str] = []
    for work in (
        sessions.get("s"),
        sessions.append("s", Event(kind="op")),
        sessions.create(),
        sessions.list(),
        sessions.documents("s").get("c", "k"),
        sessions.store.close(),
    ):
        try:
            await work
        except SojournError as error:
            found.append(type(error).__name__)
        else:
            found.append("")
    return found


async def main(url: str) -> None:
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s")
        await sessions.append("s", Event(kind="op"))
        pid = os.fork()
        if pid == 0:
            # The child has its own loop: the parent's is not for it, nor are its threads.
            asyncio._set_running_loop(None)
            asyncio.run(child(sessions))
        await sessions.append("s", Event(kind="op"))
        say({"parent": [len(await sessions.events("s"))], "child": pid})
        sys.stdin.readline()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it was killed, and nothing else runs here


async def child(sessions: SessionManager) -> None:
    """Try everything, then stay alive: a gate that the child held would stay shut."""
    signal.alarm(60)
    say({"verbs": await verdicts(sessions)})
    signal.pause()


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
    asyncio.run(main(sys.argv[1]))

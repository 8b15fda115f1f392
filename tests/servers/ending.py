"""A program that ends while it writes."""

from __future__ import annotations

import subprocess
import sys

PATIENCE = 60.0
"""Seconds after which a program counts as held up."""

_PROGRAM = """
import asyncio, sys
from sojourn import Event, SessionManager

async def main():
    sessions = await SessionManager.open(sys.argv[1]).__aenter__()
    session = await sessions.create()
    writing = asyncio.ensure_future(sessions.append(session, Event(kind="note")))
    for _ in range(int(sys.argv[2])):
        await asyncio.sleep(0)
    assert not writing.done()

asyncio.run(main())
"""


def end_amid_a_write(url: str, turns: int) -> None:
    """Run a program that returns so many turns of the loop after it began to write.

    Raises when it fails, or does not end.
    """
    command = [sys.executable, "-c", _PROGRAM, url, str(turns)]
    subprocess.run(command, timeout=PATIENCE, check=True)

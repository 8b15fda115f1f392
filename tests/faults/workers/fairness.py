"""Appends as fast as it can for some seconds, with a few tasks, and tells how many and what failed.

Arguments: URL, session, seconds, tasks.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.faults.workers.speech import hear, say

from sojourn import Event, SessionManager


async def main(url: str, id: str, seconds: float, tasks: int) -> None:
    errors: list[str] = []
    waits = [0.0]
    done = 0

    async def append_until(end: float, task: int) -> None:
        nonlocal done
        while (began := time.monotonic()) < end:
            try:
                await sessions.append(id, Event(kind="tick", body=done), state={f"t{task}": done})
            except Exception as error:  # noqa: BLE001 - any error at all is what the test looks for
                errors.append(repr(error))
                return
            waits.append(time.monotonic() - began)
            done += 1

    async with SessionManager.open(url) as sessions:
        await sessions.get_or_create(id)
        say("ready")
        hear()
        end = time.monotonic() + seconds
        await asyncio.gather(*(append_until(end, task) for task in range(tasks)))
        say({"operations": done, "errors": errors, "longest": max(waits)})
        hear()  # closing would give the others its turns


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))

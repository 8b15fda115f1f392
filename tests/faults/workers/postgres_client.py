"""One of several processes that use one store: strict saves, a lease, events, so many of each."""

from __future__ import annotations

import asyncio
import sys

from sojourn import Conflict, Event, SessionManager


async def main(url: str, name: str, times: int) -> None:
    """Raise two counters and append as many events; every step has to count once."""
    async with SessionManager.open(url) as sessions:
        for number in range(times):
            await raise_strictly(sessions)
            async with sessions.lease("leased", ttl=60, wait=60) as lease:
                session = await sessions.require("leased")
                session.state["n"] += 1
                await sessions.save(session, conflict="fail", lease=lease)
            session = await sessions.require("log")
            await sessions.append(session, Event(kind="note", body=[name, number]))


async def raise_strictly(sessions: SessionManager) -> None:
    """Raise a counter by one, again and again until nobody else was faster."""
    while True:
        session = await sessions.require("strict")
        session.state["n"] += 1
        try:
            await sessions.save(session, conflict="fail")
        except Conflict:
            continue
        return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

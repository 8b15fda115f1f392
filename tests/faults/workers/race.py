"""Wins a number of strict saves on a session that others save too; tells the revisions it won.

Arguments: URL, session, wins, name.
"""

from __future__ import annotations

import asyncio
import sys

from tests.faults.workers.speech import hear, say

from sojourn import Conflict, SessionManager


async def main(url: str, id: str, wins: int, name: str) -> None:
    won: list[int] = []
    conflicts = 0
    async with SessionManager.open(url) as sessions:
        session = await sessions.require(id)
        say("ready")
        hear()
        while len(won) < wins:
            session.state["count"] += 1
            session.state["winners"] = [*session.state["winners"][-9:], name]
            try:
                await sessions.save(session, conflict="fail")
            except Conflict:
                conflicts += 1
                await sessions.refresh(session)
            else:
                won.append(session.revision)
    say({"won": won, "conflicts": conflicts})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))

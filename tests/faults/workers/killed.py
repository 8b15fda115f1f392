"""Appends and saves until it is killed, telling each operation only after its await returned.

Each task keeps to its own keys, so the last number of a task is in its keys and in the log. Each
number is used once: they count up from the first one given.

Arguments: URL, name, first number, sessions...
"""

from __future__ import annotations

import asyncio
import sys

from tests.faults.workers.speech import say

from sojourn import Event, Session, SessionManager

TASKS = 4


async def append(sessions: SessionManager, session: Session, slot: str, number: int) -> None:
    """Append an event whose delta sets a key of the session and one of its user."""
    event = Event(kind="op", author=slot, body=number)
    await sessions.append(session, event, state={slot: number, f"user:{slot}": number})


async def save(sessions: SessionManager, session: Session, slot: str, number: int) -> None:
    """Save a key of the session and one of its user."""
    session.state[f"{slot} saved"] = number
    session.state[f"user:{slot} saved"] = number
    await sessions.save(session)


async def work(sessions: SessionManager, id: str, slot: str, first: int) -> None:
    session = await sessions.require(id)
    number = first
    while True:
        await append(sessions, session, slot, number)
        say([id, slot, number])
        await save(sessions, session, slot, number + 1)
        say([id, f"{slot} saved", number + 1])
        number += 2


async def main(url: str, name: str, first: int, ids: list[str]) -> None:
    async with SessionManager.open(url) as sessions:
        slots = [(ids[task % len(ids)], f"{name}{task}") for task in range(TASKS)]
        await asyncio.gather(*(work(sessions, id, slot, first) for id, slot in slots))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))

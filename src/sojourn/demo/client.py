"""One person in the chat, a process of its own: `python -m sojourn.demo.client URL ROOM NAME MORE`.

It says so many more things than the session's state says it has said, so it can be killed anywhere
and started again. What is acknowledged is reported on standard output, after the `await` returned.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from sojourn import Event, SessionManager
from sojourn.demo.ledger import Acknowledged

CARD_EVERY = 3
"""A card is saved with every so many messages."""


def said_key(author: str) -> str:
    """Return the state key that counts an author's messages; it moves in the same commit."""
    return f"said.{author}"


def card_key(author: str) -> str:
    """Return the state key of an author's card: a nested value that is changed in place."""
    return f"card.{author}"


async def talk(url: str, room: str, author: str, more: int) -> None:
    """Say `more` things and keep the card."""
    async with SessionManager.open(url, app="chat") as sessions:
        session = await sessions.require(room)
        first = session.state.get(said_key(author), 0) + 1
        session.state.setdefault(card_key(author), {"name": author, "read": {"to": 0}})
        for number in range(first, first + more):
            said = await sessions.append(
                session,
                Event(kind="message", author=author, body={"number": number, "text": "hello"}),
                state={said_key(author): number},
            )
            report(Acknowledged(author, "message", number, said.seq or 0))
            if number % CARD_EVERY == 0 or number == first + more - 1:
                session.state[card_key(author)]["read"]["to"] = number
                await sessions.save(session)
                report(Acknowledged(author, "card", number))


def report(acknowledged: Acknowledged) -> None:
    """Tell the parent, at once."""
    sys.stdout.write(msgspec.json.encode(acknowledged).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(talk(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))

"""Writes to sessions of all sorts until its input ends: `writer URL SEED`."""

from __future__ import annotations

import asyncio
import random
import sys

from sojourn import Event, SessionManager, SojournError


def say(word: object) -> None:
    """Say a word at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def write(sessions: SessionManager, dice: random.Random, number: int) -> None:
    """Do one of the things that applications do."""
    page = await sessions.list(limit=50, order=dice.choice(["active", "-active"]))
    session = dice.choice(page.items)
    match dice.randrange(6):
        case 0:
            await sessions.create(user=f"u-{number % 9}", state={"n": number, "app:n": number})
        case 1:
            await sessions.delete(session.id)
        case 2:
            await sessions.delete(session.id)
            await sessions.create(id=session.id, state={"again": number})
        case 3:
            await sessions.documents(session.id).put("d", "k", number.to_bytes(4, "big"))
        case _:
            await sessions.append(session, Event(kind="k", body=number), state={"n": number})


async def main(url: str, seed: str) -> None:
    """Write until the input ends; say when it began, and in the end how much it was."""
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    async with SessionManager.open(url, app="shop") as sessions:
        number = 0
        while not ended.is_set():
            if number == 1:
                say("writing")
            number += 1
            try:
                await write(sessions, dice, number)
            except SojournError:  # it was deleted a moment ago
                continue
    say(number)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

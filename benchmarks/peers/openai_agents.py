"""openai-agents' SQLiteSession: one object for each chat, all on one file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agents import SQLiteSession

from benchmarks.peers import material
from benchmarks.peers.timing import at_once, awaited_in_turn

if TYPE_CHECKING:
    from benchmarks.sample import Sample


async def chat(path: str, *, window: int, count: int, warm: int) -> Sample:
    """Add a question and its answer to one chat, and load its last messages."""
    session = SQLiteSession("s0", path)
    _check_settings(path)

    async def step(number: int) -> None:
        await _turn(session, number, window)

    measured = await awaited_in_turn(step, count=count, warm=warm)
    session.close()
    return measured


async def chats(path: str, *, callers: int, window: int, each: int, warm: int) -> Sample:
    """Do the same in many chats at once."""
    held = [SQLiteSession(f"s{number}", path) for number in range(callers)]
    _check_settings(path)

    async def step(caller: int, number: int) -> None:
        await _turn(held[caller], number, window)

    measured = await at_once(step, callers=callers, each=each, warm=warm)
    for session in held:
        session.close()
    return measured


async def _turn(session: Any, number: int, window: int) -> None:
    messages = material.turn(number)
    await session.add_items(messages)
    found = await session.get_items(limit=window)
    assert found[-2:] == messages
    assert len(found) == min(window, 2 * number + 2)


def _check_settings(path: str) -> None:
    """See that it is as durable as the others: it sets WAL itself, FULL is the default."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)

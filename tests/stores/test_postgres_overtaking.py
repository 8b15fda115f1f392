"""Many copies of one session saved at once on PostgreSQL: what each has written is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.soak import Progress, count, scaled
from tests.servers.postgres import emptied

from sojourn import SessionManager

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

ROUNDS = count(30, 3_000)
WRITERS = 20


@scaled
async def test_first_writers_of_one_user_all_survive(postgres: PostgresServer) -> None:
    """One makes the session, all write a key of their own, and nobody waits for another."""
    url = postgres.url(schema="overtaking")
    async with SessionManager.open(url) as sessions:
        await emptied(url)
        progress = Progress("first writers", ROUNDS)
        for number in range(ROUNDS):

            async def write(key: str, user: str) -> None:
                session = await sessions.get_or_create(user=user)
                session.state[key] = True
                await sessions.save(session)

            user = f"u{number}"
            await asyncio.gather(*(write(f"k{one}", user) for one in range(WRITERS)))
            state = (await sessions.get_or_create(user=user)).state
            assert len(state) == WRITERS, f"lost in round {number}"
            progress.at(number + 1)
        progress.figure("postgres_first_writers", rounds=ROUNDS, writers=WRITERS, lost=0)

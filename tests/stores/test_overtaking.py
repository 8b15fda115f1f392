"""Many copies of one session saved at once on a server: what each has written is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.faults.soak import Progress, count, scaled
from tests.servers.postgres import emptied

from sojourn import SessionManager

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = count(30, 3_000)
WRITERS = 20


@pytest.fixture(params=["postgres", pytest.param("redis", marks=pytest.mark.xdist_group("redis"))])
def server_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store on a server."""
    if request.param == "redis":
        return f"{request.getfixturevalue('redis_server').url}?prefix={tmp_path.name}"
    url: str = request.getfixturevalue("postgres").url(schema="overtaking")
    asyncio.run(emptied(url))
    return url


@scaled
async def test_first_writers_of_one_user_all_survive(server_url: str) -> None:
    """One makes the session, all write a key of their own, and nobody waits for another."""
    async with SessionManager.open(server_url) as sessions:
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
        progress.figure(
            f"first_writers_{server_url.partition(':')[0]}", rounds=ROUNDS, writers=WRITERS, lost=0
        )

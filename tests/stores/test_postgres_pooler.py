"""The PostgreSQL store behind a real pooler, whose clients share its few connections."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from tests.servers.pgbouncer import SERVER_CONNECTIONS, PgBouncer
from tests.servers.postgres import emptied

from sojourn import Conflict, Event, Expiry, Reaper, SessionManager, open_store
from sojourn.store import SupportsBackup
from sojourn.testing import FakeClock
from sojourn.testing.plugin import StoreLaws
from sojourn.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.postgres import PostgresServer

    from sojourn.store import Store

SCHEMA = "pooled"


@pytest.fixture(params=["transaction", "session"])
def pooled(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty store behind a pooler of each mode."""
    asyncio.run(emptied(postgres.url(schema=SCHEMA)))
    with PgBouncer(postgres, request.param) as bouncer:
        yield bouncer.url(schema=SCHEMA, pooler=request.param, timeout=30)


@pytest.fixture(scope="module")
def bouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """A pooler in transaction mode for all laws."""
    with PgBouncer(postgres, "transaction") as bouncer:
        yield bouncer


@pytest.mark.soak
class TestPooledPostgresStore(StoreLaws):
    """Every law, behind a pooler in transaction mode."""

    without = (SupportsBackup,)
    url: str

    @pytest.fixture(autouse=True)
    def _places(self, bouncer: PgBouncer, postgres: PostgresServer) -> None:
        type(self).url = bouncer.url(schema="pooled_laws", pooler="transaction", timeout=30)
        asyncio.run(emptied(postgres.url(schema="pooled_laws")))

    def make_store(self, folder: Path) -> Store:  # noqa: ARG002 - it is in no folder
        return open_store(self.url)

    def reopen_store(self, folder: Path) -> Store:
        return self.make_store(folder)


async def test_many_clients_share_few_connections(pooled: str, postgres: PostgresServer) -> None:
    """All kinds of calls at once, from more connections than the server sees."""
    others = await connections(postgres)  # of stores that have just been closed
    async with AsyncExitStack() as stack:
        opened = [SessionManager.open(pooled) for _ in range(4)]
        stores = [await stack.enter_async_context(sessions) for sessions in opened]
        first = stores[0]
        for number in range(8):
            await first.create(id=f"s-{number}", user=f"u-{number % 2}", labels={"n": str(number)})

        async def work(sessions: SessionManager, number: int) -> None:
            id = f"s-{number % 8}"
            copy = await sessions.require(id, events=5)
            for turn in range(5):
                event = Event(kind="note", body=[number, turn])
                await sessions.append(copy, event, state={f"k{number}": turn, "user:x": turn})
                assert (await sessions.list(user=f"u-{number % 2}")).items
            assert await sessions.count() == 8
            async with sessions.lease(id, ttl=30, wait=30) as lease:
                await sessions.append(copy, Event(kind="note", body=[number, 5]), lease=lease)

        await asyncio.gather(*(work(stores[n % 4], n) for n in range(24)))
        if "transaction" in pooled:
            assert len(await connections(postgres) - others) <= SERVER_CONNECTIONS
        for number in range(8):
            events = await first.events(f"s-{number}")
            assert [event.seq for event in events] == list(range(1, 19))
            found = (await first.require(f"s-{number}")).state
            assert [found[f"k{number + 8 * more}"] for more in range(3)] == [4, 4, 4]
        assert await first.store.check() == []  # type: ignore[attr-defined]  # it can
        assert await first.forget("u-0") == 4


async def connections(postgres: PostgresServer) -> set[int]:
    """Return the server's connections to stores; behind a pooler, the pooler's."""
    address = open_store(postgres.url())._address  # type: ignore[attr-defined]  # its own
    db = await asyncpg.connect(**address.arguments())
    try:
        query = """SELECT pid FROM pg_stat_activity WHERE application_name = 'sojourn'
            AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""
        return {pid for (pid,) in await db.fetch(query)}
    finally:
        await db.close()


async def test_what_is_copied_through_a_pooler_is_whole(pooled: str, tmp_path: Path) -> None:
    """Pages, and a session that is larger than one, each as of one moment."""
    async with SessionManager.open(pooled) as sessions:
        for number in range(5):
            await sessions.create(id=f"s-{number}", user="u", state={"user:x": 1})
        large = await sessions.require("s-0")
        for _ in range(4):
            await sessions.append(large, Event(kind="note", body="x" * 700_000))
    source, target = open_store(pooled), open_store(f"sqlite:///{tmp_path / 'copy.db'}")
    for store in (source, target):
        await store.open()
    copied = await copy(source, target)
    assert (copied.put, copied.verified, copied.different) == (5, 5, 0)
    assert await source.check() == []  # type: ignore[attr-defined]  # it can
    for store in (source, target):
        await store.close()


async def test_strict_saves_watches_and_sweeps_hold(pooled: str) -> None:
    clock = FakeClock()
    async with (
        SessionManager.open(pooled, clock=clock) as here,
        SessionManager.open(pooled) as there,
    ):
        await here.create(id="s", state={"n": 0})
        for won in range(1, 6):
            copies = [await sessions.require("s") for sessions in (here, there) for _ in range(3)]
            for copy in copies:
                copy.state["n"] += 1
            saves = [
                (here if at < 3 else there).save(copy, conflict="fail")
                for at, copy in enumerate(copies)
            ]
            outcomes = await asyncio.gather(*saves, return_exceptions=True)
            assert sum(isinstance(one, Conflict) for one in outcomes) == len(copies) - 1, outcomes
            assert (await here.require("s")).state["n"] == won
        seen: list[Any] = []

        async def watch() -> None:
            async for event in here.watch("s"):
                seen.append(event.body)
                if len(seen) == 10:
                    return

        watching = asyncio.ensure_future(watch())
        for number in range(10):
            await there.append("s", Event(kind="note", body=number))
        await watching
        assert seen == list(range(10))
        for number in range(20):
            await here.create(id=f"old-{number}", expiry=Expiry(idle=1))
        clock.advance(10)
        assert await Reaper(here).sweep() == 20
        assert await here.store.check() == []  # type: ignore[attr-defined]  # it can

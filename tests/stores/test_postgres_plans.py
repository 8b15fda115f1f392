"""Plans that the PostgreSQL server made while its tables were empty: they are kept, and must do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sojourn import Event, SessionManager, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import PostgresServer

SESSIONS, EVENTS, DOCUMENTS = 400, 400, 400
OFTEN = 20
FEW_ROWS = 40
"""Rows that a call may read of any index: far less than there are."""


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a schema that is new to the server, with one connection to read by."""

    async def drop() -> None:
        db = await asyncpg.connect(postgres.url())
        await db.execute("DROP SCHEMA IF EXISTS plans CASCADE")
        await db.close()

    asyncio.run(drop())
    yield postgres.url(schema="plans", pool_size=1)
    asyncio.run(drop())


async def read_rows(db: Any) -> dict[str, int]:
    """Return how many entries of each index, and rows of each table as a whole, were read."""
    rows = await db.fetch(
        "SELECT indexrelname AS name, idx_tup_read AS read FROM pg_stat_user_indexes "
        "WHERE schemaname = 'plans' UNION ALL SELECT relname, seq_tup_read "
        "FROM pg_stat_user_tables WHERE schemaname = 'plans' AND relname <> 'listeners'"
    )
    return {row["name"]: row["read"] for row in rows}


async def until_ended(db: Any, but: int) -> None:
    """Return once all connections of stores but so many ended: what those read is counted then."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sojourn' "
        "AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(60):
        while await db.fetchval(query) > but:
            pass


async def fill(url: str) -> None:
    """Make sessions, and in one of them a log and documents."""
    async with SessionManager.open(url) as others:
        many = [(f"s{number}", f"u{number % 7}") for number in range(SESSIONS)]
        await asyncio.gather(
            *(others.create(id=id, user=user, labels={"a": "b"}) for id, user in many)
        )
        events = [Event(kind=f"k{number % 7}", id=f"e{number}") for number in range(EVENTS)]
        await others.append("s7", *events)
        documents = others.documents("s7")
        await asyncio.gather(
            *(documents.put("c", f"k{number}", b"x") for number in range(DOCUMENTS))
        )


async def call(sessions: SessionManager, id: str) -> None:
    """Do everything that is about one session."""
    await sessions.get(id, events=3)
    await sessions.events(id, last=3)
    await sessions.events(id, after_seq=EVENTS - 3)
    await sessions.events(id, kind="k1", last=3)
    await sessions.append(id, Event(kind="n"))
    await sessions.append(id, Event(kind="k0", id="e0"))
    documents = sessions.documents(id)
    await documents.put("c", "k1", b"y")
    await documents.get("c", "k1")
    await documents.list("c", limit=3)
    new = await sessions.create(parent=id)
    await sessions.delete(new.id)


async def test_plans_of_empty_tables_read_few_rows_of_full_ones(url: str) -> None:
    """An index that fits in part is not taken for one that fits: both cost nothing then."""
    await (store := open_store(url)).open()
    await store.close()
    db = await asyncpg.connect(**store._address.arguments())  # type: ignore[attr-defined]  # its own
    tables = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'plans'")
    for (table,) in tables:  # nobody tells the server meanwhile what is in them
        await db.execute(f"ALTER TABLE plans.{table} SET (autovacuum_enabled = false)")
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s")
        for _ in range(OFTEN):  # until its plans are the ones that are kept
            await call(sessions, "s")
        await sessions.delete("s")
        await fill(url)
        await until_ended(db, 2)  # its reader's and its writer's are left
        before = await read_rows(db)
        for _ in range(OFTEN):
            await call(sessions, "s7")
    await until_ended(db, 0)
    after = await read_rows(db)
    await db.close()
    read = {each: (rows - before[each]) / OFTEN for each, rows in after.items()}
    assert {each: rows for each, rows in read.items() if rows > FEW_ROWS} == {}

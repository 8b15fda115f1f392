"""What a process remembers of the sessions that it wrote to PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
from tests.servers.postgres import emptied

from sojourn import Event, SessionManager, open_store
from sojourn.stores.postgres import rows

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer


async def test_what_is_remembered_is_what_the_server_has(postgres: PostgresServer) -> None:
    """A difference loses nothing, so nobody would see it: it only costs each write a round."""
    url = postgres.url(schema="recent")
    await emptied(url)
    store = open_store(url)
    arguments = store._address.arguments()  # type: ignore[attr-defined]  # its own
    await store.open()
    async with SessionManager(store) as sessions:

        async def agrees(*ids: str) -> None:
            names = ", ".join(f"'{one}'" for one in ids)
            db = await asyncpg.connect(**arguments)
            kept = await db.fetch(
                f"SELECT {rows.SESSION} FROM recent.sessions WHERE id IN ({names})"  # noqa: S608 - all ours
            )
            await db.close()
            assert len(kept) == len(ids)
            for loaded in map(rows.to_loaded, kept):
                key = (loaded.header.app, loaded.header.id)
                assert store._writer._recent.get(key) == loaded  # type: ignore[attr-defined]  # its own

        one = await sessions.create(id="one", user="ann", labels={"a": "b"}, state={"x": 1})
        await agrees("one")
        await sessions.append(one, Event(kind="note"))
        await agrees("one")
        one.state["user:y"] = 2
        one.state["x"] = 3
        await sessions.save(one)
        await agrees("one")
        await sessions.documents("one").put("files", "f", b"z")
        await agrees("one")
        await sessions.create(id="child", parent="one")
        await sessions.fork("one", new_id="fork")
        await agrees("one", "child", "fork")
        # All at once, so that they are one batch.
        two, three = await asyncio.gather(*(sessions.create(id=name) for name in ("two", "three")))
        await agrees("two", "three")
        await asyncio.gather(*(sessions.append(s, Event(kind="note")) for s in (one, two, three)))
        await agrees("one", "two", "three")
        await sessions.label(two, {"c": "d"})
        await sessions.touch(three)
        await agrees("two", "three")
    await store.close()

"""PostgreSQL killed, cut off, and frozen: nothing acknowledged is lost, and nothing comes twice."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.frozen import let_every_call_end
from tests.faults.soak import Progress, count, scaled
from tests.servers.postgres import PostgresServer, emptied
from tests.servers.proxy import TROUBLES, Proxy

from sojourn import Conflict, Event, SessionManager, Unavailable, open_store
from sojourn.store import (
    Acquire,
    Delete,
    Due,
    Renew,
    SupportsLease,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

ROUNDS = count(2, 20)
CUTS = count(100, 10_000)
WRITERS = 8


@pytest.fixture(scope="module")
def frail() -> Iterator[PostgresServer]:
    """A server of this file's own: it will be killed."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Writer:
    """Appends numbered events to one session, and remembers which were acknowledged."""

    def __init__(self, name: str, told: asyncio.Queue[str]) -> None:
        self.name = name
        self.begun = 0
        self.acknowledged: list[int] = []
        self._told = told

    async def write(self, sessions: SessionManager, until: asyncio.Event) -> None:
        session = await sessions.require("shared")
        while not until.is_set():
            self.begun += 1
            number = self.begun
            body = {"who": self.name, "number": number}
            try:
                await sessions.append(session, Event(kind="note", body=body))
            except Unavailable:
                continue
            self.acknowledged.append(number)
            self._told.put_nowait(self.name)

    def judge(self, found: list[int]) -> None:
        assert len(found) == len(set(found)), f"{self.name}: events are there twice"
        lost = set(self.acknowledged) - set(found)
        assert not lost, f"{self.name}: acknowledged and lost: {sorted(lost)}"


async def log_of(sessions: SessionManager, id: str) -> list[Event]:
    events = await sessions.events(id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return list(events)


@scaled
def test_a_server_that_is_killed_loses_nothing_acknowledged(frail: PostgresServer) -> None:
    asyncio.run(kill_and_restart(frail))


async def kill_and_restart(frail: PostgresServer) -> None:
    url = frail.url(schema="killed", timeout=20)
    progress = Progress("killed and restarted", ROUNDS)
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="shared")
        told: asyncio.Queue[str] = asyncio.Queue()
        writers = [Writer(f"w{n}", told) for n in range(WRITERS)]
        for number in range(1, ROUNDS + 1):
            done = asyncio.Event()
            tasks = [asyncio.ensure_future(one.write(sessions, done)) for one in writers]
            for _ in range(100):
                await told.get()
            frail.kill()
            frail.launch()
            await asyncio.to_thread(frail.wait_until_ready)
            while not told.empty():
                told.get_nowait()
            for _ in range(20):
                await told.get()
            done.set()
            await asyncio.gather(*tasks)
            progress.at(number)
        events = await log_of(sessions, "shared")
        for one in writers:
            one.judge([event.body["number"] for event in events if event.body["who"] == one.name])
    acknowledged = sum(len(one.acknowledged) for one in writers)
    progress.figure("postgres_killed", rounds=ROUNDS, acknowledged=acknowledged, lost=0, doubled=0)


@scaled
def test_cut_lines_and_dropped_replies_double_nothing(postgres: PostgresServer) -> None:
    asyncio.run(cut_and_drop(postgres, CUTS))


@scaled
def test_commits_of_locked_rounds_are_cut_and_dropped_too(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a batch does that has met others often: read under locks, then written."""
    monkeypatch.setattr("sojourn.stores.postgres.writer.HOPEFUL_ROUNDS", 0)
    asyncio.run(cut_and_drop(postgres, CUTS // 2, at=(b"", b"COMMIT"), figure="_locked"))


async def cut_and_drop(
    postgres: PostgresServer, times: int, *, at: tuple[bytes, ...] = (b"",), figure: str = ""
) -> None:
    """Cut so many requests; those that hold one of `at`."""
    choice = random.Random(7)
    await emptied(postgres.url(schema="cut"))
    progress = Progress("cut or dropped", times)
    async with Proxy(postgres.port) as proxy:
        url = f"{postgres.url_at(proxy.port)}?schema=cut&timeout=20"
        async with SessionManager.open(url) as sessions, asyncio.timeout(7200):
            session = await sessions.create(id="s", state={"n": 0})
            async with sessions.lease("s", ttl=7200):
                for number in range(times):
                    proxy.fail(choice.choice(TROUBLES), choice.choice(at))
                    await sessions.append(
                        session,
                        Event(kind="note", body=number),
                        state={"n": number},
                        conflict="fail",
                    )
                    progress.at(number + 1)
            assert proxy.failed == times
            events = await log_of(sessions, "s")
            assert [event.body for event in events] == list(range(times))
            assert session.revision == times + 1
    progress.figure(f"postgres_cut{figure}", times=times, doubled=0, false_conflicts=0)


async def test_every_verb_is_done_once_though_its_reply_is_dropped(
    postgres: PostgresServer,
) -> None:
    """Removing, forgetting, reaping and releasing have the result that the lost reply had."""
    await emptied(postgres.url(schema="cut"))
    async with Proxy(postgres.port) as proxy:
        store = open_store(f"{postgres.url_at(proxy.port)}?schema=cut&timeout=20")
        async with SessionManager.open(postgres.url(schema="cut")) as direct:
            sessions = SessionManager(store)
            await store.open()
            for trouble in TROUBLES:
                for id in ("a", "b", "c"):
                    await direct.create(id=id, user="u")

                async def lossy(call: Awaitable[Any], trouble: Any = trouble) -> Any:
                    before = proxy.failed
                    proxy.fail(trouble)
                    result = await call
                    assert proxy.failed == before + 1
                    return result

                assert await lossy(store.delete(_delete("a")))
                assert await lossy(store.forget("default", "u")) == 2
                made = await lossy(sessions.create(id="d", state={"x": 1}))
                assert made.revision == 1
                assert isinstance(store, SupportsLease)
                acquire = Acquire(app="default", id="d", holder="me", now=1, until=99)
                token = await lossy(store.acquire(acquire))
                renew = Renew(app="default", id="d", holder="me", now=1, until=None, token=token)
                await lossy(store.renew(renew))
                assert (await direct.require("d")).state["x"] == 1
                assert await lossy(store.reap(Due(app="default", now=1, limit=10))) == []
                assert await lossy(store.delete(_delete("d")))
                assert await direct.get("d") is None
            await store.close()


def _delete(id: str) -> Any:
    return Delete(app="default", id=id, now=1)


@scaled
async def test_a_frozen_server_lets_every_call_end_in_time(frail: PostgresServer) -> None:
    limit = 3.0
    url = frail.url(schema="frozen", timeout=limit)
    await let_every_call_end(url, limit, freeze=frail.freeze, thaw=frail.thaw)


async def test_strict_writers_of_two_stores_never_both_win(postgres: PostgresServer) -> None:
    url = postgres.url(schema="cut")
    await emptied(url)
    async with SessionManager.open(url) as one, SessionManager.open(url) as other:
        await one.create(id="s", state={"n": 0})
        for won in range(1, 21):
            copies = [await sessions.require("s") for sessions in (one, other) for _ in range(3)]
            for copy in copies:
                copy.state["n"] = copy.state["n"] + 1
            saves = [
                (one if at < 3 else other).save(copy, conflict="fail")
                for at, copy in enumerate(copies)
            ]
            outcomes = await asyncio.gather(*saves, return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
            assert len(refused) == len(copies) - 1, outcomes
            assert (await one.require("s")).state["n"] == won


async def test_merging_writers_of_two_stores_all_get_through(postgres: PostgresServer) -> None:
    url = postgres.url(schema="cut")
    await emptied(url)
    async with SessionManager.open(url) as one, SessionManager.open(url) as other:
        await one.create(id="s")
        copies = [(sessions, await sessions.require("s")) for sessions in (one, other)]
        await asyncio.gather(
            *(
                sessions.append(copy, Event(kind="note", body=number))
                for number in range(300)
                for sessions, copy in copies
            )
        )
        events = await log_of(one, "s")
        assert sorted(event.body for event in events) == sorted([*range(300), *range(300)])


async def test_several_processes_share_one_store(postgres: PostgresServer) -> None:
    """Strict saves, leases and the log hold across processes; a watcher misses nothing."""
    url, times, names = postgres.url(schema="cut"), 15, ("one", "two", "three")
    await emptied(url)
    async with SessionManager.open(url) as sessions:
        for id in ("strict", "leased", "log"):
            await sessions.create(id=id, state={"n": 0})
        seen: list[Any] = []

        async def watch() -> None:
            async for event in sessions.watch("log"):
                seen.append(event.body)
                if len(seen) == times * len(names):
                    return

        watching = asyncio.ensure_future(watch())
        worker = Path(__file__).parent / "workers" / "postgres_client.py"
        started = [
            await asyncio.create_subprocess_exec(sys.executable, str(worker), url, name, str(times))
            for name in names
        ]
        assert [await process.wait() for process in started] == [0] * len(names)
        async with asyncio.timeout(30):
            await watching
        assert (await sessions.require("strict")).state["n"] == times * len(names)
        assert (await sessions.require("leased")).state["n"] == times * len(names)
        assert seen == [event.body for event in await log_of(sessions, "log")]
        for name in names:
            assert [number for who, number in seen if who == name] == list(range(times))
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can


async def test_nothing_is_left_of_what_was_removed(postgres: PostgresServer) -> None:
    """No row of any table holds the id, whatever the session had."""
    url = postgres.url(schema="cut")
    await emptied(url)
    async with SessionManager.open(url) as sessions:
        for number, remove in enumerate(("delete", "forget", "end", "reap")):
            id, user = f"needle-{number}", f"thread-{number}"
            session = await sessions.create(
                id=id, user=user, labels={"name": f"{id}-label"}, exclusive=("name",),
                state={"x": id, "user:y": user},
            )  # fmt: skip
            child = await sessions.create(id=f"{id}-child", parent=id, user=user)
            await sessions.append(session, Event(kind=f"{id}-kind", body=id, id=f"{id}-event"))
            await sessions.documents(id).put("files", f"{id}-key", id.encode())
            await sessions.append(child, Event(kind="note", body=id))
            if remove == "forget":
                await sessions.forget(user)
            elif remove == "end":
                await sessions.end(id, reason="done")
            elif remove == "delete":
                await sessions.delete(id)
            else:
                await sessions.end(f"{id}-child", reason="done")
                await sessions.end(id, reason="done", retain=0.000001)
                await sessions.store.reap(Due(app="default", now=1 << 60, limit=10))
            assert not await holding(postgres, "cut", id), remove
            if remove == "forget":
                assert not await holding(postgres, "cut", user)


async def holding(server: PostgresServer, schema: str, text: str) -> list[str]:
    """Return the tables with a row that holds a text, as text or as bytes."""
    import asyncpg

    address = open_store(server.url(schema=schema))._address  # type: ignore[attr-defined]  # its own
    db = await asyncpg.connect(**address.arguments())
    try:
        tables = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
        assert len(tables) > 10
        found = []
        for (table,) in tables:
            rows = await db.fetch(f'SELECT t::text FROM "{schema}"."{table}" AS t')  # noqa: S608 - our own names
            hidden = text.encode().hex()
            if any(text in row[0] or hidden in row[0] for row in rows):
                found.append(table)
        return found
    finally:
        await db.close()

"""One Redis server cut off, restarted and frozen: nothing is done twice, nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.faults.frozen import let_every_call_end
from tests.faults.soak import Progress, count, scaled
from tests.servers.proxy import TROUBLES, Proxy, Trouble
from tests.servers.redis import Cluster, Servers, eventually, values_in

from sojourn import (
    Conflict,
    Event,
    Expiry,
    ReadOnly,
    SessionManager,
    StorageFull,
    open_store,
)
from sojourn.store import (
    Acquire,
    Change,
    Delete,
    Due,
    Renew,
    TierDelta,
)
from sojourn.stores.redis import RedisStore, scripts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from tests.servers.redis import Server

pytestmark = pytest.mark.xdist_group("redis")

CUTS = count(200, 10_000)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this file's own."""
    servers = Servers()
    try:
        yield servers.add("--appendonly", "yes", "--appendfsync", "always")
    finally:
        servers.stop()


async def log_of(sessions: SessionManager, id: str) -> list[Event]:
    events = await sessions.events(id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return list(events)


@scaled
async def test_cut_lines_and_dropped_replies_double_nothing(server: Server) -> None:
    choice = random.Random(7)
    progress = Progress("cut or dropped", CUTS)
    async with Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/?prefix=cut&timeout=20"
        async with SessionManager.open(url) as sessions, asyncio.timeout(3600):
            session = await sessions.create(id="s", user="u", state={"n": 0})
            async with sessions.lease("s", ttl=3600):
                for number in range(CUTS):
                    proxy.fail(choice.choice(TROUBLES))
                    await sessions.append(
                        session,
                        Event(kind="note", body=number),
                        state={"n": number, "user:n": number, "app:n": number},
                        conflict="fail",
                    )
                    progress.at(number + 1)
            assert proxy.failed == CUTS
            events = await log_of(sessions, "s")
            assert [event.body for event in events] == list(range(CUTS))
            assert session.revision == CUTS + 1
    progress.figure("redis_cut", times=CUTS, doubled=0, false_conflicts=0)


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_every_verb_is_done_once_though_its_reply_is_dropped(
    server: Server, trouble: Trouble
) -> None:
    """Removing, forgetting, reaping and releasing have the result that the lost reply had."""
    place = f"?timeout=20&prefix={trouble.replace(' ', '-')}"
    async with Proxy(server.port) as proxy:
        store = open_store(f"redis://127.0.0.1:{proxy.port}/{place}")
        assert isinstance(store, RedisStore)
        async with SessionManager.open(f"{server.url}{place}") as direct:
            sessions = SessionManager(store)
            await store.open()
            for id in ("a", "b", "c"):
                await direct.create(id=id, user="u")
            await direct.create(id="e", expiry=Expiry(idle=60))

            async def lossy(call: Awaitable[Any]) -> Any:
                before = proxy.failed
                proxy.fail(trouble, scripts.APPLY.sha)
                result = await call
                assert proxy.failed == before + 1
                return result

            assert await lossy(store.delete(Delete(app="default", id="a", now=1)))
            assert await lossy(store.forget("default", "u")) == 2
            made = await lossy(sessions.create(id="d", state={"x": 1}))
            assert made.revision == 1
            token = await lossy(store.acquire(_lease("d")))
            release = Renew(app="default", id="d", token=token, holder="h", now=2, until=None)
            await lossy(store.renew(release))
            assert (await direct.require("d")).state["x"] == 1
            assert await lossy(store.reap(Due(app="default", now=1 << 52, limit=10))) == ["e"]
            await lossy(store.commit(_shared(b"op-1-op-", 1)))
            assert await lossy(store.delete(Delete(app="default", id="d", now=1)))
            assert await direct.get("d") is None
            await store.close()


def _lease(id: str) -> Acquire:
    return Acquire(app="default", id=id, holder="h", now=1, until=1 << 52)


def _shared(op: bytes, value: int) -> Change:
    tier = TierDelta({"n": msgspec.Raw(b"%d" % value)})
    return Change(app="default", id=None, op=op, now=1, app_tier=tier)


async def test_a_shared_write_that_is_sent_again_does_not_undo_a_later_one(server: Server) -> None:
    """Its first reply is lost, somebody else writes, and only then it is sent again."""
    store = open_store(f"{server.url}?prefix=again")
    await store.open()
    await store.commit(_shared(b"op-1-op-", 1))
    await store.commit(_shared(b"op-2-op-", 2))
    await store.commit(_shared(b"op-1-op-", 1))
    assert bytes((await store.tiers("default", None)).app_state["n"]) == b"2"
    await store.close()


async def test_a_restarted_server_has_all_that_was_acknowledged(server: Server) -> None:
    """It syncs every write; and it has forgotten the scripts, which it is told again."""
    async with SessionManager.open(f"{server.url}?prefix=restart&timeout=20") as sessions:
        session = await sessions.create(id="s")
        for number in range(5):
            await sessions.append(session, Event(kind="note", body=number))
            server.kill()
            server.start()
        server.ask("SCRIPT", "FLUSH")
        await sessions.append(session, Event(kind="note", body=5))
        assert [event.body for event in await log_of(sessions, "s")] == list(range(6))


async def test_another_server_behind_the_same_name_is_found(server: Server) -> None:
    """A master became a replica and kept our lines: they are left, whoever is master now is asked.

    So it is where a name or an address is moved when a master is replaced.
    """
    servers = Servers()
    try:
        other = servers.add()
        async with Proxy(server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/?prefix=moved&timeout=20"
            async with SessionManager.open(url) as sessions:
                session = await sessions.create(id="s", state={"n": 0})
                other.ask("REPLICAOF", "127.0.0.1", server.port)
                eventually(
                    "copying",
                    lambda: (
                        other.info("replication")["master_sync_in_progress"] == 0
                        and other.ask("DBSIZE") > 0
                    ),
                )
                other.ask("REPLICAOF", "NO", "ONE")
                server.ask("REPLICAOF", "127.0.0.1", other.port)
                proxy.lead_to(other.port)
                await sessions.append(session, Event(kind="note"), state={"n": 1}, conflict="fail")
                assert (await sessions.require("s")).state["n"] == 1
        async with SessionManager.open(f"{server.url}?timeout=1") as sessions:
            with pytest.raises(ReadOnly):
                await sessions.create(id="t")
    finally:
        server.ask("REPLICAOF", "NO", "ONE")
        servers.stop()


@scaled
async def test_a_frozen_server_lets_every_call_end_in_time(server: Server) -> None:
    limit = 2.0
    url = f"{server.url}?prefix=frozen&timeout={limit}"
    await let_every_call_end(url, limit, freeze=server.freeze, thaw=server.thaw)


async def test_strict_writers_of_two_stores_never_both_win(server: Server) -> None:
    url = f"{server.url}?prefix=strict"
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


async def test_merging_writers_of_two_stores_all_get_through(server: Server) -> None:
    url = f"{server.url}?prefix=merging"
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


@pytest.mark.parametrize("kind", ["server", "cluster"])
async def test_several_processes_agree(server: Server, kind: str) -> None:
    """Strict saves, leases and watching hold across processes: every step counts once."""
    cluster = Cluster(replicas=0) if kind == "cluster" else None
    times, names = count(10, 200), ("a", "b", "c")
    try:
        url = f"{cluster.url if cluster else server.url}?prefix=several&timeout=30"
        async with SessionManager.open(url) as sessions, asyncio.timeout(3600):
            for id in ("strict", "leased", "log"):
                await sessions.create(id=id, user=id, state={"n": 0})
            watching = asyncio.ensure_future(_follow(sessions, times * len(names)))
            worker = Path(__file__).parent / "workers" / "postgres_client.py"
            started = [
                await asyncio.create_subprocess_exec(
                    sys.executable, str(worker), url, name, str(times)
                )
                for name in names
            ]
            assert [await process.wait() for process in started] == [0] * len(names)
            seen = await watching
            assert (await sessions.require("strict")).state["n"] == times * len(names)
            assert (await sessions.require("leased")).state["n"] == times * len(names)
            assert seen == [event.body for event in await log_of(sessions, "log")]
            for name in names:
                assert [n for who, n in seen if who == name] == list(range(times))
            assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can
    finally:
        if cluster is not None:
            cluster.stop()


async def _follow(sessions: SessionManager, count_: int) -> list[Any]:
    seen: list[Any] = []
    async for event in sessions.watch("log"):
        seen.append(event.body)
        if len(seen) == count_:
            break
    return seen


async def test_a_full_server_says_so_and_keeps_nothing_by_halves(server: Server) -> None:
    async with SessionManager.open(f"{server.url}?prefix=full") as sessions:
        session = await sessions.create(id="s", state={"n": 0})
        server.ask("CONFIG", "SET", "maxmemory", "1mb")
        try:
            with pytest.raises(StorageFull):
                await sessions.append(session, Event(kind="note", body="x"), state={"n": 1})
            assert (await sessions.require("s")).state["n"] == 0
        finally:
            server.ask("CONFIG", "SET", "maxmemory", "0")
        await sessions.append(session, Event(kind="note", body="y"), state={"n": 2})
        assert [event.body for event in await log_of(sessions, "s")] == ["y"]


async def test_a_server_whose_disk_is_full_says_so_and_goes_on_once_there_is_space() -> None:
    servers = Servers()
    try:
        server = servers.add("--appendonly", "yes", "--appendfsync", "everysec")
        async with SessionManager.open(f"{server.url}?timeout=5") as sessions:
            session = await sessions.create(id="s", state={"n": 0})
            server.let_files_grow(to=100_000)
            written: list[int] = []

            async def write() -> None:
                for number in range(1, 1_000):
                    event = Event(kind="note", body="x" * 10_000)
                    await sessions.append(session, event, state={"n": number})
                    written.append(number)

            with pytest.raises(StorageFull, match="disk is full"):
                await write()
            assert (await sessions.require("s")).state["n"] == written[-1]
            assert len(await log_of(sessions, "s")) == len(written)
            server.let_files_grow()
            eventually(
                "writing again", lambda: server.info("persistence")["aof_last_write_status"] == "ok"
            )
            await sessions.append(session, Event(kind="note", body="y"), state={"n": -1})
        server.ask("CONFIG", "SET", "appendfsync", "always")
        server.ask("SET", "synced", "1")
        server.kill()
        server.start()
        async with SessionManager.open(server.url) as sessions:
            assert (await sessions.require("s")).state["n"] == -1
            assert len(await log_of(sessions, "s")) == len(written) + 1
    finally:
        servers.stop()


@pytest.mark.parametrize("remove", ["delete", "forget", "end", "reap"])
async def test_nothing_is_left_of_what_was_removed(server: Server, remove: str) -> None:
    """No key has the id in its name or in what it holds, whatever the session had."""
    await leaves_nothing(f"{server.url}?prefix={remove}", [server], remove)


async def leaves_nothing(url: str, servers: list[Server], remove: str) -> None:
    """Check that a session of every kind of thing is removed wholly from some servers."""
    async with SessionManager.open(url) as sessions:
        id, user = f"needle-{remove}", f"thread-{remove}"
        session = await sessions.create(
            id=id, user=user, labels={"name": f"{id}-label"}, exclusive=("name",),
            state={"x": id, "user:y": user, "app:z": 1}, expiry=Expiry(idle=3600, absolute=7200),
        )  # fmt: skip
        await sessions.create(id=f"{id}-other", parent=id, user=user)
        await sessions.delete(f"{id}-other")
        left = [text for text in values_in(servers) if f"{id}-other".encode() in text]
        assert not left, left[:3]
        child = await sessions.create(id=f"{id}-child", parent=id, user=user)
        await sessions.append(session, Event(kind=f"{id}-kind", body=id, id=f"{id}-event"))
        await sessions.truncate(session, after=0)
        await sessions.append(session, Event(kind=f"{id}-kind", body=id, id=f"{id}-event"))
        docs = sessions.documents(id)
        await docs.put("files", f"{id}-key", id.encode() * 10_000)
        await docs.put("files", f"{id}-short", b"", ttl=3600)
        async with sessions.lease(id, ttl=30) as lease:
            await sessions.append(session, Event(kind="note", body=id), lease=lease)
        await sessions.append(child, Event(kind="note", body=id), state={"user:z": user})
        assert any(id.encode() in text for text in values_in(servers)), "it is there before"
        if remove == "forget":
            await sessions.forget(user)
        elif remove == "end":
            await sessions.end(id, reason="done")
        elif remove == "delete":
            await sessions.delete(id)
        else:
            await sessions.end(f"{id}-child", reason="done")
            await sessions.end(id, reason="done", retain=0.000001)
            await sessions.store.reap(Due(app="default", now=1 << 52, limit=10))
    left = [text for text in values_in(servers) if id.encode() in text]
    assert not left, left[:3]
    if remove == "forget":
        left = [text for text in values_in(servers) if user.encode() in text]
        assert not left, left[:3]

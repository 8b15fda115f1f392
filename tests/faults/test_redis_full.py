"""A Redis server whose memory is full: it takes nothing new, and whatever makes room or logs out.

Under `noeviction`, as the documentation asks for: nothing but removing makes room again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.servers.redis import Cluster, Servers, eventually, values_in

from sojourn import (
    DELETE,
    Ended,
    EndFailed,
    Event,
    Expiry,
    Phase,
    Reaper,
    Session,
    SessionManager,
    StorageFull,
)
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.servers.redis import Server

pytestmark = pytest.mark.xdist_group("redis")


@pytest.fixture(scope="module", params=["server", "cluster"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """One server, and a cluster."""
    made = Servers() if request.param == "server" else Cluster(replicas=0)
    try:
        if request.param == "server":
            made.add()
        yield made
    finally:
        made.stop()


@pytest.fixture
def url(servers: Servers, request: pytest.FixtureRequest) -> str:
    """Where they are; each test has keys of its own."""
    server = servers.servers[0]
    place = servers.url if isinstance(servers, Cluster) else server.url
    return f"{place}?prefix={request.node.name.partition('[')[0]}"


@contextmanager
def full(servers: Sequence[Server]) -> Iterator[None]:
    """Have servers take nothing that may need memory."""
    for server in servers:
        server.ask("SCRIPT", "FLUSH")  # as after a restart: telling it the scripts has to go on
        server.ask("CONFIG", "SET", "maxmemory", "1mb")
    try:
        yield
    finally:
        for server in servers:
            server.ask("CONFIG", "SET", "maxmemory", "0")


async def takes_nothing(sessions: SessionManager, session: Session) -> None:
    """Check that ordinary writes are refused, each wholly."""
    before = await sessions.require(session.id, events=10)
    with pytest.raises(StorageFull):
        await sessions.append(session, Event(kind="note"), state={"n": -1})
    with pytest.raises(StorageFull):
        await sessions.label(session, {"a": "b"})
    with pytest.raises(StorageFull):
        await sessions.documents(session).put("files", "new", b"x")
    with pytest.raises(StorageFull):
        await sessions.create(id="new", user="u")
    with pytest.raises(StorageFull):
        await sessions.share({"user:new": 1}, user="u")
    after = await sessions.require(session.id, events=10)
    assert (after.header, after.events) == (before.header, before.events)
    assert await sessions.get("new") is None


async def test_what_removes_or_ends_goes_through_and_nothing_else(
    servers: Servers, url: str
) -> None:
    clock = FakeClock()
    async with SessionManager.open(url, clock=clock) as sessions:
        stays = await sessions.create(id="stays", user="v", state={"n": 1, "app:z": 1})
        for number in range(20):
            await sessions.create(
                id=f"due-{number}",
                user=f"u{number % 3}",
                state={"user:y": number, "x": "x" * 1_000},
                labels={"seat": str(number)},
                exclusive=("seat",),
                expiry=Expiry(idle=60),
            )
        for id in ("deleted", "finished", "retained"):
            await sessions.create(id=id, user="v", labels={"seat": id}, exclusive=("seat",))
            await sessions.create(id=f"{id}-child", parent=id)
            await sessions.documents(id).put("files", "k", b"x" * 1_000)
        for id in ("forgotten", "bound"):
            session = await sessions.create(id=id, user="w" if id == "forgotten" else None)
            await sessions.bind(session, user="w")
            await sessions.append(session, Event(kind="note"), state={"user:w": id})
        clock.advance(60)
        with full(servers.servers):
            await takes_nothing(sessions, stays)
            assert await Reaper(sessions).sweep() == 20
            assert await sessions.delete("deleted")
            assert await sessions.end("finished", reason="enough")
            assert await sessions.end("retained", reason="enough", retain=3_600)
            assert await sessions.forget("w") == 2
            await takes_nothing(sessions, stays)
        assert (await sessions.require("retained")).phase is Phase.ENDED
        left = values_in(servers.servers)
        for gone in (b"due-", b"deleted", b"finished", b"forgotten", b"bound"):
            found = [text for text in left if gone in text]
            assert not found, found[:3]
        assert (await sessions.create(labels={"seat": "1"}, exclusive=("seat",))).revision == 1
        await sessions.append(stays, Event(kind="note"), state={"n": 2})
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can


async def test_parts_of_sessions_can_be_removed(servers: Servers, url: str) -> None:
    """Documents, tails and shared keys, by their owners, and by a sweep once their time is up."""
    clock = FakeClock()
    async with SessionManager.open(url, clock=clock) as sessions:
        session = await sessions.create(id="s", user="u", state={"user:y": 1, "app:z": 1})
        await sessions.append(session, *(Event(kind="note", body=n) for n in range(5)))
        docs = sessions.documents("s")
        for name in ("dropped", "replaced"):
            await docs.put("files", name, b"x" * 1_000)
        await docs.put("files", "passing", b"x" * 1_000, ttl=60)
        await docs.put("files", "later", b"x" * 1_000, ttl=600)
        clock.advance(60)
        with full(servers.servers):
            await docs.drop("files", "dropped")
            await sessions.truncate(session, after=2)
            await sessions.share({"user:y": DELETE, "app:z": DELETE}, user="u")
            assert await Reaper(sessions).sweep() == 0
            with pytest.raises(StorageFull):
                await docs.put("files", "replaced", b"y")
        found = await sessions.require("s", events=10)
        assert ([event.body for event in found.events], dict(found.state)) == ([0, 1], {})
        assert {item.key for item in (await docs.list("files"))} == {"replaced", "later"}
        left = values_in(servers.servers)
        assert not [text for text in left if b"dropped" in text or b"passing" in text]
        clock.advance(600)
        await Reaper(sessions).sweep()
        assert {item.key for item in (await docs.list("files"))} == {"replaced"}


async def test_an_end_that_fails_is_noted_and_tried_again(servers: Servers, url: str) -> None:
    async with SessionManager.open(url) as sessions:
        session = await sessions.create(id="s", user="u")
        failing = [RuntimeError("not yet")]

        @sessions.on_end
        async def clean(_session: Session, _reason: str) -> None:
            if failing:
                raise failing.pop()

        with full(servers.servers):
            with pytest.raises(EndFailed):
                await sessions.end("s")
            assert (await sessions.require("s")).header.attempts == 1
            await takes_no_event(sessions, session)
            assert await sessions.finish("s")
            assert await sessions.get("s") is None


async def takes_no_event(sessions: SessionManager, session: Session) -> None:
    """Check that a session that is ending takes no writes, whether there is memory or not."""
    with pytest.raises(Ended):
        await sessions.append(session, Event(kind="note"))


async def test_removing_makes_room_for_ordinary_writes() -> None:
    """The limit stays where it is: what was in the way is gone."""
    servers = Servers()
    try:
        server = servers.add("--maxmemory-policy", "noeviction")
        async with SessionManager.open(server.url) as sessions:
            for number in range(64):
                await sessions.create(user=f"u{number % 2}", state={"x": "x" * 100_000})
            used = int(server.info("memory")["used_memory"])
            server.ask("CONFIG", "SET", "maxmemory", used - 100_000)
            with pytest.raises(StorageFull):
                await sessions.create(id="s")
            assert await sessions.forget("u0") == 32
            eventually(
                "making room",  # it is done aside
                lambda: int(server.info("memory")["used_memory"]) < used - 1_000_000,
            )
            assert (await sessions.create(id="s")).revision == 1
            assert await sessions.count() == 33
    finally:
        servers.stop()

"""A PostgreSQL store with several hosts: silent ones are passed over, and replicas."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import pytest
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer, emptied, free_port

from sojourn import ReadOnly, SessionManager, Unavailable, open_store
from sojourn.stores.postgres import hosts
from sojourn.stores.postgres.hosts import Found, first_there
from sojourn.stores.postgres.pool import connect_calmly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.hosts import Place

SCHEMA = "hosts"
T = TypeVar("T")


class Silent:
    """A host that takes connections and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(100)
        self._socket.setblocking(False)
        self._taken: list[socket.socket] = []
        self.port: int = self._socket.getsockname()[1]

    def asked(self) -> int:
        """Return how many connections there were."""
        while True:
            try:
                self._taken.append(self._socket.accept()[0])
            except BlockingIOError:
                return len(self._taken)

    def close(self) -> None:
        """Hang up."""
        for one in (*self._taken, self._socket):
            one.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    """A silent host."""
    host = Silent()
    yield host
    host.close()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test has to wait for long at a silent host."""
    monkeypatch.setattr(hosts, "HOST_SECONDS", 0.1)


@pytest.fixture
def password(postgres: PostgresServer) -> str:
    """The one password of all servers. The store is made, and empty."""
    asyncio.run(opened(postgres.url(schema=SCHEMA)))
    asyncio.run(emptied(postgres.url(schema=SCHEMA)))
    return postgres.password


async def opened(url: str) -> None:
    """Make the store, if it is not there."""
    store = open_store(url)
    await store.open()
    await store.close()


@pytest.fixture
def second(password: str) -> Iterator[PostgresServer]:
    """A server of its own with the password of the others."""
    server = PostgresServer()
    try:
        server.start()
        asyncio.run(take_password(server, password))
        yield server
    finally:
        server.stop()


async def take_password(server: PostgresServer, password: str) -> None:
    """Give a server another password."""
    db = await asyncpg.connect(server.url())
    await db.execute(f"ALTER ROLE tester PASSWORD '{password}'")
    await db.close()
    server.password = password


@pytest.fixture
def replica(second: PostgresServer) -> PostgresServer:
    """A server that only reads, and waits for what its primary will never say."""
    second.kill()
    (second.folder / "data" / "standby.signal").touch()
    second.start()
    return second


def url_of(password: str, *ports: int, **options: object) -> str:
    """Return the URL of a store with several hosts."""
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    query = "&".join(f"{name}={value}" for name, value in {"schema": SCHEMA, **options}.items())
    return f"postgresql://tester:{password}@{places}/postgres?{query}"


def address_of(url: str) -> Address:
    """Return the place that a URL names."""
    return open_store(url)._address  # type: ignore[attr-defined,no-any-return]  # its own


async def test_a_silent_host_is_asked_once_and_passed_over(
    postgres: PostgresServer, password: str, silent: Silent
) -> None:
    """Whoever connects next begins with the host that was there."""
    said: list[str] = []
    handler = lambda _loop, context: said.append(str(context))  # noqa: E731 - for one use
    asyncio.get_running_loop().set_exception_handler(handler)
    async with SessionManager.open(url_of(password, silent.port, postgres.port)) as sessions:
        session = await sessions.create(id="s")
        await asyncio.gather(*(sessions.get("s") for _ in range(20)))
        session.state["n"] = 1
        await sessions.save(session)
        assert silent.asked() == 1
    gc.collect()
    assert said == []


async def test_so_it_is_behind_a_pooler_and_by_those_with_a_connection_of_their_own(
    postgres: PostgresServer, password: str, silent: Silent
) -> None:
    with PgBouncer(postgres, "transaction") as bouncer:
        url = url_of(password, silent.port, bouncer.port, pooler="transaction")
        async with SessionManager.open(url) as sessions:
            await sessions.create(id="s")
    connection = await connect_calmly(address_of(url_of(password, silent.port, postgres.port)))
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    assert silent.asked() == 2


async def test_an_open_store_leaves_a_host_that_freezes(
    postgres: PostgresServer, password: str, second: PostgresServer
) -> None:
    """What waits on its old connections fails in time; the next calls are answered."""
    url = url_of(password, second.port, postgres.port, pool_size=1, timeout=3)
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s")
        second.freeze()
        with pytest.raises(Unavailable):
            await sessions.get("s")
        assert await answered(lambda: sessions.get("s")) is None  # it was made at the other one
        with pytest.raises(Unavailable):
            await sessions.create(id="t")
        await answered(lambda: sessions.get_or_create("u"))
        assert await answered(lambda: sessions.get("u")) is not None


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call returns; on a busy machine its time may be up once or twice."""
    for _ in range(4):
        with contextlib.suppress(Unavailable):
            return await call()
    return await call()


@pytest.mark.parametrize("others", ["silent", "refusing"])
async def test_nobody_there_is_told_within_the_time_limit(
    password: str, silent: Silent, others: str
) -> None:
    ports = [silent.port, silent.port if others == "silent" else free_port()]
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await open_store(url_of(password, *ports, timeout=0.5)).open()
    assert time.monotonic() - started < 30
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert "did not answer in time" in str(caught.value)


@pytest.mark.parametrize("pooler", ["session", "transaction"])
async def test_a_replica_is_passed_over_and_alone_it_is_refused(
    postgres: PostgresServer, password: str, replica: PostgresServer, pooler: str
) -> None:
    """The second option is how a pooler is asked; without one it is the same."""
    url = url_of(password, replica.port, postgres.port, pooler=pooler)
    async with SessionManager.open(url) as sessions:
        await sessions.create(id=pooler)
    for ports in ((replica.port,), (replica.port, replica.port)):
        with pytest.raises(ReadOnly, match="it is a replica, which can not be written"):
            await open_store(url_of(password, *ports, pooler=pooler, timeout=2)).open()
    with pytest.raises(Unavailable, match="Connect call failed"):
        await open_store(url_of(password, free_port(), replica.port, pooler=pooler)).open()


async def test_what_a_host_refuses_the_others_are_not_asked(
    postgres: PostgresServer, password: str, silent: Silent
) -> None:
    url = url_of("wrong", postgres.port, silent.port)
    with pytest.raises(Unavailable, match="password authentication failed"):
        await open_store(url).open()
    assert silent.asked() == 0
    assert password not in url


# --- shares of the time -------------------------------------------------------------------------


async def test_a_slow_host_is_asked_again_with_the_time_that_is_left() -> None:
    """The others are not there: it must not be given up after its first share."""
    asked: list[Place | None] = []
    slow, absent = ("slow", 1), ("absent", 2)

    async def make(place: Place | None) -> str:
        asked.append(place)
        if place == absent:
            raise ConnectionRefusedError
        if asked.count(slow) == 1:
            await asyncio.Event().wait()
        return "made"

    found = Found()
    assert await first_there([slow, absent], found, make, 30) == "made"
    assert (asked, found.place) == ([slow, absent, slow], slow)


async def test_one_place_has_all_the_time() -> None:
    """It is asked once, and its own error is raised."""
    asked = 0

    async def make(_place: Place | None) -> str:
        nonlocal asked
        asked += 1
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await first_there([None], Found(), make, 30)
    assert asked == 1

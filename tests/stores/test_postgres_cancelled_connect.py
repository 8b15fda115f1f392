"""Calls that are cancelled while a connection is made: nobody is told, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import open_store
from sojourn.stores.postgres import pool as pools
from sojourn.stores.postgres.pool import Pool, connect_calmly
from sojourn.stores.postgres.watch import Watchers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.servers.postgres import PostgresServer

    from sojourn.stores.postgres.address import Address

STEPS = 60
"""Turns of the loop after which a call is cancelled: more than it takes to begin to talk."""


def address_of(url: str) -> Address:
    """Return the place that a URL names."""
    return open_store(url)._address  # type: ignore[attr-defined,no-any-return]  # its own


async def nothing(_connection: object) -> None:
    """Do no work."""


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


async def turns(number: int) -> None:
    """Let others have so many turns."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", ["pool", "own"])
async def test_a_driver_that_is_interrupted_says_nothing(
    postgres: PostgresServer, way: str
) -> None:
    """Wherever in the making of a connection that happens."""
    said: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: said.append(str(context)))
    address = address_of(postgres.url(schema="calm"))
    for number in range(STEPS):
        pool = Pool(address, 1)
        work: Coroutine[Any, Any, Any] = (
            pool.run(nothing) if way == "pool" else connect_calmly(address)
        )
        task = asyncio.create_task(work)
        await turns(number)
        if way == "own" and task.done():
            task.result().terminate()
        await cancelled(task)
        await pool.close()
    gc.collect()
    assert said == []


class Made:
    """Connections that are made when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.making: list[asyncio.Future[Any]] = []
        self.made: list[Any] = []
        monkeypatch.setattr(pools, "connect", self._connect)

    async def _connect(self, *_: object) -> Any:
        self.making.append(asyncio.get_running_loop().create_future())
        return await self.making[-1]

    def arrive(self, number: int = 0) -> Connection:
        """Have one be there."""
        self.made.append(Connection())
        self.making[number].set_result(self.made[-1])
        return self.made[-1]  # type: ignore[no-any-return]  # it is one


class Connection:
    """As much of a connection as a pool asks for."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        """Return whether it was closed."""
        return self.closed

    def is_in_transaction(self) -> bool:
        """Return whether somebody forgot to end one."""
        return False

    def terminate(self) -> None:
        """Close at once."""
        self.closed = True

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the driver's own
        """Close."""
        assert timeout
        self.closed = True


@pytest.fixture
def pool() -> Pool:
    """A pool of one connection."""
    return Pool(address_of("postgresql://nowhere/db"), 1)


async def begun(pool: Pool, made: Made) -> asyncio.Task[Any]:
    """Begin a call, and return once a connection is made for it, or waited for."""

    async def used(connection: Connection) -> Connection:
        return connection

    task = asyncio.create_task(pool.run(used))
    await turns(3)
    assert made.making
    return task


async def test_the_next_call_takes_the_connection_over(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is made, and once it is there; no second one is made."""
    made = Made(monkeypatch)
    for _ in range(3):
        await cancelled(await begun(pool, made))
    task = await begun(pool, made)
    connection = made.arrive()
    assert await task is connection
    assert await (await begun(pool, made)) is connection
    await pool.close()
    assert (len(made.making), connection.closed) == (1, True)


async def test_a_connection_that_nobody_waits_for_is_kept(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(monkeypatch)
    await cancelled(await begun(pool, made))
    connection = made.arrive()
    await turns(3)
    assert await (await begun(pool, made)) is connection
    await pool.close()
    assert len(made.making) == 1


async def test_one_that_fails_later_is_forgotten(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(monkeypatch)
    await cancelled(await begun(pool, made))
    made.making[0].set_exception(ConnectionRefusedError())
    await turns(3)
    task = await begun(pool, made)
    connection = made.arrive(1)
    assert await task is connection
    await pool.close()


async def test_one_that_takes_long_is_not_waited_for(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may be back by now."""
    monkeypatch.setattr(pools, "FRESH_SECONDS", 0)
    made = Made(monkeypatch)
    await cancelled(await begun(pool, made))
    task = await begun(pool, made)
    await turns(3)
    assert made.making[0].cancelled()
    connection = made.arrive(1)
    assert await task is connection
    await pool.close()


@pytest.mark.parametrize("leave", [Pool.close, Pool.let_go])
async def test_nothing_outlives_the_pool(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, leave: Callable[[Pool], Any]
) -> None:
    """One that arrives meanwhile is closed, one that does not is given up."""
    made = Made(monkeypatch)
    await cancelled(await begun(pool, made))
    closing = asyncio.create_task(leave(pool))
    await turns(3)
    connection = made.arrive()
    await closing
    assert connection.closed
    assert len(asyncio.all_tasks()) == 1


async def test_a_server_that_hangs_does_not_keep_the_pool_open(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "LEAVING_SECONDS", 0)
    made = Made(monkeypatch)
    await cancelled(await begun(pool, made))
    await pool.close()
    assert made.making[0].cancelled()
    assert len(asyncio.all_tasks()) == 1


async def test_a_watch_that_was_left_is_waited_for_at_the_end(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection was being made: it is closed before the store is."""
    made = Made(monkeypatch)
    watchers = Watchers(pool._address, pool)
    watchers.subscribe(("app", "id")).close()  # before it has begun
    wakeup = watchers.subscribe(("app", "id"))
    await turns(3)
    of_the_poll, of_the_listener = range(2)
    assert len(made.making) == 2
    wakeup.close()
    closing = asyncio.create_task(watchers.close())
    await turns(3)
    assert not closing.done()
    connection = made.arrive(of_the_listener)
    await closing
    assert connection.closed
    made.arrive(of_the_poll)
    await pool.close()
    assert len(asyncio.all_tasks()) == 1

"""Connections: a few, opened when needed, thrown away when in doubt, and never waited for in vain.

Every call has a time limit. A connection whose call failed, timed out or was cancelled is not used
again: what comes back on it later would be taken for somebody else's answer. A call that failed
because the connection did is made again, on a new one, until its time is up.

One that is still being made when its call is cancelled is left to the next call: the driver can not
give it up without telling the event loop of an error that nobody asked for.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import asyncpg

from sojourn.errors import Closed, ReadOnly, SojournError, Unavailable
from sojourn.stores.postgres.hosts import first_there
from sojourn.stores.postgres.trouble import DRIVER_ERRORS, breaks, forget_frames, mapped, passes
from sojourn.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.hosts import Place

T = TypeVar("T")
Connection = Any
"""`asyncpg.Connection`, whose annotations depend on its version."""

FIRST_PAUSE = 0.005
"""Seconds before a call is made again; it doubles from here."""

LAST_PAUSE = 1.0
"""Longest pause: a server that is back is noticed within a second."""

STOPS = 2
"""Times that the server cancels a call before it is given up: what takes too long for its
`statement_timeout` will do so again, and others wait meanwhile."""

CLOSING_SECONDS = 2.0
"""Time for a connection to say goodbye; after that it is just dropped."""

FRESH_SECONDS = 1.0
"""Age of a connection in the making up to which another call waits for it, and makes no other."""

LEAVING_SECONDS = 0.5
"""How long a connection in the making that nobody wants is waited for before it is given up."""

SEARCH_PATH = "SET search_path = pg_catalog, pg_temp"
"""Look for functions and operators nowhere but among the server's own: what somebody else made in
another schema could fit better, and would run with our rights. Our tables are named with theirs."""

SETTINGS = f"SET jit = off; SET default_transaction_isolation = 'read committed'; {SEARCH_PATH}"
"""The statements are short, and compiling them takes longer than running them. What waited for a
lock has to see what its holder did, whatever the server, the database or the role has as default.
"""


class _Attempt(NamedTuple):
    """A connection in the making, and the loop's time since when."""

    task: asyncio.Task[Connection]
    since: float


class Pool:
    """Up to so many connections to one place."""

    def __init__(self, address: Address, size: int, *, settings: str = SETTINGS) -> None:
        """Nothing is opened yet. Each connection begins with `settings`, see `connect`."""
        self._address = address
        self._settings = settings
        self._free = asyncio.Semaphore(size)
        self._size = size
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._left: list[_Attempt] = []  # those whose calls were cancelled; with the others <= size
        self._closed = False
        self._timeouts = Timeouts()

    async def run(
        self,
        work: Callable[[Connection], Awaitable[T]],
        *,
        until: float | None = None,
        again: bool = True,
    ) -> T:
        """Return what `work` returns with a connection; make it again after passing trouble.

        `until` is the loop's time at which the call ends. Raises what `work` refuses with (a
        `SojournError`), or `Unavailable` with the driver's error as its cause.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._address.timeout if until is None else until
        pause = FIRST_PAUSE
        stopped = 0
        while True:
            try:
                return await self._once(work, deadline)
            except asyncpg.UniqueViolationError:
                raise  # the caller's to meet: somebody else was first
            except DRIVER_ERRORS as error:
                pause = min(pause * 2, LAST_PAUSE)
                wait = pause * random.uniform(0.5, 1)  # noqa: S311 - only spreads the retries
                stopped += isinstance(error, asyncpg.QueryCanceledError)
                may_pass = again and passes(error) and stopped < STOPS
                if not may_pass or loop.time() + wait >= deadline:
                    raise mapped(error, self._address.shown) from error
            await asyncio.sleep(wait)

    async def _once(self, work: Callable[[Connection], Awaitable[T]], deadline: float) -> T:
        await self._wait_for_turn(deadline)
        try:
            with self._timeouts.call(deadline):
                connection = await self._take()
                try:
                    result = await self._work(connection, work)
                except BaseException as error:
                    self._give_back(connection, broken=breaks(error))
                    raise
                self._give_back(connection, broken=False)
                return result
        finally:
            self._free.release()

    async def _wait_for_turn(self, deadline: float) -> None:
        if self._closed:
            raise Closed(self._address.shown)
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError as error:
            reason = f"its {self._size} connections were busy for too long; see pool_size"
            raise Unavailable(self._address.shown, reason) from error

    async def _work(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the work.

        Behind a transaction pooler, in a transaction: else each message of a statement may go to
        another connection of the server.
        """
        if not self._address.pooler or connection.is_in_transaction():
            return await work(connection)
        async with connection.transaction(isolation="read_committed"):  # see `SETTINGS`
            return await work(connection)

    async def _take(self) -> Connection:
        """Return an idle connection, or a new one."""
        if self._closed:
            raise Closed(self._address.shown)
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._used.add(connection)
                return connection
        attempt = self._attempt()
        try:
            connection = await asyncio.shield(attempt.task)
        except asyncio.CancelledError:
            self._leave(attempt)
            raise
        self._used.add(connection)
        return connection

    def _attempt(self) -> _Attempt:
        """Return a connection in the making that was left, or begin to make one."""
        now = asyncio.get_running_loop().time()
        for attempt in self._left:
            if now - attempt.since < FRESH_SECONDS:
                self._left.remove(attempt)
                return attempt
        for attempt in self._left:  # the server may be back, and they would never learn of it
            attempt.task.cancel()
        return _Attempt(asyncio.create_task(connect(self._address, self._settings)), now)

    def _leave(self, attempt: _Attempt) -> None:
        """Keep a connection in the making for the next call."""
        self._left.append(attempt)
        attempt.task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[Connection]) -> None:
        """Keep a connection that is there by now, if it is not somebody's again."""
        left = [attempt for attempt in self._left if attempt.task is not task]
        if len(left) == len(self._left):
            return
        self._left = left
        if _came(task):
            self._idle.append(task.result())

    def _give_back(self, connection: Connection, *, broken: bool) -> None:
        self._used.discard(connection)
        if broken or self._closed or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            self._idle.append(connection)

    async def let_go(self) -> None:
        """Close the connections that nobody uses; more are opened when they are needed."""
        left, self._left = self._left, []
        await _drop([attempt.task for attempt in left])
        idle, self._idle = self._idle, []
        for connection in idle:
            await say_goodbye(connection)

    async def close(self) -> None:
        """Let calls that are under way finish, then close. Twice is fine."""
        self._closed = True
        for _ in range(self._size):
            await self._free.acquire()
        await self.let_go()
        self._timeouts.close()
        for _ in range(self._size):
            self._free.release()


def _came(task: asyncio.Task[Connection]) -> bool:
    """Return whether a connection was made; if not, nobody has to be told why."""
    return not task.cancelled() and task.exception() is None


async def _drop(tasks: Sequence[asyncio.Task[Connection]]) -> None:
    """End connections in the making, in bounded time."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=LEAVING_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if _came(task):
            task.result().terminate()


async def connect_calmly(address: Address) -> Connection:
    """Do what `connect` does; cancelled, wait a little for what is under way, and drop it."""
    task = asyncio.create_task(connect(address))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _drop([task])
        raise


async def connect(address: Address, settings: str = SETTINGS) -> Connection:
    """Return a new connection to the host that is the primary. Raises what the driver does.

    `settings` are said once it is there: among the first words, a pooler refuses them. Behind a
    transaction pooler they are left out, as they would be said to one connection of many.
    """

    def make(place: Place | None) -> Awaitable[Connection]:
        return _made(address, settings, place)

    return await first_there(address.places(), address.found, make, address.timeout)


async def _made(address: Address, settings: str, place: Place | None) -> Connection:
    """Return a connection to one host, or to what the driver finds; the caller limits the time."""
    try:
        connection = await asyncpg.connect(**address.arguments(place), timeout=address.timeout)
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        forget_frames(error)
        raise Unavailable(address.shown, f"it can not be connected to: {error}") from error
    except BaseException as error:
        forget_frames(error)
        raise
    try:
        if address.pooler:
            await _check_primary(connection, address)
        else:
            await connection.execute(settings)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _check_primary(connection: Connection, address: Address) -> None:
    """Raise `ReadOnly` for a replica. The driver would ask outside of a transaction."""
    async with connection.transaction():
        if await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()"):
            raise ReadOnly(address.shown, "it is a replica, which can not be written")


@asynccontextmanager
async def one_moment(connection: Connection) -> AsyncIterator[None]:
    """Have all reads of the block see one moment, also in a transaction that has just begun."""
    if connection.is_in_transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
        return
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        yield


async def say_goodbye(connection: Connection) -> None:
    """Close a connection decently, or drop it if that takes too long."""
    try:
        await connection.close(timeout=CLOSING_SECONDS)
    except (*DRIVER_ERRORS, SojournError):
        connection.terminate()

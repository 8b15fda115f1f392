"""One connection to one server: commands leave together, replies are handed out in their order.

A reply that does not come within its time costs the connection: whatever is under way on it is
`Lost`, what was not sent yet is thrown away with it, and nobody waits for a server that hangs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from hiredis import pack_command
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.redis.options import Options

Address: TypeAlias = tuple[str, int]
"""Host and port of a server."""

Command: TypeAlias = "Sequence[str | bytes | int]"
"""One command, its name first."""

Reply: TypeAlias = Any
"""What a server answers; an error that it answers with is the exception itself."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""Closing throws away what was not sent, instead of sending it whenever the network is back."""


class LostError(Exception):
    """A connection broke, or was given up, while something was under way on it."""


class _Flight:
    """Commands that were sent together, and what has come back of them."""

    __slots__ = ("commands", "future", "replies", "timer")

    def __init__(self, commands: Sequence[Command], future: asyncio.Future[list[Reply]]) -> None:
        self.commands = commands
        self.future = future
        self.replies: list[Reply] = []
        self.timer: asyncio.TimerHandle | None = None

    def land(self, error: Exception | None = None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.future.done():  # its caller is gone
            return
        if error is None:
            self.future.set_result(self.replies)
        else:
            self.future.set_exception(error)
            self.future.exception()  # its caller may be gone: that is no error of the program


class Wire:
    """A connection that is made when it is needed, once; a new one is a new `Wire`."""

    def __init__(self, address: Address, options: Options, patience: float) -> None:
        """Name the server; nothing is sent yet. It gets `patience` seconds to say hello."""
        self.address = address
        self._patience = patience
        self._connection = connection(address, options)
        self._ready: asyncio.Task[None] | None = None
        self._queue: list[_Flight] = []
        self._flights: deque[_Flight] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted = asyncio.Event()
        self.broken: Exception | None = None

    def send(self, commands: Sequence[Command], seconds: float) -> asyncio.Future[list[Reply]]:
        """Send commands; return the future of their replies, one for each.

        The future raises `LostError` when the connection breaks, or when not all replies are there
        after `seconds`. An error that the server answers with is a reply like any other.
        """
        loop = asyncio.get_running_loop()
        flight = _Flight(commands, loop.create_future())
        if self.broken is not None:
            flight.land(LostError("the connection is broken"))
            return flight.future
        if self._ready is None:
            self._ready = loop.create_task(self._run())
        flight.timer = loop.call_later(seconds, self._time_out, seconds)
        self._queue.append(flight)
        self._wanted.set()
        return flight.future

    async def _run(self) -> None:
        """Connect, then send what is queued, until the connection breaks."""
        try:
            async with asyncio.timeout(self._patience):
                await self._connection.connect()  # type: ignore[no-untyped-call]  # the driver's own lack
            self._tasks.append(asyncio.get_running_loop().create_task(self._read()))
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                flights, self._queue = self._queue, []
                if not flights:
                    continue
                self._flights.extend(flights)
                commands = [command for flight in flights for command in flight.commands]
                packed = [_packed(command) for command in commands]
                await self._connection.send_packed_command(packed, check_health=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is over
            self.drop(error)

    async def _read(self) -> None:
        """Hand out replies, in the order in which commands were sent, until there are no more."""
        read = self._connection.read_response
        try:
            while True:
                try:
                    reply: Reply = await read()
                except ResponseError as error:
                    reply = error
                flight = self._flights[0]
                flight.replies.append(reply)
                if len(flight.replies) == len(flight.commands):
                    self._flights.popleft().land()
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is over
            self.drop(error)

    def _time_out(self, seconds: float) -> None:
        self.drop(TimeoutError(f"no reply within {seconds:.3g} s"))

    def drop(self, error: Exception) -> None:
        """Break the connection at once: everything under way on it is lost."""
        if self.broken is not None:
            return
        self.broken = error
        for task in (self._ready, *self._tasks):
            if task is not None and task is not _current_task():
                task.cancel()
        self._connection.abort()
        lost = LostError(str(error) or type(error).__name__)
        lost.__cause__ = error
        for flight in (*self._flights, *self._queue):
            flight.land(lost)
        self._flights.clear()
        self._queue.clear()

    async def close(self) -> None:
        """Break the connection and return once its tasks are over."""
        self.drop(LostError("closed"))
        tasks = [task for task in (self._ready, *self._tasks) if task is not None]
        if tasks:
            await asyncio.wait(tasks)


def _packed(command: Command) -> bytes:
    """Return a command as it is sent: as the driver would, in C."""
    packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]  # it is typed as a pair's is
    return packed


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # in a callback of a loop that is being closed
        return None


class _Abortable:
    """A connection that can be thrown away at once."""

    _writer: asyncio.StreamWriter | None

    def abort(self) -> None:
        """Close without a farewell; what was not sent is not sent any more."""
        writer = self._writer
        if writer is None:
            return
        endpoint = writer.get_extra_info("socket")
        if endpoint is not None:
            with suppress(OSError):  # closed already
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()


class PlainConnection(_Abortable, Connection):
    """A connection in the clear."""


class SecureConnection(_Abortable, SSLConnection):
    """A connection through TLS."""


Connected: TypeAlias = PlainConnection | SecureConnection


def connection(address: Address, options: Options) -> Connected:
    """Return a connection that is not made yet. Its own retries and time limits are off."""
    settings: dict[str, Any] = {
        "host": address[0],
        "port": address[1],
        "db": options.database,
        "username": options.username,
        "password": options.password,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": options.attempt,
        "socket_keepalive": True,
        "client_name": "sojourn",
    }
    if not options.tls:
        return PlainConnection(**settings)
    return SecureConnection(
        **settings,
        ssl_ca_certs=options.ca,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
        ssl_check_hostname=True,
    )

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
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import hiredis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, ResponseError

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


NOTHING = object()
"""What stands for a reply that is not all there yet."""


class LostError(Exception):
    """A connection broke, or was given up, while something was under way on it."""


class Packed(NamedTuple):
    """Commands as they are sent, and how many replies come of them."""

    data: bytes
    replies: int


class _Flight:
    """Commands that were sent together, what has come back of them, and when that has to be all."""

    __slots__ = ("data", "due", "expected", "future", "replies", "seconds")

    def __init__(self, future: asyncio.Future[list[Reply]], due: float, seconds: float) -> None:
        self.data = b""
        self.expected = 0
        self.future = future
        self.due = due
        self.seconds = seconds
        self.replies: list[Reply] = []

    def land(self, error: Exception | None = None) -> None:
        if self.future.done():  # its caller is gone
            return
        if error is None:
            self.future.set_result(self.replies)
        else:
            self.future.set_exception(error)
            self.future.exception()  # its caller may be gone: that is no error of the program


class Wire(asyncio.Protocol):
    """A connection that is made when it is needed, once; a new one is a new `Wire`.

    The driver connects and says hello. From then on replies come to here straight from the socket:
    nobody has to be woken up to read them.
    """

    def __init__(self, address: Address, options: Options, patience: float) -> None:
        """Name the server; nothing is sent yet. It gets `patience` seconds to say hello."""
        self.address = address
        self._patience = patience
        self._connection = connection(address, options)
        self._connecting: asyncio.Task[None] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._reader = hiredis.Reader()
        self._queue: list[_Flight] = []
        self._flights: deque[_Flight] = deque()
        self._leaving = False
        self._full = False
        self._gone = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        """Rings when the first flight may be late: one for all, as nearly none ever is."""
        self.broken: Exception | None = None

    @property
    def is_ready(self) -> bool:
        """Whether what is sent now leaves now."""
        return self.broken is None and self._transport is not None

    def send(
        self, commands: Sequence[Command] | Packed, seconds: float
    ) -> asyncio.Future[list[Reply]]:
        """Send commands; return the future of their replies, one for each.

        The future raises `LostError` when the connection breaks, or when not all replies are there
        after `seconds`. An error that the server answers with is a reply like any other.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        flight = _Flight(loop.create_future(), due, seconds)
        try:
            sent = commands if type(commands) is Packed else packed(commands)  # type: ignore[arg-type]  # narrowed by `type`
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing of it is sent
            flight.land(_lost(error))
            return flight.future
        flight.data, flight.expected = sent
        if self.broken is not None:
            flight.land(LostError("the connection is broken"))
            return flight.future
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
        if self._alarm is None or due < self._alarm.when():
            self._set_alarm(due)
        self._queue.append(flight)
        if self._flights:
            self._leave_soon()
        else:
            self._leave()
        return flight.future

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._connection.connect()  # type: ignore[no-untyped-call]  # the driver's own lack
            self._transport, self._reader = self._connection.hand_over(self)
            self._leave()
        except TimeoutError:  # ours, which has no words
            self.drop(TimeoutError(f"no reply within {self._patience:.3g} s"))
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is over
            self.drop(error)

    def _leave_soon(self) -> None:
        """Send what is queued at the end of the loop's turn, so that more can come along."""
        if not self._leaving:
            self._leaving = True
            asyncio.get_running_loop().call_soon(self._leave)

    def _leave(self) -> None:
        """Send what is queued."""
        self._leaving = False
        if not self._queue or self._full or self._transport is None or self.broken is not None:
            return
        flights, self._queue = self._queue, []
        self._flights.extend(flights)
        try:
            if len(flights) == 1:
                self._transport.write(flights[0].data)
            else:
                self._transport.write(b"".join([flight.data for flight in flights]))
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is over
            self.drop(error)
        for flight in flights:
            flight.data = b""  # it may be large, and the reply may take long

    # --- what the transport calls --------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand out replies, in the order in which commands were sent."""
        if self.broken is not None:
            return
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not NOTHING:
                if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                    raise reply  # noqa: TRY301 - the server is about to close the connection
                flight = self._flights[0]
                flight.replies.append(reply)
                if len(flight.replies) == flight.expected:
                    self._flights.popleft().land()
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is over
            self.drop(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Lose what is under way."""
        self._gone.set()
        self.drop(exc or ConnectionError("the server has closed the connection"))

    def pause_writing(self) -> None:
        """Let what is queued wait: the server does not take more now."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on, once the transport that says so is done with it."""
        self._full = False
        self._leave_soon()

    # --- the end -------------------------------------------------------------------------------

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due, self._ring, due)

    def _ring(self, now: float) -> None:
        """Give up if a flight is late, else wait for the first that could be."""
        self._alarm = None
        first = min((*self._flights, *self._queue), key=_due_of, default=None)
        if first is None:
            return
        if first.due <= now:
            self.drop(TimeoutError(f"no reply within {first.seconds:.3g} s"))
        else:
            self._set_alarm(first.due)

    def drop(self, error: Exception) -> None:
        """Break the connection at once: everything under way on it is lost."""
        if self.broken is not None:
            return
        self.broken = error
        if self._alarm is not None:
            self._alarm.cancel()
        if self._connecting is not None and self._connecting is not _current_task():
            self._connecting.cancel()
        self._connection.abort()
        lost = _lost(error)
        for flight in (*self._flights, *self._queue):
            flight.land(lost)
        self._flights.clear()
        self._queue.clear()

    async def close(self) -> None:
        """Break the connection and return once nothing is left of it."""
        self.drop(LostError("closed"))
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        if self._transport is not None:
            await self._gone.wait()


def _lost(error: Exception) -> LostError:
    """Return what says that an error has cost what was under way."""
    lost = LostError(str(error) or type(error).__name__)
    lost.__cause__ = error
    return lost


_due_of = attrgetter("due")


def packed(commands: Sequence[Command]) -> Packed:
    """Return commands as they are sent: packed as the driver would, in C."""
    sent = [hiredis.pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]  # it is typed as a pair's is
    return Packed(sent[0] if len(sent) == 1 else b"".join(sent), len(sent))


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # in a callback of a loop that is being closed
        return None


_ARGUMENTS = ", with args beginning with"
"""What a server says of a command that it does not know, before it repeats what came with it."""


class _Ours:
    """A connection that can be taken over, and thrown away at once."""

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None
    _parser: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        to_error = self._parser.parse_error

        def without_arguments(words: str) -> Exception:
            """Return an error without what was sent: that may be the password."""
            error: Exception = to_error(words.partition(_ARGUMENTS)[0])
            return error

        self._parser.parse_error = without_arguments  # it is asked for each error, by all readers

    def hand_over(
        self, protocol: asyncio.Protocol
    ) -> tuple[asyncio.WriteTransport, hiredis.Reader]:
        """Have all that comes go to a protocol; return where to write, and what to read it with."""
        assert self._writer is not None, "it is connected"
        transport = self._writer.transport
        transport.set_protocol(protocol)
        mapped = self._parser.parse_error
        reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=mapped, notEnoughData=NOTHING
        )
        return transport, reader

    async def disconnect(self, *_: object, **__: object) -> None:
        """Close at once where the driver gives up while it connects.

        Its own way waits for the server's farewell, and leaves the socket open to who does not.
        """
        self._parser.on_disconnect()
        self.abort()

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
        self._reader = self._writer = None  # else the driver thinks that it is open


class PlainConnection(_Ours, Connection):
    """A connection in the clear."""


class SecureConnection(_Ours, SSLConnection):
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

"""The raw floor on a Redis server, and the script that Sojourn runs there, by plain calls.

The floor keeps the same data in three keys. Nobody else is expected to write; the session's
revision is compared all the same.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import hiredis
import msgspec
import redis.asyncio

from benchmarks.peers import material
from benchmarks.peers.material import APP
from benchmarks.peers.timing import at_once, awaited_in_turn
from sojourn.limits import OPERATIONS_REMEMBERED
from sojourn.stores.redis import routes, scripts
from sojourn.stores.redis.keys import Keys, user_facet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.sample import Sample

_APPEND = """
if (redis.call('HGET', KEYS[1], 'revision') or '1') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[1] + 1, 'state', ARGV[2])
redis.call('HSET', KEYS[2], 'last', ARGV[3])
return redis.call('RPUSH', KEYS[3], ARGV[4])"""
_SHA = sha1(_APPEND.encode(), usedforsecurity=False).hexdigest()

_FIRST = 1_767_225_600_000_000
"""When the first event is said to have come, in microseconds."""

EPOCH = "0123456789abcdef"

REMEMBERED = OPERATIONS_REMEMBERED * 20 // 8
"""How many times as long as one is what Sojourn remembers of the last operations."""

_json = msgspec.json.Encoder().encode
_value = msgspec.json.Decoder().decode


class _Line(asyncio.Protocol):
    """One connection: what was asked within a turn of the loop is sent together."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: list[asyncio.Future[Any]] = []
        self._asked: list[bytes] = []
        self._answered = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting[self._answered].set_result(reply)
            self._answered += 1
        if self._answered == len(self._waiting):
            self._waiting.clear()
            self._answered = 0

    def ask(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Return the future reply to a command."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._send)
        self._asked.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # it is typed as a pair's is
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(future)
        return future

    def _send(self) -> None:
        assert self._transport is not None, "it is connected"
        self._transport.write(b"".join(self._asked))
        self._asked.clear()

    def close(self) -> None:
        assert self._transport is not None, "it is connected"
        self._transport.abort()


@asynccontextmanager
async def _opened(path: str) -> AsyncIterator[_Line]:
    """Yield a connection to an empty server that knows the floor's script."""
    place = urlsplit(path)
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(_Line, place.hostname, place.port)
    try:
        await line.ask("SCRIPT", "LOAD", _APPEND)
        yield line
    finally:
        line.close()


def _event(number: int) -> bytes:
    """Return an event with all that Sojourn keeps of one but its number, which is its place."""
    return _json(
        {
            "id": os.urandom(16).hex(),
            "kind": "message",
            "author": "user",
            "at": _FIRST + number,
            "changes": material.change(number),
            "body": {"role": "user", "text": material.text(number)},
        }
    )


def _state(number: int) -> bytes:
    return _json({**material.STATE, "turn": number})


async def callers(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append from many callers at once, by the smallest script that does it."""
    async with _opened(path) as line:

        async def step(caller: int, number: int) -> None:
            keys = (f"s:{caller}", f"u:{caller}", f"e:{caller}")
            values = (number + 1, _state(number), _json(number), _event(number))
            assert await line.ask("EVALSHA", _SHA, 3, *keys, *values) == number + 1

        measured = await at_once(step, callers=callers, each=each, warm=warm)
        for caller in range(callers):
            assert await line.ask("LLEN", f"e:{caller}") == each + warm
        return measured


async def tail(path: str, *, events: int, window: int, count: int, warm: int) -> Sample:
    """Read and decode a session with the last events of its log."""
    async with _opened(path) as line:
        for number in range(events):
            line.ask("RPUSH", "e:0", _event(number))
        await line.ask("HSET", "s:0", "revision", events + 1, "state", _state(events - 1))
        await line.ask("HSET", "u:0", "last", _json(events - 1))

        async def step(_number: int) -> None:
            state, shared, bodies = (
                line.ask("HGET", "s:0", "state"),
                line.ask("HGETALL", "u:0"),
                line.ask("LRANGE", "e:0", -window, -1),
            )
            own, flat = _value(await state), await shared
            tier = {name: _value(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
            found = [_value(body) for body in await bodies]
            assert {**own, **tier}["turn"] == events - 1
            assert len(found) == window
            assert found[-1]["changes"]["turn"] == events - 1

        return await awaited_in_turn(step, count=count, warm=warm)


# --- Sojourn's script, by a plain client ---------------------------------------------------------


async def script(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append from many callers at once by Sojourn's own script, a call of redis-py for each."""
    keys = Keys("plain")
    async with redis.asyncio.Redis.from_url(path) as client:
        await client.script_load(scripts.CHANGE.text)  # type: ignore[no-untyped-call]  # the driver's own lack
        for caller in range(callers):
            await client.hset(_names(keys, caller).session, mapping={"epoch": EPOCH, "v": 1})

        async def step(caller: int, number: int) -> None:
            asked = _command(keys, caller, number)
            assert await client.evalsha(scripts.CHANGE.sha, *asked) == 0

        measured = await at_once(step, callers=callers, each=each, warm=warm)
        for caller in range(callers):
            assert await client.llen(_names(keys, caller).log) == each + warm
        return measured


def _names(keys: Keys, caller: int) -> Any:
    return keys.names(routes.of_user(APP, f"user-{caller}"), APP, f"session-{caller}")


def _command(keys: Keys, caller: int, number: int) -> list[Any]:
    """Return the keys and arguments that Sojourn would send for such an append, made by hand."""
    user, at, version = f"user-{caller}", _FIRST + number, number + 2
    route = routes.of_user(APP, user)
    names = _names(keys, caller)
    event_id, op = os.urandom(16).hex(), os.urandom(8)
    head = b'{"app":"bench","id":"session-%d","epoch":"%b","user":"%b","revision":%d,"seq":%d' % (
        caller, EPOCH.encode(), user.encode(), version, number + 1,
    )  # fmt: skip
    body = _json({"role": "user", "text": material.text(number)})
    change = _json(material.change(number))
    line = b'{"seq":%d,"at":%d,"peak":%d,"changes":%b,"kind":"message",' % (
        number + 1,
        at,
        at,
        change,
    )
    line += b'"id":"%b","author":"user","body":%b}' % (event_id.encode(), body)
    lists = [f"{names.lists}{facet}:OPEN:active" for facet in ("all", user_facet(user))]
    touched = [*names[:5], keys.tier(route, APP, user), keys.users(route, APP), keys.apps(route)]
    touched += lists
    asked = [EPOCH, number + 1, names.channel, names.session, at, "", number, b"\x00", 1, 2]
    fields = {
        "head": head + b',"created_at":%d,"active_at":%d}' % (at, at),
        "v": version,
        "ops": op * REMEMBERED,
        "state": _state(number),
        "peak": at,
    }
    shared = [user, APP, "last", _json(number)]
    flat = [part for pair in fields.items() for part in pair]
    return [len(touched), *touched, *asked, line, event_id, *shared, *flat]

"""Wake-ups: at once for writes of this process, by a message for those of others.

A session that is watched says so in a field of its own, for a while; whoever writes it then sends a
message. Messages can get lost, with a connection or a master. So whoever waits looks by itself from
time to time, and everybody is woken whenever messages may have been missed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from sojourn.errors import SojournError
from sojourn.stores.planning import Loaded
from sojourn.stores.redis.client import LONGEST_REST
from sojourn.stores.redis.request import Request
from sojourn.stores.redis.wire import connection
from sojourn.wakeups import Lookout, Wakeup, Wakeups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.stores.planning import Key
    from sojourn.stores.redis.client import Call, Client
    from sojourn.stores.redis.finding import Finder
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Connected

log = logging.getLogger("sojourn")

SEEN_SECONDS = 60
"""How long a session says that it is watched, unless it is told again: messages that nobody wants
any more stop by themselves."""

AGAIN_SECONDS = 15.0
"""How often watched sessions are told again; one that was made anew meanwhile learns it then."""

PING_SECONDS = 5.0
"""How often the connection for messages is tried out."""


class Watchers:
    """Who waits for which session, and the task that listens for what other processes write."""

    def __init__(self, client: Client, keys: Keys, finder: Finder) -> None:
        self._client = client
        self._keys = keys
        self._finder = finder
        self._waiting = Wakeups()
        self._by_channel: dict[bytes, Key] = {}
        self._news = asyncio.Event()
        self._lookout = Lookout()

    def subscribe(self, key: Key) -> Wakeup:
        """Return a subscription to a session."""
        wakeup = Wakeup(key, self.leave)
        if key not in self._waiting:
            self._by_channel[self._keys.channel(*key).encode()] = key
            self._news.set()
        self._waiting.add(wakeup)
        self._lookout.begin(self._listen)
        return wakeup

    def leave(self, wakeup: Wakeup) -> None:
        """Forget a subscription; the last one stops the task."""
        if self._waiting.discard(wakeup):
            self._by_channel.pop(self._keys.channel(*wakeup.key).encode(), None)
            self._news.set()
        if not self._waiting:
            self._lookout.end()

    def wake(self, keys: Iterable[Key]) -> None:
        """Wake whoever watches these sessions."""
        self._waiting.wake(keys)

    async def close(self) -> None:
        """Stop the task and wake everybody, to find the store closed."""
        await self._lookout.close()
        self._waiting.wake_all()

    # --- listening -----------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Listen for messages as long as anybody watches, on one connection after the other."""
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # noqa: BLE001 - whatever it is, the net holds until it is over
                log.info("messages about changes are not heard for now: %s", type(error).__name__)
            self._waiting.wake_all()
            await asyncio.sleep(LONGEST_REST * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    async def _listen_once(self) -> None:
        """Listen on one connection until it breaks."""
        address = random.choice(self._client.topology.servers)  # noqa: S311 - no secret
        wire = connection(address, self._client.options)
        try:
            async with asyncio.timeout(self._client.options.attempt):
                await wire.connect()  # type: ignore[no-untyped-call]  # the driver's own lack
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(wire))
                group.create_task(self._tell(wire))
        finally:
            wire.abort()

    async def _hear(self, wire: Connected) -> None:
        while True:
            async with asyncio.timeout(PING_SECONDS + self._client.options.attempt):
                kind, channel, *_ = await wire.read_response()
            if kind == b"message" and channel in self._by_channel:
                self.wake([self._by_channel[channel]])

    async def _tell(self, wire: Connected) -> None:
        """Say which sessions are watched: to the connection, and to the sessions themselves."""
        loop = asyncio.get_running_loop()
        heard: set[bytes] = set()
        again = loop.time() + AGAIN_SECONDS
        while True:
            self._news.clear()
            wanted = set(self._by_channel)
            new, old = wanted - heard, heard - wanted
            for command, channels in (("SUBSCRIBE", new), ("UNSUBSCRIBE", old)):
                if channels:
                    await wire.send_command(command, *channels)
            late = loop.time() >= again
            if late:
                again = loop.time() + AGAIN_SECONDS
            heard = wanted
            keys = [
                self._by_channel[name]
                for name in (wanted if late else new)
                if name in self._by_channel
            ]
            with suppress(SojournError):  # told again later
                await self._mark(keys)
            if new:  # what was written before this is not announced: look
                self.wake(keys)
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_SECONDS):
                    await self._news.wait()
                    continue
            await wire.send_command("PING")

    async def _mark(self, keys: list[Key]) -> None:
        """Have sessions say that they are watched."""
        deadline = self._client.deadline()
        unknown = [key for key in keys if self._finder.spots.get(key) is None]
        loaded = await self._finder.load(unknown, deadline)
        calls: list[Call] = []
        for key in keys:
            found = loaded.get(key)
            spot = self._finder.spots.get(key)
            route = found.row.route if isinstance(found, Loaded) else spot and spot.route
            if route is not None:
                calls.append(self._mark_call(route, key))
        await self._client.run(calls, deadline, lane="write")

    def _mark_call(self, route: Route, key: Key) -> Call:
        request = Request(route)
        request.do("seen", self._keys.session(route, *key), SEEN_SECONDS)
        return request.call()

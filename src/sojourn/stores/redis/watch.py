"""Wake-ups: at once for writes of this process, by a message for those of others.

A session that is watched says so in a field of its own, for a while; whoever writes it then sends a
message. Messages can get lost, with a connection or a master: a watcher looks by itself from time
to time (`WATCH_POLL_SECONDS`), and every time the connection was made anew.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.stores.planning import Key
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.finding import Finder
    from sojourn.stores.redis.keys import Keys


class Watchers:
    """Who waits for which session."""

    def __init__(self, client: Client, keys: Keys, finder: Finder) -> None:
        self._client = client
        self._keys = keys
        self._finder = finder
        self._waiting: dict[Key, set[Wakeup]] = {}

    def subscribe(self, key: Key) -> Wakeup:
        """Return a subscription to a session."""
        wakeup = Wakeup(self, key)
        self._waiting.setdefault(key, set()).add(wakeup)
        return wakeup

    def leave(self, wakeup: Wakeup) -> None:
        """Forget a subscription."""
        group = self._waiting.get(wakeup.key)
        if group is None:
            return
        group.discard(wakeup)
        if not group:
            del self._waiting[wakeup.key]

    def wake(self, keys: Iterable[Key]) -> None:
        """Wake whoever watches these sessions."""
        for key in keys:
            for wakeup in self._waiting.get(key, ()):
                wakeup.changed.set()

    async def close(self) -> None:
        """Wake everybody, to find the store closed."""
        self.wake(list(self._waiting))


class Wakeup:
    """A subscription to one session."""

    def __init__(self, watchers: Watchers, key: Key) -> None:
        """Made by `Watchers.subscribe`."""
        self.key = key
        self.changed = asyncio.Event()
        self._watchers = watchers

    async def wait(self, seconds: float, /) -> None:
        """Return after a change, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return
        self.changed.clear()

    def close(self) -> None:
        """Stop. Twice is fine."""
        self._watchers.leave(self)

"""Wake-ups: whoever waits for a session is told when a frame has changed it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Key = tuple[str, str]


class Watchers:
    """Who waits for which session. Used in the event loop only."""

    def __init__(self, left: Callable[[], None]) -> None:
        """`left` is called when nobody waits any more."""
        self._waiting: dict[Key, dict[Wakeup, None]] = {}
        self._left = left

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def apps(self) -> set[str]:
        """Return the apps of which a session is watched."""
        return {app for app, _ in self._waiting}

    def subscribe(self, key: Key) -> Wakeup:
        """Return a subscription to a session."""
        wakeup = Wakeup(self, key)
        self._waiting.setdefault(key, {})[wakeup] = None
        return wakeup

    def leave(self, wakeup: Wakeup) -> None:
        """Forget a subscription."""
        group = self._waiting.get(wakeup.key)
        if group is None:
            return
        group.pop(wakeup, None)
        if not group:
            del self._waiting[wakeup.key]
            if not self._waiting:
                self._left()

    def wake(self, app: str, ids: Iterable[str]) -> None:
        """Wake whoever watches these sessions."""
        if self._waiting:
            for id in ids:
                for wakeup in self._waiting.get((app, id), ()):
                    wakeup.changed.set()

    def wake_app(self, app: str) -> None:
        """Wake whoever watches a session of an app."""
        self.wake(app, [id for name, id in self._waiting if name == app])

    def wake_all(self) -> None:
        """Wake everybody, to look for themselves."""
        for group in self._waiting.values():
            for wakeup in group:
                wakeup.changed.set()


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

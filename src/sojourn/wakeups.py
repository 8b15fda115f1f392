"""Wake-ups: who waits for a change of which session, how they are woken, and who looks for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

Key = tuple[str, str]
"""The app and the id of a session."""


class Wakeup:
    """A subscription to one session."""

    def __init__(self, key: Key, leave: Callable[[Wakeup], None]) -> None:
        """Made by a store's `subscribe`; `leave` forgets it."""
        self.key = key
        self.changed = asyncio.Event()
        self._leave = leave

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
        self._leave(self)


class Wakeups:
    """The subscriptions of one store, by session. Used in the event loop only."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: dict[Key, dict[Wakeup, None]] = {}

    def __bool__(self) -> bool:
        """Return whether anybody waits."""
        return bool(self._waiting)

    def __contains__(self, key: Key) -> bool:
        """Return whether anybody waits for a session."""
        return key in self._waiting

    def sessions(self) -> list[Key]:
        """Return the sessions that somebody waits for."""
        return list(self._waiting)

    def add(self, wakeup: Wakeup) -> None:
        """Note a subscription."""
        self._waiting.setdefault(wakeup.key, {})[wakeup] = None

    def discard(self, wakeup: Wakeup) -> bool:
        """Forget a subscription. Return whether it was the last one to its session."""
        group = self._waiting.get(wakeup.key)
        if group is None:
            return False
        group.pop(wakeup, None)
        if group:
            return False
        del self._waiting[wakeup.key]
        return True

    def wake(self, keys: Iterable[Key]) -> None:
        """Wake whoever waits for these sessions."""
        for key in keys:
            for wakeup in self._waiting.get(key, ()):
                wakeup.changed.set()

    def wake_all(self) -> None:
        """Wake everybody, to look for themselves."""
        self.wake(self._waiting)


class Lookout:
    """The tasks that look for what other processes change, while anybody waits."""

    def __init__(self) -> None:
        """Nobody looks yet."""
        self._looking: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def begin(self, *looks: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a task do each of these, unless they are being done."""
        if not all(task.done() for task in self._looking):
            return
        loop = asyncio.get_running_loop()
        self._looking = [loop.create_task(look()) for look in looks]

    def end(self) -> None:
        """Stop the tasks; they may take a moment to let go of what they hold."""
        looking, self._looking = self._looking, []
        for task in looking:
            if task.done():
                continue
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            task.cancel()

    async def close(self) -> None:
        """Stop the tasks, and return once those and all that were stopped before are over."""
        self.end()
        if self._leaving:
            await asyncio.wait(self._leaving)

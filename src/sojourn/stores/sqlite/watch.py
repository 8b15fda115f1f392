"""Wake-ups: at once for commits of this process, by a short poll for those of others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sojourn.wakeups import Lookout, Wakeup, Wakeups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sojourn.stores.sqlite.reader import Reader
    from sojourn.wakeups import Key

POLL_SECONDS = 0.025
"""How often the file is asked whether another process has committed, while somebody watches. The
question costs microseconds; a person does not notice the wait."""

POLL_SHARE = 20
"""Rest this many times as long as the last look took: with thousands of watched sessions, looking
must not take the loop's time from everybody else."""


class Watchers:
    """Who waits for which session, and the task that looks for other processes' commits."""

    def __init__(self, reader: Callable[[], Reader]) -> None:
        """`reader` returns the reader of the event loop's thread, or raises once it is closed."""
        self._reader = reader
        self._waiting = Wakeups()
        self._known: dict[Key, tuple[object, ...] | None] = {}
        self._lookout = Lookout()

    def subscribe(self, key: Key) -> Wakeup:
        """Return a subscription to a session."""
        wakeup = Wakeup(key, self.leave)
        if key not in self._waiting:
            self._known.update({key: self._reader().revisions([key]).get(key)})
        self._waiting.add(wakeup)
        self._lookout.begin(self._poll)
        return wakeup

    def leave(self, wakeup: Wakeup) -> None:
        """Forget a subscription; the last one stops the task."""
        if self._waiting.discard(wakeup):
            self._known.pop(wakeup.key, None)
        if not self._waiting:
            self._lookout.end()

    def wake(self, keys: Iterable[Key]) -> None:
        """Wake whoever watches these sessions."""
        self._waiting.wake(keys)

    async def _poll(self) -> None:
        """Look for sessions that another process changed, as long as anybody watches."""
        version = None
        while True:
            started = asyncio.get_running_loop().time()
            try:
                seen = self._reader().data_version()
                if seen != version:
                    version = seen
                    self._compare()
            except Exception:  # noqa: BLE001 - whatever it is, the watchers read and meet it
                self._waiting.wake_all()
                return
            took = asyncio.get_running_loop().time() - started
            await asyncio.sleep(max(POLL_SECONDS, took * POLL_SHARE))

    def _compare(self) -> None:
        keys = self._waiting.sessions()
        found = self._reader().revisions(keys)
        moved = [key for key in keys if self._known.get(key) != found.get(key)]
        self._known = {key: found.get(key) for key in keys}
        self.wake(moved)

    async def close(self) -> None:
        """Stop the task and wake everybody, to find the store closed."""
        await self._lookout.close()
        self._waiting.wake_all()

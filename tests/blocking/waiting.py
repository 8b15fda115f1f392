"""What the tests of the sync face share: a store that makes one wait, and threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from sojourn.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from sojourn.store import Change, Committed

SECONDS = 30.0
"""What takes longer hangs, and says so instead."""


class HeldStore(MemoryStore):
    """A store whose commits wait until they are let go, before they are applied."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.gate = asyncio.Event()

    async def commit(self, change: Change, /) -> Committed:
        self.loop = asyncio.get_running_loop()
        self.reached.set()
        await self.gate.wait()
        return await super().commit(change)

    def let_go(self) -> None:
        """Let the commits that wait go on; from any thread."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.gate.set)


def in_threads(*works: Callable[[], object]) -> list[threading.Thread]:
    """Start a daemon thread for each function, and return them."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    """Wait for threads; fail if one hangs."""
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()

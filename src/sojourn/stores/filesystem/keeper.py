"""The keeper: looks after the files of a store that is open, beside its callers.

It follows what other processes write while somebody watches, lets go of files that were replaced,
and compacts: when a journal has grown, and soon after something was removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from sojourn.errors import SojournError, StorageFull
from sojourn.exiting import off_loop
from sojourn.stores.filesystem.compacting import Compaction
from sojourn.stores.filesystem.disk import mapped
from sojourn.wakeups import Lookout

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from sojourn.stores.filesystem.disk import Disk
    from sojourn.stores.filesystem.shard import Shard
    from sojourn.stores.filesystem.watch import Watchers
    from sojourn.stores.filesystem.writer import Writer

POLL_SECONDS = 0.025
"""How often it is looked whether another process has written, while somebody watches. The look
costs a microsecond; a person does not notice the wait."""

LOOK_SECONDS = 1.0
"""How often it is looked otherwise."""

PURGE_SECONDS = 30.0
"""How long something that was removed may stay in the files of a store that is open."""

PURGE_SHARE = 10
"""Rest this many times as long as the last compaction took: with sessions removed all the time,
compactions must not take the time from everybody else."""

RETRY_SECONDS = 1.0
"""Least time between two compactions of an app, whatever came of the first."""

JOURNAL_BYTES = 16 * 1024 * 1024
"""A journal that is longer than this, and than its snapshot, is compacted: so opening stays fast,
and a byte is written anew a few times at most, however much is kept."""

log = logging.getLogger("sojourn")


class Keeper:
    """Looks after the shards of one store, in its event loop."""

    def __init__(
        self,
        disk: Disk,
        shards: dict[str, Shard],
        writer: Writer,
        pool: ThreadPoolExecutor,
        moved: Callable[[Shard], None],
    ) -> None:
        """`moved` is called with a shard that has followed."""
        self._disk = disk
        self._shards = shards
        self._writer = writer
        self._pool = pool
        self._moved = moved
        self._loop = asyncio.get_running_loop()
        self._watchers: Watchers | None = None
        self._busy: asyncio.Lock = asyncio.Lock()
        self._underway: set[asyncio.Task[None]] = set()
        self._purge_at: dict[str, float] = {}
        self._rest_until: dict[str, float] = {}
        self._lookout = Lookout()
        self._looking = self._loop.create_task(self._look())

    def note(self, shard: Shard) -> None:
        """Note that a shard has moved: something may have been removed."""
        if shard.vault.purgeable:
            self._purge_at.setdefault(shard.app, self._loop.time() + PURGE_SECONDS)

    def watch(self, shard: Shard, watchers: Watchers) -> None:
        """Follow quickly from now on, as long as anybody watches."""
        self._shards.setdefault(shard.app, shard)
        self._watchers = watchers
        self._lookout.begin(partial(self._poll, watchers))

    def unwatch(self) -> None:
        """Follow slowly again: nobody watches."""
        self._lookout.end()

    async def _poll(self, watchers: Watchers) -> None:
        while True:
            for app in watchers.apps():
                await self._follow(self._shards[app])
            await asyncio.sleep(POLL_SECONDS)

    async def _follow(self, shard: Shard) -> None:
        """Read what others have published. Whoever watches reads and meets what is wrong."""
        try:
            if shard.is_behind():
                await off_loop(self._pool, shard.follow)
                self._moved(shard)
        except Exception:  # noqa: BLE001 - whatever it is, the watchers read and meet it
            if self._watchers is not None:
                self._watchers.wake_all()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for shard in list(self._shards.values()):
                try:
                    await self._look_after(shard)
                except Exception:
                    log.warning("the files of an app could not be compacted", exc_info=True)

    async def _look_after(self, shard: Shard) -> None:
        if shard.replica is None or shard.is_broken:
            return
        if shard.is_behind():
            await off_loop(self._pool, shard.follow)
            self._moved(shard)
        if shard.is_outdated:
            await off_loop(self._pool, shard.reload)
            self._moved(shard)
        now = self._loop.time()
        if now < self._rest_until.get(shard.app, 0.0):
            return
        to_purge = shard.vault.purgeable and now >= self._purge_at.get(shard.app, now + 1)
        if to_purge or shard.is_long(JOURNAL_BYTES):
            await self.compact(shard)

    async def compact(self, shard: Shard) -> None:
        """Write the files of a shard anew. Raises `StorageFull` or `Unavailable`.

        Once begun it goes on to its end, whoever cancels meanwhile: its files are in use.
        """
        task = self._loop.create_task(self._compact(shard))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)
        await asyncio.shield(task)

    async def _compact(self, shard: Shard) -> None:
        async with self._busy:
            if shard.replica is None:
                return
            started = self._loop.time()
            compaction = Compaction(self._disk, shard)
            try:
                if await self._there(compaction.prepare):
                    await self._writer.call(compaction.finish_in_turn)
                    await self._there(shard.reload)
                self._purge_at.pop(shard.app, None)
            finally:
                await self._there(compaction.close)
                took = max(self._loop.time() - started, RETRY_SECONDS / PURGE_SHARE)
                self._rest_until[shard.app] = self._loop.time() + took * PURGE_SHARE
            self._moved(shard)

    async def _there(self, work: Callable[[], object]) -> object:
        try:
            return await off_loop(self._pool, work)
        except OSError as error:
            raise mapped(error, "the files of an app") from error

    async def close(self) -> None:
        """Stop, and leave each shard without anything that was removed, and at rest."""
        self._looking.cancel()
        await asyncio.wait([self._looking])
        await self._lookout.close()
        while self._underway:  # compactions that nobody waits for any more
            await asyncio.wait(self._underway)
        whole = [shard for shard in self._shards.values() if not shard.is_broken]
        for shard in whole:
            if shard.vault.purgeable and not await self._is_compacted(shard):
                break
        with contextlib.suppress(SojournError):
            await self._writer.call(partial(_pause, whole))

    async def _is_compacted(self, shard: Shard) -> bool:
        """Compact, and return whether it is worth to go on: the gate may be kept by somebody."""
        try:
            await self.compact(shard)
        except StorageFull:
            return True
        except SojournError:
            return False
        return True


def _pause(shards: list[Shard]) -> None:
    """Leave shards at rest."""
    for shard in shards:
        shard.pause_in_turn()

"""Watching a log: what is stored, then what comes, without a gap and without a repeat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sojourn.errors import NotFound
from sojourn.events import event_from
from sojourn.lifecycle import OVER
from sojourn.limits import EVENTS_PAGE, WATCH_POLL_SECONDS
from sojourn.store import EventQuery, SupportsWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sojourn.context import Context
    from sojourn.model import Entry, Event, Record
    from sojourn.reading import Reading
    from sojourn.store import Subscription


class _Watch:
    """One watcher: how far it has read, and what it was handed when its session was removed."""

    __slots__ = ("cursor", "epoch", "left")

    def __init__(self, cursor: int, epoch: str) -> None:
        self.cursor = cursor
        self.epoch = epoch
        self.left: Sequence[Entry] = ()


class Watches:
    """The watchers of one manager."""

    def __init__(self, context: Context, reading: Reading) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._reading = reading
        self._watches: dict[str, set[_Watch]] = {}

    async def watch(self, id: str, after: int) -> AsyncIterator[Event]:
        """Yield events behind `after`. See `SessionManager.watch`."""
        record = await self._reading.record(id)
        if record is None:
            raise NotFound(str(id))
        watch = _Watch(after, record.header.epoch)
        self._watches.setdefault(id, set()).add(watch)
        subscription = self._subscribe(id)
        try:
            async for event in self._follow(id, watch, subscription):
                yield event
        finally:
            subscription.close()
            group = self._watches.get(id, set())
            group.discard(watch)
            if not group:
                self._watches.pop(id, None)

    async def _follow(
        self, id: str, watch: _Watch, subscription: Subscription
    ) -> AsyncIterator[Event]:
        while True:
            record = await self._page(id, watch)
            entries = watch.left if record is None else record.entries
            for entry in entries:
                if entry.seq > watch.cursor:
                    watch.cursor = entry.seq
                    yield event_from(entry)
            if record is None:
                return
            if len(entries) < EVENTS_PAGE:
                if record.header.phase in OVER:
                    return
                await subscription.wait(WATCH_POLL_SECONDS)

    async def _page(self, id: str, watch: _Watch) -> Record | None:
        """Return the session with the next events, `None` once it is gone or another one."""
        window = EventQuery(after_seq=watch.cursor, first=EVENTS_PAGE)
        record = await self._reading.record(id, window=window)
        return None if record is None or record.header.epoch != watch.epoch else record

    def _subscribe(self, id: str) -> Subscription:
        store = self._context.store
        if isinstance(store, SupportsWatch):
            return store.subscribe(self._context.app, id)
        return _Poll()

    async def hand_over(self, id: str) -> None:
        """Give this process's watchers what they have not read of a session about to be removed."""
        watches = self._watches.get(id)
        if not watches:
            return
        window = EventQuery(after_seq=min(watch.cursor for watch in watches))
        record = await self._reading.record(id, window=window, expired=True)
        if record is not None:
            for watch in watches:
                watch.left = record.entries


class _Poll:
    """For a store that can not wake anybody."""

    async def wait(self, seconds: float, /) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Nothing to stop."""

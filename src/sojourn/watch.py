"""Watching a log: what is stored, then what comes, without a gap and without a repeat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sojourn.errors import Corrupt, NotFound
from sojourn.events import event_from
from sojourn.expiry import is_past
from sojourn.lifecycle import OVER
from sojourn.limits import EVENTS_PAGE, WATCH_POLL_SECONDS
from sojourn.store import EventQuery, SupportsWatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence

    from sojourn.context import Context
    from sojourn.model import Entry, Event, Header, Record
    from sojourn.reading import Reading
    from sojourn.store import Subscription


class _Watch:
    """One watcher: how far it has read, and what it was handed when its session was removed.

    `line` are the ids of its session and of those above it: removing any removes the session.
    """

    __slots__ = ("cursor", "epoch", "left", "line")

    def __init__(self, cursor: int, epoch: str, line: frozenset[str]) -> None:
        self.cursor = cursor
        self.epoch = epoch
        self.line = line
        self.left: Sequence[Entry] = ()


class Watches:
    """The watchers of one manager."""

    def __init__(self, context: Context, reading: Reading) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._reading = reading
        self._watches: dict[str, set[_Watch]] = {}

    async def watch(self, id: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield events behind `after`. See `SessionManager.watch`."""
        record = await self._reading.record(id)
        if record is None:
            raise NotFound(str(id))
        watch = _Watch(after, record.header.epoch, await self._line(record.header))
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

    async def _line(self, header: Header) -> frozenset[str]:
        """Return the ids of a session and of those above it."""
        line = {header.id}
        parent = header.parent
        while parent is not None:
            line.add(parent)
            above = await self._reading.record(parent, expired=True)
            parent = None if above is None else above.header.parent
        return frozenset(line)

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
                header = record.header
                if header.phase in OVER or is_past(header.expires_at, self._context.now()):
                    return
                await subscription.wait(WATCH_POLL_SECONDS)

    async def _page(self, id: str, watch: _Watch) -> Record | None:
        """Return the session with the next events, `None` once it is gone or another one.

        One that expired while it was watched has events to deliver as long as it is not swept.
        """
        window = EventQuery(after_seq=watch.cursor, first=EVENTS_PAGE)
        record = await self._reading.record(id, window=window, expired=True)
        return None if record is None or record.header.epoch != watch.epoch else record

    def _subscribe(self, id: str) -> Subscription:
        store = self._context.store
        if isinstance(store, SupportsWatch):
            return store.subscribe(self._context.app, id)
        return _Poll()

    @property
    def watched(self) -> frozenset[str]:
        """The ids of the sessions that are watched here."""
        return frozenset(self._watches)

    def concern(self, id: str) -> bool:
        """Return whether anybody here watches a session or one below it."""
        return any(id in watch.line for watches in self._watches.values() for watch in watches)

    async def hand_over(self, removed: Iterable[str]) -> None:
        """Give this process's watchers what they have not read of sessions about to be removed.

        Those below a session that is removed go with it.
        """
        gone = frozenset(removed)
        for id, watches in list(self._watches.items()):
            if any(not gone.isdisjoint(watch.line) for watch in watches):
                await self._hand_over(id, watches)

    async def _hand_over(self, id: str, watches: set[_Watch]) -> None:
        window = EventQuery(after_seq=min(watch.cursor for watch in watches))
        try:
            record = await self._reading.record(id, window=window, expired=True)
        except Corrupt:  # it can be removed all the same, and its watchers are told by themselves
            return
        for watch in watches:
            if record is not None and record.header.epoch == watch.epoch:
                watch.left = record.entries


class _Poll:
    """For a store that can not wake anybody."""

    async def wait(self, seconds: float, /) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Nothing to stop."""

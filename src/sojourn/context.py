"""What the parts of one manager share: store, app, clock, ids, and whether it is closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

import msgspec

from sojourn.arguments import level
from sojourn.commit import recall
from sojourn.errors import Closed, SojournError, Unavailable
from sojourn.store import Get

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sojourn.expiry import Expiry
    from sojourn.ports import Clock, IdSource
    from sojourn.store import Change, Committed, Durability, Store

T = TypeVar("T")

HANG_SECONDS = 1.0
"""A commit that fails after so long was sent to a store that hangs; one that was cut fails at once.
"""

LOOK_SHARE = 4
"""What came of a commit to a store that hangs is asked for this part of the time that it took: with
the store's own limit, no call takes twice that."""


class Context:
    """Made by `SessionManager`, handed to its parts."""

    def __init__(
        self,
        store: Store,
        *,
        app: str,
        clock: Clock,
        ids: IdSource,
        expiry: Expiry,
        durability: Durability | None,
    ) -> None:
        """Keep what the parts need."""
        self.store = store
        self.app = app
        self.ids = ids
        self.expiry = expiry
        self._durability = durability
        self.durability(None)
        self.closed = False
        self._clock = clock
        self._latest = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def durability(self, asked: Durability | None) -> Durability | None:
        """Return what a write waits for: what was asked of it, else what was asked of the manager.

        Raises `InvalidQuery` for something else: a typo must not be a weaker promise.
        """
        return level(asked or self._durability)

    def now(self) -> int:
        """Return the instant; it never goes back, so that nothing expired is ever revived.

        Raises `Closed` once the manager is closed.
        """
        if self.closed:
            raise Closed("session manager")
        now = self._clock.now()
        if now > self._latest:  # noqa: PLR1730 - twice as fast as max(), in every verb
            self._latest = now
        return self._latest

    def turn(self, id: str) -> asyncio.Lock:
        """Return the lock under which those who got in each other's way here take turns.

        One to a session, while anybody holds it. It orders nothing but this manager's own tries.
        """
        lock = self._turns.get(id)
        if lock is None:
            lock = self._turns[id] = asyncio.Lock()
        return lock

    async def commit(self, change: Change, taken: Callable[[Committed], None]) -> Committed:
        """Commit, and hand the outcome to `taken` before anything else can happen.

        If the caller is cancelled while the commit is under way and it was applied all the same,
        `taken` is called before the cancellation goes on: handle and store never disagree. If the
        store fails and the commit was applied all the same (its reply was lost), that is no error.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            committed = await self.store.commit(change)
        except asyncio.CancelledError:
            applied = await uninterrupted(self._applied(change))
            if applied is not None:
                taken(applied)
            raise
        except Unavailable as error:
            if error.denied:  # what was done by halves is remembered, and was not applied
                raise
            took = loop.time() - begun
            patience = None if took < HANG_SECONDS else max(took / LOOK_SHARE, HANG_SECONDS)
            found = await self._applied_in(change, patience)
            if found is None:
                raise
            committed = found
        taken(committed)
        return committed

    async def _applied(self, change: Change) -> Committed | None:
        """Return what a commit led to if it is known to have been applied, else `None`."""
        try:
            return await self.outcome(change)
        except SojournError:
            return None

    async def _applied_in(self, change: Change, seconds: float | None) -> Committed | None:
        """Return the same, `None` as well if the store does not tell within its or this limit."""
        try:
            async with asyncio.timeout(seconds):
                return await self._applied(change)
        except TimeoutError:
            return None

    async def outcome(self, change: Change) -> Committed | None:
        """Return what a commit led to, or `None` if the store does not remember it.

        Raises what the store does when it can not be asked.
        """
        if change.id is None:
            return None
        get = Get(app=change.app, id=change.id, now=change.now, expired=True)
        record = await self.store.get(get)
        if record is None or recall(record.header, change.op) is None:
            return None
        # Remembered, so this only repeats the result. Should it be forgotten meanwhile, or the
        # session be another one, nothing has revision 0: it is refused, not applied again.
        again = msgspec.structs.replace(change, epoch=record.header.epoch, revision=0)
        return await self.store.commit(again)


async def uninterrupted(work: Coroutine[object, object, T]) -> T:
    """Run a short piece of work to its end, whoever cancels meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # the caller raises the first one when this is done
            continue
    return task.result()


async def completed(work: Coroutine[object, object, T]) -> T:
    """Run a short piece of work to its end, then raise the cancellation that came meanwhile.

    For a `finally`, where nothing else remembers it.
    """
    cancelled: asyncio.CancelledError | None = None
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    try:
        return task.result()
    finally:
        if cancelled is not None:
            raise cancelled

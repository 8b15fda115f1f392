"""The store in memory: the contract in executable form, without durability.

Values are kept encoded, so nothing that is returned can alias what is kept and nothing is copied.
Every verb runs to its end without awaiting, under one lock, so each is atomic for tasks and for
threads alike.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from typing import TYPE_CHECKING, Literal
from weakref import WeakValueDictionary

from sojourn.errors import Closed
from sojourn.vault.transfer import TransferVault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from sojourn.model import Entry, Header, Record, StoredDocument
    from sojourn.store import (
        Acquire,
        Change,
        Committed,
        Create,
        Delete,
        DocumentQuery,
        Due,
        Dumped,
        EventQuery,
        Fork,
        Get,
        Headers,
        Listed,
        Query,
        Renew,
        Restore,
        RestoreShared,
        Shared,
        Snapshot,
        Tiers,
        Touch,
        Walk,
    )


class _Shared:
    """What the handles of one memory store share: the data, a lock, and who is waiting."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.vault = TransferVault()
        self.lock = threading.RLock()
        # In the order in which they came: a set's would differ from run to run.
        self.watchers: dict[tuple[str, str], dict[_Wakeup, None]] = {}


_named: WeakValueDictionary[str, _Shared] = WeakValueDictionary()
_named_lock = threading.Lock()


def _begin_anew() -> None:
    """Forget the parent's data; called in a forked child.

    Its lock may be held there by a thread that is not here, and a memory is a process's own.
    """
    _named.clear()
    _named_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_named_lock.acquire,
        after_in_parent=_named_lock.release,
        after_in_child=_begin_anew,
    )


def _shared_as(name: str | None) -> _Shared:
    """Return the data of that name, new ones without a name."""
    if name is None:
        return _Shared()
    with _named_lock:
        shared = _named[name] = _named.get(name) or _Shared()
    return shared


class MemoryStore:
    """Sessions in this process's memory: a whole store, but nothing outlives the process.

    Stores of the same `shared` name in one process show the same data, which is gone once the last
    of them is closed. Without a name the data is this store's own.
    """

    def __init__(self, shared: str | None = None, *, ready: bool = True) -> None:
        """Make a store, ready to use; with `ready=False` one to be opened first, as others are."""
        self.name = f"memory://{shared or ''}"
        self._state = "not open yet"
        self._held: _Shared | None = _shared_as(shared)
        self._shared = self._held if ready else None
        self._place = f"{self.name}#{self._held.id}"

    @property
    def place(self) -> str:
        """Which data this is: no other has it, of the same name in another process neither."""
        return self._place

    @property
    def _open(self) -> _Shared:
        if self._shared is None:
            raise Closed(self.name, self._state)
        return self._shared

    async def open(self) -> None:
        """Give access to the data; raises `Closed` after `close`."""
        if self._held is None:
            raise Closed(self.name)
        self._shared = self._held

    async def close(self) -> None:
        """Let go of the data. Twice is fine."""
        self._state = "closed"
        shared, self._shared = self._held, None
        self._held = None
        if shared is not None:
            with shared.lock:
                waiting = [wakeup for group in shared.watchers.values() for wakeup in group]
            for wakeup in waiting:
                wakeup.wake()

    async def create(self, create: Create, /) -> Committed:
        """Store a new session."""
        shared = self._open
        with shared.lock:
            created = shared.vault.create(create)
            _wake(shared, create.header.app, (create.header.id,))
            return created

    async def fork(self, fork: Fork, /) -> Committed:
        """Copy a session in one step."""
        shared = self._open
        with shared.lock:
            forked = shared.vault.fork(fork)
            _wake(shared, fork.header.app, (fork.header.id,))
            return forked

    async def commit(self, change: Change, /) -> Committed:
        """Apply a change."""
        shared = self._shared or self._open
        with shared.lock:
            committed = shared.vault.commit(change)
            if shared.watchers and change.id is not None:
                _wake(shared, change.app, (change.id,))
            return committed

    async def get(self, get: Get, /) -> Record | None:
        """Return a session."""
        shared = self._shared or self._open
        with shared.lock:
            return shared.vault.get(get)

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log."""
        shared = self._open
        with shared.lock:
            return shared.vault.events(app, id, now, window)

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions."""
        shared = self._open
        with shared.lock:
            return shared.vault.list(query)

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match."""
        shared = self._open
        with shared.lock:
            return shared.vault.count(query)

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline."""
        shared = self._open
        with shared.lock:
            return shared.vault.touch(touch)

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns."""
        shared = self._open
        with shared.lock:
            removed = shared.vault.delete(delete)
            _wake(shared, delete.app, removed)
            return bool(removed)

    async def forget(self, app: str, user: str, /) -> int:
        """Remove everything of a user."""
        shared = self._open
        with shared.lock:
            count, removed = shared.vault.forget(app, user)
            _wake(shared, app, removed)
            return count

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return what the reaper has to look at."""
        shared = self._open
        with shared.lock:
            return shared.vault.due(due)

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove what is due."""
        shared = self._open
        with shared.lock:
            reaped, removed = shared.vault.reap(due)
            _wake(shared, due.app, removed)
            return reaped

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return shared state."""
        shared = self._open
        with shared.lock:
            return shared.vault.tiers(app, user)

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return one document."""
        shared = self._open
        with shared.lock:
            return shared.vault.document(query)

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents without bodies."""
        shared = self._open
        with shared.lock:
            return shared.vault.documents(query)

    async def acquire(self, acquire: Acquire, /) -> int:
        """Grant a lease."""
        shared = self._open
        with shared.lock:
            return shared.vault.acquire(acquire)

    async def renew(self, renew: Renew, /) -> None:
        """Renew or release a lease."""
        shared = self._open
        with shared.lock:
            shared.vault.renew(renew)

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        """Return the apps that have anything."""
        shared = self._open
        with shared.lock:
            return shared.vault.apps(after, limit)

    async def headers(self, walk: Walk, /) -> Headers:
        """Return a page of headers."""
        shared = self._open
        with shared.lock:
            return shared.vault.headers(walk)

    async def dump(self, walk: Walk, /) -> Dumped:
        """Return a page of whole sessions."""
        shared = self._open
        with shared.lock:
            return shared.vault.dump(walk)

    async def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part."""
        shared = self._open
        with shared.lock:
            parts = shared.vault.parts(app, id, now)
        for part in parts:
            yield part

    async def shared(self, app: str, now: int, position: str | None, /) -> Shared:
        """Return a page of what sessions share."""
        shared = self._open
        with shared.lock:
            return shared.vault.shared(app, now, position)

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        """Put a session, or a part of one."""
        shared = self._open
        with shared.lock:
            outcome = shared.vault.restore(restore)
            if outcome != "partial":
                _wake(shared, restore.snapshot.header.app, (restore.snapshot.header.id,))
            return outcome

    async def restore_shared(self, restore: RestoreShared, /) -> None:
        """Put tiers and documents of an app."""
        shared = self._open
        with shared.lock:
            shared.vault.restore_shared(restore)

    def subscribe(self, app: str, id: str, /) -> _Wakeup:
        """Return a subscription to one session's changes; call it in a running event loop."""
        return _Wakeup(self._open, (app, id))


class _Wakeup:
    """A subscription: an event of the subscriber's loop, set from whichever thread commits."""

    def __init__(self, shared: _Shared, key: tuple[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._shared: _Shared | None = shared
        self._key = key
        with shared.lock:
            shared.watchers.setdefault(key, {})[self] = None

    def wake(self) -> None:
        """Make `wait` return; safe from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:  # the subscriber's loop is closed: nobody is waiting any more
            self.close()

    async def wait(self, seconds: float, /) -> None:
        """Return after a change, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def close(self) -> None:
        """Stop. Twice is fine."""
        shared, self._shared = self._shared, None
        if shared is None:
            return
        with shared.lock:
            group = shared.watchers.get(self._key, {})
            group.pop(self, None)
            if not group:
                shared.watchers.pop(self._key, None)


def _wake(shared: _Shared, app: str, ids: Iterable[str]) -> None:
    """Wake whoever watches these sessions."""
    for id in ids:
        for wakeup in tuple(shared.watchers.get((app, id), ())):
            wakeup.wake()

"""The store in PostgreSQL, shared by any number of processes on any number of machines.

Operations are decided in the process (`stores/planning`) and applied by one call for each batch,
which the server checks unit by unit. An acknowledged write is on the server's disk (and its
synchronous replicas', if it has any), unless `durability="relaxed"` was chosen: then the last ones
before a crash of the server may be lost, never the consistency.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sojourn.batcher import Batcher
from sojourn.lifetime import Lifetime
from sojourn.stores.planning import weight
from sojourn.stores.postgres import inspection, listing, schema, sharing
from sojourn.stores.postgres.dumping import Dumper
from sojourn.stores.postgres.pool import Pool
from sojourn.stores.postgres.reader import Reader
from sojourn.stores.postgres.removal import Removal
from sojourn.stores.postgres.restoring import Restoring
from sojourn.stores.postgres.watch import Watchers
from sojourn.stores.postgres.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence

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
    from sojourn.stores.planning import Operation
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection
    from sojourn.stores.summary import AppSummary
    from sojourn.wakeups import Wakeup

T = TypeVar("T")

CHECK_SECONDS = 3_600.0
"""Time for a check of everything: a million sessions take minutes."""


class PostgresStore:
    """Sessions in a schema of a PostgreSQL database."""

    def __init__(self, address: Address) -> None:
        """Name the place; `open` goes there."""
        self.name = address.shown
        self._address = address
        self._lifetime = Lifetime(self.name)
        self._pool = Pool(address, address.pool_size)
        self._reader = Reader(address)
        self._watchers = Watchers(address, self._pool)
        self._writer = Writer(address, changed=self._watchers.wake)
        self._removal = Removal(address, self._pool, self._reader)
        self._dumper = Dumper(address, self._reader)
        self._restoring = Restoring(address, self._pool, self._reader)
        self._batcher: Batcher[Operation, Any] = Batcher(
            self._writer.write, name=self.name, weigh=weight, patience=address.timeout / 4
        )

    @property
    def place(self) -> str:
        """Which schema of which database this is."""
        return self._address.place

    # --- opening and closing -------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and make the schema or bring an older one to the newest version.

        Raises `NewerSchema`, `ForeignFile`, `ReadOnly` or `Unavailable`, with the driver's error as
        its cause.
        """
        async with self._lifetime.turn:
            if self._lifetime.has_begun():
                return
            try:
                # Not again: whoever opens a store is told at once that it is not there.
                await self._pool.run(lambda db: schema.migrate(db, self._address), again=False)
                self._writer.begin()
                self._watchers.begin()
                self._lifetime.begin()
            except BaseException:
                await asyncio.shield(self._pool.let_go())
                raise

    async def close(self) -> None:
        """Finish the writes that were accepted, then close. Twice is fine.

        A call that is cancelled does not stop the closing; another one waits for its end.
        """
        await self._lifetime.end(self._shut)

    async def _shut(self) -> None:
        await self._watchers.close()
        await self._batcher.drain()
        await self._writer.close()
        await self._pool.close()

    # --- how reads and writes travel -----------------------------------------------------------

    def _write(self, operation: Operation) -> Coroutine[Any, Any, Any]:
        self._lifetime.check()
        return self._batcher.submit(operation)

    async def _read(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        self._lifetime.check()
        return await self._pool.run(read)

    async def _remove(self, remove: Awaitable[T]) -> T:
        """Return what a removal returns; it ends whether or not its caller waits for it."""
        try:
            return await _final(remove)
        finally:
            self._watchers.wake_all()  # whatever was below what was removed is gone as well

    # --- the contract --------------------------------------------------------------------------

    async def create(self, create: Create, /) -> Committed:
        """Store a new session."""
        created: Committed = await self._write(create)
        return created

    async def fork(self, fork: Fork, /) -> Committed:
        """Copy a session in one step."""
        forked: Committed = await self._write(fork)
        return forked

    async def commit(self, change: Change, /) -> Committed:
        """Apply a change."""
        committed: Committed = await self._write(change)
        return committed

    async def get(self, get: Get, /) -> Record | None:
        """Return a session."""
        return await self._read(lambda db: self._reader.get(db, get))

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log."""
        return await self._read(lambda db: self._reader.events(db, app, id, now, window))

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions."""
        return await self._read(lambda db: listing.page(self._reader, db, query))

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match."""
        return await self._read(lambda db: listing.count(self._reader, db, query))

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline."""
        header: Header = await self._write(touch)
        return header

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns."""
        self._lifetime.check()
        return await self._remove(self._removal.delete(delete))

    async def forget(self, app: str, user: str, /) -> int:
        """Remove everything of a user."""
        self._lifetime.check()
        return await self._remove(self._removal.forget(app, user))

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return what the reaper has to look at."""
        self._lifetime.check()
        return await _final(self._removal.due(due))

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove what is due."""
        self._lifetime.check()
        return await self._remove(self._removal.reap(due))

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return shared state."""
        return await self._read(lambda db: self._reader.tiers(db, app, user))

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return one document."""
        return await self._read(lambda db: self._reader.document(db, query))

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents, with as much of their bodies as is asked for."""
        return await self._read(lambda db: self._reader.documents(db, query))

    async def acquire(self, acquire: Acquire, /) -> int:
        """Grant a lease."""
        token: int = await self._write(acquire)
        return token

    async def renew(self, renew: Renew, /) -> None:
        """Renew or release a lease."""
        await self._write(renew)

    async def facts(self) -> inspection.Facts:
        """Return what the server is and how it is set; the store need not be open, nor be there."""
        return await inspection.facts(self._address)

    async def summaries(self, now: int) -> Sequence[AppSummary]:
        """Return what there is of each app; the store need not be open."""
        return await inspection.summaries(self._address, now)

    async def drop(self) -> None:
        """Remove the store: its schema, with all that is in it; it need not be open, nor there.

        For places that were made to be tried out. Raises `Unavailable`.
        """
        pool = Pool(self._address, 1)
        try:
            await pool.run(lambda db: schema.drop(db, self._address))
        finally:
            await pool.close()

    async def check(self) -> Sequence[str]:
        """Return what is wrong, in words; it reads everything, and takes its time."""
        self._lifetime.check()
        loop = asyncio.get_running_loop()
        return await self._pool.run(
            lambda db: inspection.check(db, self._address), until=loop.time() + CHECK_SECONDS
        )

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        """Return the apps that have anything."""
        return await self._read(lambda db: self._dumper.apps(db, after, limit))

    async def headers(self, walk: Walk, /) -> Headers:
        """Return a page of headers."""
        return await self._read(lambda db: self._dumper.headers(db, walk))

    async def dump(self, walk: Walk, /) -> Dumped:
        """Return a page of whole sessions."""
        return await self._read(lambda db: self._dumper.dump(db, walk))

    def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part, on a connection of its own."""
        self._lifetime.check()
        return self._dumper.parts(app, id, now)

    async def shared(self, app: str, now: int, position: str | None, /) -> Shared:
        """Return a page of what sessions share."""
        return await self._read(lambda db: sharing.page(self._reader, db, app, now, position))

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        """Put a session, or a part of one."""
        self._lifetime.check()
        try:
            return await _final(self._restoring.restore(restore))
        finally:
            header = restore.snapshot.header
            self._watchers.wake([(header.app, header.id)])

    async def restore_shared(self, restore: RestoreShared, /) -> None:
        """Put tiers and documents of an app."""
        self._lifetime.check()
        relaxed = self._address.durability == "relaxed"
        put = self._pool.run(lambda db: sharing.restore(self._reader, db, restore, relaxed=relaxed))
        await _final(put)

    def subscribe(self, app: str, id: str, /) -> Wakeup:
        """Return a subscription to one session's changes."""
        self._lifetime.check()
        return self._watchers.subscribe((app, id))


async def _final(work: Awaitable[T]) -> T:
    """Return what `work` returns. Cancelled, wait for its end first, so that it is final."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:  # the first one is raised
                continue
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is told that it was not
        raise

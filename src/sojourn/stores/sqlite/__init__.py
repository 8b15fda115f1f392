"""The store in one SQLite file, shared by any number of processes on one machine.

Writes go to one thread, in groups, through a gate that lets processes take turns; point reads run
on the event loop's own thread, long ones on a pool. An acknowledged write is on disk, unless
`durability="relaxed"` was chosen: then it survives the process but the last ones before a power
failure may be lost (never the file's consistency).
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import apsw

from sojourn.batcher import Batcher
from sojourn.errors import Closed, InvalidQuery, ReadOnly, Unavailable
from sojourn.exiting import off_loop
from sojourn.gate import Gate
from sojourn.lifetime import Lifetime
from sojourn.mounts import Whereabouts, refuse_unsafe_place, whole_path
from sojourn.operations import FindDue, Forget, Reap, weight
from sojourn.stores.places import on_this_machine
from sojourn.stores.sqlite import connection, maintenance, schema, writer
from sojourn.stores.sqlite.dumping import Dumper, Reading
from sojourn.stores.sqlite.reader import SHORT_BYTES, Reader
from sojourn.stores.sqlite.watch import Watchers
from sojourn.stores.sqlite.windows import TooLong
from sojourn.stores.sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from sojourn.model import Entry, Header, Record, StoredDocument
    from sojourn.operations import Operation
    from sojourn.store import (
        Acquire,
        Change,
        Committed,
        Create,
        Delete,
        DocumentQuery,
        Due,
        Dumped,
        Durability,
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
    from sojourn.wakeups import Wakeup

SHORT_WINDOW = 50
"""Events that may be read on the event loop's thread: fewer microseconds than a thread hop."""

READERS = 2
"""Threads for long reads: lists, long windows, documents, backups."""

T = TypeVar("T")


class SqliteStore:
    """Sessions in one SQLite file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "durable",
        vfs: str | None = None,
    ) -> None:
        """Name the file; `open` makes or opens it. `vfs` is a registered SQLite VFS.

        Raises `InvalidQuery` for no path, or an unknown durability.
        """
        if durability not in ("durable", "relaxed"):
            raise InvalidQuery("durability", f"{durability!r} is neither 'durable' nor 'relaxed'")
        given = connection.check_path(path)
        self._path = whole_path(given)
        self.name = f"sqlite:///{given}"
        self._durability: Durability = durability
        self._vfs = vfs
        self._lifetime = Lifetime(self.name)
        self._batcher: Batcher[Operation, Any] | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._gate: Gate | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._pool_readers = threading.local()
        self._opened_readers: list[Reader] = []
        self._watchers = Watchers(self._short_reader)

    @property
    def place(self) -> str:
        """Which file of which machine this is, whatever links lead there."""
        return on_this_machine("sqlite", self._path)

    # --- opening and closing -------------------------------------------------------------------

    async def open(self) -> None:
        """Make or open the file, and bring an older one to the newest version.

        Raises `UnsupportedFilesystem`, `ForeignFile`, `NewerSchema`, `ReadOnly`, `StorageFull`,
        `Corrupt` or `Unavailable`; in each case the file is left as it was.
        """
        async with self._lifetime.turn:
            if self._lifetime.has_begun():
                return
            loop = asyncio.get_running_loop()
            work = off_loop(None, self._prepare)
            try:
                db, gate, reader = await asyncio.shield(work)
            except asyncio.CancelledError:
                work.add_done_callback(_discard)
                raise
            except apsw.Error as error:
                raise connection.mapped(error, self.name) from error
            try:
                self._lifetime.begin()
            except Closed:  # by somebody else, meanwhile
                _discard(work)
                raise
            self._start(loop, db, gate, reader)

    def _start(
        self, loop: asyncio.AbstractEventLoop, db: apsw.Connection, gate: Gate, reader: Reader
    ) -> None:
        self._gate, self._reader = gate, reader
        self._writer = Writer(
            db,
            gate,
            self.name,
            loop=loop,
            durability=self._durability,
            changed=self._watchers.wake,
            where=[Whereabouts(f"{self._path}{end}") for end in ("", "-wal", "-shm")],
        )
        self._batcher = Batcher(self._writer.write, name=self.name, weigh=weight)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="sojourn reader")

    def _prepare(self) -> tuple[apsw.Connection, Gate, Reader]:
        """Check the place and the file and migrate it; return what a store works with."""
        refuse_unsafe_place(self._path)
        connection.refuse_foreign_file(self._path)
        folder = str(Path(self._path).parent)
        if not os.path.isdir(folder):  # noqa: PTH112 - Path's raises where it may not look
            raise Unavailable(self.name, f"its folder {folder!r} does not exist")
        gate = Gate(os.path.realpath(self._path))
        try:
            self._wait_for_turn(gate)
            db = self._migrated()
            try:
                return db, gate, Reader(self._connect(long=False), short=True)
            except BaseException:
                db.close()
                raise
        except BaseException:
            gate.close()
            raise
        finally:
            gate.release()

    def _wait_for_turn(self, gate: Gate) -> None:
        if not gate.acquire_within(writer.GATE_SECONDS):
            reason = f"another process has kept the file for {writer.GATE_SECONDS:.0f} s"
            raise Unavailable(self.name, reason)

    def _migrated(self) -> apsw.Connection:
        db = connection.connect(self._path, vfs=self._vfs, writer=True)
        try:
            self._refuse_read_only(db)
            # Until the file is known to be ours, not even its own log may be moved into it.
            has_log = Path(os.path.realpath(self._path) + "-wal").exists()
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(has_log))
            version = schema.check_version(db, self.name, schema.MIGRATIONS)
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            connection.make_durable(db)
            if version < len(schema.MIGRATIONS):
                db.execute("BEGIN IMMEDIATE")
                schema.migrate(db, self.name, schema.MIGRATIONS)
                db.execute("COMMIT")
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except BaseException:
            db.close()
            raise
        return db

    def _refuse_read_only(self, db: apsw.Connection) -> None:
        if db.readonly("main"):
            raise ReadOnly(self.name, "the file can not be written")

    def _connect(self, *, long: bool = True) -> apsw.Connection:
        return connection.connect(self._path, vfs=self._vfs, writer=False, long=long)

    async def close(self) -> None:
        """Finish the writes that were accepted, then close. Twice is fine.

        A call that is cancelled does not stop the closing; another one waits for its end.
        """
        await self._lifetime.end(self._shut)

    async def _shut(self) -> None:
        await self._watchers.close()
        if self._batcher is not None:
            await self._batcher.drain()
        if self._pool is not None:
            pool = self._pool
            await off_loop(None, pool.shutdown)
        for reader in (self._reader, *self._opened_readers):
            if reader is not None:
                reader.close()
        if self._writer is not None:
            await self._writer.stop()
        if self._gate is not None:
            self._gate.close()

    def _check_open(self) -> None:
        self._lifetime.check()
        if self._writer is not None and self._writer.poison is not None:
            raise self._writer.poison.with_traceback(None)  # else it grows with every raise

    # --- how reads and writes travel -----------------------------------------------------------

    async def _write(self, operation: Operation) -> Any:
        self._check_open()
        assert self._batcher is not None  # the store is open
        return await self._batcher.submit(operation)

    async def _remove(self, operation: Operation) -> Any:
        """Write what removes sessions, and keep nothing that was read of them."""
        try:
            return await self._write(operation)
        finally:
            if self._reader is not None:
                self._reader.forget()

    def _short_reader(self) -> Reader:
        self._check_open()
        assert self._reader is not None  # the store is open
        return self._reader

    def _read_here(self, read: Callable[[Reader], T]) -> T:
        """Read on the event loop's thread: for what takes microseconds."""
        try:
            return read(self._short_reader())
        except connection.DRIVER_ERRORS as error:
            raise connection.mapped(error, self.name) from error

    async def _read_there(self, read: Callable[[Dumper], T]) -> T:
        """Read on a reader thread."""
        self._check_open()
        return await off_loop(self._pool, self._read_in_pool, read)

    def _read_in_pool(self, read: Callable[[Dumper], T]) -> T:
        try:
            reader: Dumper | None = getattr(self._pool_readers, "reader", None)
            if reader is None:
                reader = Dumper(self._connect(), short=False)
                self._pool_readers.reader = reader
                self._opened_readers.append(reader)
            return read(reader)
        except connection.DRIVER_ERRORS as error:
            raise connection.mapped(error, self.name) from error

    async def _read_window(self, window: EventQuery | None, read: Callable[[Reader], T]) -> T:
        """Read a short window here and a long one there; which it is may show only on the way."""
        if window is None or _is_short(window):
            try:
                return self._read_here(read)
            except TooLong:
                pass
        return await self._read_there(read)

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
        self._check_open()
        assert self._batcher is not None  # the store is open
        committed: Committed = await self._batcher.submit(change)
        return committed

    async def get(self, get: Get, /) -> Record | None:
        """Return a session."""
        return await self._read_window(get.window, lambda reader: reader.get(get))

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log."""
        return await self._read_window(window, lambda reader: reader.events(app, id, now, window))

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions."""
        return await self._read_there(lambda reader: reader.list(query))

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match."""
        return await self._read_there(lambda reader: reader.count(query))

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline."""
        header: Header = await self._write(touch)
        return header

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns."""
        deleted: bool = await self._remove(delete)
        return deleted

    async def forget(self, app: str, user: str, /) -> int:
        """Remove everything of a user."""
        forgotten: int = await self._remove(Forget(app, user))
        return forgotten

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return what the reaper has to look at."""
        found: Sequence[Header] = await self._write(FindDue(due))
        return found

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove what is due."""
        reaped: Sequence[str] = await self._remove(Reap(due))
        return reaped

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return shared state."""
        return self._read_here(lambda reader: reader.tiers(app, user))

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return one document: a short one is read here, a long one there."""
        try:
            return self._read_here(lambda reader: reader.document(query))
        except TooLong:
            return await self._read_there(lambda reader: reader.document(query))

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents, with as much of their bodies as is asked for."""
        if query.limit <= SHORT_WINDOW and query.limit * query.lead <= SHORT_BYTES:
            return self._read_here(lambda reader: reader.documents(query))
        return await self._read_there(lambda reader: reader.documents(query))

    async def acquire(self, acquire: Acquire, /) -> int:
        """Grant a lease."""
        token: int = await self._write(acquire)
        return token

    async def renew(self, renew: Renew, /) -> None:
        """Renew or release a lease."""
        await self._write(renew)

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        """Return the apps that have anything."""
        return await self._read_there(lambda reader: reader.apps(after, limit))

    async def headers(self, walk: Walk, /) -> Headers:
        """Return a page of headers."""
        return await self._read_there(lambda reader: reader.headers(walk))

    async def dump(self, walk: Walk, /) -> Dumped:
        """Return a page of whole sessions."""
        return await self._read_there(lambda reader: reader.dump(walk))

    async def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part, from a connection of its own that keeps one snapshot."""
        self._check_open()
        reading = Reading(self._connect, self.name, app, id, now)
        try:
            last = False
            while not last:
                step = off_loop(self._pool, reading.next_part)
                part = await reading.finished(step)
                if part is None:
                    return
                last = part.last
                yield part
        finally:
            reading.close()

    async def shared(self, app: str, now: int, position: str | None, /) -> Shared:
        """Return a page of what sessions share."""
        return await self._read_there(lambda reader: reader.shared(app, now, position))

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        """Put a session, or a part of one."""
        outcome: Literal["restored", "unchanged", "partial"] = await self._write(restore)
        return outcome

    async def restore_shared(self, restore: RestoreShared, /) -> None:
        """Put tiers and documents of an app."""
        await self._write(restore)

    def subscribe(self, app: str, id: str, /) -> Wakeup:
        """Return a subscription to one session's changes."""
        self._check_open()
        return self._watchers.subscribe((app, id))

    async def backup(self, path: str, /) -> None:
        """Write a consistent copy to `path`, while writers go on.

        Raises `PathTaken` if there is something, `Unavailable` or `StorageFull` if it can not
        be written; nothing half-written stays behind.
        """
        self._check_open()
        await off_loop(self._pool, maintenance.backup, self._connect, path, self.name)

    async def check(self) -> Sequence[str]:
        """Return what is wrong with the file, in words; empty when all is well."""
        self._check_open()
        return await off_loop(self._pool, maintenance.check, self._connect, self.name)


def _discard(opened: asyncio.Future[tuple[apsw.Connection, Gate, Reader]]) -> None:
    """Close what was opened for somebody who is gone."""
    if opened.cancelled() or opened.exception() is not None:
        return
    db, gate, reader = opened.result()
    reader.close()
    db.close()
    gate.close()


def _is_short(window: EventQuery) -> bool:
    limit = window.last if window.first is None else window.first
    return limit is not None and limit <= SHORT_WINDOW

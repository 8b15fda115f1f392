"""The store in plain files: a folder for each app, with a journal that a person can read.

Every process holds the sessions of the apps that it uses in memory, and events and bodies of
documents on the disk. Writes go to one thread, in groups, through a gate that lets processes take
turns; each follows what the others write. An acknowledged write is on disk, unless
`durability="relaxed"` was chosen: then it survives the process but the last ones before a power
failure may be lost (never the consistency of the files).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from sojourn.batcher import Batcher
from sojourn.errors import Closed, InvalidQuery, Unavailable
from sojourn.exiting import off_loop
from sojourn.gate import Gate
from sojourn.lifetime import Lifetime
from sojourn.mounts import Whereabouts, refuse_unsafe_place, whole_path
from sojourn.operations import FindDue, Forget, Reap, weight
from sojourn.stores.filesystem import folder, maintenance, readable, writer
from sojourn.stores.filesystem.disk import Disk, mapped
from sojourn.stores.filesystem.files import UnreadDocument
from sojourn.stores.filesystem.keeper import Keeper
from sojourn.stores.filesystem.log import Unread
from sojourn.stores.filesystem.shard import Shard
from sojourn.stores.filesystem.watch import Watchers
from sojourn.stores.filesystem.writer import Writer
from sojourn.stores.places import on_this_machine

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
    from sojourn.stores.filesystem.files import Files
    from sojourn.stores.filesystem.keeping import KeepingVault
    from sojourn.wakeups import Wakeup

SHORT_WINDOW = 50
"""Events that may be read on the event loop's thread: fewer microseconds than a thread hop."""

SHORT_BYTES = 64 * 1024
"""Bytes that may be read on the event loop's thread."""

FOLLOW_BYTES = 256 * 1024
"""Bytes that other processes wrote that may be followed on the event loop's thread."""

READERS = 2
"""Threads for long reads, for opening apps, and for compactions."""

T = TypeVar("T")


class FilesystemStore:
    """Sessions in the files of one folder."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "durable",
        disk: Disk | None = None,
    ) -> None:
        """Name the folder; `open` makes or opens it. `disk` makes the calls to the system.

        Raises `InvalidQuery` for no path, or an unknown durability.
        """
        if durability not in ("durable", "relaxed"):
            raise InvalidQuery("durability", f"{durability!r} is neither 'durable' nor 'relaxed'")
        given = os.fspath(path)
        if not given:
            raise InvalidQuery("path", "name a folder; for a store in memory use memory://")
        self._path = whole_path(given)
        self.name = f"file://{given}"
        self._durability: Durability = durability
        self._disk = disk or Disk()
        if "\0" in self._path:
            raise InvalidQuery("path", "no folder's name has a null character in it")
        self._lifetime = Lifetime(self.name)
        self._shards: dict[str, Shard] = {}
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._watchers = Watchers(self._nobody_watches)
        self._gate: Gate | None = None
        self._writer: Writer | None = None
        self._batcher: Batcher[Operation, Any] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._keeper: Keeper | None = None

    @property
    def place(self) -> str:
        """Which folder of which machine this is, whatever links lead there."""
        return on_this_machine("file", self._path)

    # --- opening and closing -------------------------------------------------------------------

    async def open(self) -> None:
        """Make or open the folder. The files of an app are read when it is first asked for.

        Raises `UnsupportedFilesystem`, `ForeignFile`, `NewerSchema`, `ReadOnly`, `StorageFull` or
        `Unavailable`; in each case the folder is left as it was.
        """
        async with self._lifetime.turn:
            if self._lifetime.has_begun():
                return
            loop = asyncio.get_running_loop()
            work = off_loop(None, self._prepare)
            try:
                gate = await asyncio.shield(work)
            except asyncio.CancelledError:
                work.add_done_callback(_discard)
                raise
            try:
                self._lifetime.begin()
            except Closed:  # by somebody else, meanwhile
                gate.close()
                raise
            self._start(loop, gate)

    def _start(self, loop: asyncio.AbstractEventLoop, gate: Gate) -> None:
        self._gate = gate
        self._writer = Writer(
            gate,
            self.name,
            loop=loop,
            durability=self._durability,
            shard=self._shard,
            moved=self._moved,
            where=Whereabouts(os.path.join(os.path.realpath(self._path), folder.GATE)),
        )
        self._batcher = Batcher(self._writer.write, name=self.name, weigh=weight)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="sojourn reader")
        self._keeper = Keeper(self._disk, self._shards, self._writer, self._pool, self._moved)

    def _prepare(self) -> Gate:
        """Check the place and the folder; return the gate of a store that is ready."""
        refuse_unsafe_place(self._path)
        try:
            if not folder.check(self._disk, self._path) and not os.path.isdir(self._path):
                with contextlib.suppress(FileExistsError):  # another process was faster
                    self._disk.make_folder(self._path)
                self._disk.sync_folder(os.path.dirname(os.path.realpath(self._path)))
            gate = Gate(os.path.join(os.path.realpath(self._path), ""), folder.GATE)
            try:
                self._make_ready(gate)
            except BaseException:
                gate.close()
                raise
        except OSError as error:
            raise mapped(error, self.name) from error
        return gate

    def _make_ready(self, gate: Gate) -> None:
        """Make the folder a store if it is none, and remove what a crash left half-made."""
        if not gate.acquire_within(writer.GATE_SECONDS):
            reason = f"another process has kept the folder for {writer.GATE_SECONDS:.0f} s"
            raise Unavailable(self.name, reason)
        if not folder.check(self._disk, self._path):
            folder.make(self._disk, self._path)
        folder.clean(self._disk, self._path)
        gate.release()

    async def close(self) -> None:
        """Finish the writes that were accepted, then close. Twice is fine.

        What was removed from an app and is still in its files is removed from them first. A call
        that is cancelled does not stop the closing; another one waits for its end.
        """
        await self._lifetime.end(self._shut)

    async def _shut(self) -> None:
        self._watchers.wake_all()
        if self._batcher is not None:
            await self._batcher.drain()
        if self._keeper is not None:
            await self._keeper.close()
        if self._pool is not None:
            pool = self._pool
            await off_loop(None, pool.shutdown)
        if self._writer is not None:
            await self._writer.stop()
        if self._gate is not None:
            self._gate.close()
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    # --- apps ----------------------------------------------------------------------------------

    def _shard(self, app: str) -> Shard:
        shard = self._shards.get(app)
        if shard is None:
            apps = os.path.join(os.path.realpath(self._path), folder.APPS)
            shard = Shard(self._disk, apps, app)
            shard = self._shards.setdefault(app, shard)
        return shard

    async def _current(self, app: str) -> Shard:
        """Return the shard of an app, with everything that any process has published."""
        self._lifetime.check()
        shard = self._shard(app)
        shard.check()
        if shard.is_behind():
            if shard.is_far_behind(FOLLOW_BYTES):
                await self._follow_there(shard)
            else:
                shard.follow()
            self._moved(shard)
        return shard

    async def _follow_there(self, shard: Shard) -> None:
        """Read the files of an app in the pool, once for all who ask."""
        work = self._loading.get(shard.app)
        if work is None:
            work = asyncio.ensure_future(self._load(shard))
            self._loading[shard.app] = work
            work.add_done_callback(lambda _: self._loading.pop(shard.app, None))
        await asyncio.shield(work)

    async def _load(self, shard: Shard) -> None:
        assert self._writer is not None  # the store is open
        first = shard.replica is None
        await off_loop(self._pool, _guarded, shard.follow, shard.folder)
        if first:
            await self._writer.call(shard.settle_in_turn)

    def _moved(self, shard: Shard) -> None:
        """Wake who watches what changed."""
        changed = shard.take_changed()
        if changed is None:
            self._watchers.wake_app(shard.app)
        elif changed:
            self._watchers.wake(shard.app, changed)
        if self._keeper is not None:
            self._keeper.note(shard)

    def _nobody_watches(self) -> None:
        if self._keeper is not None:
            self._keeper.unwatch()

    async def _write(self, app: str, operation: Operation) -> Any:
        await self._current(app)
        assert self._batcher is not None  # the store is open
        return await self._batcher.submit(operation)

    async def _there(self, work: Callable[[], T]) -> T:
        """Do something on a reader thread."""
        return await off_loop(self._pool, _guarded, work, self.name)

    async def _look(self, app: str, look: Callable[[KeepingVault], T]) -> tuple[T, Files]:
        """Return what `look` finds in the vault, and the files that its places are in."""
        shard = await self._current(app)
        with shard.lock:
            vault = shard.vault
            return look(vault), vault.files

    async def _entries(self, files: Files, events: Sequence[Entry]) -> list[Entry]:
        """Return events, read: a few here, many there."""
        if len(events) <= SHORT_WINDOW and _size(events) <= SHORT_BYTES:
            return _guarded(lambda: files.entries(events), self.name)
        return await self._there(lambda: files.entries(events))

    # --- the contract --------------------------------------------------------------------------

    async def create(self, create: Create, /) -> Committed:
        """Store a new session."""
        created: Committed = await self._write(create.header.app, create)
        return created

    async def fork(self, fork: Fork, /) -> Committed:
        """Copy a session in one step."""
        forked: Committed = await self._write(fork.header.app, fork)
        return forked

    async def commit(self, change: Change, /) -> Committed:
        """Apply a change."""
        committed: Committed = await self._write(change.app, change)
        return committed

    async def get(self, get: Get, /) -> Record | None:
        """Return a session."""
        record, files = await self._look(get.app, lambda vault: vault.get(get))
        if record is None or not record.entries:
            return record
        entries = await self._entries(files, record.entries)
        return msgspec.structs.replace(record, entries=tuple(entries))

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log."""
        found, files = await self._look(app, lambda vault: vault.events(app, id, now, window))
        return await self._entries(files, found) if found else found

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions."""
        return (await self._look(query.app, lambda vault: vault.list(query)))[0]

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match."""
        return (await self._look(query.app, lambda vault: vault.count(query)))[0]

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline."""
        header: Header = await self._write(touch.app, touch)
        return header

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns."""
        removed: bool = await self._write(delete.app, delete)
        return removed

    async def forget(self, app: str, user: str, /) -> int:
        """Remove everything of a user."""
        forgotten: int = await self._write(app, Forget(app, user))
        return forgotten

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return what the reaper has to look at."""
        found: Sequence[Header] = await self._write(due.app, FindDue(due))
        return found

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove what is due."""
        reaped: Sequence[str] = await self._write(due.app, Reap(due))
        return reaped

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return shared state."""
        return (await self._look(app, lambda vault: vault.tiers(app, user)))[0]

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return one document: a short one is read here, a long one there."""
        found, files = await self._look(query.app, lambda vault: vault.document(query))
        if found is None:
            return None
        document = found
        if document.size <= SHORT_BYTES:
            return _guarded(lambda: files.document(document), self.name)
        return await self._there(lambda: files.document(document))

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents, with as much of their bodies as is asked for."""
        found, files = await self._look(query.app, lambda vault: vault.documents(query))
        if query.lead * len(found) <= SHORT_BYTES:
            return _guarded(lambda: files.documents(found, query.lead), self.name)
        return await self._there(lambda: files.documents(found, query.lead))

    async def acquire(self, acquire: Acquire, /) -> int:
        """Grant a lease."""
        token: int = await self._write(acquire.app, acquire)
        return token

    async def renew(self, renew: Renew, /) -> None:
        """Renew or release a lease."""
        await self._write(renew.app, renew)

    def subscribe(self, app: str, id: str, /) -> Wakeup:
        """Return a subscription to one session's changes."""
        self._lifetime.check()
        assert self._keeper is not None  # the store is open
        self._keeper.watch(self._shard(app), self._watchers)
        return self._watchers.subscribe((app, id))

    # --- whole sessions ------------------------------------------------------------------------

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        """Return the apps that have anything. Each of them is read to find out."""
        self._lifetime.check()
        names = await self._there(lambda: folder.app_names(self._disk, self._path))
        found: list[str] = []
        for app in sorted(name for name in names if name > after):
            if len(found) == limit:
                break
            empty, _ = await self._look(app, lambda vault: vault.is_empty())
            if not empty:
                found.append(app)
        return found

    async def headers(self, walk: Walk, /) -> Headers:
        """Return a page of headers."""
        return (await self._look(walk.app, lambda vault: vault.headers(walk)))[0]

    async def dump(self, walk: Walk, /) -> Dumped:
        """Return a page of whole sessions."""
        dumped, files = await self._look(walk.app, lambda vault: vault.dump(walk))
        snapshots = await self._there(lambda: [_read(files, one) for one in dumped.snapshots])
        return dumped._replace(snapshots=snapshots)

    async def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part, as it was when this began."""
        parts, files = await self._look(app, lambda vault: vault.parts(app, id, now))
        for part in parts:
            yield await self._there(partial(_read, files, part))

    async def shared(self, app: str, now: int, position: str | None, /) -> Shared:
        """Return a page of what sessions share."""
        shared, files = await self._look(app, lambda vault: vault.shared(app, now, position))
        items = await self._there(
            lambda: [
                files.document(item) if isinstance(item, UnreadDocument) else item
                for item in shared.items
            ]
        )
        return shared._replace(items=items)

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        """Put a session, or a part of one."""
        app = restore.snapshot.header.app
        outcome: Literal["restored", "unchanged", "partial"] = await self._write(app, restore)
        return outcome

    async def restore_shared(self, restore: RestoreShared, /) -> None:
        """Put tiers and documents of an app."""
        await self._write(restore.app, restore)

    async def export_session(self, app: str, id: str, path: str, /) -> int:
        """Write a session to a new file as a person reads it; return how many lines that took.

        A line of JSON for the session with its own state, one for each event and each document. It
        is for reading: `sojourn.transfer` makes what can be read back. Raises `NotFound`,
        `PathTaken` if there is a file already, `Unavailable` or `StorageFull`.
        """
        try:
            return await readable.Export(self._disk, path, id).write(self.parts(app, id, 0))
        except OSError as error:
            raise mapped(error, path) from error

    async def backup(self, path: str, /) -> None:
        """Copy the folder as of one moment to `path`, while writers go on.

        Raises `PathTaken` if there is something, `Unavailable` or `StorageFull` if it can not be
        written; nothing half-written stays behind.
        """
        self._lifetime.check()
        assert self._writer is not None  # the store is open
        copy = maintenance.Backup(self._disk, self._path, path)
        # Once begun it goes on to its end, whoever cancels meanwhile: it has files open.
        await asyncio.shield(asyncio.ensure_future(self._copy(self._writer, copy)))

    async def _copy(self, writer: Writer, copy: maintenance.Backup) -> None:
        taken = await writer.call(copy.take)
        await self._there(lambda: copy.write(taken))

    async def check(self) -> Sequence[str]:
        """Return what is wrong with the files, in words; empty when all is well."""
        self._lifetime.check()
        found: list[str] = []
        for place in await self._there(lambda: folder.shard_folders(self._disk, self._path)):
            found += await self._there(partial(maintenance.check, self._disk, place))
        return found

    # --- the files -----------------------------------------------------------------------------

    async def compact(self, app: str | None = None, /) -> None:
        """Write the files of an app, or of all, anew: what was removed is in none of them then.

        Happens by itself, see `keeper`. Raises `StorageFull` or `Unavailable`; then the files stay
        as they were.
        """
        self._lifetime.check()
        assert self._keeper is not None  # the store is open
        names = [app] if app is not None else None
        if names is None:
            names = await self._there(lambda: folder.app_names(self._disk, self._path))
        for name in names:
            await self._keeper.compact(await self._current(name))


def _discard(opened: asyncio.Future[Gate]) -> None:
    """Close what was opened for somebody who is gone."""
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()


def _guarded(work: Callable[[], T], name: str) -> T:
    """Do something; an error of the system is mapped."""
    try:
        return work()
    except OSError as error:
        raise mapped(error, name) from error


def _size(events: Sequence[Entry]) -> int:
    return sum(event.size for event in events if isinstance(event, Unread))


def _read(files: Files, snapshot: Snapshot) -> Snapshot:
    """Return a session, or a part of one, with everything read."""
    return msgspec.structs.replace(
        snapshot,
        entries=tuple(files.entries(snapshot.entries)),
        documents=tuple(map(files.document, snapshot.documents)),
    )

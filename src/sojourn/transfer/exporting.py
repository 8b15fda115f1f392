"""Exporting: all that a store keeps, written line by line."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from sojourn.errors import Corrupt
from sojourn.limits import DUMP_BYTES
from sojourn.ports import SystemClock
from sojourn.store import Tier
from sojourn.timestamps import to_datetime
from sojourn.transfer import records, walking
from sojourn.transfer.checking import check_part, check_shared, check_snapshot, damage_of
from sojourn.transfer.files import Sink, in_thread
from sojourn.transfer.lines import sealed
from sojourn.transfer.putting import REPORTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.model import Header
    from sojourn.ports import Clock
    from sojourn.store import Snapshot, Store
    from sojourn.transfer.files import Place
    from sojourn.transfer.walking import Progress, TransferStore


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What an export wrote. `bytes` are those of its lines, before they were compressed.

    `tiers` and `documents` are what apps and users share. `corrupt_count` sessions, tiers and
    documents could not be read back and are not in it; `corrupt` are the errors of the first ones.
    """

    sessions: int
    tiers: int
    documents: int
    lines: int
    bytes: int
    corrupt_count: int = 0
    corrupt: tuple[Corrupt, ...] = ()


async def export_sessions(
    store: Store,
    sink: Place,
    *,
    apps: Iterable[str] | None = None,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write all sessions of a store, and what they share, to a file; writers may go on meanwhile.

    `sink` is a path (compressed if it ends in `.gz`) or an open binary stream; `apps` chooses some.
    Each session is as of one moment, the file as a whole is not. A path gets its file only when it
    is whole: cancelled or failed, nothing is left. A stream is not waited for when it is cancelled:
    what was being written goes on in a thread. Raises `PathTaken` for a path where there is
    something, `InvalidId`, `InvalidQuery` for `apps` that are no list, `Unavailable` (a store
    without transfer too), `StorageFull`.
    """
    source = walking.transferable(store)
    clock = clock or SystemClock()
    chosen = await walking.apps_of(source, apps)
    total = await walking.about(source, chosen)
    out = Sink(sink)
    try:
        await in_thread(out.begin, ours=out.ours)
        export = _Export(source, out, clock, walking.Count(progress, total))
        exported = await export.run(chosen, total)
        await in_thread(out.finish, ours=out.ours)
    finally:
        out.abandon()
    return exported


class _Export:
    """One export under way."""

    def __init__(self, store: TransferStore, out: Sink, clock: Clock, count: walking.Count) -> None:
        self._store = store
        self._out = out
        self._clock = clock
        self._count = count
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._lines = 0
        self._bytes = 0
        self._sessions = 0
        self._tiers = 0
        self._documents = 0
        self._corrupt: list[Corrupt] = []
        self._corrupt_count = 0

    async def run(self, apps: list[str], total: int) -> Exported:
        """Write everything; return what was written."""
        now = to_datetime(self._clock.now())
        await self._write(records.Beginning(version=records.VERSION, at=now, sessions=total))
        self._count.begin("exporting")
        for app in apps:
            await self._export_shared(app)
            await self._export_sessions(app)
        await self._write(
            records.End(sessions=self._sessions, tiers=self._tiers, documents=self._documents)
        )
        await self._flush()
        return Exported(
            sessions=self._sessions,
            tiers=self._tiers,
            documents=self._documents,
            lines=self._lines,
            bytes=self._bytes,
            corrupt_count=self._corrupt_count,
            corrupt=tuple(self._corrupt),
        )

    async def _export_shared(self, app: str) -> None:
        async for items in walking.shared(self._store, app, self._clock):
            for item in items:
                try:
                    check_shared(app, item)
                    await self._write(records.from_shared(app, item))
                except Corrupt as error:
                    self._note(error)
                    continue
                if isinstance(item, Tier):
                    self._tiers += 1
                else:
                    self._documents += 1

    async def _export_sessions(self, app: str) -> None:
        async for page in walking.dumps(self._store, app, self._clock):
            for error in page.corrupt:
                self._note(error)
            for snapshot in page.snapshots:
                await self._export_session(snapshot)
            self._count.advance(len(page.snapshots) + len(page.corrupt))

    async def _export_session(self, snapshot: Snapshot) -> None:
        try:
            if snapshot.last:
                with damage_of(f"session {snapshot.header.id!r}"):
                    check_snapshot(snapshot)
                await self._write(records.from_snapshot(snapshot))
                self._sessions += 1
            else:
                await self._export_parts(snapshot.header)
        except Corrupt as error:
            self._note(error)

    async def _export_parts(self, header: Header) -> None:
        """Write a large session, as it is now: it may have changed since its page, or be gone."""
        parts = self._store.parts(header.app, header.id, self._clock.now())
        async with aclosing(parts):
            async for part in parts:
                with damage_of(f"session {header.id!r}"):
                    (check_part if part.part else check_snapshot)(part)
                await self._write(records.from_snapshot(part))
                self._sessions += part.last

    def _note(self, error: Corrupt) -> None:
        self._corrupt_count += 1
        if len(self._corrupt) < REPORTED:
            self._corrupt.append(error)

    async def _write(self, record: msgspec.Struct) -> None:
        line = sealed(record, self._lines + 1)
        self._lines += 1
        self._bytes += len(line)
        self._buffer.append(line)
        self._buffered += len(line)
        if self._buffered >= DUMP_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        data, self._buffer, self._buffered = b"".join(self._buffer), [], 0
        await in_thread(self._out.write, data, ours=self._out.ours)

"""Stores with a bug that only shows when several work at once: what a simulator has to find."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from sojourn import commit
from sojourn.errors import AlreadyExists, NotFound
from sojourn.model import Header
from sojourn.store import Committed, Create, Delete, Get, TierDelta
from sojourn.stores.memory import MemoryStore

if TYPE_CHECKING:
    from sojourn.model import Record
    from sojourn.store import Acquire, Change, Due

LATER = 0.01
"""Seconds of virtual time by which something comes too late."""


class UpsertsOnCommit(MemoryStore):
    """Creates what a commit does not find: a slow request brings back who logged out."""

    async def commit(self, change: Change, /) -> Committed:
        try:
            return await super().commit(change)
        except NotFound as missing:
            if change.id is None or type(missing) is not NotFound or change.move is not None:
                raise
            now = change.now
            header = Header(
                app=change.app,
                id=change.id,
                epoch=change.epoch or f"upserted-{now}",
                created_at=now,
                active_at=now,
            )
            await super().create(Create(header=header, op=change.op[::-1]))
            return await super().commit(msgspec.structs.replace(change, revision=None))


class ChecksNoRevision(MemoryStore):
    """Takes a strict save for any other: of two that began alike, one is lost."""

    async def commit(self, change: Change, /) -> Committed:
        return await super().commit(msgspec.structs.replace(change, revision=None))


class ChecksThenActs(MemoryStore):
    """Checks a revision, lets others run, and then writes without looking again."""

    async def commit(self, change: Change, /) -> Committed:
        if change.id is None or change.revision is None:
            return await super().commit(change)
        record = await self.get(Get(app=change.app, id=change.id, now=change.now, expired=True))
        if record is not None and commit.recall(record.header, change.op) is None:
            commit.forbid(record.header, change, lambda _count: ())
        await asyncio.sleep(0)
        return await super().commit(msgspec.structs.replace(change, revision=None))


class ChecksThenCreates(MemoryStore):
    """Looks whether an id is free, lets others run, and then takes it whoever has it by now."""

    async def create(self, create: Create, /) -> Committed:
        header = create.header
        found = await self.get(
            Get(app=header.app, id=header.id, now=header.created_at, expired=True)
        )
        if found is None:
            await asyncio.sleep(0)
            try:
                return await super().create(create)
            except AlreadyExists:
                now = header.created_at
                await super().delete(Delete(app=header.app, id=header.id, now=now))
        return await super().create(create)


class ReadsThenWrites(MemoryStore):
    """Reads all of a state, lets others run, and writes all of it back: keys of others are lost."""

    async def commit(self, change: Change, /) -> Committed:
        if change.id is None or change.session is None or change.events:
            return await super().commit(change)
        record = await self.get(Get(app=change.app, id=change.id, now=change.now, expired=True))
        await asyncio.sleep(0)
        if record is not None:
            whole = {**record.state, **change.session.set}
            session = TierDelta(whole, change.session.drop)
            change = msgspec.structs.replace(change, session=session)
        return await super().commit(change)


class ForgetsOperations(MemoryStore):
    """Does not know an operation again: what a driver sends twice is there twice."""

    async def commit(self, change: Change, /) -> Committed:
        return await super().commit(msgspec.structs.replace(change, op=os.urandom(8)))


class TearsCommits(MemoryStore):
    """Writes the state first and the events a little later."""

    async def commit(self, change: Change, /) -> Committed:
        if not change.events or change.session is None or change.revision is not None:
            return await super().commit(change)
        await super().commit(msgspec.structs.replace(change, events=(), op=change.op[::-1]))
        await asyncio.sleep(0)
        return await super().commit(msgspec.structs.replace(change, session=None))


class ReadsOldCopies(MemoryStore):
    """Answers one read in eight with what it answered before, as a lagging replica does."""

    def __init__(self) -> None:
        super().__init__()
        self._old: dict[str, Record | None] = {}
        self._reads = 0

    async def get(self, get: Get, /) -> Record | None:
        self._reads += 1
        if self._reads % 8 == 0 and get.id in self._old and not get.expired:
            return self._old[get.id]
        record = await super().get(get)
        if get.window is not None:
            self._old[get.id] = record
        return record


class IgnoresFences(MemoryStore):
    """Lets a worker write whose lease is another's by now."""

    async def commit(self, change: Change, /) -> Committed:
        return await super().commit(msgspec.structs.replace(change, fence=None))


class SharesLeases(MemoryStore):
    """Gives every holder the same number."""

    async def acquire(self, acquire: Acquire, /) -> int:
        await super().acquire(acquire)
        return 1


class ReapsTheLiving(MemoryStore):
    """Removes sessions a minute before they are due."""

    async def reap(self, due: Due, /) -> list[str]:
        return list(await super().reap(msgspec.structs.replace(due, now=due.now + 60_000_000)))


class DeletesLate(MemoryStore):
    """Says that a session is deleted, and deletes it a little later."""

    async def delete(self, delete: Delete, /) -> bool:
        asked = msgspec.structs.replace(delete, revision=None, fence=None)

        async def later() -> None:
            await asyncio.sleep(LATER)
            await super(DeletesLate, self).delete(asked)

        found = await self.get(Get(app=delete.app, id=delete.id, now=delete.now, expired=True))
        self._task = asyncio.ensure_future(later())
        await asyncio.sleep(0)
        return found is not None

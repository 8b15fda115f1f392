"""Putting sessions into a store: many at a time, parents first; refusals are not failures."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    NotFound,
    RoleTaken,
    SojournError,
    TooLarge,
)
from sojourn.limits import DUMP_BYTES
from sojourn.restoring import weight
from sojourn.store import Restore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from sojourn.model import Header
    from sojourn.ports import Clock, IdSource
    from sojourn.store import Durability, Snapshot
    from sojourn.transfer.walking import TransferStore

TOGETHER = 256
"""Sessions put at the same time: they share durable writes."""

ABANDONED_MICROSECONDS = 86_400_000_000
"""Parts of a large session that are not followed up for a day can go: the mover died."""

REPORTED = 100
"""Refusals that are reported one by one; all are counted."""

REFUSALS = (AlreadyExists, Conflict, Corrupt, NotFound, RoleTaken, TooLarge)
"""What a store refuses one session with. Anything else is trouble with the store itself."""


class Refusal(NamedTuple):
    """A session that was not put, and why; `line` is where it stands in the file, if it does."""

    app: str
    id: str
    error: SojournError
    line: int | None = None


class Refusals:
    """Sessions that were refused: the first ones by name, the rest by number."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Refusal] = []

    def add(self, refusal: Refusal) -> None:
        """Note a refusal."""
        self.count += 1
        if len(self.first) < REPORTED:
            self.first.append(refusal)


class Putter:
    """Puts sessions into one store."""

    def __init__(
        self,
        store: TransferStore,
        *,
        replace: bool,
        ids: IdSource,
        clock: Clock,
        durability: Durability | None = None,
    ) -> None:
        """`replace` lets newer revisions take the place of older ones."""
        self._store = store
        self._replace = replace
        self._ids = ids
        self._clock = clock
        self._durability: Durability | None = durability

    async def put(self, snapshots: Iterable[Snapshot]) -> list[str | SojournError]:
        """Put sessions that are in one piece; return what each led to, or was refused with.

        Trouble with the store is raised, once all that were under way are done.
        """
        outcomes: list[str | SojournError] = []
        together: list[Snapshot] = []
        size = 0
        for snapshot in snapshots:
            parents = {other.header.id for other in together}
            size += weight(snapshot)
            full = len(together) == TOGETHER or size > DUMP_BYTES
            if together and (full or snapshot.header.parent in parents):
                outcomes += await self._at_once(together)
                together, size = [], weight(snapshot)
            together.append(snapshot)
        return outcomes + await self._at_once(together)

    async def _at_once(self, snapshots: list[Snapshot]) -> list[str | SojournError]:
        calls = [self._restore(snapshot, self._ids.operation()) for snapshot in snapshots]
        found = await asyncio.gather(*calls, return_exceptions=True)
        outcomes: list[str | SojournError] = []
        for outcome in found:
            if isinstance(outcome, BaseException) and not isinstance(outcome, REFUSALS):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def _restore(self, snapshot: Snapshot, op: bytes) -> str:
        restore = Restore(
            snapshot=snapshot,
            op=op,
            abandoned_at=self._clock.now() + ABANDONED_MICROSECONDS,
            replace=self._replace,
            durability=self._durability,
        )
        return await self._store.restore(restore)

    async def put_part(self, part: Snapshot, op: bytes) -> str | SojournError:
        """Put one part of the restore `op`; return what it led to, or was refused with."""
        try:
            return await self._restore(part, op)
        except REFUSALS as error:
            return error

    async def put_parts(
        self, parts: AsyncGenerator[Snapshot, None], noted: Callable[[Header], Awaitable[None]]
    ) -> str | SojournError:
        """Put a session that comes in parts; "missing" for none. A refusal ends it.

        `noted` is called with its header before the first part is put.
        """
        op = self._ids.operation()
        outcome: str | SojournError = "missing"
        async with aclosing(parts):
            async for part in parts:
                if part.part == 0:
                    await noted(part.header)
                outcome = await self.put_part(part, op)
                if outcome != "partial":
                    break
        return outcome

"""Removing checkpoints: one, several, or all but the newest; and what nobody uses any more."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from sojourn.checkpoints.bodies import let_go
from sojourn.checkpoints.record import COLLECTION
from sojourn.errors import CheckpointInUse, SojournError
from sojourn.limits import MAX_PAGE
from sojourn.store import Drop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from sojourn.checkpoints.bodies import Bodies
    from sojourn.checkpoints.place import Place, Seen
    from sojourn.checkpoints.record import Name, Saved
    from sojourn.store import Put

REMOVED_AT_ONCE = 500
"""Checkpoints pruned in one commit: it holds the writer while it runs."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What `prune` did: how many it removed, and the ids of those kept whose parent is gone."""

    removed: int
    cut: tuple[str, ...]


class Removal:
    """The part that removes."""

    def __init__(self, place: Place, bodies: Bodies) -> None:
        self._place = place
        self._bodies = bodies

    async def delete(self, ids: Sequence[str], *, cut: bool) -> int:
        """Remove checkpoints; see `Checkpoints.delete`."""
        if cut:
            return await self._delete(ids, None)
        # Nothing that came from them may be saved between the look and the commit.
        return await self._place.settled(lambda seen: self._delete(ids, seen))

    async def _delete(self, ids: Sequence[str], seen: Seen | None) -> int:
        """Remove checkpoints: at the revision at which nothing came from them, if one is given."""
        found = [await self._place.saved(id) for id in dict.fromkeys(ids)]
        there = [saved for saved in found if saved is not None]
        if there and seen is not None:
            await self._refuse_parents({saved.name for saved in there})
        if not there:
            await self._place.seen()  # the session itself may be what is missing
        await self.remove(there, expect=seen)
        return len(there)

    async def _refuse_parents(self, doomed: Collection[Name]) -> None:
        """Raise `CheckpointInUse` if one that stays came from one that goes."""
        async for page in self.pages():
            for saved in page:
                parent = saved.parent
                if parent is not None and parent in doomed and saved.name not in doomed:
                    raise CheckpointInUse(self._place.id, parent[0], saved.id)

    async def prune(self, keep: int) -> Pruned:
        """Remove all but the newest; see `Checkpoints.prune`."""
        kept: dict[Name, Name | None] = {}
        removed = 0
        before: int | None = None
        while page := await self._prune_page(before, keep - len(kept)):
            room = keep - len(kept)
            kept |= {saved.name: saved.parent for saved in page[:room]}
            removed += len(page[room:])
            before = page[-1].document.number
        with contextlib.suppress(SojournError):  # the next one sweeps what this one left
            await self._bodies.sweep_uses()
            await self._bodies.sweep()
            await self._bodies.sweep_unnamed()
        cut = (name[0] for name, parent in kept.items() if parent and parent not in kept)
        return Pruned(removed=removed, cut=tuple(cut))

    async def _prune_page(self, before: int | None, room: int) -> list[Saved]:
        """Return the next page, of which all but the first `room` are removed by now.

        One that is saved anew meanwhile is not on its page any more, and must not go with it: the
        commit expects the revision at which they were looked at.
        """

        async def remove_page(seen: Seen) -> list[Saved]:
            page = await self._place.newest(REMOVED_AT_ONCE, before=before)
            await self.remove(page[room:], expect=seen)
            return page

        return await self._place.settled(remove_page)

    async def remove(self, doomed: Sequence[Saved], *, expect: Seen | None = None) -> None:
        """Remove checkpoints in one commit, then the bodies that only they used."""
        if not doomed:
            return
        parts: list[Put | Drop] = []
        for saved in doomed:
            parts += [Drop(collection=COLLECTION, key=saved.id), *let_go(saved)]
        await self._place.commit(parts, expect=expect)
        names = dict.fromkeys(saved.facts.store for saved in doomed)
        with contextlib.suppress(SojournError):  # they are gone; bodies are left to a sweep
            for name in filter(None, names):
                await self._bodies.reclaim(name)

    async def pages(self, before: int | None = None) -> AsyncIterator[list[Saved]]:
        """Yield all checkpoints, or those below a number, the last saved first."""
        while page := await self._place.newest(MAX_PAGE, before=before):
            yield page
            before = page[-1].document.number

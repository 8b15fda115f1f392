"""Lines of parents: from a checkpoint up to where it began, and who may be whose parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import CheckpointMissing, Corrupt, InvalidQuery

if TYPE_CHECKING:
    from sojourn.checkpoints.place import Place
    from sojourn.checkpoints.record import Name, Saved

LINEAGE_PAGE = 100
"""Checkpoints read at a time on the way up a line: most came from the one saved just before."""


class Lines:
    """The lines of one session's checkpoints."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def line(self, id: object, *, expired: bool) -> list[Saved]:
        """Return a checkpoint and those that it came from; see `Checkpoints.lineage`."""
        line: dict[str, Saved] = {}
        near: dict[str, Saved] = {}
        at = await self._place.saved(id, expired=expired)
        while at is not None:
            if at.id in line:
                raise Corrupt(f"checkpoint {at.id!r}", "its line of parents leads back to it")
            line[at.id] = at
            parent = at.parent
            if parent is None:
                break
            id = parent[0]
            if id not in near:
                page = await self._place.newest(
                    LINEAGE_PAGE, before=at.document.number, expired=expired
                )
                near = {saved.id: saved for saved in page}
            at = near.get(id) or await self._place.saved(id, expired=expired)
            if at is not None and at.name != parent:
                break
        return [*line.values()]

    async def parent(self, id: str, parent: str, *, given: bool) -> Name:
        """Return the name of the parent of what is saved; what is saved then expects this revision.

        Refuses one that is not there, or that came from the very one that is saved anew.
        """
        if parent == id:
            raise InvalidQuery("parent", "a checkpoint does not come from itself")
        found = await self._place.saved(parent)
        if found is None:
            await self._place.seen()  # the session itself may be what is missing
            raise CheckpointMissing(self._place.id, parent)
        if given and await self._place.saved(id) is not None:
            line = await self.line(parent, expired=False)
            if any(saved.id == id for saved in line):
                raise InvalidQuery("parent", f"{parent!r} came from {id!r} itself")
        return found.name

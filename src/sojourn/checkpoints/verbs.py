"""The verbs of checkpoints: save, latest, get, stream, list, lineage, fork, delete, prune."""

from __future__ import annotations

import contextlib
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sojourn.checkpoints.bodies import Bodies, ChunkMissing, inline_of
from sojourn.checkpoints.keeping import Keeping, Wanted
from sojourn.checkpoints.lines import Lines
from sojourn.checkpoints.place import Place
from sojourn.checkpoints.record import COLLECTION, Checkpoint, checkpoint_of, encode_metadata
from sojourn.checkpoints.removal import Removal
from sojourn.context import completed
from sojourn.creation import with_deadlines
from sojourn.errors import CheckpointMissing, Corrupt, InvalidQuery, SojournError, TooLarge
from sojourn.limits import MAX_DOCUMENT, MAX_PAGE
from sojourn.names import check_name
from sojourn.store import Deadlines, Drop, Put
from sojourn.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sojourn.checkpoints.keeping import Source
    from sojourn.checkpoints.record import Saved
    from sojourn.checkpoints.removal import Pruned
    from sojourn.context import Context
    from sojourn.creation import Creation
    from sojourn.expiry import Expiry
    from sojourn.reading import Reading
    from sojourn.session import Session
    from sojourn.store import Durability

MAKING_SECONDS = 300
"""A fork that is never finished, because its process died over it, is gone after so long."""


class Checkpoints:
    """The checkpoints of one session: what was saved, in the order in which it was."""

    def __init__(
        self, context: Context, reading: Reading, creation: Creation, session: Session | str
    ) -> None:
        """Made by `SessionManager.checkpoints`."""
        self._context = context
        self._reading = reading
        self._creation = creation
        self._place = Place(context, reading, session)
        self._bodies = Bodies(self._place)
        self._lines = Lines(self._place)
        self._keeping = Keeping(self._place, self._bodies, self._lines)
        self._removal = Removal(self._place, self._bodies)

    # --- saving --------------------------------------------------------------------------------

    async def save(
        self,
        body: Source,
        *,
        parent: Checkpoint | str | None = None,
        content_type: str = "application/octet-stream",
        metadata: dict[str, Any] | None = None,
        id: str | None = None,
        durability: Durability | None = None,
    ) -> Checkpoint:
        """Save bytes, or an async iterator of bytes, as the latest checkpoint, and return it.

        It is there wholly or not at all, however large: nothing of it shows before its last byte
        is stored. `parent` is the one that it came from, `metadata` a dict of JSON values. An `id`
        that is there is saved anew, and is the latest then; without one it gets one of its own.

        Raises `CheckpointMissing` for an unknown parent; `NotFound` (or `Ended`) when the session
        is missing; `InvalidId` for a malformed id; `TooLarge` over `MAX_CHECKPOINT` bytes, or over
        `MAX_METADATA` bytes of metadata; `Unserializable` for what is not bytes, or not JSON;
        `Conflict` for one with a parent in a session that is never still for a moment.
        """
        wanted = Wanted(
            id=self._context.ids.event_id() if id is None else check_name("checkpoint id", id),
            given=id is not None,
            parent=None if parent is None else (check_name("parent", _id_of(parent)), ""),
            content_type=check_name("content type", content_type),
            metadata=encode_metadata({} if metadata is None else metadata),
            durability=self._context.durability(durability),
        )
        if wanted.parent is not None:
            saved = await self._keeping.save_next(wanted, body)
            if saved is not None:
                return saved
        return await self._keeping.save(wanted, body)

    # --- looking -------------------------------------------------------------------------------

    async def latest(self, *, body: bool = True, expired: bool = False) -> Checkpoint | None:
        """Return the checkpoint that was saved last, `None` without any; see `get`."""
        saved = await self._place.latest(expired=expired)
        return await self._checkpoint(saved, body=body, expired=expired)

    async def get(
        self, checkpoint: Checkpoint | str, *, body: bool = True, expired: bool = False
    ) -> Checkpoint | None:
        """Return a checkpoint, with its body unless `body=False`; `None` when there is none.

        `expired` also reads those of a session past its deadline, for its end hooks. Raises
        `TooLarge` for a body over `MAX_DOCUMENT` bytes, which is to be read with `stream`, and
        `Corrupt` for one that is not what was saved.
        """
        saved = await self._place.saved(_id_of(checkpoint), expired=expired)
        return await self._checkpoint(saved, body=body, expired=expired)

    async def _checkpoint(
        self, saved: Saved | None, *, body: bool, expired: bool
    ) -> Checkpoint | None:
        if saved is not None and body and saved.facts.store is None:
            return checkpoint_of(self._place.id, saved, inline_of(saved))
        while saved is not None and body:
            if saved.facts.size > MAX_DOCUMENT:
                raise TooLarge(
                    "bytes of a body to read whole (stream it)", saved.facts.size, MAX_DOCUMENT
                )
            try:
                chunks = [chunk async for chunk in self._bodies.chunks(saved, expired=expired)]
            except ChunkMissing:
                saved = await self._again(saved, expired=expired)
            else:
                return checkpoint_of(self._place.id, saved, b"".join(chunks))
        return None if saved is None else checkpoint_of(self._place.id, saved)

    async def _again(self, saved: Saved, *, expired: bool) -> Saved | None:
        """Look again for a checkpoint whose body is gone. Raises `Corrupt` if it should be there.

        It may have been deleted meanwhile, or saved anew with another body.
        """
        again = await self._place.saved(saved.id, expired=expired)
        if again is not None and again.facts.store == saved.facts.store:
            raise Corrupt(f"checkpoint {saved.id!r}", "a part of its body is missing")
        return again

    async def stream(
        self, checkpoint: Checkpoint | str, *, expired: bool = False
    ) -> AsyncGenerator[bytes]:
        """Yield a body in pieces of at most `CHUNK_BYTES`, however large it is.

        Raises `CheckpointMissing` for an unknown one, or one that is deleted meanwhile, and
        `Corrupt` at the end of a body that is not what was saved.
        """
        id = _id_of(checkpoint)
        saved = await self._place.saved(id, expired=expired)
        if saved is None:
            raise CheckpointMissing(self._place.id, str(id))
        try:
            async for chunk in self._bodies.chunks(saved, expired=expired):
                yield chunk
        except ChunkMissing:
            await self._again(saved, expired=expired)
            reason = "it was deleted, or saved anew, while it was read"
            raise CheckpointMissing(self._place.id, saved.id, reason) from None

    async def lineage(
        self, checkpoint: Checkpoint | str, *, expired: bool = False
    ) -> list[Checkpoint]:
        """Return a checkpoint and those that it came from, itself first, without bodies.

        If the last one names a parent, then the line was cut there: by `prune`, or by a `delete`
        that said so. Whoever was given that id since is another. Empty for an unknown checkpoint.
        """
        line = await self._lines.line(_id_of(checkpoint), expired=expired)
        return [checkpoint_of(self._place.id, saved) for saved in line]

    # --- forking -------------------------------------------------------------------------------

    async def fork(
        self,
        checkpoint: Checkpoint | str,
        *,
        new_id: str | None = None,
        expiry: Expiry | None = None,
    ) -> Session:
        """Copy the session as of a checkpoint, and return the copy, whose latest it is.

        As `SessionManager.fork` at the checkpoint's place in the log, without the checkpoints that
        were saved after it; those that it came from come along, up to one that was saved anew
        further down the log. Raises `CheckpointMissing` for an unknown one, `NotFound` for an
        unknown session, `AlreadyExists`.
        """
        header = self._creation.header(id=new_id, expiry=expiry)
        id = _id_of(checkpoint)
        line = await self._lines.line(id, expired=False)
        if not line:
            await self._place.seen()
            raise CheckpointMissing(self._place.id, str(id))
        at = line[0].document.seq
        # One that was saved anew further down the log is of what the copy is without.
        line = [*takewhile(lambda saved: saved.document.seq <= at, line)]
        making = Deadlines(idle=None, absolute_at=header.created_at + from_seconds(MAKING_SECONDS))
        session = await self._creation.fork(
            self._place.id, with_deadlines(header, making), at=at, given_id=new_id is not None
        )
        try:
            there = Checkpoints(self._context, self._reading, self._creation, session)
            await there._trim(line, Deadlines(idle=header.idle, absolute_at=header.absolute_at))
        except BaseException:
            with contextlib.suppress(SojournError):  # then it is gone by itself in a while
                await completed(self._creation.discard(session.header))
            raise
        return session

    async def _trim(self, line: list[Saved], deadlines: Deadlines) -> None:
        """Make the first of a line the latest here, as in a session that was forked at it.

        With the last commit the session is as it should be, and lasts as long.
        """
        latest = await self._place.saved(line[0].id)
        if latest is None:
            raise CheckpointMissing(self._place.id, line[0].id)
        ancestors = {saved.id for saved in line}
        later: list[Saved] = []
        async for page in self._removal.pages():
            newer = [saved for saved in page if saved.document.number > latest.document.number]
            later += newer
            if len(newer) < len(page):
                break
        await self._removal.remove([saved for saved in later if saved.id not in ancestors])
        parts: list[Put | Drop] = []
        if any(saved.id in ancestors for saved in later):
            document = latest.document
            again = Put(
                collection=COLLECTION,
                key=latest.id,
                body=document.body or b"",
                content_type=document.content_type,
            )
            parts = [Drop(collection=COLLECTION, key=latest.id), again]
        await self._place.commit(parts, deadlines=deadlines)

    # --- removing ------------------------------------------------------------------------------

    async def delete(
        self, checkpoint: Checkpoint | str, *more: Checkpoint | str, cut: bool = False
    ) -> int:
        """Remove checkpoints, and return how many there were; unknown ones are fine.

        One that another came from is refused with `CheckpointInUse`, unless that goes as well, or
        `cut` says that its line may end there; to see that, all of them are looked at. A body is
        removed with the last checkpoint that has it. Raises `Conflict`, but not with `cut`, in a
        session that is never still for a moment.
        """
        ids = [check_name("checkpoint id", _id_of(item)) for item in (checkpoint, *more)]
        return await self._removal.delete(ids, cut=cut)

    async def prune(self, *, keep: int) -> Pruned:
        """Remove all but the `keep` that were saved last; return how many, and what that cut.

        Lines end at the oldest that is kept: `cut` names those kept whose parent is gone. Removes
        as well what uploads left that were never completed, and bodies that a fork has without the
        checkpoints that they are of. Raises `Conflict` in a session that is never still for a
        moment; what was removed until then is.
        """
        if type(keep) is not int or keep < 0:
            raise InvalidQuery("keep", f"give a whole number from 0, not {keep!r}")
        return await self._removal.prune(keep)

    # --- listing -------------------------------------------------------------------------------

    async def list(
        self,
        *,
        limit: int = 100,
        before: Checkpoint | str | None = None,
        expired: bool = False,
    ) -> list[Checkpoint]:
        """Return checkpoints without bodies, the last saved first, those saved before `before`.

        Pages go on from the last checkpoint of the one before, even if that was deleted meanwhile;
        only its id is not enough for that: `CheckpointMissing`.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
            raise InvalidQuery("limit", f"give a whole number from 1 to {MAX_PAGE}")
        number = None if before is None else await self._number_of(before, expired=expired)
        found = await self._place.newest(limit, before=number, expired=expired)
        return [checkpoint_of(self._place.id, saved) for saved in found]

    async def _number_of(self, before: Checkpoint | str, *, expired: bool) -> int:
        if (
            isinstance(before, Checkpoint)
            and before.number is not None
            and before.session == self._place.id
        ):
            return before.number
        id = _id_of(before)
        saved = await self._place.saved(id, expired=expired)
        if saved is None:
            raise CheckpointMissing(self._place.id, str(id))
        return saved.document.number


def _id_of(checkpoint: Checkpoint | str) -> str:
    return checkpoint.id if isinstance(checkpoint, Checkpoint) else checkpoint

"""Bodies too large to stay with the facts: in chunks, stored once for all equal ones of a session.

A body has a random name and a collection of its own, one document to a chunk. Who uses it is noted
beside it, by its hash, in the commit that saves the checkpoint. A body that perhaps nobody uses (it
is being uploaded, or a checkpoint let go of it) is noted as pending. It is removed only by a commit
that expects the revision at which nobody used it, and shared only by one that expects the revision
at which somebody did: so a body that is used is there, whoever saves and deletes at once.

That it is stored is noted once, with its first chunk, and not written again. A fork copies what was
put up to its place in the log: chunks, and not what was noted of them later. By that note `prune`
finds the bodies that are neither used nor pending.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sojourn.checkpoints.place import SETTLE_ATTEMPTS
from sojourn.errors import CheckpointMissing, Conflict, Corrupt
from sojourn.limits import MAX_PAGE
from sojourn.store import Drop, Put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.checkpoints.place import Place, Seen
    from sojourn.checkpoints.record import Saved
    from sojourn.model import StoredDocument

CHUNK_BYTES = 1024 * 1024
"""Bytes of a body in one document: what a stream holds in memory, and what one commit of it writes
while others wait for the writer."""

UPLOAD_STALE = 60 * 60 * 1_000_000
"""Microseconds after its last chunk at which an upload counts as abandoned. Its process died."""

REMOVED_AT_ONCE = 100
"""Bodies without a use removed in one commit: it holds the writer while it runs."""

SWEEP_PAGE = 100
"""Pending bodies, or uses, looked at in one read of a sweep."""

USES = "sojourn.checkpoint-uses"
PENDING = "sojourn.checkpoint-pending"
STORED = "sojourn.checkpoint-stored"
CHUNKS = "sojourn.checkpoint-body."

BYTES = "application/octet-stream"


class ChunkMissing(Exception):
    """A chunk is not there: the checkpoint went while it was read, or it is damaged."""


class Bodies:
    """The shared bodies of one session's checkpoints."""

    def __init__(self, place: Place) -> None:
        self._place = place

    # --- reading -------------------------------------------------------------------------------

    async def chunks(self, saved: Saved, *, expired: bool) -> AsyncIterator[bytes]:
        """Yield a body's chunks; raises `ChunkMissing`, and `Corrupt` if it is not what was saved.

        What is damaged is known only at its end, when its chunks were yielded.
        """
        digest, size = hashlib.sha256(), 0
        async for chunk in self._stored(saved, expired=expired):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if (size, digest.hexdigest()) != (saved.facts.size, saved.facts.sha256):
            raise _damaged(saved)

    async def _stored(self, saved: Saved, *, expired: bool) -> AsyncIterator[bytes]:
        name = saved.facts.store
        if name is None:
            yield saved.inline or b""
            return
        for number in range(saved.facts.chunks):
            found = await self._place.document(CHUNKS + name, chunk_key(number), expired=expired)
            if found is None or found.body is None:
                raise ChunkMissing
            yield found.body

    # --- who uses what -------------------------------------------------------------------------

    async def holding(self, digest: str) -> str | None:
        """Return the name of the body with this hash that a checkpoint uses, `None` without one."""
        found = await self._place.listing(USES, after=f"{digest}.", limit=1)
        if not found or not found[0].key.startswith(f"{digest}."):
            return None
        return found[0].key.split(".")[1]

    async def _used(self, digest: str, name: str) -> bool:
        found = await self._place.listing(USES, after=f"{digest}.{name}.", limit=1)
        return bool(found) and found[0].key.startswith(f"{digest}.{name}.")

    # --- removing ------------------------------------------------------------------------------

    async def reclaim(self, name: str) -> None:
        """Remove a pending body if nobody uses it. In a busy session it may stay for a sweep."""
        for _attempt in range(SETTLE_ATTEMPTS):
            seen = await self._place.seen()
            pending = await self._place.document(PENDING, name)
            if pending is None:
                return  # it was removed, or came into use: the commit that did so says so
            digest = (pending.body or b"").decode()
            parts: list[Put | Drop] = [Drop(collection=PENDING, key=name)]
            if not digest or not await self._used(digest, name):
                parts += _removed(name)
            try:
                await self._place.commit(parts, expect=seen)
            except Conflict:
                continue
            return

    async def sweep(self) -> None:
        """Remove what freed and abandoned bodies there are."""
        after: str | None = None
        while found := await self._place.listing(PENDING, after=after, limit=SWEEP_PAGE, lead=1):
            abandoned = self._place.context.now() - UPLOAD_STALE
            for pending in found:
                if pending.body or pending.updated_at <= abandoned:
                    await self.reclaim(pending.key)
            after = found[-1].key

    async def sweep_uses(self) -> None:
        """Let go of bodies for checkpoints that are no longer there, or use another.

        Two who save under one id at the same time can leave such a use behind.
        """
        after: str | None = None
        while found := await self._place.listing(USES, after=after, limit=SWEEP_PAGE, lead=2_048):
            for use in found:
                digest, name, _ = use.key.split(".")
                saved = await self._place.saved((use.body or b"").decode())
                if saved is None or saved.facts.store != name:
                    await self._place.commit(
                        [Drop(collection=USES, key=use.key), pending_put(name, digest)]
                    )
            after = found[-1].key

    async def sweep_unnamed(self) -> None:
        """Remove bodies that are neither used nor pending: what a fork copied without its use."""
        while await self._place.settled(self._remove_unnamed) == REMOVED_AT_ONCE:
            continue

    async def _remove_unnamed(self, seen: Seen) -> int:
        """Remove some of them, at the revision at which they are looked for; return how many."""
        stored = [document.key async for document in self._all(STORED)]
        if not stored:
            return 0
        named = {document.key.split(".")[1] async for document in self._all(USES)}
        named |= {document.key async for document in self._all(PENDING)}
        unnamed = [name for name in stored if name not in named][:REMOVED_AT_ONCE]
        if unnamed:
            parts = [part for name in unnamed for part in _removed(name)]
            await self._place.commit(parts, expect=seen)
        return len(unnamed)

    async def _all(self, collection: str) -> AsyncIterator[StoredDocument]:
        after: str | None = None
        while found := await self._place.listing(collection, after=after, limit=MAX_PAGE):
            for document in found:
                yield document
            after = found[-1].key


def inline_of(saved: Saved) -> bytes:
    """Return a body that is kept with the facts. Raises `Corrupt` if it is not what was saved."""
    body = saved.inline or b""
    if (len(body), hashlib.sha256(body).hexdigest()) != (saved.facts.size, saved.facts.sha256):
        raise _damaged(saved)
    return body


def _damaged(saved: Saved) -> Corrupt:
    return Corrupt(f"checkpoint {saved.id!r}", "its body is not what was saved")


class Upload:
    """A body on its way in, chunk by chunk. Pending until a checkpoint uses it."""

    def __init__(self, place: Place, id: str) -> None:
        self.name = new_name(place)
        self.chunks = 0
        self.epoch: str | None = None
        self._place = place
        self._id = id
        self._at = place.context.now()

    async def add(self, chunk: bytes) -> None:
        """Store the next chunk. Raises `NotFound` if the session was made anew meanwhile."""
        # Not waiting for the disk: the commit that saves the checkpoint takes these along.
        await self._write(chunk_puts(self.name, self.chunks, chunk))
        self.chunks += 1

    async def keep_fresh(self) -> None:
        """See to it that nobody takes the upload for abandoned while it is being put to use."""
        if self._place.context.now() - self._at > UPLOAD_STALE // 2:
            await self._write([])

    async def _write(self, parts: list[Put | Drop]) -> None:
        before, self._at = self._at, self._place.context.now()
        parts.append(pending_put(self.name, ""))
        committed = await self._place.commit(parts, epoch=self.epoch, durability="relaxed")
        self.epoch = committed.header.epoch
        if self.chunks and self._at - before > UPLOAD_STALE // 2:
            first = await self._place.document(CHUNKS + self.name, chunk_key(0))
            if first is None:
                reason = "its upload stood still for so long that it was removed as abandoned"
                raise CheckpointMissing(self._place.id, self._id, reason)


def new_name(place: Place) -> str:
    """Return a random name for a body."""
    return place.context.ids.operation().hex()


def chunk_key(number: int) -> str:
    """Return the key of a chunk."""
    return f"{number:08}"


def chunk_puts(name: str, number: int, chunk: bytes) -> list[Put | Drop]:
    """Return what puts a chunk of a body, and with the first one the note that it is stored."""
    put = Put(collection=CHUNKS + name, key=chunk_key(number), body=chunk, content_type=BYTES)
    if number:
        return [put]
    return [put, Put(collection=STORED, key=name, body=b"", content_type=BYTES)]


def _removed(name: str) -> list[Put | Drop]:
    """Return what removes the chunks of a body."""
    return [Drop(collection=CHUNKS + name), Drop(collection=STORED, key=name)]


def pending_put(name: str, digest: str) -> Put:
    """Return what notes that perhaps nobody uses a body; without hash, that it is coming in."""
    return Put(collection=PENDING, key=name, body=digest.encode(), content_type=BYTES)


def use_key(digest: str, name: str, id: str) -> str:
    """Return the key under which it is noted that a checkpoint uses a body.

    Ids may be as long as a name: their hash is in the key, the id itself in the document.
    """
    return f"{digest}.{name}.{hashlib.blake2b(id.encode(), digest_size=16).hexdigest()}"


def use_put(digest: str, name: str, id: str) -> Put:
    """Return what notes that a checkpoint uses a body."""
    key = use_key(digest, name, id)
    return Put(collection=USES, key=key, body=id.encode(), content_type=BYTES)


def let_go(saved: Saved) -> list[Put | Drop]:
    """Return what has to go with a checkpoint: its use of a shared body, if it has one."""
    name, digest = saved.facts.store, saved.facts.sha256
    if name is None:
        return []
    return [
        Drop(collection=USES, key=use_key(digest, name, saved.id)),
        pending_put(name, digest),
    ]

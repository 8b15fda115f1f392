"""Saving a checkpoint: a small body in one commit with the facts, a large one before them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from sojourn import codec
from sojourn.checkpoints.bodies import (
    CHUNK_BYTES,
    PENDING,
    Bodies,
    Upload,
    chunk_puts,
    let_go,
    new_name,
    use_put,
)
from sojourn.checkpoints.place import SETTLE_ATTEMPTS, Seen
from sojourn.checkpoints.record import (
    COLLECTION,
    INLINE_BYTES,
    Checkpoint,
    Facts,
    put_of,
)
from sojourn.context import completed
from sojourn.errors import Conflict, NotFound, SojournError, TooLarge, Unserializable
from sojourn.store import Drop
from sojourn.timestamps import to_datetime

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

    import msgspec

    from sojourn.checkpoints.lines import Lines
    from sojourn.checkpoints.place import Place
    from sojourn.checkpoints.record import Name, Saved
    from sojourn.store import Committed, Durability, Put

MAX_CHECKPOINT = 1024 * 1024 * 1024
"""Bytes of one body: every byte passes through a transaction. Larger things belong into files."""

Source: TypeAlias = "bytes | bytearray | memoryview | AsyncIterable[bytes]"
"""A body that is at hand, or one that comes piece by piece."""


class Wanted(NamedTuple):
    """A checkpoint to save, but for its body. `given` says that the caller chose the id.

    `parent` is what was asked for until it was looked for, then the name of what was found.
    """

    id: str
    given: bool
    parent: Name | None
    content_type: str
    metadata: msgspec.Raw
    durability: Durability | None


class Content(NamedTuple):
    """A body whose size and hash are known, and where it is: at hand, uploaded, or neither yet."""

    size: int
    sha256: str
    chunk: bytes | None = None
    upload: Upload | None = None

    @property
    def chunks(self) -> int:
        """How many documents it takes."""
        return -(-self.size // CHUNK_BYTES)


class Known(NamedTuple):
    """The checkpoint that was saved here last, and what that led to: at that revision it is there.

    `alone` says that since the one before it nobody else had committed.
    """

    name: Name
    seen: Seen
    alone: bool


class Keeping:
    """The part that saves."""

    def __init__(self, place: Place, bodies: Bodies, lines: Lines) -> None:
        self._place = place
        self._bodies = bodies
        self._lines = lines
        self._known: Known | None = None

    async def save_next(self, wanted: Wanted, body: Source) -> Checkpoint | None:
        """Save a small checkpoint that comes from the one saved here last, without any read.

        The commit expects the revision at which that one was there. `None`, and nothing is saved,
        if it is another sort of checkpoint, or if somebody else commits: then look for the parent.
        """
        known = self._known
        if known is None or not known.alone or wanted.given or wanted.parent is None:
            return None
        if known.name[0] != wanted.parent[0] or self._place.is_crowded:
            return None
        if not isinstance(body, bytes) or len(body) > INLINE_BYTES:
            return None
        try:
            return await self._put_inline(
                wanted._replace(parent=known.name), body, expect=known.seen
            )
        except Conflict:
            return None

    async def _with_parent(self, wanted: Wanted) -> Wanted:
        """Return what is wanted with the parent that is there; see `Lines.parent`."""
        if wanted.parent is None:
            return wanted
        parent = await self._lines.parent(wanted.id, wanted.parent[0], given=wanted.given)
        return wanted._replace(parent=parent)

    async def save(self, wanted: Wanted, body: Source) -> Checkpoint:
        """Save a checkpoint; see `Checkpoints.save`."""
        if isinstance(body, bytes | bytearray | memoryview):
            whole = bytes(body)
            if len(whole) > MAX_CHECKPOINT:
                raise TooLarge("bytes in a checkpoint", len(whole), MAX_CHECKPOINT)
            return await self._save_bytes(wanted, whole)
        async with contextlib.aclosing(chunks_of(body)) as chunks:
            first = await anext(chunks, b"")
            second = await anext(chunks, None) if len(first) == CHUNK_BYTES else None
            if second is None:
                return await self._save_bytes(wanted, first)
            return await self._upload(wanted, _joined(first, second, chunks))

    async def _save_bytes(self, wanted: Wanted, body: bytes) -> Checkpoint:
        if len(body) <= INLINE_BYTES:
            return await self._save_inline(wanted, body)
        sha256 = await _hash_of(body)
        if len(body) <= CHUNK_BYTES:
            return await self._settle(wanted, Content(len(body), sha256, chunk=body))
        if await self._bodies.holding(sha256) is not None:
            saved = await self._share(wanted, Content(len(body), sha256))
            if saved is not None:
                return saved
        return await self._upload(wanted, _slices_of(body))

    # --- small ---------------------------------------------------------------------------------

    async def _save_inline(self, wanted: Wanted, body: bytes) -> Checkpoint:
        if wanted.parent is None:
            return await self._put_inline(wanted, body, expect=None)

        async def save_at(seen: Seen) -> Checkpoint:
            return await self._put_inline(await self._with_parent(wanted), body, expect=seen)

        return await self._place.settled(save_at, first=self._place.known())

    async def _put_inline(self, wanted: Wanted, body: bytes, *, expect: Seen | None) -> Checkpoint:
        old = await self._place.saved(wanted.id) if wanted.given else None
        content = Content(len(body), hashlib.sha256(body).hexdigest())
        facts = self._facts(wanted, content, None, old)
        parts = [*_replaced(wanted, old), put_of(wanted.id, facts, wanted.content_type, body)]
        return await self._commit(wanted, parts, old, facts, expect=expect)

    # --- large ---------------------------------------------------------------------------------

    async def _upload(self, wanted: Wanted, chunks: AsyncIterator[bytes]) -> Checkpoint:
        """Store a body chunk by chunk, then its checkpoint; nothing of it shows before."""
        await self._with_parent(wanted)  # refused before anything is stored, and once more after
        await self._bodies.sweep()
        upload = Upload(self._place, wanted.id)
        digest, size = hashlib.sha256(), 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > MAX_CHECKPOINT:
                    raise TooLarge("bytes in a checkpoint", size, MAX_CHECKPOINT)
                digest.update(chunk)
                await upload.add(chunk)
            content = Content(size, digest.hexdigest(), upload=upload)
            return await self._settle(wanted, content)
        finally:
            # In use by now it is not pending, and stays. What fails here is left to a sweep.
            with contextlib.suppress(SojournError):
                await completed(self._bodies.reclaim(upload.name))

    async def _settle(self, wanted: Wanted, content: Content) -> Checkpoint:
        """Save the checkpoint of a body that is at hand: with an equal one if that is there."""
        return await self._share(wanted, content) or await self._keep_own(wanted, content)

    async def _share(self, wanted: Wanted, content: Content) -> Checkpoint | None:
        """Save a checkpoint so that its body is stored once; `None` if others kept getting ahead.

        Each try expects the revision at which it looked. `None` as well if there is no equal body
        and this one is not at hand. What comes from another is saved in no other way: if others
        kept getting ahead, `Conflict`.
        """
        if wanted.parent is not None:
            return await self._place.settled(lambda seen: self._share_at(seen, wanted, content))
        for _attempt in range(SETTLE_ATTEMPTS):
            try:
                return await self._share_at(await self._place.seen(), wanted, content)
            except Conflict:
                continue
        return None

    async def _share_at(self, seen: Seen, wanted: Wanted, content: Content) -> Checkpoint | None:
        upload = content.upload
        if upload is not None:
            await upload.keep_fresh()
            if upload.epoch != seen.epoch:
                raise NotFound(self._place.id, "the session was made anew during the upload")
        shared = await self._bodies.holding(content.sha256)
        if shared is None and content.chunk is None and upload is None:
            return None
        return await self._save_large(await self._with_parent(wanted), content, shared, seen)

    async def _keep_own(self, wanted: Wanted, content: Content) -> Checkpoint:
        """Save a checkpoint with a body of its own, whoever else commits meanwhile."""
        if content.upload is not None:
            await content.upload.keep_fresh()
        return await self._save_large(wanted, content, None, None)

    async def _save_large(
        self, wanted: Wanted, content: Content, shared: str | None, expect: Seen | None
    ) -> Checkpoint:
        old = await self._place.saved(wanted.id) if wanted.given else None
        upload = content.upload
        own = new_name(self._place) if upload is None else upload.name
        name = own if shared is None else shared
        facts = self._facts(wanted, content, name, old)
        parts = [
            *_replaced(wanted, old),
            put_of(wanted.id, facts, wanted.content_type, b""),
            use_put(content.sha256, name, wanted.id),
        ]
        if shared is None and content.chunk is not None:
            parts += chunk_puts(own, 0, content.chunk)
        elif shared is None:
            parts.append(Drop(collection=PENDING, key=own))
        epoch = None if upload is None else upload.epoch
        return await self._commit(wanted, parts, old, facts, epoch=epoch, expect=expect)

    # --- both ----------------------------------------------------------------------------------

    def _facts(
        self, wanted: Wanted, content: Content, name: str | None, old: Saved | None
    ) -> Facts:
        if old is not None:
            birth = old.facts.birth
        else:
            birth = self._place.context.ids.operation().hex() if wanted.given else ""
        parent, parent_birth = wanted.parent or (None, "")
        return Facts(
            size=content.size,
            sha256=content.sha256,
            birth=birth,
            parent=parent,
            parent_birth=parent_birth,
            metadata=wanted.metadata,
            store=name,
            chunks=0 if name is None else content.chunks,
        )

    async def _commit(
        self,
        wanted: Wanted,
        parts: list[Put | Drop],
        old: Saved | None,
        facts: Facts,
        *,
        epoch: str | None = None,
        expect: Seen | None = None,
    ) -> Checkpoint:
        now = self._place.context.now()
        committed = await self._place.commit(
            parts, epoch=epoch, expect=expect, durability=wanted.durability, now=now
        )
        self._note((wanted.id, facts.birth), committed)
        if old is not None and old.facts.store is not None:
            with contextlib.suppress(SojournError):  # left to a sweep
                await self._bodies.reclaim(old.facts.store)
        return Checkpoint(
            session=self._place.id,
            id=wanted.id,
            parent=facts.parent,
            content_type=wanted.content_type,
            size=facts.size,
            sha256=facts.sha256,
            metadata=codec.decode(wanted.metadata, "metadata"),
            seq=committed.header.seq,
            created_at=to_datetime(now),
        )

    def _note(self, name: Name, committed: Committed) -> None:
        """Note what was saved last, and whether somebody else had committed before it."""
        seen, before = Seen(committed.header.epoch, committed.revision), self._known
        alone = before is None or seen == (before.seen.epoch, before.seen.revision + 1)
        self._known = Known(name, seen, alone)


def _replaced(wanted: Wanted, old: Saved | None) -> list[Put | Drop]:
    """Return what goes before a checkpoint under a given id, so that it is the last one saved."""
    if not wanted.given:
        return []
    return [Drop(collection=COLLECTION, key=wanted.id), *(let_go(old) if old else ())]


async def chunks_of(body: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield a body in chunks of `CHUNK_BYTES`; only the last is shorter."""
    if not hasattr(body, "__aiter__"):
        kind = type(body).__name__
        raise Unserializable("body", f"give bytes, or an async iterator of bytes, not {kind}")
    gathered = bytearray()
    async for piece in body:
        data = _piece_of(piece)
        for first in range(0, len(data), CHUNK_BYTES):
            gathered += data[first : first + CHUNK_BYTES]
            if len(gathered) >= CHUNK_BYTES:
                yield bytes(gathered[:CHUNK_BYTES])
                del gathered[:CHUNK_BYTES]
    if gathered:
        yield bytes(gathered)


def _piece_of(piece: object) -> bytes:
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise Unserializable("body", f"its pieces are bytes, not {type(piece).__name__}")
    return bytes(piece)


async def _joined(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for chunk in rest:
        yield chunk


async def _slices_of(body: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(body), CHUNK_BYTES):
        yield body[first : first + CHUNK_BYTES]


async def _hash_of(body: bytes) -> str:
    """Return the hash of a body in hex; a long one lets others run in between."""
    digest = hashlib.sha256()
    async for chunk in _slices_of(body):
        digest.update(chunk)
        await asyncio.sleep(0)
    return digest.hexdigest()

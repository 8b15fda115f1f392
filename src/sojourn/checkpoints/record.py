"""What a checkpoint is, and the document that it is kept as: its facts, then a small body.

The document's key is the checkpoint's id and its place in the order of commits is the checkpoint's,
so that no clock has a say in which is the latest.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from sojourn import codec
from sojourn.errors import Corrupt, TooLarge, Unserializable
from sojourn.store import Put
from sojourn.timestamps import to_datetime

if TYPE_CHECKING:
    from sojourn.model import StoredDocument

COLLECTION = "sojourn.checkpoints"
"""Where the facts are, and bodies of at most `INLINE_BYTES`."""

INLINE_BYTES = 16 * 1024
"""Bytes of a body that stay with the facts: one document, so one commit and one read. Sharing a
body this small would save less than looking for its equal costs."""

MAX_METADATA = 16 * 1024
"""Bytes of a checkpoint's metadata as JSON: listings carry it, so that a page stays small."""

LEAD_BYTES = 1024
"""Bytes of each document that a listing reads first: the facts of nearly every checkpoint."""

LONGEST_LEAD = MAX_METADATA + 2 * 1024
"""Bytes that hold the facts of any checkpoint: metadata, and a parent's name of 255 characters of
at most four bytes; the rest is short."""

WHOLE_LEAD = LONGEST_LEAD + INLINE_BYTES
"""Bytes that hold the facts of any checkpoint and an inline body."""

VERSION = 1
"""First byte of a checkpoint's document: how the rest is laid out."""

_PREFIX = struct.Struct(">BI")
"""The version and the length of the facts."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A checkpoint. `body` is `None` in listings, and where it was not asked for.

    `session` is the session's id, `parent` the id of the checkpoint that it came from, `size` in
    bytes, `sha256` of the body in hex, `metadata` what was given. `seq` is the log's last number
    when it was saved. `number` is its place, higher for later ones; what `save` returns has none.
    """

    session: str
    id: str
    parent: str | None
    content_type: str
    size: int
    sha256: str
    metadata: dict[str, Any]
    seq: int
    created_at: datetime
    number: int | None = None
    body: bytes | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is stored of a checkpoint beside its body, as JSON.

    `birth` tells it from others that had its id before or after: one that is saved anew keeps it,
    one that was deleted takes it along. `parent_birth` is its parent's, so that whoever gets that
    id later is not taken for the parent. Those that got their id from us need none. `store` names
    the body in chunks that it may share with others; `None` when the body is inline.
    """

    size: int
    sha256: str
    birth: str = ""
    parent: str | None = None
    parent_birth: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    store: str | None = None
    chunks: int = 0


Name: TypeAlias = tuple[str, str]
"""An id, and the birth of the one that has it."""


class Saved(NamedTuple):
    """A checkpoint as it was read: the document's own facts, ours, and the inline body."""

    document: StoredDocument
    facts: Facts
    inline: bytes | None

    @property
    def id(self) -> str:
        """The checkpoint's id."""
        return self.document.key

    @property
    def name(self) -> Name:
        """What its children call it."""
        return self.document.key, self.facts.birth

    @property
    def parent(self) -> Name | None:
        """What it calls the one that it came from."""
        parent = self.facts.parent
        return None if parent is None else (parent, self.facts.parent_birth)


_decoder = msgspec.json.Decoder(Facts)
_encode = msgspec.json.Encoder().encode


def encode_metadata(metadata: object) -> msgspec.Raw:
    """Return metadata as JSON. Raises `Unserializable`, or `TooLarge` over `MAX_METADATA` bytes."""
    if type(metadata) is not dict:
        raise Unserializable("metadata", f"give a dict, not {type(metadata).__name__}")
    text = codec.encode(metadata, "metadata")
    if len(text) > MAX_METADATA:
        raise TooLarge("bytes of JSON in metadata", len(text), MAX_METADATA)
    return msgspec.Raw(text)


def put_of(id: str, facts: Facts, content_type: str, inline: bytes) -> Put:
    """Return what puts the document of a checkpoint."""
    text = _encode(facts)
    body = b"".join((_PREFIX.pack(VERSION, len(text)), text, inline))
    return Put(collection=COLLECTION, key=id, body=body, content_type=content_type)


def is_whole(document: StoredDocument) -> bool:
    """Return whether as much of a document was read as its facts take."""
    lead = document.body or b""
    if len(lead) < _PREFIX.size:
        return len(lead) == document.size
    length: int = _PREFIX.unpack_from(lead)[1]
    return len(lead) >= min(_PREFIX.size + length, document.size)


def saved_in(document: StoredDocument) -> Saved:
    """Return the checkpoint in a document, or in the lead of one. Raises `Corrupt`."""
    where = f"checkpoint {document.key!r}"
    lead = document.body or b""
    if len(lead) < _PREFIX.size:
        raise Corrupt(where, "its document is cut short")
    version, length = _PREFIX.unpack_from(lead)
    if version != VERSION:
        raise Corrupt(where, f"its document has layout {version}, which this Sojourn does not know")
    end = _PREFIX.size + length
    try:
        facts = _decoder.decode(lead[_PREFIX.size : end])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(where, str(error)) from error
    whole = facts.store is None and len(lead) == document.size
    return Saved(document, facts, lead[end:] if whole else None)


def checkpoint_of(session: str, saved: Saved, body: bytes | None = None) -> Checkpoint:
    """Return what a caller reads of a checkpoint."""
    document, facts = saved.document, saved.facts
    return Checkpoint(
        session=session,
        id=document.key,
        parent=facts.parent,
        content_type=document.content_type,
        size=facts.size,
        sha256=facts.sha256,
        metadata=codec.decode(facts.metadata, f"metadata of checkpoint {document.key!r}"),
        seq=document.seq,
        created_at=to_datetime(document.created_at),
        number=document.number,
        body=body,
    )

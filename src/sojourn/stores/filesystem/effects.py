"""Effects: what a frame says. Not what was asked for, but what came of it, with every number.

So a later Sojourn whose rules differ reads the same history. Events and what is attached stand
last, so that their places in the file follow from their lengths.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import Raw, Struct

from sojourn.errors import Corrupt
from sojourn.model import Entry, Header, StoredDocument

if TYPE_CHECKING:
    from sojourn.model import Draft

NOTHING = Raw(b"{}")
"""The state of a session without any."""

ABSENT = Raw(b"")
"""What an event without a delta has in the place of it."""


class EventLine(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An event as it stands in a frame."""

    seq: int
    id: str
    kind: str
    author: str | None = None
    at: int
    body: Raw
    changes: Raw = ABSENT
    deleted: Raw = ABSENT


class EventFacts(Struct, frozen=True, kw_only=True, gc=False):
    """What is kept in memory of an event; the rest stays on the disk."""

    seq: int
    id: str
    kind: str
    at: int
    changes: Raw = ABSENT
    deleted: Raw = ABSENT


class DocumentLine(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A document as it stands in a frame; its body, `size` bytes, is attached in the same order.

    `sum` is the checksum of the body.
    """

    collection: str
    key: str
    content_type: str
    size: int
    seq: int
    created_at: int
    updated_at: int
    expires_at: int | None = None
    number: int
    sum: int


class DropLine(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A document that is gone, or with `key=None` a whole collection."""

    collection: str
    key: str | None = None


class TierLine(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What becomes of a tier: the user's or, with `user=None`, the app's. `whole` replaces it."""

    user: str | None = None
    whole: bool = False
    set: dict[str, Raw] = {}
    drop: tuple[str, ...] = ()


class DocumentsLine(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Documents that are dropped first and those that are put then."""

    drop: tuple[DropLine, ...] = ()
    put: tuple[DocumentLine, ...] = ()


NO_DOCUMENTS = DocumentsLine()
"""What an effect says that is about no document."""


class _Effect(Struct, frozen=True, omit_defaults=True, gc=False, tag_field="do"):
    """What all effects share: how they are told apart."""


class Begun(_Effect, frozen=True, kw_only=True, tag="begin"):
    """The first frame of a snapshot: whose it is, and how far its counters are."""

    app: str
    rows: int
    places: int


class Finished(_Effect, frozen=True, kw_only=True, tag="end"):
    """The last frame of a snapshot: how many came before it."""

    frames: int


class Kept(_Effect, frozen=True, kw_only=True, tag="session"):
    """A session in a snapshot, or with `more` the next piece of it."""

    id: str
    row: int = 0
    header: Header | None = None
    state: Raw = NOTHING
    more: bool = False
    documents: DocumentsLine = NO_DOCUMENTS
    events: list[Raw] = []


class Created(_Effect, frozen=True, kw_only=True, tag="create"):
    """A new session."""

    row: int
    header: Header
    state: Raw
    tiers: tuple[TierLine, ...] = ()
    events: list[Raw] = []


class Changed(_Effect, frozen=True, kw_only=True, tag="change"):
    """A session moved on. `header` is there if more than the counters and deadlines changed."""

    id: str
    op: bytes = b""
    revision: int
    seq: int
    active_at: int
    expires_at: int | None = None
    due_at: int | None = None
    header: Header | None = None
    clear: bool = False
    set: dict[str, Raw] = {}
    drop: tuple[str, ...] = ()
    cut: int | None = None
    tiers: tuple[TierLine, ...] = ()
    documents: DocumentsLine = NO_DOCUMENTS
    events: list[Raw] = []


class Forked(_Effect, frozen=True, kw_only=True, tag="fork"):
    """A session that shares the events and documents of `source` up to event `at`."""

    row: int
    source: str
    at: int
    header: Header
    state: Raw


class Removed(_Effect, frozen=True, kw_only=True, tag="remove"):
    """Sessions that are gone with all they own; `user` is one whose tier is gone as well.

    `staged` are restores that are given up.
    """

    ids: tuple[str, ...] = ()
    user: str | None = None
    staged: tuple[str, ...] = ()


class Staged(_Effect, frozen=True, kw_only=True, tag="part"):
    """A part of a session that is being restored; nobody sees it yet.

    The first one begins anew, unless it says `more`.
    """

    op: str
    part: int
    more: bool = False
    abandoned_at: int
    header: Header
    state: Raw = NOTHING
    documents: DocumentsLine = NO_DOCUMENTS
    events: list[Raw] = []


class Restored(_Effect, frozen=True, kw_only=True, tag="restore"):
    """A session exactly as it was elsewhere; with `staged`, its parts before this come first."""

    row: int
    header: Header
    staged: bool = False
    state: Raw = NOTHING
    documents: DocumentsLine = NO_DOCUMENTS
    events: list[Raw] = []


class Shared(_Effect, frozen=True, kw_only=True, tag="share"):
    """Tiers, and documents of the app."""

    tiers: tuple[TierLine, ...] = ()
    documents: DocumentsLine = NO_DOCUMENTS


class Paused(_Effect, frozen=True, kw_only=True, tag="pause"):
    """Nothing. What stands before it is on the disk for sure."""


class Sealed(_Effect, frozen=True, kw_only=True, tag="seal"):
    """The journal goes on in the one of generation `next`, at `offset`."""

    next: int
    offset: int


Effect: TypeAlias = (
    Begun
    | Finished
    | Kept
    | Created
    | Changed
    | Forked
    | Removed
    | Staged
    | Restored
    | Shared
    | Paused
    | Sealed
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Effect)
_event_decoder = msgspec.json.Decoder(EventLine)
_facts_decoder = msgspec.json.Decoder(EventFacts)

encode = _encoder.encode
"""Return the JSON text of an effect."""


def decode(text: bytes, where: str) -> Effect:
    """Return what a frame says. Raises `Corrupt`, naming `where`, if it can not be understood."""
    try:
        effect: Effect = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(where, f"a frame can not be understood ({error})") from error
    return effect


def event_raw(event: Draft | Entry, seq: int) -> Raw:
    """Return an event as it stands in a frame."""
    line = EventLine(
        seq=seq,
        id=event.id,
        kind=event.kind,
        author=event.author,
        at=event.at,
        body=Raw(event.body),
        changes=ABSENT if event.changes is None else Raw(event.changes),
        deleted=ABSENT if event.deleted is None else Raw(event.deleted),
    )
    return Raw(_encoder.encode(line))


def event_facts(raw: Raw) -> EventFacts:
    """Return what is kept in memory of an event."""
    return _facts_decoder.decode(raw)


def entry_of(text: bytes, where: str) -> Entry:
    """Return the event that stands in a frame. Raises `Corrupt`, naming `where`."""
    try:
        line = _event_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(where, f"an event can not be understood ({error})") from error
    changes, deleted = line.changes, line.deleted
    return Entry(
        line.seq,
        line.id,
        line.kind,
        line.author,
        line.at,
        bytes(line.body).decode(),
        None if changes is ABSENT else bytes(changes).decode(),
        None if deleted is ABSENT else bytes(deleted).decode(),
    )


def document_line(document: StoredDocument) -> DocumentLine:
    """Return a document as it stands in a frame."""
    body = document.body or b""
    return DocumentLine(
        collection=document.collection,
        key=document.key,
        content_type=document.content_type,
        size=len(body),
        seq=document.seq,
        created_at=document.created_at,
        updated_at=document.updated_at,
        expires_at=document.expires_at,
        number=document.number,
        sum=zlib.crc32(body),
    )

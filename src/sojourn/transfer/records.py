"""The records of an export: what stands in its lines, to and from what a store keeps.

Times are written as dates, values as the JSON that they are, bodies of documents as text where they
are text. `docs/transfer.md` describes the format for people; `VERSION` counts its changes.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from sojourn.errors import Corrupt
from sojourn.lifecycle import Phase
from sojourn.model import Entry, Header, StoredDocument
from sojourn.store import Snapshot, Tier
from sojourn.timestamps import from_datetime, to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 1
"""The version of the format: a reader of a lower one refuses the file."""

_NO_DATE = "one of its times is outside the years 1 to 9999"
_NOTHING = msgspec.Raw(b"")
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

State = dict[str, msgspec.Raw]


class EventRecord(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An event. `set` and `dropped` are its delta."""

    seq: int
    id: str
    kind: str
    author: str | None = None
    at: datetime
    body: msgspec.Raw
    set: msgspec.Raw = _NOTHING
    dropped: msgspec.Raw = _NOTHING


class DocumentRecord(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A document of a session. Its body is in `text`, or in `base64`."""

    collection: str
    key: str
    content_type: str
    seq: int = 0
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    text: str | None = None
    base64: bytes = b""


class Beginning(
    msgspec.Struct,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag="export",
    tag_field="record",
):
    """The first line: what this is, when it was begun, and about how many sessions follow."""

    version: int
    at: datetime
    sessions: int = 0


class SessionRecord(
    msgspec.Struct,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag="session",
    tag_field="record",
):
    """A session; with `more`, records of its further parts follow."""

    app: str
    id: str
    epoch: str
    user: str | None = None
    lifecycle: str
    phase: Phase
    reason: str | None = None
    revision: int
    seq: int = 0
    created_at: datetime
    active_at: datetime
    idle_us: int | None = None
    absolute_at: datetime | None = None
    expires_at: datetime | None = None
    due_at: datetime | None = None
    retain_us: int | None = None
    attempts: int = 0
    parent: str | None = None
    forked_from: str | None = None
    labels: dict[str, str] = {}
    exclusive: tuple[str, ...] = ()
    fence: int = 0
    remembered: bytes = b""
    state: State = {}
    events: list[EventRecord] = []
    documents: list[DocumentRecord] = []
    more: bool = False


class PartRecord(
    msgspec.Struct,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag="part",
    tag_field="record",
):
    """A further part of the session before it."""

    app: str
    id: str
    part: int
    events: list[EventRecord] = []
    documents: list[DocumentRecord] = []
    more: bool = False


class TierRecord(
    msgspec.Struct,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag="tier",
    tag_field="record",
):
    """The shared state of a user, or without one of the app."""

    app: str
    user: str | None = None
    state: State


class AppDocument(
    msgspec.Struct,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag="document",
    tag_field="record",
):
    """A document of an app."""

    app: str
    document: DocumentRecord


class End(
    msgspec.Struct,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag="end",
    tag_field="record",
):
    """The last line: how many sessions, tiers and documents of apps there were."""

    sessions: int
    tiers: int
    documents: int


Record = Beginning | SessionRecord | PartRecord | TierRecord | AppDocument | End

decode = msgspec.json.Decoder(Record).decode
"""Returns the record in a JSON text. Raises `msgspec.MsgspecError`."""


# --- out ---------------------------------------------------------------------------------------


def from_snapshot(snapshot: Snapshot) -> SessionRecord | PartRecord:
    """Return the record of a session or a part. Raises `Corrupt` for a time that is no date."""
    header = snapshot.header
    try:
        events = list(map(_from_entry, snapshot.entries))
        documents = list(map(_from_document, snapshot.documents))
        if snapshot.part:
            return PartRecord(
                app=header.app,
                id=header.id,
                part=snapshot.part,
                events=events,
                documents=documents,
                more=not snapshot.last,
            )
        return _from_header(snapshot, events, documents)
    except OverflowError as error:
        raise Corrupt(f"session {header.id!r}", _NO_DATE) from error


def _from_header(
    snapshot: Snapshot, events: list[EventRecord], documents: list[DocumentRecord]
) -> SessionRecord:
    header = snapshot.header
    return SessionRecord(
        app=header.app,
        id=header.id,
        epoch=header.epoch,
        user=header.user,
        lifecycle=header.lifecycle,
        phase=header.phase,
        reason=header.reason,
        revision=header.revision,
        seq=header.seq,
        created_at=to_datetime(header.created_at),
        active_at=to_datetime(header.active_at),
        idle_us=header.idle,
        absolute_at=_date(header.absolute_at),
        expires_at=_date(header.expires_at),
        due_at=_date(header.due_at),
        retain_us=header.retain,
        attempts=header.attempts,
        parent=header.parent,
        forked_from=header.forked_from,
        labels=header.labels,
        exclusive=header.exclusive,
        fence=header.fence,
        remembered=header.remembered,
        state=_on_one_line(snapshot.state),
        events=events,
        documents=documents,
        more=not snapshot.last,
    )


def _from_entry(entry: Entry) -> EventRecord:
    return EventRecord(
        seq=entry.seq,
        id=entry.id,
        kind=entry.kind,
        author=entry.author,
        at=to_datetime(entry.at),
        body=_json(entry.body),
        set=_NOTHING if entry.changes is None else _json(entry.changes),
        dropped=_NOTHING if entry.deleted is None else _json(entry.deleted),
    )


def _from_document(document: StoredDocument) -> DocumentRecord:
    body = document.body or b""
    text = _text(body)
    return DocumentRecord(
        collection=document.collection,
        key=document.key,
        content_type=document.content_type,
        seq=document.seq,
        created_at=to_datetime(document.created_at),
        updated_at=to_datetime(document.updated_at),
        expires_at=_date(document.expires_at),
        text=text,
        base64=body if text is None else b"",
    )


def from_shared(app: str, item: Tier | StoredDocument) -> TierRecord | AppDocument:
    """Return the record of what an app's sessions share. Raises `Corrupt` as `from_snapshot`."""
    if isinstance(item, Tier):
        return TierRecord(app=app, user=item.user, state=_on_one_line(item.state))
    try:
        return AppDocument(app=app, document=_from_document(item))
    except OverflowError as error:
        raise Corrupt(f"document {item.key!r} of {item.collection!r}", _NO_DATE) from error


def _date(instant: int | None) -> datetime | None:
    return None if instant is None else to_datetime(instant)


def _json(text: str) -> msgspec.Raw:
    """Return a JSON text on one line: ends of lines in it can only be space between its parts."""
    return msgspec.Raw(text.replace("\n", " ").replace("\r", " "))


def _on_one_line(state: State) -> State:
    return {
        name: _json(bytes(value).decode()) if b"\n" in bytes(value) else value
        for name, value in state.items()
    }


def _text(body: bytes) -> str | None:
    """Return a body as text if people can read it as such."""
    if _NOT_TEXT.search(body):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


# --- in ----------------------------------------------------------------------------------------


def to_snapshot(record: SessionRecord) -> Snapshot:
    """Return the session, or the first part of it, that a record holds."""
    header = Header(
        app=record.app,
        id=record.id,
        epoch=record.epoch,
        user=record.user,
        lifecycle=record.lifecycle,
        phase=record.phase,
        reason=record.reason,
        revision=record.revision,
        seq=record.seq,
        created_at=_instant(record.created_at),
        active_at=_instant(record.active_at),
        idle=record.idle_us,
        absolute_at=_maybe(record.absolute_at),
        expires_at=_maybe(record.expires_at),
        due_at=_maybe(record.due_at),
        retain=record.retain_us,
        attempts=record.attempts,
        parent=record.parent,
        forked_from=record.forked_from,
        labels=record.labels,
        exclusive=record.exclusive,
        fence=record.fence,
        remembered=record.remembered,
    )
    return Snapshot(
        header=header,
        state=record.state,
        entries=_entries(record.events),
        documents=tuple(map(to_document, record.documents)),
        last=not record.more,
    )


def to_part(record: PartRecord, header: Header) -> Snapshot:
    """Return the part that a record holds of the session with this header."""
    return Snapshot(
        header=header,
        entries=_entries(record.events),
        documents=tuple(map(to_document, record.documents)),
        part=record.part,
        last=not record.more,
    )


def to_document(record: DocumentRecord) -> StoredDocument:
    """Return the document that a record holds."""
    body = record.base64 if record.text is None else record.text.encode()
    return StoredDocument(
        collection=record.collection,
        key=record.key,
        content_type=record.content_type,
        size=len(body),
        seq=record.seq,
        created_at=_instant(record.created_at),
        updated_at=_instant(record.updated_at),
        expires_at=_maybe(record.expires_at),
        body=body,
    )


def to_tier(record: TierRecord) -> Tier:
    """Return the tier that a record holds."""
    return Tier(user=record.user, state=record.state)


def _entries(records: Iterable[EventRecord]) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            record.seq,
            record.id,
            record.kind,
            record.author,
            _instant(record.at),
            _string(record.body) or "",
            _string(record.set),
            _string(record.dropped),
        )
        for record in records
    )


def _string(raw: msgspec.Raw) -> str | None:
    return bytes(raw).decode() or None


def _instant(date: datetime) -> int:
    """Return a date as an instant. Raises `Corrupt` for one without a time zone."""
    if date.tzinfo is None:
        raise Corrupt("a date", f"{date} has no time zone")
    return from_datetime(date)


def _maybe(date: datetime | None) -> int | None:
    return None if date is None else _instant(date)

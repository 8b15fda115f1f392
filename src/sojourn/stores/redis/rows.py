"""Records to what Redis keeps, and back: JSON for people, and small facts for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sojourn import codec
from sojourn.errors import Corrupt
from sojourn.model import Entry, Header, StoredDocument
from sojourn.stores.planning import Loaded
from sojourn.stores.redis.keys import escaped
from sojourn.stores.redis.routes import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sojourn.model import Encoded

FIELDS = "head,state,ops,v,peak,place,kinds,note"
"""The fields of a session that are read, in the order in which `to_loaded` takes them."""

OUTLINE = "head,v,peak,place,kinds,note"
"""The fields without which a session can not be read; its state, which may be large, is none."""

LEAD_BYTES = 64 * 1024
"""The beginning of a document's body is a field of its own: listings may ask for a part of it."""

MANY_KINDS = 255
"""The byte that stands for all kinds of events beyond so many in one session."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError)


class Row(msgspec.Struct, frozen=True, gc=False):
    """Where a session is, and what this backend remembers of it beside header and state.

    `place` is where it stands among all, as they were created; `kinds` are the kinds that its
    events have had, by the numbers that stand for them; `note` is what the note at the home of its
    id says, empty if it is at home. `fixed` is what `fixed_text` makes of its header, if that was
    asked for since it was read or changed.
    """

    route: Route
    place: str
    kinds: tuple[str, ...] = ()
    note: str = ""
    fixed: bytes = b""


class Unreadable(Corrupt):
    """A session that can not be read back, and where it is."""

    def __init__(self, key: str, reason: str, route: Route, place: str) -> None:
        super().__init__(key, reason)
        self.args = (key, reason, route, place)
        self.route = route
        self.place = place


_FRESH = msgspec.structs.asdict(Header(app="", id="", epoch="", created_at=0, active_at=0))
"""What a fresh session has anyway, and is not kept; but for what each has its own of."""

_ITS_OWN = ("app", "id", "epoch", "created_at")

_MOVING = ("revision", "seq", "active_at", "expires_at", "due_at", "remembered")
"""What nearly every write changes in a header."""

_ABSENT = msgspec.Raw()

_NO_FIELDS = [None] * 5


class _Line(msgspec.Struct, gc=False):
    """An event as it is kept."""

    seq: int
    id: str
    kind: str
    author: str | None
    at: int
    body: msgspec.Raw
    changes: msgspec.Raw = _ABSENT
    deleted: msgspec.Raw = _ABSENT


class _Peak(msgspec.Struct, gc=False):
    """The latest time of any event up to one."""

    peak: int


class _Facts(msgspec.Struct, gc=False):
    """A document as it is kept, without its body."""

    number: int
    created_at: int
    updated_at: int
    expires_at: int | None
    seq: int
    size: int
    content_type: str


_encode = msgspec.json.Encoder().encode
_head_decoder = msgspec.json.Decoder(Header)
_line_decoder = msgspec.json.Decoder(_Line)
_lines_decoder = msgspec.json.Decoder(list[_Line])
_peak_decoder = msgspec.json.Decoder(_Peak)
_facts_decoder = msgspec.json.Decoder(_Facts)
_holder_decoder = msgspec.json.Decoder(tuple[str, str, int])
_kinds_decoder = msgspec.json.Decoder(tuple[str, ...])


def fixed_text(header: Header) -> bytes:
    """Return the beginning of a header as JSON: all but what nearly every write changes."""
    fields = msgspec.structs.asdict(header)
    kept = {
        name: value
        for name, value in fields.items()
        if name in _ITS_OWN or (name not in _MOVING and value != _FRESH[name])
    }
    return _encode(kept)[:-1]


def head_text(header: Header, fixed: bytes) -> bytes:
    """Return a header as JSON, but for the operations that it remembers, from its beginning on."""
    moving = (fixed, header.revision, header.seq, header.active_at)
    text = b'%b,"revision":%d,"seq":%d,"active_at":%d' % moving
    if header.expires_at is not None:
        text += b',"expires_at":%d' % header.expires_at
    if header.due_at is not None:
        text += b',"due_at":%d' % header.due_at
    return text + b"}"


def to_header(head: bytes, ops: bytes | None) -> Header:
    """Return a header from its JSON and the operations that it remembers."""
    header = _head_decoder.decode(head)
    if ops:
        msgspec.structs.force_setattr(header, "remembered", ops)  # nobody has seen it yet
    return header


def to_loaded(id: str, route: Route, fields: Sequence[bytes | None]) -> Loaded | Unreadable | None:
    """Return a session from its fields, `None` when there is none."""
    if fields[:5] == _NO_FIELDS:
        return None
    head, state, ops, version, peak, place, kinds, note = fields
    try:
        row = Row(
            route,
            (place or b"").decode(),
            _kinds_decoder.decode(kinds) if kinds else (),
            (note or b"").decode(),
        )
        header = to_header(head or b"", ops)
        return Loaded(header, state or b"{}", int(version or b""), int(peak or 0), row)
    except _UNREADABLE as error:
        found = Unreadable(f"session {id!r}", str(error), route, (place or b"").decode("latin-1"))
        found.__cause__ = error
        return found


def to_outline(id: str, route: Route, fields: Sequence[bytes | None]) -> Loaded | Unreadable | None:
    """Return a session from the fields of `OUTLINE`: as it is, but for state and operations."""
    head, *others = fields
    return to_loaded(id, route, [head, None, None, *others])


def to_holder(text: bytes) -> tuple[str, str, Route]:
    """Return id, epoch and route of the session that a claim's note names."""
    return _holder_decoder.decode(text)


def to_state(id: str, state: bytes) -> Encoded:
    """Return a session's own state. Raises `Corrupt`."""
    return codec.decode_object(state, f"session {id!r}")


def line(entry: Entry, peak: int) -> bytes:
    """Return an event as JSON; it begins with what scripts look for."""
    delta = b""
    if entry.changes is not None:
        delta = b',"changes":' + entry.changes.encode()
    if entry.deleted is not None:
        delta += b',"deleted":' + entry.deleted.encode()
    return b'{"seq":%d,"at":%d,"peak":%d%b,"kind":%b,"id":%b,"author":%b,"body":%b}' % (
        entry.seq,
        entry.at,
        peak,
        delta,
        _encode(entry.kind),
        _encode(entry.id),
        b"null" if entry.author is None else _encode(entry.author),
        entry.body.encode(),
    )


def to_entry(text: bytes, id: str) -> Entry:
    """Return an event from its JSON. Raises `Corrupt`."""
    try:
        return _entry_of(_line_decoder.decode(text))
    except _UNREADABLE as error:
        raise Corrupt(f"an event of session {id!r}", str(error)) from error


def to_entries(texts: Sequence[bytes], id: str) -> list[Entry]:
    """Return events from their JSON, all at once if they can be read. Raises `Corrupt`."""
    try:
        found = _lines_decoder.decode(b"[%b]" % b",".join(texts))
        if len(found) == len(texts):
            return [_entry_of(line) for line in found]
    except _UNREADABLE:
        pass  # one by one, it is seen which
    return [to_entry(text, id) for text in texts]


def _entry_of(line: _Line) -> Entry:
    changes, deleted = line.changes, line.deleted
    return Entry(
        line.seq,
        line.id,
        line.kind,
        line.author,
        line.at,
        str(line.body, "utf-8"),
        None if changes is _ABSENT else str(changes, "utf-8"),
        None if deleted is _ABSENT else str(deleted, "utf-8"),
    )


def peak_in(text: bytes, id: str) -> int:
    """Return the latest time of any event up to this one. Raises `Corrupt`."""
    try:
        return _peak_decoder.decode(text).peak
    except _UNREADABLE as error:
        raise Corrupt(f"an event of session {id!r}", str(error)) from error


def to_tier(flat: Sequence[bytes], whose: str) -> Encoded:
    """Return a tier from names and values in turns. Raises `Corrupt`."""
    if not flat:
        return {}
    try:
        return {
            flat[at].decode(): msgspec.Raw(flat[at + 1])
            for at in range(0, len(flat), 2)
            if flat[at]  # what only keeps the key in being is not a part of the tier
        }
    except UnicodeDecodeError as error:
        raise Corrupt(whose, str(error)) from error


def facts_text(seq: int, size: int, content_type: str) -> str:
    """Return what is kept of a document beside its number and times, as the end of a JSON text."""
    return f'"seq":{seq},"size":{size},"content_type":{_encode(content_type).decode()}}}'


def collection_prefix(collection: str) -> str:
    """Return what the names of a collection's documents begin with."""
    return f"{escaped(collection)}:"


def to_document(
    collection: str, key: str, facts: bytes, body: bytes | None = None
) -> StoredDocument:
    """Return a document from its facts. Raises `Corrupt`."""
    try:
        found = _facts_decoder.decode(facts)
    except _UNREADABLE as error:
        raise Corrupt(f"document {key!r} of {collection!r}", str(error)) from error
    return StoredDocument(
        collection=collection,
        key=key,
        content_type=found.content_type,
        size=found.size,
        seq=found.seq,
        created_at=found.created_at,
        updated_at=found.updated_at,
        expires_at=found.expires_at,
        number=found.number,
        body=body,
    )


def parts_of(body: bytes) -> tuple[bytes, ...]:
    """Return the fields that a body is kept in: its beginning, and the rest if there is one."""
    if len(body) <= LEAD_BYTES:
        return (body,)
    return body[:LEAD_BYTES], body[LEAD_BYTES:]


def kinds_after(kinds: tuple[str, ...], entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return a session's kinds with those of new events behind them."""
    for entry in entries:
        if entry.kind not in kinds:
            kinds += (entry.kind,)
    return kinds


def kind_bytes(kinds: tuple[str, ...], entries: Iterable[Entry]) -> bytes:
    """Return one byte for each event: the number of its kind."""
    return bytes([min(kinds.index(entry.kind), MANY_KINDS) for entry in entries])


def kinds_text(kinds: tuple[str, ...]) -> bytes:
    """Return a session's kinds as JSON."""
    return _encode(kinds)

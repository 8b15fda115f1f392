"""Rows to records and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import Corrupt
from sojourn.lifecycle import Phase
from sojourn.limits import MAX_SEQ
from sojourn.model import Entry, Header, StoredDocument
from sojourn.stores.sqlite.schema import SEQ_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

SESSION = (
    "app, id, epoch, user, lifecycle, phase, reason, revision, seq, created_at, active_at, idle, "
    "absolute_at, expires_at, due_at, retain, attempts, parent, forked_from, labels, exclusive, "
    "fence, holder, leased_until, remembered, row, wake_at, peak, state"
)
"""The columns of a session, in the order that `to_header` reads them; the rest come behind."""

COLUMNS = SESSION.count(",") + 1
ROW, WAKE_AT, PEAK, STATE = range(COLUMNS - 4, COLUMNS)
"""Where the columns stand that are not part of the header."""

EVENT = "key, id, kind, author, at, body, changes, deleted"
"""The columns of an event, in the order that `to_entry` reads them."""

ENTRY = EVENT.replace("key", "seq", 1)
"""The same with the number in place of the key: they are an `Entry` as they stand."""

DOCUMENT = "collection, key, content_type, size, seq, created_at, updated_at, expires_at, row"
"""The columns of a document without its body, in the order that `to_document` reads them."""

_labels = msgspec.json.Decoder(dict[str, str])
_names = msgspec.json.Decoder(tuple[str, ...])
_encode = msgspec.json.Encoder().encode
_PHASES = {phase.value: phase for phase in Phase}


def to_header(row: Sequence[Any]) -> Header:
    """Return the header in a session's row. Raises `Corrupt`, naming the session."""
    if row[7].__class__ is not int or row[8].__class__ is not int or row[9].__class__ is not int:
        raise Corrupt(f"session {row[1]!r}", "its row does not hold a session")
    try:
        return Header(
            app=row[0],
            id=row[1],
            epoch=row[2],
            user=row[3],
            lifecycle=row[4],
            phase=_PHASES[row[5]],
            reason=row[6],
            revision=row[7],
            seq=row[8],
            created_at=row[9],
            active_at=row[10],
            idle=row[11],
            absolute_at=row[12],
            expires_at=row[13],
            due_at=row[14],
            retain=row[15],
            attempts=row[16],
            parent=row[17],
            forked_from=row[18],
            labels=to_labels(row[19]),
            exclusive=() if row[20] is None else _names.decode(row[20]),
            fence=row[21],
            holder=row[22],
            leased_until=row[23],
            remembered=row[24],
        )
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise Corrupt(f"session {row[1]!r}", str(error)) from error


def from_header(header: Header) -> tuple[Any, ...]:
    """Return the values of a session's columns that are part of the header."""
    return (
        header.app,
        header.id,
        header.epoch,
        header.user,
        header.lifecycle,
        header.phase.value,
        header.reason,
        header.revision,
        header.seq,
        header.created_at,
        header.active_at,
        header.idle,
        header.absolute_at,
        header.expires_at,
        header.due_at,
        header.retain,
        header.attempts,
        header.parent,
        header.forked_from,
        to_json(header.labels) if header.labels else None,
        to_json(header.exclusive) if header.exclusive else None,
        header.fence,
        header.holder,
        header.leased_until,
        header.remembered,
    )


def to_json(value: object) -> str:
    """Return the JSON text of one of our own values."""
    return _encode(value).decode()


def event_key(row: int, seq: int) -> int:
    """Return the key of an event: its session's row number above, its `seq` below."""
    return row << SEQ_BITS | seq


def to_entry(row: Sequence[Any]) -> Entry:
    """Return the entry in an event's row. Raises `Corrupt` for a row that is none.

    A damaged page can hold anything where SQLite expects a row, also nothing.
    """
    if row[5].__class__ is not str or row[1].__class__ is not str or row[2].__class__ is not str:
        raise torn_event(row[0])
    return Entry(row[0] & MAX_SEQ, *row[1:])


def torn_event(key: int) -> Corrupt:
    """Return what is raised for a row of events that holds none."""
    number, seq = key >> SEQ_BITS, key & MAX_SEQ
    return Corrupt(f"event {seq} of row {number}", "its row does not hold an event")


def to_document(row: Sequence[Any]) -> StoredDocument:
    """Return the document in a row; its body, if it was read, is the last column.

    Raises `Corrupt` for a row that is none.
    """
    if row[1].__class__ is not str or row[3].__class__ is not int or row[5].__class__ is not int:
        raise Corrupt(f"document of row {row[8]}", "its row does not hold a document")
    return StoredDocument(
        collection=row[0],
        key=row[1],
        content_type=row[2],
        size=row[3],
        seq=row[4],
        created_at=row[5],
        updated_at=row[6],
        expires_at=row[7],
        number=row[8],
        body=row[9] if len(row) > 9 else None,  # noqa: PLR2004 - behind the listed columns
    )


def tier_owner(user: str | None) -> str:
    """Return the owner column of a tier: empty for the app, which no user can be called."""
    return user or ""


def to_labels(text: str | None) -> dict[str, str]:
    """Return the labels in a session's column. Raises `msgspec.DecodeError`."""
    return {} if text is None else _labels.decode(text)


def facets(user: str | None, labels: dict[str, str]) -> tuple[str, ...]:
    """Return the facets under which a session of a user with these labels is counted."""
    if not labels:
        return "all", user_facet(user)
    return "all", user_facet(user), *(label_facet(name, at) for name, at in labels.items())


def user_facet(user: str | None) -> str:
    """Return the facet of a user's sessions, or of the anonymous ones."""
    return "anonymous" if user is None else f"user {user}"


def label_facet(name: str, value: str) -> str:
    """Return the facet of the sessions with a label."""
    return f"label {to_json((name, value))}"

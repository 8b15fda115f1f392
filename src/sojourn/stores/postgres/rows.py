"""Rows to records and back."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import Corrupt
from sojourn.lifecycle import Phase
from sojourn.model import Entry, Header, StoredDocument
from sojourn.stores.planning import Loaded, label_facet, user_facet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Encoded
    from sojourn.stores.planning import Claim

HEADER = (
    "app, id, epoch, user_id, lifecycle, phase, reason, revision, seq, created_at, active_at, "
    "idle, absolute_at, expires_at, due_at, retain, attempts, parent, forked_from, labels, "
    "exclusive, fence, holder, leased_until, remembered"
)
"""The columns of a header, in the order that `to_header` reads them."""

SESSION = f"{HEADER}, row, version, peak, state"
"""The columns of a session, in the order that `to_loaded` reads them."""

WIDTH = HEADER.count(",") + 1
ROW, VERSION, PEAK, STATE = range(WIDTH, WIDTH + 4)
"""Where the columns stand that are not part of the header."""

EVENT = ("seq", "id", "kind", "author", "at", "body", "changes", "deleted")
"""The columns of an event, in the order of an entry's fields."""

DOCUMENT = "collection, key, content_type, size, seq, created_at, updated_at, expires_at, row"
"""The columns of a document without its body, in the order that `to_document` reads them."""

DIGEST_BYTES = 16
"""Bytes of a digest: no two names will ever share one."""

_labels = msgspec.json.Decoder(dict[str, str])
_names = msgspec.json.Decoder(tuple[str, ...])
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode
_PHASES = {phase.value: phase for phase in Phase}


def of(table: str, columns: str = SESSION) -> str:
    """Return columns as those of a table."""
    return ", ".join(f"{table}.{column}" for column in columns.split(", "))


def to_header(row: Sequence[Any]) -> Header:
    """Return the header in a session's row. Raises `Corrupt`, naming the session."""
    try:
        return Header(
            app=row[0],
            id=row[1],
            epoch=row[2],
            user=row[3],
            lifecycle=row[4],
            phase=_PHASES[row[5]],
            reason=None if row[6] is None else unescaped(row[6]),
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
            labels={} if row[19] is None else _labels.decode(row[19]),
            exclusive=() if row[20] is None else _names.decode(row[20]),
            fence=row[21],
            holder=row[22],
            leased_until=row[23],
            remembered=row[24],
        )
    except (msgspec.DecodeError, KeyError) as error:
        raise Corrupt(f"session {row[1]!r}", str(error)) from error


def to_loaded(row: Sequence[Any]) -> Loaded:
    """Return a session as the planner knows it. Raises `Corrupt`, naming the session."""
    return Loaded(to_header(row), row[STATE].encode(), row[VERSION], row[PEAK], row[ROW])


def from_header(header: Header) -> dict[str, Any]:
    """Return the columns of a header by name, as JSON values."""
    return {
        "app": header.app,
        "id": header.id,
        "epoch": header.epoch,
        "user_id": header.user,
        "lifecycle": header.lifecycle,
        "phase": header.phase.value,
        "reason": None if header.reason is None else escaped(header.reason),
        "revision": header.revision,
        "seq": header.seq,
        "created_at": header.created_at,
        "active_at": header.active_at,
        "idle": header.idle,
        "absolute_at": header.absolute_at,
        "expires_at": header.expires_at,
        "due_at": header.due_at,
        "retain": header.retain,
        "attempts": header.attempts,
        "parent": header.parent,
        "forked_from": header.forked_from,
        "labels": to_json(header.labels) if header.labels else None,
        "exclusive": to_json(header.exclusive) if header.exclusive else None,
        "fence": header.fence,
        "holder": header.holder,
        "leased_until": header.leased_until,
        "remembered": f"\\x{header.remembered.hex()}",
    }


def to_json(value: object) -> str:
    """Return the JSON text of one of our own values."""
    return _encode(value).decode()


def escaped(text: str) -> str:
    """Return a text as it stands in JSON, without the quotes: `text` can not hold a NUL."""
    return _encode(text)[1:-1].decode()


def unescaped(text: str) -> str:
    """Return what `escaped` was given. Raises `msgspec.DecodeError`."""
    return _text.decode(f'"{text}"')


def to_entries(columns: Sequence[Sequence[Any] | None]) -> tuple[Entry, ...]:
    """Return the entries in one array for each column of `EVENT`; `None` for no entries."""
    if not columns or columns[0] is None:
        return ()
    return tuple(map(Entry, *columns))  # type: ignore[arg-type]  # with the first, all are there


def from_entry(entry: Entry, peak: int) -> tuple[Any, ...]:
    """Return the columns of an event as the statements that write one take them."""
    return (
        entry.seq,
        entry.id,
        entry.kind,
        entry.author,
        entry.at,
        peak,
        entry.changes,
        entry.deleted,
        entry.body,
    )


def to_document(row: Sequence[Any]) -> StoredDocument:
    """Return the document in a row; its body, if it was read, is the last column."""
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


def to_tier(names: Sequence[str] | None, values: Sequence[str] | None) -> Encoded:
    """Return a tier from its names and values. Raises `Corrupt` for a name that is damaged."""
    try:
        pairs = zip(names or (), values or (), strict=True)
        return {unescaped(name): msgspec.Raw(value) for name, value in pairs}
    except msgspec.DecodeError as error:
        raise Corrupt("a shared tier", str(error)) from error


def digest(*parts: str) -> bytes:
    """Return what stands for texts in an index. No name holds the separator, JSON neither."""
    text = "\x1f".join(parts).encode()
    return hashlib.sha256(text).digest()[:DIGEST_BYTES]


@lru_cache(1_024)
def key_of(name: str) -> tuple[bytes, str]:
    """Return a key of a tier as it is kept: its digest and its escaped name."""
    plain = escaped(name)
    return digest(plain), plain


def claim_text(claim: Claim) -> str:
    """Return a claim as it is kept."""
    return to_json(claim)


def labels_of(header: Header) -> list[tuple[bytes, str, str]]:
    """Return (digest, name, value) of a session's labels."""
    return [
        (digest(header.app, label_facet(name, value)), name, value)
        for name, value in header.labels.items()
    ]


def owner_of(user: str | None) -> str:
    """Return the owner column of a tier: empty for the app, which no user can be called."""
    return user or ""


__all__ = ["user_facet"]

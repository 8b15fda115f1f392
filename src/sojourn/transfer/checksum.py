"""The checksum of a session: equal in two stores exactly when they keep the same session."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn import codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from sojourn.model import Encoded, Entry, Header, StoredDocument
    from sojourn.store import Snapshot

_MOVING = frozenset({"active_at", "expires_at", "due_at", "fence", "holder", "leased_until"})
"""Facts of a header that change without a commit: a store that serves readers moves them."""

_encode = msgspec.json.Encoder(order="deterministic").encode


class Sum:
    """A checksum in the making, part after part."""

    def __init__(self, header: Header, state: Encoded) -> None:
        """Begin with a session's header and own state."""
        facts = msgspec.structs.asdict(header)
        self._hash = sha256(_encode({name: facts[name] for name in facts.keys() - _MOVING}))
        where = f"session {header.id!r}"
        self._add({name: codec.decode(value, where) for name, value in state.items()})

    def add(self, snapshot: Snapshot) -> None:
        """Add the events and documents of a part."""
        for entry in snapshot.entries:
            self._add(_event(entry))
        for document in snapshot.documents:
            self._add(document_facts(document))

    def _add(self, facts: object) -> None:
        self._hash.update(b"\n")
        self._hash.update(_encode(facts))

    def text(self) -> str:
        """Return the checksum of what was added: 64 hex characters."""
        return self._hash.hexdigest()


def checksum(snapshot: Snapshot) -> str:
    """Return the checksum of a session that is in one piece: 64 hex characters.

    It is of values, not of their spelling. Activity, deadline and lease are no part of it, nor are
    the numbers of documents, only their order. Raises `Corrupt` for a value that is not JSON.
    """
    summed = Sum(snapshot.header, snapshot.state)
    summed.add(snapshot)
    return summed.text()


async def checksum_of(parts: AsyncIterable[Snapshot]) -> tuple[Header, str] | None:
    """Return the header and the checksum of a session that comes in parts, `None` for no part."""
    summed: Sum | None = None
    header: Header | None = None
    async for part in parts:
        if summed is None:
            header, summed = part.header, Sum(part.header, part.state)
        summed.add(part)
    return None if summed is None or header is None else (header, summed.text())


def _event(entry: Entry) -> tuple[Any, ...]:
    where = f"event {entry.seq}"
    body, changes, deleted = (
        None if text is None else [codec.decode(text, where)]
        for text in (entry.body, entry.changes, entry.deleted)
    )
    return (entry.seq, entry.id, entry.kind, entry.author, entry.at, body, changes, deleted)


def document_facts(document: StoredDocument) -> tuple[Any, ...]:
    """Return what makes a document the same in two stores; its body as a digest."""
    return (
        document.collection,
        document.key,
        document.content_type,
        document.seq,
        document.created_at,
        document.updated_at,
        document.expires_at,
        sha256(document.body or b"").hexdigest(),
    )

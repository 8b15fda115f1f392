"""Sizes: how many bytes a call carries, how many things came back and how large they are.

Only lengths are looked at. What is kept as text is nearly always ASCII, whose length is known; the
rest is encoded to be counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.store import Put

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.model import Draft, Encoded, Entry, Record, StoredDocument
    from sojourn.store import Change, Create, Snapshot, TierDelta, Tiers


def size_of_write(write: Change | Create) -> int:
    """Return the bytes of state, events and documents that a write carries."""
    size = sum(map(_event, write.events))
    for tier in (write.session, write.user_tier, write.app_tier):
        if tier is not None:
            size += _delta(tier)
    return size


def size_of_documents(change: Change) -> int:
    """Return the bytes of the documents that a change puts."""
    return sum(len(part.body) for part in change.documents if isinstance(part, Put))


def size_of_record(record: Record) -> int:
    """Return the bytes of a session as it was read: state of all tiers and its events."""
    tiers = (record.state, record.user_state, record.app_state)
    return sum(map(_encoded, tiers)) + size_of_entries(record.entries)


def size_of_snapshot(snapshot: Snapshot) -> int:
    """Return the bytes of a session, or a part of one, as it is moved: state, events, documents."""
    documents = sum(map(size_of_document, snapshot.documents))
    return _encoded(snapshot.state) + size_of_entries(snapshot.entries) + documents


def size_of_tiers(tiers: Tiers) -> int:
    """Return the bytes of shared state."""
    return _encoded(tiers.user_state) + _encoded(tiers.app_state)


def size_of_entries(entries: Iterable[Entry]) -> int:
    """Return the bytes of events as they were read."""
    return sum(map(_event, entries))


def size_of_document(document: StoredDocument) -> int:
    """Return the bytes of a document's body, 0 without one."""
    return len(document.body or b"")


def _event(event: Draft | Entry) -> int:
    return _text(event.body) + _text(event.changes) + _text(event.deleted)


def _text(text: str | None) -> int:
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _delta(tier: TierDelta) -> int:
    return _encoded(tier.set) + sum(map(_text, tier.drop))


def _encoded(state: Encoded) -> int:
    # A view is not a copy.
    return sum(_text(key) + memoryview(value).nbytes for key, value in state.items())

"""The rules of a restore, pure: what refuses a session from elsewhere, and what becomes of it here.

Stores that can run Python inside their transaction share these rules, so that they cannot differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from sojourn.commit import recall, remember
from sojourn.errors import AlreadyExists, Conflict, Corrupt, NotFound
from sojourn.lifecycle import OVER
from sojourn.limits import MAX_SEQ, OPERATIONS_REMEMBERED
from sojourn.model import Entry, StoredDocument

if TYPE_CHECKING:
    from sojourn.model import Encoded, Header
    from sojourn.store import Restore, Snapshot, Tier

Verdict = Literal["insert", "replace", "keep"]
"""What a restore does: a session that is new here, one that is older here, one that is the same."""

MAX_INTEGER = (1 << 63) - 1
"""The largest number that every backend can hold."""

_REMEMBERED = len(remember(b"", bytes(8), 0, 0))
"""Bytes in which a session remembers one operation."""


def verdict(found: Header | None, restore: Restore) -> Verdict:
    """Return what to do with a session, given what is here under its id.

    Raises `AlreadyExists` for another incarnation, or an older revision that is not to be replaced;
    `Conflict` when it moved on here; `Corrupt` for contents that no session can have.
    """
    snapshot = restore.snapshot
    check(snapshot)
    header = snapshot.header
    if found is None:
        return "insert"
    if found.epoch != header.epoch:
        raise AlreadyExists(header.id, "another session with this id exists; it was not changed")
    if found.revision > header.revision or _parted(found, header):
        theirs, ours = (header.epoch, header.revision), (found.epoch, found.revision)
        raise Conflict(header.id, theirs, ours)
    if found.revision == header.revision:
        return "keep"
    if not restore.replace:
        reason = f"it is here as of revision {found.revision}, an older one; it was not replaced"
        raise AlreadyExists(header.id, reason)
    return "replace"


def _parted(ours: Header, theirs: Header) -> bool:
    """Return whether our last commit is none of theirs, as far as they remember."""
    last = ours.remembered[-_REMEMBERED:]
    if not last or not theirs.remembered:
        return False
    if theirs.revision - ours.revision >= OPERATIONS_REMEMBERED:
        return False
    known = recall(theirs, last[:8])
    return known is None or known[0] != ours.revision


def check(snapshot: Snapshot) -> None:
    """Raise `Corrupt` for numbers that are out of place."""
    header = snapshot.header
    key = f"session {header.id!r}"
    for field in header.__struct_fields__:
        number = getattr(header, field)
        if isinstance(number, int) and abs(number) > MAX_INTEGER:
            raise Corrupt(key, f"its {field} {number} is too large")
    if not 0 <= header.seq <= MAX_SEQ:
        raise Corrupt(key, f"its last number {header.seq} is not one of a log")
    if any(name not in header.labels for name in header.exclusive):
        raise Corrupt(key, "it claims a label that it does not have")
    last = 0
    for entry in snapshot.entries:
        if not last < entry.seq <= header.seq:
            raise Corrupt(key, f"event {entry.seq} comes behind event {last} of {header.seq}")
        last = entry.seq
    if any(document.size != len(document.body or b"") for document in snapshot.documents):
        raise Corrupt(key, "a document's body is not of its size")


def check_part(op: str | None, expected: int, last: int, restore: Restore) -> bool:
    """Return whether this part is to be kept: `False` for one that is there already.

    `op`, `expected` and `last` are the restore in progress (its op in hex, `None` for none), the
    part that it waits for, and the last number of its log. Raises `NotFound` when the parts before
    it are not those of this restore, `Corrupt` when their logs overlap.
    """
    snapshot = restore.snapshot
    if op != restore.op.hex() or snapshot.part > expected:
        reason = f"part {snapshot.part} came without the ones before it; begin again with the first"
        raise NotFound(snapshot.header.id, reason)
    if snapshot.part < expected:
        return False
    if snapshot.entries and snapshot.entries[0].seq <= last:
        reason = f"part {snapshot.part} begins with event {snapshot.entries[0].seq} behind {last}"
        raise Corrupt(f"session {snapshot.header.id!r}", reason)
    return True


def unleased(header: Header, fence: int = 0) -> Header:
    """Return a header as it is put: nobody holds its lease, and `fence` is the least of its fence.

    It shares nothing that can be changed.
    """
    return msgspec.structs.replace(
        header,
        holder=None,
        leased_until=0,
        fence=max(header.fence, fence),
        labels=dict(header.labels),
    )


def caught_up(ours: Header, theirs: Header) -> Header:
    """Return our header with what moves without a revision: activity, deadline and fence.

    None of them goes back. Our lease is over when a newer one was granted elsewhere.
    """
    if theirs.fence > ours.fence:
        ours = msgspec.structs.replace(ours, fence=theirs.fence, holder=None, leased_until=0)
    if theirs.active_at <= ours.active_at:
        return ours
    return msgspec.structs.replace(
        ours, active_at=theirs.active_at, expires_at=theirs.expires_at, due_at=theirs.due_at
    )


def claims(header: Header) -> bool:
    """Return whether a session holds its exclusive claim: until it is over."""
    return bool(header.exclusive) and header.phase not in OVER


def weight(snapshot: Snapshot) -> int:
    """Return about how many bytes a session, or a part of one, is."""
    header = snapshot.header
    size = 512 + len(header.remembered) + tier_weight(snapshot.state)
    size += sum(map(item_weight, snapshot.entries))
    return size + sum(map(item_weight, snapshot.documents))


def tier_weight(state: Encoded) -> int:
    """Return about how many bytes a tier is."""
    return sum(len(name) + len(memoryview(value)) for name, value in state.items())


def item_weight(item: Entry | StoredDocument | Tier) -> int:
    """Return about how many bytes an event, a document or a tier is."""
    if isinstance(item, Entry):
        return 128 + len(item.body) + len(item.changes or "")
    if isinstance(item, StoredDocument):
        return 256 + len(item.body or b"")
    return tier_weight(item.state)

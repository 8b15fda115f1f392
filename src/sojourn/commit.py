"""The rules of one commit, pure: what refuses a change, and the header it leads to.

Stores that can run Python inside their transaction share these rules, so that they cannot differ.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

from sojourn import codec
from sojourn.errors import (
    AlreadyBound,
    AlreadyExists,
    Conflict,
    Ended,
    InvalidId,
    LeaseHeld,
    LeaseLost,
    LogFull,
    NotFound,
    TailMismatch,
    TooLarge,
    Unbound,
)
from sojourn.expiry import deadline, is_past
from sojourn.lifecycle import ENDING, FIRST, OVER, Phase, next_phase
from sojourn.limits import MAX_LABELS, MAX_SEQ, MAX_STATE, OPERATIONS_REMEMBERED
from sojourn.model import Entry, Header
from sojourn.state import tier_of
from sojourn.store import TierDelta
from sojourn.timestamps import LATEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sojourn.model import Draft, Encoded
    from sojourn.store import Acquire, Change, Move, Renew

_REMEMBERED = struct.Struct(">8sQI")
_REMEMBERED_BYTES = OPERATIONS_REMEMBERED * _REMEMBERED.size

_replace = msgspec.structs.replace


def recall(header: Header, op: bytes) -> tuple[int, int] | None:
    """Return (revision it led to, last seq before it) of operation `op`, `None` if unknown."""
    blob = header.remembered
    at = blob.find(op)
    if at < 0:  # as nearly always
        return None
    size = _REMEMBERED.size
    while at >= 0:
        if at % size == 0:
            _, revision, seq = _REMEMBERED.unpack_from(blob, at)
            return revision, seq
        at = blob.find(op, at + 1)
    return None


def remember(blob: bytes, op: bytes, revision: int, seq: int) -> bytes:
    """Return `blob` with one more operation, without the oldest beyond `OPERATIONS_REMEMBERED`."""
    return (blob + _REMEMBERED.pack(op, revision, seq))[-_REMEMBERED_BYTES:]


def forbid(header: Header | None, change: Change, tail: Callable[[int], tuple[int, ...]]) -> Header:
    """Return the header if `change` may be applied to it, else raise what refuses it.

    `tail(n)` returns the last `n` sequence numbers of the log; it is called only when a tail is
    expected. Nothing has been written when this raises.
    """
    if header is None or change.id is None:
        raise NotFound(change.id or "")
    if change.epoch is not None and change.epoch != header.epoch:
        raise _earlier(header, change)
    if header.expires_at is not None or change.expired == "require":
        _forbid_deadline(header, change)
    if header.phase is not Phase.OPEN or change.move is not None:
        _forbid_phase(header, change)
    if change.revision is not None and change.revision != header.revision:
        raise _conflict(header, change)
    if change.fence is not None and (change.fence != header.fence or header.holder is None):
        raise LeaseLost(header.id, change.fence)
    full = header.seq + len(change.events) > MAX_SEQ
    if full or change.user is not None or change.labels is not None or header.user is None:
        _forbid_contents(header, change)
    if change.expect_tail is not None:
        _forbid_tail(header, change, change.expect_tail, tail(len(change.expect_tail)))
    return header


def _forbid_tail(
    header: Header, change: Change, expected: tuple[int, ...], actual: tuple[int, ...]
) -> None:
    """Refuse a log that has another end than the one that is expected."""
    if actual != expected:
        expects, found = (change.epoch, change.revision), (header.epoch, header.revision)
        raise TailMismatch(header.id, expects, found, expected, actual)


def _conflict(header: Header, change: Change) -> Conflict:
    return Conflict(header.id, (change.epoch, change.revision), (header.epoch, header.revision))


EARLIER = "this handle is of an earlier session that was deleted"
"""Why a copy does not find the session that has its id now."""


def _earlier(header: Header, change: Change) -> Conflict | NotFound:
    """Return what refuses a handle of an earlier session with the same id."""
    if change.revision is not None:
        return _conflict(header, change)
    return NotFound(header.id, EARLIER)


def _forbid_deadline(header: Header, change: Change) -> None:
    """Refuse a session past its deadline, or one that is not when that is required."""
    past = is_past(header.expires_at, change.now)
    if past and change.expired == "refuse":
        raise Ended(header.id, header.phase, "past its deadline")
    if not past and change.expired == "require":
        raise _conflict(header, change)


def _forbid_phase(header: Header, change: Change) -> None:
    """Refuse writes to a session that is ending or over, and moves that the table does not have."""
    if change.move is not None:
        next_phase(header.lifecycle, header.phase, change.move.trigger)
        return
    if change.retry is not None and header.phase in ENDING:
        return
    if not header.live:
        reason = header.reason or "no reason given"
        raise Ended(header.id, header.phase, reason)


def _forbid_contents(header: Header, change: Change) -> None:
    """Refuse another user, shared keys without an owner, bad labels, a log without numbers left."""
    if change.user is not None and header.user not in (None, change.user):
        raise AlreadyBound(header.id)
    if change.user_tier is not None:
        check_owner(header.id, change.user or header.user, change.user_tier)
    if header.seq + len(change.events) > MAX_SEQ:
        raise LogFull("events in a log", header.seq + len(change.events), MAX_SEQ)
    if change.labels is not None:
        forbid_labels(header, change.labels)


def forbid_labels(header: Header, patch: dict[str, str | None]) -> None:
    """Refuse too many labels, and another value for one that is exclusive."""
    labels = patched(header.labels, patch)
    if len(labels) > MAX_LABELS:
        raise TooLarge("labels", len(labels), MAX_LABELS)
    for name in header.exclusive:
        if labels.get(name) != header.labels.get(name):
            raise InvalidId(f"label {name!r}", "an exclusive label stays as it was created")


def check_owner(id: str, user: str | None, tier: TierDelta | None) -> None:
    """Raise `Unbound` for keys of the user where there is no user: nobody would own them."""
    if tier is not None and user is None:
        name = next(iter(tier.set), None) or next(iter(tier.drop), "")
        raise Unbound(id, f"user:{name}")


def advance(header: Header, change: Change, appended: int) -> Header:
    """Return the header that `change`, with `appended` new events, leads to."""
    active_at = header.active_at
    if change.now > active_at:  # noqa: PLR1730 - max() costs a call for each commit
        active_at = change.now
    revision, seq = header.revision + 1, header.seq
    if change.deadlines is not None:
        limits = change.deadlines
        header = _replace(header, idle=limits.idle, absolute_at=limits.absolute_at)
    expires_at = header.absolute_at
    if header.idle is not None:
        expires_at = deadline(active_at, header.idle, expires_at)
    new = _replace(
        header,
        revision=revision,
        seq=seq + appended,
        active_at=active_at,
        expires_at=expires_at,
        due_at=expires_at,
        remembered=remember(header.remembered, change.op, revision, seq),
    )
    if change.user is None and change.labels is None and change.move is None and not change.retry:
        return new
    return _advance_rest(header, new, change)


def _advance_rest(old: Header, new: Header, change: Change) -> Header:
    """Apply the rarer parts of a change to the new header."""
    if change.user is not None:
        new = msgspec.structs.replace(new, user=change.user)
    if change.labels is not None:
        new = msgspec.structs.replace(new, labels=patched(old.labels, change.labels))
    if change.move is not None:
        new = _moved(old, new, change.move, change.now)
    if change.retry is not None:
        attempts = old.attempts + 1
        expires_at = old.expires_at
        due_at = change.retry.due_at
        new = msgspec.structs.replace(
            new, attempts=attempts, expires_at=expires_at, due_at=due_at, active_at=old.active_at
        )
    return new


def _moved(old: Header, new: Header, move: Move, now: int) -> Header:
    """Return `new` in its next phase; a session that began to end has no deadline any more."""
    phase = next_phase(old.lifecycle, old.phase, move.trigger)
    new = msgspec.structs.replace(new, phase=phase, reason=move.reason or old.reason)
    if phase in ENDING:
        # Past its deadline it stays missing to readers; before it, ending must not hide the data.
        expires_at = old.expires_at if is_past(old.expires_at, now) else None
        new = msgspec.structs.replace(
            new, idle=None, absolute_at=None, expires_at=expires_at, due_at=move.due_at
        )
        if old.phase in ENDING:
            if move.retain is None or expires_at is not None:
                return new
            return msgspec.structs.replace(new, retain=move.retain)
        # Whoever ran the session runs it no more: its lease is revoked.
        return msgspec.structs.replace(
            new,
            # What was missing to readers already does not come back as an ended record.
            retain=move.retain if expires_at is None else None,
            fence=old.fence + 1,
            holder=None,
            leased_until=0,
        )
    if phase in OVER:
        keep = min(now + (old.retain or 0), LATEST)
        return msgspec.structs.replace(
            new, idle=None, absolute_at=keep, expires_at=keep, due_at=keep
        )
    return new


def touched(header: Header | None, id: str, now: int, epoch: str | None) -> Header:
    """Return the header with its idle deadline extended. Never moves `active_at` back.

    Raises `NotFound` when there is no such session (or incarnation), `Ended` past its deadline or
    once it is over.
    """
    if header is None or (epoch is not None and epoch != header.epoch):
        raise NotFound(id)
    if is_past(header.expires_at, now):
        raise Ended(id, header.phase, "past its deadline")
    if header.phase in OVER:
        raise Ended(id, header.phase, header.reason or "no reason given")
    active_at = max(header.active_at, now)
    if header.phase in ENDING:
        return msgspec.structs.replace(header, active_at=active_at)
    expires_at = deadline(active_at, header.idle, header.absolute_at)
    return msgspec.structs.replace(
        header, active_at=active_at, expires_at=expires_at, due_at=expires_at
    )


def apart(header: Header) -> Header:
    """Return a header that shares nothing that can be changed."""
    return _replace(header, labels=header.labels.copy())


def patched(labels: dict[str, str], patch: dict[str, str | None]) -> dict[str, str]:
    """Return labels with a patch applied; `None` removes one."""
    merged = {**labels, **patch}
    return {name: value for name, value in merged.items() if value is not None}


def merged_state(
    text: bytes | str, delta: TierDelta | None, *, clear: bool, key: str, limit: int = MAX_STATE
) -> bytes:
    """Return a tier's JSON text with a delta applied. Raises `TooLarge` over `limit` bytes."""
    state: Encoded = {} if clear else codec.decode_object(text, key)
    if delta is not None:
        state.update(delta.set)
        for name in delta.drop:
            state.pop(name, None)
    merged = codec.encode_object(state)
    if len(merged) > limit:
        raise TooLarge("bytes of state in one tier", len(merged), limit)
    return merged


def is_repeat(draft: Draft, entry: Entry) -> bool:
    """Return whether `draft` is the event `entry` again: same id and equal content.

    A time that was not given by the caller is no part of the content.
    """
    if (draft.id, draft.kind, draft.author) != (entry.id, entry.kind, entry.author):
        return False
    if draft.stamped and draft.at != entry.at:
        return False
    return (
        _same_text(draft.body, entry.body)
        and _same_text(draft.changes, entry.changes)
        and _same_names(draft.deleted, entry.deleted)
    )


def sequence(
    drafts: Sequence[Draft], top: int, stored: Callable[[Draft], int | None]
) -> tuple[tuple[int, ...], int]:
    """Return the number of each event, an old one for a repeat, and how many are new.

    New ones count on from `top`. `stored` finds the number of an event in the log that a draft
    repeats; repeats among the drafts are found here.
    """
    if len(drafts) == 1 and drafts[0].fresh:
        return (top + 1,), 1
    seqs: list[int] = []
    new: dict[str, list[Entry]] = {}
    last = top
    for draft in drafts:
        seq = None
        if not draft.fresh:
            earlier = new.get(draft.id, ())
            seq = next((entry.seq for entry in earlier if is_repeat(draft, entry)), None)
            seq = stored(draft) if seq is None else seq
        if seq is None:
            last += 1
            seq = last
            if not draft.fresh:
                new.setdefault(draft.id, []).append(numbered(draft, seq))
        seqs.append(seq)
    return tuple(seqs), last - top


def _same_text(left: str | None, right: str | None) -> bool:
    """Return whether two JSON texts hold equal values, whatever the order of their keys."""
    if left == right or left is None or right is None:
        return left == right
    return codec.same(codec.decode(left, "event"), codec.decode(right, "event"))


def _same_names(left: str | None, right: str | None) -> bool:
    """Return whether two JSON lists hold the same names, in whatever order."""
    if left == right or left is None or right is None:
        return left == right
    return set(codec.decode_names(left, "event")) == set(codec.decode_names(right, "event"))


def without_repeats(change: Change, seqs: tuple[int, ...], top: int) -> Change:
    """Return a change without what its repeated events would do to the state a second time.

    `seqs` are its events' numbers, `top` the last number before it. The deltas of a change that
    has events are those of its events together.
    """
    new: list[Draft] = []
    repeated: list[Draft] = []
    for draft, seq in zip(change.events, seqs, strict=True):
        (new if seq > top else repeated).append(draft)
        top = max(top, seq)
    if not repeated:
        return change
    tiers = {"session": change.session, "user": change.user_tier, "app": change.app_tier}
    sets = {tier: dict(delta.set) if delta else {} for tier, delta in tiers.items()}
    drops = {tier: set(delta.drop) if delta else set() for tier, delta in tiers.items()}
    for draft in repeated:
        for tier, name in map(tier_of, _keys_of(draft)):
            sets[tier].pop(name, None)
            drops[tier].discard(name)
    for _, changed, removed in deltas_of(numbered(draft, 0) for draft in new):
        for key, value in changed.items():
            tier, name = tier_of(key)
            sets[tier][name] = value
            drops[tier].discard(name)
        for tier, name in map(tier_of, removed):
            sets[tier].pop(name, None)
            drops[tier].add(name)
    left = {
        tier: TierDelta(sets[tier], tuple(drops[tier])) if sets[tier] or drops[tier] else None
        for tier in tiers
    }
    return msgspec.structs.replace(
        change, session=left["session"], user_tier=left["user"], app_tier=left["app"]
    )


def _keys_of(draft: Draft) -> list[str]:
    """Return the state keys that an event's delta names."""
    deltas = deltas_of([numbered(draft, 0)])
    return [key for _, changed, removed in deltas for key in (*changed, *removed)]


def deltas_of(entries: Iterable[Entry]) -> Iterable[tuple[int, Encoded, Iterable[str]]]:
    """Yield (seq, keys set, keys removed) of entries that have a delta."""
    for entry in entries:
        if entry.changes is None and entry.deleted is None:
            continue
        where = f"event {entry.seq}"
        changed = codec.decode_object(entry.changes, where) if entry.changes else {}
        removed = codec.decode_names(entry.deleted, where) if entry.deleted else []
        yield entry.seq, changed, removed


def numbered(draft: Draft, seq: int) -> Entry:
    """Return a draft as the entry it becomes at `seq`."""
    return Entry(
        seq, draft.id, draft.kind, draft.author, draft.at, draft.body, draft.changes, draft.deleted
    )


def may_delete(header: Header, epoch: str | None, revision: int | None, fence: int | None) -> bool:
    """Return whether a delete's expectations hold for the session that is there."""
    return (
        epoch in (None, header.epoch)
        and revision in (None, header.revision)
        and (fence is None or (fence == header.fence and header.holder is not None))
    )


def claim_of(header: Header) -> tuple[tuple[str, str], ...] | None:
    """Return a session's exclusive claim as sorted (label, value) pairs, `None` without one."""
    if not header.exclusive:
        return None
    return tuple(sorted((name, header.labels[name]) for name in header.exclusive))


def leased(header: Header | None, acquire: Acquire) -> Header:
    """Return the header with a lease granted.

    Raises `NotFound`, or `LeaseHeld` while another holder's lease runs.
    """
    if header is None or acquire.epoch not in (None, header.epoch):
        raise NotFound(acquire.id)
    if header.holder == acquire.holder:
        return msgspec.structs.replace(header, leased_until=acquire.until)
    if header.holder is not None and header.leased_until > acquire.now:
        raise LeaseHeld(acquire.id, header.leased_until)
    return msgspec.structs.replace(
        header, fence=header.fence + 1, holder=acquire.holder, leased_until=acquire.until
    )


def renewed(header: Header | None, renew: Renew) -> Header:
    """Return the header with a lease renewed or released.

    Raises `NotFound`, or `LeaseLost` when the lease is no longer the newest or was released.
    """
    if header is None:
        raise NotFound(renew.id)
    if (header.fence, header.holder) != (renew.token, renew.holder):
        raise LeaseLost(renew.id, renew.token)
    if renew.until is None:
        return msgspec.structs.replace(header, holder=None, leased_until=0)
    return msgspec.structs.replace(header, leased_until=renew.until)


def exists(header: Header, now: int) -> AlreadyExists:
    """Return the refusal of a create over a session that is there."""
    if is_past(header.expires_at, now):
        reason = "a session with this id expired and its end is not finished yet"
        return AlreadyExists(header.id, reason, expired=True)
    return AlreadyExists(header.id)


def created(header: Header, op: bytes, events: int) -> Header:
    """Return the first header of a session that is created with `events` events."""
    remembered = remember(b"", op, header.revision, 0)
    return msgspec.structs.replace(header, seq=events, remembered=remembered)


def forked(header: Header, source: Header, op: bytes, at: int) -> Header:
    """Return the first header of a fork of `source` at event `at`.

    User and labels come along; exclusive claims and the parent do not.
    """
    seq = min(at, source.seq)
    return msgspec.structs.replace(
        header,
        user=source.user,
        labels=dict(source.labels),
        lifecycle=source.lifecycle,
        phase=FIRST[source.lifecycle],
        forked_from=source.id,
        seq=seq,
        remembered=remember(b"", op, header.revision, 0),
    )


def check_parent(parent: Header | None, child: Header) -> None:
    """Raise `NotFound` for a missing parent, `Ended` for one that is expired or not live."""
    if parent is None:
        raise NotFound(child.parent or "", "no such parent session")
    if is_past(parent.expires_at, child.created_at):
        raise Ended(parent.id, parent.phase, "the parent is past its deadline")
    if not parent.live:
        raise Ended(parent.id, parent.phase, "the parent takes no new children")


def shared_header(change: Change) -> Header:
    """Return the stand-in header of a commit that belongs to no session."""
    return Header(
        app=change.app, id="", epoch="", revision=0, created_at=change.now, active_at=change.now
    )

"""What sessions do, in plain dicts and lists: written from the design, not from the code.

One `App` holds everything of one app. Instants are whole microseconds and come in with each call.
A call that is refused raises `Refused` with the name of the error that a caller gets.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from sojourn import DELETE

SECOND = 1_000_000
CLAIM = 120 * SECOND
"""How long whoever begins an end is left alone with it."""

MOVES = {
    ("open", "OPEN", "END"): "ENDING",
    ("open", "ENDING", "END"): "ENDING",
    ("agent", "CREATED", "SPAWN"): "SPAWNING",
    ("agent", "CREATED", "TERMINATE"): "TERMINATING",
    ("agent", "SPAWNING", "ACTIVATE"): "ACTIVE",
    ("agent", "SPAWNING", "TERMINATE"): "TERMINATING",
    ("agent", "ACTIVE", "TERMINATE"): "TERMINATING",
    ("agent", "TERMINATING", "TERMINATE"): "TERMINATING",
}
"""The moves that `apply` can make."""

FIRST = {"open": "OPEN", "agent": "CREATED"}
LAST = {"open": "ENDED", "agent": "CLEANED"}
TO_END = {"open": "END", "agent": "TERMINATE"}
COMPLETING = ("FINISH", "CLEAN")
ENDING = ("ENDING", "TERMINATING")
OVER = ("ENDED", "CLEANED")

Json = dict[str, Any]


class Refused(Exception):
    """The call is refused with an error of this name, and nothing was changed."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def _whole(drafts: list[Draft], state: Json) -> list[Draft]:
    """Return the events that are stored, the last one with `state`."""
    whole = [draft for draft in drafts if not draft.partial]
    if state and not whole:
        raise Refused("InvalidQuery")
    if state:
        whole[-1].delta |= state
    return whole


def text(value: Any) -> str:
    """Return what tells JSON values apart: `1`, `1.0`, `True` and `-0.0` all differ."""
    return json.dumps(value, sort_keys=True)


def delta_text(delta: Json) -> str:
    """Return what tells deltas apart, `DELETE` included."""
    return text({key: [] if value is DELETE else [value] for key, value in delta.items()})


def tier_of(key: str) -> str:
    """Return whose a key is: app, user, temp or session."""
    head, colon, _ = key.partition(":")
    return head if colon and head in ("app", "user", "temp") else "session"


def name_of(key: str) -> str:
    """Return a key without its tier."""
    return key if tier_of(key) == "session" else key.partition(":")[2]


def stored_part(delta: Json) -> Json:
    """Return a delta without what lives on one copy only."""
    return {key: deepcopy(value) for key, value in delta.items() if tier_of(key) != "temp"}


def change(target: Json, key: str, value: Any) -> None:
    """Set or remove one key."""
    if value is DELETE:
        target.pop(key, None)
    else:
        target[key] = deepcopy(value)


@dataclass
class Entry:
    """An event in a log. An id of `None` is a generated one that has not been looked at yet."""

    seq: int
    id: str | None
    kind: str
    author: str | None
    at: int
    body: Any
    delta: Json


@dataclass
class Draft:
    """An event as a caller gives it."""

    id: str | None
    kind: str
    author: str | None
    at: int | None
    body: Any
    delta: Json
    partial: bool = False

    def is_again(self, entry: Entry) -> bool:
        """Return whether the log has this event already."""
        return (
            self.id is not None
            and (self.id, self.kind, self.author) == (entry.id, entry.kind, entry.author)
            and self.at in (None, entry.at)
            and text(self.body) == text(entry.body)
            and delta_text(stored_part(self.delta)) == delta_text(entry.delta)
        )


@dataclass
class Paper:
    """A document."""

    body: bytes
    seq: int
    created: int
    updated: int
    expires: int | None


Papers = dict[tuple[str, str], Paper]


@dataclass(eq=False)
class Row:
    """A session in the store. Its identity is that of the incarnation."""

    number: int
    id: str
    user: str | None
    lifecycle: str
    phase: str
    created: int
    active: int
    idle: int | None
    absolute: int | None
    labels: dict[str, str]
    exclusive: tuple[str, ...] = ()
    parent: str | None = None
    forked_from: str | None = None
    reason: str | None = None
    revision: int = 1
    top: int = 0
    expires: int | None = None
    due: int | None = None
    retain: int | None = None
    attempts: int = 0
    fence: int = 0
    holder: int | None = None
    leased_until: int = 0
    state: Json = field(default_factory=dict)
    log: list[Entry] = field(default_factory=list)
    papers: Papers = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reckon()

    @property
    def live(self) -> bool:
        """Whether it takes writes, its deadline aside."""
        return self.phase not in ENDING and self.phase not in OVER

    def past(self, now: int) -> bool:
        """Whether its deadline has been reached."""
        return self.expires is not None and now >= self.expires

    def reckon(self) -> None:
        """Work out when it expires."""
        ends = [] if self.absolute is None else [self.absolute]
        if self.idle is not None:
            ends.append(self.active + self.idle)
        self.expires = self.due = min(ends, default=None)

    def commit(self, now: int) -> None:
        """Count one commit, which is also a use."""
        self.revision += 1
        self.active = max(self.active, now)
        self.reckon()

    def claim(self) -> frozenset[tuple[str, str]] | None:
        """Return what it claims for itself alone."""
        return frozenset((n, self.labels[n]) for n in self.exclusive) if self.exclusive else None

    def add(self, drafts: list[Draft], now: int) -> tuple[list[Entry], Json]:
        """Append events; return each as it is in the log, an old one for a repeat.

        Also return what the new ones do to the state: a repeat does nothing again.
        """
        found: list[Entry] = []
        delta: Json = {}
        for draft in drafts:
            entry = next((old for old in self.log if draft.is_again(old)), None)
            if entry is None:
                self.top += 1
                at = now if draft.at is None else draft.at
                kept = stored_part(draft.delta)
                body = deepcopy(draft.body)
                entry = Entry(self.top, draft.id, draft.kind, draft.author, at, body, kept)
                self.log.append(entry)
                delta |= kept
            found.append(entry)
        return found, delta

    def window(
        self,
        *,
        last: int | None = None,
        first: int | None = None,
        after: int | None = None,
        before: int | None = None,
        since: int | None = None,
        kinds: tuple[str, ...] | None = None,
    ) -> list[Entry]:
        """Return part of the log: the bounds first, then the last or first so many."""
        found = [
            entry
            for entry in self.log
            if (after is None or entry.seq > after)
            and (before is None or entry.seq < before)
            and (since is None or entry.at >= since)
            and (kinds is None or entry.kind in kinds)
        ]
        if first is not None:
            return found[:first]
        return found if last is None else found[len(found) - min(last, len(found)) :]


@dataclass
class Grant:
    """A lease as its holder knows it."""

    row: Row
    token: int
    holder: int
    span: int


@dataclass
class Copy:
    """A session in a caller's hands: what was loaded, and what the caller did since."""

    app: App
    id: str
    row: Row | None
    base: Json
    view: Json
    stored: bool = True
    revision: int = 0
    user: str | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    writes: int = 0
    cleared_at: int = 0
    events: list[Entry] = field(default_factory=list)
    draft: Row | None = None
    """What a session that is not stored yet will be."""

    # --- what a caller does ------------------------------------------------------------------

    def set(self, key: str, value: Any) -> None:
        """Set a key."""
        if tier_of(key) == "user" and self.user is None:
            raise Refused("Unbound")
        self.view[key] = deepcopy(value)
        self.dropped.discard(key)
        if tier_of(key) != "temp":
            self.writes += 1
            self.written[key] = self.writes

    def remove(self, key: str) -> None:
        """Remove a key that is there."""
        del self.view[key]
        self.written.pop(key, None)
        if key in self.base:
            self.writes += 1
            self.dropped.add(key)

    def clear(self) -> None:
        """Remove the session's own keys."""
        for key in [key for key in self.view if tier_of(key) == "session"]:
            self.remove(key)
        self.writes += 1
        self.cleared_at = self.writes

    # --- what it adds up to ------------------------------------------------------------------

    @property
    def cleared(self) -> bool:
        """Whether saving means deleting."""
        return self.cleared_at > 0 and all(at < self.cleared_at for at in self.written.values())

    def delta(self) -> Json:
        """Return what a save sends."""
        changed = {
            key: deepcopy(value)
            for key, value in self.view.items()
            if tier_of(key) != "temp"
            and (key in self.written or text(value) != text(self.base[key]))
        }
        return changed | dict.fromkeys(self.dropped, DELETE)

    @property
    def modified(self) -> bool:
        """Whether a save would write."""
        return self.cleared_at > 0 or bool(self.delta())

    # --- what comes back ---------------------------------------------------------------------

    def expired(self, now: int) -> bool:
        """Return whether it is past its deadline, as far as this copy knows."""
        expires = self.seen["expires"]
        return expires is not None and now >= expires

    def take(self, row: Row) -> None:
        """Note what a commit through this copy led to."""
        if row.revision == self.revision + 1 or not self.stored:
            self.revision = row.revision
        self.row, self.stored, self.draft = row, True, None
        self.look(row)

    def look(self, row: Row) -> None:
        """Note what the store says of everything but state."""
        self.user = row.user
        self.seen = {
            "phase": row.phase,
            "reason": row.reason,
            "labels": dict(row.labels),
            "created": row.created,
            "active": row.active,
            "idle": row.idle,
            "expires": row.expires,
            "parent": row.parent,
            "forked_from": row.forked_from,
            "live": row.live,
        }

    def saved(self, delta: Json) -> None:
        """Note that a delta is stored."""
        for key, value in delta.items():
            change(self.base, key, value)
        self.written.clear()
        self.dropped.clear()
        self.cleared_at = 0

    def applied(self, delta: Json) -> None:
        """Note that a delta came into the store with an event; the copy shows it."""
        for key, value in delta.items():
            change(self.view, key, value)
            if tier_of(key) == "temp":
                continue
            self.written.pop(key, None)
            self.dropped.discard(key)
            change(self.base, key, value)
            if self.cleared_at and value is not DELETE and tier_of(key) == "session":
                # The clear is still to be saved, and this key came after it.
                self.writes += 1
                self.written[key] = self.writes

    def show(self, keys: Json) -> None:
        """Show keys that became visible; what the caller set or changed stays."""
        changed = self.delta()
        for key, value in keys.items():
            self.base[key] = deepcopy(value)
            if key not in changed:
                self.view[key] = deepcopy(value)

    def take_events(self, added: list[Entry]) -> None:
        """Add what was appended behind what the copy has."""
        for entry in added:
            if not self.events or entry.seq > self.events[-1].seq:
                self.events.append(entry)


@dataclass
class App:
    """Everything of one app. `hooked` are the ids whose end hooks ran, `failing` whose fail."""

    rows: dict[str, Row] = field(default_factory=dict)
    users: dict[str, Json] = field(default_factory=dict)
    shared: Json = field(default_factory=dict)
    papers: Papers = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    hooked: list[str] = field(default_factory=list)
    made: int = 0
    holders: int = 0
    ever: set[str] = field(default_factory=set)

    # --- looking -----------------------------------------------------------------------------

    def visible(self, id: str, now: int) -> Row | None:
        """Return a session that is there for callers."""
        row = self.rows.get(id)
        return None if row is None or row.past(now) else row

    def merged(self, row: Row) -> Json:
        """Return the state of a session with all tiers."""
        user = self.users.get(row.user, {}) if row.user is not None else {}
        return deepcopy(
            row.state
            | {f"user:{name}": value for name, value in user.items()}
            | {f"app:{name}": value for name, value in self.shared.items()}
        )

    def copy(self, row: Row) -> Copy:
        """Return a fresh working copy."""
        copy = Copy(self, row.id, row, self.merged(row), self.merged(row))
        copy.revision = row.revision
        copy.look(row)
        return copy

    def children(self, row: Row) -> list[Row]:
        """Return the children of a session."""
        return [child for child in self.rows.values() if child.parent == row.id]

    def matching(
        self,
        now: int,
        *,
        user: str | None = None,
        anonymous: bool = False,
        phases: tuple[str, ...] | None = None,
        labels: dict[str, str] | None = None,
        parent: str | None = None,
        order: str = "created",
    ) -> list[Row]:
        """Return the sessions that match every filter, in order."""
        found = [
            row
            for row in self.rows.values()
            if not row.past(now)
            and (user is None or row.user == user)
            and (not anonymous or row.user is None)
            and (phases is None or row.phase in phases)
            and (parent is None or row.parent == parent)
            and (labels or {}).items() <= row.labels.items()
        ]
        active = order.endswith("active")
        found.sort(key=lambda row: (row.active if active else 0, row.number))
        return found[::-1] if order.startswith("-") else found

    # --- making ------------------------------------------------------------------------------

    def make(
        self, row: Row, state: Json, drafts: list[Draft], now: int, *, hooks: bool
    ) -> list[Entry]:
        """Store a new session whose header is `row`. What an expired one holds is freed first."""
        whole = [draft for draft in drafts if not draft.partial]
        delta = stored_part(state)
        for draft in whole:
            delta |= stored_part(draft.delta)
        self._refuse_unbound(row.user, delta)
        if row.absolute is not None and now >= row.absolute:
            raise Refused("Ended")
        freed: set[str] = set()
        while (taken := self._in_the_way(row)) is not None:
            other, kind = taken
            if other.id in freed or not other.past(now):
                raise Refused(kind)
            freed.add(other.id)
            self._free(other, now, kind, hooks=hooks)
        if row.parent is not None:
            parent = self.rows.get(row.parent)
            if parent is None:
                raise Refused("NotFound")
            if parent.past(row.created) or not parent.live:
                raise Refused("Ended")
        row.active = max(row.active, now)
        row.reckon()
        self.made += 1
        row.number = self.made
        self.rows[row.id] = row
        self.ever.add(row.id)
        added, done = row.add(whole, now)
        self._apply(row, stored_part(state) | done)
        return added

    def _free(self, other: Row, now: int, kind: str, *, hooks: bool) -> None:
        """End an expired session that is in the way."""
        try:
            self.end_due(other, other.phase, other.revision, now, hooks=hooks)
        except Refused:
            raise Refused(kind) from None

    def _in_the_way(self, row: Row) -> tuple[Row, str] | None:
        """Return what has the id or the claim of a new session, and the error it means."""
        if row.id in self.rows:
            return self.rows[row.id], "AlreadyExists"
        claim = row.claim()
        for other in self.rows.values():
            if claim is not None and other.claim() == claim and other.phase not in OVER:
                return other, "RoleTaken"
        return None

    def fork(self, id: str, row: Row, at: int | None, *, hooks: bool) -> None:
        """Store a copy of a session as of event `at` under the id of `row`."""
        other = self.rows.get(row.id)
        if other is not None:
            if row.id == id or not other.past(row.created):
                raise Refused("AlreadyExists")
            self._free(other, row.created, "AlreadyExists", hooks=hooks)
        source = self.visible(id, row.created)
        if source is None:
            raise Refused("NotFound")
        at = source.top if at is None else at
        row.user, row.labels, row.lifecycle = source.user, dict(source.labels), source.lifecycle
        row.phase, row.forked_from = FIRST[row.lifecycle], source.id
        row.top = min(at, source.top)
        row.log = [deepcopy(entry) for entry in source.log if entry.seq <= at]
        row.papers = {key: deepcopy(p) for key, p in source.papers.items() if p.seq <= at}
        row.state = self._as_of(source, at)
        self.made += 1
        row.number = self.made
        self.rows[row.id] = row
        self.ever.add(row.id)

    def _as_of(self, source: Row, at: int) -> Json:
        """Return a session's own state with each key that was changed behind `at` set back."""
        state = deepcopy(source.state)
        later = {key for entry in source.log if entry.seq > at for key in entry.delta}
        for key in later:
            if tier_of(key) != "session":
                continue
            earlier = [e.delta[key] for e in source.log if e.seq <= at and key in e.delta]
            change(state, key, earlier[-1] if earlier else DELETE)
        return state

    # --- committing --------------------------------------------------------------------------

    def gate(
        self,
        id: str,
        now: int,
        *,
        copy: Copy | None = None,
        strict: bool = False,
        lease: Grant | None = None,
        trigger: str | None = None,
    ) -> Row:
        """Return the session if a commit may be applied to it."""
        row = self.rows.get(id)
        if copy is not None and not copy.stored:
            raise Refused("NotFound")
        if lease is not None and copy is not None and lease.row is not copy.row:
            raise Refused("LeaseLost")
        known = copy.row if copy is not None else lease.row if lease is not None else row
        if row is not None and row is not known and strict:
            raise Refused("Conflict")
        if row is None or row is not known:
            over = copy is not None and copy.expired(now)
            raise Refused("Ended" if over else "NotFound")
        _forbid_phase(row, now, trigger)
        if strict and copy is not None and copy.revision != row.revision:
            raise Refused("Conflict")
        if lease is not None and not _holds(row, lease):
            raise Refused("LeaseLost")
        return row

    def _refuse_unbound(self, user: str | None, delta: Json) -> None:
        if user is None and any(tier_of(key) == "user" for key in delta):
            raise Refused("Unbound")

    def _apply(self, row: Row | None, delta: Json, user: str | None = None) -> None:
        """Apply a delta to the tiers that its keys belong to."""
        user = row.user if row is not None else user
        for key, value in delta.items():
            tier = tier_of(key)
            if tier == "app":
                change(self.shared, name_of(key), value)
            elif tier == "user":
                assert user is not None
                change(self.users.setdefault(user, {}), name_of(key), value)
            else:
                assert row is not None
                change(row.state, key, value)

    def share(self, delta: Json, user: str | None) -> None:
        """Change shared state without a session."""
        self._apply(None, delta, user)

    def save(self, copy: Copy, now: int, *, strict: bool, lease: Grant | None, hooks: bool) -> None:
        """Save a copy."""
        if not copy.modified:
            return
        delta = copy.delta()
        if not copy.stored and copy.cleared:
            self._refuse_unbound(copy.user, delta)
            self._apply(None, delta, copy.user)
            copy.saved(delta)
            return
        if not copy.stored:
            assert copy.draft is not None
            self.make(copy.draft, delta, [], now, hooks=hooks)
            copy.take(copy.draft)
            copy.saved(delta)
            self.show_shared(copy)
            return
        if copy.cleared:
            self._delete_cleared(copy, delta, now, strict=strict, lease=lease)
            return
        row = self.gate(copy.id, now, copy=copy, strict=strict, lease=lease)
        self._refuse_unbound(row.user, delta)
        row.commit(now)
        if copy.cleared_at:
            row.state.clear()
        self._apply(row, delta)
        copy.take(row)
        copy.saved(delta)

    def _delete_cleared(
        self, copy: Copy, delta: Json, now: int, *, strict: bool, lease: Grant | None
    ) -> None:
        shared = {key: v for key, v in delta.items() if tier_of(key) in ("app", "user")}
        if shared:
            row = self.gate(copy.id, now, copy=copy, strict=strict, lease=lease)
            self._refuse_unbound(row.user, shared)
            row.commit(now)
            self._apply(row, shared)
            copy.take(row)
        if lease is not None and lease.row is not copy.row:
            raise Refused("LeaseLost")
        if copy.id in self.rows:
            self.remove(self.gate(copy.id, now, copy=copy, strict=strict, lease=lease))
        copy.saved(delta)

    def show_shared(self, copy: Copy) -> None:
        """Show the shared tiers on a copy that has not seen them."""
        assert copy.row is not None
        copy.show({k: v for k, v in self.merged(copy.row).items() if tier_of(k) in ("app", "user")})

    def append(
        self,
        target: Copy | str,
        drafts: list[Draft],
        now: int,
        *,
        strict: bool = False,
        lease: Grant | None = None,
        expected: list[int] | None = None,
        state: Json | None = None,
    ) -> list[Entry]:
        """Append events with their deltas; with `expected`, in place of those at the end.

        `state` belongs to the last one that is stored.
        """
        whole = _whole(drafts, state or {})
        if not whole and expected is None:
            return []
        copy = target if isinstance(target, Copy) else None
        delta: Json = {}
        for draft in whole:
            delta |= stored_part(draft.delta)
        if copy is not None:
            self._refuse_unbound(copy.user, delta)
        id = target if isinstance(target, str) else target.id
        row = self.gate(id, now, copy=copy, strict=strict, lease=lease)
        self._refuse_unbound(row.user, delta)
        if expected is not None:
            tail = [entry.seq for entry in row.log][-len(expected) :]
            if tail != expected:
                raise Refused("TailMismatch")
            row.log = [entry for entry in row.log if entry.seq < expected[0]]
        row.commit(now)
        added, delta = row.add(whole, now)
        self._apply(row, delta)
        if copy is not None:
            copy.take(row)
            temporary: Json = {}
            for draft in whole:
                temporary |= {k: v for k, v in draft.delta.items() if tier_of(k) == "temp"}
            copy.applied(delta | temporary)
            if expected is not None:
                copy.events = [entry for entry in copy.events if entry.seq < expected[0]]
            copy.take_events(added)
        return added

    def truncate(
        self, copy: Copy, after: int, now: int, *, strict: bool, lease: Grant | None
    ) -> None:
        """Remove the events behind `after`."""
        row = self.gate(copy.id, now, copy=copy, strict=strict, lease=lease)
        row.commit(now)
        row.log = [entry for entry in row.log if entry.seq <= after]
        copy.take(row)
        copy.events = [entry for entry in copy.events if entry.seq <= after]

    def bind(self, copy: Copy, user: str, now: int) -> None:
        """Bind a session to a user."""
        if copy.user not in (None, user):
            raise Refused("AlreadyBound")
        if not copy.stored:
            assert copy.draft is not None
            copy.user = copy.draft.user = user
            return
        row = self.gate(copy.id, now, copy=copy)
        if row.user not in (None, user):
            raise Refused("AlreadyBound")
        row.commit(now)
        row.user = user
        copy.take(row)
        copy.show({f"user:{name}": value for name, value in self.users.get(user, {}).items()})

    def label(self, copy: Copy, patch: dict[str, str | None], now: int, *, strict: bool) -> None:
        """Patch labels."""
        row = self.gate(copy.id, now, copy=copy, strict=strict)
        labels = {**row.labels, **patch}
        kept = {name: value for name, value in labels.items() if value is not None}
        if any(kept.get(name) != row.labels[name] for name in row.exclusive):
            raise Refused("InvalidId")
        row.commit(now)
        row.labels = kept
        copy.take(row)

    def put(
        self, id: str | None, key: tuple[str, str], body: bytes, ttl: int | None, now: int
    ) -> None:
        """Store a document."""
        row = None if id is None else self.gate(id, now)
        papers = self.papers if row is None else row.papers
        old = papers.get(key)
        gone = old is None or (old.expires is not None and now >= old.expires)
        papers[key] = Paper(
            body,
            0 if row is None else row.top,
            now if old is None or gone else old.created,
            now,
            None if ttl is None else now + ttl,
        )
        if row is not None:
            row.commit(now)

    def drop(self, id: str | None, collection: str, key: str | None, now: int) -> None:
        """Remove a document or a collection."""
        row = None if id is None else self.gate(id, now)
        papers = self.papers if row is None else row.papers
        for where in list(papers):
            if where[0] == collection and key in (None, where[1]):
                del papers[where]
        if row is not None:
            row.commit(now)

    # --- use ---------------------------------------------------------------------------------

    def touch(self, id: str, now: int, epoch: Row | None = None) -> Row:
        """Note that a session is in use."""
        row = self.rows.get(id)
        if row is None or (epoch is not None and row is not epoch):
            raise Refused("NotFound")
        if row.past(now) or row.phase in OVER:
            raise Refused("Ended")
        row.active = max(row.active, now)
        if row.live:
            row.reckon()
        return row

    def touch_copy(self, copy: Copy, now: int) -> None:
        """Note use of a copy's session, if a tenth of its idle time has passed, or all its time."""
        if not copy.stored:
            raise Refused("NotFound")
        idle, active = copy.seen["idle"], copy.seen["active"]
        if copy.expired(now) or (idle is not None and 10 * (now - active) >= idle):
            copy.look(self.touch(copy.id, now, copy.row))

    def grant(self, id: str, span: int, now: int) -> Grant:
        """Lease a session."""
        row = self.visible(id, now)
        if row is None:
            raise Refused("NotFound")
        if not row.live:
            raise Refused("Ended")
        if row.holder is not None and row.leased_until > now:
            raise Refused("LeaseHeld")
        self.holders += 1
        row.fence += 1
        row.holder, row.leased_until = self.holders, now + span
        return Grant(row, row.fence, self.holders, span)

    def renew(self, id: str, lease: Grant, now: int) -> None:
        """Start a lease's span over."""
        if id not in self.rows:
            raise Refused("NotFound")
        if not _holds(self.rows[id], lease):
            raise Refused("LeaseLost")
        lease.row.leased_until = now + lease.span

    def release(self, lease: Grant) -> None:
        """Let go of a lease, if it is still held."""
        if lease.row.holder == lease.holder:
            lease.row.holder, lease.row.leased_until = None, 0

    # --- ending ------------------------------------------------------------------------------

    def apply(self, id: str, trigger: str, reason: str | None, now: int) -> str:
        """Move a phase."""
        if trigger in COMPLETING:
            raise Refused("NotFound" if self.visible(id, now) is None else "InvalidTransition")
        row = self.gate(id, now, trigger=trigger)
        self._move(row, trigger, reason, now, None)
        return row.phase

    def _move(
        self, row: Row, trigger: str, reason: str | None, now: int, retain: int | None
    ) -> None:
        """Commit a move."""
        expired = row.expires if row.past(now) else None
        was_live = row.live
        row.phase = MOVES[row.lifecycle, row.phase, trigger]
        row.reason = reason or row.reason
        if row.phase in ENDING:
            row.idle = row.absolute = None
        row.commit(now)
        if row.phase in ENDING:
            row.expires, row.due = expired, now + CLAIM
            if expired is not None:
                row.retain = None  # what was missing already does not come back as an ended record
            elif was_live or retain is not None:
                row.retain = retain
            if was_live:
                row.fence += 1
                row.holder, row.leased_until = None, 0

    def end(self, id: str, reason: str, retain: int | None, now: int, *, hooks: bool) -> bool:
        """End a session, children first."""
        row = self.rows.get(id)
        if row is None or row.phase in OVER:
            return False
        self._move(row, TO_END[row.lifecycle], reason, now, retain)
        return self.finish(id, now, hooks=hooks)

    def finish(self, id: str, now: int, *, hooks: bool) -> bool:
        """Run the hooks of an ending session and complete its end."""
        row = self.rows.get(id)
        if row is None or row.phase in OVER:
            return False
        if row.phase not in ENDING:
            raise Refused("InvalidTransition")
        row.fence += 1
        failed = self._end_children(row, now, hooks=hooks)
        if hooks and not failed:
            self.hooked.append(id)
            failed = id in self.failing
        if failed:
            row.revision += 1
            row.due = now + min(2**row.attempts, 300) * SECOND
            row.attempts += 1
            raise Refused("EndFailed")
        if row.retain is None:
            self.remove(row)
            return True
        row.phase = LAST[row.lifecycle]
        row.absolute = now + row.retain
        row.commit(now)
        return True

    def _end_children(self, row: Row, now: int, *, hooks: bool) -> bool:
        """End the children; return whether any failed."""
        failed = False
        for child in self.children(row):
            if child.phase not in OVER:
                try:
                    self.end(child.id, "its parent ends", None, now, hooks=hooks)
                except Refused:
                    failed = True
        return failed

    def end_due(self, row: Row, phase: str, revision: int, now: int, *, hooks: bool) -> bool:
        """End a session that was found due with this phase and revision."""
        there = self.rows.get(row.id) is row
        if phase in OVER:
            if not there or row.revision != revision:
                return False
            self.remove(row)
            return True
        if phase not in ENDING and there:
            if row.revision != revision or not row.past(now):
                return False
            self._move(row, TO_END[row.lifecycle], "expired", now, None)
        return self.finish(row.id, now, hooks=hooks)

    def _due(self, now: int) -> list[Row]:
        due = [row for row in self.rows.values() if row.due is not None and row.due <= now]
        return sorted(due, key=lambda row: (row.due, row.number))

    def sweep(self, now: int, batch: int, *, hooks: bool) -> int:
        """Sweep: all at once where no hooks run, else one by one, each once."""
        ended = 0
        if not hooks:
            while found := self._due(now)[:batch]:
                ended += len(found)
                for row in found:
                    self.remove(row)
            return ended
        tried: list[Row] = []
        while True:
            found = [row for row in self._due(now) if row not in tried][:batch]
            if not found:
                return ended
            tried += found
            for row, phase, revision in [(row, row.phase, row.revision) for row in found]:
                try:
                    ended += self.end_due(row, phase, revision, now, hooks=hooks)
                except Refused:
                    continue

    # --- removing ----------------------------------------------------------------------------

    def remove(self, row: Row) -> None:
        """Remove a session and its children."""
        if self.rows.get(row.id) is row:
            del self.rows[row.id]
            for child in self.children(row):
                self.remove(child)

    def delete(self, id: str) -> bool:
        """Remove a session whatever its phase."""
        if id not in self.rows:
            return False
        self.remove(self.rows[id])
        return True

    def forget(self, user: str) -> int:
        """Remove everything of a user."""
        rows = [row for row in self.rows.values() if row.user == user]
        for row in rows:
            self.remove(row)
        self.users.pop(user, None)
        return len(rows)


def _holds(row: Row, lease: Grant) -> bool:
    return lease.row is row and row.fence == lease.token and row.holder is not None


def _forbid_phase(row: Row, now: int, trigger: str | None) -> None:
    if row.past(now):
        raise Refused("Ended")
    if trigger is not None:
        if (row.lifecycle, row.phase, trigger) not in MOVES:
            raise Refused("InvalidTransition")
    elif not row.live:
        raise Refused("Ended")

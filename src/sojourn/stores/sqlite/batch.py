"""One transaction's worth of operations: each is decided on its own, then all rows are written.

Headers are read once and kept; the rows that a commit changes are gathered and written together at
the end (`flush`), so a session that is written a hundred times in a batch is updated once. What
refuses an operation is found before anything is gathered for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sojourn import codec, commit
from sojourn.errors import NotFound, RoleTaken, SojournError, TooLarge
from sojourn.expiry import is_past
from sojourn.lifecycle import OVER
from sojourn.limits import MAX_SEQ, MAX_STATE
from sojourn.model import Entry, Header
from sojourn.state import rewind
from sojourn.store import (
    Acquire,
    Change,
    Committed,
    Create,
    Delete,
    Fork,
    Put,
    Renew,
    Touch,
)
from sojourn.stores.sqlite import rows
from sojourn.stores.sqlite.operations import FindDue, Forget, Operation, Outcome, Reap
from sojourn.stores.sqlite.removal import Removal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import apsw

    from sojourn.model import Draft
    from sojourn.store import TierDelta

TIER_CHECK_BYTES = 4096
"""Only a write of this size makes the size of a shared tier worth adding up."""

_LOAD = f"SELECT {rows.SESSION} FROM sessions WHERE app = ? AND id = ?"  # noqa: S608 - our columns
_INSERT = (
    f"INSERT INTO sessions({rows.SESSION.replace('row, ', '')}, parent_row) "  # noqa: S608 - ours
    f"VALUES ({', '.join('?' * rows.COLUMNS)})"
)
_UPDATE = """UPDATE sessions SET revision = ?, seq = ?, active_at = ?, expires_at = ?, due_at = ?,
    remembered = ?, peak = ?, state = ? WHERE row = ?"""
_UPDATE_WAKE = "UPDATE sessions SET wake_at = ? WHERE row = ?"
_UPDATE_REST = """UPDATE sessions SET user = ?, phase = ?, reason = ?, idle = ?, absolute_at = ?,
    retain = ?, attempts = ?, labels = ?, fence = ?, holder = ?, leased_until = ? WHERE row = ?"""
_INSERT_EVENT = f"INSERT INTO events({rows.EVENT}, peak) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our columns
_FIND_EVENTS = f"SELECT {rows.EVENT} FROM events WHERE session = ? AND id = ? ORDER BY key"  # noqa: S608 - our columns
_UPSERT_TIER = """INSERT INTO tiers(app, owner, name, value) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value"""
_DELETE_TIER = "DELETE FROM tiers WHERE app = ? AND owner = ? AND name = ?"
_TIER_BYTES = """SELECT coalesce(sum(length(name) + length(value) + 4), 0) FROM tiers
    WHERE app = ? AND owner = ?"""
_MOVE_LABEL = """UPDATE labels SET active_at = ?
    WHERE app = ? AND name = ? AND value = ? AND session = ?"""
_UPSERT_DOCUMENT = """INSERT INTO documents(app, session, collection, key, content_type, size, seq,
        created_at, updated_at, expires_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET content_type = excluded.content_type, size = excluded.size,
        seq = excluded.seq, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        body = excluded.body"""
_COUNT = """INSERT INTO counts(app, facet, phase, sessions) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions"""
_UNCOUNT = "DELETE FROM counts WHERE app = ? AND facet = ? AND phase = ? AND sessions = 0"

APP_ROW = 0
"""The session number of documents that belong to an app."""


class _Loaded:
    """A session that this batch has read: its header as it stands now, and what is to be written."""

    __slots__ = (
        "dirty",
        "header",
        "labels_at",
        "peak",
        "rest",
        "row",
        "state",
        "wake_at",
        "wakes",
    )

    def __init__(
        self, row: int, header: Header, wake_at: int | None, peak: int, state: str | bytes
    ) -> None:
        self.row = row
        self.header = header
        self.wake_at = wake_at
        self.peak = peak
        self.state = state
        self.dirty = False
        self.rest = False
        self.wakes = False
        self.labels_at = header.active_at

    def replace(self, header: Header, now: int, *, rest: bool) -> None:
        """Take over a new header, to be written; `rest` when more than the counters changed."""
        self.header = header
        self.dirty = True
        self.rest = self.rest or rest
        wake_at = _wake_at(header, self.wake_at, now)
        self.wakes = self.wakes or wake_at != self.wake_at
        self.wake_at = wake_at


def _wake_at(header: Header, old: int | None, now: int) -> int | None:
    """Return when the reaper should look: not later than `due_at`, and moved as rarely as can be.

    The column is indexed, and a session in use moves its deadline with every commit. So the index
    keeps an earlier time and is put right when that time has come.
    """
    due_at = header.due_at
    if due_at is None or old is None or not header.live or due_at < old or old <= now:
        return due_at
    return old


class Batch:
    """Applies operations inside a transaction that the caller began and will commit."""

    def __init__(self, db: apsw.Connection, *, durable: bool) -> None:
        """`durable` says what the commit of this transaction reaches."""
        self.changed: set[tuple[str, str]] = set()
        self._db = db
        self._durability: Any = "durable" if durable else "relaxed"
        self._loaded: dict[tuple[str, str], _Loaded | None] = {}
        self._entries: list[tuple[Any, ...]] = []
        self._by_id: dict[tuple[int, str], list[Entry]] = {}
        self._tiers: dict[tuple[str, str, str], str | None] = {}
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._removal = Removal(db, self._count)

    def apply(self, operation: Operation) -> Outcome:
        """Return what the operation led to; a refusal is returned as the exception it is."""
        try:
            return _VERBS[type(operation)](self, operation)
        except SojournError as error:
            return error

    # --- reading what is there -----------------------------------------------------------------

    def _load(self, app: str, id: str) -> _Loaded | None:
        key = (app, id)
        if key in self._loaded:
            return self._loaded[key]
        row = self._db.execute(_LOAD, key).fetchone()
        loaded = None
        if row is not None:
            header = rows.to_header(row)
            loaded = _Loaded(
                row[rows.ROW], header, row[rows.WAKE_AT], row[rows.PEAK], row[rows.STATE]
            )
        self._loaded[key] = loaded
        return loaded

    def _tail(self, loaded: _Loaded | None, count: int) -> tuple[int, ...]:
        if loaded is None or count <= 0:
            return ()
        self.flush()
        low, high = rows.event_key(loaded.row, 0), rows.event_key(loaded.row, MAX_SEQ)
        found = self._db.execute(
            "SELECT seq FROM events WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT ?",
            (low, high, count),
        ).fetchall()
        return tuple(seq for (seq,) in reversed(found))

    def _repeated(self, loaded: _Loaded, draft: Draft) -> Entry | None:
        """Return the entry that `draft` is again, in the file or gathered in this batch."""
        gathered: Sequence[Entry] = self._by_id.get((loaded.row, draft.id), ())
        found: Sequence[Any] = self._db.execute(_FIND_EVENTS, (loaded.row, draft.id)).fetchall()
        stored: list[Entry] = [rows.to_entry(row) for row in found]
        for entry in (*gathered, *stored):
            if commit.is_repeat(draft, entry):
                return entry
        return None

    # --- commits -------------------------------------------------------------------------------

    def commit(self, change: Change) -> Committed:
        """Apply a change; see `Store.commit`."""
        if change.id is None:
            return self._commit_shared(change)
        loaded = self._load(change.app, change.id)
        header = loaded.header if loaded else None
        if loaded is not None and (known := commit.recall(loaded.header, change.op)):
            return self._repeat(loaded, change, known)
        old = commit.forbid(header, change, lambda count: self._tail(loaded, count))
        assert loaded is not None  # `forbid` raised
        user = change.user or old.user
        self._check_tier(change.app, rows.tier_owner(user), change.user_tier)
        self._check_tier(change.app, "", change.app_tier)
        if change.session is not None or change.clear:
            loaded.state = commit.merged_state(
                loaded.state, change.session, change.clear, f"session {old.id!r}"
            )
        if change.truncate_after is not None:
            self._truncate(loaded, change.truncate_after)
        seqs, appended = self._append(loaded, change.events)
        new = commit.advance(old, change, appended)
        loaded.replace(new, change.now, rest=not _only_counters(change))
        if change.user_tier is not None:
            self._write_tier(change.app, rows.tier_owner(user), change.user_tier)
        if change.app_tier is not None:
            self._write_tier(change.app, "", change.app_tier)
        if change.documents:
            self._apply_documents(change, loaded.row, new.seq)
        if loaded.rest:
            self._restate(loaded, old, new)
        self.changed.add((change.app, change.id))
        return Committed(header=new, revision=new.revision, seqs=seqs, durability=self._durability)

    def _commit_shared(self, change: Change) -> Committed:
        """Apply a change that belongs to no session: shared tiers and the app's documents."""
        for owner, delta in (
            (rows.tier_owner(change.user), change.user_tier),
            ("", change.app_tier),
        ):
            self._check_tier(change.app, owner, delta)
        for owner, delta in (
            (rows.tier_owner(change.user), change.user_tier),
            ("", change.app_tier),
        ):
            if delta is not None:
                self._write_tier(change.app, owner, delta)
        self._apply_documents(change, APP_ROW, 0)
        header = commit.shared_header(change)
        return Committed(header=header, revision=0, durability=self._durability)

    def _repeat(self, loaded: _Loaded, change: Change, known: tuple[int, int]) -> Committed:
        """Answer an operation that was applied before with what it led to."""
        revision, number = known
        seqs: list[int] = []
        for draft in reversed(change.events):
            found = self._repeated(loaded, draft)
            seqs.append(found.seq if found else number)
            number = seqs[-1] - 1
        return Committed(
            header=loaded.header,
            revision=revision,
            seqs=tuple(reversed(seqs)),
            durability=self._durability,
            repeated=True,
        )

    def _append(self, loaded: _Loaded, drafts: tuple[Draft, ...]) -> tuple[tuple[int, ...], int]:
        """Gather new events; return the number of each (an old one's for a repeat), how many."""
        seqs: list[int] = []
        top = loaded.header.seq
        for draft in drafts:
            known = None if draft.fresh else self._repeated(loaded, draft)
            if known is not None:
                seqs.append(known.seq)
                continue
            top += 1
            seqs.append(top)
            loaded.peak = max(loaded.peak, draft.at)
            self._entries.append(
                (
                    rows.event_key(loaded.row, top),
                    draft.id,
                    draft.kind,
                    draft.author,
                    draft.at,
                    draft.body,
                    draft.changes,
                    draft.deleted,
                    loaded.peak,
                )
            )
            if not draft.fresh:
                entry = commit.numbered(draft, top)
                self._by_id.setdefault((loaded.row, draft.id), []).append(entry)
        return tuple(seqs), top - loaded.header.seq

    def _truncate(self, loaded: _Loaded, after: int) -> None:
        self.flush()
        low, high = rows.event_key(loaded.row, after + 1), rows.event_key(loaded.row, MAX_SEQ)
        self._db.execute("DELETE FROM events WHERE key BETWEEN ? AND ?", (low, high))
        before = (rows.event_key(loaded.row, 0), low - 1)
        loaded.peak = self._db.execute(
            "SELECT coalesce((SELECT peak FROM events WHERE key BETWEEN ? AND ? "
            "ORDER BY key DESC LIMIT 1), 0)",
            before,
        ).get

    def _check_tier(self, app: str, owner: str, delta: TierDelta | None) -> None:
        """Raise `TooLarge` if a delta would make a shared tier larger than `MAX_STATE`."""
        if delta is None:
            return
        added = sum(len(name) + len(bytes(value)) for name, value in delta.set.items())
        if added < TIER_CHECK_BYTES:
            return
        self.flush()
        size = added + self._db.execute(_TIER_BYTES, (app, owner)).get
        if size > MAX_STATE:
            raise TooLarge("bytes of state in one tier", size, MAX_STATE)

    def _write_tier(self, app: str, owner: str, delta: TierDelta) -> None:
        for name, value in delta.set.items():
            self._tiers[app, owner, name] = bytes(value).decode()
        for name in delta.drop:
            self._tiers[app, owner, name] = None

    def _apply_documents(self, change: Change, row: int, seq: int) -> None:
        """Put and drop documents in order, straight away."""
        for part in change.documents:
            where = (change.app, row, part.collection)
            if isinstance(part, Put):
                size = len(part.body)
                facts = (part.content_type, size, seq, change.now, change.now, part.expires_at)
                self._db.execute(_UPSERT_DOCUMENT, (*where, part.key, *facts, part.body))
            else:
                self._db.execute(
                    "DELETE FROM documents WHERE app = ?1 AND session = ?2 AND collection = ?3 "
                    "AND (?4 IS NULL OR key = ?4)",
                    (*where, part.key),
                )

    def _restate(self, loaded: _Loaded, old: Header, new: Header) -> None:
        """Bring counts, labels and claims in line with a header whose rest changed."""
        if old.phase is not new.phase or old.user != new.user or old.labels != new.labels:
            self._count(old, -1)
            self._count(new, 1)
        if old.labels != new.labels:
            self._db.execute("DELETE FROM labels WHERE session = ?", (loaded.row,))
            self._label(loaded.row, new)
        if new.phase in OVER and new.exclusive:
            self._db.execute("DELETE FROM claims WHERE session = ?", (loaded.row,))

    def touch(self, touch: Touch) -> Header:
        """Extend the idle deadline; see `Store.touch`."""
        loaded = self._load(touch.app, touch.id)
        header = commit.touched(
            loaded.header if loaded else None, touch.id, touch.now, touch.epoch
        )
        assert loaded is not None  # `touched` raised
        loaded.replace(header, touch.now, rest=False)
        return header

    def acquire(self, acquire: Acquire) -> int:
        """Grant a lease; see `SupportsLease.acquire`."""
        loaded = self._load(acquire.app, acquire.id)
        header = commit.leased(loaded.header if loaded else None, acquire)
        assert loaded is not None  # `leased` raised
        loaded.replace(header, acquire.now, rest=True)
        return header.fence

    def renew(self, renew: Renew) -> None:
        """Renew or release a lease; see `SupportsLease.renew`."""
        loaded = self._load(renew.app, renew.id)
        header = commit.renewed(loaded.header if loaded else None, renew)
        assert loaded is not None  # `renewed` raised
        loaded.replace(header, renew.now, rest=True)

    # --- new sessions --------------------------------------------------------------------------

    def create(self, create: Create) -> Committed:
        """Store a new session; see `Store.create`."""
        found = self._load(create.header.app, create.header.id)
        if found is not None:
            return self._created_before(found, create)
        parent_row = self._admit(create.header)
        state = commit.merged_state("{}", create.session, clear=False, key=create.header.id)
        header = commit.created(create.header, create.op, len(create.events))
        owner = rows.tier_owner(header.user)
        self._check_tier(header.app, owner, create.user_tier)
        self._check_tier(header.app, "", create.app_tier)
        peak = max((draft.at for draft in create.events), default=0)
        loaded = self._insert(header, state, parent_row, peak)
        loaded.header = create.header
        seqs, _ = self._append(loaded, create.events)
        loaded.header = header
        if create.user_tier is not None:
            self._write_tier(header.app, owner, create.user_tier)
        if create.app_tier is not None:
            self._write_tier(header.app, "", create.app_tier)
        return Committed(
            header=header, revision=header.revision, seqs=seqs, durability=self._durability
        )

    def _created_before(self, found: _Loaded, create: Create | Fork) -> Committed:
        """Answer a repeated create with its first result, another one with `AlreadyExists`."""
        known = commit.recall(found.header, create.op)
        if known is None:
            raise commit.exists(found.header, create.header.created_at)
        return Committed(
            header=found.header,
            revision=known[0],
            seqs=tuple(range(1, known[1] + 1)),
            durability=self._durability,
            repeated=True,
        )

    def _admit(self, header: Header) -> int | None:
        """Return the row of a new session's parent. A claim that is taken: `RoleTaken`."""
        claim = commit.claim_of(header)
        if claim is not None:
            holder = self._db.execute(
                "SELECT s.id FROM claims AS c JOIN sessions AS s ON s.row = c.session "
                "WHERE c.app = ? AND c.claim = ?",
                (header.app, rows.to_json(claim)),
            ).get
            if holder is not None:
                raise RoleTaken(dict(claim), holder)
        if header.parent is None:
            return None
        parent = self._load(header.app, header.parent)
        commit.check_parent(parent.header if parent else None, header)
        return parent.row if parent else None

    def _insert(self, header: Header, state: bytes, parent_row: int | None, peak: int) -> _Loaded:
        text = state.decode()
        self._db.execute(
            _INSERT, (*rows.from_header(header), header.due_at, peak, text, parent_row)
        )
        loaded = _Loaded(self._db.last_insert_rowid(), header, header.due_at, peak, text)
        self._loaded[header.app, header.id] = loaded
        claim = commit.claim_of(header)
        if claim is not None:
            self._db.execute(
                "INSERT INTO claims(app, claim, session) VALUES (?, ?, ?)",
                (header.app, rows.to_json(claim), loaded.row),
            )
        self._label(loaded.row, header)
        self._count(header, 1)
        self.changed.add((header.app, header.id))
        return loaded

    def _label(self, row: int, header: Header) -> None:
        self._db.executemany(
            "INSERT INTO labels(app, name, value, session, active_at) VALUES (?, ?, ?, ?, ?)",
            [
                (header.app, name, value, row, header.active_at)
                for name, value in header.labels.items()
            ],
        )

    def fork(self, fork: Fork) -> Committed:
        """Copy a session; see `Store.fork`."""
        header = fork.header
        found = self._load(header.app, header.id)
        if found is not None:
            return self._created_before(found, fork)
        source = self._load(header.app, fork.source)
        if source is None or is_past(source.header.expires_at, header.created_at):
            raise NotFound(fork.source)
        self.flush()
        at = source.header.seq if fork.at is None else fork.at
        header = commit.forked(header, source.header, fork.op, at)
        parent_row = self._admit(header)
        state = self._rewound(source, at)
        loaded = self._insert(header, codec.encode_object(state), parent_row, source.peak)
        self._copy_log(source.row, loaded.row, min(at, MAX_SEQ))
        return Committed(header=header, revision=header.revision, durability=self._durability)

    def _rewound(self, source: _Loaded, at: int) -> dict[str, Any]:
        """Return the source's own state as of event `at`."""
        low, high = rows.event_key(source.row, 0), rows.event_key(source.row, MAX_SEQ)
        found = self._db.execute(
            f"SELECT {rows.EVENT} FROM events WHERE key BETWEEN ? AND ? "  # noqa: S608 - our columns
            "AND (changes IS NOT NULL OR deleted IS NOT NULL) ORDER BY key",
            (low, high),
        )
        state = codec.decode_object(source.state, f"session {source.header.id!r}")
        return rewind(state, commit.deltas_of(map(rows.to_entry, found)), at)

    def _copy_log(self, source: int, target: int, at: int) -> None:
        """Copy the events and documents of a session up to event `at`."""
        low, high = rows.event_key(source, 0), rows.event_key(source, at)
        shift = rows.event_key(target, 0) - low
        self._db.execute(
            "INSERT INTO events(key, at, peak, id, kind, author, changes, deleted, body) "
            "SELECT key + ?, at, peak, id, kind, author, changes, deleted, body "
            "FROM events WHERE key BETWEEN ? AND ? ORDER BY key",
            (shift, low, high),
        )
        self._db.execute(
            "INSERT INTO documents(app, session, collection, key, content_type, size, seq, "
            "created_at, updated_at, expires_at, body) "
            "SELECT app, ?, collection, key, content_type, size, seq, created_at, updated_at, "
            "expires_at, body FROM documents WHERE session = ? AND seq <= ?",
            (target, source, at),
        )

    # --- removing ------------------------------------------------------------------------------

    def delete(self, delete: Delete) -> bool:
        """Remove a session; see `Store.delete`."""
        loaded = self._load(delete.app, delete.id)
        if loaded is None or not commit.may_delete(
            loaded.header, delete.epoch, delete.revision, delete.fence
        ):
            return False
        self._remove([loaded.row])
        return True

    def forget(self, forget: Forget) -> int:
        """Remove a user's sessions and tier; see `Store.forget`."""
        app, user = forget
        self.flush()
        found: list[tuple[Any, ...]] = self._db.execute(
            "SELECT row FROM sessions WHERE app = ? AND user = ?", (app, user)
        ).fetchall()
        self._remove([row for (row,) in found])
        self._db.execute(
            "DELETE FROM tiers WHERE app = ? AND owner = ?", (app, rows.tier_owner(user))
        )
        return len(found)

    def due(self, find: FindDue) -> list[Header]:
        """Return due sessions; see `Store.due`."""
        self.flush()
        return [rows.to_header(row) for row in self._removal.due(find.due)]

    def reap(self, reap: Reap) -> list[str]:
        """Remove due sessions; see `Store.reap`."""
        due = reap.due
        self.flush()
        found = self._removal.due(due)
        self._remove([row[rows.ROW] for row in found])
        self._removal.drop_expired_documents(due)
        return [row[1] for row in found]

    def _remove(self, doomed: list[int]) -> None:
        self.flush()
        for key in self._removal.remove(doomed):
            self._loaded.pop(key, None)
            self.changed.add(key)

    # --- writing what was gathered -------------------------------------------------------------

    def _count(self, header: Header, by: int) -> None:
        for facet in rows.facets(header):
            self._counts[header.app, facet, header.phase.value] += by

    def flush(self) -> None:
        """Write the rows gathered so far."""
        self._flush_sessions([item for item in self._loaded.values() if item and item.dirty])
        if self._entries:
            self._db.executemany(_INSERT_EVENT, self._entries)
            self._entries = []
            self._by_id = {}
        if self._tiers:
            self._flush_tiers()
        if self._counts:
            changed = [(*key, by) for key, by in self._counts.items() if by]
            self._db.executemany(_COUNT, changed)
            self._db.executemany(_UNCOUNT, [item[:3] for item in changed if item[3] < 0])
            self._counts.clear()

    def _flush_tiers(self) -> None:
        written = [(*key, value) for key, value in self._tiers.items() if value is not None]
        dropped = [key for key, value in self._tiers.items() if value is None]
        self._tiers = {}
        if written:
            self._db.executemany(_UPSERT_TIER, written)
        if dropped:
            self._db.executemany(_DELETE_TIER, dropped)

    def _flush_sessions(self, dirty: list[_Loaded]) -> None:
        if not dirty:
            return
        self._db.executemany(_UPDATE, [_counters(item) for item in dirty])
        wakes = [(item.wake_at, item.row) for item in dirty if item.wakes]
        if wakes:
            self._db.executemany(_UPDATE_WAKE, wakes)
        rest = [_rest(item) for item in dirty if item.rest]
        if rest:
            self._db.executemany(_UPDATE_REST, rest)
        moved = [
            (item.header.active_at, item.header.app, name, value, item.row)
            for item in dirty
            if item.header.labels and item.header.active_at != item.labels_at
            for name, value in item.header.labels.items()
        ]
        if moved:
            self._db.executemany(_MOVE_LABEL, moved)
        for item in dirty:
            item.dirty = item.rest = item.wakes = False
            item.labels_at = item.header.active_at


def _only_counters(change: Change) -> bool:
    """Return whether a change leaves everything of the header but counters and times alone."""
    return (
        change.user is None
        and change.labels is None
        and change.move is None
        and change.retry is None
    )


def _counters(item: _Loaded) -> tuple[Any, ...]:
    header, state = item.header, item.state
    return (
        header.revision,
        header.seq,
        header.active_at,
        header.expires_at,
        header.due_at,
        header.remembered,
        item.peak,
        state if isinstance(state, str) else state.decode(),
        item.row,
    )


def _rest(item: _Loaded) -> tuple[Any, ...]:
    header = item.header
    return (
        header.user,
        header.phase.value,
        header.reason,
        header.idle,
        header.absolute_at,
        header.retain,
        header.attempts,
        rows.to_json(header.labels) if header.labels else None,
        header.fence,
        header.holder,
        header.leased_until,
        item.row,
    )


_VERBS: dict[type, Callable[[Batch, Any], Outcome]] = {
    Change: Batch.commit,
    Create: Batch.create,
    Fork: Batch.fork,
    Touch: Batch.touch,
    Delete: Batch.delete,
    Acquire: Batch.acquire,
    Renew: Batch.renew,
    Forget: Batch.forget,
    FindDue: Batch.due,
    Reap: Batch.reap,
}
"""Which method applies which operation."""

"""What a batch has read and what it will write: sessions, events, tiers, counts.

Headers are read once and kept; the rows that commits change are gathered and written together at
the end (`flush`), so a session that is written a hundred times in a batch is updated once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn import commit
from sojourn.errors import TooLarge
from sojourn.lifecycle import OVER, Phase
from sojourn.limits import MAX_SEQ, MAX_STATE
from sojourn.stores.sqlite import rows, tally
from sojourn.stores.weighing import AROUND, key_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Draft, Encoded, Entry, Header
    from sojourn.store import TierDelta
    from sojourn.stores.sqlite.recent import Recent
    from sojourn.stores.sqlite.transaction import Transaction

_LOAD = f"SELECT {rows.SESSION} FROM sessions WHERE app = ? AND id = ?"
_INSERT = (
    f"INSERT INTO sessions({rows.SESSION.replace('row, ', '')}, parent_row) "
    f"VALUES ({', '.join('?' * rows.COLUMNS)})"
)
_UPDATE_WAKE = "UPDATE sessions SET wake_at = ? WHERE row = ?"
_UPDATE_REST = """UPDATE sessions SET user = ?, phase = ?, reason = ?, idle = ?, absolute_at = ?,
    retain = ?, attempts = ?, labels = ?, fence = ?, holder = ?, leased_until = ? WHERE row = ?"""
_FIND_EVENTS = f"SELECT {rows.EVENT} FROM events WHERE session = ? AND id = ? ORDER BY key"
_DELETE_TIER = "DELETE FROM tiers WHERE app = ? AND owner = ? AND name = ?"
_TIER_BYTES = f"""SELECT coalesce(sum(octet_length(name) + octet_length(value) + {AROUND}), 0)
    FROM tiers WHERE app = ? AND owner = ? AND name NOT IN (SELECT value FROM json_each(?))"""
_MOVE_LABEL = """UPDATE labels SET active_at = ?
    WHERE app = ? AND name = ? AND value = ? AND session = ?"""
_COUNT = """INSERT INTO counts(app, facet, phase, sessions) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions"""
_UNCOUNT = "DELETE FROM counts WHERE app = ? AND facet = ? AND phase = ? AND sessions = 0"


class Loaded:
    """A session that this batch has read: its header as it stands, and what is to be written."""

    __slots__ = (
        "dirty",
        "header",
        "labels_at",
        "peak",
        "rest",
        "row",
        "state",
        "stored",
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
        self.stored = header.revision

    @property
    def is_rare(self) -> bool:
        """Whether it has changed in more than its counters."""
        return self.dirty and (self.rest or self.wakes or bool(self.header.labels))

    def replace(self, header: Header, now: int, *, rest: bool) -> None:
        """Take over a new header, to be written; `rest` when more than the counters changed."""
        self.header = header
        self.dirty = True
        self.rest = self.rest or rest
        wake_at = _wake_at(header, self.wake_at, now)
        if wake_at != self.wake_at:
            self.wake_at = wake_at
            self.wakes = True


def _wake_at(header: Header, old: int | None, now: int) -> int | None:
    """Return when the reaper should look: not later than `due_at`, and moved as rarely as can be.

    The column is indexed, and a session in use moves its deadline with every commit. So the index
    keeps an earlier time and is put right when that time has come.
    """
    due_at = header.due_at
    if due_at is None or old is None or due_at < old or old <= now:
        return due_at
    return old if header.phase is Phase.OPEN or header.live else due_at


def _size(state: Encoded) -> int:
    """Return what values take as JSON, in bytes, escapes in names aside."""
    return sum(key_size(name, len(memoryview(raw))) for name, raw in state.items())


class Gathering:
    """The rows of one transaction, which the caller began and will commit."""

    def __init__(self, db: Transaction, recent: Recent) -> None:
        """Start with nothing to write, and nothing read but what is kept of the last time."""
        self.changed: set[tuple[str, str]] = set()
        self._db = db
        self._recent = recent
        self._loaded: dict[tuple[str, str], Loaded | None] = {}
        self._entries: list[tally.Row] = []
        self._by_id: dict[tuple[int, str], list[Entry]] = {}
        self._tiers: dict[tuple[str, str, str], str | None] = {}
        self._counts: dict[tuple[str, str, str], int] = {}

    # --- reading what is there -----------------------------------------------------------------

    def load(self, app: str, id: str) -> Loaded | None:
        """Return a session as it stands in this batch, `None` when it is missing."""
        key = (app, id)
        if key in self._loaded:
            return self._loaded[key]
        loaded = self._recent.take(key) or self._read(key)
        self._loaded[key] = loaded
        return loaded

    def _read(self, key: tuple[str, str]) -> Loaded | None:
        row = self._db.execute(_LOAD, key).fetchone()
        if row is None:
            return None
        header = rows.to_header(row)
        return Loaded(row[rows.ROW], header, row[rows.WAKE_AT], row[rows.PEAK], row[rows.STATE])

    def keep(self) -> None:
        """Keep what was read and written for the next transaction; this one is committed."""
        self._recent.keep(self._loaded)

    def forget(self) -> None:
        """Forget what was read: rows of sessions were changed without it."""
        self._loaded.clear()
        self._recent.clear()

    def tail(self, loaded: Loaded | None, count: int) -> tuple[int, ...]:
        """Return the last `count` sequence numbers of a log, ascending."""
        if loaded is None or count <= 0:
            return ()
        self.flush()
        low, high = rows.event_key(loaded.row, 0), rows.event_key(loaded.row, MAX_SEQ)
        found = self._db.execute(
            "SELECT seq FROM events WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT ?",
            (low, high, count),
        ).fetchall()
        return tuple(seq for (seq,) in reversed(found))

    def repeated(self, loaded: Loaded, draft: Draft) -> Entry | None:
        """Return the entry that `draft` is again, in the file or gathered in this batch."""
        gathered: Sequence[Entry] = self._by_id.get((loaded.row, draft.id), ())
        found: Sequence[Any] = self._db.execute(_FIND_EVENTS, (loaded.row, draft.id)).fetchall()
        stored: list[Entry] = [rows.to_entry(row) for row in found]
        for entry in (*stored, *gathered):
            if commit.is_repeat(draft, entry):
                return entry
        return None

    # --- gathering what is to be written ----------------------------------------------------

    def number(
        self, loaded: Loaded, drafts: tuple[Draft, ...], *, top: int, cut: int | None = None
    ) -> tuple[tuple[int, ...], int]:
        """Return the number of each event, an old one's for a repeat, and how many are new.

        New ones count on from `top`; what is in the log behind `cut` does not count as there.
        """
        if len(drafts) == 1 and drafts[0].fresh:
            return (top + 1,), 1
        last = top if cut is None else min(top, cut)

        def stored(draft: Draft) -> int | None:
            known = self.repeated(loaded, draft)
            return known.seq if known is not None and known.seq <= last else None

        return commit.sequence(drafts, top, stored)

    def append(self, loaded: Loaded, drafts: tuple[Draft, ...], seqs: tuple[int, ...]) -> None:
        """Gather the events whose number is new."""
        top = loaded.header.seq
        for draft, seq in zip(drafts, seqs, strict=True):
            if seq > top:
                top = seq
                self._add(loaded, draft, seq)

    def _add(self, loaded: Loaded, draft: Draft, seq: int) -> None:
        if draft.at > loaded.peak:  # noqa: PLR1730 - max() costs a call for each event
            loaded.peak = draft.at
        self._entries.append(
            (
                tally.EVENT,
                rows.event_key(loaded.row, seq),
                draft.id,
                draft.kind,
                draft.author,
                draft.at,
                draft.body,
                draft.changes,
                draft.deleted,
                loaded.peak,
                None,
            )
        )
        if not draft.fresh:
            entry = commit.numbered(draft, seq)
            self._by_id.setdefault((loaded.row, draft.id), []).append(entry)

    def truncate(self, loaded: Loaded, after: int) -> None:
        """Remove the events behind `after`, straight away."""
        self.flush()
        last = rows.event_key(loaded.row, min(after, MAX_SEQ))
        end = rows.event_key(loaded.row, MAX_SEQ)
        self._db.execute("DELETE FROM events WHERE key > ? AND key <= ?", (last, end))
        before = (rows.event_key(loaded.row, 0), last)
        loaded.peak = self._db.execute(
            "SELECT coalesce((SELECT peak FROM events WHERE key BETWEEN ? AND ? "
            "ORDER BY key DESC LIMIT 1), 0)",
            before,
        ).get

    def check_tier(self, app: str, owner: str, delta: TierDelta | None) -> None:
        """Raise `TooLarge` if a delta would make a shared tier larger than `MAX_STATE`.

        It is added up once so much was written to it: small writes may pass by a little.
        """
        if delta is None or not delta.set:
            return
        added = _size(delta.set) if delta.size is None else delta.size
        if not self._recent.weighing.is_due((app, owner), added):
            return
        self.flush()
        replaced = rows.to_json([*delta.set, *delta.drop])
        kept = self._db.execute(_TIER_BYTES, (app, owner, replaced)).get
        size = 1 + _size(delta.set) + kept
        if size > MAX_STATE:
            raise TooLarge("bytes of state in one tier", size, MAX_STATE)
        self._recent.weighing.done((app, owner))

    def write_tier(self, app: str, owner: str, delta: TierDelta) -> None:
        """Gather a delta of a shared tier."""
        for name, value in delta.set.items():
            self._tiers[app, owner, name] = str(value, "utf-8")
        for name in delta.drop:
            self._tiers[app, owner, name] = None

    def restate(self, loaded: Loaded, old: Header, new: Header) -> None:
        """Bring counts, labels and claims in line with a header whose rest changed."""
        if old.phase is not new.phase or old.user != new.user or old.labels != new.labels:
            self.count(old, -1)
            self.count(new, 1)
        if old.labels != new.labels:
            self._db.execute("DELETE FROM labels WHERE session = ?", (loaded.row,))
            self._label(loaded.row, new)
        if new.phase in OVER and new.exclusive:
            self._db.execute("DELETE FROM claims WHERE session = ?", (loaded.row,))

    def insert(self, header: Header, state: bytes, parent_row: int | None, peak: int) -> Loaded:
        """Insert a session, with its labels and claim, straight away."""
        text = state.decode()
        self._db.execute(
            _INSERT, (*rows.from_header(header), header.due_at, peak, text, parent_row)
        )
        loaded = Loaded(self._db.last_insert_rowid(), header, header.due_at, peak, text)
        self._loaded[header.app, header.id] = loaded
        claim = commit.claim_of(header)
        if claim is not None:
            self._db.execute(
                "INSERT INTO claims(app, claim, session) VALUES (?, ?, ?)",
                (header.app, rows.to_json(claim), loaded.row),
            )
        self._label(loaded.row, header)
        self.count(header, 1)
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

    def gone(self, key: tuple[str, str]) -> None:
        """Note that a session was removed."""
        self._loaded.pop(key, None)
        self._recent.take(key)
        self.changed.add(key)

    def count(self, header: Header, by: int) -> None:
        """Gather a change of the kept counts."""
        self.count_at(header.app, header.phase.value, rows.facets(header.user, header.labels), by)

    def count_at(self, app: str, phase: str, facets: tuple[str, ...], by: int) -> None:
        """Gather a change of the kept counts of some facets."""
        for facet in facets:
            key = (app, facet, phase)
            self._counts[key] = self._counts.get(key, 0) + by

    def flush(self) -> None:
        """Write the rows gathered so far."""
        self._flush_rest()
        self._db.write(self._take_rows())

    def commit(self) -> None:
        """Write the rows gathered so far and commit. Raises `Moved`; see `Transaction.commit`."""
        self._flush_rest()
        self._db.commit(self._take_rows())

    def _take_rows(self) -> list[tally.Row]:
        """Return what most batches consist of: counters of sessions, events, keys of tiers."""
        taken: list[tally.Row] = []
        for item in self._loaded.values():
            if item is not None and item.dirty:
                taken.append(_counters(item))
                item.dirty = False
                item.stored = item.header.revision
        taken += self._entries
        for (app, owner, name), value in self._tiers.items():
            if value is not None:
                row = (tally.TIER, app, owner, name, value, None, None, None, None, None, None)
                taken.append(row)
        self._entries = []
        self._by_id = {}
        self._tiers = {}
        return taken

    def _flush_rest(self) -> None:
        """Write what is rarer; dirty sessions stay dirty."""
        rare = [item for item in self._loaded.values() if item is not None and item.is_rare]
        if rare:
            self._flush_sessions(rare)
        dropped = [key for key, value in self._tiers.items() if value is None]
        if dropped:
            self._db.executemany(_DELETE_TIER, dropped)
        if self._counts:
            changed = [(*key, by) for key, by in self._counts.items() if by]
            self._db.executemany(_COUNT, changed)
            self._db.executemany(_UNCOUNT, [item[:3] for item in changed if item[3] < 0])
            self._counts.clear()

    def _flush_sessions(self, dirty: list[Loaded]) -> None:
        """Write what changed beside the counters."""
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
            item.rest = item.wakes = False
            item.labels_at = item.header.active_at


def _counters(item: Loaded) -> tally.Row:
    header, state = item.header, item.state
    return (
        tally.SESSION,
        item.row,
        item.stored,
        header.revision,
        header.seq,
        header.active_at,
        header.expires_at,
        header.due_at,
        header.remembered,
        item.peak,
        state if isinstance(state, str) else state.decode(),
    )


def _rest(item: Loaded) -> tuple[Any, ...]:
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

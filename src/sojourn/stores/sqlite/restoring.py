"""Putting sessions into the SQLite file exactly as they were elsewhere, large ones part by part.

The parts of a large one gather in a row of an app that nobody can name. The last part turns that
row into the session's own, in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sojourn import codec, commit, restoring
from sojourn.errors import NotFound, RoleTaken, TooLarge
from sojourn.limits import MAX_SEQ, MAX_STATE
from sojourn.model import StoredDocument
from sojourn.store import Tier
from sojourn.stores.sqlite import rows, tally

if TYPE_CHECKING:
    from sojourn.model import Encoded, Header
    from sojourn.store import Due, Restore, RestoreShared, Snapshot
    from sojourn.stores.sqlite.gathering import Gathering
    from sojourn.stores.sqlite.removal import Removal
    from sojourn.stores.sqlite.transaction import Transaction

STAGING = "\x1frestoring "
"""Stands before the app of a session of which not all parts are here: no name begins with it."""

_COLUMNS = [name for name in rows.SESSION.split(", ") if name != "row"]
_INSERT = (
    f"INSERT INTO sessions({', '.join(_COLUMNS)}, parent_row) "
    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
)
_UPDATE = f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE row = ?"
_LABEL = "INSERT INTO labels(app, name, value, session, active_at) VALUES (?, ?, ?, ?, ?)"
_CLAIM = "INSERT INTO claims(app, claim, session) VALUES (?, ?, ?)"
_HOLDER = """SELECT s.row, s.id FROM claims AS c JOIN sessions AS s ON s.row = c.session
    WHERE c.app = ? AND c.claim = ?"""
_STAGED = "SELECT row, holder, attempts FROM sessions WHERE app = ? AND id = ?"
_CONTENTS = "SELECT peak, state FROM sessions WHERE row = ?"
_LAST = "SELECT max(key) FROM events WHERE key BETWEEN ? AND ?"
_DOCUMENT = """INSERT INTO documents(app, session, collection, key, content_type, size, seq,
        created_at, updated_at, expires_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_REPLACE_DOCUMENT = f"""{_DOCUMENT} ON CONFLICT DO UPDATE SET content_type = excluded.content_type,
    size = excluded.size, seq = excluded.seq, created_at = excluded.created_at,
    updated_at = excluded.updated_at, expires_at = excluded.expires_at, body = excluded.body"""
_KEEP_DOCUMENT = f"{_DOCUMENT} ON CONFLICT DO NOTHING"
_TIER = "INSERT INTO tiers(app, owner, name, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_SIZES = (
    "SELECT name, octet_length(name) + octet_length(value) FROM tiers WHERE app = ? AND owner = ?"
)


class Restoring:
    """Restores inside a transaction that the caller began and will commit."""

    def __init__(self, db: Transaction, gathered: Gathering, removal: Removal) -> None:
        """`gathered` is what the batch has read and written, `removal` how sessions go."""
        self._db = db
        self._gathered = gathered
        self._removal = removal

    def restore(self, restore: Restore) -> Literal["restored", "unchanged", "partial"]:
        """Put a session; see `SupportsTransfer.restore`."""
        snapshot, header = restore.snapshot, restore.snapshot.header
        there = self._gathered.load(header.app, header.id)
        if there is not None:
            self._gathered.flush()
        if restoring.verdict(there.header if there else None, restore) == "keep":
            assert there is not None  # there is something to keep
            self.drop_staged(header.app, header.id)
            ahead = restoring.caught_up(there.header, header)
            if ahead != there.header:
                there.replace(ahead, ahead.active_at, rest=True)
            return "unchanged"
        row = there.row if there else None
        parent_row = self._admit(header, row)
        if snapshot.part or not snapshot.last:
            staged = self._stage(restore)
            if not snapshot.last:
                return "partial"
            row = self._finish(staged, row, parent_row)
        else:
            self.drop_staged(header.app, header.id)
            if row is None:
                row = self._insert(header, _text(snapshot.state), parent_row)
            else:
                self._empty(row, _text(snapshot.state))
            self._append(row, snapshot)
        self._settle(row, header, there.header if there else None)
        return "restored"

    def _admit(self, header: Header, row: int | None) -> int | None:
        """Return the parent's row. Its absence: `NotFound`; a claim that is taken: `RoleTaken`."""
        claim = commit.claim_of(header)
        if claim is not None and restoring.claims(header):
            holder = self._db.execute(_HOLDER, (header.app, rows.to_json(claim))).fetchone()
            if holder is not None and holder[0] != row:
                raise RoleTaken(dict(claim), holder[1])
        if header.parent is None:
            return None
        parent = self._gathered.load(header.app, header.parent)
        if parent is None:
            raise NotFound(header.parent, "no such parent session; restore it first")
        return parent.row

    def _insert(self, header: Header, state: str, parent_row: int | None) -> int:
        """Insert a session's row and return its number; `_settle` does the rest."""
        values = (*rows.from_header(header), header.due_at, 0, state, parent_row)
        self._db.execute(_INSERT, values)
        return self._db.last_insert_rowid()

    def _append(self, row: int, snapshot: Snapshot) -> None:
        """Put the events and documents of a part behind those that are there."""
        peak = self._db.execute("SELECT peak FROM sessions WHERE row = ?", (row,)).get
        events = []
        for entry in snapshot.entries:
            peak = max(peak, entry.at)
            events.append(
                (
                    tally.EVENT,
                    rows.event_key(row, entry.seq),
                    entry.id,
                    entry.kind,
                    entry.author,
                    entry.at,
                    entry.body,
                    entry.changes,
                    entry.deleted,
                    peak,
                    None,
                )
            )
        if events:
            self._db.write(events)
            self._db.execute("UPDATE sessions SET peak = ? WHERE row = ?", (peak, row))
        app = snapshot.header.app
        self._db.executemany(
            _REPLACE_DOCUMENT, [_document(app, row, item) for item in snapshot.documents]
        )

    def _empty(self, row: int, state: str) -> None:
        """Remove the log and the documents of a session, to be put again; set its state."""
        span = (rows.event_key(row, 0), rows.event_key(row, MAX_SEQ))
        self._db.execute("DELETE FROM events WHERE key BETWEEN ? AND ?", span)
        self._db.execute("DELETE FROM documents WHERE session = ?", (row,))
        self._db.execute("UPDATE sessions SET peak = 0, state = ? WHERE row = ?", (state, row))

    def _contents(self, row: int) -> Any:
        """Return a session's peak and state."""
        return self._db.execute(_CONTENTS, (row,)).fetchone()

    def _settle(self, row: int, header: Header, old: Header | None) -> None:
        """Write the header, and what is looked up by it: counts, labels, the claim."""
        header = restoring.unleased(header, old.fence if old else 0)
        peak, state = self._contents(row)
        values = (*rows.from_header(header), header.due_at, peak, state, row)
        self._db.execute(_UPDATE, values)
        if old is not None:
            self._gathered.count(old, -1)
            self._db.execute("DELETE FROM labels WHERE session = ?", (row,))
            self._db.execute("DELETE FROM claims WHERE session = ?", (row,))
        self._gathered.count(header, 1)
        self._db.executemany(
            _LABEL,
            [
                (header.app, name, value, row, header.active_at)
                for name, value in header.labels.items()
            ],
        )
        if restoring.claims(header):
            claim = rows.to_json(commit.claim_of(header))
            self._db.execute(_CLAIM, (header.app, claim, row))
        self._gathered.gone((header.app, header.id))  # what was read of it is outdated

    # --- part by part --------------------------------------------------------------------------

    def _stage(self, restore: Restore) -> int:
        """Keep a part where nobody sees it; return its row."""
        snapshot, header = restore.snapshot, restore.snapshot.header
        if snapshot.part == 0:
            self.drop_staged(header.app, header.id)
            self._begin(restore)
        row, op, expected = self._staged(header.app, header.id) or (0, None, 0)
        span = (rows.event_key(row, 0), rows.event_key(row, MAX_SEQ))
        last = (self._db.execute(_LAST, span).get or 0) & MAX_SEQ if expected else 0
        if restoring.check_part(op, expected, last, restore):
            self._append(row, snapshot)
            sql = "UPDATE sessions SET attempts = ? WHERE row = ?"
            self._db.execute(sql, (snapshot.part + 1, row))
        return int(row)

    def _begin(self, restore: Restore) -> None:
        """Make the row in which the parts gather. It counts its parts as attempts."""
        header = restore.snapshot.header
        staged = msgspec.structs.replace(
            header,
            app=STAGING + header.app,
            parent=None,
            labels={},
            exclusive=(),
            expires_at=None,
            due_at=restore.abandoned_at,
            attempts=0,
            holder=restore.op.hex(),
            leased_until=0,
        )
        self._insert(staged, _text(restore.snapshot.state), None)
        self._gathered.count(staged, 1)

    def _staged(self, app: str, id: str) -> Any:
        return self._db.execute(_STAGED, (STAGING + app, id)).fetchone()

    def _finish(self, staged: int, row: int | None, parent_row: int | None) -> int:
        """Turn the row of the parts into the session's own and return it.

        A session that is here keeps its row, and with it its children and its place in lists.
        """
        # Its counts are written before it has another name.
        self._gathered.count(self._staged_header(staged), -1)
        self._gathered.flush()
        if row is None:
            sql = "UPDATE sessions SET parent_row = ? WHERE row = ?"
            self._db.execute(sql, (parent_row, staged))
            return staged
        peak, state = self._contents(staged)
        self._empty(row, state)
        span = (rows.event_key(staged, 0), rows.event_key(staged, MAX_SEQ))
        shift = rows.event_key(row, 0) - span[0]
        self._db.execute(
            "UPDATE events SET key = key + ? WHERE key BETWEEN ? AND ?", (shift, *span)
        )
        self._db.execute("UPDATE documents SET session = ? WHERE session = ?", (row, staged))
        self._db.execute("UPDATE sessions SET peak = ? WHERE row = ?", (peak, row))
        self._db.execute("DELETE FROM sessions WHERE row = ?", (staged,))
        return row

    def _staged_header(self, row: int) -> Header:
        found: Any = self._db.execute(
            f"SELECT {rows.SESSION} FROM sessions WHERE row = ?", (row,)
        ).fetchone()
        return rows.to_header(found)

    def drop_staged(self, app: str, id: str) -> None:
        """Remove what was restored of a session so far."""
        staged = self._staged(app, id)
        if staged is not None:
            self._removal.remove([staged[0]])

    def forget_staged(self, app: str, user: str) -> None:
        """Remove what was restored of a user's sessions so far."""
        found: list[Any] = self._db.execute(
            "SELECT row FROM sessions WHERE app = ? AND user = ?", (STAGING + app, user)
        ).fetchall()
        self._removal.remove([row for (row,) in found])

    def drop_abandoned(self, due: Due) -> None:
        """Remove restores that were not followed up, so many at a time."""
        staged = msgspec.structs.replace(due, app=STAGING + due.app)
        self._removal.remove([row for row, _ in self._removal.due_rows(staged)])

    # --- what sessions share -------------------------------------------------------------------

    def restore_shared(self, restore: RestoreShared) -> None:
        """Put tiers and documents; see `SupportsTransfer.restore_shared`."""
        self._gathered.flush()
        for item in restore.items:
            if isinstance(item, Tier):
                self._check_tier(restore.app, item, replace=restore.replace)
        for item in restore.items:
            if isinstance(item, StoredDocument):
                sql = _REPLACE_DOCUMENT if restore.replace else _KEEP_DOCUMENT
                self._db.execute(sql, _document(restore.app, 0, item))
                continue
            owner = rows.tier_owner(item.user)
            if restore.replace:
                self._db.execute(
                    "DELETE FROM tiers WHERE app = ? AND owner = ?", (restore.app, owner)
                )
            self._db.executemany(
                _TIER,
                [
                    (restore.app, owner, name, bytes(value).decode())
                    for name, value in item.state.items()
                ],
            )

    def _check_tier(self, app: str, tier: Tier, *, replace: bool) -> None:
        """Raise `TooLarge` if a tier would be larger than `MAX_STATE`."""
        there = {} if replace else dict(self._db.execute(_SIZES, (app, rows.tier_owner(tier.user))))
        added = {name: value for name, value in tier.state.items() if name not in there}
        size = sum(there.values()) + restoring.tier_weight(added)
        if size > MAX_STATE:
            raise TooLarge("bytes of state in one tier", size, MAX_STATE)


def _text(state: Encoded) -> str:
    return codec.encode_object(state).decode()


def _document(app: str, row: int, document: StoredDocument) -> tuple[Any, ...]:
    """Return the values of a document's row."""
    return (
        app,
        row,
        document.collection,
        document.key,
        document.content_type,
        len(document.body or b""),
        document.seq,
        document.created_at,
        document.updated_at,
        document.expires_at,
        document.body,
    )

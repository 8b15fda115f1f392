"""One transaction's worth of operations: each is decided on its own, then all rows are written.

What refuses an operation is found before anything is gathered for it, so that a refused one leaves
nothing behind for its neighbours to trip over.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sojourn import codec, commit, repeats
from sojourn.errors import Corrupt, NotFound, RoleTaken, SojournError
from sojourn.expiry import is_past
from sojourn.limits import MAX_SEQ
from sojourn.operations import FindDue, Forget, Operation, Outcome, Reap
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
    Restore,
    RestoreShared,
    Touch,
)
from sojourn.stores.sqlite import rows
from sojourn.stores.sqlite.gathering import Gathering, Loaded
from sojourn.stores.sqlite.removal import Removal
from sojourn.stores.sqlite.restoring import Restoring

if TYPE_CHECKING:
    from collections.abc import Callable

    from sojourn.model import Header
    from sojourn.stores.sqlite.recent import Recent
    from sojourn.stores.sqlite.transaction import Transaction

log = logging.getLogger("sojourn")

_UPSERT_DOCUMENT = """INSERT INTO documents(app, session, collection, key, content_type, size, seq,
        created_at, updated_at, expires_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET content_type = excluded.content_type, size = excluded.size,
        seq = excluded.seq, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        body = excluded.body, created_at =
            iif(documents.expires_at <= excluded.updated_at, excluded.created_at, created_at)"""

APP_ROW = 0
"""The session number of documents that belong to an app."""


class Batch:
    """Applies operations inside a transaction, which begins when it has to."""

    def __init__(self, db: Transaction, recent: Recent, *, durable: bool) -> None:
        """`durable` says what the commit of this transaction reaches."""
        self._db = db
        self._durability: Any = "durable" if durable else "relaxed"
        self._gathered = Gathering(db, recent)

    @cached_property
    def _removal(self) -> Removal:
        return Removal(self._db, self._gathered.count_at, self._gathered.forget)

    @cached_property
    def _restoring(self) -> Restoring:
        return Restoring(self._db, self._gathered, self._removal)

    @property
    def changed(self) -> set[tuple[str, str]]:
        """The sessions, as (app, id), that were changed or removed."""
        return self._gathered.changed

    def commit_all(self) -> None:
        """Write what was gathered and commit. Raises `Moved`; see `Transaction.commit`."""
        self._gathered.commit()
        self._gathered.keep()

    def apply(self, operation: Operation) -> Outcome:
        """Return what the operation led to; a refusal is returned as the exception it is."""
        try:
            return _VERBS[type(operation)](self, operation)
        except SojournError as error:
            return error

    # --- commits -------------------------------------------------------------------------------

    def commit(self, change: Change) -> Committed:
        """Apply a change; see `Store.commit`."""
        if change.id is None:
            return self._commit_shared(change)
        loaded = self._gathered.load(change.app, change.id)
        header = loaded.header if loaded else None
        if loaded is not None and (known := commit.recall(loaded.header, change.op)):
            return self._repeat(loaded, change, known)
        old = commit.forbid(header, change, lambda count: self._gathered.tail(loaded, count))
        assert loaded is not None  # `forbid` raised
        seqs, appended = self._gathered.number(
            loaded, change.events, top=old.seq, cut=change.truncate_after
        )
        if appended < len(change.events):
            change = commit.without_repeats(change, seqs, old.seq)
        return self._apply(loaded, change, seqs, appended)

    def _apply(
        self, loaded: Loaded, change: Change, seqs: tuple[int, ...], appended: int
    ) -> Committed:
        """Gather the rows of a change that nothing refuses."""
        gathered, old = self._gathered, loaded.header
        owner = rows.tier_owner(change.user or old.user)
        if change.user_tier is not None:
            gathered.check_tier(change.app, owner, change.user_tier)
        if change.app_tier is not None:
            gathered.check_tier(change.app, "", change.app_tier)
        if change.session is not None or change.clear:
            key = f"session {old.id!r}"
            loaded.state = commit.merged_state(
                loaded.state, change.session, clear=change.clear, key=key
            )
        if change.truncate_after is not None:
            gathered.truncate(loaded, change.truncate_after)
        gathered.append(loaded, change.events, seqs)
        new = commit.advance(old, change, appended)
        loaded.replace(new, change.now, rest=not _only_counters(change))
        if change.user_tier is not None:
            gathered.write_tier(change.app, owner, change.user_tier)
        if change.app_tier is not None:
            gathered.write_tier(change.app, "", change.app_tier)
        if change.documents:
            self._apply_documents(change, loaded.row, new.seq)
        if loaded.rest:
            gathered.restate(loaded, old, new)
        gathered.changed.add((old.app, old.id))
        return Committed(
            header=commit.apart(new),
            revision=new.revision,
            seqs=seqs,
            before=old.seq,
            durability=self._durability,
        )

    def _commit_shared(self, change: Change) -> Committed:
        """Apply a change that belongs to no session: shared tiers and the app's documents."""
        commit.check_owner("", change.user, change.user_tier)
        for owner, delta in (
            (rows.tier_owner(change.user), change.user_tier),
            ("", change.app_tier),
        ):
            self._gathered.check_tier(change.app, owner, delta)
        for owner, delta in (
            (rows.tier_owner(change.user), change.user_tier),
            ("", change.app_tier),
        ):
            if delta is not None:
                self._gathered.write_tier(change.app, owner, delta)
        self._apply_documents(change, APP_ROW, 0)
        header = commit.shared_header(change)
        return Committed(header=header, revision=0, durability=self._durability)

    def _repeat(self, loaded: Loaded, change: Change, known: tuple[int, int]) -> Committed:
        """Answer an operation that was applied before with what it led to."""
        seqs, _ = self._gathered.number(loaded, change.events, top=known[1])
        return repeats.committed_before(loaded.header, known, seqs, self._durability)

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

    def touch(self, touch: Touch) -> Header:
        """Extend the idle deadline; see `Store.touch`."""
        loaded = self._gathered.load(touch.app, touch.id)
        header = commit.touched(loaded.header if loaded else None, touch.id, touch.now, touch.epoch)
        assert loaded is not None  # `touched` raised
        loaded.replace(header, touch.now, rest=False)
        return commit.apart(header)

    def acquire(self, acquire: Acquire) -> int:
        """Grant a lease; see `SupportsLease.acquire`."""
        loaded = self._gathered.load(acquire.app, acquire.id)
        header = commit.leased(loaded.header if loaded else None, acquire)
        assert loaded is not None  # `leased` raised
        loaded.replace(header, acquire.now, rest=True)
        return header.fence

    def renew(self, renew: Renew) -> None:
        """Renew or release a lease; see `SupportsLease.renew`."""
        loaded = self._gathered.load(renew.app, renew.id)
        header = commit.renewed(loaded.header if loaded else None, renew)
        assert loaded is not None  # `renewed` raised
        loaded.replace(header, renew.now, rest=True)

    # --- new sessions --------------------------------------------------------------------------

    def create(self, create: Create) -> Committed:
        """Store a new session; see `Store.create`."""
        found = self._gathered.load(create.header.app, create.header.id)
        if found is not None:
            return repeats.created_before(found.header, create, self._durability)
        commit.check_owner(create.header.id, create.header.user, create.user_tier)
        parent_row = self._admit(create.header)
        state = commit.merged_state("{}", create.session, clear=False, key=create.header.id)
        seqs, new = repeats.first_numbers(create.events)
        header = commit.apart(commit.created(create.header, create.op, new))
        owner = rows.tier_owner(header.user)
        self._gathered.check_tier(header.app, owner, create.user_tier)
        self._gathered.check_tier(header.app, "", create.app_tier)
        peak = max((draft.at for draft in create.events), default=0)
        loaded = self._gathered.insert(header, state, parent_row, peak)
        loaded.header = create.header
        self._gathered.append(loaded, create.events, seqs)
        loaded.header = header
        if create.user_tier is not None:
            self._gathered.write_tier(header.app, owner, create.user_tier)
        if create.app_tier is not None:
            self._gathered.write_tier(header.app, "", create.app_tier)
        return Committed(
            header=commit.apart(header),
            revision=header.revision,
            seqs=seqs,
            durability=self._durability,
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
        parent = self._gathered.load(header.app, header.parent)
        commit.check_parent(parent.header if parent else None, header)
        return parent.row if parent else None

    def fork(self, fork: Fork) -> Committed:
        """Copy a session; see `Store.fork`."""
        header = fork.header
        found = self._gathered.load(header.app, header.id)
        if found is not None:
            return repeats.created_before(found.header, fork, self._durability)
        source = self._gathered.load(header.app, fork.source)
        if source is None or is_past(source.header.expires_at, header.created_at):
            raise NotFound(fork.source)
        self._gathered.flush()
        at = source.header.seq if fork.at is None else fork.at
        header = commit.forked(header, source.header, fork.op, at)
        parent_row = self._admit(header)
        state = self._rewound(source, at)
        loaded = self._gathered.insert(header, codec.encode_object(state), parent_row, source.peak)
        self._copy_log(source.row, loaded.row, min(at, MAX_SEQ))
        return Committed(
            header=commit.apart(header),
            revision=header.revision,
            durability=self._durability,
        )

    def _rewound(self, source: Loaded, at: int) -> dict[str, Any]:
        """Return the source's own state as of event `at`."""
        low, high = rows.event_key(source.row, 0), rows.event_key(source.row, MAX_SEQ)
        found = self._db.execute(
            f"SELECT {rows.EVENT} FROM events WHERE key BETWEEN ? AND ? "
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
            "expires_at, body FROM documents WHERE session = ? AND seq <= ? ORDER BY row",
            (target, source, at),
        )

    def restore(self, restore: Restore) -> str:
        """Put a session from elsewhere; see `SupportsTransfer.restore`."""
        return self._restoring.restore(restore)

    def restore_shared(self, restore: RestoreShared) -> None:
        """Put tiers and documents from elsewhere; see `SupportsTransfer.restore_shared`."""
        self._restoring.restore_shared(restore)

    # --- removing ------------------------------------------------------------------------------

    def delete(self, delete: Delete) -> bool:
        """Remove a session; see `Store.delete`."""
        self._restoring.drop_staged(delete.app, delete.id)
        try:
            loaded = self._gathered.load(delete.app, delete.id)
        except Corrupt:
            if (delete.epoch, delete.revision, delete.fence) != (None, None, None):
                raise
            return self._delete_corrupt(delete)
        if loaded is None or not commit.may_delete(
            loaded.header, delete.epoch, delete.revision, delete.fence
        ):
            return False
        self._remove([loaded.row])
        return True

    def _delete_corrupt(self, delete: Delete) -> bool:
        """Remove a session whose record can not be read: damaged data can be erased too."""
        row = self._db.execute(
            "SELECT row FROM sessions WHERE app = ? AND id = ?", (delete.app, delete.id)
        ).get
        self._remove([row])
        return True

    def forget(self, forget: Forget) -> int:
        """Remove a user's sessions and tier; see `Store.forget`."""
        app, user = forget
        self._gathered.flush()
        self._restoring.forget_staged(app, user)
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
        self._gathered.flush()
        self._removal.drop_expired_documents(find.due)
        self._restoring.drop_abandoned(find.due)
        found: list[Header] = []
        for row in self._removal.due(find.due):
            try:
                found.append(rows.to_header(row))
            except Corrupt:  # it must not keep the others from being ended
                log.exception("a session that is due can not be read")
        return found

    def reap(self, reap: Reap) -> list[str]:
        """Remove due sessions; see `Store.reap`."""
        due = reap.due
        self._gathered.flush()
        found = self._removal.due_rows(due)
        self._remove([row for row, _ in found])
        self._removal.drop_expired_documents(due)
        self._restoring.drop_abandoned(due)
        return [id for _, id in found]

    def _remove(self, doomed: list[int]) -> None:
        self._gathered.flush()
        for key in self._removal.remove(doomed):
            self._gathered.gone(key)


def _only_counters(change: Change) -> bool:
    """Return whether a change leaves everything of the header but counters and times alone."""
    return (
        change.user is None
        and change.labels is None
        and change.deadlines is None
        and change.move is None
        and change.retry is None
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
    Restore: Batch.restore,
    RestoreShared: Batch.restore_shared,
}
"""Which method applies which operation."""

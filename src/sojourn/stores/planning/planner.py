"""The planner: each operation of a batch decided on its own, over what has been read.

Operations on one session become one unit, in their order. What refuses an operation is found before
anything is noted for it, so that a refused one leaves nothing behind for its neighbours. Nothing is
refused because of what is only remembered from an earlier call: that is read again first.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sojourn import codec, commit, repeats
from sojourn.errors import Corrupt, NotFound, RoleTaken, SojournError
from sojourn.expiry import is_past
from sojourn.lifecycle import OVER
from sojourn.state import rewind
from sojourn.store import Acquire, Change, Committed, Create, Delete, Fork, Renew, Touch
from sojourn.stores.planning.known import (
    WHOLE_LOG,
    Loaded,
    MissingError,
    Named,
    Place,
    Reads,
    Tail,
)
from sojourn.stores.planning.tiers import Tiers
from sojourn.stores.planning.unit import Copy, DocumentChange, Guard, Plan, Unit, drawn
from sojourn.stores.planning.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sojourn.model import Draft, Header
    from sojourn.stores.planning.known import Claim, Key, Known
    from sojourn.stores.planning.operations import Operation
    from sojourn.stores.planning.unit import Outcome, TierChange
    from sojourn.stores.weighing import Weighing

Reached = Literal["memory", "relaxed", "durable"]
"""What the backend will have reached once it has applied a plan."""


class _LaterError(Exception):
    """This operation needs what others of its batch write first."""


def plan(
    operations: Sequence[Operation], known: Known, weighing: Weighing, *, durability: Reached
) -> Plan:
    """Decide operations over what is known.

    `weighing` counts what is written to shared tiers, `durability` is what the results say was
    reached. What is known is not changed.
    """
    return _Planner(known, weighing, durability).plan(operations)


class _Planner:
    """One plan in the making."""

    def __init__(self, known: Known, weighing: Weighing, durability: Reached) -> None:
        self._known = known
        self._durability: Reached = durability
        self._reads = Reads()
        self._works: dict[Key, Work] = {}
        self._shared: list[Unit] = []
        self._blocked: set[Key] = set()
        self._adopting: set[Key] = set()
        self._claims: set[tuple[str, Claim]] = set()
        self._tiers = Tiers(known, self._reads, weighing)
        self._consulted: set[Key] = set()

    def plan(self, operations: Sequence[Operation]) -> Plan:
        """Return what becomes of them."""
        outcomes: list[Outcome] = [None] * len(operations)
        later: list[int] = []
        for number, operation in enumerate(operations):
            self._consulted.clear()
            try:
                if self._blocked and _key_of(operation) in self._blocked:
                    raise _LaterError  # noqa: TRY301 - as its verb does
                outcomes[number] = _VERBS[type(operation)](self, operation)
            except MissingError:
                continue
            except _LaterError:
                later.append(number)
                self._blocked.add(_key_of(operation))
                continue
            except SojournError as error:
                outcomes[number] = error
            if not self._hang(number, operation) and self._reread():
                continue
        units: list[Unit] = [work for work in self._works.values() if work.dirty]
        for unit, version in zip(units, drawn(len(units)), strict=True):
            unit.version = version
        return Plan(self._reads, outcomes, units + self._shared, later)

    def _hang(self, number: int, operation: Operation) -> bool:
        """Note that an outcome holds only if what it was decided on is written, if anything is."""
        if type(operation) is Change and operation.id is None:
            if self._shared and self._shared[-1].op == operation.op:
                self._shared[-1].operations.append(number)
            return True
        hangs = False
        for key in self._consulted:
            work = self._works.get(key)
            if work is not None and work.dirty:
                work.operations.append(number)
                hangs = True
        return hangs

    def _reread(self) -> bool:
        """Ask for the sessions that were looked at and are only remembered; say if there are."""
        stale = self._consulted & self._known.cached
        self._reads.sessions |= stale
        return bool(stale)

    # --- what is known -------------------------------------------------------------------------

    def _want(self, *keys: Key) -> None:
        """Ask for those sessions that are not known yet."""
        self._reads.sessions.update(key for key in keys if key not in self._known.sessions)

    def _check_read(self, *keys: Key) -> None:
        """Stop here while something that was asked for is missing."""
        if any(key not in self._known.sessions for key in keys):
            raise MissingError

    def _loaded(self, key: Key) -> Loaded | None:
        """Return a session as it was read. Raises `Corrupt` for one that can not be read."""
        try:
            found = self._known.sessions[key]
        except KeyError:
            self._want(key)
            raise MissingError from None
        self._consulted.add(key)
        if isinstance(found, Corrupt):
            raise found
        return found

    def _work(self, key: Key) -> Work | None:
        """Return a session as it stands in this plan, `None` when it is missing."""
        work = self._works.get(key)
        if work is not None:
            self._consulted.add(key)
            return work
        loaded = self._loaded(key)
        if loaded is None:
            return None
        work = self._works[key] = Work.on(key, loaded)
        return work

    def _read_log(self, change: Change, key: Key) -> None:
        """Ask, at once, for what a change has to know of the log of a session that was read."""
        missing = False
        work = self._works.get(key)
        if work is not None and work.old is None:
            return
        upto = WHOLE_LOG if work is None or work.truncate_after is None else work.truncate_after
        for draft in change.events:
            named = Named(*key, draft.id)
            if not draft.fresh and named not in self._known.events:
                self._reads.events.add(named)
                missing = True
        if change.expect_tail:
            tail = Tail(*key, upto, len(change.expect_tail))
            if tail not in self._known.tails:
                self._reads.tails.add(tail)
                missing = True
        if change.truncate_after is not None:
            place = Place(*key, min(upto, change.truncate_after))
            if place not in self._known.peaks:
                self._reads.peaks.add(place)
                missing = True
        if missing:
            self._want(key)
            raise MissingError

    def _tail(self, work: Work | None, count: int) -> tuple[int, ...]:
        """Return the last `count` numbers of a log."""
        if work is None or count <= 0:
            return ()
        if work.old is None:
            return work.tail((), count)
        upto = WHOLE_LOG if work.truncate_after is None else work.truncate_after
        return work.tail(self._known.tails[Tail(*work.key, upto, count)], count)

    def _number(
        self, work: Work, drafts: tuple[Draft, ...], *, top: int, cut: int | None = None
    ) -> tuple[tuple[int, ...], int]:
        """Return the number of each event, an old one's for a repeat, and how many are new.

        New ones count on from `top`; what is in the log behind `cut` does not count as there.
        """
        last = top if cut is None else min(top, cut)
        return commit.sequence(drafts, top, partial(self._stored, work, last))

    def _stored(self, work: Work, last: int, draft: Draft) -> int | None:
        """Return the number of the event in a log up to `last` that a draft repeats."""
        found = self._known.events[Named(*work.key, draft.id)] if work.old else ()
        known = work.repeated(draft, found)
        return known.seq if known is not None and known.seq <= last else None

    # --- commits -------------------------------------------------------------------------------

    def commit(self, change: Change) -> Committed:
        """Decide a change; see `Store.commit`."""
        if change.id is None:
            return self._commit_shared(change)
        key = (change.app, change.id)
        if not _only_adds(change):
            self._read_log(change, key)
        work = self._work(key)
        header = work.header if work is not None else None
        if work is not None and header is not None and (known := commit.recall(header, change.op)):
            return self._repeat(work, header, change, known)
        old = commit.forbid(header, change, partial(self._tail, work))
        assert work is not None  # `forbid` raised
        seqs, appended = self._number(work, change.events, top=old.seq, cut=change.truncate_after)
        if appended < len(change.events):
            change = commit.without_repeats(change, seqs, old.seq)
        return self._apply(work, old, change, seqs, appended)

    def _apply(
        self, work: Work, old: Header, change: Change, seqs: tuple[int, ...], appended: int
    ) -> Committed:
        """Note what a change that nothing refuses does."""
        tiers: tuple[TierChange, ...] = ()
        if change.user_tier is not None or change.app_tier is not None:
            tiers = self._tiers.changes(
                change.app, change.user or old.user, change.user_tier, change.app_tier
            )
        if change.session is not None or change.clear:
            where = f"session {old.id!r}"
            work.state = commit.merged_state(
                work.state_after, change.session, clear=change.clear, key=where
            )
        if change.truncate_after is not None:
            self._truncate(work, change.truncate_after)
        work.append(change.events, seqs, old.seq)
        new = commit.advance(old, change, appended)
        work.replace(new, change.now)
        if tiers:
            self._tiers.note(tiers)
            work.tiers += tiers
        if change.documents:
            seq, now = new.seq, change.now
            work.documents += tuple(DocumentChange(part, seq, now) for part in change.documents)
        if new.phase is not old.phase and new.phase in OVER and old.phase not in OVER:
            self._free_claim(work, old)
        return Committed(
            header=commit.apart(new),
            revision=new.revision,
            seqs=seqs,
            before=old.seq,
            durability=self._durability,
        )

    def _truncate(self, work: Work, after: int) -> None:
        upto = WHOLE_LOG if work.truncate_after is None else work.truncate_after
        place = Place(*work.key, min(upto, after))
        work.truncate(after, self._known.peaks[place] if work.old else 0)

    def _free_claim(self, work: Work, old: Header) -> None:
        claim = commit.claim_of(old)
        if claim is None:
            return
        self._claims.add((old.app, claim))
        if work.claim_taken is not None:
            work.claim_taken = None
        else:
            work.claim_freed = claim

    def _repeat(
        self, work: Work, header: Header, change: Change, known: tuple[int, int]
    ) -> Committed:
        """Answer an operation that was applied before with what it led to."""
        seqs, _ = self._number(work, change.events, top=known[1])
        return repeats.committed_before(header, known, seqs, self._durability)

    def _commit_shared(self, change: Change) -> Committed:
        """Decide a change that belongs to no session: shared tiers and the app's documents."""
        commit.check_owner("", change.user, change.user_tier)
        tiers = self._tiers.changes(change.app, change.user, change.user_tier, change.app_tier)
        unit = Unit(key=None, app=change.app, old=None, header=None, now=change.now, op=change.op)
        self._tiers.note(tiers)
        unit.tiers += tiers
        unit.documents = tuple(DocumentChange(part, 0, change.now) for part in change.documents)
        self._shared.append(unit)
        header = commit.shared_header(change)
        return Committed(header=header, revision=0, durability=self._durability)

    def touch(self, touch: Touch) -> Header:
        """Extend an idle deadline; see `Store.touch`."""
        work = self._work((touch.app, touch.id))
        old = work.header if work else None
        header = commit.touched(old, touch.id, touch.now, touch.epoch)
        assert work is not None  # `touched` raised
        if header != old:
            work.replace(header, touch.now)
        return commit.apart(header)

    def acquire(self, acquire: Acquire) -> int:
        """Grant a lease; see `SupportsLease.acquire`."""
        work = self._work((acquire.app, acquire.id))
        header = commit.leased(work.header if work else None, acquire)
        assert work is not None  # `leased` raised
        work.replace(header, acquire.now)
        return header.fence

    def renew(self, renew: Renew) -> None:
        """Renew or release a lease; see `SupportsLease.renew`."""
        work = self._work((renew.app, renew.id))
        header = commit.renewed(work.header if work else None, renew)
        assert work is not None  # `renewed` raised
        work.replace(header, renew.now)

    # --- new sessions --------------------------------------------------------------------------

    def create(self, create: Create) -> Committed:
        """Decide a new session; see `Store.create`."""
        header = create.header
        key = (header.app, header.id)
        self._want_new(header)
        found = self._work(key)
        if found is not None:
            return self._created_before(found, create)
        commit.check_owner(header.id, header.user, create.user_tier)
        work = Work.anew(key, header)
        self._admit(work, header)
        state = commit.merged_state(b"{}", create.session, clear=False, key=header.id)
        tiers = self._tiers.changes(header.app, header.user, create.user_tier, create.app_tier)
        seqs, new = repeats.first_numbers(create.events)
        header = commit.created(commit.apart(header), create.op, new)
        work.state = state
        work.append(create.events, seqs, 0)
        if tiers:
            self._tiers.note(tiers)
            work.tiers += tiers
        return self._add(work, header, seqs)

    def _want_new(self, header: Header) -> None:
        """Ask, at once, for what a new session has to know."""
        self._want((header.app, header.id))
        if header.parent is not None:
            self._want((header.app, header.parent))
        claim = commit.claim_of(header)
        if claim is not None and (header.app, claim) not in self._known.holders:
            self._reads.holders.add((header.app, claim))

    def _add(self, work: Work, header: Header, seqs: tuple[int, ...] = ()) -> Committed:
        work.replace(header, header.created_at)
        self._works[work.key] = work
        if work.claim_taken is not None:
            self._claims.add((header.app, work.claim_taken))
        return Committed(
            header=commit.apart(header),
            revision=header.revision,
            seqs=seqs,
            durability=self._durability,
        )

    def _created_before(self, found: Work, create: Create | Fork) -> Committed:
        """Answer a repeated create with its first result, another one with `AlreadyExists`."""
        assert found.header is not None  # one that is being removed is not looked at
        return repeats.created_before(found.header, create, self._durability)

    def _admit(self, work: Work, header: Header) -> None:
        """Note a new session's claim and parent. Raises `RoleTaken`, `NotFound` or `Ended`."""
        claim = commit.claim_of(header)
        if claim is not None:
            place = (header.app, claim)
            if place in self._claims:
                raise _LaterError
            if place not in self._known.holders:
                raise MissingError
            holder = self._known.holders[place]
            if holder is not None:
                raise RoleTaken(dict(claim), holder)
        if header.parent is not None:
            parent = self._steady((header.app, header.parent))
            commit.check_parent(parent.header if parent else None, header)
            assert parent is not None  # `check_parent` raised
            above = parent.header
            key = (header.app, header.parent)
            work.guards += (Guard(key, above.epoch, above.phase, row=parent.row),)
            self._adopting.add(key)
        work.claim_taken = claim

    def _steady(self, key: Key) -> Loaded | None:
        """Return a session that nothing in this batch makes, removes or moves to another phase."""
        work = self._works.get(key)
        if key in self._blocked:
            raise _LaterError
        if work is not None and work.dirty:
            old = work.old.header.phase if work.old else None
            if work.header is None or work.header.phase is not old:
                raise _LaterError
            if key in self._known.cached:  # a guard is no ground to refuse on: read it
                self._reads.sessions.add(key)
                raise MissingError
            return work.old
        return self._loaded(key)

    def fork(self, fork: Fork) -> Committed:
        """Decide a copy of a session; see `Store.fork`."""
        header = fork.header
        key, source_key = (header.app, header.id), (header.app, fork.source)
        self._want_new(header)
        self._want(source_key)
        rewinds = fork.at is not None  # else all deltas of the log would be read for nothing
        if rewinds and source_key not in self._known.deltas:
            self._reads.deltas.add(source_key)
        found = self._work(key)
        if found is not None:
            return self._created_before(found, fork)
        source = self._untouched(source_key)
        if source is None or is_past(source.header.expires_at, header.created_at):
            raise NotFound(fork.source)
        if rewinds and source_key not in self._known.deltas:
            raise MissingError
        at = source.header.seq if fork.at is None else fork.at
        header = commit.forked(header, source.header, fork.op, at)
        work = Work.anew(key, header)
        self._admit(work, header)
        state = codec.decode_object(source.state, f"session {fork.source!r}")
        deltas = self._known.deltas[source_key] if rewinds else ()
        work.state = codec.encode_object(rewind(state, commit.deltas_of(deltas), at))
        work.peak = source.peak
        work.copy = Copy(source_key, min(at, source.header.seq))
        epoch, version = source.header.epoch, source.version
        work.guards += (Guard(source_key, epoch, version=version, row=source.row),)
        self._blocked.add(source_key)
        return self._add(work, header)

    def _untouched(self, key: Key) -> Loaded | None:
        """Return a session that nothing in this batch writes."""
        work = self._works.get(key)
        if key in self._blocked or (work is not None and work.dirty):
            raise _LaterError
        return self._loaded(key)

    # --- removing ------------------------------------------------------------------------------

    def delete(self, delete: Delete) -> bool:
        """Decide the removal of a session and its children; see `Store.delete`."""
        key = (delete.app, delete.id)
        expected = (delete.epoch, delete.revision, delete.fence)
        try:
            loaded = self._untouched(key)
        except Corrupt:
            if expected != (None, None, None):
                raise
            self._remove(self._family(key))
            return True
        if loaded is None or not commit.may_delete(loaded.header, *expected):
            return False
        self._remove(self._family(key))
        return True

    def _family(self, key: Key) -> list[Key]:
        """Return a session and all below it, parents first."""
        family = [key]
        for member in family:
            if member not in self._known.children:
                self._reads.children.add(member)
                continue
            below = [(member[0], id) for id in self._known.children[member]]
            self._want(*below)
            family += [child for child in below if child not in family]
        if any(member not in self._known.children for member in family):
            raise MissingError
        self._check_read(*family)
        for member in family:
            work = self._works.get(member)
            dirty = work is not None and work.dirty
            if dirty or member in self._blocked or member in self._adopting:
                raise _LaterError
        return family

    def _remove(self, family: list[Key]) -> None:
        """Note that a session is removed, with all below it."""
        found = {key: self._known.sessions[key] for key in family}
        kept = {key: item if isinstance(item, Loaded) else None for key, item in found.items()}
        self._blocked.update(family)
        root = family[0]
        loaded = kept[root]
        work = Work.anew(root, None) if loaded is None else Work.on(root, loaded)
        work.replace(None, 0)
        below = [key for key in reversed(family[1:]) if found[key] is not None]
        work.below = tuple((key, kept[key]) for key in below)
        for item in kept.values():
            claim = commit.claim_of(item.header) if item is not None else None
            if item is not None and claim is not None and item.header.phase not in OVER:
                self._claims.add((item.header.app, claim))
        self._works[root] = work
        self._consulted.add(root)


def _only_adds(change: Change) -> bool:
    """Return whether nothing of the log matters to a change: it adds events of its own, or none."""
    if change.expect_tail is not None or change.truncate_after is not None:
        return False
    for draft in change.events:  # noqa: SIM110 - one of a kind, and this is half the price
        if not draft.fresh:
            return False
    return True


def _key_of(operation: Any) -> Key:
    """Return the session that an operation writes to; the app's own is under no id."""
    if isinstance(operation, Create | Fork):
        return (operation.header.app, operation.header.id)
    return (operation.app, operation.id or "")


_VERBS: dict[type, Callable[[_Planner, Any], Outcome]] = {
    Change: _Planner.commit,
    Create: _Planner.create,
    Fork: _Planner.fork,
    Touch: _Planner.touch,
    Acquire: _Planner.acquire,
    Renew: _Planner.renew,
    Delete: _Planner.delete,
}
"""Which method decides which operation."""

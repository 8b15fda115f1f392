"""The vault: all sessions of a store in memory, and every verb on them as one function call.

Nothing here awaits, so each call is one step. Checks come before the first change: a call that
raises has changed nothing.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

import msgspec

from sojourn import codec, commit, repeats
from sojourn.errors import NotFound, RoleTaken
from sojourn.expiry import is_past
from sojourn.lifecycle import OVER
from sojourn.model import Record, StoredDocument
from sojourn.state import rewind
from sojourn.store import Committed, Create, Listed, Tiers
from sojourn.vault.documents import Documents
from sojourn.vault.index import Index
from sojourn.vault.kept import EMPTY, Kept, kept
from sojourn.vault.log import Log
from sojourn.vault.slot import Slot

if TYPE_CHECKING:
    from sojourn.model import Draft, Encoded, Entry, Header
    from sojourn.store import (
        Acquire,
        Change,
        Delete,
        DocumentQuery,
        Due,
        EventQuery,
        Fork,
        Get,
        Query,
        Renew,
        TierDelta,
        Touch,
    )


class Vault:
    """All sessions, the shared tiers, and the orders and counts that make lists cheap.

    `durability` is what a commit reaches by being in here.
    """

    durability: Literal["memory", "relaxed", "durable"] = "memory"

    def __init__(self) -> None:
        self._rows = 0
        self._slots: dict[tuple[str, str], Slot] = {}
        self._tiers: dict[tuple[str, str | None], Kept] = {}
        self._app_documents: dict[str, Documents] = {}
        self._places = itertools.count(1)
        self._claims: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}
        self._index = Index()

    # --- writing -------------------------------------------------------------------------------

    def create(self, create: Create) -> Committed:
        """Store a new session; see `Store.create`."""
        header = create.header
        found = self._slots.get((header.app, header.id))
        if found is not None:
            return repeats.created_before(found.header, create, self.durability)
        commit.check_owner(header.id, header.user, create.user_tier)
        self._admit(header)
        session = EMPTY.merged(create.session, clear=False, key=header.id).text
        shared = self._shared_tiers(header.app, header.user, create.user_tier, create.app_tier)
        seqs, new = repeats.first_numbers(create.events)
        header = commit.created(commit.apart(header), create.op, new)
        slot = self._add(header, session)
        self._tiers.update(shared)
        if create.events:
            self._log_all(slot, create.events, seqs)
        return Committed(
            header=commit.apart(header),
            revision=header.revision,
            seqs=seqs,
            durability=self.durability,
        )

    def _admit(self, header: Header) -> None:
        """Refuse a new session without its parent, or whose claim is taken (`RoleTaken`)."""
        claim = commit.claim_of(header)
        if claim is not None and (holder := self._claims.get((header.app, claim))) is not None:
            raise RoleTaken(dict(claim), holder)
        if header.parent is not None:
            parent = self._slots.get((header.app, header.parent))
            commit.check_parent(_header(parent), header)

    def _add(self, header: Header, state: bytes) -> Slot:
        self._rows += 1
        slot = Slot(self._rows, header, kept(state))
        self._slots[header.app, header.id] = slot
        parent = self._parent(slot)
        if parent is not None:
            parent.adopt(header.id)
        claim = commit.claim_of(header)
        if claim is not None:
            self._claims[header.app, claim] = header.id
        self._index.add(slot)
        return slot

    def _family(self, parent: Slot) -> set[Slot]:
        """Return the children of a session."""
        app = parent.header.app
        return {self._slots[app, id] for id in parent.children or ()}

    def _parent(self, slot: Slot) -> Slot | None:
        header = slot.header
        return None if header.parent is None else self._slots.get((header.app, header.parent))

    def fork(self, fork: Fork) -> Committed:
        """Copy a session; see `Store.fork`."""
        header = fork.header
        found = self._slots.get((header.app, header.id))
        if found is not None:
            return repeats.created_before(found.header, fork, self.durability)
        source = self._slots.get((header.app, fork.source))
        if source is None or is_past(source.header.expires_at, header.created_at):
            raise NotFound(fork.source)
        at = source.header.seq if fork.at is None else fork.at
        state = source.kept.values(fork.source)
        deltas = commit.deltas_of(source.log.changing() if source.log else ())
        state = rewind(state, deltas, at)
        header = commit.forked(header, source.header, fork.op, at)
        self._admit(header)
        slot = self._add(header, codec.encode_object(state))
        self._copy(source, slot, at)
        return Committed(
            header=commit.apart(header), revision=header.revision, durability=self.durability
        )

    def _copy(self, source: Slot, slot: Slot, at: int) -> None:
        """Give a fork the events of its source up to `at`, and the documents put until then."""
        if source.log is not None:
            slot.log = source.log.copied(at)
        if source.documents is not None:
            slot.documents = source.documents.copied(at)

    def commit(self, change: Change) -> Committed:
        """Apply a change; see `Store.commit`."""
        if change.id is None:
            return self._commit_shared(change)
        slot = self._slots.get((change.app, change.id))
        if slot is None:
            raise NotFound(change.id)
        if known := commit.recall(slot.header, change.op):
            return self._repeat(slot, change, known)
        old = commit.forbid(slot.header, change, slot.tail)
        seqs: tuple[int, ...] = ()
        new = 0
        if change.events:
            seqs, new = self._number(slot, change.events, top=old.seq, cut=change.truncate_after)
            if new < len(change.events):
                change = commit.without_repeats(change, seqs, old.seq)
        user = change.user or old.user
        shared = self._shared_tiers(change.app, user, change.user_tier, change.app_tier)
        if change.session is not None or change.clear:
            slot.kept = slot.kept.merged(change.session, clear=change.clear, key=old.id)
        header = commit.advance(old, change, new)
        if change.truncate_after is not None and slot.log is not None:
            slot.log.truncate(change.truncate_after)
        if change.events:
            self._log_all(slot, change.events, seqs, above=old.seq)
        self._tiers.update(shared)
        self._replace(slot, header)
        if change.documents:
            self._put_documents(slot, change)
        return Committed(
            header=commit.apart(header),
            revision=header.revision,
            seqs=seqs,
            before=old.seq,
            durability=self.durability,
        )

    def _commit_shared(self, change: Change) -> Committed:
        """Apply a change that belongs to no session: shared tiers and the app's documents."""
        header = commit.shared_header(change)
        commit.check_owner("", change.user, change.user_tier)
        shared = self._shared_tiers(change.app, change.user, change.user_tier, change.app_tier)
        self._tiers.update(shared)
        documents = self._documents_of_app(change.app)
        documents.apply(change.documents, seq=0, now=change.now, numbers=self._places)
        return Committed(header=header, revision=0, durability=self.durability)

    def _repeat(self, slot: Slot, change: Change, known: tuple[int, int]) -> Committed:
        """Answer an operation that was applied before with what it led to."""
        seqs, _ = self._number(slot, change.events, top=known[1])
        return repeats.committed_before(slot.header, known, seqs, self.durability)

    def _number(
        self, slot: Slot, drafts: tuple[Draft, ...], *, top: int, cut: int | None = None
    ) -> tuple[tuple[int, ...], int]:
        """Return the number of each event, an old one's for a repeat, and how many are new.

        New ones count on from `top`; what is in the log behind `cut` does not count as there.
        """
        if len(drafts) == 1 and drafts[0].fresh:
            return (top + 1,), 1
        last = top if cut is None else min(top, cut)

        def stored(draft: Draft) -> int | None:
            known = None if slot.log is None else slot.log.repeated(draft)
            return known.seq if known is not None and known.seq <= last else None

        return commit.sequence(drafts, top, stored)

    def _log(self, slot: Slot) -> Log:
        if slot.log is None:
            slot.log = self._new_log()
        return slot.log

    def _new_log(self) -> Log:
        return Log()

    def _new_documents(self) -> Documents:
        return Documents()

    def _documents_of_app(self, app: str) -> Documents:
        documents = self._app_documents.get(app)
        if documents is None:
            documents = self._app_documents[app] = self._new_documents()
        return documents

    def _log_all(
        self, slot: Slot, drafts: tuple[Draft, ...], seqs: tuple[int, ...], above: int = 0
    ) -> None:
        """Add the drafts whose number is new."""
        log = slot.log
        if log is None:
            log = slot.log = self._new_log()
        if len(drafts) == 1 and seqs[0] > above:
            log.add(commit.numbered(drafts[0], seqs[0]))
            return
        for draft, seq in zip(drafts, seqs, strict=True):
            if seq > above:
                log.add(commit.numbered(draft, seq))
                above = seq

    def _put_documents(self, slot: Slot, change: Change) -> None:
        if slot.documents is None:
            slot.documents = self._new_documents()
        slot.documents.apply(
            change.documents, seq=slot.header.seq, now=change.now, numbers=self._places
        )

    def _shared_tiers(
        self, app: str, user: str | None, ours: TierDelta | None, everyones: TierDelta | None
    ) -> dict[tuple[str, str | None], Kept]:
        """Return the shared tiers as they will be; nothing is changed yet."""
        new: dict[tuple[str, str | None], Kept] = {}
        if ours is not None:
            tier = app, user
            new[tier] = self._tiers.get(tier, EMPTY).merged(ours, clear=False, key="tier")
        if everyones is not None:
            tier = app, None
            new[tier] = self._tiers.get(tier, EMPTY).merged(everyones, clear=False, key="tier")
        return new

    def touch(self, touch: Touch) -> Header:
        """Extend the idle deadline; see `Store.touch`."""
        slot = self._slots.get((touch.app, touch.id))
        header = commit.touched(_header(slot), touch.id, touch.now, touch.epoch)
        assert slot is not None  # `touched` raised
        self._replace(slot, header)
        return commit.apart(header)

    def acquire(self, acquire: Acquire) -> int:
        """Grant a lease; see `SupportsLease.acquire`."""
        slot = self._slots.get((acquire.app, acquire.id))
        header = commit.leased(_header(slot), acquire)
        assert slot is not None  # `leased` raised
        slot.header = header
        return header.fence

    def renew(self, renew: Renew) -> None:
        """Renew or release a lease; see `SupportsLease.renew`."""
        slot = self._slots.get((renew.app, renew.id))
        header = commit.renewed(_header(slot), renew)
        assert slot is not None  # `renewed` raised
        slot.header = header

    # --- removing ------------------------------------------------------------------------------

    def delete(self, delete: Delete) -> list[str]:
        """Remove a session and its children; return the ids removed, the session's own first."""
        slot = self._slots.get((delete.app, delete.id))
        if slot is None or not commit.may_delete(
            slot.header, delete.epoch, delete.revision, delete.fence
        ):
            return []
        return self._remove(slot)

    def _remove(self, slot: Slot) -> list[str]:
        header = slot.header
        if self._slots.get((header.app, header.id)) is not slot:
            return []
        del self._slots[header.app, header.id]
        parent = self._parent(slot)
        if parent is not None:
            parent.disown(header.id)
        self._free_claim(slot)
        self._index.remove(slot)
        removed = [header.id]
        for child in sorted(self._family(slot), key=lambda child: child.row):
            removed += self._remove(child)
        return removed

    def _replace(self, slot: Slot, header: Header) -> None:
        old, slot.header = slot.header, header
        if header.phase in OVER:
            self._free_claim(slot)
        self._index.replaced(slot, old)

    def _free_claim(self, slot: Slot) -> None:
        claim = commit.claim_of(slot.header)
        if claim is not None and self._claims.get((slot.header.app, claim)) == slot.header.id:
            del self._claims[slot.header.app, claim]

    def forget(self, app: str, user: str) -> tuple[int, list[str]]:
        """Remove a user's sessions and tier; return how many and every id removed."""
        slots = self._index.of_user(app, user)
        removed: list[str] = []
        for slot in slots:
            removed += self._remove(slot)
        self._tiers.pop((app, user), None)
        return len(slots), removed

    def due(self, due: Due) -> list[Header]:
        """Return due sessions; see `Store.due`."""
        return [commit.apart(slot.header) for slot in self._index.due(due)]

    def reap(self, due: Due) -> tuple[list[str], list[str]]:
        """Remove due sessions; return their ids, and the ids of all that were removed."""
        slots = self._index.due(due)
        removed = [id for slot in slots for id in self._remove(slot)]
        return [slot.header.id for slot in slots], removed

    # --- reading -------------------------------------------------------------------------------

    def get(self, get: Get) -> Record | None:
        """Return a session; see `Store.get`."""
        slot = self._slots.get((get.app, get.id))
        if slot is None or (not get.expired and is_past(slot.header.expires_at, get.now)):
            return None
        return self._record(slot, () if get.window is None else tuple(slot.entries(get.window)))

    def _record(self, slot: Slot, entries: tuple[Entry, ...] = ()) -> Record:
        header = commit.apart(slot.header)
        app, user, tiers = header.app, header.user, self._tiers
        return Record(
            header=header,
            state=slot.kept.values(header.id),
            user_state=self._tier(app, user) if tiers and user is not None else {},
            app_state=self._tier(app, None) if tiers else {},
            entries=entries,
        )

    def tiers(self, app: str, user: str | None) -> Tiers:
        """Return shared state; see `Store.tiers`."""
        return Tiers(
            {} if user is None else self._tier(app, user),
            self._tier(app, None),
        )

    def _tier(self, app: str, owner: str | None) -> Encoded:
        tier = self._tiers.get((app, owner))
        return {} if tier is None else tier.values(f"tier of {app}")

    def events(self, app: str, id: str, now: int, window: EventQuery) -> list[Entry] | None:
        """Return a window of a log; see `Store.events`."""
        slot = self._slots.get((app, id))
        if slot is None or is_past(slot.header.expires_at, now):
            return None
        return slot.entries(window)

    def document(self, query: DocumentQuery) -> StoredDocument | None:
        """Return one document; see `Store.document`."""
        documents = self._documents_of(query)
        return None if documents is None else documents.one(query)

    def documents(self, query: DocumentQuery) -> list[StoredDocument]:
        """Return documents; see `Store.documents`."""
        documents = self._documents_of(query)
        return [] if documents is None else documents.several(query)

    def _documents_of(self, query: DocumentQuery) -> Documents | None:
        if query.id is None:
            return self._app_documents.get(query.app)
        slot = self._slots.get((query.app, query.id))
        if slot is None or (is_past(slot.header.expires_at, query.now) and not query.expired):
            return None
        return slot.documents

    # --- lists and counts ----------------------------------------------------------------------

    def list(self, query: Query) -> Listed:
        """Return a page of sessions; see `Store.list`."""
        slots: list[Slot] = []
        last: int | None = None
        for key, slot in self._index.in_order(query, self._children_of(query)):
            if len(slots) == query.limit:
                return Listed([self._record(slot) for slot in slots], str(last))
            slots.append(slot)
            last = key
        return Listed([self._record(slot) for slot in slots], None)

    def count(self, query: Query) -> int:
        """Return how many sessions match; see `Store.count`."""
        query = msgspec.structs.replace(query, expired=False, position=None)
        return self._index.count(query, self._children_of(query))

    def _children_of(self, query: Query) -> set[Slot] | None:
        if query.parent is None:
            return None
        parent = self._slots.get((query.app, query.parent))
        return None if parent is None else self._family(parent)


def _header(slot: Slot | None) -> Header | None:
    return None if slot is None else slot.header

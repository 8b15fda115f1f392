"""A backend in a few dicts that applies plans: what the planner says, and nothing of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sojourn import commit
from sojourn.expiry import is_past
from sojourn.model import StoredDocument
from sojourn.store import Put
from sojourn.stores.planning import Known, Loaded, Recent, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Entry
    from sojourn.stores.planning import Key, Operation, Outcome, Plan, Reads, Unit

ROUNDS = 20
"""Plans that a batch may take: its own operations are all that gets in its way."""


class Kept:
    """One session as the backend keeps it."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.log: list[Entry] = []
        self.peaks: list[int] = []
        self.documents: dict[tuple[str, str], StoredDocument] = {}


class PlannedStore:
    """Sessions in dicts, written by units."""

    def __init__(self) -> None:
        self.sessions: dict[Key, Kept] = {}
        self.tiers: dict[tuple[str, str | None], dict[str, bytes]] = {}
        self.documents: dict[tuple[str, str], StoredDocument] = {}
        self.claims: dict[Any, str] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.versions = 0

    # --- reading -------------------------------------------------------------------------------

    def read(self, reads: Reads, known: Known) -> None:
        """Add everything that is asked for."""
        for key in reads.sessions:
            kept = self.sessions.get(key)
            known.read(key, kept.loaded if kept else None)
        for named in reads.events:
            log = self._log(named[:2])
            known.events[named] = tuple(entry for entry in log if entry.id == named.event)
        for tail in reads.tails:
            seqs = tuple(entry.seq for entry in self._log(tail[:2]) if entry.seq <= tail.upto)
            known.tails[tail] = seqs[-tail.most :]
        for place in reads.peaks:
            times = [entry.at for entry in self._log(place[:2]) if entry.seq <= place.upto]
            known.peaks[place] = max(times, default=0)
        for key in reads.deltas:
            log = self._log(key)
            known.deltas[key] = tuple(entry for entry in log if entry.changes or entry.deleted)
        for owner in reads.sizes:
            tier = self.tiers.get((owner.app, owner.user), {})
            known.sizes[owner] = {name: len(name) + len(value) for name, value in tier.items()}
        for claim in reads.holders:
            known.holders[claim] = self.claims.get(claim)
        for key in reads.children:
            known.children[key] = tuple(
                id
                for (app, id), kept in self.sessions.items()
                if app == key[0] and kept.loaded and kept.loaded.header.parent == key[1]
            )

    def _log(self, key: Key) -> list[Entry]:
        kept = self.sessions.get(key)
        return kept.log if kept else []

    # --- writing -------------------------------------------------------------------------------

    def apply(self, unit: Unit) -> bool:
        """Write a unit; `False`, and nothing, if what it expects is not so."""
        if not (self._guards_hold(unit) and self._is_as_expected(unit)):
            return False
        self._count(unit)
        if unit.key is None:
            self._document(unit, self.documents)
        elif unit.header is None:
            self._remove(unit)
        else:
            self._write(unit, self.sessions.setdefault(unit.key, Kept()))
        if unit.claim_freed is not None:
            del self.claims[unit.app, unit.claim_freed]
        if unit.claim_taken is not None and unit.key is not None:
            self.claims[unit.app, unit.claim_taken] = unit.key[1]
        return True

    def _remove(self, unit: Unit) -> None:
        for key in (unit.key, *(key for key, _ in unit.below)):
            assert key is not None, "only sessions are removed"
            assert key in self.sessions, "it was there when this was planned"
            del self.sessions[key]
            self.claims = {place: id for place, id in self.claims.items() if id != key[1]}

    def share(self, units: Sequence[Unit]) -> None:
        """Write what units do to shared tiers, in the order of their operations."""
        changes = [change for unit in units for change in unit.tiers]
        for tier in sorted(changes, key=lambda change: change.order):
            kept = self.tiers.setdefault((tier.app, tier.user), {})
            kept.update({name: bytes(value) for name, value in tier.set.items()})
            for name in tier.drop:
                kept.pop(name, None)

    def _count(self, unit: Unit) -> None:
        for place, by in unit.counts().items():
            self.counts[place] = self.counts.get(place, 0) + by
            if not self.counts[place]:
                del self.counts[place]

    def _guards_hold(self, unit: Unit) -> bool:
        for guard in unit.guards:
            kept = self.sessions.get(guard.key)
            if kept is None or kept.loaded is None or kept.loaded.header.epoch != guard.epoch:
                return False
            if guard.phase not in (None, kept.loaded.header.phase):
                return False
            if guard.version not in (None, kept.loaded.version):
                return False
        return unit.claim_taken is None or (unit.app, unit.claim_taken) not in self.claims

    def _is_as_expected(self, unit: Unit) -> bool:
        if unit.key is None:
            return True
        there = self.sessions.get(unit.key)
        if unit.old is None:
            return there is None or unit.header is None
        gone = {unit.key, *(key for key, _ in unit.below)} if unit.header is None else set()
        if any(
            (app, kept.loaded.header.parent) in gone and (app, id) not in gone
            for (app, id), kept in self.sessions.items()
            if kept.loaded is not None
        ):
            return False
        below = [self._same(self.sessions.get(key), loaded) for key, loaded in unit.below]
        return all(below) and self._same(there, unit.old)

    def _same(self, there: Kept | None, known: Loaded | None) -> bool:
        if there is None or there.loaded is None or known is None:
            return False
        return (there.loaded.header.epoch, there.loaded.version) == (
            known.header.epoch,
            known.version,
        )

    def _write(self, unit: Unit, kept: Kept) -> None:
        assert unit.header is not None, "its session stays"
        state = unit.state if kept.loaded is None else unit.state or kept.loaded.state
        assert state is not None, "a new session has a state"
        kept.loaded = Loaded(unit.header, state, unit.version, unit.peak)
        assert kept.loaded == unit.written(), "what is kept for the next time is what is written"
        if unit.truncate_after is not None:
            kept.log = [entry for entry in kept.log if entry.seq <= unit.truncate_after]
        if unit.copy is not None:
            source = self.sessions[unit.copy.source]
            kept.log = [entry for entry in source.log if entry.seq <= unit.copy.upto]
            kept.documents = {
                place: item
                for place, item in source.documents.items()
                if item.seq <= unit.copy.upto
            }
        kept.log += unit.entries
        assert [entry.seq for entry in kept.log] == sorted({entry.seq for entry in kept.log})
        assert all(peak >= entry.at for peak, entry in zip(unit.peaks, unit.entries, strict=True))
        assert unit.peak >= max((entry.at for entry in kept.log), default=0)
        self._document(unit, kept.documents)

    def _document(self, unit: Unit, documents: dict[tuple[str, str], StoredDocument]) -> None:
        for part, seq, now in unit.documents:
            if not isinstance(part, Put):
                for place in list(documents):
                    if place[0] == part.collection and part.key in (None, place[1]):
                        del documents[place]
                continue
            old = documents.get((part.collection, part.key))
            documents[part.collection, part.key] = StoredDocument(
                collection=part.collection,
                key=part.key,
                content_type=part.content_type,
                size=len(part.body),
                seq=seq,
                created_at=now if old is None or is_past(old.expires_at, now) else old.created_at,
                updated_at=now,
                expires_at=part.expires_at,
                body=part.body,
            )

    def check_counts(self) -> None:
        """Fail if a kept count is not the number of sessions that it counts."""
        from sojourn.stores.planning import counted

        counts: dict[tuple[str, str], int] = {}
        for kept in self.sessions.values():
            if kept.loaded is not None:
                for place, by in counted(None, kept.loaded.header).items():
                    counts[place] = counts.get(place, 0) + by
        assert counts == self.counts


class Process:
    """One of several processes that write to a store, with what it remembers of it."""

    def __init__(self, store: PlannedStore) -> None:
        self.store = store
        self.recent = Recent()

    def plan(self, operations: Sequence[Operation]) -> Plan:
        """Return a plan that needs no more reads."""
        known = Known()
        for operation in operations:
            for key in keys_of(operation):
                if (loaded := self.recent.get(key)) is not None:
                    known.recall(key, loaded)
        for _ in range(ROUNDS):
            made = plan(operations, known, self.recent.weighing, durability="memory")
            if not made.reads:
                return made
            self.store.read(made.reads, known)
        raise AssertionError("reads never end")

    def run(self, operations: Sequence[Operation]) -> list[tuple[Operation, Outcome]]:
        """Write a batch; return each operation with its outcome, in the order of their effects."""
        done: list[tuple[Operation, Outcome]] = []
        for _ in range(ROUNDS):
            if not operations:
                return done
            made = self.plan(operations)
            applied = {id(unit): self._applied(unit) for unit in made.units}
            self.store.share([unit for unit in made.units if applied[id(unit)]])
            moved = {at for unit in made.units if not applied[id(unit)] for at in unit.operations}
            again = moved | set(made.later)
            done += [
                (operation, made.outcomes[at])
                for at, operation in enumerate(operations)
                if at not in again
            ]
            operations = [operation for at, operation in enumerate(operations) if at in again]
        raise AssertionError("a batch never ends")

    def _applied(self, unit: Unit) -> bool:
        applied = self.store.apply(unit)
        for key in (unit.key, *(guard.key for guard in unit.guards)):
            if key is not None and (not applied or unit.header is None):
                self.recent.drop(key)
        for key, _ in unit.below:
            self.recent.drop(key)
        loaded = unit.written()
        if applied and unit.key is not None and loaded is not None:
            self.recent.keep(unit.key, loaded)
        return applied


def keys_of(operation: Any) -> list[Key]:
    """Return the sessions that an operation is about."""
    if not hasattr(operation, "header"):
        return [(operation.app, operation.id)] if operation.id else []
    header = operation.header
    ids = (header.id, header.parent, getattr(operation, "source", None))
    return [(header.app, id) for id in ids if id]


def without_place(document: StoredDocument) -> StoredDocument:
    """Return a document without its number, which says only what came before what."""
    return msgspec.structs.replace(document, number=0)


def told(error: BaseException) -> tuple[str, str]:
    """Return what tells errors apart."""
    return type(error).__name__, str(error)


__all__ = ["Known", "PlannedStore", "Process", "commit", "told", "without_place"]

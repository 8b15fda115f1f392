"""Deciding: what operations lead to, while the vault that is read stays as it is.

The decisions are the vault's own. They are made on a layer above it that notes what came of each,
as effects: those are written, and only what is written becomes part of the vault. If the write
fails, the layer is thrown away, and nothing has happened.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from msgspec import Raw

from sojourn import codec, commit, restoring
from sojourn.errors import Corrupt, Unserializable
from sojourn.model import StoredDocument
from sojourn.operations import FindDue, Forget, Reap
from sojourn.store import (
    Acquire,
    Change,
    Create,
    Delete,
    Fork,
    Renew,
    Restore,
    RestoreShared,
    Tier,
    TierDelta,
    Touch,
)
from sojourn.stores.filesystem import effects
from sojourn.stores.filesystem.documents import PlacedDocuments, WorkingDocuments
from sojourn.stores.filesystem.effects import DocumentsLine, DropLine, TierLine
from sojourn.stores.filesystem.keeping import Known
from sojourn.stores.filesystem.layering import Layer, Looking, WorkingLog, WorkingSlot
from sojourn.vault.transfer import TransferVault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sojourn.model import Draft, Header
    from sojourn.operations import Operation, Outcome
    from sojourn.store import Committed, Due, Durability, Snapshot
    from sojourn.stores.filesystem.keeping import KeepingVault
    from sojourn.vault.slot import Slot


class Noted(NamedTuple):
    """A frame to be written: its text, what is attached to it, and what it says.

    `known` is what that makes of a session, so that it need not be worked out again.
    """

    text: bytes
    attachments: tuple[bytes, ...]
    effect: effects.Effect
    known: Known | None = None


ALONE = (Fork, Forget, FindDue, Reap, Restore, RestoreShared)
"""Operations that look at more than the layer shows: each is decided when all before it is kept."""


class Deciding(TransferVault):
    """A layer above a vault. `noted` is what has to be written for what was decided."""

    def __init__(self, kept: KeepingVault, durability: Durability) -> None:
        """`durability` is what the write of these operations reaches."""
        super().__init__()
        self.durability = durability
        self.noted: list[Noted] = []
        self.is_unclear = False
        """Whether something was decided that could not be noted: all of it has to go."""
        below = kept.contents()
        self._rows = below.rows
        slots: Layer[tuple[str, str], Slot] = Layer(below.slots, WorkingSlot)
        self._slots = slots
        self._tiers = Layer(below.tiers)
        self._app_documents = Layer(below.app_documents, _working_documents)
        self._places = itertools.count(below.places)
        self._claims = Layer(below.claims)
        self._index = Looking(below.index, slots)
        self._staged = Layer(below.staged)
        self._given_up: list[str] = []

    def apply(self, operation: Operation) -> Outcome:
        """Decide an operation and return its outcome. What refuses it is raised."""
        return _VERBS[type(operation)](self, operation)

    def _note(
        self,
        effect: effects.Effect,
        documents: Iterable[StoredDocument] = (),
        known: Known | None = None,
    ) -> None:
        self.is_unclear = True
        text = effects.encode(effect)
        try:
            written = effects.decode(text, "this write")
        except Corrupt as error:  # what could not be read again is not written
            raise Unserializable("this write", error.reason) from error
        attachments = tuple(document.body or b"" for document in documents)
        self.noted.append(Noted(text, attachments, written, known))
        self.is_unclear = False

    def _new_documents(self) -> WorkingDocuments:
        return WorkingDocuments(None)

    def _put_documents(self, slot: Slot, change: Change) -> None:
        if change.documents and slot.documents is None and isinstance(slot, WorkingSlot):
            slot.documents = _working_documents(slot.papers)
        super()._put_documents(slot, change)

    def _log_all(
        self, slot: Slot, drafts: tuple[Draft, ...], seqs: tuple[int, ...], above: int = 0
    ) -> None:
        """Append the drafts whose number is new."""
        if not isinstance(slot.log, WorkingLog):
            super()._log_all(slot, drafts, seqs, above)
            return
        for draft, seq in zip(drafts, seqs, strict=True):
            if seq > above:
                slot.log.later(draft, seq)
                above = seq

    # --- writing -------------------------------------------------------------------------------

    def create(self, create: Create) -> Committed:
        """Decide a creation."""
        created = super().create(create)
        if not created.repeated:
            header = create.header
            slot = self._slots[header.app, header.id]
            tiers = _tier_lines(slot.header.user, create.user_tier, create.app_tier)
            events = _event_raws(create.events, created.seqs, 0)
            self._note(
                effects.Created(
                    row=slot.row,
                    header=slot.header,
                    state=Raw(slot.state),
                    tiers=tiers,
                    events=events,
                )
            )
        return created

    def commit(self, change: Change) -> Committed:
        """Decide a change."""
        committed = super().commit(change)
        if committed.repeated:
            return committed
        tiers = (change.user_tier, change.app_tier)
        if change.id is None:
            taken = _taken(self._app_documents.get(change.app))
            lines = _tier_lines(change.user, *tiers)
            if lines or taken.line.put or taken.line.drop:
                self._note(effects.Shared(tiers=lines, documents=taken.line), taken.put)
            return committed
        before = committed.before
        if len(change.events) != committed.header.seq - before:
            change = commit.without_repeats(change, committed.seqs, before)
        self._note_change(change, committed)
        return committed

    def _note_change(self, change: Change, committed: Committed) -> None:
        slot = self._slots[change.app, change.id or ""]
        header, delta = slot.header, change.session
        rest = any((change.user, change.labels is not None, change.deadlines, change.retry))
        taken = _taken(slot.documents) if change.documents else _NONE_TAKEN
        self._note(
            effects.Changed(
                id=header.id,
                op=change.op,
                revision=header.revision,
                seq=header.seq,
                active_at=header.active_at,
                expires_at=header.expires_at,
                due_at=header.due_at,
                header=_bare(header) if rest or change.move is not None else None,
                clear=change.clear,
                set=delta.set if delta is not None else {},
                drop=delta.drop if delta is not None else (),
                cut=change.truncate_after,
                tiers=_tier_lines(header.user, change.user_tier, change.app_tier),
                documents=taken.line,
                events=_event_raws(change.events, committed.seqs, committed.before),
            ),
            taken.put,
            Known(header, slot.kept),
        )

    def touch(self, touch: Touch) -> Header:
        """Decide a touch."""
        header = super().touch(touch)
        self._note_header(header, rest=False)
        return header

    def acquire(self, acquire: Acquire) -> int:
        """Decide a lease."""
        fence = super().acquire(acquire)
        self._note_header(self._slots[acquire.app, acquire.id].header, rest=True)
        return fence

    def renew(self, renew: Renew) -> None:
        """Decide the end of a lease."""
        super().renew(renew)
        self._note_header(self._slots[renew.app, renew.id].header, rest=True)

    def _note_header(self, header: Header, *, rest: bool) -> None:
        """Note a header that moved without a commit."""
        self._note(
            effects.Changed(
                id=header.id,
                revision=header.revision,
                seq=header.seq,
                active_at=header.active_at,
                expires_at=header.expires_at,
                due_at=header.due_at,
                header=_bare(header) if rest else None,
            )
        )

    def fork(self, fork: Fork) -> Committed:
        """Decide a fork."""
        forked = super().fork(fork)
        if not forked.repeated:
            slot = self._slots[fork.header.app, fork.header.id]
            source = self._slots[fork.header.app, fork.source].header
            at = source.seq if fork.at is None else fork.at
            self._note(
                effects.Forked(
                    row=slot.row,
                    source=fork.source,
                    at=at,
                    header=slot.header,
                    state=Raw(slot.state),
                )
            )
        return forked

    def _copy(self, source: Slot, slot: Slot, at: int) -> None:
        """Nothing: who keeps the fork copies the places."""

    # --- removing ------------------------------------------------------------------------------

    def delete(self, delete: Delete) -> list[str]:
        """Decide a deletion."""
        removed = super().delete(delete)
        self._note_removed(removed)
        return removed

    def forget(self, app: str, user: str) -> tuple[int, list[str]]:
        """Decide what goes with a user."""
        tier = self._tiers.get((app, user))
        count, removed = super().forget(app, user)
        self._note_removed(removed, None if tier is None else user)
        return count, removed

    def due(self, due: Due) -> list[Header]:
        """Find what is due, and give up what was abandoned."""
        found = super().due(due)
        self._note_removed([])
        return found

    def reap(self, due: Due) -> tuple[list[str], list[str]]:
        """Decide what is reaped."""
        reaped, removed = super().reap(due)
        self._note_removed(removed)
        return reaped, removed

    def _note_removed(self, removed: list[str], user: str | None = None) -> None:
        given_up, self._given_up = self._given_up, []
        if removed or given_up or user is not None:
            ids, staged = tuple(removed), tuple(given_up)
            self._note(effects.Removed(ids=ids, user=user, staged=staged))

    def _drop_staged(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in list(keys):
            if self._staged.get(key) is not None:
                del self._staged[key]
                self._given_up.append(key[1])

    # --- from elsewhere ------------------------------------------------------------------------

    def restore(self, restore: Restore) -> Literal["restored", "unchanged", "partial"]:
        """Decide a restore."""
        header = restore.snapshot.header
        slot = self._slots.get((header.app, header.id))
        before = slot.header if slot else None
        outcome = super().restore(restore)
        if outcome == "unchanged" and slot is not None and slot.header != before:
            self._note_header(slot.header, rest=True)
        self._note_removed([])
        return outcome

    def _stage(self, key: tuple[str, str], restore: Restore) -> None:  # noqa: ARG002 - the header has it
        """Note a part. The last one is noted with the whole."""
        snapshot = restore.snapshot
        if snapshot.last:
            return
        documents = self._numbered(snapshot.documents)
        self._note(
            effects.Staged(
                op=restore.op.hex(),
                part=snapshot.part,
                abandoned_at=restore.abandoned_at,
                header=snapshot.header,
                state=Raw(codec.encode_object(snapshot.state)),
                documents=_put_lines(documents),
                events=[effects.event_raw(entry, entry.seq) for entry in snapshot.entries],
            ),
            documents,
        )

    def _put_staged(self, slot: Slot | None, restore: Restore) -> None:  # noqa: ARG002 - it is looked up again
        """Note a whole session of which the last part has come."""
        self._put_whole(restore.snapshot, staged=True)

    def _put(self, slot: Slot | None, snapshot: Snapshot) -> None:  # noqa: ARG002 - it is looked up again
        self._put_whole(snapshot, staged=False)

    def _put_whole(self, snapshot: Snapshot, *, staged: bool) -> None:
        slot = self._slots.get((snapshot.header.app, snapshot.header.id))
        if slot is None:
            self._rows += 1
        documents = self._numbered(snapshot.documents)
        self._note(
            effects.Restored(
                row=self._rows if slot is None else slot.row,
                header=restoring.unleased(snapshot.header, slot.header.fence if slot else 0),
                staged=staged,
                state=Raw(codec.encode_object(snapshot.state)),
                documents=_put_lines(documents),
                events=[effects.event_raw(entry, entry.seq) for entry in snapshot.entries],
            ),
            documents,
        )

    def _numbered(self, documents: Iterable[StoredDocument]) -> list[StoredDocument]:
        """Return documents with numbers of this store, in their order."""
        working = WorkingDocuments(None)
        for document in documents:
            working.place(document, self._places)
        return [item for item in working.taken() if isinstance(item, StoredDocument)]

    def restore_shared(self, restore: RestoreShared) -> None:
        """Decide what becomes of tiers and the app's documents."""
        super().restore_shared(restore)
        owners = {item.user for item in restore.items if isinstance(item, Tier)}
        lines = tuple(
            TierLine(user=user, whole=True, set=self._tier(restore.app, user)) for user in owners
        )
        taken = _taken(self._app_documents.get(restore.app))
        if lines or taken.line.put:
            self._note(effects.Shared(tiers=lines, documents=taken.line), taken.put)


class _Taken(NamedTuple):
    """What came of changes to documents: their lines, and those that are put with their bodies."""

    line: DocumentsLine
    put: list[StoredDocument]


_NONE_TAKEN = _Taken(effects.NO_DOCUMENTS, [])


def _taken(documents: Any) -> _Taken:
    """Take what came of changes to documents: what is gone first, then what is there."""
    if documents is None:
        return _NONE_TAKEN
    dropped: list[DropLine] = []
    put: dict[tuple[str, str], StoredDocument] = {}
    for item in documents.taken():
        if isinstance(item, StoredDocument):
            put[item.collection, item.key] = item
            continue
        dropped.append(DropLine(collection=item.collection, key=item.key))
        gone = [
            where for where in put if where[0] == item.collection and item.key in (None, where[1])
        ]
        for where in gone:
            del put[where]
    left = list(put.values())
    if not left and not dropped:
        return _NONE_TAKEN
    return _Taken(_put_lines(left, tuple(dropped)), left)


def _put_lines(
    documents: Iterable[StoredDocument], dropped: tuple[DropLine, ...] = ()
) -> DocumentsLine:
    put = tuple(map(effects.document_line, documents))
    return DocumentsLine(drop=dropped, put=put) if put or dropped else effects.NO_DOCUMENTS


def _tier_lines(
    user: str | None, ours: TierDelta | None, everyones: TierDelta | None
) -> tuple[TierLine, ...]:
    if ours is None and everyones is None:
        return ()
    return tuple(
        TierLine(user=owner, set=delta.set, drop=delta.drop)
        for owner, delta in ((user, ours), (None, everyones))
        if delta is not None
    )


def _event_raws(drafts: tuple[Draft, ...], seqs: tuple[int, ...], above: int) -> list[Raw]:
    """Return the drafts whose number is new, as they stand in a frame."""
    raws = []
    for draft, seq in zip(drafts, seqs, strict=True):
        if seq > above:
            raws.append(effects.event_raw(draft, seq))
            above = seq
    return raws


def _bare(header: Header) -> Header:
    """Return a header without the operations, which are remembered by each frame in turn."""
    return msgspec.structs.replace(header, remembered=b"")


def _working_documents(kept: Any) -> Any:
    assert kept is None or isinstance(kept, PlacedDocuments)  # over files there are no others
    return WorkingDocuments(kept)


_VERBS: dict[type[Any], Callable[[Deciding, Any], Outcome]] = {
    Change: Deciding.commit,
    Create: Deciding.create,
    Fork: Deciding.fork,
    Touch: Deciding.touch,
    Delete: lambda deciding, delete: bool(deciding.delete(delete)),
    Acquire: Deciding.acquire,
    Renew: Deciding.renew,
    Forget: lambda deciding, forget: deciding.forget(forget.app, forget.user)[0],
    FindDue: lambda deciding, find: deciding.due(find.due),
    Reap: lambda deciding, reap: deciding.reap(reap.due)[0],
    Restore: Deciding.restore,
    RestoreShared: Deciding.restore_shared,
}

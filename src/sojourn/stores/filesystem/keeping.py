"""What is kept of one app: a vault that becomes what the frames of its files say, one by one."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

from sojourn import commit
from sojourn.errors import Corrupt
from sojourn.expiry import is_past
from sojourn.lifecycle import OVER
from sojourn.restoring import item_weight
from sojourn.store import TierDelta
from sojourn.stores.filesystem import effects
from sojourn.stores.filesystem.documents import PlacedDocuments
from sojourn.stores.filesystem.effects import ABSENT, Effect, TierLine
from sojourn.stores.filesystem.files import OFFSET_BITS, Files, UnreadDocument, unread_document
from sojourn.stores.filesystem.frames import MAX_FRAME
from sojourn.stores.filesystem.log import PlacedLog, Unread
from sojourn.vault.kept import EMPTY
from sojourn.vault.transfer import Staged, TransferVault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from msgspec import Raw

    from sojourn.model import Header, StoredDocument
    from sojourn.stores.filesystem.frames import Frame
    from sojourn.vault.index import Index
    from sojourn.vault.kept import Kept
    from sojourn.vault.slot import Slot


class StagedParts(Staged):
    """A session of which not all parts are here yet, with its log and documents unread."""

    def __init__(self, effect: effects.Staged, files: Files) -> None:
        """Begin with the first part."""
        self.op = effect.op
        self.abandoned_at = effect.abandoned_at
        self.header = effect.header
        self.text = bytes(effect.state)
        self.next = 0
        self.log = PlacedLog(files)
        self.placed = PlacedDocuments()

    @property
    def last(self) -> int:
        """The last number of the log so far."""
        return next(iter(self.log.tail(1)), 0)


class Known(NamedTuple):
    """What a change made of a session, where that was worked out already."""

    header: Header
    state: Kept


@dataclass(frozen=True, slots=True)
class Contents:
    """What a vault is made of, for a layer above it."""

    rows: int
    slots: dict[tuple[str, str], Slot]
    tiers: dict[tuple[str, str | None], Kept]
    app_documents: dict[str, Any]
    places: int
    claims: dict[Any, str]
    index: Index
    staged: dict[tuple[str, str], Staged]


class KeepingVault(TransferVault):
    """The sessions of one app in memory, with events and bodies left in `files`.

    `app` is whose they are, `""` until the first frame has said so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.app = ""
        self.files = Files()
        self.purgeable = False
        """Whether the frames after the snapshot removed something that is still in a file."""

    @property
    def rows(self) -> int:
        """The highest number that a session ever had."""
        return self._rows

    @property
    def places(self) -> int:
        """The next number of a document."""
        return self._next_place

    _next_place = 1

    def contents(self) -> Contents:
        """Return what this is made of; nobody else may change it."""
        return Contents(
            self._rows,
            self._slots,
            self._tiers,
            self._app_documents,
            self._next_place,
            self._claims,
            self._index,
            self._staged,
        )

    def _weight(self, item: Any) -> int:
        if isinstance(item, Unread | UnreadDocument):
            return 128 + item.size
        return item_weight(item)

    def _new_log(self) -> PlacedLog:
        return PlacedLog(self.files)

    def _new_documents(self) -> PlacedDocuments:
        return PlacedDocuments()

    # --- what a frame says ---------------------------------------------------------------------

    def apply(
        self, effect: Effect, frame: Frame, number: int, known: Known | None = None
    ) -> tuple[str, ...]:
        """Become what a frame of file `number` says; return the ids of the sessions it changed.

        `known` is what it makes of a session, if this process has decided it. Raises `Corrupt` if
        it can not follow on what was before.
        """
        try:
            changed: tuple[str, ...] = self._verbs[type(effect)](
                self, effect, _Place(frame, number, known)
            )
        except (KeyError, AssertionError, msgspec.DecodeError) as error:
            where = self.files.all[number].path
            reason = f"the frame at byte {frame.offset} does not follow on those before it"
            raise Corrupt(where, reason) from error
        return changed

    def _begun(self, effect: effects.Begun, _place: _Place) -> tuple[str, ...]:
        self.app = effect.app
        self._rows = effect.rows
        self._next_place = effect.places
        return ()

    def _nothing(self, _effect: Effect, _place: _Place) -> tuple[str, ...]:
        return ()

    def _insert(self, row: int, header: Header, state: Raw) -> Slot:
        """Put a session that is not there yet, under its own row."""
        assert (self.app, header.id) not in self._slots, "it is there already"
        highest, self._rows = self._rows, row - 1
        # What it claims is noted below: one that is over claims nothing any more.
        slot = self._add(msgspec.structs.replace(header, exclusive=()), bytes(state))
        slot.header = header
        self._rows = max(highest, row)
        self._claim(slot)
        return slot

    def _claim(self, slot: Slot) -> None:
        header = slot.header
        claim = commit.claim_of(header)
        if claim is not None and header.phase not in OVER:
            self._claims[header.app, claim] = header.id

    def _kept(self, effect: effects.Kept, place: _Place) -> tuple[str, ...]:
        if effect.more:
            slot = self._slots[self.app, effect.id]
        else:
            assert effect.header is not None, "the first piece has the header"
            slot = self._insert(effect.row, effect.header, effect.state)
        self._take(slot, effect, place)
        return ()

    def _created(self, effect: effects.Created, place: _Place) -> tuple[str, ...]:
        slot = self._insert(effect.row, effect.header, effect.state)
        self._take_tiers(effect.tiers)
        self._take_events(slot, effect.events, place)
        return (effect.header.id,)

    def _changed(self, effect: effects.Changed, place: _Place) -> tuple[str, ...]:
        slot = self._slots[self.app, effect.id]
        old = slot.header
        known = place.known
        if known is not None:
            slot.kept = known.state
        elif effect.set or effect.drop or effect.clear:
            delta = TierDelta(effect.set, effect.drop)
            key = f"session {old.id!r}"
            slot.kept = slot.kept.merged(delta, clear=effect.clear, key=key, limit=MAX_FRAME)
        if effect.cut is not None and slot.log is not None:
            slot.log.truncate(effect.cut)
            self.purgeable = True
        if effect.tiers:
            self._take_tiers(effect.tiers)
        self._take(slot, effect, place)
        self._replace(slot, known.header if known is not None else _moved_on(old, effect))
        return (effect.id,)

    def _forked(self, effect: effects.Forked, _place: _Place) -> tuple[str, ...]:
        source = self._slots[self.app, effect.source]
        slot = self._insert(effect.row, effect.header, effect.state)
        self._copy(source, slot, effect.at)
        return (effect.header.id,)

    def _removed(self, effect: effects.Removed, _place: _Place) -> tuple[str, ...]:
        for id in effect.ids:
            slot = self._slots.get((self.app, id))
            if slot is not None:  # else it went with its parent
                self._remove(slot)
        self._drop_staged((self.app, id) for id in effect.staged)
        if effect.user is not None:
            self._tiers.pop((self.app, effect.user), None)
        self.purgeable = True
        return effect.ids

    def _staged_part(self, effect: effects.Staged, place: _Place) -> tuple[str, ...]:
        key = (self.app, effect.header.id)
        if effect.part == 0 and not effect.more:
            self.purgeable |= key in self._staged
            self._staged[key] = StagedParts(effect, self.files)
        staged = self._staged[key]
        assert isinstance(staged, StagedParts), "a vault over files keeps no others"
        staged.next = effect.part + 1
        place.put_events(staged.log, effect.events)
        self._take_documents(staged.placed, effect.documents, place)
        return ()

    def _restored(self, effect: effects.Restored, place: _Place) -> tuple[str, ...]:
        header = effect.header
        staged = self._staged.pop((self.app, header.id), None) if effect.staged else None
        slot = self._slots.get((self.app, header.id))
        if slot is None:
            slot = self._insert(effect.row, header, effect.state)
        else:
            self._free_claim(slot)
            self._replace(slot, header)
            self._claim(slot)
            self.purgeable = True
        slot.state = bytes(effect.state)
        slot.log, slot.documents = None, None
        if effect.staged:
            assert isinstance(staged, StagedParts), "its parts came before"
            slot.state, slot.log, slot.documents = staged.text, staged.log, staged.placed
        self._take(slot, effect, place)
        return (header.id,)

    def _shared(self, effect: effects.Shared, place: _Place) -> tuple[str, ...]:
        self._take_tiers(effect.tiers)
        if effect.documents.put or effect.documents.drop:
            documents = self._documents_of_app(self.app)
            self._take_documents(documents, effect.documents, place)
        return ()

    _verbs: ClassVar[dict[type[Any], Callable[..., tuple[str, ...]]]] = {
        effects.Begun: _begun,
        effects.Finished: _nothing,
        effects.Kept: _kept,
        effects.Created: _created,
        effects.Changed: _changed,
        effects.Forked: _forked,
        effects.Removed: _removed,
        effects.Staged: _staged_part,
        effects.Restored: _restored,
        effects.Shared: _shared,
        effects.Paused: _nothing,
        effects.Sealed: _nothing,
    }

    # --- contents ------------------------------------------------------------------------------

    def _take(
        self, slot: Slot, effect: effects.Kept | effects.Changed | effects.Restored, place: _Place
    ) -> None:
        if effect.documents.put or effect.documents.drop:
            if slot.documents is None:
                slot.documents = self._new_documents()
            self._take_documents(slot.documents, effect.documents, place)
        self._take_events(slot, effect.events, place)

    def _take_events(self, slot: Slot, events: list[Raw], place: _Place) -> None:
        if events:
            place.put_events(self._log(slot), events)

    def _take_documents(self, documents: Any, line: effects.DocumentsLine, place: _Place) -> None:
        for drop in line.drop:
            documents.drop(drop.collection, drop.key)
            self.purgeable = True
        place.put_documents(documents, line.put)
        for put in line.put:
            self._next_place = max(self._next_place, put.number + 1)

    def _take_tiers(self, tiers: tuple[TierLine, ...]) -> None:
        for tier in tiers:
            owner = (self.app, tier.user)
            delta = TierDelta(tier.set, tier.drop)
            self._tiers[owner] = self._tiers.get(owner, EMPTY).merged(
                delta, clear=tier.whole, key="tier", limit=MAX_FRAME
            )

    # --- what is kept, as frames ---------------------------------------------------------------

    def in_order(self) -> Iterator[Slot]:
        """Yield all sessions as they were created: those that others belong to come first."""
        yield from sorted(self._slots.values(), key=lambda slot: slot.row)

    def has(self, id: str) -> bool:
        """Return whether there is a session of this id, expired or not."""
        return (self.app, id) in self._slots

    def tier_lines(self) -> Iterator[TierLine]:
        """Yield all tiers that have anything in them."""
        for (_, user), tier in self._tiers.items():
            state = tier.values("tier")
            if state:
                yield TierLine(user=user, whole=True, set=state)

    def app_documents(self) -> Iterator[Any]:
        """Yield the documents of the app, unread."""
        documents = self._app_documents.get(self.app)
        return documents.everything() if documents else iter(())

    def documents_of(self, id: str, now: int) -> list[StoredDocument]:
        """Return the documents of a session that are not expired, unread."""
        slot = self._slots.get((self.app, id))
        if slot is None or slot.documents is None:
            return []
        return [d for d in slot.documents.everything() if not is_past(d.expires_at, now)]

    def staged(self) -> Iterator[StagedParts]:
        """Yield the restores in progress."""
        for staged in self._staged.values():
            assert isinstance(staged, StagedParts)  # a vault over files keeps no others
            yield staged

    def is_empty(self) -> bool:
        """Return whether there is neither a session nor anything shared."""
        if self._slots or any(True for _ in self.app_documents()):
            return False
        return not any(True for _ in self.tier_lines())


def _moved_on(old: Header, effect: effects.Changed) -> Header:
    """Return the header that a change leads to."""
    remembered = old.remembered
    if effect.op:
        remembered = commit.remember(remembered, effect.op, effect.revision, old.seq)
    return msgspec.structs.replace(
        effect.header or old,
        revision=effect.revision,
        seq=effect.seq,
        active_at=effect.active_at,
        expires_at=effect.expires_at,
        due_at=effect.due_at,
        remembered=remembered,
    )


class _Place:
    """Where what a frame brings stands on the disk, and what is known of it already."""

    __slots__ = ("_base", "_frame", "known")

    def __init__(self, frame: Frame, number: int, known: Known | None = None) -> None:
        self._frame = frame
        self._base = number << OFFSET_BITS
        self.known = known

    def put_events(self, log: Any, events: list[Raw]) -> None:
        """Put events into a log. They end the text, so their places follow from their lengths."""
        end = self._base + self._frame.attached_at - 1
        # Behind them are `]}` and the end of the line; between two of them is a comma.
        place = end - 2 - sum(len(memoryview(raw)) for raw in events) - (len(events) - 1)
        for raw in events:
            text = memoryview(raw)
            size = len(text)
            facts = effects.event_facts(raw)
            changing = facts.changes is not ABSENT or facts.deleted is not ABSENT
            unread = Unread(
                facts.seq, "", "", None, facts.at, "", None, None, place, size, zlib.crc32(text)
            )
            log.put(facts.id, facts.kind, unread, changing=changing)
            log.files.remember(place, text)
            place += size + 1

    def put_documents(
        self, documents: PlacedDocuments, lines: tuple[effects.DocumentLine, ...]
    ) -> None:
        """Put documents; their bodies are attached in the same order."""
        place = self._base + self._frame.attached_at
        for line in lines:
            documents.put(unread_document(line, place))
            place += line.size

"""Taking sessions out of a vault whole, and putting them back exactly."""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Literal

import msgspec

from sojourn import codec, commit, restoring
from sojourn.errors import InvalidCursor, NotFound, RoleTaken, TooLarge
from sojourn.expiry import is_past
from sojourn.limits import DUMP_BYTES, MAX_STATE, PART_BYTES
from sojourn.model import Entry, StoredDocument
from sojourn.store import Dumped, Headers, Query, Shared, Snapshot, Tier
from sojourn.vault.kept import Kept, kept
from sojourn.vault.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sojourn.model import Encoded, Header
    from sojourn.store import Delete, Due, Restore, RestoreShared, Walk
    from sojourn.vault.slot import Slot

Item = Entry | StoredDocument


class Staged:
    """A session of which not all parts are here yet; nobody sees it."""

    def __init__(self, restore: Restore) -> None:
        self.op = restore.op.hex()
        self.abandoned_at = restore.abandoned_at
        self.header = restore.snapshot.header
        self.state = restore.snapshot.state
        self.next = 0
        self.entries: list[Entry] = []
        self.documents: list[StoredDocument] = []

    @property
    def last(self) -> int:
        """The last number of the log so far."""
        return self.entries[-1].seq if self.entries else 0

    def add(self, snapshot: Snapshot) -> None:
        """Take the next part."""
        self.next += 1
        self.entries += snapshot.entries
        self.documents += snapshot.documents

    def whole(self, header: Header) -> Snapshot:
        """Return all parts as one session."""
        return Snapshot(
            header=header,
            state=self.state,
            entries=tuple(self.entries),
            documents=tuple(self.documents),
        )


class TransferVault(Vault):
    """A vault with the verbs of `SupportsTransfer`."""

    def __init__(self) -> None:
        super().__init__()
        self._staged: dict[tuple[str, str], Staged] = {}
        self._owners: dict[str, list[str]] = {}

    # --- taking out ----------------------------------------------------------------------------

    def apps(self, after: str, limit: int) -> list[str]:
        """Return the apps that have anything; see `SupportsTransfer.apps`."""
        apps = {app for app, _ in self._slots}
        apps.update(app for (app, _), tier in self._tiers.items() if tier.values(app))
        apps.update(app for app, documents in self._app_documents.items() if documents)
        return sorted(app for app in apps if app > max(after, " "))[:limit]

    def headers(self, walk: Walk) -> Headers:
        """Return a page of headers; see `SupportsTransfer.headers`."""
        found = list(islice(self._walk(walk), walk.limit))
        position = found[-1][0] if len(found) == walk.limit else None
        return Headers([commit.apart(slot.header) for _, slot in found], position)

    def dump(self, walk: Walk) -> Dumped:
        """Return a page of sessions; see `SupportsTransfer.dump`."""
        snapshots: list[Snapshot] = []
        size = 0
        position = None
        for position, slot in islice(self._walk(walk), walk.limit):
            items = list(_items(slot, walk.now))
            weight = sum(map(self._weight, items))
            if weight > PART_BYTES:
                snapshots.append(Snapshot(header=commit.apart(slot.header), last=False))
                continue
            snapshots.append(_snapshot(slot, items))
            size += weight + len(slot.state)
            if size > DUMP_BYTES:
                return Dumped(snapshots, position)
        return Dumped(snapshots, position if len(snapshots) == walk.limit else None)

    def _walk(self, walk: Walk) -> Iterator[tuple[str, Slot]]:
        """Yield (position behind it, session) of those that a walk is about."""
        if walk.ids is not None:
            for at in range(_number(walk.position), len(walk.ids)):
                slot = self._slots.get((walk.app, walk.ids[at]))
                if slot is not None:
                    yield str(at + 1), slot
            return
        query = Query(
            app=walk.app, now=walk.now, order="created", position=walk.position, expired=True
        )
        for key, slot in self._index.in_order(query, None):
            yield str(key), slot

    def parts(self, app: str, id: str, now: int) -> list[Snapshot]:
        """Return all parts of a session; see `SupportsTransfer.parts`.

        They hold what is kept and copy none of it.
        """
        slot = self._slots.get((app, id))
        if slot is None:
            return []
        bundles: list[list[Item]] = [[]]
        size = 0
        for item in _items(slot, now):
            size += self._weight(item)
            if size > PART_BYTES and bundles[-1]:
                bundles.append([])
                size = self._weight(item)
            bundles[-1].append(item)
        last = len(bundles) - 1
        return [_snapshot(slot, items, part, part == last) for part, items in enumerate(bundles)]

    def shared(self, app: str, now: int, position: str | None) -> Shared:
        """Return a page of what sessions share; see `SupportsTransfer.shared`."""
        items: list[Tier | StoredDocument] = []
        size = 0
        for where, item in self._shared_from(app, now, position):
            items.append(item)
            size += self._weight(item)
            if size > DUMP_BYTES:
                return Shared(items, where)
        self._owners.pop(app, None)
        return Shared(items, None)

    def _shared_from(
        self, app: str, now: int, position: str | None
    ) -> Iterator[tuple[str, Tier | StoredDocument]]:
        """Yield (position behind it, item) of tiers and then of documents."""
        kind, _, rest = (position or "t:").partition(":")
        if kind not in ("t", "d"):
            raise _nowhere()
        if kind == "t":
            for owner in self._owners_behind(app, rest if position else None):
                state = self._tier(app, owner or None)
                if state:
                    yield f"t:{owner}", Tier(user=owner or None, state=state)
            rest = ""
        number, _, collection = rest.partition(":")
        behind = (collection, _number(number))
        documents = self._app_documents.get(app)
        for document in documents.everything() if documents else ():
            place = (document.collection, document.number)
            if place > behind and not is_past(document.expires_at, now):
                yield f"d:{document.number}:{document.collection}", document

    def _owners_behind(self, app: str, after: str | None) -> list[str]:
        """Return who has a tier, the app as "" first; sorted once for a walk."""
        if after is None or app not in self._owners:
            self._owners[app] = sorted(user or "" for name, user in self._tiers if name == app)
        owners = self._owners[app]
        return owners[0 if after is None else bisect_right(owners, after) :]

    def _weight(self, item: Item | Tier) -> int:
        """Return about how many bytes an item is."""
        return restoring.item_weight(item)

    # --- putting back --------------------------------------------------------------------------

    def restore(self, restore: Restore) -> Literal["restored", "unchanged", "partial"]:
        """Put a session; see `SupportsTransfer.restore`."""
        header = restore.snapshot.header
        key = (header.app, header.id)
        slot = self._slots.get(key)
        if restoring.verdict(slot.header if slot else None, restore) == "keep":
            assert slot is not None  # there is something to keep
            self._drop_staged((key,))
            self._replace(slot, restoring.caught_up(slot.header, header))
            return "unchanged"
        self._admit_restored(header, slot)
        snapshot = restore.snapshot
        if snapshot.part or not snapshot.last:
            if self._is_wanted(key, restore):
                self._stage(key, restore)
            if not snapshot.last:
                return "partial"
            self._put_staged(slot, restore)
            return "restored"
        self._drop_staged((key,))
        self._put(slot, snapshot)
        return "restored"

    def _put_staged(self, slot: Slot | None, restore: Restore) -> None:
        """Put a session of which the last part has come."""
        header = restore.snapshot.header
        key = (header.app, header.id)
        self._put(slot, self._staged.pop(key).whole(header))

    def _is_wanted(self, key: tuple[str, str], restore: Restore) -> bool:
        """Return whether this part is not here yet. Refused if those before it are not."""
        if restore.snapshot.part == 0:
            return True
        staged = self._staged.get(key)
        op, expected = (staged.op, staged.next) if staged else (None, 0)
        return restoring.check_part(op, expected, staged.last if staged else 0, restore)

    def _stage(self, key: tuple[str, str], restore: Restore) -> None:
        """Keep a part; the first one begins anew."""
        if restore.snapshot.part == 0:
            self._staged[key] = Staged(restore)
        self._staged[key].add(restore.snapshot)

    def _admit_restored(self, header: Header, there: Slot | None) -> None:
        """Refuse a session without its parent (`NotFound`), or whose claim is taken."""
        claim = commit.claim_of(header) if restoring.claims(header) else None
        holder = None if claim is None else self._claims.get((header.app, claim))
        if claim is not None and holder not in (None, header.id):
            raise RoleTaken(dict(claim), str(holder))
        if there is None and header.parent is not None:
            parent = self._slots.get((header.app, header.parent))
            if parent is None:
                raise NotFound(header.parent, "no such parent session; restore it first")

    def _put(self, slot: Slot | None, snapshot: Snapshot) -> None:
        """Put a whole session, a new one or in the place of what is there."""
        state = codec.encode_object(snapshot.state)
        if slot is None:
            header = restoring.unleased(snapshot.header)
            # What it claims is noted below: one that is over claims nothing any more.
            slot = self._add(msgspec.structs.replace(header, exclusive=()), state)
            slot.header = header
        else:
            header = restoring.unleased(snapshot.header, slot.header.fence)
            self._free_claim(slot)
            self._replace(slot, header)
        claim = commit.claim_of(header)
        if claim is not None and restoring.claims(header):
            self._claims[header.app, claim] = header.id
        slot.state = state
        slot.log, slot.documents = None, None
        for entry in snapshot.entries:
            self._log(slot).add(entry)
        if snapshot.documents:
            slot.documents = self._new_documents()
            for document in snapshot.documents:
                slot.documents.place(document, self._places)

    def restore_shared(self, restore: RestoreShared) -> None:
        """Put tiers and documents; see `SupportsTransfer.restore_shared`."""
        tiers: dict[tuple[str, str | None], Kept] = {}
        for item in restore.items:
            if isinstance(item, Tier):
                there: Encoded = {} if restore.replace else self._tier(restore.app, item.user)
                text = codec.encode_object({**item.state, **there})
                if len(text) > MAX_STATE:
                    raise TooLarge("bytes of state in one tier", len(text), MAX_STATE)
                tiers[restore.app, item.user] = kept(text)
        self._tiers.update(tiers)
        documents = self._documents_of_app(restore.app)
        for item in restore.items:
            if isinstance(item, StoredDocument) and (restore.replace or not documents.has(item)):
                documents.place(item, self._places)

    # --- unfinished restores -------------------------------------------------------------------

    def delete(self, delete: Delete) -> list[str]:
        """Remove a session, and what was restored of it so far; see `Store.delete`."""
        self._drop_staged(((delete.app, delete.id),))
        return super().delete(delete)

    def forget(self, app: str, user: str) -> tuple[int, list[str]]:
        """Remove everything of a user, and what was restored so far; see `Store.forget`."""
        self._drop_staged(
            key
            for key, staged in self._staged.items()
            if (key[0], staged.header.user) == (app, user)
        )
        return super().forget(app, user)

    def due(self, due: Due) -> list[Header]:
        """Return due sessions, and drop restores that were abandoned; see `Store.due`."""
        self._drop_staged(
            key
            for key, staged in self._staged.items()
            if key[0] == due.app and staged.abandoned_at <= due.now
        )
        return super().due(due)

    def reap(self, due: Due) -> tuple[list[str], list[str]]:
        """Remove due sessions, and restores that were abandoned; see `Store.reap`."""
        self.due(due)
        return super().reap(due)

    def _drop_staged(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in list(keys):
            self._staged.pop(key, None)


def _items(slot: Slot, now: int) -> Iterator[Item]:
    """Yield what a session owns, in the order in which it travels."""
    if slot.log is not None:
        yield from slot.log.all()
    if slot.documents is not None:
        for document in slot.documents.everything():
            if not is_past(document.expires_at, now):
                yield document


def _snapshot(slot: Slot, items: list[Item], part: int = 0, last: bool = True) -> Snapshot:  # noqa: FBT001, FBT002 - it fills a field
    return Snapshot(
        header=commit.apart(slot.header),
        state=slot.kept.values(slot.header.id) if part == 0 else {},
        entries=tuple(item for item in items if isinstance(item, Entry)),
        documents=tuple(item for item in items if isinstance(item, StoredDocument)),
        part=part,
        last=last,
    )


def _number(position: str | None) -> int:
    try:
        return int(position or 0)
    except ValueError:
        raise _nowhere() from None


def _nowhere() -> InvalidCursor:
    return InvalidCursor("its position is not one of this store's")

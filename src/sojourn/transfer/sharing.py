"""Copying what sessions share: tiers of users and apps, and the documents of apps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sojourn import codec
from sojourn.errors import Corrupt
from sojourn.store import Change, DocumentQuery, Drop, RestoreShared, Tier
from sojourn.transfer import walking
from sojourn.transfer.checking import check_shared
from sojourn.transfer.checksum import document_facts
from sojourn.transfer.journal import Note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.model import Encoded, StoredDocument
    from sojourn.ports import Clock, IdSource
    from sojourn.transfer.journal import Journal
    from sojourn.transfer.walking import TransferStore


class Brought(NamedTuple):
    """What came of a look at all that is shared: how much was put, and what can not be."""

    put: int
    damages: list[Corrupt]


class Sharing:
    """The shared things of one app, on their way from one store to another."""

    def __init__(
        self,
        source: TransferStore,
        target: TransferStore,
        app: str,
        journal: Journal,
        *,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """`journal` is told of everything before it is put."""
        self._source = source
        self._target = target
        self._app = app
        self._journal = journal
        self._clock = clock
        self._ids = ids

    async def bring(self) -> Brought:
        """Put what is not the same in the target, but for what is damaged in the source."""
        put = 0
        damages: list[Corrupt] = []
        async for items in walking.shared(self._source, self._app, self._clock):
            whole = self._whole(items, damages)
            wanted = [item for item in whole if not await self._is_there(item)]
            if not wanted:
                continue
            note = Note(
                users=tuple(item.user for item in wanted if isinstance(item, Tier)),
                documents=tuple(
                    (item.collection, item.key) for item in wanted if not isinstance(item, Tier)
                ),
            )
            await self._journal.add(note)
            restore = RestoreShared(app=self._app, items=tuple(wanted), replace=True)
            await self._target.restore_shared(restore)
            put += len(wanted)
        return Brought(put, damages)

    def _whole(
        self, items: Iterable[Tier | StoredDocument], damages: list[Corrupt]
    ) -> list[Tier | StoredDocument]:
        """Return what is fit to be put; note the damage of the rest."""
        whole: list[Tier | StoredDocument] = []
        for item in items:
            try:
                check_shared(self._app, item)
                whole.append(item)
            except Corrupt as error:
                damages.append(error)
        return whole

    async def _is_there(self, item: Tier | StoredDocument) -> bool:
        if isinstance(item, Tier):
            try:
                return _same(item.state, await self._tier(self._target, item.user))
            except Corrupt:
                return False  # what can not be read there is replaced
        found = await self._document(self._target, item.collection, item.key)
        return found is not None and document_facts(found) == document_facts(item)

    async def prune(self, note: Note) -> int:
        """Remove what a note says was put and the source has no more; return how many things."""
        removed = 0
        for user in note.users:
            if await self._tier(self._source, user) or not await self._tier(self._target, user):
                continue
            nothing = Tier(user=user, state={})
            restore = RestoreShared(app=self._app, items=(nothing,), replace=True)
            await self._target.restore_shared(restore)
            removed += 1
        for collection, key in note.documents:
            if await self._document(self._source, collection, key) is not None:
                continue
            if await self._document(self._target, collection, key) is None:
                continue
            change = Change(
                app=self._app,
                id=None,
                op=self._ids.operation(),
                now=self._clock.now(),
                documents=(Drop(collection=collection, key=key),),
            )
            await self._target.commit(change)
            removed += 1
        return removed

    async def _tier(self, store: TransferStore, user: str | None) -> Encoded:
        found = await store.tiers(self._app, user)
        return found.app_state if user is None else found.user_state

    async def _document(
        self, store: TransferStore, collection: str, key: str
    ) -> StoredDocument | None:
        query = DocumentQuery(
            app=self._app, id=None, collection=collection, now=self._clock.now(), key=key
        )
        return await store.document(query)


def _same(left: Encoded, right: Encoded) -> bool:
    """Return whether two tiers hold equal values, however they are spelled."""
    if left.keys() != right.keys():
        return False
    return all(
        bytes(value) == bytes(right[name])
        or codec.same(codec.decode(value, name), codec.decode(right[name], name))
        for name, value in left.items()
    )

"""Copying what sessions share: tiers of users and apps, and the documents of apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn import codec
from sojourn.store import Change, DocumentQuery, Drop, RestoreShared, Tier
from sojourn.transfer import walking
from sojourn.transfer.checksum import document_facts
from sojourn.transfer.journal import Note

if TYPE_CHECKING:
    from sojourn.model import Encoded, StoredDocument
    from sojourn.ports import Clock, IdSource
    from sojourn.transfer.journal import Journal
    from sojourn.transfer.walking import TransferStore


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

    async def bring(self) -> int:
        """Put what is not the same in the target; return how many things that were."""
        put = 0
        async for items in walking.shared(self._source, self._app, self._clock):
            wanted = [item for item in items if not await self._is_there(item)]
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
        return put

    async def _is_there(self, item: Tier | StoredDocument) -> bool:
        if isinstance(item, Tier):
            return _same(item.state, await self._tier(self._target, item.user))
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

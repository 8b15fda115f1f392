"""The store in Redis or Valkey: one server, or a cluster of any number of masters.

Sessions of a user, the user's tier and the indexes are on one server, so that one script changes
them all at once; scripts compare before they write, so that any number of processes may. What an
acknowledged write survives is what the servers are set up for: see `?replicas=`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from sojourn.errors import Closed
from sojourn.lifetime import Lifetime
from sojourn.limits import MAX_PAGE
from sojourn.stores.planning import Recent
from sojourn.stores.redis.batch import Tools
from sojourn.stores.redis.client import Client
from sojourn.stores.redis.crossing import Crossing
from sojourn.stores.redis.dispatch import Dispatch
from sojourn.stores.redis.documents import DocumentReader
from sojourn.stores.redis.dumping import Dumper
from sojourn.stores.redis.finding import Finder
from sojourn.stores.redis.gathering import Gatherer
from sojourn.stores.redis.inspection import Facts, Inspector
from sojourn.stores.redis.jobs import Foreman
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.listing import Lister
from sojourn.stores.redis.reading import Reader
from sojourn.stores.redis.removal import Remover
from sojourn.stores.redis.restoring import Restorer
from sojourn.stores.redis.watch import Watchers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence

    from sojourn.model import Entry, Header, Record, StoredDocument
    from sojourn.store import (
        Acquire,
        Change,
        Committed,
        Create,
        Delete,
        DocumentQuery,
        Due,
        Dumped,
        EventQuery,
        Fork,
        Get,
        Headers,
        Listed,
        Query,
        Renew,
        Restore,
        RestoreShared,
        Shared,
        Snapshot,
        Tiers,
        Touch,
        Walk,
    )
    from sojourn.stores.planning import Operation
    from sojourn.stores.redis.options import Options
    from sojourn.stores.summary import AppSummary
    from sojourn.wakeups import Wakeup


class RedisStore:
    """Sessions in Redis or Valkey."""

    def __init__(self, options: Options) -> None:
        """Name the servers; `open` reaches them."""
        self.name = options.name
        self._options = options
        self._lifetime = Lifetime(self.name)
        self._client = Client(options)
        keys = Keys(options.prefix)
        finder = Finder(self._client, keys)
        crossing = Crossing(self._client, keys, options.replicas)
        self._watchers = Watchers(self._client, keys, finder)
        self._tools = Tools(
            client=self._client,
            gatherer=Gatherer(self._client, keys, finder),
            foreman=Foreman(keys, cluster=options.cluster),
            crossing=crossing,
            recent=Recent(),
            replicas=options.replicas,
            changed=self._watchers.wake,
        )
        self._reader = Reader(self._client, keys, finder)
        self._lister = Lister(self._client, keys, finder)
        self._documents = DocumentReader(self._client, keys, finder)
        self._restorer = Restorer(self._tools, keys)
        self._inspector = Inspector(self._client, keys)
        self._dumper = Dumper(self._client, keys, finder, self._lister)
        self._remover = Remover(self._tools, keys, self._lister, self._restorer)
        self._dispatch = Dispatch(self._tools)

    @property
    def place(self) -> str:
        """Which keys of which servers this store has."""
        return self._options.place

    # --- opening and closing -------------------------------------------------------------------

    async def open(self) -> None:
        """Reach the servers. Raises `Unavailable` when none answers, or none that will do."""
        async with self._lifetime.turn:
            if self._lifetime.has_begun():
                return
            await self._client.open()
            try:
                self._lifetime.begin()
            except Closed:  # by somebody else, meanwhile
                await self._client.close()
                raise

    async def close(self) -> None:
        """Finish the writes that were accepted, then close. Twice is fine.

        A call that is cancelled does not stop the closing; another one waits for its end.
        """
        await self._lifetime.end(self._shut)

    async def _shut(self) -> None:
        await self._watchers.close()
        await self._dispatch.drain()
        await self._client.close()

    # --- how writes travel ---------------------------------------------------------------------

    def _write(self, operation: Operation) -> Coroutine[Any, Any, Any]:
        self._lifetime.check()
        return self._dispatch.submit(operation)

    # --- the contract --------------------------------------------------------------------------

    async def create(self, create: Create, /) -> Committed:
        """Store a new session."""
        created: Committed = await self._write(create)
        return created

    async def fork(self, fork: Fork, /) -> Committed:
        """Copy a session in one step."""
        forked: Committed = await self._write(fork)
        return forked

    async def commit(self, change: Change, /) -> Committed:
        """Apply a change."""
        committed: Committed = await self._write(change)
        return committed

    async def get(self, get: Get, /) -> Record | None:
        """Return a session."""
        self._lifetime.check()
        return await self._reader.get(get)

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log."""
        self._lifetime.check()
        return await self._reader.events(app, id, now, window)

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions."""
        self._lifetime.check()
        return await self._lister.listed(query)

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match."""
        self._lifetime.check()
        return await self._lister.count(query)

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline."""
        header: Header = await self._write(touch)
        return header

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns."""
        deleted: bool
        deleted, _ = await asyncio.gather(
            self._write(delete), self._restorer.forget_parts(delete.app, delete.id)
        )
        return deleted

    async def forget(self, app: str, user: str, /) -> int:
        """Remove everything of a user."""
        self._lifetime.check()
        return await self._remover.forget(app, user)

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return what the reaper has to look at."""
        self._lifetime.check()
        return await self._remover.due(due)

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove what is due."""
        self._lifetime.check()
        return await self._remover.reap(due)

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return shared state."""
        self._lifetime.check()
        return await self._reader.tiers(app, user)

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return one document."""
        self._lifetime.check()
        return await self._documents.document(query)

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents of a collection."""
        self._lifetime.check()
        return await self._documents.documents(query)

    async def acquire(self, acquire: Acquire, /) -> int:
        """Grant a lease."""
        token: int = await self._write(acquire)
        return token

    async def renew(self, renew: Renew, /) -> None:
        """Renew or release a lease."""
        await self._write(renew)

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        """Return the apps that have anything."""
        self._lifetime.check()
        return await self._dumper.apps(after, limit)

    async def headers(self, walk: Walk, /) -> Headers:
        """Return a page of headers."""
        self._lifetime.check()
        return await self._dumper.headers(walk)

    async def dump(self, walk: Walk, /) -> Dumped:
        """Return a page of whole sessions."""
        self._lifetime.check()
        return await self._dumper.dump(walk)

    async def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part, from a copy that was made in one moment."""
        self._lifetime.check()
        parts = self._dumper.parts(app, id, now)
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()

    async def shared(self, app: str, now: int, position: str | None, /) -> Shared:
        """Return a page of what sessions share."""
        self._lifetime.check()
        return await self._dumper.shared(app, now, position)

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        """Put a session, or a part of one."""
        self._lifetime.check()
        return await self._restorer.restore(restore)

    async def restore_shared(self, restore: RestoreShared, /) -> None:
        """Put tiers and documents of an app."""
        self._lifetime.check()
        await self._restorer.restore_shared(restore)

    async def check(self) -> Sequence[str]:
        """Return where the indexes do not agree with the sessions, in words."""
        self._lifetime.check()
        return await self._inspector.check()

    async def drop(self) -> None:
        """Remove the store: every key that it names; the store is opened for that.

        For places that were made to be tried out. Raises `Unavailable`.
        """
        await self.open()
        await self._inspector.drop()

    async def facts(self) -> Facts:
        """Return what is known of the servers; a store that is not open is opened for that."""
        await self.open()
        return await self._inspector.facts()

    async def summaries(self, now: int, apps: Sequence[str] | None = None) -> Sequence[AppSummary]:
        """Return what there is of some apps, of all for `None`; the store is opened for that."""
        await self.open()
        if apps is None:
            found: list[str] = []
            while page := await self._dumper.apps(found[-1] if found else "", MAX_PAGE):
                found += page
            apps = found
        return await self._inspector.summaries(apps, now)

    def subscribe(self, app: str, id: str, /) -> Wakeup:
        """Return a subscription to one session's changes."""
        self._lifetime.check()
        return self._watchers.subscribe((app, id))

"""A law's corner of a store: its own app, its own ids, and short words for what laws do."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn import codec
from sojourn.expiry import deadline
from sojourn.lifecycle import FIRST
from sojourn.model import Draft, Header
from sojourn.store import (
    Acquire,
    Change,
    Create,
    Delete,
    DocumentQuery,
    Due,
    EventQuery,
    Fork,
    Get,
    Put,
    Query,
    Renew,
    SupportsLease,
    SupportsWatch,
    TierDelta,
    Touch,
)
from sojourn.testing.laws.expect import Broken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sojourn.model import Encoded, Entry, Record, StoredDocument
    from sojourn.store import Committed, Listed, Store, Subscription
    from sojourn.testing.laws.law import Reopen

START: Final = 1_767_225_600_000_000
"""2026-01-01T00:00Z, the first instant of every law."""

SECOND: Final = 1_000_000
ONE: Final = "one"
"""The session that a law is about when it is about one."""

NOTES: Final = "notes"
"""The collection that documents go to unless a law says otherwise."""

WHOLE_LOG: Final = EventQuery()


def instant(seconds: float) -> int:
    """Return the instant so many seconds after the start."""
    return START + round(seconds * SECOND)


def delta(values: Mapping[str, Any] | None, drop: Iterable[str] = ()) -> TierDelta | None:
    """Return what sets these values and removes these keys; `None` for nothing of either."""
    names = tuple(drop)
    if values is None and not names:
        return None
    return TierDelta(encoded(values or {}), names)


def encoded(values: Mapping[str, Any]) -> Encoded:
    """Return values as a store keeps them."""
    return {key: msgspec.Raw(codec.encode(value, key)) for key, value in values.items()}


def decoded(state: Encoded) -> dict[str, Any]:
    """Return values as a caller reads them."""
    return {key: codec.decode(value, key) for key, value in state.items()}


def draft(
    id: str,
    body: Any = None,
    *,
    kind: str = "note",
    author: str | None = None,
    at: float = 0,
    changes: Mapping[str, Any] | None = None,
    deleted: list[str] | None = None,
    stamped: bool = True,
) -> Draft:
    """Return an event, ready to be appended, `at` seconds after the start."""
    return Draft(
        id=id,
        kind=kind,
        author=author,
        at=instant(at),
        body=codec.encode(body, "body").decode(),
        changes=None if changes is None else codec.encode(dict(changes), "changes").decode(),
        deleted=None if deleted is None else codec.encode(deleted, "deleted").decode(),
        stamped=stamped,
    )


def drafts(count: int, start: int = 1) -> tuple[Draft, ...]:
    """Return so many events, `e1` with the body 1 at second 1 and so on."""
    return tuple(draft(f"e{n}", n, at=n) for n in range(start, start + count))


def put(
    key: str, body: bytes = b"body", *, collection: str = NOTES, expires: float | None = None
) -> Put:
    """Return what puts a document; it expires `expires` seconds after the start."""
    return Put(
        collection=collection,
        key=key,
        body=body,
        content_type="text/plain",
        expires_at=None if expires is None else instant(expires),
    )


class Corner:
    """One law's part of a store. Times are seconds after `START`; ids default to `ONE`."""

    def __init__(self, store: Store, app: str, reopen: Reopen | None = None) -> None:
        self.store = store
        self.app = app
        self._reopen = reopen
        self._given = 0

    def beside(self, name: str) -> Corner:
        """Return the same store seen from another app."""
        return Corner(self.store, name)

    async def reopen(self) -> None:
        """Close the store and go on with a new one over the same data."""
        if self._reopen is None:
            raise Broken("this store can not be reopened")
        self.store = await self._reopen()

    @property
    def leasing(self) -> SupportsLease:
        """The store as one that grants leases."""
        if not isinstance(self.store, SupportsLease):
            raise Broken("this store does not support leases")
        return self.store

    def subscribe(self, id: str = ONE) -> Subscription:
        """Return a subscription to a session."""
        if not isinstance(self.store, SupportsWatch):
            raise Broken("this store does not support watching")
        return self.store.subscribe(self.app, id)

    def op(self) -> bytes:
        """Return a new operation id, the same in every run."""
        self._given += 1
        return blake2b(f"{self.app}:{self._given}".encode(), digest_size=8).digest()

    # --- writing -------------------------------------------------------------------------------

    def header(
        self,
        id: str = ONE,
        *,
        now: float = 0,
        idle: float | None = None,
        absolute: float | None = None,
        lifecycle: str = "open",
        **fields: Any,
    ) -> Header:
        """Return the first header of a session; `idle` and `absolute` are seconds."""
        start = instant(now)
        idle_span = None if idle is None else round(idle * SECOND)
        absolute_at = None if absolute is None else start + round(absolute * SECOND)
        expires_at = deadline(start, idle_span, absolute_at)
        fields.setdefault("epoch", f"epoch-{self.op().hex()}")
        return Header(
            app=self.app,
            id=id,
            lifecycle=lifecycle,
            phase=FIRST[lifecycle],
            created_at=start,
            active_at=start,
            idle=idle_span,
            absolute_at=absolute_at,
            expires_at=expires_at,
            due_at=expires_at,
            **fields,
        )

    async def create(
        self,
        id: str = ONE,
        *,
        state: Mapping[str, Any] | None = None,
        user_state: Mapping[str, Any] | None = None,
        app_state: Mapping[str, Any] | None = None,
        events: tuple[Draft, ...] = (),
        op: bytes | None = None,
        **header: Any,
    ) -> Committed:
        """Create a session."""
        return await self.store.create(
            Create(
                header=self.header(id, **header),
                op=op or self.op(),
                session=delta(state),
                user_tier=delta(user_state),
                app_tier=delta(app_state),
                events=events,
            )
        )

    def change(
        self,
        id: str | None = ONE,
        *,
        state: Mapping[str, Any] | None = None,
        drop: Iterable[str] = (),
        user_state: Mapping[str, Any] | None = None,
        user_drop: Iterable[str] = (),
        app_state: Mapping[str, Any] | None = None,
        app_drop: Iterable[str] = (),
        now: float = 0,
        op: bytes | None = None,
        **fields: Any,
    ) -> Change:
        """Return a change."""
        return Change(
            app=self.app,
            id=id,
            op=op or self.op(),
            now=instant(now),
            session=delta(state, drop),
            user_tier=delta(user_state, user_drop),
            app_tier=delta(app_state, app_drop),
            **fields,
        )

    async def commit(self, id: str | None = ONE, **fields: Any) -> Committed:
        """Commit a change."""
        return await self.store.commit(self.change(id, **fields))

    async def append(self, *events: Draft, id: str = ONE, now: float = 0) -> tuple[int, ...]:
        """Append events and return their numbers."""
        return (await self.commit(id, events=events, now=now)).seqs

    async def fork(
        self,
        id: str = "fork",
        *,
        source: str = ONE,
        at: int | None = None,
        op: bytes | None = None,
        **header: Any,
    ) -> Committed:
        """Fork a session."""
        fork = Fork(header=self.header(id, **header), op=op or self.op(), source=source, at=at)
        return await self.store.fork(fork)

    async def touch(self, id: str = ONE, *, now: float = 0, epoch: str | None = None) -> Header:
        """Touch a session."""
        touch = Touch(app=self.app, id=id, now=instant(now), epoch=epoch)
        return await self.store.touch(touch)

    async def delete(self, id: str = ONE, *, now: float = 0, **expected: Any) -> bool:
        """Delete a session."""
        return await self.store.delete(Delete(app=self.app, id=id, now=instant(now), **expected))

    async def reap(self, *, now: float, limit: int = 100) -> list[str]:
        """Remove due sessions; return their ids."""
        return list(await self.store.reap(Due(app=self.app, now=instant(now), limit=limit)))

    async def due(self, *, now: float, limit: int = 100) -> list[str]:
        """Return the ids of due sessions."""
        found = await self.store.due(Due(app=self.app, now=instant(now), limit=limit))
        return [header.id for header in found]

    async def acquire(
        self,
        holder: str = "worker",
        *,
        id: str = ONE,
        now: float = 0,
        until: float = 30,
        epoch: str | None = None,
    ) -> int:
        """Take a lease; return its token."""
        return await self.leasing.acquire(
            Acquire(
                app=self.app,
                id=id,
                holder=holder,
                now=instant(now),
                until=instant(until),
                epoch=epoch,
            )
        )

    async def renew(
        self,
        token: int,
        holder: str = "worker",
        *,
        id: str = ONE,
        now: float = 0,
        until: float | None = 30,
    ) -> None:
        """Renew a lease, or release it with `until=None`."""
        end = None if until is None else instant(until)
        await self.leasing.renew(
            Renew(app=self.app, id=id, token=token, holder=holder, now=instant(now), until=end)
        )

    # --- reading -------------------------------------------------------------------------------

    async def get(
        self, id: str = ONE, *, now: float = 0, expired: bool = False, **window: Any
    ) -> Record | None:
        """Return a session, or `None`."""
        chosen = EventQuery(**window) if window else None
        return await self.store.get(
            Get(app=self.app, id=id, now=instant(now), expired=expired, window=chosen)
        )

    async def read(
        self, id: str = ONE, *, now: float = 0, expired: bool = False, **window: Any
    ) -> Record:
        """Return a session that has to be there."""
        record = await self.get(id, now=now, expired=expired, **window)
        if record is None:
            raise Broken(f"session {id!r} is missing, {now} s after the start")
        return record

    async def state(self, id: str = ONE, *, now: float = 0) -> dict[str, Any]:
        """Return a session's own state."""
        return decoded((await self.read(id, now=now)).state)

    async def user_state(self, user: str) -> dict[str, Any]:
        """Return the tier of a user."""
        return decoded((await self.store.tiers(self.app, user)).user_state)

    async def app_state(self) -> dict[str, Any]:
        """Return the tier of the app."""
        return decoded((await self.store.tiers(self.app, None)).app_state)

    async def log(self, id: str = ONE, *, now: float = 0, **window: Any) -> list[Entry]:
        """Return a window of a log that has to be there."""
        found = await self.store.events(self.app, id, instant(now), EventQuery(**window))
        if found is None:
            raise Broken(f"the log of session {id!r} is missing, {now} s after the start")
        return list(found)

    async def seqs(self, id: str = ONE, *, now: float = 0, **window: Any) -> list[int]:
        """Return the numbers in a window of a log."""
        return [entry.seq for entry in await self.log(id, now=now, **window)]

    def documents_of(
        self, id: str | None = ONE, *, now: float = 0, collection: str = NOTES, **query: Any
    ) -> DocumentQuery:
        """Return a query for documents."""
        return DocumentQuery(app=self.app, id=id, collection=collection, now=instant(now), **query)

    async def document(self, key: str, id: str | None = ONE, **query: Any) -> StoredDocument | None:
        """Return a document, or `None`."""
        return await self.store.document(self.documents_of(id, key=key, **query))

    async def body(self, key: str, id: str | None = ONE, **query: Any) -> bytes | None:
        """Return the body of a document, `None` when it is missing."""
        found = await self.document(key, id, **query)
        return None if found is None else found.body

    async def keys(self, id: str | None = ONE, **query: Any) -> list[str]:
        """Return the keys of the documents in a collection."""
        return [found.key for found in await self.store.documents(self.documents_of(id, **query))]

    def query(self, *, now: float = 0, **fields: Any) -> Query:
        """Return a query for sessions."""
        return Query(app=self.app, now=instant(now), **fields)

    async def page(self, **fields: Any) -> Listed:
        """Return one page of sessions."""
        return await self.store.list(self.query(**fields))

    async def ids(self, **fields: Any) -> list[str]:
        """Return the ids on one page of sessions."""
        return [record.header.id for record in (await self.page(**fields)).records]

    async def count(self, **fields: Any) -> int:
        """Return how many sessions match."""
        return await self.store.count(self.query(**fields))

    async def snapshot(
        self, *ids: str, users: Sequence[str] = (), now: float = 0
    ) -> dict[str, object]:
        """Return all that can be read of some sessions, the users' tiers and the app's."""
        seen: dict[str, object] = {"app": await self.app_state()}
        for user in users:
            seen[f"user {user}"] = await self.user_state(user)
        for id in ids:
            record = await self.store.get(
                Get(app=self.app, id=id, now=instant(now), window=WHOLE_LOG, expired=True)
            )
            if record is None:
                seen[id] = None
                continue
            documents = [
                await self.document(key, id, now=now) for key in await self.keys(id, now=now)
            ]
            seen[id] = (record.header, decoded(record.state), record.entries, documents)
        return seen

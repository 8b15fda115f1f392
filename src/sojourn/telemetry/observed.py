"""The observed store: every verb of a store, told to observers as it starts and as it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from sojourn.arguments import several
from sojourn.errors import InvalidQuery
from sojourn.store import (
    SupportsBackup,
    SupportsCheck,
    SupportsLease,
    SupportsTransfer,
    SupportsWatch,
    place_of,
)
from sojourn.telemetry import sizes
from sojourn.telemetry.fingerprint import Fingerprint
from sojourn.telemetry.observer import Call, Outcome, Result, result_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
    from typing import Literal

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
        Store,
        Subscription,
        Tiers,
        Touch,
        Walk,
    )
    from sojourn.telemetry.observer import Observer

log = logging.getLogger("sojourn")

FAILURE_LOG_SECONDS = 60.0
"""An observer that fails is logged once in this time: it may fail at every call."""

T = TypeVar("T")

Notes = list[tuple["_Watched", object]]
"""Which observers took note of a start, and what each noted."""


class ObservedStore:
    """A store around another: the same answers and errors, and every call is told to observers.

    It has the abilities of the store inside (`SupportsWatch`, `SupportsLease`, ...) and no others.
    Closing it closes the store inside. Observers learn what `Call` and `Outcome` hold: no id, user,
    label, state or body. `key` makes fingerprints of ids (see `Fingerprint`); `stopwatch` returns
    seconds that never go back.
    """

    def __new__(cls, store: Store, *_arguments: Any, **_options: Any) -> Self:
        """Return one with the abilities of `store`."""
        abilities = tuple(part for part, there in _ABILITIES if isinstance(store, there))
        return cast("Self", object.__new__(_able(cls, abilities)))

    def __init__(
        self,
        store: Store,
        observers: Iterable[Observer],
        *,
        key: bytes | None = None,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Raises `InvalidQuery` for what is no observer, or a key that is not 16 to 64 bytes."""
        self.name = store.name
        """The name of the store inside."""
        self._store = store
        self._kind = store.name.partition("://")[0]
        self._fingerprint = Fingerprint(key)
        self._stopwatch = stopwatch
        given = several("observers", observers, "observers")
        self._observers = [_Watched(_checked(observer), stopwatch) for observer in given]

    @property
    def wrapped(self) -> Store:
        """The store inside."""
        return self._store

    @property
    def place(self) -> str:
        """Where the data of the store inside is."""
        return place_of(self._store)

    # --- observing -----------------------------------------------------------------------------

    def _call(self, verb: str, app: str | None = None, id: str | None = None, **facts: Any) -> Call:
        session = None if app is None or id is None else self._fingerprint.of(app, id)
        return Call(store=self._kind, verb=verb, app=app, session=session, **facts)

    async def _through(
        self,
        call: Call,
        verb: Callable[..., Awaitable[T]],
        *arguments: Any,
        told: Callable[[T], dict[str, Any]] | None = None,
    ) -> T:
        """Call the store's verb and tell what came of it; `told` says it of a result."""
        notes = self._start(call)
        began = self._stopwatch()
        try:
            result = await verb(*arguments)
        except BaseException as error:
            self._finish(call, notes, began, _failure(error))
            raise
        self._finish(call, notes, began, _success(result, told))
        return result

    def _start(self, call: Call) -> Notes:
        notes: Notes = []
        for watched in self._observers:
            noted = watched.started(call)
            if noted is not None:
                notes.append((watched, noted[0]))
        return notes

    def _finish(self, call: Call, notes: Notes, began: float, facts: dict[str, Any]) -> None:
        outcome = Outcome(seconds=max(0.0, self._stopwatch() - began), **facts)
        for watched, note in notes:
            watched.finished(call, note, outcome)

    # --- the contract --------------------------------------------------------------------------

    async def open(self) -> None:
        """Get ready."""
        await self._through(self._call("open"), self._store.open)

    async def close(self) -> None:
        """Close the store inside."""
        await self._through(self._call("close"), self._store.close)

    async def create(self, create: Create, /) -> Committed:
        """Store a new session."""
        call = self._call(
            "create",
            create.header.app,
            create.header.id,
            events=len(create.events),
            size=sizes.size_of_write(create),
        )
        return await self._through(call, self._store.create, create, told=_committed)

    async def fork(self, fork: Fork, /) -> Committed:
        """Copy a session; the fingerprint is the copy's."""
        call = self._call("fork", fork.header.app, fork.header.id)
        return await self._through(call, self._store.fork, fork, told=_committed)

    async def commit(self, change: Change, /) -> Committed:
        """Apply a change."""
        call = self._call(
            "commit",
            change.app,
            change.id,
            events=len(change.events),
            size=sizes.size_of_write(change) + sizes.size_of_documents(change),
            trigger=None if change.move is None else change.move.trigger.value,
        )
        return await self._through(call, self._store.commit, change, told=_committed)

    async def get(self, get: Get, /) -> Record | None:
        """Return a session."""
        call = self._call("get", get.app, get.id)
        return await self._through(call, self._store.get, get, told=_record)

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log."""
        call = self._call("events", app, id)
        return await self._through(call, self._store.events, app, id, now, window, told=_entries)

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions."""
        call = self._call("list", query.app, limit=query.limit)
        return await self._through(call, self._store.list, query, told=_listed)

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match."""
        return await self._through(self._call("count", query.app), self._store.count, query)

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline."""
        call = self._call("touch", touch.app, touch.id)
        return await self._through(call, self._store.touch, touch)

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns."""
        call = self._call("delete", delete.app, delete.id)
        return await self._through(call, self._store.delete, delete, told=_deleted)

    async def forget(self, app: str, user: str, /) -> int:
        """Remove everything of a user, who is not told to anybody."""
        call = self._call("forget", app)
        return await self._through(call, self._store.forget, app, user, told=_number)

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return what the reaper has to look at."""
        call = self._call("due", due.app, limit=due.limit)
        return await self._through(call, self._store.due, due, told=_several)

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove what is due."""
        call = self._call("reap", due.app, limit=due.limit)
        return await self._through(call, self._store.reap, due, told=_several)

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return shared state."""
        return await self._through(
            self._call("tiers", app), self._store.tiers, app, user, told=_tiers
        )

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return one document."""
        call = self._call("document", query.app, query.id)
        return await self._through(call, self._store.document, query, told=_document)

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents without bodies."""
        call = self._call("documents", query.app, query.id, limit=query.limit)
        return await self._through(call, self._store.documents, query, told=_several)


class _Watching(ObservedStore):
    """The ability `SupportsWatch`."""

    def subscribe(self, app: str, id: str, /) -> Subscription:
        """Return a subscription to one session's changes."""
        call = self._call("subscribe", app, id)
        notes = self._start(call)
        began = self._stopwatch()
        try:
            subscription = cast("SupportsWatch", self._store).subscribe(app, id)
        except BaseException as error:
            self._finish(call, notes, began, _failure(error))
            raise
        self._finish(call, notes, began, {"result": Result.OK})
        return subscription


class _Leasing(ObservedStore):
    """The ability `SupportsLease`."""

    async def acquire(self, acquire: Acquire, /) -> int:
        """Grant a lease."""
        call = self._call("acquire", acquire.app, acquire.id)
        store = cast("SupportsLease", self._store)
        return await self._through(call, store.acquire, acquire)

    async def renew(self, renew: Renew, /) -> None:
        """Renew or release a lease."""
        call = self._call("renew", renew.app, renew.id)
        await self._through(call, cast("SupportsLease", self._store).renew, renew)


class _Checking(ObservedStore):
    """The ability `SupportsCheck`."""

    async def check(self) -> Sequence[str]:
        """Return what is wrong, in words; observers learn how many things."""
        store = cast("SupportsCheck", self._store)
        return await self._through(self._call("check"), store.check, told=_several)


class _BackingUp(ObservedStore):
    """The ability `SupportsBackup`, beside `SupportsCheck`."""

    async def backup(self, path: str, /) -> None:
        """Write a consistent copy to `path`, which is not told to anybody."""
        await self._through(self._call("backup"), cast("SupportsBackup", self._store).backup, path)


class _Transferring(ObservedStore):
    """The ability `SupportsTransfer`."""

    @property
    def _inside(self) -> SupportsTransfer:
        return cast("SupportsTransfer", self._store)

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        """Return the apps that have anything; observers learn how many."""
        call = self._call("apps", limit=limit)
        return await self._through(call, self._inside.apps, after, limit, told=_several)

    async def headers(self, walk: Walk, /) -> Headers:
        """Return a page of headers."""
        call = self._call("headers", walk.app, limit=walk.limit)
        return await self._through(call, self._inside.headers, walk, told=_headers)

    async def dump(self, walk: Walk, /) -> Dumped:
        """Return a page of sessions, whole."""
        call = self._call("dump", walk.app, limit=walk.limit)
        return await self._through(call, self._inside.dump, walk, told=_dumped)

    async def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part; it is one call, which ends with the last part."""
        call = self._call("parts", app, id)
        notes = self._start(call)
        began = self._stopwatch()
        items = 0
        try:
            async with contextlib.aclosing(self._inside.parts(app, id, now)) as parts:
                async for part in parts:
                    items += 1
                    yield part
        except BaseException as error:
            self._finish(call, notes, began, {**_failure(error), "items": items})
            raise
        self._finish(call, notes, began, {"result": Result.OK, "items": items})

    async def shared(self, app: str, now: int, position: str | None, /) -> Shared:
        """Return a page of what the app's sessions share."""
        call = self._call("shared", app)
        return await self._through(
            call,
            self._inside.shared,
            app,
            now,
            position,
            told=lambda shared: _several(shared.items),
        )

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        """Put a session, or a part of one."""
        snapshot = restore.snapshot
        call = self._call(
            "restore",
            snapshot.header.app,
            snapshot.header.id,
            events=len(snapshot.entries),
            size=sizes.size_of_snapshot(snapshot),
        )
        return await self._through(call, self._inside.restore, restore)

    async def restore_shared(self, restore: RestoreShared, /) -> None:
        """Put tiers and documents of an app."""
        call = self._call("restore_shared", restore.app)
        await self._through(call, self._inside.restore_shared, restore)


_ABILITIES: tuple[tuple[type[ObservedStore], type], ...] = (
    (_Watching, SupportsWatch),
    (_Leasing, SupportsLease),
    (_Checking, SupportsCheck),
    (_BackingUp, SupportsBackup),
    (_Transferring, SupportsTransfer),
)
"""Each ability that a store may have, and what passes it on."""


_made: dict[tuple[type[ObservedStore], tuple[type[ObservedStore], ...]], type[ObservedStore]] = {}
"""The classes made so far: one for each set of abilities that a store turned out to have."""


def _able(
    kind: type[ObservedStore], abilities: tuple[type[ObservedStore], ...]
) -> type[ObservedStore]:
    """Return the class with just these abilities: the methods of the others must not be there."""
    missing = tuple(part for part in abilities if not issubclass(kind, part))
    if not missing:
        return kind
    made = _made.get((kind, missing))
    if made is None:
        made = _made[kind, missing] = type(kind.__name__, (*missing, kind), {})
    return made


def _checked(observer: Observer) -> Observer:
    """Refuse what would only fail, call by call, where nobody hears of it but the log."""
    methods = (getattr(observer, name, None) for name in ("started", "finished"))
    if isinstance(observer, type) or not all(map(callable, methods)):
        raise InvalidQuery("observers", "give objects with the methods `started` and `finished`")
    return observer


class _Watched:
    """An observer behind a guard: what it raises is logged once in a while and goes no further."""

    def __init__(self, observer: Observer, stopwatch: Callable[[], float]) -> None:
        self._observer = observer
        self._stopwatch = stopwatch
        self._quiet_until = float("-inf")
        self._unsaid = 0

    def started(self, call: Call) -> tuple[object] | None:
        """Return what the observer noted, `None` if it failed: it is not told of the end then."""
        try:
            return (self._observer.started(call),)
        # An observer has nothing to await, so this is no cancellation of ours.
        except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - told by the guard
            self._complain(problem)
            return None

    def finished(self, call: Call, note: object, outcome: Outcome) -> None:
        """Tell the observer of the end."""
        try:
            self._observer.finished(call, note, outcome)
        except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - told by the guard
            self._complain(problem)

    def _complain(self, problem: BaseException) -> None:
        with contextlib.suppress(Exception):  # a handler or a filter of the log may fail as well
            now = self._stopwatch()
            if now < self._quiet_until:
                self._unsaid += 1
                return
            unsaid, self._unsaid = self._unsaid, 0
            self._quiet_until = now + FAILURE_LOG_SECONDS
            # Without the chain: the error before this one may be the store's, which names ids.
            lines = traceback.format_exception(problem, chain=False)
            log.error(
                "observer %s failed, and %d times more since it was last said; "
                "what it observed went on\n%s",
                type(self._observer).__name__,
                unsaid,
                "".join(lines).rstrip(),
            )


# --- what is told of a result ------------------------------------------------------------------


def _failure(error: BaseException) -> dict[str, Any]:
    return {"result": result_of(error), "error": type(error).__name__}


def _success(result: T, told: Callable[[T], dict[str, Any]] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"result": Result.OK}
    with contextlib.suppress(Exception):  # an odd result is the caller's to see, not ours to hide
        facts.update(told(result) if told is not None else {})
    return facts


def _committed(committed: Committed) -> dict[str, Any]:
    return {"durability": committed.durability, "repeated": committed.repeated}


def _record(record: Record | None) -> dict[str, Any]:
    if record is None:
        return {"result": Result.NOT_FOUND}
    return {"items": 1, "size": sizes.size_of_record(record)}


def _entries(entries: Sequence[Entry] | None) -> dict[str, Any]:
    if entries is None:
        return {"result": Result.NOT_FOUND}
    return {"items": len(entries), "size": sizes.size_of_entries(entries)}


def _listed(listed: Listed) -> dict[str, Any]:
    size = sum(map(sizes.size_of_record, listed.records))
    return {"items": len(listed.records), "size": size}


def _headers(headers: Headers) -> dict[str, Any]:
    return {"items": len(headers.headers)}


def _dumped(dumped: Dumped) -> dict[str, Any]:
    size = sum(map(sizes.size_of_snapshot, dumped.snapshots))
    return {"items": len(dumped.snapshots), "size": size}


def _document(document: StoredDocument | None) -> dict[str, Any]:
    if document is None:
        return {"result": Result.NOT_FOUND}
    return {"items": 1, "size": sizes.size_of_document(document)}


def _tiers(tiers: Tiers) -> dict[str, Any]:
    return {"size": sizes.size_of_tiers(tiers)}


def _deleted(deleted: bool) -> dict[str, Any]:  # noqa: FBT001 - a result, passed on as it came
    return {"items": 1} if deleted else {"result": Result.NOT_FOUND}


def _number(number: int) -> dict[str, Any]:
    return {"items": number}


def _several(things: Sequence[object]) -> dict[str, Any]:
    return {"items": len(things)}

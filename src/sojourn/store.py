"""The contract of a store: few verbs, one value object each, absence stated first.

A store keeps sessions and knows nothing of clocks: every instant comes in with the value object.
Values travel encoded. Three rules hold for every verb that writes: it happens wholly or not at all;
only `create` and `fork` create, nothing else ever does; and a call that is cancelled raises
`CancelledError` only when the outcome is final, that is, dropped before it began or finished.
Optional abilities (`SupportsWatch`, `SupportsLease`, ...) are protocols of their own.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from sojourn.lifecycle import Phase, Trigger
from sojourn.model import (
    Draft,
    Encoded,
    Entry,
    Header,
    Record,
    StoredDocument,
)
from sojourn.timestamps import from_datetime

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sojourn.errors import Corrupt

Durability = Literal["durable", "relaxed"]
"""What a write waits for: the disk (or the stated replicas), or only for others to see it."""
Order = Literal["created", "-created", "active", "-active"]
"""How a list is sorted: by start or by last use, `-` for the newest first."""


class TierDelta(msgspec.Struct, frozen=True, gc=False):
    """What a commit does to one tier: keys to set (encoded) and keys to remove.

    `size` is what `set` takes as JSON at the most, in bytes, where somebody has counted.
    """

    set: Encoded
    drop: tuple[str, ...] = ()
    size: int | None = None


class Put(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Put a document: same collection and key replace, `created_at` stays."""

    collection: str
    key: str
    body: bytes
    content_type: str
    expires_at: int | None = None


class Drop(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Remove a document; `key=None` removes the collection. Missing is fine."""

    collection: str
    key: str | None = None


class Move(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Move the phase by a trigger.

    `due_at` is when the reaper takes an ending session over. `retain` (microseconds) is how long
    the ended record stays; it is noted when the end begins and counts from when it completes.
    """

    trigger: Trigger
    reason: str | None = None
    due_at: int | None = None
    retain: int | None = None


class Retry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Note a failed end: count it, and be due again at `due_at`."""

    due_at: int


class Deadlines(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """When a session expires from a commit on: `idle` microseconds after a use, at an instant."""

    idle: int | None
    absolute_at: int | None


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One commit. `epoch` and `revision` are what the caller expects; `None` expects nothing.

    `id=None` writes only to the app's tier, `user`'s tier and the app's documents. `clear` empties
    the session's own tier before `session` is applied. `user` binds, `labels` patches (`None`
    removes one), `deadlines` replaces both of them. `truncate_after` removes the events behind it,
    once `expect_tail` is the tail. `expired` says what a deadline that has passed means: "refuse"
    for everybody, "allow" or "require" for who ends the session.
    """

    app: str
    id: str | None
    op: bytes
    now: int
    epoch: str | None = None
    revision: int | None = None
    fence: int | None = None
    clear: bool = False
    session: TierDelta | None = None
    user_tier: TierDelta | None = None
    app_tier: TierDelta | None = None
    events: tuple[Draft, ...] = ()
    documents: tuple[Put | Drop, ...] = ()
    truncate_after: int | None = None
    expect_tail: tuple[int, ...] | None = None
    user: str | None = None
    labels: dict[str, str | None] | None = None
    deadlines: Deadlines | None = None
    move: Move | None = None
    retry: Retry | None = None
    expired: Literal["refuse", "allow", "require"] = "refuse"
    durability: Durability | None = None


class Committed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a commit led to. `seqs` are the events' numbers, in order, old ones for repeats.

    `before` is the log's last number before it: an event is new if its number is above that, and
    only new events had their deltas applied. `repeated` says that this operation had been applied
    before and was not applied again.
    """

    header: Header
    revision: int
    seqs: tuple[int, ...] = ()
    before: int = 0
    durability: Literal["memory", "relaxed", "durable"] = "memory"
    repeated: bool = False


class Create(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A new session: its first header, state of its tiers, and first events, all or nothing."""

    header: Header
    op: bytes
    session: TierDelta | None = None
    user_tier: TierDelta | None = None
    app_tier: TierDelta | None = None
    events: tuple[Draft, ...] = ()
    durability: Durability | None = None


class Fork(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A copy of `source` as of event `at` under the id of `header`.

    What is copied, and what is set back, is said at `SessionManager.fork`.
    """

    header: Header
    op: bytes
    source: str
    at: int | None = None
    durability: Durability | None = None


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A window of a log: the bounds first, then the last (or first) so many of what they leave.

    `after_seq` and `before_seq` are exclusive, `since` is inclusive (a store sees an instant, a
    caller may give a datetime), `kinds` keeps those kinds. `last=0` is none; `first` limits from
    the other end. Results ascend by `seq`.
    """

    last: int | None = None
    first: int | None = None
    after_seq: int | None = None
    before_seq: int | None = None
    since: datetime | int | None = None
    kinds: tuple[str, ...] | None = None

    @property
    def since_instant(self) -> int | None:
        """`since` in microseconds since the epoch, whichever way it was given."""
        return from_datetime(self.since) if isinstance(self.since, datetime) else self.since


class Ends(EventQuery, frozen=True, kw_only=True, gc=False):
    """The last so many of a window and, where that takes no second call, its first ones as well.

    A store that knows nothing of it answers as for any `EventQuery`. One that does puts in front,
    of those that `last` leaves out, the `opening` first ones, or all if there are not so many.
    """

    opening: int


class Get(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Read one session. `expired` also finds one past its deadline; `window` adds events."""

    app: str
    id: str
    now: int
    window: EventQuery | None = None
    expired: bool = False


class Query(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Sessions that match every given filter. `position` is the store's own.

    Expired ones are left out unless `expired` asks for them too; counting leaves them out always.
    `user` has a second field because `None` is a user's value: `anonymous=True` asks for those.
    """

    app: str
    now: int
    user: str | None = None
    anonymous: bool = False
    phases: tuple[Phase, ...] | None = None
    labels: dict[str, str] | None = None
    parent: str | None = None
    order: Order = "-active"
    limit: int = 50
    position: str | None = None
    expired: bool = False


class Listed(NamedTuple):
    """A page of records without events, and the position behind it.

    `corrupt` are those that could not be read back; they do not hide the others.
    """

    records: list[Record]
    position: str | None
    corrupt: tuple[Corrupt, ...] = ()


class Touch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Note that a session is in use: idle deadline and `active_at` move, the revision does not."""

    app: str
    id: str
    now: int
    epoch: str | None = None


class Delete(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Remove a session and all it owns, children too. With expectations: only if they hold.

    `fence` is a lease that must still be the newest.
    """

    app: str
    id: str
    now: int
    epoch: str | None = None
    revision: int | None = None
    fence: int | None = None


class Due(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Up to `limit` sessions that the reaper has to look at, the longest due first."""

    app: str
    now: int
    limit: int


class Tiers(NamedTuple):
    """The state that outlives sessions: the user's tier and the app's."""

    user_state: Encoded
    app_state: Encoded


class DocumentQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Documents of a session (`id`) or, with `id=None`, of the app; keys ascend after `after`.

    `newest` lists them by `number` instead, the highest first, those below `before`. `lead` is how
    many bytes of each body come along in a listing. `expired` also reads those of a session past
    its deadline, for its end hooks.
    """

    app: str
    id: str | None
    collection: str
    now: int
    key: str | None = None
    after: str | None = None
    limit: int = 100
    newest: bool = False
    before: int | None = None
    lead: int = 0
    expired: bool = False


class Store(Protocol):
    """What every backend does. Any verb may raise `Closed` or `Unavailable`, and `Corrupt`."""

    name: str
    """What errors call this store; never holds a secret."""

    async def open(self) -> None:
        """Get ready. Opening twice is fine. Raises a subclass of `Unavailable` when it can't."""

    async def close(self) -> None:
        """Finish what was accepted, then refuse everything with `Closed`. Twice is fine."""

    async def create(self, create: Create, /) -> Committed:
        """Store a new session. The id exists (even expired): `AlreadyExists`, nothing changed.

        An exclusive claim held by a live session: `RoleTaken`. A missing parent: `NotFound`.
        The same `op` again: the first result.
        """

    async def fork(self, fork: Fork, /) -> Committed:
        """Copy a session in one step. A missing or expired source: `NotFound`. Else as `create`."""

    async def commit(self, change: Change, /) -> Committed:
        """Apply a change. Missing: `NotFound`; expired or not live: `Ended`; moved on: `Conflict`.

        The same `op` again: the first result, nothing is applied twice.
        """

    async def get(self, get: Get, /) -> Record | None:
        """Return a session, `None` when it is missing or (unless asked for) expired."""

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        """Return a window of a log, `None` when the session is missing or expired."""

    async def list(self, query: Query, /) -> Listed:
        """Return a page of sessions without events; an empty one when nothing matches."""

    async def count(self, query: Query, /) -> int:
        """Return how many sessions match; `order`, `limit` and `position` do not matter."""

    async def touch(self, touch: Touch, /) -> Header:
        """Extend the idle deadline and return the header. Missing: `NotFound`; expired: `Ended`."""

    async def delete(self, delete: Delete, /) -> bool:
        """Remove a session with all it owns. Missing, or an expectation does not hold: `False`."""

    async def forget(self, app: str, user: str, /) -> int:
        """Remove a user's sessions, expired ones too, and the user's tier; return how many."""

    async def due(self, due: Due, /) -> Sequence[Header]:
        """Return sessions past their deadline, ending ones to retry, retained ones to remove."""

    async def reap(self, due: Due, /) -> Sequence[str]:
        """Remove up to `limit` due sessions at once, children too; return the ids that were due.

        For sessions whose end needs no hooks. What was touched since is not due and stays.
        """

    async def tiers(self, app: str, user: str | None, /) -> Tiers:
        """Return the shared state of an app and one of its users; empty when there is none."""

    async def document(self, query: DocumentQuery, /) -> StoredDocument | None:
        """Return a document with its body, `None` when it or its session is missing or expired."""

    async def documents(self, query: DocumentQuery, /) -> Sequence[StoredDocument]:
        """Return documents of a collection without bodies, ascending by key.

        By place, and with the beginning of each body, where the query says so.
        """


class Subscription(Protocol):
    """Wake-ups for one session."""

    async def wait(self, seconds: float, /) -> None:
        """Return once the session may have changed since the last return, or after `seconds`."""

    def close(self) -> None:
        """Stop. Twice is fine."""


@runtime_checkable
class SupportsWatch(Protocol):
    """A store that can tell when a session changes, whichever process changed it."""

    def subscribe(self, app: str, id: str, /) -> Subscription:
        """Return a subscription; a change from now on makes its next `wait` return."""


class Acquire(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Take a lease until `until`; `holder` names this acquisition (random, used once)."""

    app: str
    id: str
    holder: str
    now: int
    until: int
    epoch: str | None = None


class Renew(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Move the end of a lease (`until=None` releases it). Only its newest token may."""

    app: str
    id: str
    token: int
    holder: str
    now: int
    until: int | None


@runtime_checkable
class SupportsLease(Protocol):
    """A store that can give one worker the right to run a session for a while."""

    async def acquire(self, acquire: Acquire, /) -> int:
        """Return the fencing token, higher than any before. Held by another: `LeaseHeld`.

        Missing: `NotFound`. The same holder again: its token, with the new end. Sessions that are
        expired or ending can be leased, to be ended.
        """

    async def renew(self, renew: Renew, /) -> None:
        """Renew or release. Superseded or released: `LeaseLost`; missing session: `NotFound`."""


@runtime_checkable
class SupportsCheck(Protocol):
    """A store that can check itself."""

    async def check(self) -> Sequence[str]:
        """Return what is wrong, in words; empty when all is well."""


@runtime_checkable
class SupportsBackup(SupportsCheck, Protocol):
    """A store that can copy itself while it is in use, and check itself."""

    async def backup(self, path: str, /) -> None:
        """Write a consistent copy to `path`, which must not exist yet."""


@runtime_checkable
class Placed(Protocol):
    """A store that can say which one it is, beyond what errors call it."""

    @property
    def place(self) -> str:
        """Where the data is: the same for every spelling of one place, never for two places.

        Copies know their sources by it, and take away from the target what came from there. It
        never holds a secret. A store that wraps another passes on `place_of` the store inside.
        """


def place_of(store: Store, /) -> str:
    """Return where the data of a store is; its name, if it can not say more."""
    return store.place if isinstance(store, Placed) else store.name


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session exactly as it is kept, or one part of it.

    A large session comes in several parts, counted from 0, and `last` marks the last one. All have
    the header, only the first has the state. Entries ascend by `seq`; documents come with their
    bodies, by collection and in their places.
    """

    header: Header
    state: Encoded = {}
    entries: tuple[Entry, ...] = ()
    documents: tuple[StoredDocument, ...] = ()
    part: int = 0
    last: bool = True


class Tier(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The whole shared state of a user or, with `user=None`, of the app."""

    user: str | None
    state: Encoded


class Walk(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Sessions of an app: all of them as they were created, or those of `ids`.

    `position` is the store's own: where the page before stopped. Documents past their own deadline
    at `now` are left out; sessions past theirs are not.
    """

    app: str
    now: int
    ids: tuple[str, ...] | None = None
    position: str | None = None
    limit: int = 100


class Headers(NamedTuple):
    """A page of headers, and the position behind it. `corrupt` are those that can not be read."""

    headers: list[Header]
    position: str | None
    corrupt: tuple[Corrupt, ...] = ()


class Dumped(NamedTuple):
    """A page of sessions, and the position behind it. `corrupt` are those that can not be read."""

    snapshots: list[Snapshot]
    position: str | None
    corrupt: tuple[Corrupt, ...] = ()


class Shared(NamedTuple):
    """A page of what an app's sessions share: tiers, then the app's documents with bodies."""

    items: list[Tier | StoredDocument]
    position: str | None


class Restore(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Put a session, or the next part of one, exactly as it was elsewhere.

    `op` is random and names this restore: its parts belong together. `replace` also takes the place
    of an older revision of the same incarnation. Parts that are not followed up can be thrown away
    from `abandoned_at` on.
    """

    snapshot: Snapshot
    op: bytes
    abandoned_at: int
    replace: bool = False
    durability: Durability | None = None


class RestoreShared(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Put tiers and documents of an app exactly as they were elsewhere.

    Keys and documents that are there already stay as they are, unless `replace`: then each tier and
    document becomes what is given. A tier without keys is none.
    """

    app: str
    items: tuple[Tier | StoredDocument, ...]
    replace: bool = False
    durability: Durability | None = None


@runtime_checkable
class SupportsTransfer(Protocol):
    """A store whose sessions can be taken out whole and put back exactly."""

    async def apps(self, after: str, limit: int, /) -> Sequence[str]:
        """Return the apps that have anything, ascending, those behind `after`."""

    async def headers(self, walk: Walk, /) -> Headers:
        """Return a page of headers, of sessions that are expired or ended too."""

    async def dump(self, walk: Walk, /) -> Dumped:
        """Return a page of sessions, each as of one moment; fewer where they are large.

        A session after its parent. One that is too large for a page is its header alone, with
        `last=False`: read it with `parts`.
        """

    def parts(self, app: str, id: str, now: int, /) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part, all as of one moment; nothing when it is missing.

        Close the generator when it is not read to its end.
        """

    async def shared(self, app: str, now: int, position: str | None, /) -> Shared:
        """Return a page of what the app's sessions share."""

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        """Put a session, wholly or not at all; say what that led to.

        Its lease is not put, its fence is and never falls. Parts are seen by nobody before the last
        one is there ("partial"). The same epoch and revision again: "unchanged", but activity and
        deadline catch up. Another epoch, or an older revision without `replace`: `AlreadyExists`. A
        session that moved on here: `Conflict`. A missing parent, or a part without those before it:
        `NotFound`. An exclusive claim of another live session: `RoleTaken`. Numbers that no session
        can have: `Corrupt`.
        """

    async def restore_shared(self, restore: RestoreShared, /) -> None:
        """Put tiers and documents, all or nothing. Over `MAX_STATE` bytes in a tier: `TooLarge`."""

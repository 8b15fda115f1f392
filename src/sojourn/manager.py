"""SessionManager: the public face and the only writer; its parts do the work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from sojourn.appending import Appending
from sojourn.arguments import mapping_of, several
from sojourn.committing import Committing, Policy
from sojourn.context import Context, completed
from sojourn.creation import Creation, Wanted
from sojourn.documents import Documents
from sojourn.ending import Ending
from sojourn.errors import InvalidId, InvalidQuery
from sojourn.expiry import NEVER, check_expiry
from sojourn.lease import Lease, hold
from sojourn.names import check_name
from sojourn.ports import RandomIds, SystemClock
from sojourn.reading import Reading
from sojourn.saving import Saving, key_is_shared
from sojourn.scopes import Scopes
from sojourn.session import Session, check_app
from sojourn.state import check_key
from sojourn.store import EventQuery, Touch
from sojourn.timestamps import to_datetime
from sojourn.watch import Watches

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from types import TracebackType

    from sojourn.checkpoints import Checkpoints
    from sojourn.expiry import Expiry
    from sojourn.history import History
    from sojourn.lifecycle import Phase, Trigger
    from sojourn.model import Event, Page
    from sojourn.ports import Cleaner, Clock, Hook, IdSource
    from sojourn.store import Durability, Order, Store
    from sojourn.telemetry import Observer

Window = int | EventQuery | None
"""Which events to load: the last so many, a query, or none."""


class SessionManager:
    """Keeps the sessions of one app in one store.

    It is safe to share between tasks of the event loop that it was opened in; another one is told
    `Closed`. Use `SessionManager.open(url)` to have it open and close its store; one that is given
    a store leaves that to whoever made it.
    """

    def __init__(
        self,
        store: Store,
        *,
        app: str = "default",
        clock: Clock | None = None,
        ids: IdSource | None = None,
        expiry: Expiry = NEVER,
        cleaners: Sequence[Cleaner] = (),
        durability: Durability | None = None,
    ) -> None:
        """Take the collaborators; raises `InvalidQuery` at once, naming one that is missing.

        `expiry` is the default for new sessions, `durability` for writes (the store's own if
        `None`), `cleaners` free what a session holds outside when it ends.
        """
        clock = SystemClock() if clock is None else clock
        ids = RandomIds() if ids is None else ids
        _require("store", store, "commit")
        _require("clock", clock, "now")
        _require("ids", ids, "session_id")
        check_expiry(expiry)
        cleaners = several("cleaners", cleaners, "objects with a method `clean`")
        for cleaner in cleaners:
            _require("cleaners", cleaner, "clean")
        self._context = Context(
            store,
            app=check_name("app", app),
            clock=clock,
            ids=ids,
            expiry=expiry,
            durability=durability,
        )
        self._owns_store = False
        self._reading = Reading(self._context)
        self._watches = Watches(self._context, self._reading)
        self.ending = Ending(self._context, self._reading, self._watches, cleaners)
        self._creation = Creation(self._context, self._reading, self.ending)
        committing = Committing(self._context)
        self._appending = Appending(self._context, committing)
        self._saving = Saving(self._context, committing, self._reading, self._creation, self.ending)
        self.scopes = Scopes(self._context, self._reading, self._saving, self.ending)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        observers: Sequence[Observer] = (),
        observer_key: bytes | None = None,
        **collaborators: Any,
    ) -> Self:
        """Return a manager that owns the store of `url`: `async with` opens and closes both.

        `collaborators` are the arguments of `SessionManager` but the store. URLs are explained at
        `open_store`. `observers` are told of every call of the store; `observer_key` makes the
        fingerprints that they see instead of ids (see `sojourn.telemetry`). Raises `InvalidQuery`
        for a URL or a collaborator that makes no sense; entering it raises what the store's `open`
        does, a subclass of `Unavailable` or `Corrupt`.
        """
        from sojourn.stores import open_store

        store = open_store(url)
        if observers:  # else nothing stands between the manager and its store
            from sojourn.telemetry import ObservedStore

            store = ObservedStore(store, observers, key=observer_key)
        manager = cls(store, **collaborators)
        manager._owns_store = True
        return manager

    async def __aenter__(self) -> Self:
        """Open the store if it is ours."""
        if self._owns_store:
            await self._context.store.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Let ends under way finish, then refuse everything (`Closed`). Twice is fine.

        The store is closed if it is ours. Raises `InvalidQuery` in an end hook, for which it would
        wait.
        """
        self.ending.refuse_from_within("close")
        try:
            await self.ending.settle()
        finally:  # cancelled or not: nobody else closes it
            self._context.closed = True
            if self._owns_store:
                await completed(self._context.store.close())

    @property
    def app(self) -> str:
        """The app whose sessions these are."""
        return self._context.app

    @property
    def store(self) -> Store:
        """The store underneath, for what only some have: `backup`, `check`."""
        return self._context.store

    def now(self) -> int:
        """Return the instant in microseconds, as this manager sees it: it never goes back."""
        return self._context.now()

    # --- making --------------------------------------------------------------------------------

    async def create(
        self,
        *,
        id: str | None = None,
        user: str | None = None,
        state: Mapping[str, Any] | None = None,
        events: Sequence[Event] = (),
        lifecycle: str = "open",
        labels: Mapping[str, str] | None = None,
        exclusive: Sequence[str] = (),
        parent: str | None = None,
        expiry: Expiry | None = None,
        durability: Durability | None = None,
    ) -> Session:
        """Store a new session, with its state and first events, and return it.

        The values of the labels named by `exclusive` together are unique among the app's live
        sessions. Raises `AlreadyExists` for an id that is there (one past its deadline is finished
        first, hooks and all), `RoleTaken` (naming the holder), `NotFound` for a missing parent,
        `InvalidId`, `InvalidQuery`, `Unbound`, `Unserializable`, `TooLarge`; nothing is stored
        then.
        """
        header = self._creation.header(
            id=id,
            user=user,
            lifecycle=lifecycle,
            labels=labels,
            exclusive=exclusive,
            parent=parent,
            expiry=expiry,
        )
        return await self._creation.create(
            header,
            given_id=id is not None,
            state={} if state is None else state,
            events=events,
            durability=durability,
        )

    def new(
        self,
        *,
        id: str | None = None,
        user: str | None = None,
        state: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        expiry: Expiry | None = None,
    ) -> Session:
        """Return a session that is not stored until it is changed and saved.

        Raises `InvalidId`, `InvalidQuery`, `Unbound`, `TooLarge`. Values are checked when it is
        saved.
        """
        header = self._creation.header(id=id, user=user, labels=labels, expiry=expiry)
        session = Session(header, {}, stored=False)
        session.state.update({} if state is None else mapping_of("state", state))
        return session

    async def get_or_create(
        self,
        id: str | None = None,
        *,
        user: str | None = None,
        key: str | None = None,
        reuse: bool = False,
        state: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> Session:
        """Return the session, created with these facts if it is missing.

        By `id`; or by `key`, a name of your own of which the app has one live session at a time; or
        by `user` alone: the user's one current session. Of many calls at once, one creates it, in
        whichever process. What is found by key or user counts as used; one that is ending is waited
        for, and followed by a new one. With `reuse=True` instead: an anonymous session that such a
        call made, with these labels, the one used last; never a visitor's.

        It is created only when it is missing: trouble with the store is raised as what it is.
        Raises `NotOwner` when it is not `user`'s, and `RoleTaken` while the end of the one before
        it fails.
        """
        make = partial(self.create, user=user, state=state, **facts)
        if id is None:
            wanted = Wanted(user=user, key=key, reuse=reuse, facts=facts)
            return await self._creation.get_or_create_wanted(wanted, make)
        if key is not None or reuse:
            raise InvalidQuery("key" if key is not None else "reuse", "an id is given already")
        check_name("session id", id)
        return await self._creation.get_or_create(id, user=user, make=partial(make, id=id))

    async def find(self, *, user: str | None = None, key: str | None = None) -> Session | None:
        """Return the live session that `get_or_create` made for a key or a user, `None` without.

        It does not touch. With both, the key is looked for: `NotOwner` when it is not `user`'s.
        """
        return await self._creation.find(Wanted(user=user, key=key))

    async def fork(
        self,
        id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        expiry: Expiry | None = None,
    ) -> Session:
        """Copy a session as of event `at` (all of it by default) in one step, and return the copy.

        Copied: events up to `at` with their numbers, documents put by then, user, labels, and the
        state as it is now with every key that an event after `at` changed set back. Not copied:
        exclusive claims and the parent. Raises `NotFound`, `AlreadyExists`.
        """
        header = self._creation.header(id=new_id, expiry=expiry)
        source = check_name("session id", id)
        return await self._creation.fork(source, header, at=at, given_id=new_id is not None)

    # --- looking -------------------------------------------------------------------------------

    async def get(
        self, id: str, *, events: Window = None, touch: bool = False, expired: bool = False
    ) -> Session | None:
        """Return the session, `None` when it is missing. A malformed id is just missing.

        `events` chooses the window of the log to load; `touch` counts as use; `expired` also finds
        a session past its deadline whose end is not finished.
        """
        return await self._reading.get(id, events=events, touch=touch, expired=expired)

    async def require(
        self, id: str, *, user: str | None = None, events: Window = None, touch: bool = False
    ) -> Session:
        """Return the session; `NotFound` when it is missing, `NotOwner` when it is not `user`'s."""
        return await self._reading.require(id, user=user, events=events, touch=touch)

    async def events(
        self,
        id: str,
        *,
        last: int | None = None,
        first: int | None = None,
        after_seq: int | None = None,
        before_seq: int | None = None,
        since: datetime | None = None,
        kind: str | Iterable[str] | None = None,
        expired: bool = False,
    ) -> list[Event]:
        """Return a window of a log, ascending by `seq`: the bounds first, then the last so many.

        `after_seq` and `before_seq` exclude, `since` includes. Raises `NotFound` for a missing
        session, `InvalidQuery` for a negative number. `expired` is for end hooks: it also reads a
        session past its deadline.
        """
        window = EventQuery(
            last=last,
            first=first,
            after_seq=after_seq,
            before_seq=before_seq,
            since=since,
            kinds=cast("tuple[str, ...] | None", kind),  # checked next, as one or as several
        )
        return await self._reading.events(id, window, expired=expired)

    async def list(
        self,
        *,
        user: str | None = None,
        anonymous: bool = False,
        phase: Phase | Iterable[Phase] | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        order: Order = "-active",
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Session]:
        """Return a page of sessions that match every filter, with state and without events.

        Expired sessions are left out. `limit` is how many a page may have, from 1 to `MAX_PAGE`.
        `cursor` is the one of the page before; raises `InvalidCursor` if it came from another
        query, `InvalidQuery` or `InvalidId` for a filter that makes no sense. A record that cannot
        be read back is in `page.corrupt` and does not hide the others.
        """
        query = self._reading.query(
            user=user,
            anonymous=anonymous,
            phase=phase,
            labels=labels,
            parent=parent,
            order=order,
            limit=limit,
        )
        return await self._reading.list(query, cursor)

    async def count(
        self,
        *,
        user: str | None = None,
        anonymous: bool = False,
        phase: Phase | Iterable[Phase] | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> int:
        """Return how many sessions match every filter, expired ones left out.

        Raises `InvalidQuery` or `InvalidId` for a filter that makes no sense.
        """
        query = self._reading.query(
            user=user, anonymous=anonymous, phase=phase, labels=labels, parent=parent
        )
        return await self._context.store.count(query)

    def watch(self, id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield the events behind `after`, stored ones and then live ones, whoever appends them.

        No gap and no repeat: go on later from the last `seq` you saw. It stops when the session is
        over or gone, after what was left. Raises `NotFound` for an unknown id.
        """
        if type(after) is not int or after < 0:
            raise InvalidQuery("after", f"give the number of an event, from 0, not {after!r}")
        return self._watches.watch(id, after)

    async def user_state(self, user: str) -> dict[str, Any]:
        """Return what a user's sessions share, keys without prefix; `{}` for an unknown user.

        Raises `InvalidId`.
        """
        return (await self._reading.shared(check_name("user", user)))[0]

    async def app_state(self) -> dict[str, Any]:
        """Return what all sessions of the app share, keys without prefix."""
        return (await self._reading.shared(None))[1]

    async def share(self, changes: Mapping[str, Any], *, user: str | None = None) -> None:
        """Set (or `DELETE`) `app:` keys, and `user:` keys of `user`, without any session.

        Raises `InvalidId` for any other key, `InvalidQuery` for what is no mapping, `Unbound` for a
        `user:` key without a user, `Unserializable`, `TooLarge`; nothing is written then.
        """
        for key in mapping_of("changes", changes):
            if not key_is_shared(check_key(key)):
                raise InvalidId("state key", f"only app: and user: keys are shared, not {key!r}")
        await self._saving.share(None if user is None else check_name("user", user), changes)

    # --- writing -------------------------------------------------------------------------------

    async def save(
        self,
        session: Session,
        *,
        conflict: Policy = "merge",
        lease: Lease | None = None,
        durability: Durability | None = None,
        user: str | None = None,
        expiry: Expiry | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> Session:
        """Store what changed, key by key, and return the session; a clean one is not written.

        A session that was cleared and got no new keys is deleted. In the same commit `user` binds
        it, as `bind` does, `expiry` gives it deadlines that count from now, and `labels` sets
        labels, as `label` does. `conflict="fail"` raises `Conflict` if anybody committed since it
        was loaded. Raises `NotFound` or `Ended` if it is gone or over, `AlreadyBound`, `LeaseLost`,
        `Unserializable`, `TooLarge`, `InvalidId` (nothing is written).
        """
        await self._saving.save(
            session,
            conflict=conflict,
            lease=lease,
            durability=durability,
            anew=self._saving.anew(session, user, expiry, labels),
        )
        return session

    async def append(
        self,
        session: Session | str,
        event: Event,
        *more: Event,
        state: Mapping[str, Any] | None = None,
        conflict: Policy = "merge",
        lease: Lease | None = None,
        durability: Durability | None = None,
    ) -> Event:
        """Append events with their deltas in one commit; return the last one as stored.

        `state` adds to the last event's delta. Unsaved changes of the session wait for `save`. An
        event whose id and content are in the log already is not added again; a partial one is
        returned as it is. Raises what `save` does.
        """
        stored = await self._appending.append(
            session,
            (event, *more),
            state=state,
            conflict=conflict,
            lease=lease,
            durability=durability,
        )
        return stored[-1]

    async def truncate(
        self,
        session: Session,
        *,
        after: int,
        conflict: Policy = "merge",
        lease: Lease | None = None,
    ) -> Session:
        """Remove the events behind number `after` (0: all). Their numbers are not used again.

        State stays. Raises what `save` does, and `InvalidQuery` for a negative number.
        """
        await self._appending.truncate(session, after=after, conflict=conflict, lease=lease)
        return session

    async def replace_suffix(
        self,
        session: Session,
        *,
        expected: Sequence[int],
        events: Sequence[Event],
        conflict: Policy = "merge",
        lease: Lease | None = None,
    ) -> Sequence[Event]:
        """Replace the last events, whose numbers are `expected`, by others; return those.

        Raises `TailMismatch` (a `Conflict`) if the log does not end with `expected`.
        """
        return await self._appending.replace_suffix(
            session, expected=expected, events=events, conflict=conflict, lease=lease
        )

    async def bind(self, session: Session, user: str) -> Session:
        """Bind an anonymous session to a user, once. Another user's: `AlreadyBound`.

        Raises `NotFound` or `Ended` if it is gone or over, `InvalidId`.
        """
        await self._saving.bind(session, user)
        return session

    async def label(
        self, session: Session, labels: Mapping[str, str | None], *, conflict: Policy = "merge"
    ) -> Session:
        """Set labels; `None` removes one. Exclusive ones stay as they were created.

        Raises what `save` does, `InvalidId` for a bad or an exclusive label, `TooLarge` over
        `MAX_LABELS`.
        """
        await self._saving.label(session, labels, conflict=conflict)
        return session

    async def refresh(self, session: Session) -> Session:
        """Load the session anew; unsaved changes are dropped. `NotFound` when it is gone."""
        await self._saving.refresh(session)
        return session

    async def touch(self, session: Session) -> Session:
        """Note that the session is in use: extends its idle deadline, not its revision.

        It is written only once a tenth of the idle time has passed since the last time, and raises
        `NotFound` or `Ended` then if the session is gone or over.
        """
        await self._reading.touch(session)
        return session

    async def heartbeat(self, id: str) -> datetime:
        """Note that the session is alive, in any phase that is not over; return `active_at`.

        It never goes back. Raises `NotFound`, or `Ended`.
        """
        touch = Touch(app=self.app, id=check_name("session id", id), now=self._context.now())
        header = await self._context.store.touch(touch)
        return to_datetime(header.active_at)

    # --- lifecycle -----------------------------------------------------------------------------

    async def apply(
        self, id: str, trigger: Trigger, *, reason: str | None = None, lease: Lease | None = None
    ) -> Phase:
        """Move the session's phase by a trigger and return the new one.

        Raises `InvalidTransition` for a pair that is not in the table, and for the triggers that
        complete an end: those are `finish`'s. Raises `NotFound` or `Ended`, `LeaseLost`.
        """
        return await self._saving.apply(id, trigger, reason=reason, lease=lease)

    async def end(self, id: str, *, reason: str = "ended", retain: float | None = None) -> bool:
        """End a session: no new writes, then children end, then hooks run, then it is removed.

        With `retain` its record stays readable for so many seconds. Returns whether this call (or
        one that it joined) ended it; unknown and ended ids are fine. A hook that fails: `EndFailed`
        with the causes; the session stays ending and readable, and the reaper tries again.
        """
        return await self.ending.end(id, reason=reason, retain=retain)

    async def finish(self, id: str) -> bool:
        """Do the second half of `end` for a session whose end was begun by `apply`.

        Raises `InvalidTransition` if it was not begun, `EndFailed` as `end` does.
        """
        return await self.ending.finish(id)

    def on_end(self, hook: Hook) -> Hook:
        """Run `async def hook(session, reason)` before a session is removed; raise to be retried.

        It runs at least once, within `HOOK_SECONDS`, in parallel with the others. Inside a hook,
        `end` and `finish` of the session that is being ended return `False` at once.
        """
        self.ending.add_hook(hook)
        return hook

    async def delete(self, id: str) -> bool:
        """Remove a session at once with all it owns, children too; no hooks run (that is `end`).

        Returns whether it was there: an unknown id is fine, a malformed one is `InvalidId`.
        """
        return await self.ending.remove(id)

    async def forget(self, user: str) -> int:
        """Remove everything of a user at once: every session of theirs, and their shared state.

        Returns how many sessions that were. No hooks run.
        """
        return await self.ending.forget(user)

    # --- working inside ------------------------------------------------------------------------

    def lease(
        self, id: str, *, ttl: float = 30.0, wait: float = 0.0, renew: bool = True
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold the right to run a session; renewed in the background unless `renew=False`.

        It is held for `ttl` seconds, up to `LEASE_MAX_SECONDS`, from its last renewal. Held by
        another: `LeaseHeld`, at once or after `wait` seconds. `lease.token` rises with every
        holder; pass the lease to writes and they raise `LeaseLost` once it is another's. Raises
        `NotFound` or `Ended` for a session that is gone or over, `InvalidQuery` for what is no
        number of seconds.
        """
        return hold(self._context, self._reading, id, ttl=ttl, wait=wait, renew=renew)

    def scope(
        self, session: Session | str, *, save_on_error: bool = False, end: bool = False
    ) -> AbstractAsyncContextManager[Session]:
        """Work inside a session: ambient as `current_session()`, kept in use, saved at the end.

        A body that raises is not saved (unless `save_on_error`), and its exception is what is
        raised. With `end` the session ends with its last scope here, hooks and all, whether the
        body raised or not. Raises `NotFound` or `Ended` for a session that takes no new scopes.
        """
        return self.scopes.scope(session, save_on_error=save_on_error, end=end)

    def resume(
        self, carried: Mapping[str, str], *, save_on_error: bool = False, end: bool = False
    ) -> AbstractAsyncContextManager[Session]:
        """Work inside the session that `carry()` wrote down, here or in another process.

        The scope has a working copy of its own. Raises what `scope` does, `NotFound` as well for a
        later session with the same id, and `InvalidQuery` for what `carry` did not make, or made
        for another app.
        """
        return self.scopes.resume(carried, save_on_error=save_on_error, end=end)

    def history(self, session: Session | str) -> History:
        """Return the conversation of a session, given by its id or as a copy of it.

        With a copy, what is appended becomes part of the copy too.
        """
        from sojourn.history import History

        check_app(session, self.app)
        return History(self._reading, self._appending, session)

    def checkpoints(self, session: Session | str) -> Checkpoints:
        """Return the checkpoints of a session: saved bytes, each with the one that it came from.

        Made for a working copy, they are of that very session: once it was deleted, writing raises
        `NotFound`, even if one with its id exists again. The copy takes note of what they commit.
        """
        from sojourn.checkpoints import Checkpoints

        check_app(session, self.app)
        return Checkpoints(self._context, self._reading, self._creation, session)

    def documents(self, session: Session | str | None = None) -> Documents:
        """Return the documents of a session, given by its id or as a copy of it; `None`: the app's.

        Made for a working copy, they are of that very session: once it was deleted, writing raises
        `NotFound`, even if one with its id exists again. The copy takes note of what they commit.
        Raises `InvalidQuery` for anything else.
        """
        check_app(session, self.app)
        return Documents(self._context, session)


def _require(name: str, given: object, verb: str) -> None:
    """Refuse a collaborator that is missing or cannot do its job, before anything else happens."""
    if not callable(getattr(given, verb, None)):
        raise InvalidQuery(name, f"a session manager needs one, not {given!r}")

"""The verbs of a session manager, without `await`.

Made of `sojourn.manager` by `python -m tests.blocking.mirror`: change that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.blocking.checkpoints import Checkpoints
from sojourn.blocking.documents import Documents
from sojourn.blocking.history import History
from sojourn.blocking.iteration import Iteration
from sojourn.blocking.lease import Lease, held
from sojourn.blocking.spans import Span, as_it_is

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from typing import Any

    from sojourn.blocking.gateway import Gateway
    from sojourn.committing import Policy
    from sojourn.expiry import Expiry
    from sojourn.lifecycle import Phase, Trigger
    from sojourn.manager import Window
    from sojourn.model import Event, Page
    from sojourn.session import Session
    from sojourn.store import Durability, Order


class Verbs:
    """What `SessionManager` hands on to the loop."""

    _gateway: Gateway

    def now(self) -> int:
        """Return the instant in microseconds, as this manager sees it: it never goes back."""
        return self._gateway.ask(lambda sessions: sessions.now())

    def create(
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
        return self._gateway.run(
            lambda sessions: sessions.create(
                id=id,
                user=user,
                state=state,
                events=events,
                lifecycle=lifecycle,
                labels=labels,
                exclusive=exclusive,
                parent=parent,
                expiry=expiry,
                durability=durability,
            )
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
        return self._gateway.ask(
            lambda sessions: sessions.new(
                id=id, user=user, state=state, labels=labels, expiry=expiry
            )
        )

    def get_or_create(
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
        return self._gateway.run(
            lambda sessions: sessions.get_or_create(
                id, user=user, key=key, reuse=reuse, state=state, **facts
            )
        )

    def find(self, *, user: str | None = None, key: str | None = None) -> Session | None:
        """Return the live session that `get_or_create` made for a key or a user, `None` without.

        It does not touch. With both, the key is looked for: `NotOwner` when it is not `user`'s.
        """
        return self._gateway.run(lambda sessions: sessions.find(user=user, key=key))

    def fork(
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
        return self._gateway.run(
            lambda sessions: sessions.fork(id, at=at, new_id=new_id, expiry=expiry)
        )

    def get(
        self, id: str, *, events: Window = None, touch: bool = False, expired: bool = False
    ) -> Session | None:
        """Return the session, `None` when it is missing. A malformed id is just missing.

        `events` chooses the window of the log to load; `touch` counts as use; `expired` also finds
        a session past its deadline whose end is not finished.
        """
        return self._gateway.run(
            lambda sessions: sessions.get(id, events=events, touch=touch, expired=expired)
        )

    def require(
        self, id: str, *, user: str | None = None, events: Window = None, touch: bool = False
    ) -> Session:
        """Return the session; `NotFound` when it is missing, `NotOwner` when it is not `user`'s."""
        return self._gateway.run(
            lambda sessions: sessions.require(id, user=user, events=events, touch=touch)
        )

    def events(
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
        return self._gateway.run(
            lambda sessions: sessions.events(
                id,
                last=last,
                first=first,
                after_seq=after_seq,
                before_seq=before_seq,
                since=since,
                kind=kind,
                expired=expired,
            )
        )

    def list(
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
        return self._gateway.run(
            lambda sessions: sessions.list(
                user=user,
                anonymous=anonymous,
                phase=phase,
                labels=labels,
                parent=parent,
                order=order,
                limit=limit,
                cursor=cursor,
            )
        )

    def count(
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
        return self._gateway.run(
            lambda sessions: sessions.count(
                user=user, anonymous=anonymous, phase=phase, labels=labels, parent=parent
            )
        )

    def watch(self, id: str, *, after: int = 0) -> Iteration[Event]:
        """Yield the events behind `after`, stored ones and then live ones, whoever appends them.

        No gap and no repeat: go on later from the last `seq` you saw. It stops when the session is
        over or gone, after what was left. Raises `NotFound` for an unknown id.
        """
        return Iteration(self._gateway, lambda sessions: sessions.watch(id, after=after))

    def user_state(self, user: str) -> dict[str, Any]:
        """Return what a user's sessions share, keys without prefix; `{}` for an unknown user.

        Raises `InvalidId`.
        """
        return self._gateway.run(lambda sessions: sessions.user_state(user))

    def app_state(self) -> dict[str, Any]:
        """Return what all sessions of the app share, keys without prefix."""
        return self._gateway.run(lambda sessions: sessions.app_state())

    def share(self, changes: Mapping[str, Any], *, user: str | None = None) -> None:
        """Set (or `DELETE`) `app:` keys, and `user:` keys of `user`, without any session.

        Raises `InvalidId` for any other key, `InvalidQuery` for what is no mapping, `Unbound` for a
        `user:` key without a user, `Unserializable`, `TooLarge`; nothing is written then.
        """
        self._gateway.run(lambda sessions: sessions.share(changes, user=user))

    def save(
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
        return self._gateway.run(
            lambda sessions: sessions.save(
                session,
                conflict=conflict,
                lease=held(lease),
                durability=durability,
                user=user,
                expiry=expiry,
                labels=labels,
            )
        )

    def append(
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
        return self._gateway.run(
            lambda sessions: sessions.append(
                session,
                event,
                *more,
                state=state,
                conflict=conflict,
                lease=held(lease),
                durability=durability,
            )
        )

    def truncate(
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
        return self._gateway.run(
            lambda sessions: sessions.truncate(
                session, after=after, conflict=conflict, lease=held(lease)
            )
        )

    def replace_suffix(
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
        return self._gateway.run(
            lambda sessions: sessions.replace_suffix(
                session, expected=expected, events=events, conflict=conflict, lease=held(lease)
            )
        )

    def bind(self, session: Session, user: str) -> Session:
        """Bind an anonymous session to a user, once. Another user's: `AlreadyBound`.

        Raises `NotFound` or `Ended` if it is gone or over, `InvalidId`.
        """
        return self._gateway.run(lambda sessions: sessions.bind(session, user))

    def label(
        self, session: Session, labels: Mapping[str, str | None], *, conflict: Policy = "merge"
    ) -> Session:
        """Set labels; `None` removes one. Exclusive ones stay as they were created.

        Raises what `save` does, `InvalidId` for a bad or an exclusive label, `TooLarge` over
        `MAX_LABELS`.
        """
        return self._gateway.run(
            lambda sessions: sessions.label(session, labels, conflict=conflict)
        )

    def refresh(self, session: Session) -> Session:
        """Load the session anew; unsaved changes are dropped. `NotFound` when it is gone."""
        return self._gateway.run(lambda sessions: sessions.refresh(session))

    def touch(self, session: Session) -> Session:
        """Note that the session is in use: extends its idle deadline, not its revision.

        It is written only once a tenth of the idle time has passed since the last time, and raises
        `NotFound` or `Ended` then if the session is gone or over.
        """
        return self._gateway.run(lambda sessions: sessions.touch(session))

    def heartbeat(self, id: str) -> datetime:
        """Note that the session is alive, in any phase that is not over; return `active_at`.

        It never goes back. Raises `NotFound`, or `Ended`.
        """
        return self._gateway.run(lambda sessions: sessions.heartbeat(id))

    def apply(
        self, id: str, trigger: Trigger, *, reason: str | None = None, lease: Lease | None = None
    ) -> Phase:
        """Move the session's phase by a trigger and return the new one.

        Raises `InvalidTransition` for a pair that is not in the table, and for the triggers that
        complete an end: those are `finish`'s. Raises `NotFound` or `Ended`, `LeaseLost`.
        """
        return self._gateway.run(
            lambda sessions: sessions.apply(id, trigger, reason=reason, lease=held(lease))
        )

    def end(self, id: str, *, reason: str = "ended", retain: float | None = None) -> bool:
        """End a session: no new writes, then children end, then hooks run, then it is removed.

        With `retain` its record stays readable for so many seconds. Returns whether this call (or
        one that it joined) ended it; unknown and ended ids are fine. A hook that fails: `EndFailed`
        with the causes; the session stays ending and readable, and the reaper tries again.
        """
        return self._gateway.run(lambda sessions: sessions.end(id, reason=reason, retain=retain))

    def finish(self, id: str) -> bool:
        """Do the second half of `end` for a session whose end was begun by `apply`.

        Raises `InvalidTransition` if it was not begun, `EndFailed` as `end` does.
        """
        return self._gateway.run(lambda sessions: sessions.finish(id))

    def delete(self, id: str) -> bool:
        """Remove a session at once with all it owns, children too; no hooks run (that is `end`).

        Returns whether it was there: an unknown id is fine, a malformed one is `InvalidId`.
        """
        return self._gateway.run(lambda sessions: sessions.delete(id))

    def forget(self, user: str) -> int:
        """Remove everything of a user at once: every session of theirs, and their shared state.

        Returns how many sessions that were. No hooks run.
        """
        return self._gateway.run(lambda sessions: sessions.forget(user))

    def lease(
        self, id: str, *, ttl: float = 30.0, wait: float = 0.0, renew: bool = True
    ) -> AbstractContextManager[Lease]:
        """Hold the right to run a session; renewed in the background unless `renew=False`.

        It is held for `ttl` seconds, up to `LEASE_MAX_SECONDS`, from its last renewal. Held by
        another: `LeaseHeld`, at once or after `wait` seconds. `lease.token` rises with every
        holder; pass the lease to writes and they raise `LeaseLost` once it is another's. Raises
        `NotFound` or `Ended` for a session that is gone or over, `InvalidQuery` for what is no
        number of seconds.
        """
        return Span(
            self._gateway,
            lambda sessions: sessions.lease(id, ttl=ttl, wait=wait, renew=renew),
            Lease,
        )

    def scope(
        self, session: Session | str, *, save_on_error: bool = False, end: bool = False
    ) -> AbstractContextManager[Session]:
        """Work inside a session: ambient as `current_session()`, kept in use, saved at the end.

        A body that raises is not saved (unless `save_on_error`), and its exception is what is
        raised. With `end` the session ends with its last scope here, hooks and all, whether the
        body raised or not. Raises `NotFound` or `Ended` for a session that takes no new scopes.
        """
        return Span(
            self._gateway,
            lambda sessions: sessions.scope(session, save_on_error=save_on_error, end=end),
            as_it_is,
        )

    def resume(
        self, carried: Mapping[str, str], *, save_on_error: bool = False, end: bool = False
    ) -> AbstractContextManager[Session]:
        """Work inside the session that `carry()` wrote down, here or in another process.

        The scope has a working copy of its own. Raises what `scope` does, `NotFound` as well for a
        later session with the same id, and `InvalidQuery` for what `carry` did not make, or made
        for another app.
        """
        return Span(
            self._gateway,
            lambda sessions: sessions.resume(carried, save_on_error=save_on_error, end=end),
            as_it_is,
        )

    def history(self, session: Session | str) -> History:
        """Return the conversation of a session, given by its id or as a copy of it.

        With a copy, what is appended becomes part of the copy too.
        """
        return History(self._gateway, lambda sessions: sessions.history(session))

    def checkpoints(self, session: Session | str) -> Checkpoints:
        """Return the checkpoints of a session: saved bytes, each with the one that it came from.

        Made for a working copy, they are of that very session: once it was deleted, writing raises
        `NotFound`, even if one with its id exists again. The copy takes note of what they commit.
        """
        return Checkpoints(self._gateway, lambda sessions: sessions.checkpoints(session))

    def documents(self, session: Session | str | None = None) -> Documents:
        """Return the documents of a session, given by its id or as a copy of it; `None`: the app's.

        Made for a working copy, they are of that very session: once it was deleted, writing raises
        `NotFound`, even if one with its id exists again. The copy takes note of what they commit.
        Raises `InvalidQuery` for anything else.
        """
        return Documents(self._gateway, lambda sessions: sessions.documents(session))

"""Writing to a session that exists: save, append, cut the log, bind, label, move its phase."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from sojourn.commit import forbid
from sojourn.creation import refuse_unbound
from sojourn.ending import check_reason
from sojourn.errors import (
    AlreadyBound,
    AlreadyExists,
    Ended,
    InvalidQuery,
    InvalidTransition,
    LeaseLost,
    NotFound,
    TooLarge,
    Unavailable,
)
from sojourn.events import by_tier, changes_of, encode_delta, prepare, stored_events
from sojourn.expiry import is_past
from sojourn.lifecycle import END_OF, FINISH_OF, Phase, Trigger
from sojourn.limits import END_CLAIM_SECONDS, MAX_EVENTS_PER_COMMIT
from sojourn.model import Event
from sojourn.names import check_name
from sojourn.session import Doubtful, Session, check_session
from sojourn.state import key_of
from sojourn.store import Change, EventQuery, Move
from sojourn.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sojourn.context import Context
    from sojourn.creation import Creation
    from sojourn.ending import Ending
    from sojourn.events import Changes, Prepared, TierDeltas
    from sojourn.lease import Lease
    from sojourn.reading import Reading
    from sojourn.session import StateDelta
    from sojourn.store import Committed, Durability

_REMOVED = "it was ended and removed"

Policy = Literal["merge", "fail"]
"""What a write does when the session moved on: merge per key, or raise `Conflict`."""


class Saving:
    """The part of a manager that commits to sessions."""

    def __init__(
        self, context: Context, reading: Reading, creation: Creation, ending: Ending
    ) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._reading = reading
        self._creation = creation
        self._ending = ending

    async def save(
        self,
        session: Session,
        *,
        conflict: Policy,
        lease: Lease | None,
        durability: Durability | None,
    ) -> None:
        """See `SessionManager.save`."""
        check_session(session)
        check_policy(conflict)
        self._context.now()
        await self._settle(session)
        if not session.modified:
            return
        state = session.state
        delta, writes = state.delta(), state.writes
        refuse_unbound(session.header, delta.changes)
        if state.cleared:
            await self._delete_cleared(session, delta, conflict=conflict, lease=lease)
            return
        if not session.stored:
            try:
                await self._store_first(session, delta, durability)
            except AlreadyExists:
                if session.revision == 0:
                    raise
                # Another save of this copy was faster: what is left is a save like any other.
                await self.save(session, conflict=conflict, lease=lease, durability=durability)
            return
        if not delta.changes and not delta.clear:
            return
        tiers = by_tier(delta.changes)
        change = self._change(
            session,
            conflict=conflict,
            lease=lease,
            durability=durability,
            clear=delta.clear,
            session=tiers.session,
            user_tier=tiers.user,
            app_tier=tiers.app,
        )

        def taken(committed: Committed) -> None:
            session.committed(committed.header, committed.revision)
            state.saved(delta, writes)

        await self._commit(session, change, taken)

    async def _store_first(
        self, session: Session, delta: StateDelta, durability: Durability | None
    ) -> None:
        state, writes = session.state, session.state.writes
        await self._creation.store(
            session,
            delta.changes,
            (),
            given_id=True,
            durability=durability,
            taken=lambda: state.saved(delta, writes),
        )

    async def _delete_cleared(
        self, session: Session, delta: StateDelta, *, conflict: Policy, lease: Lease | None
    ) -> None:
        """Delete a session that was cleared; what it wrote to the shared tiers is kept."""
        writes = session.state.writes
        shared = {key: value for key, value in delta.changes.items() if key_is_shared(key)}
        tiers = by_tier(shared)
        if shared and not session.stored:
            await self._share(session.user, tiers)
        elif shared:
            change = self._change(
                session,
                conflict=conflict,
                lease=lease,
                user_tier=tiers.user,
                app_tier=tiers.app,
            )
            await self._commit(
                session, change, lambda done: session.committed(done.header, done.revision)
            )
        if session.stored:
            change = self._change(session, conflict=conflict, lease=lease)
            try:
                await self._delete_if_allowed(change)
            except NotFound as error:
                if not _was_ended(session, change, error):
                    raise
                raise Ended(session.id, session.phase, _REMOVED) from error
        session.state.saved(delta, writes)

    async def _delete_if_allowed(self, change: Change) -> None:
        """Remove a session unless a commit like `change` would be refused. Gone already is fine."""
        assert change.id is not None  # a change to a session
        while (record := await self._reading.record(change.id, expired=True)) is not None:
            header = forbid(record.header, change, lambda _count: ())
            # Only as it was looked at: if it moved on since, look again.
            if await self._ending.remove(
                header.id, epoch=header.epoch, revision=header.revision, fence=change.fence
            ):
                return

    async def append(
        self,
        target: Session | str,
        events: Sequence[Event],
        *,
        state: Mapping[str, Any] | None,
        conflict: Policy,
        lease: Lease | None,
        durability: Durability | None,
    ) -> list[Event]:
        """Commit events with their deltas; return them as stored, partial ones as given."""
        check_policy(conflict)
        whole = _whole(events)
        if not whole:
            return list(events)
        now = self._context.now()
        prepared = self._prepare(whole, now, state)
        changes, tiers = _merged(prepared)
        session = target if isinstance(target, Session) else None
        if session is not None:
            refuse_unbound(session.header, changes)
            await self._settle(session)
        id, epoch, revision = _expected(target, conflict, lease)
        change = Change(
            app=self._context.app,
            id=id,
            op=self._context.ids.operation(),
            now=now,
            epoch=epoch,
            revision=revision,
            fence=None if lease is None else lease.token,
            durability=self._context.durability(durability),
            session=tiers.session,
            user_tier=tiers.user,
            app_tier=tiers.app,
            events=tuple([item.draft for item in prepared]),
        )
        writes = 0 if session is None else session.state.writes
        stored: list[Event] = []

        def taken(committed: Committed) -> None:
            stored.extend(stored_events(whole, prepared, committed.seqs))
            if session is not None:
                _take(session, committed, prepared, stored, writes)

        await self._commit(session, change, taken)
        return stored if len(stored) == len(events) else _with_partial(events, stored)

    def _prepare(
        self, whole: Sequence[Event], now: int, state: Mapping[str, Any] | None = None
    ) -> list[Prepared]:
        """Return events ready to be stored; `state` belongs to the last one."""
        if len(whole) > MAX_EVENTS_PER_COMMIT:
            raise TooLarge("events in one commit", len(whole), MAX_EVENTS_PER_COMMIT)
        ids = self._context.ids
        if len(whole) == 1:
            return [prepare(whole[0], state, ids, now)]
        last = len(whole) - 1
        return [
            prepare(event, state if index == last else None, ids, now)
            for index, event in enumerate(whole)
        ]

    async def truncate(
        self, session: Session, *, after: int, conflict: Policy, lease: Lease | None
    ) -> None:
        """See `SessionManager.truncate`."""
        check_session(session)
        check_policy(conflict)
        if type(after) is not int or after < 0:
            raise InvalidQuery("after", f"give the number of an event, from 0, not {after!r}")
        await self._settle(session)
        change = self._change(session, conflict=conflict, lease=lease, truncate_after=after)

        def taken(committed: Committed) -> None:
            session.committed(committed.header, committed.revision)
            session.cut(after)

        await self._commit(session, change, taken)

    async def replace_suffix(
        self,
        session: Session,
        *,
        expected: Sequence[int],
        events: Sequence[Event],
        conflict: Policy,
        lease: Lease | None,
    ) -> list[Event]:
        """See `SessionManager.replace_suffix`."""
        check_session(session)
        check_policy(conflict)
        tail = tuple(expected)
        ascending = all(type(seq) is int and seq > 0 for seq in tail) and list(tail) == sorted(tail)
        if not tail or not ascending:
            raise InvalidQuery("expected", "give the numbers of the last events, ascending")
        whole = _whole(events) if events else []
        prepared = self._prepare(whole, self._context.now())
        changes, tiers = _merged(prepared)
        refuse_unbound(session.header, changes)
        await self._settle(session)
        change = self._change(
            session,
            conflict=conflict,
            lease=lease,
            session=tiers.session,
            user_tier=tiers.user,
            app_tier=tiers.app,
            events=tuple(item.draft for item in prepared),
            truncate_after=tail[0] - 1,
            expect_tail=tail,
        )
        writes = session.state.writes
        stored: list[Event] = []

        def taken(committed: Committed) -> None:
            stored.extend(stored_events(whole, prepared, committed.seqs))
            session.cut(tail[0] - 1)
            _take(session, committed, prepared, stored, writes)

        await self._commit(session, change, taken)
        return stored

    async def bind(self, session: Session, user: str) -> None:
        """See `SessionManager.bind`."""
        check_session(session)
        check_name("user", user)
        if session.user is not None and session.user != user:
            raise AlreadyBound(session.id)
        if not session.stored:
            session.bound(user)
            return
        await self._settle(session)
        change = self._change(session, conflict="merge", lease=None, user=user)
        await self._commit(
            session, change, lambda done: session.committed(done.header, done.revision)
        )
        tiers = await self._context.store.tiers(self._context.app, user)
        session.state.loaded_tier(
            {key_of("user", name): value for name, value in tiers.user_state.items()}
        )

    async def label(
        self, session: Session, labels: Mapping[str, str | None], *, conflict: Policy
    ) -> None:
        """See `SessionManager.label`."""
        check_session(session)
        check_policy(conflict)
        patch = {
            check_name("label name", name): (
                None if value is None else check_name(f"label {name!r}", value)
            )
            for name, value in labels.items()
        }
        await self._settle(session)
        change = self._change(session, conflict=conflict, lease=None, labels=patch)
        await self._commit(
            session, change, lambda done: session.committed(done.header, done.revision)
        )

    async def apply(
        self, id: str, trigger: Trigger, *, reason: str | None, lease: Lease | None
    ) -> Phase:
        """See `SessionManager.apply`."""
        try:
            trigger = Trigger(trigger)
        except ValueError:
            known = ", ".join(Trigger)
            raise InvalidQuery("trigger", f"{trigger!r} is none of {known}") from None
        if trigger in FINISH_OF.values():
            record = await self._reading.record(id)
            if record is None:
                raise NotFound(str(id))
            why = "end hooks run before it: use finish(), or end() for both halves"
            raise InvalidTransition(record.header.phase, trigger, why)
        if reason is not None:
            check_reason(reason)
        claim = from_seconds(END_CLAIM_SECONDS) if trigger in END_OF.values() else 0
        move = Move(trigger=trigger, reason=reason, due_at=self._context.now() + claim)
        change = self._change(id, conflict="merge", lease=lease, move=move)
        committed = await self._context.commit(change, lambda _done: None)
        return committed.header.phase

    async def refresh(self, session: Session) -> None:
        """See `SessionManager.refresh`."""
        check_session(session)
        window = None
        if session.events:
            window = EventQuery(after_seq=(session.events[0].seq or 1) - 1)
        record = await self._reading.record(session.id, window=window)
        if record is None:
            raise NotFound(session.id)
        session.doubtful = None  # whatever came of it is in what was read
        session.reloaded(record)

    async def share(self, user: str | None, changes: Mapping[str, Any]) -> None:
        """Commit to the app's tier and a user's, without a session."""
        await self._share(user, encode_delta(changes, "state").tiers)

    async def _share(self, user: str | None, tiers: TierDeltas) -> None:
        change = Change(
            app=self._context.app,
            id=None,
            op=self._context.ids.operation(),
            now=self._context.now(),
            user=user,
            user_tier=tiers.user,
            app_tier=tiers.app,
            durability=self._context.durability(None),
        )
        await self._context.store.commit(change)

    async def _commit(
        self, session: Session | None, change: Change, taken: Callable[[Committed], None]
    ) -> None:
        """Commit. A copy in a scope, or past its deadline, says `Ended` of what was removed."""
        try:
            await self._context.commit(change, taken)
        except (Unavailable, asyncio.CancelledError):
            if session is not None:
                session.doubtful = Doubtful(change, taken)
            raise
        except NotFound as error:
            if session is None or not _was_ended(session, change, error):
                raise
            raise Ended(session.id, session.phase, _REMOVED) from error

    async def _settle(self, session: Session) -> None:
        """Find out what came of this copy's last commit, if nobody could say at the time.

        Else a strict write would conflict with it, and a save would send it again. Raises
        `Unavailable` when nobody can say yet.
        """
        doubtful = session.doubtful
        if doubtful is None:
            return
        committed = await self._context.outcome(doubtful.change)
        if session.doubtful is not doubtful:
            return  # another call has settled it meanwhile
        session.doubtful = None
        if committed is not None:
            doubtful.taken(committed)

    def _change(
        self,
        target: Session | str,
        *,
        conflict: Policy,
        lease: Lease | None,
        durability: Durability | None = None,
        **parts: Any,
    ) -> Change:
        """Return a change to a session, with what this copy of it expects."""
        id, epoch, revision = _expected(target, conflict, lease)
        return Change(
            app=self._context.app,
            id=id,
            op=self._context.ids.operation(),
            now=self._context.now(),
            epoch=epoch,
            revision=revision,
            fence=None if lease is None else lease.token,
            durability=self._context.durability(durability),
            **parts,
        )


def _was_ended(session: Session, change: Change, error: NotFound) -> bool:
    """Return whether a session is missing because it was ended.

    Of a copy that is in a scope or past its deadline that is all it can be.
    """
    if isinstance(error, Ended):  # which says more
        return False
    return session.scopes > 0 or is_past(session.header.expires_at, change.now)


def _expected(
    target: Session | str, conflict: Policy, lease: Lease | None
) -> tuple[str, str | None, int | None]:
    """Return the id that is meant, with the epoch and revision that this copy of it expects."""
    epoch: str | None = None
    revision: int | None = None
    if isinstance(target, Session):
        header = target.header
        id, epoch = header.id, header.epoch
        if not target.stored:
            raise NotFound(id, "it has not been saved yet")
        revision = target.revision if conflict == "fail" else None
    else:
        id = check_name("session id", target)
        if conflict == "fail":
            raise InvalidQuery("conflict", "'fail' needs a session that was loaded, not an id")
    if lease is not None:
        epoch = _fenced(lease, id, epoch)
    return id, epoch, revision


def _fenced(lease: Lease, id: str, epoch: str | None) -> str | None:
    """Return the incarnation that a lease is of: tokens of another one mean nothing."""
    if lease.id != id:
        raise InvalidQuery("lease", f"it is of session {lease.id!r}, not of {id!r}")
    if epoch not in (None, lease.epoch):
        raise LeaseLost(id, lease.token)
    return lease.epoch


def key_is_shared(key: str) -> bool:
    """Return whether a state key belongs to the user's tier or the app's."""
    return key.startswith(("app:", "user:"))


def check_policy(conflict: object) -> None:
    """Raise `InvalidQuery` for anything but "merge" and "fail"."""
    if conflict not in ("merge", "fail"):
        raise InvalidQuery("conflict", f"{conflict!r} is neither 'merge' nor 'fail'")


def _whole(events: Sequence[Event]) -> list[Event]:
    """Return the events that are to be stored. Raises `InvalidQuery` for none, or a non-event."""
    if not events:
        raise InvalidQuery("event", "give at least one event")
    for event in events:
        if not isinstance(event, Event):
            raise InvalidQuery("event", f"give an Event, not {type(event).__name__}")
    return [event for event in events if not event.partial]


def _with_partial(events: Sequence[Event], stored: Sequence[Event]) -> list[Event]:
    """Return the events in the order given: partial ones as they are, the others as stored."""
    left = iter(stored)
    return [event if event.partial else next(left) for event in events]


def _merged(prepared: Sequence[Prepared]) -> tuple[Changes, TierDeltas]:
    """Return what events change together; of two that set a key, the later one wins."""
    if len(prepared) == 1:
        delta = prepared[0].delta
        return delta.changes, delta.tiers
    changes: Changes = {}
    for item in prepared:
        changes.update(item.delta.changes)
    return changes, by_tier(changes)


def _take(
    session: Session,
    committed: Committed,
    prepared: Sequence[Prepared],
    stored: list[Event],
    writes: int,
) -> None:
    """Let a working copy take over events that were committed when it had `writes` changes."""
    session.committed(committed.header, committed.revision)
    session.state.applied(changes_of(prepared, committed.seqs, committed.before), writes)
    session.logged(stored)
    for item in prepared:
        if item.delta.temporary:
            session.state.set_temporary(item.delta.temporary)

"""Writing to the log of a session: append events, cut the log, replace its end."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from sojourn.arguments import several
from sojourn.committing import check_policy, expected_of
from sojourn.creation import refuse_unbound
from sojourn.errors import InvalidQuery, TooLarge
from sojourn.events import by_tier, changes_of, prepare, stored_event
from sojourn.limits import MAX_EVENTS_PER_COMMIT
from sojourn.model import Event
from sojourn.session import Session, check_app, check_session
from sojourn.store import Change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sojourn.committing import Committing, Policy
    from sojourn.context import Context
    from sojourn.events import Changes, Prepared, TierDeltas
    from sojourn.lease import Lease
    from sojourn.store import Committed, Durability


_draft_of = attrgetter("draft")


class Appending:
    """The part of a manager that writes to logs."""

    def __init__(self, context: Context, committing: Committing) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._committing = committing
        self.now = context.now

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
        if conflict != "merge":
            check_policy(conflict)
        whole = _whole(events, state)
        if not whole:
            return list(events)
        context = self._context
        now = context.now()
        prepared = self._prepare(whole, now, state)
        changes, tiers = _merged(prepared)
        session = target if isinstance(target, Session) else None
        if session is not None:
            check_app(session, context.app)
            refuse_unbound(session.header, changes)
            if session.doubtful is not None:
                await self._committing.settle(session)
        id, epoch, revision = expected_of(target, conflict, lease)
        change = Change(
            app=context.app,
            id=id,
            op=context.ids.operation(),
            now=now,
            epoch=epoch,
            revision=revision,
            fence=None if lease is None else lease.token,
            durability=context.durability(durability),
            session=tiers.session,
            user_tier=tiers.user,
            app_tier=tiers.app,
            events=tuple(map(_draft_of, prepared)),
        )
        writes = 0 if session is None else session.state.writes
        stored: list[Event] = []

        def taken(committed: Committed) -> None:
            stored.extend(map(stored_event, whole, prepared, committed.seqs))
            if session is not None:
                _take(session, committed, prepared, stored, writes)

        await self._committing.commit(session, change, taken)
        return stored if len(stored) == len(events) else _with_partial(events, stored)

    async def truncate(
        self, session: Session, *, after: int, conflict: Policy, lease: Lease | None
    ) -> None:
        """See `SessionManager.truncate`."""
        check_session(session, self._context.app)
        check_policy(conflict)
        if type(after) is not int or after < 0:
            raise InvalidQuery("after", f"give the number of an event, from 0, not {after!r}")
        await self._committing.settle(session)
        change = self._committing.change(
            session, conflict=conflict, lease=lease, truncate_after=after
        )

        def taken(committed: Committed) -> None:
            session.committed(committed.header, committed.revision)
            session.cut(after)

        await self._committing.commit(session, change, taken)

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
        check_session(session, self._context.app)
        check_policy(conflict)
        tail = several("expected", expected, "the numbers of the last events")
        ascending = all(type(seq) is int and seq > 0 for seq in tail) and list(tail) == sorted(tail)
        if not tail or not ascending:
            raise InvalidQuery("expected", "give the numbers of the last events, ascending")
        events = several("events", events, "events")
        whole = _whole(events) if events else []
        prepared = self._prepare(whole, self._context.now())
        changes, tiers = _merged(prepared)
        refuse_unbound(session.header, changes)
        await self._committing.settle(session)
        change = self._committing.change(
            session,
            conflict=conflict,
            lease=lease,
            session=tiers.session,
            user_tier=tiers.user,
            app_tier=tiers.app,
            events=tuple(map(_draft_of, prepared)),
            truncate_after=tail[0] - 1,
            expect_tail=tail,
        )
        writes = session.state.writes
        stored: list[Event] = []

        def taken(committed: Committed) -> None:
            stored.extend(map(stored_event, whole, prepared, committed.seqs))
            session.cut(tail[0] - 1)
            _take(session, committed, prepared, stored, writes)

        await self._committing.commit(session, change, taken)
        return stored

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


def _whole(events: Sequence[Event], state: Mapping[str, Any] | None = None) -> list[Event]:
    """Return the events that are to be stored.

    Raises `InvalidQuery` for none, for a non-event, and for state without an event to store it
    with.
    """
    if not events:
        raise InvalidQuery("event", "give at least one event")
    whole: list[Event] = []
    for event in events:
        if not isinstance(event, Event):
            raise InvalidQuery("event", f"give an Event, not {type(event).__name__}")
        if not event.partial:
            whole.append(event)
    if state and not whole:
        reason = "no state is stored with partial events: save it, or give a whole event"
        raise InvalidQuery("state", reason)
    return whole


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

"""Saving: what changed in a working copy, its user, its labels, its phase; shared state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sojourn.arguments import mapping_of
from sojourn.commit import forbid, forbid_labels, patched
from sojourn.committing import REMOVED, check_policy, was_ended
from sojourn.creation import deadlines_of, refuse_unbound, with_deadlines
from sojourn.ending import check_reason
from sojourn.errors import (
    AlreadyBound,
    AlreadyExists,
    Ended,
    InvalidQuery,
    InvalidTransition,
    NotFound,
)
from sojourn.events import by_tier, encode_delta
from sojourn.expiry import check_expiry
from sojourn.lifecycle import END_OF, FINISH_OF, Phase, Trigger
from sojourn.limits import END_CLAIM_SECONDS
from sojourn.names import check_name
from sojourn.session import Session, check_session
from sojourn.state import key_of
from sojourn.store import Change, EventQuery, Move
from sojourn.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn.committing import Committing, Policy
    from sojourn.context import Context
    from sojourn.creation import Creation
    from sojourn.ending import Ending
    from sojourn.events import TierDeltas
    from sojourn.expiry import Expiry
    from sojourn.lease import Lease
    from sojourn.reading import Reading
    from sojourn.session import StateDelta
    from sojourn.store import Committed, Deadlines, Durability


class Anew(NamedTuple):
    """What a save changes of the session itself: whose it is, when it expires, and its labels."""

    user: str | None = None
    expiry: Expiry | None = None
    labels: dict[str, str | None] | None = None


class Saving:
    """The part of a manager that commits to sessions."""

    def __init__(
        self,
        context: Context,
        committing: Committing,
        reading: Reading,
        creation: Creation,
        ending: Ending,
    ) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._committing = committing
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
        anew: Anew | None = None,
    ) -> None:
        """See `SessionManager.save`."""
        check_session(session, self._context.app)
        check_policy(conflict)
        self._context.now()
        if session.doubtful is not None:
            await self._committing.settle(session)
        if anew is None and not session.modified:
            return
        state = session.state
        delta, writes = state.delta(), state.writes
        refuse_unbound(session.header, delta.changes)
        if state.cleared:
            await self._delete_cleared(session, delta, conflict=conflict, lease=lease)
            return
        if not session.stored:
            await self._save_first(session, delta, durability, anew)
            return
        if anew is None and not delta.changes and not delta.clear:
            return
        tiers = by_tier(delta.changes)
        change = self._committing.change(
            session,
            conflict=conflict,
            lease=lease,
            durability=durability,
            clear=delta.clear,
            session=tiers.session,
            user_tier=tiers.user,
            app_tier=tiers.app,
            **self._parts(anew),
        )

        def taken(committed: Committed) -> None:
            session.committed(committed.header, committed.revision)
            state.saved(delta, writes)

        was = session.user
        await self._committing.commit(session, change, taken)
        if was is None and session.user is not None:
            await self._load_user_tier(session, session.user)

    def anew(
        self,
        session: Session,
        user: str | None,
        expiry: Expiry | None,
        labels: Mapping[str, str | None] | None,
    ) -> Anew | None:
        """Return what a save changes of the session itself, `None` for nothing. Raises as it."""
        check_session(session, self._context.app)
        if user is not None:
            check_name("user", user)
            if session.user not in (None, user):
                raise AlreadyBound(session.id)
        if expiry is not None:
            check_expiry(expiry)
        patch = None if labels is None else _patch_of(labels) or None
        if expiry is None and patch is None and user in (None, session.user):
            return None
        return Anew(user, expiry, patch)

    def _parts(self, anew: Anew | None) -> dict[str, Any]:
        """Return what a change has of it."""
        if anew is None:
            return {}
        return {"user": anew.user, "labels": anew.labels, "deadlines": self._deadlines(anew)}

    def _deadlines(self, anew: Anew | None) -> Deadlines | None:
        if anew is None or anew.expiry is None:
            return None
        return deadlines_of(anew.expiry, self._context.now())

    async def _save_first(
        self,
        session: Session,
        delta: StateDelta,
        durability: Durability | None,
        anew: Anew | None,
    ) -> None:
        """Store a copy that is not stored yet, as it is to be from now on."""
        if anew is not None and anew.labels is not None:
            forbid_labels(session.header, anew.labels)
        if anew is not None and anew.user is not None:
            session.bound(anew.user)
        limits = self._deadlines(anew)
        if limits is not None:
            session.seen(with_deadlines(session.header, limits))
        if anew is not None and anew.labels is not None:
            labels = patched(session.header.labels, anew.labels)
            session.seen(msgspec.structs.replace(session.header, labels=labels))
        try:
            await self._store_first(session, delta, durability)
        except AlreadyExists:
            if session.revision == 0:
                raise
            # Another save of this copy was faster: what is left is a save like any other.
            await self.save(session, conflict="merge", lease=None, durability=durability, anew=anew)

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
            change = self._committing.change(
                session,
                conflict=conflict,
                lease=lease,
                user_tier=tiers.user,
                app_tier=tiers.app,
            )
            await self._committing.commit(
                session, change, lambda done: session.committed(done.header, done.revision)
            )
        if session.stored:
            change = self._committing.change(session, conflict=conflict, lease=lease)
            try:
                await self._delete_if_allowed(change)
            except NotFound as error:
                if not was_ended(session, change, error):
                    raise
                raise Ended(session.id, session.phase, REMOVED) from error
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

    async def bind(self, session: Session, user: str) -> None:
        """See `SessionManager.bind`."""
        check_session(session, self._context.app)
        check_name("user", user)
        if session.user is not None and session.user != user:
            raise AlreadyBound(session.id)
        if not session.stored:
            session.bound(user)
            return
        await self._committing.settle(session)
        change = self._committing.change(session, conflict="merge", lease=None, user=user)
        await self._committing.commit(
            session, change, lambda done: session.committed(done.header, done.revision)
        )
        await self._load_user_tier(session, user)

    async def _load_user_tier(self, session: Session, user: str) -> None:
        """Let a copy that was just bound see what its user shares."""
        tiers = await self._context.store.tiers(self._context.app, user)
        session.state.loaded_tier(
            {key_of("user", name): value for name, value in tiers.user_state.items()}
        )

    async def label(
        self, session: Session, labels: Mapping[str, str | None], *, conflict: Policy
    ) -> None:
        """See `SessionManager.label`."""
        check_session(session, self._context.app)
        check_policy(conflict)
        patch = _patch_of(labels)
        await self._committing.settle(session)
        change = self._committing.change(session, conflict=conflict, lease=None, labels=patch)
        await self._committing.commit(
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
        change = self._committing.change(id, conflict="merge", lease=lease, move=move)
        committed = await self._context.commit(change, lambda _done: None)
        return committed.header.phase

    async def refresh(self, session: Session) -> None:
        """See `SessionManager.refresh`."""
        check_session(session, self._context.app)
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


def _patch_of(labels: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what is to become of labels. Raises `InvalidId`, `InvalidQuery` for no mapping."""
    return {
        check_name("label name", name): (
            None if value is None else check_name(f"label {name!r}", value)
        )
        for name, value in mapping_of("labels", labels).items()
    }


def key_is_shared(key: str) -> bool:
    """Return whether a state key belongs to the user's tier or the app's."""
    return key.startswith(("app:", "user:"))

"""Making sessions: new, get-or-create, forked."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.arguments import mapping_of, several
from sojourn.commit import recall, sequence
from sojourn.context import uninterrupted
from sojourn.errors import (
    AlreadyExists,
    Ended,
    InvalidId,
    InvalidQuery,
    NotFound,
    NotOwner,
    RoleTaken,
    SojournError,
    TooLarge,
    Unavailable,
    Unbound,
)
from sojourn.events import by_tier, changes_of, encode_delta, prepare, stored_event
from sojourn.expiry import absolute_deadline, check_expiry, deadline, idle_span, is_past
from sojourn.lifecycle import ENDING, FIRST, LIVE, PRESETS
from sojourn.limits import CREATE_ATTEMPTS, MAX_EVENTS_PER_COMMIT, MAX_LABELS
from sojourn.model import Event, Header
from sojourn.names import check_name
from sojourn.reading import check_labels
from sojourn.session import Session, read_back
from sojourn.state import merge
from sojourn.store import Create, Deadlines, Delete, Fork, Query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from sojourn.context import Context
    from sojourn.ending import Ending
    from sojourn.events import Changes, Prepared
    from sojourn.expiry import Expiry
    from sojourn.reading import Reading
    from sojourn.store import Durability


USER_LABEL = "sojourn:user"
"""The exclusive label of a user's one current session; its value is the user."""

KEY_LABEL = "sojourn:key"
"""The exclusive label of the one live session of a key; its value is the key."""

REUSABLE_LABEL = "sojourn:reusable"
"""The label of anonymous sessions that `get_or_create(reuse=True)` may hand out again."""

HOLDERS_PAGE = 16
"""Sessions looked at at a time to find who holds a claim: forks carry the label without it."""


class Wanted:
    """Which session is wanted when no id is given: a user's, a key's, or any reusable one."""

    def __init__(
        self,
        *,
        user: str | None = None,
        key: str | None = None,
        reuse: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises `InvalidId` for none of them or a bad one, `InvalidQuery` for too many."""
        facts = facts or {}
        self.user = None if user is None else check_name("user", user)
        self.label, self.value = REUSABLE_LABEL, "yes"
        if reuse and (key is not None or user is not None):
            raise InvalidQuery("reuse", "only anonymous sessions without a key are reused")
        if facts.get("exclusive"):
            raise InvalidQuery(
                "exclusive", "only a session that is got by id has claims of its own"
            )
        if key is not None:
            self.label, self.value = KEY_LABEL, check_name("key", key)
        elif user is not None:
            self.label, self.value = USER_LABEL, user
        elif not reuse:
            raise InvalidId("session id", "give one, or a key, or a user")
        self.reuse = reuse
        labels = facts.get("labels")
        self.labels = {
            **({} if labels is None else mapping_of("labels", labels)),
            self.label: self.value,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What a session that is made for this has, so that the next call finds it."""
        if self.reuse:
            return {"labels": self.labels}
        return {"labels": self.labels, "exclusive": (self.label,)}


class Creation:
    """The part of a manager that makes sessions."""

    def __init__(self, context: Context, reading: Reading, ending: Ending) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._reading = reading
        self._ending = ending

    def header(
        self,
        *,
        id: str | None = None,
        user: str | None = None,
        lifecycle: str = "open",
        labels: Mapping[str, str] | None = None,
        exclusive: Sequence[str] = (),
        parent: str | None = None,
        expiry: Expiry | None = None,
    ) -> Header:
        """Return the first header of a new session. Raises `InvalidId` or `InvalidQuery`."""
        if lifecycle not in PRESETS:
            raise InvalidQuery("lifecycle", f"{lifecycle!r} is none of {', '.join(PRESETS)}")
        checked_labels = {} if labels is None else check_labels(labels)
        if len(checked_labels) > MAX_LABELS:
            raise TooLarge("labels", len(checked_labels), MAX_LABELS)
        if isinstance(exclusive, str):
            raise InvalidId("exclusive", "give a list of label names, not one string")
        claimed = several("exclusive", exclusive, "label names")
        for name in claimed:
            if check_name("exclusive", name) not in checked_labels:
                raise InvalidId("exclusive", f"{name!r} is not one of the session's labels")
        policy = self._context.expiry if expiry is None else expiry
        check_expiry(policy)
        now = self._context.now()
        header = Header(
            app=self._context.app,
            id=self._context.ids.session_id() if id is None else check_name("session id", id),
            epoch=self._context.ids.epoch(),
            user=None if user is None else check_name("user", user),
            lifecycle=lifecycle,
            phase=FIRST[lifecycle],
            created_at=now,
            active_at=now,
            parent=None if parent is None else check_name("parent", parent),
            labels=checked_labels,
            exclusive=claimed,
        )
        return with_deadlines(header, deadlines_of(policy, now))

    async def create(
        self,
        header: Header,
        *,
        given_id: bool,
        state: Mapping[str, Any],
        events: Iterable[Event],
        durability: Durability | None,
    ) -> Session:
        """Store a new session and return it. See `SessionManager.create`."""
        delta = encode_delta(mapping_of("state", state), "state")
        refuse_unbound(header, delta.changes)
        events = several("events", events, "events")
        prepared = self.prepare(events)
        session = Session(header, {}, stored=False)
        await self.store(session, delta.changes, prepared, given_id=given_id, durability=durability)
        session.state.applied(delta.changes, session.state.writes)
        session.state.set_temporary(delta.temporary)
        whole = [event for event in events if not event.partial]
        seqs, _ = sequence([item.draft for item in prepared], 0, lambda _draft: None)
        for event, item, seq in zip(whole, prepared, seqs, strict=True):
            session.state.set_temporary(item.delta.temporary)
            if seq > len(session.events):  # else it is one of the events before it again
                session.state.applied(item.delta.changes, session.state.writes)
                session.events.append(stored_event(event, item, seq))
        return session

    def prepare(self, events: Sequence[Event]) -> list[Prepared]:
        """Return events ready to be stored, partial ones left out."""
        if len(events) > MAX_EVENTS_PER_COMMIT:
            raise TooLarge("events in one commit", len(events), MAX_EVENTS_PER_COMMIT)
        now, ids = self._context.now(), self._context.ids
        whole = [event for event in events if not getattr(event, "partial", False)]
        return [prepare(event, None, ids, now) for event in whole]

    async def store(
        self,
        session: Session,
        changes: Changes,
        prepared: Sequence[Prepared],
        *,
        given_id: bool,
        durability: Durability | None,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        """Store a session for the first time; a generated id that exists is replaced by another.

        An id or an exclusive claim that a session past its deadline still has is freed first, by
        finishing that session, hooks and all. `taken` is called as soon as it is stored, even if
        the caller was cancelled meanwhile.
        """
        merged: Changes = dict(changes)
        if prepared:
            seqs, _ = sequence([item.draft for item in prepared], 0, lambda _draft: None)
            merged.update(changes_of(prepared, seqs, 0))
        refuse_unbound(session.header, merged)
        # Read before, not after: once it is stored, nothing may fail any more.
        tiers = await self._context.store.tiers(session.app, session.user)

        def stored(header: Header, revision: int) -> None:
            session.committed(header, revision)
            session.state.loaded_tier(merge({}, tiers.user_state, tiers.app_state))
            taken()

        before = session.header
        try:
            await self._create_once_free(
                session,
                lambda: self._create(session, merged, prepared, durability, stored),
                given_id=given_id,
            )
        except BaseException:
            if not session.stored:
                session.seen(before)
            raise

    async def _create_once_free(
        self, session: Session, create: Callable[[], Awaitable[None]], *, given_id: bool
    ) -> None:
        """Create, once what an expired session has is freed, or under another generated id."""
        freed: set[str] = set()
        for _attempt in range(CREATE_ATTEMPTS):
            session.seen(restamped(session.header, self._context.now()))
            try:
                await create()
            except AlreadyExists as error:
                if not given_id:
                    fresh = self._context.ids.session_id()
                    session.seen(msgspec.structs.replace(session.header, id=fresh))
                elif not error.expired or error.id in freed:
                    raise
                else:
                    freed.add(error.id)
                    await self._free(error.id, error)
            except RoleTaken as error:
                if error.holder in freed or not await self._is_expired(error.holder):
                    raise
                freed.add(error.holder)
                await self._free(error.holder, error)
            else:
                return
        raise AlreadyExists(
            session.id, f"{CREATE_ATTEMPTS} generated ids were taken; is the id source broken?"
        )

    async def _create(
        self,
        session: Session,
        changes: Changes,
        prepared: Sequence[Prepared],
        durability: Durability | None,
        stored: Callable[[Header, int], None],
    ) -> None:
        tiers = by_tier(changes)
        create = Create(
            header=session.header,
            op=self._context.ids.operation(),
            session=tiers.session,
            user_tier=tiers.user,
            app_tier=tiers.app,
            events=tuple(item.draft for item in prepared),
            durability=self._context.durability(durability),
        )
        try:
            committed = await self._context.store.create(create)
        except asyncio.CancelledError:
            await uninterrupted(self._take_if_created(create, stored))
            raise
        except Unavailable as error:
            # Its reply may have been lost; then it is there, and there is no error.
            if error.denied or not await self._take_if_created(create, stored):
                raise
            return
        stored(committed.header, committed.revision)

    async def _take_if_created(self, create: Create, stored: Callable[[Header, int], None]) -> bool:
        """Hand over what a create led to if it was applied, and return whether it was."""
        with contextlib.suppress(SojournError):
            record = await self._reading.record(create.header.id, expired=True)
            known = None if record is None else recall(record.header, create.op)
            if record is not None and known is not None:
                stored(record.header, known[0])
                return True
        return False

    async def _is_there(self, header: Header) -> bool:
        """Return whether this very session is stored: only the reply may have been lost."""
        with contextlib.suppress(SojournError):
            record = await self._reading.record(header.id, expired=True)
            return record is not None and record.header.epoch == header.epoch
        return False

    async def _is_expired(self, id: str) -> bool:
        record = await self._reading.record(id, expired=True)
        return record is None or is_past(record.header.expires_at, self._context.now())

    async def _free(self, id: str, taken: AlreadyExists | RoleTaken) -> None:
        """Finish an expired session that is in the way. If that fails, say so with what it was."""
        try:
            await self._ending.finish_expired(id)
        except SojournError as error:
            if isinstance(taken, AlreadyExists):
                taken.reason = "a session with this id expired, and its end failed"
            raise taken from error

    async def get_or_create(
        self,
        id: str,
        *,
        user: str | None,
        make: Callable[[], Awaitable[Session]],
    ) -> Session:
        """Return the session, created if it is missing; of many at once, one creates it."""
        for _attempt in range(CREATE_ATTEMPTS):
            session = await self._reading.get(id, events=None, touch=False, expired=False)
            if session is None:
                try:
                    return await make()
                except AlreadyExists as error:
                    if error.expired:
                        raise
                    continue
            return _of_user(session, user)
        raise AlreadyExists(id, "it is being created and removed over and over")

    async def get_or_create_wanted(
        self, wanted: Wanted, make: Callable[..., Awaitable[Session]]
    ) -> Session:
        """Return the session that is wanted, made if there is none. It counts as used."""
        refusal: SojournError | None = None
        for _attempt in range(CREATE_ATTEMPTS):
            session = await (self._reusable(wanted) if wanted.reuse else self.find(wanted))
            if session is None:
                try:
                    return await make(**wanted.facts)
                except RoleTaken as error:
                    refusal = error
                    session = await self._holder(error)
            if session is not None:
                _of_user(session, wanted.user)
                try:
                    await self._reading.touch(session)
                except NotFound as error:  # it went between the look and the touch: look again
                    refusal = error
                else:
                    return session
        assert refusal is not None  # the loop goes on only after one
        raise refusal

    async def find(self, wanted: Wanted) -> Session | None:
        """Return the live session that holds the claim, `None` when nobody does."""
        position: str | None = None
        while True:
            query = self._wanted_query(wanted, limit=HOLDERS_PAGE, position=position)
            listed = await self._context.store.list(query)
            for record in listed.records:
                if record.header.exclusive == (wanted.label,):
                    return _of_user(read_back(record), wanted.user)
            if listed.corrupt:  # it may be the one: corrupt is not missing
                raise listed.corrupt[0]
            if listed.position is None:
                return None
            position = listed.position

    async def _reusable(self, wanted: Wanted) -> Session | None:
        """Return the reusable session that was used last, `None` without one."""
        query = self._wanted_query(wanted, limit=1, position=None)
        listed = await self._context.store.list(query)
        return read_back(listed.records[0]) if listed.records else None

    def _wanted_query(self, wanted: Wanted, *, limit: int, position: str | None) -> Query:
        query = self._reading.query(
            user=None,
            anonymous=wanted.reuse,
            phase=LIVE,
            labels=wanted.labels if wanted.reuse else {wanted.label: wanted.value},
            parent=None,
            order="-active" if wanted.reuse else "created",
            limit=limit,
        )
        return msgspec.structs.replace(query, position=position)

    async def _holder(self, taken: RoleTaken) -> Session | None:
        """Return the session that holds a claim; `None` once it is gone, ending is waited for.

        Raises the refusal if the holder cannot be ended, with the reason as its cause.
        """
        if taken.__cause__ is not None:  # it is past its deadline, and its end failed
            raise taken
        record = await self._reading.record(taken.holder, expired=True)
        if record is None:
            return None
        if record.header.phase in ENDING:
            try:
                await self._ending.finish(taken.holder, epoch=record.header.epoch)
            except SojournError as error:
                raise taken from error
            return None
        return read_back(record) if record.header.live else None

    async def fork(self, source: str, header: Header, *, at: int | None, given_id: bool) -> Session:
        """Copy a session. See `SessionManager.fork`."""
        if at is not None and (type(at) is not int or at < 0):
            raise InvalidQuery("at", f"give the number of an event, from 0, not {at!r}")
        freed = False
        for _attempt in range(CREATE_ATTEMPTS):
            fork = Fork(header=header, op=self._context.ids.operation(), source=source, at=at)
            try:
                return await self._forked(fork)
            except AlreadyExists as error:
                if not given_id:
                    header = msgspec.structs.replace(header, id=self._context.ids.session_id())
                elif error.expired and not freed and header.id != source:
                    freed = True
                    await self._free(header.id, error)
                else:
                    raise
        raise AlreadyExists(header.id, f"{CREATE_ATTEMPTS} generated ids were taken")

    async def _forked(self, fork: Fork) -> Session:
        """Copy a session once, and return the copy; whoever is cancelled over it leaves none."""
        header = fork.header
        try:
            try:
                await self._context.store.fork(fork)
            except Unavailable as error:
                if error.denied or not await self._is_there(header):
                    raise
            session = await self._reading.get(header.id, events=None, touch=False, expired=True)
        except asyncio.CancelledError:
            # It may have been stored all the same, and nobody is left who knows of it.
            with contextlib.suppress(SojournError):
                await uninterrupted(self.discard(header))
            raise
        if session is None:
            raise NotFound(header.id, "the fork was removed at once")
        return session

    async def discard(self, header: Header) -> None:
        """Remove this very session, if it is there, without an end: nobody was ever handed it."""
        now = self._context.now()
        await self._context.store.delete(
            Delete(app=header.app, id=header.id, now=now, epoch=header.epoch)
        )


def _of_user(session: Session, user: str | None) -> Session:
    """Return the session. Raises `NotOwner` if a user is named and it is not this one's."""
    if user is not None and session.user != user:
        raise NotOwner(session.id)
    return session


def restamped(header: Header, now: int) -> Header:
    """Return the header of a session that is stored for the first time now.

    Its idle time counts from here, its absolute deadline from its start. Raises `Ended` past that.
    """
    if is_past(header.absolute_at, now):
        raise Ended(header.id, header.phase, "past its deadline")
    active_at = max(header.active_at, now)
    expires_at = deadline(active_at, header.idle, header.absolute_at)
    return msgspec.structs.replace(
        header, active_at=active_at, expires_at=expires_at, due_at=expires_at
    )


def deadlines_of(policy: Expiry, start: int) -> Deadlines:
    """Return the deadlines that a policy gives a session that starts then."""
    return Deadlines(idle=idle_span(policy), absolute_at=absolute_deadline(policy, start))


def with_deadlines(header: Header, limits: Deadlines) -> Header:
    """Return the header of a session that expires then."""
    expires_at = deadline(header.active_at, limits.idle, limits.absolute_at)
    return msgspec.structs.replace(
        header,
        idle=limits.idle,
        absolute_at=limits.absolute_at,
        expires_at=expires_at,
        due_at=expires_at,
    )


def refuse_unbound(header: Header, changes: Mapping[str, object]) -> None:
    """Raise `Unbound` for a `user:` key in a session without a user."""
    if header.user is None:
        for key in changes:
            if key.startswith("user:"):
                raise Unbound(header.id, key)

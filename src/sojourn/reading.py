"""Reading: one session, a window of its log, pages of sessions, counts, shared state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn import codec, cursors
from sojourn.arguments import flag, mapping_of, several
from sojourn.commit import EARLIER
from sojourn.errors import Corrupt, InvalidQuery, NotFound, NotOwner
from sojourn.events import events_from
from sojourn.expiry import is_past, touch_is_due
from sojourn.lifecycle import Phase
from sojourn.limits import MAX_PAGE, MAX_SEQ
from sojourn.model import Page
from sojourn.names import check_name, is_name
from sojourn.session import Session, check_session, read_back
from sojourn.store import EventQuery, Get, Query, Touch
from sojourn.timestamps import EARLIEST, LATEST, parse_instant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sojourn.context import Context
    from sojourn.model import Encoded, Entry, Event, Record
    from sojourn.store import Order

ORDERS = ("created", "-created", "active", "-active")


class Reading:
    """The part of a manager that only looks."""

    def __init__(self, context: Context) -> None:
        """Made by `SessionManager`."""
        self._context = context

    async def record(
        self, id: str, *, window: EventQuery | None = None, expired: bool = False
    ) -> Record | None:
        """Return a record. A malformed id is no session, and the store is not asked."""
        now = self._context.now()
        if not is_name(id):
            return None
        get = Get(app=self._context.app, id=id, now=now, window=window, expired=expired)
        return await self._context.store.get(get)

    async def get(
        self, id: str, *, events: int | EventQuery | None, touch: bool, expired: bool
    ) -> Session | None:
        """See `SessionManager.get`."""
        context = self._context
        now = context.now()
        if not is_name(id):
            return None
        window = None if events is None else window_of(events)
        get = Get(app=context.app, id=id, now=now, window=window, expired=expired)
        record = await context.store.get(get)  # as `record`, but for a step: what there is most of
        if record is None:
            return None
        session = read_back(record)
        if touch:
            try:
                await self.touch(session)
            except NotFound:  # it went in between
                return session if expired else None
        return session

    async def require(
        self, id: str, *, user: str | None, events: int | EventQuery | None, touch: bool
    ) -> Session:
        """See `SessionManager.require`."""
        session = await self.get(id, events=events, touch=False, expired=False)
        if session is None:
            raise NotFound(str(id))
        if user is not None and session.user != user:
            raise NotOwner(id)
        if touch:
            await self.touch(session)
        return session

    async def touch(self, session: Session) -> None:
        """See `SessionManager.touch`."""
        check_session(session, self._context.app)
        now = self._context.now()
        header = session.header
        if not session.stored:
            raise NotFound(session.id, "it has not been saved yet")
        past = is_past(header.expires_at, now)  # as far as this copy knows: the store decides
        if past or touch_is_due(header.active_at, header.idle, now):
            touch = Touch(app=header.app, id=header.id, now=now, epoch=header.epoch)
            session.seen(await self._context.store.touch(touch))

    async def events(self, id: str, window: EventQuery, *, expired: bool) -> list[Event]:
        """See `SessionManager.events`."""
        return events_from(await self.entries(id, checked(window), expired=expired))

    async def entries(
        self, id: str, window: EventQuery, *, expired: bool, epoch: str | None = None
    ) -> Sequence[Entry]:
        """Return the same as the store has it: for who needs only a part of each event.

        The window is one that `checked` would let pass. With an `epoch`, a later session with the
        same id is not found.
        """
        entries: Sequence[Entry] | None
        if expired or epoch is not None:
            record = await self.record(id, window=window, expired=expired)
            if record is not None and epoch not in (None, record.header.epoch):
                raise NotFound(id, EARLIER)
            entries = None if record is None else record.entries
        else:
            now = self._context.now()
            if not is_name(id):
                raise NotFound(str(id))
            entries = await self._context.store.events(self._context.app, id, now, window)
        if entries is None:
            raise NotFound(str(id))
        return entries

    async def list(self, query: Query, cursor: str | None) -> Page[Session]:
        """See `SessionManager.list`."""
        position = None if cursor is None else cursors.redeem(query, cursor)
        query = msgspec.structs.replace(query, position=position)
        listed = await self._context.store.list(query)
        more = None if listed.position is None else cursors.issue(query, listed.position)
        items, corrupt = [], list(listed.corrupt)
        for record in listed.records:
            try:
                items.append(read_back(record))
            except Corrupt as error:  # it must not hide the others
                corrupt.append(error)
        return Page(items, more, tuple(corrupt))

    async def shared(self, user: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the user's tier and the app's, decoded."""
        self._context.now()
        tiers = await self._context.store.tiers(self._context.app, user)
        return _decoded(tiers.user_state), _decoded(tiers.app_state)

    def query(
        self,
        *,
        user: str | None,
        anonymous: bool,
        phase: Phase | Iterable[Phase] | None,
        labels: Mapping[str, str] | None,
        parent: str | None,
        order: Order = "-active",
        limit: int = 50,
        expired: bool = False,
    ) -> Query:
        """Return a checked query. Raises `InvalidQuery` or `InvalidId`, naming the argument."""
        if order not in ORDERS:
            raise InvalidQuery("order", f"{order!r} is none of {', '.join(ORDERS)}")
        if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
            raise InvalidQuery("limit", f"give a whole number from 1 to {MAX_PAGE}")
        if user is not None and anonymous:
            raise InvalidQuery("anonymous", "a session of a user is not anonymous")
        return Query(
            app=self._context.app,
            now=self._context.now(),
            user=None if user is None else check_name("user", user),
            anonymous=flag("anonymous", anonymous),
            phases=_phases(phase),
            labels=None if labels is None else check_labels(labels),
            parent=None if parent is None else check_name("parent", parent),
            order=order,
            limit=limit,
            expired=flag("expired", expired),
        )


def _decoded(tier: Encoded) -> dict[str, Any]:
    return {name: codec.decode(value, f"shared state {name!r}") for name, value in tier.items()}


def _phases(phase: Phase | Iterable[Phase] | None) -> tuple[Phase, ...] | None:
    if phase is None:
        return None
    phases = (phase,) if isinstance(phase, str) else several("phase", phase, "phases")
    try:
        return tuple(map(Phase, phases))
    except ValueError as error:
        raise InvalidQuery("phase", f"{error}; give any of {', '.join(Phase)}") from None


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels if names and values can be names, else raise `InvalidId`.

    Raises `InvalidQuery` for what is no mapping.
    """
    return {
        check_name("label name", name): check_name(f"label {name!r}", value)
        for name, value in mapping_of("labels", labels).items()
    }


def window_of(events: int | EventQuery) -> EventQuery:
    """Return a window: a number is the last so many."""
    return checked(events if isinstance(events, EventQuery) else EventQuery(last=events))


def checked(window: EventQuery) -> EventQuery:
    """Return a window as stores read it: its time an instant, no number beyond what a log can hold.

    Raises `InvalidQuery`, naming the field.
    """
    if _is_plain(window):
        return window
    numbers: dict[str, int | None] = {}
    for field in ("last", "first", "after_seq", "before_seq"):
        value = getattr(window, field)
        if value is not None and (type(value) is not int or value < 0):
            raise InvalidQuery(field, f"give a whole number from 0, not {value!r}")
        numbers[field] = None if value is None else min(value, MAX_SEQ + 1)
    if window.last is not None and window.first is not None:
        raise InvalidQuery("first", "give either first or last, not both")
    since = window.since
    if since is not None:
        try:
            instant = since if type(since) is int else parse_instant(since)
        except (TypeError, ValueError) as error:
            raise InvalidQuery("since", str(error)) from None
        since = max(EARLIEST, min(instant, LATEST + 1))
    return msgspec.structs.replace(window, since=since, kinds=_kinds(window.kinds), **numbers)


def _is_plain(window: EventQuery) -> bool:
    """Return whether a window is nothing but the last so many, as most are."""
    return (
        type(window.last) is int
        and 0 <= window.last <= MAX_SEQ
        and window.first is window.after_seq is window.before_seq is None
        and window.since is None
        and window.kinds is None
    )


def _kinds(kinds: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return kinds as a tuple; a single one may be given as it is."""
    if kinds is None:
        return None
    if isinstance(kinds, str):
        kinds = (kinds,)
    elif not isinstance(kinds, Iterable):
        raise InvalidQuery("kind", f"give one name or several, not {type(kinds).__name__}")
    return tuple(check_name("event kind", kind) for kind in kinds)

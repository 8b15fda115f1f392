"""What makes lists, counts and sweeps cheap: orders by activity and by deadline, kept counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sojourn.errors import InvalidCursor
from sojourn.expiry import is_past
from sojourn.lifecycle import ENDING, Phase
from sojourn.vault.members import Members
from sojourn.vault.order import Order, key_of, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sojourn.model import Header
    from sojourn.store import Due, Query
    from sojourn.vault.slot import Slot

MAX_ORDERS = 1_024
"""Orders kept for lists that were asked for; beyond that those not used for longest are dropped."""

FEW = 64
"""Sessions of a user or label up to which they are sorted for each list, and no order is kept."""

Facet = tuple[str, ...]


class Index:
    """Every session, found by row, user, order and deadline."""

    def __init__(self) -> None:
        self._by_row: dict[int, Slot] = {}
        self._members = Members()
        self._counts: Counter[tuple[str, str | None, Phase]] = Counter()
        self._totals: Counter[tuple[str, Phase]] = Counter()
        self._orders: dict[Facet, Order] = {}
        self._deadlines: dict[str, Order] = {}
        self._overdue: dict[str, set[Slot]] = {}

    def add(self, slot: Slot) -> None:
        """Note a new session."""
        self._by_row[slot.row] = slot
        for group in _groups(slot.header):
            self._members.join(group, slot)
        self._count(slot.header, 1)
        self._place(slot, None)

    def remove(self, slot: Slot) -> None:
        """Note that a session is gone; its keys go stale."""
        del self._by_row[slot.row]
        self._overdue.get(slot.header.app, set()).discard(slot)
        for group in _groups(slot.header):
            self._members.leave(group, slot)
        self._count(slot.header, -1)

    def replaced(self, slot: Slot, old: Header) -> None:
        """Note that a session has a new header."""
        header = slot.header
        if (
            not self._orders
            and old.phase is header.phase
            and old.user is header.user
            and old.labels == header.labels
            and old.due_at is header.due_at is None
        ):
            return  # nothing that is looked up by has changed
        if old.phase is not header.phase or old.user != header.user:
            self._count(old, -1)
            self._count(header, 1)
        if old.user != header.user or old.labels != header.labels:
            self._regroup(slot, old)
        self._place(slot, old)

    def _regroup(self, slot: Slot, old: Header) -> None:
        """Note that a session has another user or other labels."""
        before, now = _groups(old), _groups(slot.header)
        for group in before:
            if group not in now:
                self._members.leave(group, slot)
        for group in now:
            if group not in before:
                self._members.join(group, slot)

    def of_user(self, app: str, user: str) -> list[Slot]:
        """Return a user's sessions, the oldest first."""
        return sorted(self._members.of(_user_facet(app, user)), key=lambda slot: slot.row)

    def _count(self, header: Header, by: int) -> None:
        self._totals[header.app, header.phase] += by
        key = (header.app, header.user, header.phase)
        self._counts[key] += by
        if not self._counts[key]:
            del self._counts[key]

    def _place(self, slot: Slot, old: Header | None) -> None:
        """Note where a session stands now, in the orders that have been asked for."""
        header = slot.header
        if header.phase in ENDING and header.expires_at is not None:
            # It expired and is being ended: its `due_at` no longer says that it is missing.
            self._overdue.setdefault(header.app, set()).add(slot)
        elif old is not None and old.phase in ENDING:
            self._overdue.get(header.app, set()).discard(slot)
        if header.due_at is not None and (old is None or old.due_at != header.due_at):
            order = self._deadlines.get(header.app)
            if order is None:
                order = self._deadlines[header.app] = Order()
            order.add(_due_key(slot), self._is_due)
        if old is None or old.user != header.user or old.labels != header.labels:
            kinds: tuple[str, ...] = ("active", "created")
        else:
            kinds = () if old.active_at == header.active_at else ("active",)
        for kind in kinds if self._orders else ():
            for facet in _facets(header):
                placed = self._orders.get((kind, *facet))
                if placed is not None:
                    placed.add(_KEYS[kind](slot), self._current(kind))

    def _is_due(self, key: int) -> bool:
        slot = self._by_row.get(row_of(key))
        return slot is not None and _due_key(slot) == key

    def _current(self, kind: str) -> Callable[[int], bool]:
        def current(key: int) -> bool:
            slot = self._by_row.get(row_of(key))
            return slot is not None and _KEYS[kind](slot) == key

        return current

    # --- lists and counts ----------------------------------------------------------------------

    def in_order(self, query: Query, children: set[Slot] | None) -> Iterator[tuple[int, Slot]]:
        """Yield (key, session) of those that match, from the query's position on.

        `children` are the candidates when the query names a parent.
        """
        kind: str = query.order.removeprefix("-")
        position = _parse_position(query.position)
        if query.parent is not None:
            order = self._built(kind, children or ())
        else:
            order = self._order_for(kind, query)
        keys = order.descending if query.order.startswith("-") else order.ascending
        for key in keys(position):
            slot = self._by_row.get(row_of(key))
            if slot is not None and _KEYS[kind](slot) == key and _matches(slot.header, query):
                yield key, slot

    def _order_for(self, kind: str, query: Query) -> Order:
        """Return the order of the narrowest facet that the query names."""
        facet: Facet = ("app", query.app)
        if query.user is not None or query.anonymous:
            facet = _user_facet(query.app, query.user)
        elif query.labels:
            facet = ("label", query.app, *next(iter(query.labels.items())))
        members: Iterable[Slot]
        if facet[0] == "app":
            members = (slot for slot in self._by_row.values() if slot.header.app == query.app)
        else:
            members = self._members.of(facet)
            if len(members) <= FEW:
                return self._built(kind, members)
        return self._kept((kind, *facet), members)

    def _kept(self, name: Facet, members: Iterable[Slot]) -> Order:
        """Return an order that is kept, built on first use."""
        order = self._orders.pop(name, None)
        if order is None:
            if len(self._orders) >= MAX_ORDERS:
                del self._orders[next(iter(self._orders))]
            order = self._built(name[0], members)
        self._orders[name] = order  # as the one that was used last
        return order

    def _built(self, kind: str, slots: Iterable[Slot]) -> Order:
        order = Order()
        for key in sorted(_KEYS[kind](slot) for slot in slots):
            order.add(key, self._current(kind))
        return order

    def count(self, query: Query, children: set[Slot] | None) -> int:
        """Return how many match; kept for users and phases, walked for labels and parents."""
        if query.labels or query.parent is not None:
            return sum(1 for _ in self.in_order(query, children))
        phases = tuple(Phase) if query.phases is None else query.phases
        if query.user is not None or query.anonymous:
            kept = sum(self._counts[query.app, query.user, phase] for phase in set(phases))
        else:
            kept = sum(self._totals[query.app, phase] for phase in set(phases))
        late = [s for s in self._past(query.app, query.now) if s.header.phase not in ENDING]
        late += self._overdue.get(query.app, ())
        return kept - sum(
            is_past(slot.header.expires_at, query.now) and _fits(slot.header, query)
            for slot in late
        )

    # --- deadlines -----------------------------------------------------------------------------

    def due(self, due: Due) -> list[Slot]:
        """Return up to so many sessions that are due, the longest due first."""
        found: list[Slot] = []
        for slot in self._past(due.app, due.now):
            if len(found) == due.limit:
                break
            found.append(slot)
        return found

    def _past(self, app: str, now: int) -> Iterator[Slot]:
        order = self._deadlines.get(app)
        for key in order.ascending() if order else ():
            if key >= key_of(now + 1, 0):
                return
            if self._is_due(key):
                yield self._by_row[row_of(key)]


def _user_facet(app: str, user: str | None) -> Facet:
    return ("anonymous", app) if user is None else ("user", app, user)


def _groups(header: Header) -> list[Facet]:
    """Return the facets of a session whose members are known: all but that of its app."""
    labels = [("label", header.app, name, value) for name, value in header.labels.items()]
    return [_user_facet(header.app, header.user), *labels]


def _facets(header: Header) -> list[Facet]:
    """Return every facet that a session is listed under."""
    return [("app", header.app), *_groups(header)]


def _active_key(slot: Slot) -> int:
    return key_of(slot.header.active_at, slot.row)


def _created_key(slot: Slot) -> int:
    return key_of(0, slot.row)


def _due_key(slot: Slot) -> int:
    due_at = slot.header.due_at
    return -1 if due_at is None else key_of(due_at, slot.row)


_KEYS: dict[str, Callable[[Slot], int]] = {
    "active": _active_key,
    "created": _created_key,
}


def _fits(header: Header, query: Query) -> bool:
    """Return whether a session matches the filters, expired or not."""
    if (query.user is not None or query.anonymous) and header.user != query.user:
        return False
    if query.phases is not None and header.phase not in query.phases:
        return False
    wanted = query.labels or {}
    return all(header.labels.get(name) == value for name, value in wanted.items())


def _matches(header: Header, query: Query) -> bool:
    return _fits(header, query) and (query.expired or not is_past(header.expires_at, query.now))


def _parse_position(position: str | None) -> int | None:
    if position is None:
        return None
    try:
        return int(position)
    except ValueError:
        raise InvalidCursor("its position is not one of this store's") from None

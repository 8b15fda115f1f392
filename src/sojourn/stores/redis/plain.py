"""The writes that nearly all writes are: events and state of a session that stays where it is.

Keys of its user's tier may be among the state.

They take a script of their own. What can be said in few words is packed, sent and run in a third of
the time that the general way takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sojourn.lifecycle import LIVE
from sojourn.stores.redis import routes, rows, scripts
from sojourn.stores.redis.client import Call
from sojourn.stores.redis.keys import label_facet
from sojourn.stores.redis.spots import overdue_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Header
    from sojourn.stores.planning import TierChange, Unit
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.rows import Row

MOST_EVENTS = 500
"""Events of one write, or keys of a tier, that Lua can hand on at once, with room to spare."""


def is_plain(unit: Unit, old: Header, new: Header, route: Route) -> bool:
    """Return whether a change leaves alone where a session is listed, and what it owns besides."""
    return (
        not unit.rest_changed
        and new.phase in LIVE  # a full server has to take the rest: see `takes_away`
        and not (unit.documents or unit.guards)
        and (not unit.tiers or _are_near(unit.tiers, new, route))
        and unit.truncate_after is None
        and unit.copy is None
        and unit.claim_taken is None
        and len(unit.entries) <= MOST_EVENTS
        and (new.due_at is None) == (old.due_at is None)
        and overdue_at(new) is None
        and overdue_at(old) is None
    )


def _are_near(changes: Sequence[TierChange], header: Header, route: Route) -> bool:
    """Return whether all that changes in tiers is keys set of the session's user, in its route."""
    user, count = header.user, 0
    if user is None or routes.of_user(header.app, user) != route:
        return False
    for change in changes:
        if change.user != user or change.drop:
            return False
        count += len(change.set)
    return 0 < count <= MOST_EVENTS


def plain_call(keys: Keys, unit: Unit, new: Header, row: Row) -> tuple[Call, Row]:
    """Return the call that writes a plain change, and what is remembered of the session then."""
    assert unit.old is not None, "a new session is no change"
    old, entries, route = unit.old.header, unit.entries, row.route
    names = keys.names(route, new.app, new.id)
    kinds, had = rows.kinds_after(row.kinds, entries), row.kinds
    if kinds is not had or not row.fixed:
        row = msgspec.structs.replace(row, kinds=kinds, fixed=row.fixed or rows.fixed_text(new))
    fields: list[str | bytes | int] = ["head", rows.head_text(new, row.fixed), "v", unit.version]
    if new.remembered is not old.remembered:
        fields += ("ops", new.remembered)
    if unit.state is not None:
        fields += ("state", unit.state)
    if entries:
        fields += ("peak", unit.peak)
    if kinds is not had:
        fields += ("kinds", rows.kinds_text(kinds))
    shared = _shared(unit)
    more = _more_keys(keys, new, route, names.lists, shared=bool(shared))
    command = (
        "EVALSHA",
        scripts.CHANGE.sha,
        5 + len(more),
        *names[:5],
        *more,
        old.epoch,
        unit.old.version,
        names.channel,
        row.place + new.id,
        new.active_at,
        "" if new.due_at is None or new.due_at == old.due_at else new.due_at,
        entries[0].seq - 1 if entries else 0,
        rows.kind_bytes(kinds, entries),
        len(entries),
        max(0, len(shared) - 2),
        *[rows.line(entry, peak) for entry, peak in zip(entries, unit.peaks, strict=True)],
        *[entry.id for entry in entries],
        *shared,
        *fields,
    )
    return Call(route, command), row


def _more_keys(
    keys: Keys, new: Header, route: Route, lists: str, *, shared: bool
) -> tuple[str, ...]:
    """Return the keys of a user's tier, if something is for it, and of a session's orders."""
    more = keys.orders(route, new.app, new.user, new.phase)
    if shared and new.user is not None:
        more = (*keys.shared(route, new.app, new.user), *more)
    for name, value in new.labels.items():
        more += (f"{lists}{label_facet(name, value)}:{new.phase.value}:active",)
    return more


def _shared(unit: Unit) -> list[str | bytes]:
    """Return user, app, names and values of what changes in the user's tier, if anything does."""
    if not unit.tiers:
        return []
    user = unit.tiers[0].user
    assert user is not None, "a plain change leaves the app's tier alone"
    values: list[str | bytes] = [user, unit.app]
    for change in unit.tiers:  # where a key is set twice the last value counts
        for key, encoded in change.set.items():
            values += (key, bytes(encoded))
    return values

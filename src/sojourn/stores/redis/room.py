"""What a server has to take though its memory is full: removing, and ends.

A server that may throw nothing away (`noeviction`) refuses every command that could need memory,
and with it every script that begins with one. Ours mark what they remove, so they would be refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.lifecycle import LIVE
from sojourn.store import Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Header
    from sojourn.stores.planning import Key, Unit
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.request import Request

_KEEPS_TIER = ["", ""]
"""What a tier is set, so that it stays while its last keys go."""


def make_room(request: Request, keys: Keys, key: Key | None) -> None:
    """Have a request about a session, or about none, done though the server's memory is full."""
    # While a slot moves, what is about a session that is there must not wait for another key.
    here = keys.marks(request.route) if key is None else keys.session(request.route, *key)
    request.make_room(here)


def removes(commands: Sequence[Sequence[str]]) -> bool:
    """Return whether the commands of an errand only remove."""
    return all(
        name in ("strike", "HDEL") or arguments == _KEEPS_TIER for name, _, *arguments in commands
    )


def takes_away(unit: Unit) -> bool:
    """Return whether a unit removes, or is part of an end: what a full server has to let through.

    Else nobody could log out, and nothing could be removed to make room.
    """
    old, new = unit.old, unit.header
    if unit.key is not None and (new is None or old is None):
        return new is None
    if new is not None and new.phase not in LIVE:
        return True
    removes = unit.documents or unit.tiers or unit.truncate_after is not None
    return bool(removes) and not _adds(unit)


def _adds(unit: Unit) -> bool:
    """Return whether a unit stores anything besides what every change does."""
    old, new = unit.old, unit.header
    return (
        unit.state is not None
        or bool(unit.entries)
        or any(isinstance(change.change, Put) for change in unit.documents)
        or any(change.set for change in unit.tiers)
        or unit.claim_taken is not None
        or (old is not None and new is not None and _told(old.header) != _told(new))
    )


def _told(header: Header) -> tuple[object, ...]:
    """Return what indexes tell of a session."""
    return header.user, header.labels

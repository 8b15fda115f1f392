"""Where a session is and where it stands: its route, its place, and what notes say of it."""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sojourn.stores.redis.keys import label_facet, user_facet

if TYPE_CHECKING:
    from sojourn.model import Header
    from sojourn.stores.redis.routes import Route

PLACE_DIGITS = 14
"""Hexadecimal digits of a place: microseconds until the year 4253."""

_encode = msgspec.json.Encoder().encode


class Spot(NamedTuple):
    """Where a session is, and whose it is, as far as is known."""

    route: Route
    user: str | None


def token_of(header: Header) -> str:
    """Return what stands for one incarnation of a session where its id must not be."""
    return token_for(header.app, header.id, header.epoch)


def token_for(app: str, id: str, epoch: str) -> str:
    """Return what stands for one incarnation of a session where its id must not be."""
    return blake2b(f"{app}\x00{id}\x00{epoch}".encode(), digest_size=8).hexdigest()


def note_of(route: Route, header: Header) -> str:
    """Return what the home of an id says about a session that is elsewhere, and whose it is."""
    return f"{route} {token_of(header)} {header.user or ''}"


def spot_in(note: bytes) -> Spot:
    """Return where a note says that a session is, and the user that it began with."""
    route, _, user = note.decode().split(" ", 2)
    return Spot(int(route), user or None)


def holder_text(header: Header, route: Route) -> str:
    """Return what the note of a claim says about its holder."""
    return _encode((header.id, header.epoch, route)).decode()


def positions(header: Header) -> set[tuple[str, str]]:
    """Return the facet and phase of every order that a session stands in."""
    phase = header.phase.value
    facets = ["all", user_facet(header.user)]
    facets += [label_facet(name, value) for name, value in header.labels.items()]
    return {(facet, phase) for facet in facets}


class Places:
    """Gives new sessions their place: each behind all that this process has made before."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, after: str | None = None) -> str:
        """Return a place behind `after`, too: a child's is behind its parent's on every machine."""
        least = max(self._last, int(after or "0", 16)) + 1
        self._last = max(time.time_ns() // 1000, least)
        return f"{self._last:0{PLACE_DIGITS}x}"


def due_at(header: Header | None) -> int | None:
    """Return when the reaper has to look at a session."""
    return None if header is None else header.due_at


def overdue_at(header: Header | None) -> int | None:
    """Return a deadline that is not the time at which the reaper looks."""
    if header is None or header.expires_at == header.due_at:
        return None
    return header.expires_at

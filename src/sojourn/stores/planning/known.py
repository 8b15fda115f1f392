"""What has been read of a store so far, and what has to be read before operations can be decided.

A plan is made of immutable facts. Whoever holds them (`Known`) reads what a plan asks for (`Reads`)
in one round trip, adds it, and plans again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from sojourn.limits import MAX_SEQ
from sojourn.model import Header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sojourn.errors import Corrupt
    from sojourn.model import Entry

Key: TypeAlias = tuple[str, str]
"""A session, by (app, id)."""

Claim: TypeAlias = tuple[tuple[str, str], ...]
"""An exclusive claim: sorted (label, value) pairs, see `commit.claim_of`."""

WHOLE_LOG = MAX_SEQ
"""The place in a log behind its last event, for reads that mean all of it."""


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """A session as it was read, or as this process wrote it last.

    `state` is the JSON text of its own tier, `peak` the latest time of any event in its log (0 for
    none). `version` is a number that every write of any kind to the session draws anew, also those
    that leave the revision alone; `row` is whatever else the backend wants to remember of it.
    """

    header: Header
    state: bytes
    version: int
    peak: int = 0
    row: Any = None


class MissingError(Exception):
    """Something has to be read before an operation can be decided; it was noted in `Reads`."""


class Place(NamedTuple):
    """A place in a log: behind the event `upto` of a session."""

    app: str
    id: str
    upto: int


class Tail(NamedTuple):
    """The last `most` numbers of a log, of those up to `upto`."""

    app: str
    id: str
    upto: int
    most: int


class Named(NamedTuple):
    """The events of a session that have a certain id."""

    app: str
    id: str
    event: str


class Owner(NamedTuple):
    """Whose tier: a user's, or (`user=None`) the app's."""

    app: str
    user: str | None


@dataclass(slots=True)
class Reads:
    """What has to be read, all of it in one round trip if the backend can.

    Each field names an equal one of `Known`, which says what to put there.
    """

    sessions: set[Key] = field(default_factory=set)
    events: set[Named] = field(default_factory=set)
    tails: set[Tail] = field(default_factory=set)
    peaks: set[Place] = field(default_factory=set)
    deltas: set[Key] = field(default_factory=set)
    sizes: set[Owner] = field(default_factory=set)
    holders: set[tuple[str, Claim]] = field(default_factory=set)
    children: set[Key] = field(default_factory=set)

    def __bool__(self) -> bool:
        # One after the other: this is asked of every plan, and a loop over names costs ten times.
        return bool(
            self.sessions
            or self.events
            or self.tails
            or self.peaks
            or self.deltas
            or self.sizes
            or self.holders
            or self.children
        )


@dataclass(slots=True)
class Known:
    """What has been read. A key that is absent has not been read yet.

    `cached` names the sessions that come from an earlier call (see `Recent`) rather than from a
    read of this one: good enough to write on, which the backend checks, but not to refuse on.
    """

    sessions: dict[Key, Loaded | Corrupt | None] = field(default_factory=dict)
    """`None` for a session that is missing, `Corrupt` for one that can not be read."""
    cached: set[Key] = field(default_factory=set)
    events: dict[Named, tuple[Entry, ...]] = field(default_factory=dict)
    """Ascending; nothing for an id that no event of the log has."""
    tails: dict[Tail, tuple[int, ...]] = field(default_factory=dict)
    """Ascending."""
    peaks: dict[Place, int] = field(default_factory=dict)
    """The latest time of any event up to that place, 0 for none."""
    deltas: dict[Key, tuple[Entry, ...]] = field(default_factory=dict)
    """The events of a session that have a delta, ascending; their bodies may be left empty."""
    sizes: dict[Owner, dict[str, int]] = field(default_factory=dict)
    """The keys of a tier, and how many bytes each is with its encoded value."""
    holders: dict[tuple[str, Claim], str | None] = field(default_factory=dict)
    """The id of the session that holds a claim, `None` while it is free."""
    children: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    """The ids of a session's children, not of theirs."""

    def read(self, key: Key, loaded: Loaded | Corrupt | None) -> None:
        """Add a session that was read just now."""
        self.sessions[key] = loaded
        self.cached.discard(key)

    def recall(self, key: Key, loaded: Loaded) -> None:
        """Add a session from an earlier call, unless it has been read meanwhile."""
        if key not in self.sessions:
            self.sessions[key] = loaded
            self.cached.add(key)

    def forget(self, key: Key) -> None:
        """Forget a session and everything that was read of its log: it has moved on."""
        self.sessions.pop(key, None)
        self.cached.discard(key)
        self.events = {named: read for named, read in self.events.items() if named[:2] != key}
        self.tails = {tail: read for tail, read in self.tails.items() if tail[:2] != key}
        self.peaks = {place: read for place, read in self.peaks.items() if place[:2] != key}
        self.deltas.pop(key, None)
        self.children.pop(key, None)

    def loaded(self) -> Iterator[tuple[Key, Loaded]]:
        """Yield the sessions that are there."""
        for key, item in self.sessions.items():
            if isinstance(item, Loaded):
                yield key, item

"""Units: what a plan wants written, each all or nothing, and only if its expectations hold."""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from sojourn.model import Encoded, Entry, Header
from sojourn.stores.planning.facets import counted
from sojourn.stores.planning.known import Claim, Key, Loaded

if TYPE_CHECKING:
    from sojourn.lifecycle import Phase
    from sojourn.store import Drop, Put
    from sojourn.stores.planning.known import Reads

Outcome: TypeAlias = Any
"""The result of an operation's verb, or the `SojournError` that refuses it."""

VERSION_BITS = 62
"""Bits of a session's version, which is drawn: two of a kind never meet, and every store has room.

Were it counted, a plan could be made on what another one was about to write, and be let through
though that one was refused and somebody else had written the number that it would have given.
"""


def drawn(count: int) -> list[int]:
    """Return so many versions: one look at the system's source of chance costs as much as many."""
    numbers = struct.unpack(f"{count}Q", secrets.token_bytes(8 * count))
    return [number >> (64 - VERSION_BITS) for number in numbers]


class Guard(NamedTuple):
    """Another session that must still be as it was read: the parent of a new one, a fork's source.

    It has to exist with this epoch and, if they are given, in this phase and at this version. `row`
    is what the backend remembers of it (see `Loaded.row`).
    """

    key: Key
    epoch: str
    phase: Phase | None = None
    version: int | None = None
    row: Any = None


class TierChange(msgspec.Struct, frozen=True, gc=False):
    """Keys of a shared tier to set and to remove. `user=None` is the app's tier.

    `order` rises with the operations of a batch, over all its units: where several change one key,
    the last one's value is what sessions see afterwards, if the backend can see to that.
    """

    app: str
    user: str | None
    set: Encoded
    drop: tuple[str, ...]
    order: int = 0


class DocumentChange(NamedTuple):
    """A document to put or drop, in order. `seq` and `now` are what a new one is marked with."""

    change: Put | Drop
    seq: int
    now: int


class Copy(NamedTuple):
    """Events and documents to copy from another session: those up to event `upto`.

    The unit's guard holds the source at the version that `upto` speaks of.
    """

    source: Key
    upto: int


class Unit(msgspec.Struct, eq=False, gc=False):
    """What has to be written to one session, all or nothing.

    `old` is the session as it was decided on: what is there has to have its epoch and version. With
    `old=None` there must be none (`header` is a new one). `header=None` removes the session with
    all it owns, and with it the sessions `below`, deepest first, each only as it was read, and only
    if there are no others below (`old=None`: whatever is there, it can not be read). `key=None` is
    a write that belongs to no session: shared tiers, app documents.

    In this order: `truncate_after` removes the events behind it, `copy` copies, `entries` are added
    with the log's peak at each in `peaks`. `state` is the new own state, `None` if it stays.
    `version` is the session's version afterwards.
    """

    key: Key | None
    app: str
    old: Loaded | None
    header: Header | None
    version: int = msgspec.field(default_factory=lambda: drawn(1)[0])
    now: int = 0
    state: bytes | None = None
    peak: int = 0
    entries: list[Entry] = []
    peaks: list[int] = []
    truncate_after: int | None = None
    copy: Copy | None = None
    documents: tuple[DocumentChange, ...] = ()
    tiers: tuple[TierChange, ...] = ()
    guards: tuple[Guard, ...] = ()
    below: tuple[tuple[Key, Loaded | None], ...] = ()
    claim_taken: Claim | None = None
    """To be noted; if another session holds it, the unit has moved."""
    claim_freed: Claim | None = None
    op: bytes | None = None
    """With `key=None`, the operation: nothing else remembers that it was applied."""
    operations: list[int] = []
    """Which operations' outcomes hold only if this is written."""

    @property
    def rest_changed(self) -> bool:
        """Whether more of the header changed than what every commit or touch changes.

        These are: revision, seq, active_at, expires_at, due_at, remembered.
        """
        if self.old is None or self.header is None:
            return True
        old, new = self.old.header, self.header
        return (
            old.phase is not new.phase
            or old.user != new.user
            or old.labels != new.labels
            or old.fence != new.fence
            or old.holder != new.holder
            or old.leased_until != new.leased_until
            or old.attempts != new.attempts
            or old.reason != new.reason
            or old.idle != new.idle
            or old.absolute_at != new.absolute_at
            or old.retain != new.retain
        )

    def counts(self) -> dict[tuple[str, str], int]:
        """Return by how much the kept counts change, by (facet, phase); nothing that stays."""
        changes = counted(self.old.header if self.old else None, self.header)
        for _, loaded in self.below:
            for place, by in counted(loaded.header if loaded else None, None).items():
                changes[place] = changes.get(place, 0) + by
        return changes

    def written(self, row: Any = None) -> Loaded | None:
        """Return the session as it is once this is written, to be kept in `Recent`."""
        if self.header is None:
            return None
        return Loaded(self.header, self.state_after, self.version, self.peak, row)

    @property
    def state_after(self) -> bytes:
        """The own state as it is once this is written."""
        if self.state is not None:
            return self.state
        return b"{}" if self.old is None else self.old.state


@dataclass(slots=True)
class Plan:
    """What becomes of the operations of a batch.

    While there are `reads`, nothing else of it counts: read them, and plan again. `outcomes` has
    one entry for each operation, final for those that no unit names and, for those that one does,
    true once it is written. Operations in `later` are to be planned again after the units were
    applied: they need what those write.
    """

    reads: Reads
    outcomes: list[Outcome]
    units: list[Unit]
    later: list[int]

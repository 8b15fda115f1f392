"""What a simulation wrote down outside the store: what was asked, acknowledged, refused and seen.

Every value that a run writes is the number of the operation that wrote it, so that what is read can
be traced to who wrote it. Time is told by ticks, one for each line of the ledger: of two
operations, one came before the other if it had ended before the other began; else they were at the
same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Outcome = Literal["done", "refused", "unknown"]
"""Acknowledged; refused, so that nothing was changed; or failed, so that nobody can know."""

NEVER = 1 << 60
"""The tick at which something ended that has not ended."""


class Entry(NamedTuple):
    """An event as it was read: its number, the operation that appended it, the lease's token."""

    seq: int
    marker: str
    token: int


@dataclass(frozen=True)
class Seen:
    """A session as it was read, all in one go. `log` is `None` where it was not asked for."""

    id: str
    epoch: str
    revision: int
    phase: str
    user: str | None
    parent: str | None
    forked_from: str | None
    state: dict[str, Any]
    log: tuple[Entry, ...] | None = None


@dataclass(eq=False)
class Operation:
    """One thing that a client did. `before` and `after` are its node's clock, in microseconds.

    `seen` are reads, each with the ticks at which it began and ended; `missing` says that it looked
    for a session and found none. `seqs` are the numbers that an append was told, `writes` the keys
    that it sets, `granted` the tick at which it had a lease, `removes` whether it means that the
    session is gone, `commits` whether it is one commit.
    """

    number: int
    node: str
    verb: str
    id: str
    began: int
    before: int
    epoch: str | None = None
    ended: int = NEVER
    after: int = 0
    outcome: Outcome = "unknown"
    answer: str = ""
    seen: list[tuple[int, int, Seen]] = field(default_factory=list)
    writes: dict[str, Any] = field(default_factory=dict)
    user: str | None = None
    markers: tuple[str, ...] = ()
    seqs: tuple[int, ...] = ()
    token: int = 0
    granted: int = 0
    strict: bool = False
    commits: bool = False
    removes: bool = False
    makes: bool = False
    parent: str | None = None
    idle: int | None = None
    absolute: int | None = None
    missing: bool = False
    watched: list[tuple[int, str]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether it was acknowledged."""
        return self.outcome == "done"

    @property
    def possible(self) -> bool:
        """Whether it may have been applied."""
        return self.outcome != "refused"

    @property
    def wrote(self) -> bool:
        """Whether it was told that something of a session was written."""
        return (self.done and self.commits) or self.granted > 0

    def __str__(self) -> str:
        return f"#{self.number} {self.node} {self.verb} {self.id} ({self.outcome})"


@dataclass
class History:
    """All that a checker gets to know: the operations, what the store held in the end, and hooks.

    `hooks` are the epochs whose end hook ran to its end; `None` if the managers had no hooks.
    `left` are the sessions that were still there when all that was due had been swept.
    """

    operations: list[Operation]
    final: list[Seen]
    hooks: set[str] | None
    left: list[Seen] = field(default_factory=list)

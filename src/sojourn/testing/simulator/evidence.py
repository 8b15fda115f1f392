"""A history put in order: which sessions there were, who made them, what was seen of each.

Nothing here knows how sessions are kept. It reads the ledger, as a checker may.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sojourn.testing.simulator.ledger import Entry, History, Operation, Seen

REMOVERS = ("clear", "delete", "end")
"""What a client does to have a session gone."""


class Sighting(NamedTuple):
    """A session as it was read between two ticks. `by` says by whom, for people."""

    began: float
    ended: float
    by: str
    seen: Seen


class Missed(NamedTuple):
    """A look for a session that found none. `by` says by whom, for people."""

    began: float
    ended: float
    by: str


@dataclass(eq=False)
class Incarnation:
    """One session from its making to its end: an id may have several, one after the other.

    `touched` are the operations that are known to have meant it: by their epoch, or because what
    they appended is in its log.
    """

    id: str
    epoch: str
    made: Operation | None = None
    sightings: list[Sighting] = field(default_factory=list)
    touched: list[Operation] = field(default_factory=list)
    final: Seen | None = None

    def __str__(self) -> str:
        return f"session {self.id!r} ({self.epoch})"

    @cached_property
    def log(self) -> tuple[Entry, ...]:
        """The longest log that was seen of it."""
        logs = [sighting.seen.log for sighting in self.sightings if sighting.seen.log]
        return max(logs, key=len, default=())

    @cached_property
    def there_by(self) -> float:
        """The tick by which it certainly was there."""
        ends = [sighting.ended for sighting in self.sightings]
        ends += [op.granted or op.ended for op in self.touched if op.wrote]
        if self.made is not None and self.made.done:
            ends.append(self.made.ended)
        return min(ends, default=math.inf)


class Evidence:
    """A history, by session."""

    def __init__(self, history: History) -> None:
        """Put a history in order."""
        self.history = history
        self.operations = history.operations
        self.by_marker = {marker: op for op in self.operations for marker in op.markers}
        self._removers = [op for op in self.operations if op.verb in REMOVERS]
        self._looks: dict[str, list[Operation]] = {}
        for operation in self.operations:
            if operation.missing:
                self._looks.setdefault(operation.id, []).append(operation)
        self._found: dict[str, Incarnation] = {}
        self._gather_sightings()
        self._gather_operations()

    def __iter__(self) -> Iterator[Incarnation]:
        """Yield every incarnation."""
        return iter(self._found.values())

    def numbered(self, number: object) -> Operation | None:
        """Return the operation of this number, `None` for what is none."""
        if type(number) is int and 1 <= number <= len(self.operations):
            return self.operations[number - 1]
        return None

    def of(self, id: str) -> list[Incarnation]:
        """Return the incarnations of an id."""
        return [incarnation for incarnation in self if incarnation.id == id]

    def line(self, incarnation: Incarnation) -> set[str]:
        """Return the ids of a session and of all that may be above it."""
        line = {incarnation.id}
        makers = [incarnation.made]
        while makers:
            made = makers.pop()
            if made is not None and made.parent is not None and made.parent not in line:
                line.add(made.parent)
                makers += [above.made for above in self.of(made.parent)]
        return line

    def missed(self, incarnation: Incarnation) -> list[Missed]:
        """Return the looks that did not find a session that had been there before."""
        looks = [op for op in self._looks.get(incarnation.id, ()) if op.done]
        missed = [Missed(op.began, op.ended, str(op)) for op in looks]
        if incarnation.final is None:
            missed.append(Missed(math.inf, math.inf, "the end"))
        return [one for one in missed if one.began > incarnation.there_by]

    def removers(self, incarnation: Incarnation, before: float) -> list[Operation]:
        """Return what may have removed a session, or one above it, before a tick."""
        made = incarnation.made
        assert made is not None  # only of such is it asked
        line = self.line(incarnation)
        return [
            op
            for op in self._removers
            if op.id in line and op.ended > made.began and op.began < before
        ]

    def latest(self, before: float) -> int:
        """Return the latest instant that any node's clock can have shown before a tick."""
        return max((op.after for op in self.operations if op.began < before), default=0)

    def _incarnation(self, id: str, epoch: str) -> Incarnation:
        return self._found.setdefault(epoch, Incarnation(id, epoch))

    def _gather_sightings(self) -> None:
        for operation in self.operations:
            for began, ended, seen in operation.seen:
                sighting = Sighting(began, ended, str(operation), seen)
                self._incarnation(seen.id, seen.epoch).sightings.append(sighting)
        for seen in self.history.final:
            incarnation = self._incarnation(seen.id, seen.epoch)
            incarnation.final = seen
            incarnation.sightings.append(Sighting(math.inf, math.inf, "the end", seen))

    def _gather_operations(self) -> None:
        for operation in self.operations:
            if operation.epoch is None:
                continue
            incarnation = self._incarnation(operation.id, operation.epoch)
            if operation.makes:
                incarnation.made = operation
            else:
                incarnation.touched.append(operation)
        for incarnation in self:
            if incarnation.made is None:
                incarnation.made = self._maker(incarnation)
            known = set(incarnation.touched)
            for entry in incarnation.log:
                writer = self.by_marker.get(entry.marker)
                # A fork's log begins with what others appended to its source.
                if writer is not None and writer.id == incarnation.id and writer not in known:
                    known.add(writer)
                    incarnation.touched.append(writer)

    def _maker(self, incarnation: Incarnation) -> Operation | None:
        """Return who made a session without having been told so, by what is in it."""
        for sighting in incarnation.sightings:
            seen = sighting.seen
            if seen.forked_from is not None:
                makers = (op for op in self.operations if op.verb == "fork" and op.id == seen.id)
                return next(makers, None)
            maker = self.numbered(seen.state.get("born"))
            if maker is not None and maker.makes and maker.id == seen.id:
                return maker
        return None

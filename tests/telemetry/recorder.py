"""An observer that keeps what it is told, and a stopwatch that is moved by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sojourn.telemetry import Call, Outcome


class Told(NamedTuple):
    """A call and how it ended."""

    call: Call
    outcome: Outcome


class Recorder:
    """Keeps every call that ended, in the order of their ends, and those still under way."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.under_way: list[Call] = []

    def started(self, call: Call, /) -> int:
        """Keep it, and note how many had started before."""
        self.under_way.append(call)
        return id(call)

    def finished(self, call: Call, note: object, outcome: Outcome, /) -> None:
        """Keep how it ended; the note has to be ours."""
        assert note == id(call)
        self.under_way.remove(call)
        self.told.append(Told(call, outcome))

    def of(self, verb: str) -> list[Told]:
        """Return what was told of one verb."""
        return [told for told in self.told if told.call.verb == verb]

    def last(self, verb: str) -> Told:
        """Return what was told last of a verb."""
        return self.of(verb)[-1]


class Stopwatch:
    """Moves by a fixed step at every look."""

    def __init__(self, step: float = 0.5) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        """Return the time and move on."""
        self.now += self.step
        return self.now

"""Running a comparison: everybody in turns, in fresh processes, on empty storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import Side, measured, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.peers.comparisons import Comparison, Contestant, Target
    from benchmarks.peers.places import Places
    from benchmarks.sample import Sample


@dataclass
class Standing:
    """What one contestant measured, round by round."""

    contestant: Contestant
    samples: list[Sample] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How it is called."""
        return self.contestant.label

    @property
    def rates(self) -> list[float]:
        """Operations a second, of each round."""
        return [each["operations"] / each["seconds"] for each in self.samples]

    @property
    def refused(self) -> int:
        """Operations that were refused, of all rounds."""
        return round(sum(each["refused"] for each in self.samples))

    def middle(self, what: str) -> float:
        """Return the median over the rounds of a number that was measured."""
        return median(each[what] for each in self.samples)

    @property
    def cpu(self) -> float:
        """Seconds of processor time for one operation, all threads of the process."""
        return median(each["cpu"] / each["operations"] for each in self.samples)

    def facts(self) -> dict[str, Any]:
        """Return everything about it, for a file."""
        return {"label": self.label, "rate": median(self.rates), "samples": self.samples}


@dataclass(frozen=True)
class Verdict:
    """A target, and what was reached: `None` if one of the two did not take part."""

    target: Target
    ratio: float | None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached."""
        return None if self.ratio is None else self.ratio >= self.target.at_least

    def facts(self) -> dict[str, Any]:
        """Return everything about it, for a file."""
        ours, peer, least = self.target.ours, self.target.peer, self.target.at_least
        return {"ours": ours, "peer": peer, "target": least, "ratio": self.ratio, "met": self.met}


@dataclass
class Outcome:
    """A comparison that was run."""

    comparison: Comparison
    standings: list[Standing]

    def ratio(self, ours: str, peer: str) -> float | None:
        """Return the median over the rounds of the ratio of throughputs, within a round."""
        found = {standing.label: standing for standing in self.standings}
        if ours not in found or peer not in found:
            return None
        pairs = zip(found[ours].rates, found[peer].rates, strict=True)
        return median(mine / theirs for mine, theirs in pairs)

    def multiple(self, standing: Standing) -> float:
        """Return how many times its throughput the one does that it is shown beside."""
        return self.ratio(standing.contestant.beside, standing.label) or 0.0

    @property
    def verdicts(self) -> list[Verdict]:
        """What was reached of each target."""
        return [
            Verdict(target, self.ratio(target.ours, target.peer))
            for target in self.comparison.targets
        ]

    def facts(self) -> dict[str, Any]:
        """Return everything about it, for a file."""
        return {
            "name": self.comparison.name,
            "what": self.comparison.what,
            "settings": self.comparison.settings,
            "contestants": [standing.facts() for standing in self.standings],
            "targets": [verdict.facts() for verdict in self.verdicts],
        }


def missing(comparisons: Iterable[Comparison]) -> list[str]:
    """Return the modules of peers that are not installed."""
    needed = {each.needs for comparison in comparisons for each in comparison.contestants}
    return sorted(name for name in needed if name and not _installed(name))


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a package above it is not there either
        return False


def run(
    comparison: Comparison, places: Places, rounds: int, *, alone: bool, tell: Callable[[str], None]
) -> Outcome:
    """Run a comparison in places of its own; `alone` leaves the peers out.

    `tell` is called with a line before each run.
    """
    taking_part = [each for each in comparison.contestants if not (alone and each.needs)]
    if comparison.together is not None:
        return _run_together(comparison, comparison.together, taking_part, rounds, tell)
    sides = [Side(each.work, partial(_fresh, each, places)) for each in taking_part]
    standings = [Standing(each) for each in taking_part]

    def announce(place: int, number: int) -> None:
        tell(f"{comparison.name}, round {number + 1} of {rounds}: {standings[place].label}")

    for samples in turns(sides, rounds, announce):
        for standing, sample in zip(standings, samples, strict=True):
            standing.samples.append(sample)
    return Outcome(comparison, standings)


def _run_together(
    comparison: Comparison,
    work: str,
    taking_part: list[Contestant],
    rounds: int,
    tell: Callable[[str], None],
) -> Outcome:
    """Run all of a comparison in one process for each round, which has many turns of everybody."""
    standings = [Standing(each) for each in taking_part]
    for number in range(rounds):
        tell(f"{comparison.name}, round {number + 1} of {rounds}: all of them in turns")
        for samples in measured(work, {"those": [each.keywords for each in taking_part]}):
            for standing, sample in zip(standings, samples, strict=True):
                standing.samples.append(sample)
    return Outcome(comparison, standings)


def runs_of(comparison: Comparison, *, alone: bool) -> int:
    """Return how many processes a round of a comparison takes."""
    if comparison.together is not None:
        return 1
    return sum(not (alone and each.needs) for each in comparison.contestants)


def _fresh(contestant: Contestant, places: Places) -> dict[str, Any]:
    """Return the keywords of a run, with an empty place instead of the one before."""
    return {**places.fresh(contestant.place), **contestant.keywords}

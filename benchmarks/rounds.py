"""Rounds: the same measurement in fresh processes, beside what it is compared with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.sample import Sample

ROOT = Path(__file__).resolve().parent.parent


class Side(NamedTuple):
    """One side of a comparison: what runs, and how its keywords come about for each round."""

    name: str
    keywords: Callable[[], dict[str, Any]]

    def run(self) -> Sample:
        """Measure in a fresh process."""
        found: Sample = measured(self.name, self.keywords())
        return found


def measured(name: str, keywords: dict[str, Any]) -> Any:
    """Return what a work returns in a fresh process. Raises `SystemExit` with what it says."""
    command = [sys.executable, "-m", "benchmarks.worker", name]
    done = subprocess.run(  # noqa: S603 - our own module, our own arguments
        [*command, json.dumps(keywords)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def turns(
    sides: Sequence[Side],
    rounds: int,
    announce: Callable[[int, int], None] = lambda _place, _number: None,
) -> Iterator[list[Sample]]:
    """Yield what all sides measured in each round, in their order: A B C, C B A, A B C, ...

    `announce` is called before each run with the side's place and the round's number, from 0.
    """
    for number in range(rounds):
        places = range(len(sides))
        found: dict[int, Sample] = {}
        for place in reversed(places) if number % 2 else places:
            announce(place, number)
            found[place] = sides[place].run()
        yield [found[place] for place in places]


def pairs(left: Side, right: Side, rounds: int) -> Iterator[tuple[Sample, Sample]]:
    """Return what both sides measure in each round: A B, B A, A B, ..."""
    return ((first, second) for first, second in turns((left, right), rounds))

"""Measure Sojourn beside its peers on this machine: `python -m benchmarks.peers`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from benchmarks.peers import contest, page
from benchmarks.peers.comparisons import QUICK, Sizes
from benchmarks.peers.places import Places
from benchmarks.peers.program import all_of
from benchmarks.rounds import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.comparisons import Comparison
    from benchmarks.peers.contest import Outcome


def main(arguments: Sequence[str] | None = None) -> list[Outcome]:
    """Measure, print tables, write build/figures/peers.json and, if asked to, a page with charts.

    Raises `SystemExit` when peers are missing, unless it is to run without them.
    """
    options = _options(arguments)
    sizes = QUICK if options.quick else Sizes()
    sizes = replace(sizes, rounds=options.rounds or sizes.rounds)
    chosen = [each for each in all_of(sizes) if each.name in (options.only or (each.name,))]
    absent = [] if options.alone else contest.missing(chosen)
    if absent:
        raise SystemExit(
            f"not installed: {', '.join(absent)}; `make peers` installs everything, or "
            "`pip install -r benchmarks/requirements.txt`, or measure without peers: --alone"
        )
    progress = Progress(chosen, sizes.rounds, alone=options.alone)
    around = page.surroundings(sizes)
    outcomes: list[Outcome] = []
    figures = options.folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    with Places(options.folder / "files" / "peers") as places:
        for comparison in chosen:
            outcome = contest.run(
                comparison, places, sizes.rounds, alone=options.alone, tell=progress.tell
            )
            progress.clear()
            print("\n".join(page.lines(outcome)), flush=True)
            outcomes.append(outcome)
            (figures / "peers.json").write_bytes(page.as_json(outcomes, around))
    if options.write:
        page.write(options.write, outcomes, around)
    return outcomes


class Progress:
    """Shows what is being measured, and how much is left: one line, rewritten on a terminal."""

    def __init__(self, comparisons: Sequence[Comparison], rounds: int, *, alone: bool) -> None:
        """Count the runs that there will be."""
        self._runs = rounds * sum(contest.runs_of(each, alone=alone) for each in comparisons)
        self._begun = 0
        self._start = monotonic()
        self._terminal = sys.stderr.isatty()

    def tell(self, what: str) -> None:
        """Say that a run begins."""
        self._begun += 1
        line = f"[{self._begun}/{self._runs}, {monotonic() - self._start:.0f} s] {what}"
        self.clear()
        print(line, end="" if self._terminal else "\n", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    names = [comparison.name for comparison in all_of(QUICK)]
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether it runs")
    parser.add_argument("--rounds", type=_at_least_one, help="rounds of each comparison")
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}"
    )
    parser.add_argument("--alone", action="store_true", help="Sojourn and the floor, no peers")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write a page with charts")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="for files, figures")
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a whole number from 1")
    return number


if __name__ == "__main__":
    main()

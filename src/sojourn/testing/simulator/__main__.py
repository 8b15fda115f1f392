"""The command line of the simulator: replay one seed with its trace, or try a range of seeds."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from sojourn.testing.simulator.run import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY_SECONDS = 5.0
"""How often a line says how far it is, where it can not be written over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. Returns 0 if every promise was kept, 1 if not, 2 if misused."""
    options = parse(arguments)
    if options.seed is not None:
        return _replay(options.seed)
    return _try_all(options.seeds)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python -m sojourn.testing.simulator",
        description="Run seeded simulations of several managers over one store in memory.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="replay this seed and print its trace")
    which.add_argument(
        "--seeds", type=_seeds, metavar="A..B", help="try these seeds, B included; print failures"
    )
    return parser.parse_args(arguments)


def _seeds(text: str) -> range:
    """Return the range that `A..B` names."""
    first, dots, last = text.partition("..")
    try:
        seeds = range(int(first), int(last) + 1) if dots else range(0)
    except ValueError:
        seeds = range(0)
    if not seeds:
        message = f"{text!r} is no range: give two numbers, the first no higher, like 0..999"
        raise argparse.ArgumentTypeError(message)
    return seeds


def _replay(seed: int) -> int:
    run = simulate(seed)
    _say("\n".join(run.trace))
    _say(str(run))
    return 0 if run.ok else 1


def _try_all(seeds: range) -> int:
    """Run every seed, saying how far it is; one that fails is told at once, and how to replay."""
    wrong: list[int] = []
    progress = _Progress(len(seeds))
    for done, seed in enumerate(seeds, 1):
        run = simulate(seed)
        if not run.ok:
            wrong.append(seed)
            progress.clear()
            _say(f"{run}\n  replay: python -m sojourn.testing.simulator --seed {seed}")
        progress.at(done, len(wrong))
    progress.clear()
    _say(f"{len(seeds)} seeds, {len(wrong)} with violations")
    return 1 if wrong else 0


class _Progress:
    """A line that says how far it is: written over on a terminal, now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._over = sys.stderr.isatty()
        self._said = time.monotonic()

    def at(self, done: int, wrong: int) -> None:
        """Say it, if it is time to."""
        now = time.monotonic()
        if not self._over and now - self._said < EVERY_SECONDS:
            return
        self._said = now
        line = f"{done}/{self._total} seeds, {wrong} with violations"
        sys.stderr.write(f"\r{line}\033[K" if self._over else f"{line}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away, so that another can stand there."""
        if self._over:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())

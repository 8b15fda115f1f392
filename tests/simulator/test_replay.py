"""One seed is one run: the same lines, here, again, and in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from sojourn.testing import simulate

SEEDS = range(20)
PROGRAM = """
import json
from sojourn.testing import simulate
print(json.dumps([simulate(seed).digest for seed in range(20)]))
"""


def test_a_seed_replays_to_the_same_trace() -> None:
    for seed in SEEDS:
        first, second = simulate(seed), simulate(seed)
        assert first.trace == second.trace
        assert first == second


def test_two_seeds_are_two_runs() -> None:
    assert len({simulate(seed).digest for seed in SEEDS}) == len(SEEDS)


def test_a_seed_replays_in_another_process() -> None:
    """Whatever strings hash to there, and wherever objects lie in memory."""
    here = [simulate(seed).digest for seed in SEEDS]
    # Nothing is measured there: with `--cov=sojourn.testing`, coverage imports asyncio in a child
    # and forgets it again, and the two that come of it do not know each other's errors.
    bare = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    for hash_seed in ("1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**bare, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == here

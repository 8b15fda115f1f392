"""A thousand simulations: several managers, one store, faults, and every promise kept."""

from __future__ import annotations

import os

import pytest
from tests.faults.soak import Progress, count, scaled

from sojourn.testing import simulate

CHUNK = 25
SEEDS = 1_000
LONG_SEEDS = 20_000


@pytest.mark.parametrize("chunk", range(SEEDS // CHUNK))
def test_every_promise_is_kept(chunk: int) -> None:
    """The seeds of `make test`; a failure says how to replay it, line by line."""
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        run = simulate(seed)
        assert run.ok, f"{run}\npython -m sojourn.testing.simulator --seed {seed}"


@scaled
def test_every_promise_is_kept_for_other_seeds_every_time() -> None:
    """Not the same thousand for ever: a few that nobody has seen, or very many of them."""
    total = count(10, LONG_SEEDS)
    first = int.from_bytes(os.urandom(6))
    progress = Progress("seeds", total)
    operations = 0
    for done in range(1, total + 1):
        run = simulate(first + done)
        operations += run.operations
        assert run.ok, f"{run}\npython -m sojourn.testing.simulator --seed {run.seed}"
        progress.at(done, operations=operations)
    progress.figure("simulated", seeds=total, operations=operations, violations=0)


def test_simulations_are_about_something() -> None:
    """What is checked happens: thousands of lines, hundreds of operations, in each of few runs."""
    runs = [simulate(seed) for seed in range(5)]
    assert sum(run.operations for run in runs) > 100
    text = "\n".join(line for run in runs for line in run.trace)
    for happened in ("commit", "delete", "acquire", "reap", "refused", "unknown", "Conflict"):
        assert happened in text, happened

"""Bugs that are planted are found: a simulator that finds nothing has to be able to find it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.simulator import planted

from sojourn.stores.memory import MemoryStore
from sojourn.testing import simulate

if TYPE_CHECKING:
    from sojourn.store import Committed, Fork, Get

SEEDS = 60
"""How many seeds a bug of the kind that every session store has had may hide from."""

MORE_SEEDS = 400
"""How many seeds the subtler ones may hide from: found by one seed in ten or twenty."""

TELLING: dict[type[MemoryStore], tuple[str, int]] = {
    planted.UpsertsOnCommit: ("not_resurrected", SEEDS),
    planted.ChecksNoRevision: ("strict_saves_exclude_each_other", SEEDS),
    planted.ChecksThenActs: ("strict_saves_exclude_each_other", SEEDS),
    planted.ChecksThenCreates: ("not_vanished", MORE_SEEDS),
    planted.ReadsThenWrites: ("values_are_the_last_ones", MORE_SEEDS),
    planted.ForgetsOperations: ("commits_count_once", MORE_SEEDS),
    planted.TearsCommits: ("logs_are_whole", MORE_SEEDS),
    planted.ReadsOldCopies: ("appends_are_kept", MORE_SEEDS),
    planted.IgnoresFences: ("logs_are_whole", MORE_SEEDS),
    planted.SharesLeases: ("leases_are_numbered", MORE_SEEDS),
    planted.ReapsTheLiving: ("not_vanished", MORE_SEEDS),
    planted.DeletesLate: ("not_resurrected", MORE_SEEDS),
}
"""The promise by which each bug is told, and within how many seeds."""


@pytest.mark.parametrize("store", TELLING, ids=lambda store: store.__name__)
def test_a_planted_bug_is_found(store: type[MemoryStore]) -> None:
    """By the promise that it breaks; what was found is in the trace, and told with its seed."""
    rule, seeds = TELLING[store]
    for seed in range(seeds):
        run = simulate(seed, store)
        if any(violation.rule == rule for violation in run.violations):
            assert not run.ok
            assert any(line.partition(" check  ")[2].startswith(rule) for line in run.trace)
            assert str(run).startswith(f"seed {seed}: {len(run.violations)} violations, ")
            return
    pytest.fail(f"{store.__name__} was not found in {seeds} seeds")


def test_a_store_that_never_answers_is_found() -> None:
    """Nothing is left to run: that is told, not waited for."""

    class Silent(MemoryStore):
        async def get(self, get: Get, /) -> None:
            del get
            await asyncio.Event().wait()

    run = simulate(0, Silent)
    assert [violation.rule for violation in run.violations][:1] == ["stuck"]
    assert "nothing is left to run" in run.violations[0].what


def test_a_store_that_raises_what_it_should_not_is_found() -> None:
    """An error that is no error of Sojourn's is told as what it is."""

    class Raising(MemoryStore):
        async def fork(self, fork: Fork, /) -> Committed:
            raise ZeroDivisionError(fork.source)

    runs = [simulate(seed, Raising) for seed in range(10)]
    surprises = [v.what for run in runs for v in run.violations if v.rule == "surprise"]
    assert any("ZeroDivisionError" in what for what in surprises)

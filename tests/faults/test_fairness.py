"""Several processes write one file at the same time: each gets its turn, none sees a lock."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from tests.faults.processes import Worker
from tests.faults.soak import Progress, count, scaled

PROCESSES = 4
SECONDS = count(3, 20)
SHARE = count(40, 80) / 100
"""The slowest process does at least this part of what the fastest does.

In the short run other tests take turns on the same cores: what starves does next to nothing.
"""


@scaled
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("tasks", [1, 16])
def test_processes_share_the_file_fairly_and_never_see_a_lock(shared_url: str, tasks: int) -> None:
    """Of four processes that write all the time, none is left behind, and none sees an error."""
    progress = Progress(f"fairness, {tasks} tasks each", PROCESSES)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker("fairness", shared_url, f"s{number}", str(SECONDS), str(tasks))
            )
            for number in range(PROCESSES)
        ]
        assert [worker.hear() for worker in workers] == ["ready"] * PROCESSES
        for worker in workers:
            worker.say()
        told = [worker.hear() for worker in workers]
    done = [report["operations"] for report in told]
    longest = max(report["longest"] for report in told)
    progress.figure(
        f"fairness_{tasks}_tasks",
        operations=done,
        share=round(min(done) / max(done), 3),
        longest_wait_ms=round(longest * 1000, 1),
        errors=sum(len(report["errors"]) for report in told),
    )
    assert [report["errors"] for report in told] == [[]] * PROCESSES
    assert min(done) >= SHARE * max(done), done

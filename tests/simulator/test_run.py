"""`simulate`: what it takes, what it returns, and that it leaves the process as it was."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from sojourn import InvalidQuery
from sojourn.stores.memory import MemoryStore
from sojourn.testing import Run, Violation, simulate
from sojourn.testing.simulator.draw import Draw
from sojourn.testing.simulator.workload import ALWAYS, WEIGHTS, Client, drawn_actions

log = logging.getLogger("sojourn")


def test_a_run_says_how_it_went() -> None:
    run = simulate(3)
    assert (run.seed, run.ok, run.violations) == (3, True, ())
    assert len(run.digest) == 64
    assert str(run) == (
        f"seed 3: ok, {run.operations} operations, {len(run.trace)} lines, {run.digest[:16]}"
    )
    broken = Run(3, (), "d", (Violation("lost", "an event"), Violation("lost", "another")), 2)
    assert not broken.ok
    assert str(broken).splitlines()[1:] == ["  lost: an event", "  lost: another"]


def test_the_store_is_made_by_who_wants_another_one() -> None:
    """It is opened, and closed in the end."""
    calls: list[str] = []

    class Noting(MemoryStore):
        async def open(self) -> None:
            calls.append("open")
            await super().open()

        async def close(self) -> None:
            calls.append("close")
            await super().close()

    assert simulate(3, Noting) == simulate(3)
    assert calls == ["open", "close"]


@pytest.mark.parametrize("seed", ["7", 7.0, None, True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(InvalidQuery, match="give a whole number"):
        simulate(seed)  # type: ignore[arg-type]  # what it refuses is the point


async def test_it_is_refused_inside_of_a_loop_and_fine_in_a_thread() -> None:
    with pytest.raises(InvalidQuery, match=r"asyncio\.to_thread"):
        simulate(3)
    assert (await asyncio.to_thread(simulate, 3)).ok


def test_only_its_own_noise_is_kept_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Ends that are meant to fail are not logged; another thread's are, and everything after."""

    class Loud(MemoryStore):
        async def open(self) -> None:
            log.error("of the simulation")
            thread = threading.Thread(target=log.error, args=("of another thread",))
            thread.start()
            thread.join()

    simulate(3, Loud)
    log.error("after it")
    assert [record.getMessage() for record in caplog.records] == ["of another thread", "after it"]
    assert not log.filters


def test_every_action_is_one_and_no_run_does_without_some() -> None:
    for name in WEIGHTS:
        assert callable(getattr(Client, f"_{name}"))
    drawn = [drawn_actions(Draw(seed, "story")) for seed in range(50)]
    assert all(set(actions) >= ALWAYS for actions in drawn)
    assert len({tuple(actions) for actions in drawn}) > 40


def test_streams_of_one_seed_are_apart() -> None:
    draws = [Draw(1, "a"), Draw(1, "a"), Draw(1, "b"), Draw(2, "a")]
    first, again, other, later = [[draw.random() for _ in range(3)] for draw in draws]
    assert first == again
    assert first != other
    assert first != later
    assert not Draw(1, "a").likely(0)
    assert Draw(1, "a").likely(1)

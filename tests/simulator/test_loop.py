"""The simulated loop: virtual time, a seeded order, one thread, and an end."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from sojourn.testing import SimulatedLoop, Stuck

if TYPE_CHECKING:
    from collections.abc import Coroutine

A_MOMENT, HOUR = 0.01, 3_600
"""Seconds, of virtual time."""


def run(work: Coroutine[Any, Any, Any], seed: int = 0, **options: Any) -> Any:
    """Run a coroutine in a loop of its own."""
    with closing(SimulatedLoop(seed, **options)) as loop:
        return loop.run_until_complete(work)


def test_time_is_virtual_and_jumps() -> None:
    async def story() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        for seconds in (HOUR, 0.5, 0):
            await asyncio.sleep(seconds)
            times.append(loop.time())
        return times

    times = run(story())
    assert times == pytest.approx([0, HOUR, HOUR + 0.5, HOUR + 0.5], abs=0.001)


def test_timeouts_work_in_virtual_time() -> None:
    async def story() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HOUR):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(story()) == pytest.approx(HOUR, abs=0.001)


def test_timers_at_one_time_that_were_cancelled_are_skipped() -> None:
    async def story() -> list[int]:
        ran: list[int] = []
        loop = asyncio.get_running_loop()
        handles = [loop.call_later(1, ran.append, number) for number in range(4)]
        handles[1].cancel()
        loop.call_soon(ran.append, 9).cancel()
        await asyncio.sleep(HOUR)
        return sorted(ran)

    assert run(story()) == [0, 2, 3]


def test_who_is_busy_does_not_stop_the_clocks() -> None:
    """A task that gives way and never rests still lets time pass for the others."""

    async def busy() -> None:
        while True:  # noqa: ASYNC110 - to be busy is the point
            await asyncio.sleep(0)

    async def story() -> bool:
        task = asyncio.ensure_future(busy())
        await asyncio.sleep(A_MOMENT)
        task.cancel()
        return True

    assert run(story())


async def order_of_tasks() -> list[int]:
    ran: list[int] = []

    async def worker(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            ran.append(number)

    await asyncio.gather(*(worker(number) for number in range(4)))
    return ran


def test_the_seed_decides_who_is_next() -> None:
    assert run(order_of_tasks(), 1) == run(order_of_tasks(), 1)
    assert len({tuple(run(order_of_tasks(), seed)) for seed in range(10)}) == 10


def test_an_executor_runs_here_and_now() -> None:
    async def story() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(threading.get_ident)

    assert run(story()) == threading.get_ident()


def test_another_thread_is_refused() -> None:
    async def story() -> list[str]:
        loop = asyncio.get_running_loop()
        refused: list[str] = []

        def intrude() -> None:
            with pytest.raises(RuntimeError, match="one thread") as caught:
                loop.call_soon_threadsafe(print)
            refused.append(str(caught.value))

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        return refused

    assert len(run(story())) == 1


def test_the_same_thread_is_welcome() -> None:
    async def story() -> bool:
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon_threadsafe(event.set)
        return await event.wait()

    assert run(story())


def test_nothing_left_to_run_is_told() -> None:
    with closing(SimulatedLoop(0)) as loop:
        task = loop.create_task(asyncio.Event().wait())
        with pytest.raises(Stuck, match="nothing is left to run") as caught:
            loop.run_until_complete(task)
        assert caught.value.reason == str(caught.value)
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))


def test_what_does_not_come_to_an_end_is_told() -> None:
    async def endless() -> None:
        while True:  # noqa: ASYNC110 - to be busy is the point
            await asyncio.sleep(0)

    with closing(SimulatedLoop(0, max_steps=100)) as loop:
        task = loop.create_task(endless())
        with pytest.raises(Stuck, match="it goes on after 100 steps"):
            loop.run_until_complete(task)
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))  # the step that was next was not lost
        assert loop.steps < 200


def test_a_closed_loop_takes_nothing_more() -> None:
    loop = SimulatedLoop(0)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)

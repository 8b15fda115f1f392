"""Time limits that share a timer end the calls that are overdue, and nobody else's."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from sojourn.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Coroutine

NEVER = 3_600.0
"""Seconds that no test waits."""


async def _wait(timeouts: Timeouts, seconds: float) -> None:
    """Wait for what never comes, for so long at the most."""
    loop = asyncio.get_running_loop()
    with timeouts.call(loop.time() + seconds):
        await loop.create_future()


async def test_an_overdue_call_ends_and_its_task_goes_on() -> None:
    timeouts = Timeouts()
    with pytest.raises(TimeoutError) as caught:
        await _wait(timeouts, 0.01)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_deadline_that_has_passed_ends_a_call_at_its_first_wait() -> None:
    with pytest.raises(TimeoutError):
        await _wait(Timeouts(), -1)


async def test_an_earlier_deadline_rings_before_the_one_that_is_waited_for() -> None:
    timeouts = Timeouts()
    patient = asyncio.create_task(_wait(timeouts, NEVER))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await _wait(timeouts, 0.01)
    assert not patient.done()
    patient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await patient


async def test_each_of_many_calls_ends_at_its_own_time() -> None:
    timeouts = Timeouts()
    ended: list[int] = []

    async def call(number: int) -> None:
        with pytest.raises(TimeoutError):
            await _wait(timeouts, 0.02 * number)
        ended.append(number)

    await asyncio.gather(*map(call, (3, 1, 2)))
    assert ended == [1, 2, 3]


async def test_a_call_that_ended_in_time_is_left_alone() -> None:
    timeouts = Timeouts()
    loop = asyncio.get_running_loop()
    with timeouts.call(loop.time() + 0.01):
        pass
    with pytest.raises(TimeoutError):
        await _wait(timeouts, 0.02)  # the timer of the first one rings meanwhile


async def test_a_cancellation_from_outside_stays_one_though_the_time_is_up() -> None:
    timeouts = Timeouts()
    task = asyncio.create_task(_wait(timeouts, -1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_an_error_of_the_call_is_not_hidden_by_its_deadline() -> None:
    timeouts = Timeouts()
    loop = asyncio.get_running_loop()

    async def call() -> None:
        with timeouts.call(loop.time() - 1):
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                raise ConnectionError from None

    with pytest.raises(ConnectionError):
        await call()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_another_loop_has_a_timer_of_its_own() -> None:
    timeouts = Timeouts()

    async def first() -> None:
        with timeouts.call(asyncio.get_running_loop().time() + NEVER):
            await asyncio.sleep(0)

    asyncio.run(first())
    with pytest.raises(TimeoutError):
        asyncio.run(_wait(timeouts, 0.01))


def test_loops_in_several_threads_keep_to_their_limits() -> None:
    """One that begins to wait does not take the timer away from one that waits already."""
    timeouts, waits, goes = Timeouts(), threading.Event(), threading.Event()

    async def patient() -> None:
        with timeouts.call(asyncio.get_running_loop().time() + 0.2):
            asyncio.get_running_loop().call_soon(waits.set)
            await asyncio.get_running_loop().create_future()

    async def other() -> None:
        with timeouts.call(asyncio.get_running_loop().time() + NEVER):
            goes.set()
            await asyncio.to_thread(thread.join, 60)

    thread = threading.Thread(target=lambda: asyncio.run(ends_in_time(patient())))
    thread.start()
    assert waits.wait(60)
    asyncio.run(other())
    assert not thread.is_alive(), "its limit was lost"


async def ends_in_time(work: Coroutine[None, None, None]) -> None:
    with pytest.raises(TimeoutError):
        await work


async def test_the_timer_is_gone_once_closed() -> None:
    timeouts = Timeouts()
    loop = asyncio.get_running_loop()
    with timeouts.call(loop.time() + NEVER):
        pass
    timeouts.close()
    timeouts.close()
    with pytest.raises(TimeoutError):
        await _wait(timeouts, 0.01)

"""What a task goes on with at once: it is a future to the task, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from sojourn.stores.redis.arrival import Arrival
from sojourn.web.bounded import _Begun

HERE: ContextVar[str] = ContextVar("HERE", default="nowhere")


def arrival() -> Arrival[str]:
    return Arrival(asyncio.get_running_loop())


async def wait_for(what: Arrival[str], seen: list[str]) -> str:
    result = await what
    seen.append(f"{result} {HERE.get()}")
    return result


async def waiting(what: Arrival[str], seen: list[str]) -> asyncio.Task[str]:
    """Return a task that waits already."""
    task = asyncio.create_task(wait_for(what, seen))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def called(step: object, *arguments: object) -> None:
    """Have the loop itself call something, outside of any task."""
    done = asyncio.Event()

    def call() -> None:
        step(*arguments)  # type: ignore[operator]  # it is a function
        done.set()

    asyncio.get_running_loop().call_soon(call)
    await done.wait()


async def test_a_task_goes_on_at_once_and_in_its_own_context() -> None:
    seen: list[str] = []
    what = arrival()
    HERE.set("in its task")
    task = await waiting(what, seen)
    HERE.set("elsewhere")

    def arrive() -> None:
        what.arrive("it")
        seen.append("after it")

    await called(arrive)
    assert seen == ["it in its task", "after it"]
    assert await task == "it"


async def test_what_has_come_before_is_not_waited_for() -> None:
    what = arrival()
    what.arrive("it")
    assert what.done()
    assert await what == "it"


@pytest.mark.parametrize("late", ["arrive", "set_result"])
async def test_what_comes_while_nobody_has_taken_over_the_waiting_is_not_missed(late: str) -> None:
    """The first step of a coroutine may be taken outside of the task that takes the others."""
    what = arrival()
    seen: list[str] = []
    work = wait_for(what, seen)
    first = work.send(None)
    getattr(what, late)("it")
    assert await _Begun(work, first) == "it"


async def test_an_error_and_a_late_result_wait_for_the_next_turn() -> None:
    seen: list[str] = []
    good, bad = arrival(), arrival()
    first, second = await waiting(good, seen), await waiting(bad, seen)
    good.set_result("it")
    bad.set_exception(LookupError("not it"))
    assert not seen
    assert await first == "it"
    with pytest.raises(LookupError, match="not it"):
        await second


async def test_a_task_that_waits_can_be_cancelled() -> None:
    seen: list[str] = []
    what = arrival()
    task = await waiting(what, seen)
    task.cancel("enough")
    assert what.done(), "nobody hands anything out to who does not wait"
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert not what.cancel()
    assert not seen


async def test_a_time_limit_ends_the_waiting() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await arrival()

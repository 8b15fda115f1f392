"""A coroutine that has taken its first step goes on in a task as if it had begun there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from sojourn.begun import Begun

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


async def _rest(work: Coroutine[Any, Any, T], first: object) -> T:
    return await Begun(work, first)


async def test_it_returns_what_the_coroutine_does() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        await asyncio.sleep(0)  # a bare step, with nothing to wait for
        return await future + 1

    begun = work()
    task = asyncio.create_task(_rest(begun, begun.send(None)))
    await asyncio.sleep(0)
    future.set_result(2)
    assert await task == 3


async def test_what_was_waited_for_may_be_there_before_the_task() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await future

    begun = work()
    first = begun.send(None)
    future.set_result(5)
    assert await asyncio.create_task(_rest(begun, first)) == 5


async def test_it_raises_what_the_coroutine_does() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        with pytest.raises(KeyError):
            await future
        raise ValueError("afterwards")

    begun = work()
    task = asyncio.create_task(_rest(begun, begun.send(None)))
    await asyncio.sleep(0)
    future.set_exception(KeyError("there"))
    with pytest.raises(ValueError, match="afterwards"):
        await task


async def test_a_cancellation_reaches_the_coroutine_and_may_be_caught_there() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    met: list[str] = []

    async def work() -> str:
        try:
            await future
        except asyncio.CancelledError:
            met.append("cancelled")
        await asyncio.sleep(0)
        return "went on"

    begun = work()
    task = asyncio.create_task(_rest(begun, begun.send(None)))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "went on"
    assert met == ["cancelled"]


async def test_one_that_nobody_awaits_any_more_is_closed() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    met: list[str] = []

    async def work() -> None:
        try:
            await future
        finally:
            met.append("left")

    begun = work()
    rest = _rest(begun, begun.send(None))
    rest.send(None)
    rest.close()
    assert met == ["left"]

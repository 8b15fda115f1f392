"""How long a request waits for the store: bounds that make no sense are refused at the start."""

from __future__ import annotations

import asyncio
import math

import pytest

from sojourn import InvalidQuery, SessionManager, Unavailable
from sojourn.stores.memory import MemoryStore
from sojourn.web import SessionMiddleware
from sojourn.web.bounded import Bounded


@pytest.mark.parametrize("seconds", [None, 0, -1, math.nan, math.inf, "5", True])
async def test_a_time_limit_is_a_finite_number_of_seconds(seconds: object) -> None:
    async def app(*_: object) -> None: ...

    store = MemoryStore()
    with pytest.raises(InvalidQuery, match="timeout"):
        SessionMiddleware(app, sessions=SessionManager(store), timeout=seconds)  # type: ignore[arg-type]  # that is the test
    await store.close()


async def test_what_is_answered_at_once_needs_no_loop_and_no_limit() -> None:
    bounded = Bounded(MemoryStore(), 1e-9)

    async def at_once() -> int:
        return 3

    assert await bounded(at_once()) == 3


async def test_what_takes_longer_is_told_with_its_cause() -> None:
    bounded = Bounded(MemoryStore("slow"), 0.01)
    with pytest.raises(Unavailable, match=r"memory://slow.*within 0\.01 s") as caught:
        await bounded(asyncio.Event().wait())
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_caller_that_goes_away_is_no_time_limit() -> None:
    bounded = Bounded(MemoryStore(), 60)
    task = asyncio.create_task(bounded(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

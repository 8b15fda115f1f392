"""A bounded parallel map: order, bound, first error, cancellation, child scopes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn import (
    InvalidQuery,
    OutOfScope,
    SessionManager,
    current_scope,
    current_session,
    parallel_map,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


class Oops(Exception):
    """What an item leads to."""


@given(
    waits=st.lists(st.integers(0, 4), max_size=20),
    limit=st.integers(1, 6),
    lazily=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_results_are_in_order_and_the_bound_holds(
    waits: list[int], limit: int, lazily: bool
) -> None:
    """However long each takes, whatever the limit, from a list or a generator."""
    working, most = 0, 0

    async def work(item: tuple[int, int]) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        for _ in range(item[1]):
            await asyncio.sleep(0)
        working -= 1
        return item[0]

    async def run() -> list[int]:
        items = list(enumerate(waits))
        return await parallel_map(work, iter(items) if lazily else items, limit=limit)

    assert asyncio.run(run()) == list(range(len(waits)))
    assert most <= limit
    assert working == 0


@pytest.mark.behaviour(139)
async def test_as_many_as_the_limit_work_at_once() -> None:
    """Not fewer: a party of four comes together, out of ten."""
    party = asyncio.Barrier(4)

    async def work(item: int) -> int:
        if item < 4:
            await party.wait()
        return item

    assert await parallel_map(work, range(10), limit=4) == list(range(10))


@pytest.mark.behaviour(139)
async def test_the_first_error_cancels_the_rest_and_is_raised() -> None:
    """Itself, once the others are done; nothing more is begun."""
    begun: list[int] = []
    cleaned: list[int] = []
    failing = asyncio.Event()

    async def work(item: int) -> None:
        begun.append(item)
        if item == 2:
            raise Oops(item)
        try:
            await failing.wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(item)

    with pytest.raises(Oops):
        await parallel_map(work, range(100), limit=3)
    assert begun == [0, 1, 2]
    assert cleaned == [0, 1]


async def test_an_item_that_ignores_its_cancellation_is_the_last_one() -> None:
    """The worker that it kept alive takes nothing more."""
    begun: list[int] = []
    failing = asyncio.Event()

    async def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise Oops
        try:
            await failing.wait()
        except asyncio.CancelledError:  # wrong of it
            return

    with pytest.raises(Oops):
        await parallel_map(work, range(100), limit=2)
    assert begun == [0, 1]


@pytest.mark.behaviour(139)
async def test_cancelling_it_cancels_all_of_it() -> None:
    """And it returns once all are done, also when it is cancelled again meanwhile."""
    party = asyncio.Barrier(4)
    cleaned: list[int] = []
    go = asyncio.Event()

    async def work(item: int) -> None:
        try:
            await party.wait()
            await asyncio.Event().wait()
        finally:
            await go.wait()
            cleaned.append(item)

    task = asyncio.create_task(parallel_map(work, range(100), limit=3))
    await party.wait()
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(cleaned) == [0, 1, 2]


async def test_items_are_taken_as_they_are_needed() -> None:
    """A source of any length is never read ahead; what it raises is raised."""
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    async def work(item: int) -> None:
        if item == 5:
            raise Oops
        await asyncio.sleep(0)

    with pytest.raises(Oops):
        await parallel_map(work, endless(), limit=2)
    assert len(taken) <= 8

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        await parallel_map(work, broken(), limit=2)


async def test_few_items_need_few_tasks() -> None:
    """A large limit costs nothing by itself."""
    before = len(asyncio.all_tasks())
    most: list[int] = []

    async def work(_item: int) -> None:
        most.append(len(asyncio.all_tasks()) - before)

    await parallel_map(work, [1, 2], limit=1_000_000)
    assert max(most) <= 2
    assert await parallel_map(work, [], limit=5) == []


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3", None, 2**63])
async def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    """It has to be a whole number from 1, of those that Python counts with."""
    with pytest.raises(InvalidQuery, match="limit"):
        await parallel_map(asyncio.sleep, [0], limit=limit)


async def test_all_items_work_in_the_ambient_session(opened: Opener) -> None:
    """On one copy, saved with the scope around them; outside of scopes, in none."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def work(item: int) -> None:
            session = current_session()
            assert session is not None
            session.state[str(item)] = item

        async with sessions.scope("s1") as s:
            await parallel_map(work, range(20))
            assert len(s.state) == 20
        assert len((await sessions.require("s1")).state) == 20

        async def look(_item: int) -> object:
            return current_session()

        assert await parallel_map(look, range(2)) == [None, None]


@pytest.mark.behaviour(139)
async def test_items_may_have_child_scopes_of_their_own(opened: Opener) -> None:
    """Distinct ones, each with its own copy and the outer as parent; all are closed afterwards."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        seen: list[tuple[str, str | None]] = []

        async def work(item: int) -> int:
            scope = current_scope()
            assert scope is not None
            seen.append((scope.id, scope.parent_id))
            assert len(scope.session.state) < 20
            scope.session.state[str(item)] = item
            return id(scope.session)

        async with sessions.scope("s1") as s:
            outer = current_scope()
            assert outer is not None
            copies = await parallel_map(work, range(20), limit=5, child=True)
            assert id(s) not in copies
            assert sessions.scopes.live() == {"s1"}
            assert s.scopes == 1
            assert dict(s.state) == {}
        assert len({scope for scope, _ in seen}) == 20
        assert {parent for _, parent in seen} == {outer.id}
        assert len((await sessions.require("s1")).state) == 20
        assert sessions.scopes.live() == frozenset()


async def test_of_child_scopes_the_failing_one_saves_nothing(opened: Opener) -> None:
    """What the others had saved before stays."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def work(item: int) -> None:
            session = current_session()
            assert session is not None
            session.state[str(item)] = item
            if item == 1:
                raise Oops

        async def run() -> None:
            async with sessions.scope("s1"):
                await parallel_map(work, range(3), limit=1, child=True)

        with pytest.raises(Oops):
            await run()
        assert dict((await sessions.require("s1")).state) == {"0": 0}


async def test_child_scopes_need_a_scope() -> None:
    """Asked for where no session is ambient, nothing is begun."""
    with pytest.raises(OutOfScope, match="parallel_map"):
        await parallel_map(asyncio.sleep, [0], child=True)

"""The batcher: leader and followers, without a timer, each with an outcome of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sojourn import NotFound, Unavailable, batcher
from sojourn.batcher import COMPANY, FLIGHTS, Batcher
from sojourn.limits import BATCH_BYTES, BATCH_OPERATIONS, BATCH_QUEUE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


class Disk:
    """A slow disk: a batch lands when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self._done: list[Callable[[Sequence[str | Exception]], None]] = []

    def write(
        self, operations: Sequence[str], done: Callable[[Sequence[str | Exception]], None], /
    ) -> None:
        """Note the batch; nothing is done yet."""
        self.batches.append(list(operations))
        self._done.append(done)

    async def land(self, *refused: str) -> None:
        """Let the oldest batch in flight land; the named operations are refused."""
        batch = self.batches[len(self.batches) - len(self._done)]
        done = self._done.pop(0)
        done([NotFound(op) if op in refused else f"did {op}" for op in batch])
        await settle()

    @property
    def flying(self) -> int:
        """How many batches are being written."""
        return len(self._done)


def weigh(operation: str) -> int:
    """An operation weighs what the number behind its colon says, else nothing."""
    _, _, size = operation.partition(":")
    return int(size or 0)


@asynccontextmanager
async def slow_disk() -> AsyncIterator[tuple[Disk, Batcher[str, str]]]:
    """Give a disk and a batcher above it; at the end, even of a failed test, all flights land."""
    disk = Disk()
    try:
        yield disk, Batcher(disk.write, name="test store", weigh=weigh)
    finally:
        while disk.flying:
            await disk.land()


def submit(target: Batcher[str, str], *operations: str) -> list[asyncio.Task[str]]:
    """Start so many callers, in order."""
    return [asyncio.create_task(target.submit(operation)) for operation in operations]


async def submit_behind(target: Batcher[str, str], *operations: str) -> list[asyncio.Task[str]]:
    """Start the first caller, and the others once its batch is in flight."""
    tasks = submit(target, operations[0])
    await settle()
    return tasks + submit(target, *operations[1:])


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_lone_operation_leaves_at_once() -> None:
    """Without company nothing waits: one operation is one batch, at the end of the loop's turn."""
    async with slow_disk() as (disk, target):
        (task,) = submit(target, "a")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert disk.batches == [["a"]]
        await disk.land()
        assert await task == "did a"
        assert disk.flying == 0


async def test_what_arrives_in_one_turn_of_the_loop_leaves_together() -> None:
    """Whoever was woken at the same moment shares a batch; nobody leads alone without need."""
    async with slow_disk() as (disk, target):
        tasks = submit(target, "a", "b", "c")
        await settle()
        assert disk.batches == [["a", "b", "c"]]
        await disk.land()
        assert await asyncio.gather(*tasks) == ["did a", "did b", "did c"]


async def test_what_arrives_during_a_flight_leaves_together_as_the_next() -> None:
    """The first leads alone; its followers share one batch, in the order they came."""
    async with slow_disk() as (disk, target):
        tasks = await submit_behind(target, "a", "b", "c", "d")
        await settle()
        assert disk.batches == [["a"]]
        await disk.land()
        assert disk.batches == [["a"], ["b", "c", "d"]]
        late = submit(target, "e")
        await settle()
        assert disk.flying == 1
        await disk.land()
        assert disk.batches == [["a"], ["b", "c", "d"], ["e"]]
        await disk.land()
        assert await asyncio.gather(*tasks, *late) == [f"did {op}" for op in "abcde"]


async def test_a_crowd_leaves_in_two_halves() -> None:
    """While one half is written, the callers of the other half go on."""
    async with slow_disk() as (disk, target):
        tasks = submit(target, *(str(n) for n in range(COMPANY * 2 + 1)))
        await settle()
        assert [len(batch) for batch in disk.batches] == [COMPANY, COMPANY + 1]
        assert disk.flying == FLIGHTS
        await disk.land()
        assert all(task.done() for task in tasks[:COMPANY])
        assert not any(task.done() for task in tasks[COMPANY:])
        again = submit(target, *"abcdefgh")
        await settle()
        assert disk.flying == FLIGHTS, "the first half is on its way again"
        await disk.land()
        await disk.land()
        await asyncio.gather(*tasks, *again)


async def test_a_few_wait_for_the_batch_in_flight() -> None:
    """Fewer than `COMPANY` are not worth a write of their own: they leave together, later."""
    async with slow_disk() as (disk, target):
        tasks = await submit_behind(target, "lead", *(str(n) for n in range(COMPANY - 1)))
        await settle()
        assert disk.batches == [["lead"]]
        tasks += submit(target, "one more")
        await settle()
        assert [len(batch) for batch in disk.batches] == [1, COMPANY]
        await disk.land()
        await disk.land()
        await asyncio.gather(*tasks)


async def test_so_many_batches_are_in_flight_at_most() -> None:
    """However many wait, the store has one write to do and one to do next."""
    async with slow_disk() as (disk, target):
        tasks = submit(target, *(str(n) for n in range(BATCH_OPERATIONS * 3)))
        await settle()
        while disk.flying:
            assert disk.flying <= FLIGHTS
            await disk.land()
        assert len(await asyncio.gather(*tasks)) == BATCH_OPERATIONS * 3
        assert [int(op) for batch in disk.batches for op in batch] == [*range(len(tasks))]


async def test_cancelled_in_the_second_flight_waits_for_that_one() -> None:
    """Its outcome is final when its own batch has landed, not when the first one has."""
    async with slow_disk() as (disk, target):
        tasks = submit(target, *(str(n) for n in range(COMPANY * 2)))
        await settle()
        tasks[-1].cancel()
        await settle()
        await disk.land()
        await settle()
        assert not tasks[-1].done()
        await disk.land()
        await settle()
        assert tasks[-1].cancelled()
        await asyncio.gather(*tasks[:-1])


async def test_a_refused_operation_does_not_fail_its_neighbours() -> None:
    """Each caller gets its own outcome: one is refused, the others are done."""
    async with slow_disk() as (disk, target):
        lead, *rest = await submit_behind(target, "lead", "a", "b", "c")
        await settle()
        await disk.land()
        await disk.land("b")
        assert await lead == "did lead"
        a, b, c = await asyncio.gather(*rest, return_exceptions=True)
        assert (a, c) == ("did a", "did c")
        assert isinstance(b, NotFound)
        assert b.id == "b"


async def test_a_refused_leader_does_not_strand_its_followers() -> None:
    """When the flight fails as a whole, the next one leaves all the same."""
    async with slow_disk() as (disk, target):
        lead, follower = await submit_behind(target, "lead", "next")
        await settle()
        await disk.land("lead")
        await disk.land()
        assert await follower == "did next"
        with pytest.raises(NotFound):
            await lead


async def test_a_batch_has_a_greatest_number_of_operations() -> None:
    """`BATCH_OPERATIONS` leave together, one more waits for the next batch."""
    async with slow_disk() as (disk, target):
        tasks = await submit_behind(target, "lead", *(str(n) for n in range(BATCH_OPERATIONS + 1)))
        await settle()
        await disk.land()
        await disk.land()
        assert [len(batch) for batch in disk.batches] == [1, BATCH_OPERATIONS, 1]
        assert disk.batches[2] == [str(BATCH_OPERATIONS)]
        await disk.land()
        await asyncio.gather(*tasks)


async def test_a_batch_has_a_greatest_weight() -> None:
    """Operations join while the sum is within `BATCH_BYTES`; the one beyond it leads the next."""
    async with slow_disk() as (disk, target):
        half = BATCH_BYTES // 2
        tasks = await submit_behind(target, "lead", f"a:{half}", f"b:{half}", "c:1", "d:1")
        await settle()
        await disk.land()
        await disk.land()
        assert disk.batches == [["lead"], [f"a:{half}", f"b:{half}"], ["c:1", "d:1"]]
        await disk.land()
        await asyncio.gather(*tasks)


async def test_an_operation_that_is_too_heavy_for_company_goes_alone() -> None:
    """The first of a batch leaves whatever it weighs; nothing is stuck for being large."""
    async with slow_disk() as (disk, target):
        huge = f"huge:{BATCH_BYTES * 5}"
        tasks = await submit_behind(target, "lead", huge, "small", huge)
        await settle()
        for _ in range(4):
            await disk.land()
        assert disk.batches == [["lead"], [huge], ["small"], [huge]]
        await asyncio.gather(*tasks)


async def test_the_queue_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `BATCH_QUEUE` waiting the next one is `Unavailable`; once there is room it is taken."""
    assert BATCH_QUEUE > BATCH_OPERATIONS
    monkeypatch.setattr(batcher, "BATCH_QUEUE", 3)
    async with slow_disk() as (disk, target):
        tasks = await submit_behind(target, "lead", "a", "b", "c")
        await settle()
        with pytest.raises(Unavailable) as caught:
            await target.submit("d")
        assert caught.value.store == "test store"
        assert "3 writes are waiting" in caught.value.reason
        await disk.land()
        tasks += submit(target, "e")
        await settle()
        await disk.land()
        await disk.land()
        assert await asyncio.gather(*tasks) == [f"did {op}" for op in ("lead", "a", "b", "c", "e")]
        assert ["d"] not in disk.batches


async def test_cancelled_before_departure_is_dropped() -> None:
    """It was not begun, so it never is; its neighbours leave without it."""
    async with slow_disk() as (disk, target):
        lead, a, b = await submit_behind(target, "lead", "a", "b")
        await settle()
        a.cancel()
        await settle()
        assert a.cancelled()
        await disk.land()
        assert disk.batches == [["lead"], ["b"]]
        await disk.land()
        assert (await lead, await b) == ("did lead", "did b")


async def test_when_all_that_wait_are_cancelled_nothing_leaves() -> None:
    """An empty batch is never written, and the next operation leads again."""
    async with slow_disk() as (disk, target):
        lead, a = await submit_behind(target, "lead", "a")
        await settle()
        a.cancel()
        await settle()
        await disk.land()
        assert disk.batches == [["lead"]]
        assert await lead == "did lead"
        (later,) = submit(target, "later")
        await settle()
        await disk.land()
        assert await later == "did later"


async def test_cancelled_in_flight_waits_for_the_landing() -> None:
    """The cancellation is raised once the outcome is final, not before; the flight goes on."""
    async with slow_disk() as (disk, target):
        (task,) = submit(target, "a")
        await settle()
        task.cancel()
        await settle()
        assert not task.done()
        task.cancel()
        await settle()
        assert not task.done(), "cancelled again, it still waits"
        await disk.land()
        await settle()
        assert task.cancelled()
        assert disk.batches == [["a"]]


async def test_cancelled_in_flight_leaves_its_neighbours_alone() -> None:
    """The others of the flight get their outcomes, and so does the next flight."""
    async with slow_disk() as (disk, target):
        lead, a, b = await submit_behind(target, "lead", "a", "b")
        await settle()
        await disk.land()
        a.cancel()
        await settle()
        (c,) = submit(target, "c")
        await settle()
        assert not a.done()
        await disk.land("b")
        await disk.land()
        assert await lead == "did lead"
        with pytest.raises(NotFound):
            await b
        assert await c == "did c"
        await settle()
        assert a.cancelled()


async def test_cancelled_in_flight_does_not_wait_for_the_next_flight() -> None:
    """It waits for its own batch only."""
    async with slow_disk() as (disk, target):
        lead, follower = await submit_behind(target, "lead", "follower")
        await settle()
        lead.cancel()
        await settle()
        await disk.land()
        await settle()
        assert lead.cancelled()
        assert disk.flying == 1
        await disk.land()
        assert await follower == "did follower"


async def test_drain_waits_for_everything_that_was_accepted() -> None:
    """It returns once nothing waits and nothing is being written."""
    async with slow_disk() as (disk, target):
        tasks = await submit_behind(target, "a", "b", "c")
        await settle()
        drain = asyncio.create_task(target.drain())
        await settle()
        await disk.land()
        await settle()
        assert not drain.done()
        await disk.land()
        await asyncio.wait_for(drain, 10)
        assert [task.result() for task in tasks] == ["did a", "did b", "did c"]


async def test_drain_of_an_idle_batcher_returns_at_once() -> None:
    """There is nothing to wait for, before the first operation and after the last."""
    async with slow_disk() as (disk, target):
        await target.drain()
        (task,) = submit(target, "a")
        await settle()
        await disk.land()
        await task
        await target.drain()
        assert disk.batches == [["a"]]


async def test_who_waits_too_long_is_refused_and_nothing_of_it_is_written() -> None:
    """A disk that hangs keeps its own batch; the others are told, and a later one gets through."""
    disk = Disk()
    batcher: Batcher[str, str] = Batcher(disk.write, name="test store", weigh=weigh, patience=0.01)
    flying = asyncio.ensure_future(batcher.submit("first"))
    await settle()
    waiting = [asyncio.ensure_future(batcher.submit(f"late {n}")) for n in range(3)]
    for one in waiting:
        with pytest.raises(Unavailable, match="nothing was written"):
            await one
    await disk.land()
    assert await flying == "did first"
    last = asyncio.ensure_future(batcher.submit("last"))
    await settle()
    await disk.land()
    assert await last == "did last"
    assert disk.batches == [["first"], ["last"]]
    await batcher.drain()

"""Many waiting operations become few durable writes: leader and followers, without a timer.

One batch is in flight; what arrives meanwhile waits and leaves together as the next. A batch
leaves at the end of the loop's turn, so that everybody whom the last one woke comes along: a lone
operation waits for nothing, and under load the price of a durable write is shared.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sojourn.errors import Unavailable
from sojourn.limits import BATCH_BYTES, BATCH_OPERATIONS, BATCH_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Operation = TypeVar("Operation")
Operation_contra = TypeVar("Operation_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Write(Protocol[Operation_contra, Result_co]):
    """Starts the write of a batch and returns at once."""

    def __call__(
        self,
        operations: Sequence[Operation_contra],
        done: Callable[[Sequence[Result_co | Exception]], None],
        /,
    ) -> None:
        """Write; call `done` in the event loop, once, with one outcome for each operation."""


class _Flight(Generic[Result]):
    """A batch that is being written: who waits for it, and the moment it is done."""

    __slots__ = ("_landed", "futures")

    def __init__(self, futures: list[asyncio.Future[Result]]) -> None:
        self.futures = futures
        self._landed: asyncio.Event | None = None

    async def landed(self) -> None:
        """Return once the batch is written, whoever cancels meanwhile."""
        if self._landed is None:
            self._landed = asyncio.Event()
        while not self._landed.is_set():
            try:
                await self._landed.wait()
            except asyncio.CancelledError:  # the first one is raised by whoever waits for us
                continue

    def land(self) -> None:
        """Let everybody who waits in `landed` go on."""
        if self._landed is not None:
            self._landed.set()


class Batcher(Generic[Operation, Result]):
    """Collects operations into batches and hands each caller its own outcome."""

    def __init__(
        self, write: Write[Operation, Result], *, name: str, weigh: Callable[[Operation], int]
    ) -> None:
        """`write` starts a batch; `weigh` tells an operation's payload in bytes."""
        self._write = write
        self._name = name
        self._weigh = weigh
        self._waiting: dict[asyncio.Future[Result], Operation] = {}
        self._flight: _Flight[Result] | None = None
        self._boarding = False

    async def submit(self, operation: Operation) -> Result:
        """Return the operation's result, or raise what it was refused with.

        Cancelled before its batch left, it is dropped; after that, the cancellation is raised once
        the batch is written, so that its outcome is final. Raises `Unavailable` when
        `BATCH_QUEUE` operations are waiting.
        """
        if len(self._waiting) >= BATCH_QUEUE:
            raise Unavailable(self._name, f"{BATCH_QUEUE} writes are waiting; try again later")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting[future] = operation
        if self._flight is None and not self._boarding:
            self._boarding = True
            loop.call_soon(self._depart)
        try:
            return await future
        except asyncio.CancelledError:
            # In flight (not waiting any more): the flight has to land before this is final.
            dropped = self._waiting.pop(future, None) is not None
            if not dropped and self._flight is not None and future in self._flight.futures:
                await self._flight.landed()
            raise

    async def drain(self) -> None:
        """Return once nothing is waiting or being written."""
        while self._waiting or self._flight is not None:
            if self._flight is None:
                await asyncio.sleep(0)
            else:
                await self._flight.landed()

    def _depart(self) -> None:
        """Send the next batch off, if anything waits."""
        self._boarding = False
        if self._flight is not None:
            return
        futures: list[asyncio.Future[Result]] = []
        operations: list[Operation] = []
        size = 0
        for future, operation in self._waiting.items():
            size += self._weigh(operation)
            if operations and (size > BATCH_BYTES or len(operations) == BATCH_OPERATIONS):
                break
            futures.append(future)
            operations.append(operation)
        for future in futures:
            del self._waiting[future]
        if not futures:
            return
        self._flight = _Flight(futures)
        self._write(operations, self._arrive)

    def _arrive(self, outcomes: Sequence[Result | Exception]) -> None:
        """Hand out the outcomes of the flight that landed and send the next one off."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        for future, outcome in zip(flight.futures, outcomes, strict=True):
            if future.done():  # cancelled meanwhile; its caller waits in `landed`
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        flight.land()
        self._boarding = True
        asyncio.get_running_loop().call_soon(self._depart)

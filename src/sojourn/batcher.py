"""Many waiting operations become few durable writes: leader and followers, without a timer.

One batch is in flight; what arrives meanwhile waits and leaves together as the next. A batch
leaves at the end of the loop's turn, so that everybody whom the last one woke comes along: a lone
operation waits for nothing, and under load the price of a durable write is shared. A crowd is two
batches (`FLIGHTS`): while one half of it is written, the callers of the other half go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sojourn.errors import Unavailable
from sojourn.limits import BATCH_BYTES, BATCH_OPERATIONS, BATCH_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Operation = TypeVar("Operation")
Operation_contra = TypeVar("Operation_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


FLIGHTS = 2
"""Batches on their way: one that is written, and one that the writer finds when it is done."""

COMPANY = 8
"""So many operations are worth a durable write of their own while another one is under way."""


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
        self,
        write: Write[Operation, Result],
        *,
        name: str,
        weigh: Callable[[Operation], int],
        patience: float | None = None,
    ) -> None:
        """`write` starts a batch; `weigh` tells an operation's payload in bytes.

        An operation that has waited for its batch to leave for `patience` seconds, twice that at
        the most, is refused.
        """
        self._write = write
        self._name = name
        self._weigh = weigh
        self._waiting: dict[asyncio.Future[Result], Operation] = {}
        self._flights: deque[_Flight[Result]] = deque()
        self._boarding = False
        self._patience = patience
        self._look: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waiting or being written."""
        return not self._waiting and not self._flights

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
        if not self._boarding and len(self._flights) < FLIGHTS:
            self._boarding = True
            loop.call_soon(self._depart)
        if self._look is None and self._patience is not None:
            self._look = loop.call_later(self._patience, self._give_up, frozenset())
        try:
            return await future
        except asyncio.CancelledError:
            # In flight (not waiting any more): the flight has to land before this is final.
            if self._waiting.pop(future, None) is None:
                for flight in tuple(self._flights):
                    if future in flight.futures:
                        await flight.landed()
            raise

    async def drain(self) -> None:
        """Return once nothing is waiting or being written."""
        while not self.is_idle:
            if self._flights:
                await self._flights[-1].landed()
            else:
                await asyncio.sleep(0)

    def _give_up(self, waited: frozenset[asyncio.Future[Result]]) -> None:
        """Refuse those that waited at the last look and wait still; nothing of them was begun."""
        for future in waited:
            if self._waiting.pop(future, None) is not None and not future.done():
                reason = "its turn did not come in time; nothing was written"
                future.set_exception(Unavailable(self._name, reason))
        self._look = None
        if self._waiting and self._patience is not None:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(self._patience, self._give_up, frozenset(self._waiting))

    def _depart(self) -> None:
        """Send off what waits: all of it, or a crowd in two halves; behind a flight, only many."""
        self._boarding = False
        if not self._flights:
            waiting = len(self._waiting)
            self._send(waiting if waiting < 2 * COMPANY else waiting // 2)
        if len(self._waiting) >= COMPANY and len(self._flights) < FLIGHTS:
            self._send(len(self._waiting))

    def _send(self, most: int) -> None:
        """Send the next batch off, of so many operations at most, if anything waits."""
        most = min(most, BATCH_OPERATIONS)
        futures: list[asyncio.Future[Result]] = []
        operations: list[Operation] = []
        size = 0
        for future, operation in self._waiting.items():
            size += self._weigh(operation)
            if len(operations) == most or (operations and size > BATCH_BYTES):
                break
            futures.append(future)
            operations.append(operation)
        if not futures:
            return
        for future in futures:
            del self._waiting[future]
        flight = _Flight(futures)
        self._flights.append(flight)
        self._write(operations, partial(self._arrive, flight))

    def _arrive(self, flight: _Flight[Result], outcomes: Sequence[Result | Exception]) -> None:
        """Hand out the outcomes of a flight that landed and send the next one off."""
        self._flights.remove(flight)
        for future, outcome in zip(flight.futures, outcomes, strict=True):
            if future.done():  # cancelled meanwhile; its caller waits in `landed`
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        flight.land()
        if not self._boarding:
            self._boarding = True
            asyncio.get_running_loop().call_soon(self._depart)

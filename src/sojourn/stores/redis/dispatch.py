"""Sending batches off: in a cluster one for each master, so that one that is away delays no other.

An operation whose master takes long is on its way still while the next batch leaves. Its caller is
handed a promise, and waits for it; whoever writes elsewhere does not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from sojourn.limits import BATCH_QUEUE
from sojourn.store import Create, Fork
from sojourn.stores.redis import routes
from sojourn.stores.redis.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sojourn.stores.planning import Operation
    from sojourn.stores.redis.batch import Tools
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Address

Promise: TypeAlias = "asyncio.Future[Any]"
"""What an operation that takes long will have led to."""

PATIENCE = 0.1
"""Seconds that a batch waits for its slowest master: many times what a write takes."""


class Dispatch:
    """Batches on their way, and what is late."""

    def __init__(self, tools: Tools) -> None:
        """Nothing is on its way yet."""
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: dict[int, Promise] = {}
        self._behind: Counter[Address | None] = Counter()

    def send(self, operations: Sequence[Operation], done: Callable[[Sequence[Any]], None]) -> None:
        """Start a batch on its way; `done` is told the outcomes, of what is late a promise."""
        carry = self._carry_parted if self._tools.client.cluster else self._carry
        task = asyncio.get_running_loop().create_task(carry(operations, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Return once nothing is on its way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def kept(self, promise: Promise) -> Any:
        """Return what was promised. Cancelled, it is raised once that is final."""
        try:
            await asyncio.wait([promise])
        except asyncio.CancelledError:
            await _landed(promise)
            raise
        return promise.result()

    async def landed(self, operation: Operation) -> None:
        """Return once an operation is not late any more, whoever cancels meanwhile."""
        promise = self._late.get(id(operation))
        if promise is not None:
            await _landed(promise)

    async def _carry(
        self, operations: Sequence[Operation], done: Callable[[Sequence[Any]], None]
    ) -> None:
        done(await self._run(operations))

    async def _run(self, operations: Sequence[Operation]) -> list[Any]:
        try:
            return await Batch(self._tools, operations).run()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to hear of it
            return [error] * len(operations)

    # --- by master -----------------------------------------------------------------------------

    async def _carry_parted(
        self, operations: Sequence[Operation], done: Callable[[Sequence[Any]], None]
    ) -> None:
        parts: dict[Address | None, list[int]] = {}
        for number, operation in enumerate(operations):
            master = self._tools.client.topology.master_of(self._route_of(operation))
            parts.setdefault(master, []).append(number)
        loop = asyncio.get_running_loop()
        tasks = {
            master: loop.create_task(self._run([operations[number] for number in numbers]))
            for master, numbers in parts.items()
        }
        prompt = [task for master, task in tasks.items() if not self._behind[master]]
        if self._behind.total() >= BATCH_QUEUE:  # they have to wait, or there is no end to it
            await asyncio.wait(tasks.values())
        elif prompt:
            await asyncio.wait(prompt, timeout=PATIENCE)
        outcomes: list[Any] = [None] * len(operations)
        for master, numbers in parts.items():
            task = tasks[master]
            found = task.result() if task.done() else None
            for place, number in enumerate(numbers):
                if found is not None:
                    outcomes[number] = found[place]
                else:
                    outcomes[number] = self._promise(operations[number], master, task, place)
        done(outcomes)
        if not all(task.done() for task in tasks.values()):
            await asyncio.wait(tasks.values())

    def _route_of(self, operation: Operation) -> Route:
        """Return where an operation is written, as far as that is known without a look."""
        if isinstance(operation, Create | Fork):
            header = operation.header
            near = operation.source if isinstance(operation, Fork) else header.parent
            if near is None and header.user is not None:
                return routes.of_user(header.app, header.user)
            key = (header.app, near or header.id)
        elif operation.id is None:
            return routes.of_app(operation.app)
        else:
            key = (operation.app, operation.id)
        spot = self._tools.gatherer.finder.spots.get(key)
        return routes.of_id(*key) if spot is None else spot.route

    def _promise(
        self,
        operation: Operation,
        master: Address | None,
        task: asyncio.Task[list[Any]],
        place: int,
    ) -> Promise:
        promise: Promise = asyncio.get_running_loop().create_future()
        self._late[id(operation)] = promise
        self._behind[master] += 1
        task.add_done_callback(partial(self._keep, operation, master, promise, place))
        return promise

    def _keep(
        self,
        operation: Operation,
        master: Address | None,
        promise: Promise,
        place: int,
        task: asyncio.Task[list[Any]],
    ) -> None:
        """Keep a promise: its operation is not late any more."""
        if self._late.get(id(operation)) is promise:
            del self._late[id(operation)]
        self._behind[master] -= 1
        if not self._behind[master]:
            del self._behind[master]
        if task.cancelled():  # the loop is being closed
            promise.cancel()
            return
        outcome = task.result()[place]
        if isinstance(outcome, Exception):
            promise.set_exception(outcome)
            promise.exception()  # its caller may be gone: that is no error of the program
        else:
            promise.set_result(outcome)


async def _landed(promise: Promise) -> None:
    while not promise.done():
        try:
            await asyncio.wait([promise])
        except asyncio.CancelledError:  # the first one is raised by whoever waits for us
            continue

"""Where writes wait for their batch: one queue, or in a cluster one for each master.

A master that is slow or away holds up what is written to it, and nothing else. What comes for it
meanwhile waits and leaves together, so that it is not met by a crowd of small batches once it is
back.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from sojourn.batcher import Batcher
from sojourn.begun import Begun
from sojourn.errors import Unavailable
from sojourn.store import Create, Fork
from sojourn.stores.planning import weight
from sojourn.stores.redis import routes
from sojourn.stores.redis.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from sojourn.stores.planning import Operation
    from sojourn.stores.redis.batch import Tools
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Address

Queue: TypeAlias = "Batcher[Operation, Any]"


class Dispatch:
    """The queues of one store, and the batches on their way."""

    def __init__(self, tools: Tools) -> None:
        """Nothing waits yet."""
        self._tools = tools
        self._queues: dict[Address | None, Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, operation: Operation) -> Coroutine[Any, Any, Any]:
        """Have an operation wait for its outcome, or raise it, as `Batcher.submit` does."""
        return self._queue_of(operation).submit(operation)

    async def drain(self) -> None:
        """Return once nothing waits or is on its way."""
        for queue in self._queues.values():
            await queue.drain()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _queue_of(self, operation: Operation) -> Queue:
        client = self._tools.client
        master = client.topology.master_of(self._route_of(operation)) if client.cluster else None
        return self._queues.get(master) or self._queue_for(master)

    def _queue_for(self, master: Address | None) -> Queue:
        """Return a new queue, and forget those of masters that are none any more."""
        masters = self._tools.client.topology.masters
        for each in [each for each, queue in self._queues.items() if queue.is_idle]:
            if each not in masters:
                del self._queues[each]
        options = self._tools.client.options
        queue: Queue = Batcher(
            self._send, name=options.name, weigh=weight, patience=options.timeout / 4
        )
        self._queues[master] = queue
        return queue

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

    # --- batches -------------------------------------------------------------------------------

    def _send(self, operations: Sequence[Operation], done: Callable[[Sequence[Any]], None]) -> None:
        """Start a batch on its way: in nearly all cases it is sent before this returns."""
        carried = self._carry(operations, done)
        try:
            first = carried.send(None)
        except StopIteration:
            return
        task = asyncio.get_running_loop().create_task(_rest(carried, first))
        self._tasks.add(task)
        task.add_done_callback(partial(self._carried, carried))

    def _carried(self, carried: Coroutine[Any, Any, None], task: asyncio.Task[None]) -> None:
        """Forget a batch. A task that is cancelled before it begins has not gone on with it."""
        self._tasks.discard(task)
        carried.close()

    async def _carry(
        self, operations: Sequence[Operation], done: Callable[[Sequence[Any]], None]
    ) -> None:
        outcomes: Sequence[Any]
        try:
            outcomes = await Batch(self._tools, operations).run()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to hear of it
            outcomes = [error] * len(operations)
        except BaseException:  # the loop is being stopped: else those who wait would hold it up
            reason = "it was stopped; whether it was written is not known"
            stopped = Unavailable(self._tools.client.name, reason)
            done([stopped] * len(operations))
            raise
        done(outcomes)


async def _rest(carried: Coroutine[Any, Any, None], first: object) -> None:
    await Begun(carried, first)

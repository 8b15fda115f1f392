"""The raw floor for who must not hold up an event loop: the same work, in a thread that is awaited.

A sync of a disk takes as long as it takes, so an async program leaves it to a thread. The way there
and back is two wake-ups, by the cheapest means there are: a queue of the interpreter, and a counter
of the kernel that the loop listens to. What is read is read in the loop, as Sojourn does.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from benchmarks.peers import floor
from benchmarks.peers.timing import awaited_in_turn
from sojourn.doorbell import Doorbell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.sample import Sample


class _Thread:
    """Does one thing after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._doorbell = Doorbell(self._loop)
        self._given: SimpleQueue[tuple[Callable[[], object], asyncio.Future[None]] | None]
        self._given = SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def do(self, work: Callable[[], object]) -> None:
        """Return once the work is done. It is statements alone, and expected not to fail."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._given.put((work, done))
        await done

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            work, done = given
            work()
            self._doorbell.ring(partial(done.set_result, None))

    def close(self) -> None:
        """Stop."""
        self._given.put(None)
        self._thread.join()
        self._doorbell.close()


@contextmanager
def _thread() -> Iterator[_Thread]:
    thread = _Thread()
    try:
        yield thread
    finally:
        thread.close()


async def append(path: str, *, count: int, warm: int) -> Sample:
    """Append to one session, a transaction each."""
    db = floor.opened(path)
    floor.make(db, 1)
    with _thread() as thread:

        async def step(number: int) -> None:
            await thread.do(lambda: floor.append_to(db, range(1), number))

        measured = await awaited_in_turn(step, count=count, warm=warm)
    assert db.execute("SELECT count(*) FROM events").get == count + warm
    return measured


async def chat(path: str, *, window: int, count: int, warm: int) -> Sample:
    """Insert two messages in a transaction, then read and decode the last ones."""
    db = floor.opened(path)
    reader = floor.reopened(path)
    with _thread() as thread:

        async def step(number: int) -> None:
            await thread.do(lambda: floor.add_turn(db, 0, number))
            floor.load_chat(reader, 0, number, window)

        return await awaited_in_turn(step, count=count, warm=warm)


async def checkpoints(path: str, *, count: int, warm: int) -> Sample:
    """Insert a blob with its parent and metadata, then read and decode the latest."""
    db = floor.opened(path)
    reader = floor.reopened(path)
    wanted = floor.wanted_checkpoints(warm + count)
    with _thread() as thread:

        async def step(number: int) -> None:
            await thread.do(lambda: floor.save_checkpoint(db, number, wanted[number]))
            floor.load_checkpoint(reader, wanted[number])

        return await awaited_in_turn(step, count=count, warm=warm)

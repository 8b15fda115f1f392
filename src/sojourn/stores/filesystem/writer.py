"""The one thread that writes: it takes the gate, decides a batch, and writes each app's part."""

from __future__ import annotations

import contextlib
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sojourn.errors import SojournError, Unavailable
from sojourn.exiting import off_loop
from sojourn.mounts import LOST
from sojourn.operations import app_of, durability_of
from sojourn.stores.filesystem.deciding import ALONE, Deciding
from sojourn.stores.filesystem.disk import mapped

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from sojourn.gate import Gate
    from sojourn.mounts import Whereabouts
    from sojourn.operations import Operation, Outcome
    from sojourn.store import Durability
    from sojourn.stores.filesystem.shard import Shard

GATE_SECONDS = 30.0
"""Longest wait for the turn of this process. A holder that dies lets go at once, so a wait this
long means that another process is stopped in the middle of a write."""

HAND_OVER_SECONDS = 0.0005
"""How long a process that was inside stands back when another waits: about what it takes to wake
that one. It costs a tenth of a batch, and only while processes compete."""

T = TypeVar("T")


class _Job:
    """Something to do inside the gate: either the writer takes it, or it is given up."""

    __slots__ = ("_ticket", "failed", "run", "timer")

    def __init__(
        self, run: Callable[[], Callable[[], None]], failed: Callable[[SojournError], None]
    ) -> None:
        """`run` works and returns how to tell; `failed` tells that its turn did not come."""
        self.run = run
        self.failed = failed
        self.timer: asyncio.TimerHandle | None = None
        self._ticket = [True]

    def claim(self) -> bool:
        """Return `True` to the first caller only."""
        try:
            return self._ticket.pop()
        except IndexError:
            return False


class Writer:
    """Does what has to be done inside the gate, in a thread of its own."""

    def __init__(
        self,
        gate: Gate,
        name: str,
        *,
        loop: asyncio.AbstractEventLoop,
        durability: Durability,
        shard: Callable[[str], Shard],
        moved: Callable[[Shard], None],
        where: Whereabouts,
    ) -> None:
        """`shard` finds the shard of an app; `moved` hears in the loop of one that was written.

        `where` tells whether the gate is still the one that others take.
        """
        self._gate = gate
        self._name = name
        self._loop = loop
        self._durability: Durability = durability
        self._shard = shard
        self._moved = moved
        self._where = where
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._untold: Callable[[], None] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sojourn {name}", daemon=True)
        self._thread.start()

    def write(
        self, operations: Sequence[Operation], done: Callable[[Sequence[Outcome]], None]
    ) -> None:
        """Start a batch; `done` is called in the loop with the outcomes."""

        def work() -> Callable[[], None]:
            outcomes, shards = self._work(operations)

            def tell() -> None:
                done(outcomes)
                for shard in shards:
                    self._moved(shard)

            return tell

        self._start(work, lambda error: done([error] * len(operations)))

    async def call(self, work: Callable[[], T]) -> T:
        """Do something inside the gate and return what it returns, whoever cancels meanwhile."""
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # there is one if no error

        def run() -> Callable[[], None]:
            try:
                return partial(settle, work(), None)
            except OSError as error:
                return partial(settle, None, mapped(error, self._name))
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
                return partial(settle, None, error)

        self._start(run, lambda error: settle(None, error))
        return await future

    def _start(
        self, run: Callable[[], Callable[[], None]], failed: Callable[[SojournError], None]
    ) -> None:
        job = _Job(run, failed)
        job.timer = self._loop.call_later(GATE_SECONDS, self._give_up, job)
        self._jobs.put(job)

    def _give_up(self, job: _Job) -> None:
        """Fail a job that did not get its turn. It has not begun, so nothing was written."""
        if job.claim():
            reason = f"another process has kept the folder for {GATE_SECONDS:.0f} s"
            job.failed(Unavailable(self._name, f"{reason}; nothing was written"))

    async def stop(self) -> None:
        """Let the thread finish, unless its turn does not come."""
        self._stopping.set()
        self._jobs.put(None)
        await off_loop(None, self._thread.join, GATE_SECONDS)

    # --- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            tell: Callable[[], None] | None = None
            try:
                self._take_turn()
                if job.claim():
                    tell = self._failing(job) if self._where.is_lost() else job.run()
            except OSError as error:  # of the gate: the kernel has no lock to give
                reason = Unavailable(self._name, f"its gate can not be locked: {error.strerror}")
                reason.__cause__ = error
                tell = partial(job.failed, reason) if job.claim() else None
            finally:
                self._gate.release()
            self._tell()
            if tell is not None:
                self._untold = partial(self._report, job, tell)
            del job, tell  # waiting must not keep the last batch alive
        self._tell()

    def _failing(self, job: _Job) -> Callable[[], None]:
        """Return how to tell of a job that is not begun: the gate keeps nobody out any more."""
        return partial(job.failed, Unavailable(self._name, f"its gate is gone: {LOST}"))

    def _next_job(self) -> _Job | None:
        """Return what is to be done next; nobody waits to be told while this thread waits."""
        with contextlib.suppress(queue.Empty):
            return self._jobs.get_nowait()
        self._tell()
        return self._jobs.get()

    def _take_turn(self) -> None:
        """Take the gate; nobody waits to be told while this thread waits for it."""
        if self._gate.acquire_at_once():
            return
        if self._untold is not None:  # this process was inside a moment ago
            self._tell()
            self._stopping.wait(HAND_OVER_SECONDS)
        self._gate.acquire()

    def _tell(self) -> None:
        """Tell the callers of the last job what came of it.

        If another one waits, this is put off until that one is decided: then its frames are on
        their way to the disk, without the GIL held, while the callers of this one go on.
        """
        tell, self._untold = self._untold, None
        if tell is not None:
            tell()

    def _report(self, job: _Job, tell: Callable[[], None]) -> None:
        def arrive() -> None:
            if job.timer is not None:
                job.timer.cancel()
            tell()

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for this
            self._loop.call_soon_threadsafe(arrive)

    # --- batches -------------------------------------------------------------------------------

    def _work(self, operations: Sequence[Operation]) -> tuple[list[Outcome], list[Shard]]:
        """Decide and write operations, each app's together, in their order."""
        by_app: dict[str, list[int]] = {}
        for index, operation in enumerate(operations):
            by_app.setdefault(app_of(operation), []).append(index)
        outcomes: list[Outcome] = [None] * len(operations)
        shards = []
        for app, indexes in by_app.items():
            shard = self._shard(app)
            shards.append(shard)
            with shard.turn:
                found = self._work_on(shard, [operations[index] for index in indexes])
            for index, outcome in zip(indexes, found, strict=True):
                outcomes[index] = outcome
        return outcomes, shards

    def _work_on(self, shard: Shard, operations: list[Operation]) -> list[Outcome]:
        try:
            shard.check()
            shard.settle()
        except OSError as error:
            return [mapped(error, shard.folder)] * len(operations)
        except SojournError as error:
            return [error] * len(operations)
        outcomes: list[Outcome] = []
        for segment in _segments(operations):
            outcomes += self._decide(shard, segment)
        return outcomes

    def _decide(self, shard: Shard, operations: list[Operation]) -> list[Outcome]:
        """Decide operations and write what came of them, together or not at all.

        Where one of them breaks the others, each is decided and written alone.
        """
        durable = any(durability_of(op, self._durability) == "durable" for op in operations)
        deciding = Deciding(shard.vault, "durable" if durable else "relaxed")
        outcomes: list[Outcome] = []
        try:
            shard.check()
            for operation in operations:
                try:
                    outcomes.append(deciding.apply(operation))
                except SojournError as error:
                    if deciding.is_unclear:
                        raise
                    outcomes.append(error)
            self._tell()
            if deciding.noted:
                shard.write(deciding.noted, durable=durable)
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers are told
            alone = len(operations) == 1 or shard.poison is not None
            if alone:
                return [self._cause(error)] * len(operations)
            return [outcome for one in operations for outcome in self._decide(shard, [one])]
        return outcomes

    def _cause(self, error: Exception) -> Exception:
        if isinstance(error, SojournError):
            return error
        if isinstance(error, OSError):
            return mapped(error, self._name)
        unforeseen = Unavailable(self._name, f"{type(error).__name__}: {error}")
        unforeseen.__cause__ = error
        return unforeseen


def _segments(operations: list[Operation]) -> Iterator[list[Operation]]:
    """Yield runs of operations that can be decided together."""
    run: list[Operation] = []
    for operation in operations:
        if isinstance(operation, ALONE):
            if run:
                yield run
            yield [operation]
            run = []
        else:
            run.append(operation)
    if run:
        yield run

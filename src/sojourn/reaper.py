"""The reaper: a bounded sweep that takes expired sessions down the path of an explicit end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

from sojourn.arguments import at_least_one, is_wait
from sojourn.errors import InvalidQuery
from sojourn.lifecycle import ENDING, OVER

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sojourn.manager import SessionManager
    from sojourn.model import Header

log = logging.getLogger("sojourn")

BATCH = 256
"""Sessions in one step: writers wait no longer than it takes to remove so many, some hundredths of
a second, and a durable step costs one sync."""

MAX_BATCH = 100_000
"""Most sessions in one step: what a process can well hold, and any store can count to."""

CONCURRENCY = 10
"""Sessions whose hooks run at the same time."""

INTERVAL_SECONDS = 60.0
"""Time between two sweeps."""


class Reaper:
    """Ends expired sessions, retries failed ends, removes records whose retention is over.

    Call `sweep()` yourself, or `async with Reaper(sessions, interval=60)` to have it done.
    """

    def __init__(
        self,
        sessions: SessionManager,
        *,
        batch: int = BATCH,
        concurrency: int = CONCURRENCY,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        """Sweep `batch` sessions in a step, the hooks of up to `concurrency` of them at a time.

        `interval` is the time between two sweeps, in seconds. Raises `InvalidQuery` for one of
        these that is not positive, for a number of sessions that is not whole, and for a batch
        of more than 100,000.
        """
        if not is_wait(interval) or not interval > 0:
            raise InvalidQuery("interval", f"give seconds above 0, not {interval!r}")
        self._sessions = sessions
        self._batch = at_least_one("batch", batch, MAX_BATCH)
        self._concurrency = at_least_one("concurrency", concurrency)
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def sweep(self, *, progress: Callable[[int], object] | None = None) -> int:
        """Sweep once, batch by batch, until nothing more is due; return how many were ended.

        A session that fails is logged, stays ending, and does not stop the others. `progress` is
        called after each batch with how many it ended.
        """
        tell = progress or _nobody
        ending = self._sessions.ending
        if not ending.has_hooks and not self._sessions.scopes.live():
            total = 0
            while removed := len(await ending.reap(self._batch)):
                total += removed
                tell(removed)
                if self._stopping.is_set():
                    break
            return total
        return await self._sweep_one_by_one(tell)

    async def _sweep_one_by_one(self, tell: Callable[[int], object]) -> int:
        """End due sessions with their hooks, so many at a time; none is tried twice in a sweep."""
        left: set[str] = set()
        ended = 0
        while True:
            # What failed or has a live scope stays due, so look past it.
            found = await self._sessions.ending.due(self._batch + len(left))
            fresh = [header for header in found if header.epoch not in left][: self._batch]
            if not fresh:
                return ended
            over = await self._end_all(fresh)
            left.update(header.epoch for header in fresh if header.epoch not in over)
            ended += len(over)
            tell(len(over))
            if self._stopping.is_set():
                return ended

    def _may_end(self, header: Header) -> bool:
        """Return whether a due session may be ended: a live scope keeps it, to its absolute end."""
        if header.phase in ENDING or header.phase in OVER:
            return True
        if header.id not in self._sessions.scopes.live():
            return True
        return header.absolute_at is not None and self._sessions.now() >= header.absolute_at

    async def _end_all(self, headers: list[Header]) -> set[str]:
        """End those that may be; return the epochs of those that are over."""
        gate = asyncio.Semaphore(self._concurrency)
        over: set[str] = set()

        async def end(header: Header) -> None:
            async with gate:
                try:
                    if await self._sessions.ending.finish_due(header):
                        over.add(header.epoch)
                except Exception:
                    log.exception(
                        "session %r could not be ended; it will be tried again", header.id
                    )

        await asyncio.gather(*(end(header) for header in headers if self._may_end(header)))
        return over

    async def __aenter__(self) -> Self:
        """Start sweeping every `interval` seconds."""
        if self._task is None:
            self._stopping.clear()
            self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, once the batch under way is done."""
        await self.stop()

    async def stop(self) -> None:
        """Stop, once the batch under way is done. Twice is fine; no task is left."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        try:
            await task
        finally:
            self._stopping.clear()  # a sweep that is asked for later is a whole one

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.sweep()
            except Exception:
                log.exception("a sweep failed; the next one is in %s s", self._interval)
            try:
                async with asyncio.timeout(self._interval):
                    await self._stopping.wait()
            except TimeoutError:
                continue


def _nobody(_ended: int) -> None:
    """Nobody watches the sweep."""

"""How a run is timed: one operation after the other, or many callers at once."""

from __future__ import annotations

import asyncio
import gc
import resource
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.sample import Sample


class Refused(Exception):
    """An operation that a peer refused under load: it is counted, and has not been applied."""


class Watch:
    """Times operations from when it was made, and makes a sample of them."""

    def __init__(self) -> None:
        """Start. What was prepared until now is no concern of the collector's any more."""
        gc.collect()
        gc.freeze()
        self.times: list[float] = []
        self.refused = 0
        self._cpu, self._start = process_time(), perf_counter()

    def sample(self) -> Sample:
        """Stop, and return what was measured."""
        seconds, cpu = perf_counter() - self._start, process_time() - self._cpu
        gc.unfreeze()
        times = sorted(self.times)
        return {
            "operations": len(times),
            "refused": self.refused,
            "seconds": seconds,
            "cpu": cpu,
            "p50": median(times),
            "p99": times[ceil(0.99 * len(times)) - 1],
            "rss": _peak(),
        }


def in_turn(step: Callable[[int], object], *, count: int, warm: int) -> Sample:
    """Call `step` with 0, 1, 2, ...: `warm` times untimed, then `count` times timed."""
    for number in range(warm):
        step(number)
    watch = Watch()
    for number in range(warm, warm + count):
        start = perf_counter()
        step(number)
        watch.times.append(perf_counter() - start)
    return watch.sample()


async def awaited_in_turn(
    step: Callable[[int], Awaitable[object]], *, count: int, warm: int
) -> Sample:
    """Like `in_turn`, for what is awaited."""
    for number in range(warm):
        await step(number)
    watch = Watch()
    for number in range(warm, warm + count):
        start = perf_counter()
        await step(number)
        watch.times.append(perf_counter() - start)
    return watch.sample()


async def at_once(
    step: Callable[[int, int], Awaitable[object]], *, callers: int, each: int, warm: int
) -> Sample:
    """Call `step(caller, number)` from so many callers at once, each with 0, 1, 2, ... in turn.

    Each makes `warm` calls untimed and `each` timed. `Refused` calls are counted apart.
    """

    async def caller(which: int, numbers: range, watch: Watch | None) -> None:
        for number in numbers:
            start = perf_counter()
            try:
                await step(which, number)
            except Refused:
                if watch:
                    watch.refused += 1
                continue
            if watch:
                watch.times.append(perf_counter() - start)

    await asyncio.gather(*(caller(which, range(warm), None) for which in range(callers)))
    watch = Watch()
    numbers = range(warm, warm + each)
    await asyncio.gather(*(caller(which, numbers, watch) for which in range(callers)))
    return watch.sample()


def _peak() -> float:
    """Return the largest resident set of this process in bytes.

    Linux's own count, as `getrusage` would begin with that of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

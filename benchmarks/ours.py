"""What is measured: the core through its public face."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, time_ns
from typing import TYPE_CHECKING, Any

from benchmarks.files import APP, START, TEXT, session_id
from benchmarks.sample import Sample, sample
from sojourn import Event, Reaper, SessionManager
from sojourn.limits import MAX_SEQ
from sojourn.testing import FakeClock
from sojourn.timestamps import to_datetime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn import Session


WINDOW = 20
"""Events, or sessions, in one read."""


class Running:
    """A clock that runs from the time that files were made at, so that nothing in them is old."""

    def __init__(self) -> None:
        """Start now."""
        self._behind = time_ns() // 1000 - START

    def now(self) -> int:
        """Return the instant in microseconds since the epoch."""
        return time_ns() // 1000 - self._behind


def manager(path: str, **more: Any) -> SessionManager:
    """Return a manager of a file."""
    return SessionManager.open(f"sqlite:///{path}", app=APP, **more)


def _change(tiers: str, turn: int) -> dict[str, Any]:
    if tiers == "session+user":
        return {"turn": turn, "user:last": turn}
    return {"user:last": turn, "app:last": turn}


async def _append(sessions: SessionManager, held: Session, tiers: str, times: int) -> None:
    for _ in range(times):
        event = Event(kind="message", author="user", body={"role": "user", "text": TEXT})
        await sessions.append(held, event, state=_change(tiers, held.revision))


async def append_one(path: str, *, count: int, warm: int, tiers: str) -> Sample:
    """One caller appends to one session, one call after the other."""
    async with manager(path, clock=Running()) as sessions:
        held = await sessions.require(session_id(1))
        await _append(sessions, held, tiers, warm)
        cpu, start = process_time(), perf_counter()
        await _append(sessions, held, tiers, count)
        return sample(start, cpu, count)


async def append_many(path: str, *, callers: int, count: int, warm: int, tiers: str) -> Sample:
    """Many callers append, each to a session of its own."""
    async with manager(path, clock=Running()) as sessions:
        held = [await sessions.require(session_id(n)) for n in range(1, callers + 1)]

        async def all_of(times: int) -> None:
            await asyncio.gather(
                *(_append(sessions, session, tiers, times // callers) for session in held)
            )

        await all_of(warm)
        cpu, start = process_time(), perf_counter()
        await all_of(count)
        return sample(start, cpu, count)


async def last_events(path: str, *, number: int, count: int, warm: int) -> Sample:
    """Read the last 20 events of a session, by a window of which nothing is kept for next time."""
    async with manager(path, clock=FakeClock(to_datetime(START))) as sessions:
        id = session_id(number)

        async def read() -> None:
            events = await sessions.events(id, last=WINDOW, before_seq=MAX_SEQ)
            assert len(events) == WINDOW

        return await _each(read, count, warm)


async def first_page(path: str, *, users: int, count: int, warm: int) -> Sample:
    """List the first page of one user or another."""
    pick = random.Random(7)  # noqa: S311 - repeatable on purpose
    async with manager(path, clock=FakeClock(to_datetime(START))) as sessions:

        async def read() -> None:
            page = await sessions.list(user=f"user-{pick.randrange(users)}", limit=WINDOW)
            assert len(page.items) == WINDOW

        return await _each(read, count, warm)


async def sweep(path: str, *, now: int) -> Sample:
    """Sweep a file whose sessions have all expired, without hooks."""
    async with manager(path, clock=FakeClock(to_datetime(now))) as sessions:
        cpu, start = process_time(), perf_counter()
        swept = await Reaper(sessions).sweep()
        return sample(start, cpu, swept)


async def memory(*, sessions: int) -> Sample:
    """Keep small sessions in memory: a user of its own and two keys each."""
    async with SessionManager.open("memory://", app=APP) as kept:
        for number in range(1_000):
            await kept.create(user=f"warm-{number}", state={"theme": "dark", "cart": [1, 2, 3]})
        gc.collect()
        before = _resident()
        for number in range(sessions):
            await kept.create(user=f"user-{number}", state={"theme": "dark", "cart": [1, 2, 3]})
        gc.collect()
        grown = _resident() - before
        assert await kept.count() == sessions + 1_000
    return {"bytes": grown / sessions, "operations": sessions}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _each(read: Callable[[], Awaitable[None]], count: int, warm: int) -> Sample:
    for _ in range(warm):
        await read()
    times: list[float] = []
    for _ in range(count):
        start = perf_counter()
        await read()
        times.append(perf_counter() - start)
    return {"p50": median(times), "seconds": sum(times), "operations": count}

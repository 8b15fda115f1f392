"""google-adk-community's Redis session service. Its events are made before the clock starts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from google.adk_community.sessions.redis_session_service import (
    RedisKeys,
    RedisSessionService,
    _session_serializer,
)

from benchmarks.peers import adk, material
from benchmarks.peers.timing import at_once, awaited_in_turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.sample import Sample


@asynccontextmanager
async def _service(path: str) -> AsyncIterator[Any]:
    service = RedisSessionService(uri=path)
    try:
        yield service
    finally:
        await service.cache.aclose()


async def callers(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append from many callers at once, each to a session of its own."""
    async with _service(path) as service:
        held = await adk.made_sessions(service, callers)
        events = [[adk.an_event(number) for number in range(warm + each)] for _ in held]

        async def step(caller: int, number: int) -> None:
            await service.append_event(held[caller], events[caller][number])

        measured = await at_once(step, callers=callers, each=each, warm=warm)
        for session in held:
            await adk.check_session(service, session, warm + each, warm + each - 1)
        return measured


async def log(path: str, *, events: int, sessions: int, each: int) -> Sample:
    """Append to logs of so many events, one session after the other."""
    async with _service(path) as service:
        held = await adk.made_sessions(service, sessions + 1)
        for session in held:
            await _fill(service, session, events)
        made = [adk.an_event(number) for number in range(each * (sessions + 1))]

        async def step(number: int) -> None:
            await service.append_event(held[number // each], made[number])

        measured = await awaited_in_turn(step, count=each * sessions, warm=each)
        await adk.check_session(service, held[-1], events + each, each * (sessions + 1) - 1)
        return measured


async def tail(path: str, *, events: int, window: int, count: int, warm: int) -> Sample:
    """Load a session with the last events of its log."""
    async with _service(path) as service:
        (session,) = await adk.made_sessions(service, 1)
        await _fill(service, session, events)

        async def step(_number: int) -> None:
            found = await adk.read_session(service, session, window)
            assert len(found.events) == window
            assert found.events[-1].content.parts[0].text == material.text(events - 1)

        few = max(3, count // 100)  # each reads the whole log
        return await awaited_in_turn(step, count=few, warm=min(warm, 1))


async def _fill(service: Any, session: Any, events: int) -> None:
    """Write the session as so many appends would have left it."""
    session.events.extend(map(adk.an_event, range(events)))
    await service.cache.set(RedisKeys.session(session.id), _session_serializer(session))

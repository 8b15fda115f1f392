"""google-adk's session services. Their event objects are made before the clock starts."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService, InMemorySessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

from benchmarks.peers import material
from benchmarks.peers.material import APP
from benchmarks.peers.timing import Refused, at_once, awaited_in_turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.sample import Sample

REFUSALS = ("database is locked", "QueuePool limit")
"""What a service says when it gave up waiting, for the file or for a connection to it."""

logging.disable(logging.WARNING)  # a session service says where it is experimental


def an_event(number: int) -> Event:
    """Return an event with its change of state."""
    part = types.Part(text=material.text(number))
    return Event(
        author="user",
        invocation_id=f"turn-{number}",
        content=types.Content(role="user", parts=[part]),
        actions=EventActions(state_delta=material.change(number)),
    )


@asynccontextmanager
async def _service(kind: str, path: str, journal: str) -> AsyncIterator[Any]:
    """Yield a service on an empty file, or on a server by its URL.

    The journal mode of a file is set; that stays with it.
    """
    if journal:
        with closing(sqlite3.connect(path)) as db:
            assert db.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
            assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL, as by default
    if kind == "sqlite":
        service: Any = SqliteSessionService(db_path=path)
    elif "://" in path:
        url = path.replace("postgresql://", "postgresql+asyncpg://")
        service = DatabaseSessionService(db_url=url)
    else:
        service = DatabaseSessionService(db_url=f"sqlite+aiosqlite:///{path}")
    try:
        yield service
    finally:
        await service.close()


async def made_sessions(service: Any, count: int) -> list[Any]:
    """Make sessions, each of a user of its own."""
    return [
        await service.create_session(
            app_name=APP,
            user_id=f"user-{number}",
            state=dict(material.STATE),
            session_id=f"s{number}",
        )
        for number in range(count)
    ]


async def read_session(service: Any, session: Any, last: int | None = None) -> Any:
    """Return a session anew, with its last events or with all."""
    return await service.get_session(
        app_name=APP,
        user_id=session.user_id,
        session_id=session.id,
        config=GetSessionConfig(num_recent_events=last),
    )


async def check_session(service: Any, session: Any, events: int, last: int | None) -> None:
    """See that the log is as long as it has to be, and the last event and its state are there."""
    found = await read_session(service, session)
    assert len(found.events) == events
    if last is not None:
        assert found.events[-1].content.parts[0].text == material.text(last)
        assert found.state["turn"] == found.state["user:last"] == last


async def append(path: str, *, kind: str, journal: str, count: int, warm: int) -> Sample:
    """Append to one session."""
    async with _service(kind, path, journal) as service:
        (session,) = await made_sessions(service, 1)
        events = [an_event(number) for number in range(warm + count)]

        async def step(number: int) -> None:
            await service.append_event(session, events[number])

        measured = await awaited_in_turn(step, count=count, warm=warm)
        await check_session(service, session, warm + count, warm + count - 1)
        return measured


async def callers(
    path: str, *, kind: str, journal: str, callers: int, each: int, warm: int
) -> Sample:
    """Append from many callers at once, each to a session of its own."""
    async with _service(kind, path, journal) as service:
        held = await made_sessions(service, callers)
        events = [[an_event(number) for number in range(warm + each)] for _ in held]
        stored = [0] * callers

        async def step(caller: int, number: int) -> None:
            try:
                await service.append_event(held[caller], events[caller][number])
            except Exception as error:
                if any(reason in str(error) for reason in REFUSALS):
                    raise Refused from error
                raise
            stored[caller] += 1

        measured = await at_once(step, callers=callers, each=each, warm=warm)
        for session, count in zip(held, stored, strict=True):
            last = warm + each - 1 if count == warm + each else None
            await check_session(service, session, count, last)
        return measured


async def tail(
    path: str, *, kind: str, journal: str, events: int, window: int, count: int, warm: int
) -> Sample:
    """Load a session with the last events of its log."""
    async with _service(kind, path, journal) as service:
        (session,) = await made_sessions(service, 1)
        await _fill(service, kind, path, session, events)

        async def step(_number: int) -> None:
            found = await read_session(service, session, window)
            assert len(found.events) == window
            assert found.events[-1].content.parts[0].text == material.text(events - 1)

        return await awaited_in_turn(step, count=count, warm=warm)


async def _fill(service: Any, kind: str, path: str, session: Any, events: int) -> None:
    """Write the rows that so many appends would have written, in one transaction."""
    made = map(an_event, range(events))
    if kind == "database":
        schema = service._get_schema_classes()  # noqa: SLF001 - appends would take minutes
        async with service.database_session_factory() as sql:
            sql.add_all([schema.StorageEvent.from_event(session, event) for event in made])
            await sql.commit()
        return
    rows = (
        (
            event.id,
            APP,
            session.user_id,
            session.id,
            event.invocation_id,
            event.timestamp,
            event.model_dump_json(exclude_none=True),
        )
        for event in made
    )
    with closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        db.commit()


async def memory(*, events: int, sessions: int, each: int) -> Sample:
    """Append to logs of so many events in memory, one session after the other."""
    service = InMemorySessionService()
    held = await made_sessions(service, sessions + 1)
    for session in held:
        # Appending them would take the square of their number: each append searches all others.
        kept = service.sessions[APP][session.user_id][session.id]
        kept.events.extend(map(an_event, range(events)))
    held = [await read_session(service, session) for session in held]
    made = [an_event(number) for number in range(each * (sessions + 1))]

    async def step(number: int) -> None:
        await service.append_event(held[number // each], made[number])

    measured = await awaited_in_turn(step, count=each * sessions, warm=each)
    await check_session(service, held[-1], events + each, each * (sessions + 1) - 1)
    return measured

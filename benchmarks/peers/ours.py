"""Sojourn's side of each comparison, through its public face, with its default settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.peers import material
from benchmarks.peers.material import APP
from benchmarks.peers.timing import at_once, awaited_in_turn
from sojourn import Event, EventQuery, SessionManager
from sojourn.limits import MAX_SEQ

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.sample import Sample
    from sojourn import Session

    Turn = Callable[[int], Awaitable[None]]
    Read = Callable[[SessionManager, str, int], Awaitable[Sequence[Event]]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

FILLED_AT_ONCE = 100
"""Events in one commit where a log is only being filled."""


def _manager(path: str) -> SessionManager:
    """Return a manager of a file, of a server by its URL, or of memory for an empty path."""
    url = path if "://" in path else f"sqlite:///{path}" if path else "memory://"
    return SessionManager.open(url, app=APP)


def _event(number: int) -> Event:
    body = {"role": "user", "text": material.text(number)}
    return Event(kind="message", author="user", body=body)


def _given(number: int) -> tuple[Event, dict[str, Any]]:
    """Return an event and the change that comes with it, made before the clock starts."""
    return _event(number), material.change(number)


async def _made(sessions: SessionManager, count: int) -> list[Session]:
    return [
        await sessions.create(user=f"user-{number}", state=dict(material.STATE))
        for number in range(count)
    ]


async def _fill(sessions: SessionManager, session: Session, events: int) -> None:
    for first in range(0, events, FILLED_AT_ONCE):
        numbers = range(first, min(first + FILLED_AT_ONCE, events))
        await sessions.append(session, *map(_event, numbers))


async def _check(sessions: SessionManager, session: Session, events: int, last: int) -> None:
    """See that the log is as long as it has to be, and the last event and its state are there."""
    (newest,) = await sessions.events(session.id, last=1)
    found = await sessions.require(session.id)
    assert newest.seq == events
    assert newest.body == {"role": "user", "text": material.text(last)}
    assert found.state["turn"] == found.state["user:last"] == last


async def append(path: str, *, count: int, warm: int) -> Sample:
    """Append to one session."""
    async with _manager(path) as sessions:
        (session,) = await _made(sessions, 1)
        given = [_given(number) for number in range(warm + count)]

        async def step(number: int) -> None:
            event, state = given[number]
            await sessions.append(session, event, state=state)

        measured = await awaited_in_turn(step, count=count, warm=warm)
        await _check(sessions, session, warm + count, warm + count - 1)
        return measured


async def callers(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append from many callers at once, each to a session of its own."""
    async with _manager(path) as sessions:
        held = await _made(sessions, callers)
        given = [[_given(number) for number in range(warm + each)] for _ in held]

        async def step(caller: int, number: int) -> None:
            event, state = given[caller][number]
            await sessions.append(held[caller], event, state=state)

        measured = await at_once(step, callers=callers, each=each, warm=warm)
        for session in held:
            await _check(sessions, session, warm + each, warm + each - 1)
        return measured


async def tail(path: str, *, events: int, window: int, count: int, warm: int) -> Sample:
    """Load a session with the last events of its log."""
    return await _tail(_whole, path, events, window, (count, warm))


async def tail_anew(path: str, *, events: int, window: int, count: int, warm: int) -> Sample:
    """Do so by a window that says where it ends, of which nothing is kept for the next time."""
    return await _tail(_anew, path, events, window, (count, warm))


async def tail_events(path: str, *, events: int, window: int, count: int, warm: int) -> Sample:
    """Read the last events of a log, without the session."""
    return await _tail(_events, path, events, window, (count, warm))


async def _whole(sessions: SessionManager, id: str, window: int) -> Sequence[Event]:
    return (await sessions.require(id, events=window)).events


async def _anew(sessions: SessionManager, id: str, window: int) -> Sequence[Event]:
    query = EventQuery(last=window, before_seq=MAX_SEQ)
    return (await sessions.require(id, events=query)).events


async def _events(sessions: SessionManager, id: str, window: int) -> Sequence[Event]:
    return await sessions.events(id, last=window)


async def _tail(read: Read, path: str, events: int, window: int, often: tuple[int, int]) -> Sample:
    count, warm = often
    async with _manager(path) as sessions:
        (session,) = await _made(sessions, 1)
        await _fill(sessions, session, events)

        async def step(_number: int) -> None:
            found = await read(sessions, session.id, window)
            assert len(found) == window
            assert found[-1].seq == events

        return await awaited_in_turn(step, count=count, warm=warm)


async def memory(*, events: int, sessions: int, each: int) -> Sample:
    """Append to logs of so many events in memory, one session after the other."""
    return await log("", events=events, sessions=sessions, each=each)


async def log(path: str, *, events: int, sessions: int, each: int) -> Sample:
    """Append to logs of so many events, one session after the other."""
    async with _manager(path) as manager:
        held = await _made(manager, sessions + 1)
        for session in held:
            await _fill(manager, session, events)
        given = [_given(number) for number in range(each * (sessions + 1))]

        async def step(number: int) -> None:
            event, state = given[number]
            await manager.append(held[number // each], event, state=state)

        measured = await awaited_in_turn(step, count=each * sessions, warm=each)
        await _check(manager, held[-1], events + each, each * (sessions + 1) - 1)
        return measured


async def chat(path: str, *, window: int, count: int, warm: int) -> Sample:
    """Add a question and its answer to one chat, and load its last messages."""
    async with _manager(path) as sessions:
        (session,) = await _made(sessions, 1)
        turn = _in_history(sessions, session, window)
        return await awaited_in_turn(turn, count=count, warm=warm)


async def chat_events(path: str, *, window: int, count: int, warm: int) -> Sample:
    """Do so without `history`: append two events, read the last ones."""
    async with _manager(path) as sessions:
        (session,) = await _made(sessions, 1)
        turn = _in_events(sessions, session, window)
        return await awaited_in_turn(turn, count=count, warm=warm)


async def chats(path: str, *, callers: int, window: int, each: int, warm: int) -> Sample:
    """Add to many chats at once, and load the last messages of each."""
    async with _manager(path) as sessions:
        held = await _made(sessions, callers)
        turns = [_in_history(sessions, session, window) for session in held]
        return await _in_chats(turns, each, warm)


async def chats_events(path: str, *, callers: int, window: int, each: int, warm: int) -> Sample:
    """Do so without `history`."""
    async with _manager(path) as sessions:
        held = await _made(sessions, callers)
        turns = [_in_events(sessions, session, window) for session in held]
        return await _in_chats(turns, each, warm)


async def _in_chats(turns: list[Turn], each: int, warm: int) -> Sample:
    return await at_once(
        lambda caller, number: turns[caller](number), callers=len(turns), each=each, warm=warm
    )


def _in_history(sessions: SessionManager, session: Session, window: int) -> Turn:
    history = sessions.history(session.id)

    async def turn(number: int) -> None:
        messages = material.turn(number)
        await history.append(*messages)
        found = await history.load(last=window)
        assert found[-2:] == messages
        assert len(found) == min(window, 2 * number + 2)

    return turn


def _in_events(sessions: SessionManager, session: Session, window: int) -> Turn:
    async def turn(number: int) -> None:
        messages = material.turn(number)
        events = [Event(kind="message", author=each["role"], body=each) for each in messages]
        await sessions.append(session.id, *events)
        found = await sessions.events(session.id, last=window)
        assert [event.body for event in found[-2:]] == messages
        assert len(found) == min(window, 2 * number + 2)

    return turn


async def checkpoints(path: str, *, count: int, warm: int) -> Sample:
    """Save a checkpoint that comes from the one before it, and load the latest."""
    async with _manager(path) as sessions:
        (session,) = await _made(sessions, 1)
        kept = sessions.checkpoints(session.id)
        wanted = [material.checkpoint(number) for number in range(warm + count)]
        last: list[str | None] = [None]

        async def step(number: int) -> None:
            saved = await kept.save(
                _encode(wanted[number]), parent=last[0], metadata=material.METADATA
            )
            last[0] = saved.id
            found = await kept.latest()
            assert found is not None
            assert found.body is not None
            assert _decode(found.body) == wanted[number]

        measured = await awaited_in_turn(step, count=count, warm=warm)
        assert last[0] is not None
        assert len(await kept.lineage(last[0])) == warm + count
        return measured

"""What lists and counts have a Redis server send, counted in its bytes and in commands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import Expiry, SessionManager
from sojourn.stores.redis import finding
from sojourn.stores.redis.wire import Packed, Wire
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractAsyncContextManager

    from tests.servers.redis import Server

    from sojourn import Session

pytestmark = pytest.mark.xdist_group("redis")

MANY = 60
"""Sessions that there are to look through."""

STATE = 50_000
"""Bytes of the state of each."""

PAGE = 5


def opened(server: Server, clock: FakeClock | None = None) -> AbstractAsyncContextManager[Any]:
    """Return a manager of sessions on a server that holds nothing yet."""
    server.ask("FLUSHALL")
    return SessionManager.open(server.url, clock=clock or FakeClock())


async def fill(sessions: SessionManager, **settings: Any) -> None:
    """Create many sessions with large states."""
    state = {"large": "x" * STATE}
    await asyncio.gather(*(sessions.create(state=state, **settings) for _ in range(MANY)))


async def sent_for(server: Server, call: Awaitable[Any]) -> tuple[Any, int]:
    """Return what a call returns, and how many bytes the server has sent until then."""
    before = server.info("stats")["total_net_output_bytes"]
    found = await call
    return found, server.info("stats")["total_net_output_bytes"] - before


def ids(page: Any) -> list[str]:
    return [session.id for session in page.items]


@pytest.mark.parametrize("order", ["-active", "active", "-created", "created"])
async def test_a_page_of_children_costs_the_page(redis_server: Server, order: Any) -> None:
    async with opened(redis_server) as sessions:
        await sessions.create(id="parent")
        await fill(sessions, parent="parent")
        page, sent = await sent_for(
            redis_server, sessions.list(parent="parent", limit=PAGE, order=order)
        )
        assert len(page.items) == PAGE
        assert sent < 2 * PAGE * STATE


async def test_a_page_that_has_to_be_looked_for_costs_two_pages(redis_server: Server) -> None:
    """The first sessions that come up are read whole, in the hope that they are the page."""
    async with opened(redis_server) as sessions:
        wanted = [
            await sessions.create(user="ada", labels={"a": "b", "c": "d"}) for _ in range(PAGE)
        ]
        await fill(sessions, user="ada", labels={"a": "b"})
        labels = {"a": "b", "c": "d"}
        page, sent = await sent_for(
            redis_server, sessions.list(user="ada", labels=labels, limit=PAGE, order="-created")
        )
        assert ids(page) == [session.id for session in reversed(wanted)]
        assert sent < 2 * PAGE * STATE


async def test_a_page_behind_what_has_expired_reads_no_state_of_it(redis_server: Server) -> None:
    clock = FakeClock()
    async with opened(redis_server, clock) as sessions:
        await fill(sessions, expiry=Expiry(idle=60))
        clock.advance(61)
        page, sent = await sent_for(redis_server, sessions.list(limit=PAGE))
        assert ids(page) == []
        assert sent < 2 * PAGE * STATE


async def test_counts_read_no_state(redis_server: Server) -> None:
    async with opened(redis_server) as sessions:
        labels = {"a": "b"}
        await sessions.create(id="parent", user="ada")
        await fill(sessions, parent="parent", user="ada", labels=labels)
        for call in (
            sessions.count(parent="parent"),
            sessions.count(user="ada", labels=labels),
            sessions.count(labels=labels),
        ):
            count, sent = await sent_for(redis_server, call)
            assert count == MANY
            assert sent < STATE


async def test_a_count_reads_no_state_of_what_has_expired(redis_server: Server) -> None:
    clock = FakeClock()
    async with opened(redis_server, clock) as sessions:
        await fill(sessions, expiry=Expiry(idle=60))
        await sessions.create()
        clock.advance(61)
        await sessions.create()
        count, sent = await sent_for(redis_server, sessions.count())
        assert count == 2
        assert sent < STATE


async def test_however_many_there_are_some_are_read_at_a_time(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one attempt asks for has to come within the time that one attempt has."""
    clock = FakeClock()
    async with opened(redis_server, clock) as sessions:
        await sessions.create(id="parent")
        await asyncio.gather(
            *(sessions.create(parent="parent", expiry=Expiry(idle=60)) for _ in range(MANY))
        )
        asked: list[int] = []
        send = Wire.send

        def noted(wire: Wire, commands: Any, seconds: float) -> Any:
            asked.append(commands.replies if isinstance(commands, Packed) else len(commands))
            return send(wire, commands, seconds)

        monkeypatch.setattr(Wire, "send", noted)
        monkeypatch.setattr(finding, "OUTLINED", 7)
        assert await sessions.count(parent="parent") == MANY
        assert len((await sessions.list(parent="parent", limit=PAGE)).items) == PAGE
        clock.advance(61)
        assert await sessions.count() == 1
        assert len(asked) >= 3 * MANY / 7
        assert max(asked) == 7


async def test_what_is_looked_for_is_found_whole_and_in_order(redis_server: Server) -> None:
    """However many lie between, and wherever pages are cut."""
    async with opened(redis_server) as sessions:
        made: list[Session] = []
        for number in range(MANY):
            labels = {"a": "b", "n": "wanted" if number % 7 == 0 else "other"}
            made.append(await sessions.create(user="ada", labels=labels, state={"number": number}))
        wanted = made[::7]
        found: list[Session] = []
        cursor = None
        while True:
            page = await sessions.list(
                user="ada",
                labels={"a": "b", "n": "wanted"},
                limit=2,
                order="created",
                cursor=cursor,
            )
            found += page.items
            cursor = page.cursor
            if cursor is None:
                break
        assert [item.id for item in found] == [item.id for item in wanted]
        assert [item.state["number"] for item in found] == list(range(0, MANY, 7))

"""Sockets under the identity middleware: stored as they go, and over when their session is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.browser import Browser, Client

from sojourn import Expiry, SessionManager, current_session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.identity import IdentityMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn.testing.faults import Call, Fault
    from sojourn.web.asgi import App, Receive, Scope, Send

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

SOON = 0.001


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Keep each text in the session, and say how many there are."""
    session: Any = scope["identity"]
    assert id(current_session()) == id(session)
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            session.state.setdefault("said", []).append(message["text"])
            await send({"type": "websocket.send", "text": str(len(session.state["said"]))})
        else:
            session.state["closed"] = message["code"]
            return


async def ticker(scope: Scope, receive: Receive, send: Send) -> None:
    """Send, and never listen."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": "tick"})
        await asyncio.sleep(0)


def who(scope: Scope) -> str:
    """Everybody is Ada."""
    return "ada"


def socket(sessions: SessionManager, app: App, **options: Any) -> Client:
    """Return a client of a socket in Ada's session."""
    options.setdefault("expiry", Expiry(idle=60))
    options.setdefault("socket_check", SOON)
    return Client(Browser(IdentityMiddleware(app, sessions=sessions, user=who, **options)))


async def only(sessions: SessionManager) -> str:
    """Return the id of the only session."""
    ((id,),) = [[each.id for each in (await sessions.list()).items]]
    return id


async def test_a_socket_stores_as_it_goes(opened: Opener) -> None:
    async with opened() as sessions:
        client = socket(sessions, echo)
        await client.next()
        client.say("a")
        assert (await client.next())["text"] == "1"
        id = await only(sessions)
        assert (await sessions.require(id)).state["said"] == ["a"]
        await client.close()
        assert (await sessions.require(id)).state["closed"] == 1000


@pytest.mark.parametrize("way", ["ended", "deleted", "ended and begun anew"])
async def test_a_socket_is_closed_when_its_session_is_over(opened: Opener, way: str) -> None:
    """Also where what the application writes last comes too late."""
    async with opened() as sessions:
        client = socket(sessions, echo)
        assert (await client.next())["type"] == "websocket.accept"
        id = await only(sessions)
        if way == "deleted":
            await sessions.delete(id)
        else:
            await sessions.end(id, reason="revoked")
        if way.endswith("anew"):
            await sessions.create(id=id, user="ada")
        closed = await client.next()
        assert (closed["type"], closed["code"]) == ("websocket.close", 4401)
        await client.done()
        left = await sessions.get(id)
        assert left is None or "closed" not in left.state


async def test_a_socket_that_only_sends_is_closed_as_well() -> None:
    async with SessionManager.open("memory://") as sessions:
        client = socket(sessions, ticker)
        for _ in range(3):
            await client.next()
        await sessions.end(await only(sessions), reason="revoked")
        message = await client.next()
        while message["type"] == "websocket.send":
            message = await client.next()
        assert (message["type"], message["code"]) == ("websocket.close", 4401)
        await client.done()


async def test_a_socket_past_the_deadline_of_its_session_is_closed() -> None:
    clock = FakeClock()
    async with SessionManager.open("memory://", clock=clock) as sessions:
        client = socket(sessions, echo, expiry=Expiry(absolute=60))
        await client.next()
        clock.advance(61)
        assert (await client.next())["code"] == 4401
        await client.done()


async def test_trouble_with_the_store_closes_no_socket() -> None:
    store = FaultyStore(MemoryStore())
    await store.open()
    client = socket(SessionManager(store), echo)
    await client.next()
    asked = asyncio.Event()

    def noted(call: Call) -> list[Fault]:
        if call.verb == "get":
            asked.set()
        return []

    store.follow(noted)
    store.fail("get", times=3)
    await asked.wait()
    client.say("a")
    assert (await client.next())["text"] == "1"
    store.heal()
    await client.close()
    await store.close()


@pytest.mark.parametrize("strangers", ["none", "refuse"])
async def test_nobody_in_particular_has_a_socket_in_the_session_of_an_owned_key(
    strangers: Any,
) -> None:
    users: list[str | None] = ["ada", None]
    async with SessionManager.open("memory://") as sessions:
        around = IdentityMiddleware(
            echo,
            sessions=sessions,
            user=lambda _scope: users.pop(0),
            key=lambda _scope: "42",
            strangers=strangers,
        )
        owner = Client(Browser(around))
        assert (await owner.next())["type"] == "websocket.accept"
        stranger = Client(Browser(around))
        refused = await stranger.next()
        assert (refused["type"], refused["code"]) == ("websocket.close", 4403)
        await stranger.done()
        await owner.close()


async def test_what_a_socket_leaves_that_can_not_be_stored_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        client = socket(SessionManager(store), echo, socket_check=60.0)
        await client.next()
        store.fail("commit", times=None)
        await client.close()
        assert [record.levelname for record in caplog.records] == ["ERROR"]

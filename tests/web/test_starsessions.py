"""The starsessions store under starsessions' own middleware."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware

from sojourn import Corrupt, SessionManager
from sojourn.testing import FakeClock
from sojourn.web.starsessions import MAX_SEEN, SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request
    from starlette.responses import Response

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


async def put(request: Request) -> Response:
    request.session[request.path_params["key"]] = True
    return JSONResponse(dict(request.session))


async def show(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def clear(request: Request) -> Response:
    request.session.clear()
    return JSONResponse({})


@pytest.fixture
def in_memory() -> Opener:
    """How to open a manager in memory: what stores do is tested with them."""

    def open_manager(**collaborators: Any) -> SessionManager:
        return SessionManager.open("memory://", **collaborators)

    return open_manager


def browser(store: SessionStore, *more: Route, lifetime: int = 3600) -> httpx2.AsyncClient:
    """Return a browser of an application with starsessions on this store."""
    routes = [Route("/put/{key}", put), Route("/", show), Route("/clear", clear), *more]
    app: Any = SessionAutoloadMiddleware(Starlette(routes=routes))
    app = SessionMiddleware(app, store=store, lifetime=lifetime, rolling=True)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://testserver")


async def test_it_keeps_sessions_for_its_middleware(opened: Opener) -> None:
    async with opened() as sessions, browser(SessionStore(sessions)) as client:
        assert (await client.get("/put/a")).json() == {"a": True}
        assert (await client.get("/put/b")).json() == {"a": True, "b": True}
        assert await sessions.count() == 1
        (session,) = (await sessions.list()).items
        assert client.cookies["session"] not in session.id
        await client.get("/clear")
        assert await sessions.count() == 0
        assert (await client.get("/")).json() == {}


async def test_an_id_that_a_browser_made_up_is_not_adopted(in_memory: Opener) -> None:
    async with in_memory() as sessions, browser(SessionStore(sessions)) as client:
        client.cookies.set("session", "chosen", domain="testserver.local")
        await client.get("/put/a")
        ids = {cookie.value for cookie in client.cookies.jar}
        assert "chosen" not in ids
        assert (await client.get("/")).json() == {"a": True}


async def test_a_late_write_brings_nothing_back(opened: Opener) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        request.session["late"] = True
        return JSONResponse({})

    late_route = Route("/slow", slow)
    async with opened() as sessions, browser(SessionStore(sessions), late_route) as client:
        await client.get("/put/user")
        late = asyncio.create_task(client.get("/slow"))
        await begun.wait()
        await client.get("/clear")
        go_on.set()
        await late
        assert await sessions.count() == 0
        assert (await client.get("/")).json() == {}


async def test_deadlines_are_those_of_starsessions() -> None:
    clock = FakeClock()
    async with SessionManager.open("memory://", clock=clock) as sessions:
        store = SessionStore(sessions, browser_lifetime=100)
        assert await store.write("a", b"1", 60, 30) == "a"
        assert await store.write("b", b"\xff", 0, 0) == "b"
        clock.advance(30)
        assert await store.read("a", 60) == b""
        assert await store.read("b", 0) == b"\xff"
        clock.advance(70)
        assert await store.read("b", 0) == b""


async def test_two_writes_of_a_new_id_at_once_are_both_fine(in_memory: Opener) -> None:
    async with in_memory() as sessions:
        store = SessionStore(sessions)
        written = (store.write("a", str(number).encode(), 60, 60) for number in range(5))
        assert set(await asyncio.gather(*written)) == {"a"}
        assert await store.read("a", 60) in {b"0", b"1", b"2", b"3", b"4"}


async def test_what_is_remembered_is_bounded_and_foreign_data_is_told() -> None:
    async with SessionManager.open("memory://") as sessions:
        store = SessionStore(sessions)
        for number in range(MAX_SEEN + 10):
            store._note(str(number), found=False)
        assert len(store._seen) == MAX_SEEN
        await store.write("a", b"1", 60, 60)
        (session,) = (await sessions.list()).items
        session.state["data"] = 1
        await sessions.save(session)
        with pytest.raises(Corrupt):
            await store.read("a", 60)

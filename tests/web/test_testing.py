"""The help for tests: logging test clients in, looking into their sessions, changing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from litestar import Litestar, Request, get
from litestar.testing import TestClient as LitestarClient
from starlette.testclient import TestClient

from sojourn import InvalidQuery, InvalidSetting, SessionManager
from sojourn.testing import FakeClock
from sojourn.testing.web import log_client_in, log_in, middleware_of, session_in, session_of
from sojourn.web import Cookie, Header, SessionMiddleware, WebSession
from sojourn.web.litestar import SessionPlugin
from sojourn.web.starlette import get_session, require_recent_auth, require_user

if TYPE_CHECKING:
    from collections.abc import Callable

Held = Annotated[WebSession, Depends(get_session)]

HTTPS = "https://testserver.local"


def shop() -> FastAPI:
    """Return an application without sessions yet."""
    app = FastAPI()

    @app.get("/me")
    async def me(user: Annotated[str, Depends(require_user)]) -> str:
        return user

    @app.get("/money")
    async def money(user: Annotated[str, Depends(require_recent_auth(300))]) -> str:
        return user

    @app.get("/all")
    async def everything(session: Held) -> dict[str, Any]:
        return dict(session)

    @app.post("/login/{user}")
    async def login(user: str, session: Held) -> None:
        await session.login(user)

    @app.post("/logout")
    async def logout(session: Held) -> None:
        await session.logout()

    return app


@get("/me")
async def litestar_me(request: Request[Any, Any, Any]) -> str:
    return str(request.session.user)  # type: ignore[attr-defined]  # Litestar calls it a dict


@get("/all")
async def litestar_all(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return dict(request.session)


def of_starlette() -> TestClient:
    """Return the client of Starlette and FastAPI."""
    app = shop()
    app.add_middleware(SessionMiddleware, sessions="memory://")
    return TestClient(app, base_url=HTTPS)


def of_litestar() -> LitestarClient[Litestar]:
    """Return the client of Litestar."""
    app = Litestar(
        logging_config=None,
        route_handlers=[litestar_me, litestar_all],
        plugins=[SessionPlugin("memory://")],
    )
    return LitestarClient(app, base_url=HTTPS)


@pytest.mark.parametrize("made", [of_starlette, of_litestar])
def test_a_test_client_is_logged_in_and_its_session_edited(made: Callable[[], Any]) -> None:
    with made() as client:
        with session_in(client) as session:
            session["cart"] = ["tea"]
        log_client_in(client, "u-1", auth="pwd")
        assert client.get("/me").text.strip('"') == "u-1"
        with session_in(client) as session:
            assert (dict(session), session.user) == ({"cart": ["tea"]}, "u-1")
            del session["cart"]
        assert client.get("/all").json() == {}
        assert len(client.cookies.jar) == 1
        with session_in(client) as session:
            session.clear()
        assert len(client.cookies.jar) == 0


async def test_an_async_client_is_logged_in_and_its_clock_moved() -> None:
    clock = FakeClock()
    async with SessionManager.open("memory://", clock=clock) as sessions:
        app = SessionMiddleware(shop(), sessions=sessions)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url=HTTPS) as client:
            await log_in(client, "u-1")
            assert (await client.get("/money")).status_code == 200
            clock.advance(301)
            assert (await client.get("/money")).status_code == 403
            async with session_of(client) as session:
                session["a"] = 1
            await client.post("/login/u-1")  # its new token takes the place of ours
            assert len(client.cookies.jar) == 1
            assert (await client.get("/all")).json() == {"a": 1}
            await client.post("/logout")
            assert (await client.get("/me")).status_code == 401


async def test_a_client_with_a_header_is_logged_in() -> None:
    async with SessionManager.open("memory://") as sessions:
        app = SessionMiddleware(shop(), sessions=sessions, header=Header())
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
            await log_in(client, "u-1")
            assert (await client.get("/me")).json() == "u-1"
            async with session_of(client) as session:
                await session.logout()
            assert "authorization" not in client.headers
            assert (await client.get("/me")).status_code == 401


async def test_what_can_not_work_says_why() -> None:
    async with SessionManager.open("memory://") as sessions:
        app = SessionMiddleware(shop(), sessions=sessions, name="other")
        assert middleware_of(app, "other") is app
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
            with pytest.raises(InvalidSetting, match="https://testserver"):
                await log_in(client, "u-1", name="other")
            with pytest.raises(InvalidQuery, match="no SessionMiddleware"):
                await log_in(client, "u-1")
            with pytest.raises(InvalidQuery, match="its `with`"):
                log_client_in(client, "u-1", name="other")
        with pytest.raises(InvalidQuery, match="test client"):
            await log_in(object(), "u-1")
        plain = Cookie(name="sid", secure=False)
        app = SessionMiddleware(shop(), sessions=sessions, cookie=plain)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await log_in(client, "u-1")
            assert (await client.get("/me")).json() == "u-1"

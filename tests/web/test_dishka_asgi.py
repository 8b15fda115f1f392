"""The scopes of a dishka container around requests and sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx2
import pytest
from dishka import AsyncContainer, Provider, from_context, make_async_container, provide
from dishka import Scope as Span
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.testclient import TestClient

from sojourn import InvalidSetting, Scope, Session, SessionManager
from sojourn.dishka import SojournProvider
from sojourn.web import SessionMiddleware, WebSession
from sojourn.web.dishka import ContainerMiddleware, WebProvider

HTTPS = "https://testserver"

closed: list[str] = []


class Cart:
    """A service that works in the session of the web."""

    def __init__(self, web: WebSession) -> None:
        self.web = web

    def add(self, item: str) -> None:
        self.web["cart"] = [*self.web.get("cart", []), item]


class Services(Provider):
    """Provides the service, to each request anew; notes when it is let go of."""

    @provide(scope=Span.REQUEST)
    async def cart(self, web: WebSession) -> AsyncIterator[Cart]:
        yield Cart(web)
        closed.append("cart")


def container_of(request: Request) -> AsyncContainer:
    """Return the container of a request."""
    found: AsyncContainer = request.state.dishka_container
    return found


Inside = Annotated[AsyncContainer, Depends(container_of)]


def shop() -> FastAPI:
    """Return an application whose endpoints ask a container."""
    app = FastAPI()

    @app.post("/cart/{item}")
    async def add(item: str, container: Inside) -> bool:
        cart = await container.get(Cart)
        cart.add(item)
        return cart is await container.get(Cart)

    @app.get("/cart")
    async def show(container: Inside) -> dict[str, Any]:
        web = await container.get(WebSession)
        session = await container.get(Session)
        assert session is web.session
        return dict(web)

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        container: AsyncContainer = socket.state.dishka_container
        for _ in range(2):
            key = await socket.receive_text()
            async with container() as request:
                scope = await request.get(Scope)
                scope.session.state[key] = True
            await socket.send_text(scope.id)
        await socket.receive_text()

    return app


async def test_a_request_has_a_scope_of_its_own_inside_the_session() -> None:
    closed.clear()
    async with SessionManager.open("memory://") as sessions:
        container = make_async_container(SojournProvider(sessions), WebProvider(), Services())
        inner = ContainerMiddleware(shop(), container=container)
        transport = httpx2.ASGITransport(SessionMiddleware(inner, sessions=sessions))
        async with httpx2.AsyncClient(transport=transport, base_url=HTTPS) as client:
            for item in ("tea", "salt"):
                assert (await client.post(f"/cart/{item}")).json() is True
            assert (await client.get("/cart")).json() == {"cart": ["tea", "salt"]}
        assert closed == ["cart", "cart"]
        await container.close()


def test_a_socket_has_a_scope_for_each_message(tmp_path: Any) -> None:
    sessions = SessionManager.open(f"sqlite:///{tmp_path / 's.db'}")
    container = make_async_container(SojournProvider(sessions), WebProvider(), Services())
    inner = ContainerMiddleware(shop(), container=container)
    app = SessionMiddleware(inner, sessions=sessions)
    with TestClient(app, base_url=HTTPS) as client:
        assert client.portal is not None
        client.portal.call(sessions.__aenter__)  # in the loop of the application
        client.post("/cart/tea")
        with client.websocket_connect("wss://testserver/talk") as socket:
            ids = set()
            for key in ("a", "b"):
                socket.send_text(key)
                ids.add(socket.receive_text())
            socket.send_text("bye")
        assert len(ids) == 2
        assert client.get("/cart").json() == {"cart": ["tea"], "a": True, "b": True}
        client.portal.call(container.close)
        client.portal.call(sessions.close)


async def test_more_context_may_be_given_and_no_container_is_told() -> None:
    class Tenant(str):
        """Who the request is for."""

        __slots__ = ()

    class FromScope(Provider):
        tenant = from_context(provides=Tenant, scope=Span.SESSION)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await scope["state"]["dishka_container"].get(Tenant))

    seen: list[str] = []
    container = make_async_container(FromScope())
    middleware = ContainerMiddleware(
        app, container=container, context=lambda scope: {Tenant: Tenant(scope["path"])}
    )
    nothing: Any = None
    await middleware({"type": "http", "path": "/acme"}, nothing, nothing)
    assert seen == ["/acme"]
    with pytest.raises(InvalidSetting, match="make_async_container"):
        ContainerMiddleware(app, container="container")  # type: ignore[arg-type]  # without types
    await container.close()

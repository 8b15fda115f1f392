"""dishka in ASGI: a SESSION scope around each connection, and a REQUEST scope around each request.

`pip install "sojourn[dishka]"`. On the container's own interface, so it goes with any framework;
dishka's `FromDishka` and `@inject` for Starlette and FastAPI find the container where it is put.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.errors import InvalidSetting, MissingExtra
from sojourn.web.websession import WebSession

try:
    import dishka
    from dishka import AsyncContainer, Provider, from_context
except ImportError as error:
    raise MissingExtra("sojourn.web.dishka", "dishka") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sojourn.web.asgi import App, Receive, Scope, Send

CONTAINER = "dishka_container"
"""Where the container is in `scope["state"]`: where dishka's own integrations put it."""


class WebProvider(Provider):
    """Provides the `WebSession` of a connection, scope SESSION. Beside `SojournProvider`."""

    web_session = from_context(provides=WebSession, scope=dishka.Scope.SESSION)


class ContainerMiddleware:
    """Opens the scopes of a container around each connection.

    A request has a REQUEST container in `scope["state"]["dishka_container"]`, inside a SESSION
    scope of its own. A socket has the SESSION container, for as long as it lives: enter a REQUEST
    scope for each message (`async with container() as request`). Put it inside of
    `SessionMiddleware`: the ambient session is then what `Session` is, and both scopes are left
    before the last save. dishka's SESSION is a lifetime in this process, not a stored session.
    """

    def __init__(
        self,
        app: App,
        *,
        container: AsyncContainer,
        context: Callable[[Scope], Mapping[Any, Any]] | None = None,
        name: str = "session",
    ) -> None:
        """`context(scope)` adds to what the SESSION scope is given: the `WebSession`, if any.

        `name` is the session's place in the scope. The container is closed by whoever made it.
        Raises `InvalidSetting` for something that is no asynchronous container.
        """
        given: object = container
        if not isinstance(given, AsyncContainer):
            reason = "give what make_async_container returns"
            raise InvalidSetting("container", "ContainerMiddleware", reason)
        self.app = app
        """The application inside."""
        self._container = container
        self._context = context
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. What is neither HTTP nor WebSocket passes through."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        given = self._given(scope)
        async with self._container(given, scope=dishka.Scope.SESSION) as session:
            if scope["type"] == "websocket":
                state[CONTAINER] = session
                await self.app(scope, receive, send)
                return
            async with session() as request:
                state[CONTAINER] = request
                await self.app(scope, receive, send)

    def _given(self, scope: Scope) -> dict[Any, Any]:
        """Return the context of the SESSION scope."""
        given: dict[Any, Any] = {}
        web = scope.get(self._name)
        if isinstance(web, WebSession):
            given[WebSession] = web
        if self._context is not None:
            given.update(self._context(scope))
        return given

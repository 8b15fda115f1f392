"""Litestar: sessions as a plugin, and guards. Its `Store` is in `litestar_store`.

`pip install "sojourn[litestar]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from sojourn.errors import (
    AuthNeeded,
    InvalidSetting,
    MissingExtra,
    TooManySessions,
    Unavailable,
)
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.csrf import (
    CSRF_FIELD,
    CSRF_HEADER,
    CSRF_REFUSAL,
    SAFE_METHODS,
    may_hold_field,
)
from sojourn.web.policies import REFUSAL, RETRY_AFTER
from sojourn.web.sockets import close_code
from sojourn.web.websession import WebSession

try:
    from litestar import Response
    from litestar.datastructures import MutableScopeHeaders
    from litestar.enums import MediaType, ScopeType
    from litestar.exceptions import HTTPException, WebSocketException
    from litestar.middleware import DefineMiddleware
    from litestar.middleware.session.base import BaseBackendConfig, BaseSessionBackend
    from litestar.middleware.session.base import SessionMiddleware as LitestarMiddleware
    from litestar.plugins import InitPlugin
    from litestar.types import Empty
    from litestar.utils.scope.state import ScopeState
except ImportError as error:
    raise MissingExtra("sojourn.web.litestar", "litestar") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from litestar import Request
    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import Message as LitestarMessage
    from litestar.types import Scope as LitestarScope
    from litestar.types import Scopes

    from sojourn.manager import SessionManager
    from sojourn.web.asgi import App, Message, Receive, Scope, Send

    Connection = ASGIConnection[Any, Any, Any, Any]
    Guard = Callable[[Connection, BaseRouteHandler], Awaitable[None]]

# --- sessions -----------------------------------------------------------------------------------


class SessionBackend(BaseSessionBackend["SessionConfig"]):
    """What Litestar's test clients and `SessionAuth` ask: one session, outside of a request."""

    def get_session_id(self, connection: Connection) -> str | None:
        """Return the id of the session, `None` while there is none. It is no secret."""
        session = _found(connection)
        return None if session is None else session.id

    async def load_from_connection(self, connection: Connection) -> dict[str, Any]:
        """Return a copy of what the session holds."""
        return dict(await self._session(connection))

    async def store_in_message(
        self, scope_session: Any, message: LitestarMessage, connection: Connection
    ) -> None:
        """Make the session hold this and nothing else, and have the response say so."""
        session = await self._session(connection)
        replace(session, scope_session)
        sessions = self.config.sessions
        reply = await sessions.admission.settle(session)
        headers = MutableScopeHeaders.from_message(message)
        for name, value in sessions.transport.told(reply):
            headers.add(name.decode(), value.decode())

    async def _session(self, connection: Connection) -> WebSession:
        pairs = "; ".join(f"{name}={value}" for name, value in connection.cookies.items())
        headers = [*connection.scope["headers"], (b"cookie", pairs.encode("latin-1"))]
        sessions = self.config.sessions
        return await sessions.admission.admit(sessions.transport.presented(headers))


class SessionConfig(BaseBackendConfig[SessionBackend]):
    """Sessions by `sojourn.web.SessionMiddleware`, as Litestar configures sessions.

    Usually made by `SessionPlugin`. By itself it goes where Litestar takes a session config:
    `middleware=[config.middleware]`, `SessionAuth(session_backend_config=config)`,
    `TestClient(app, session_config=config)`; then open it with `lifespan=[config.lifespan]`.
    """

    _backend_class = SessionBackend

    def __init__(
        self,
        sessions: SessionManager | str,
        *,
        exclude: str | list[str] | None = None,
        exclude_opt_key: str = "skip_session",
        scopes: Scopes | None = None,
        **options: Any,
    ) -> None:
        """`sessions` and `options` are what `SessionMiddleware` takes.

        Paths that match `exclude`, and handlers with `exclude_opt_key` in their `opt`, have none.
        Raises `InvalidSetting` for a `name`: Litestar knows one session.
        """
        if "name" in options:
            reason = "Litestar has one session; put a SessionMiddleware around it for another"
            raise InvalidSetting("name", "SessionConfig", reason)
        self.sessions = SessionMiddleware(_nothing, sessions=sessions, **options)
        cookie = options.get("cookie")
        self.key = "__Host-sid" if cookie is None else cookie.name
        self.exclude = exclude
        self.exclude_opt_key = exclude_opt_key
        self.scopes = scopes or {ScopeType.HTTP, ScopeType.WEBSOCKET}

    @property
    def middleware(self) -> DefineMiddleware:
        """The middleware, for Litestar's list of them."""
        return DefineMiddleware(SessionLayer, backend=SessionBackend(self))

    def lifespan(self, _app: object = None) -> Any:
        """Open the store of a URL, sweep it, and close it at the end."""
        return self.sessions.opened()


class SessionLayer(LitestarMiddleware[SessionBackend]):
    """Sojourn's middleware in a Litestar stack: around each route, with everything shared."""

    def __init__(self, app: Any, backend: SessionBackend) -> None:
        """Made by `SessionConfig.middleware`."""
        super().__init__(app, backend)
        self._sessions = backend.config.sessions.around(_Replacing(app))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        await self._sessions(scope, receive, send)


class _Replacing:
    """Takes over what `set_session` and `clear_session` put in the session's place."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session: WebSession = scope["session"]
        state = ScopeState.from_scope(cast("LitestarScope", scope))
        state.session_id = _id_of(session)

        def take_over() -> None:
            if state.session_id is Empty:  # by `clear_session`, whatever was set since then
                replace(session, Empty)
                state.session_id = _id_of(session)
            if scope["session"] is not session:
                replace(session, scope["session"])

        async def send_taken(message: Message) -> None:
            take_over()
            await send(message)

        async def receive_taken() -> Message:
            take_over()
            return await receive()

        try:
            await self._app(scope, receive_taken, send_taken)
        finally:
            take_over()


def _id_of(session: WebSession) -> str | None:
    """Return a session's id; that is no look at it."""
    return None if session.held is None else session.held.id


def replace(session: WebSession, value: Any) -> None:
    """Make a session hold what `value` does, a mapping or a model; `Empty` ends it.

    Keys that stay as they are count as unchanged: only what differs is stored.
    """
    if value is session:
        return
    if value is Empty or value is None:
        if session.held is not None:
            session.clear()
        return
    wanted: dict[str, Any] = msgspec.to_builtins(
        value, enc_hook=_plain, builtin_types=(), str_keys=True
    )
    for key in [key for key in session if key not in wanted]:
        del session[key]
    for key, item in wanted.items():
        if key not in session or session[key] != item:
            session[key] = item


def _plain(value: Any) -> Any:
    """Return a model of another kind as a mapping: of pydantic, or a session with all its keys."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else dict(value)


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stand where an application will: each route has a layer of its own."""
    raise AssertionError("a SessionConfig serves nobody by itself")


class SessionPlugin(InitPlugin):
    """Sessions for a Litestar application: `Litestar(plugins=[SessionPlugin("sqlite:///s.db")])`.

    `request.session` is a `WebSession` then. A store that is given by its URL is opened and swept
    from the start of the application to its end. `AuthNeeded` becomes 401 or 403,
    `TooManySessions` 409, `Unavailable` 503, where the application has no handlers of its own.
    """

    def __init__(self, sessions: SessionManager | str, **options: Any) -> None:
        """`sessions` and `options` are what `SessionConfig` takes."""
        self.config = SessionConfig(sessions, **options)
        """The sessions, as Litestar configures them: for its test client."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, before all others, and what belongs to it."""
        app_config.middleware.insert(0, self.config.middleware)
        app_config.lifespan.append(self.config.lifespan)
        for kind, handler in _HANDLERS.items():
            app_config.exception_handlers.setdefault(kind, handler)
        return app_config


# --- guards -------------------------------------------------------------------------------------


def session_of(connection: Connection) -> WebSession:
    """Return the session of a connection. Raises `InvalidSetting` without the middleware.

    After `set_session`, what was set stands in the session's place until the response begins.
    """
    session = _found(connection)
    if session is None:
        reason = "there is none in the scope: Litestar(plugins=[SessionPlugin(…)])"
        raise InvalidSetting("SessionPlugin", "sojourn.web.litestar", reason)
    return session


def _found(connection: Connection) -> WebSession | None:
    session: object = connection.scope.get("session")
    return session if isinstance(session, WebSession) else None


async def requires_user(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Let nobody pass who is not logged in (401): `guards=[requires_user]`."""
    session = session_of(connection)
    if session.user is None:
        _refuse_unavailable(connection, session)
        raise _refusal(connection, 401, "log in first")


def requires_recent_auth(max_age: float, *, level: int = 0) -> Guard:
    """Return a guard that asks for a login no older than `max_age` seconds, at least of `level`.

    401 while nobody is logged in, 403 for a login that is too old or too weak.
    """

    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        await requires_user(connection, handler)
        try:
            session_of(connection).require_recent_auth(max_age, level=level)
        except AuthNeeded as needed:
            raise _refusal(connection, 403, str(needed)) from needed

    return guard


async def requires_csrf(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Refuse (403) a request that does not send `WebSession.csrf_token` back.

    It is looked for in the header `x-csrf-token`, then in the field `csrf_token` of a form.
    """
    if connection.scope["type"] != ScopeType.HTTP:
        return
    request = cast("Request[Any, Any, Any]", connection)
    if request.method in SAFE_METHODS:
        return
    given: object = request.headers.get(CSRF_HEADER)
    if given is None and may_hold_field(request.headers.get("content-type", "")):
        given = (await request.form()).get(CSRF_FIELD)
    session = session_of(connection)
    if not session.check_csrf(given):
        _refuse_unavailable(connection, session)
        raise _refusal(connection, 403, CSRF_REFUSAL)


def _refuse_unavailable(connection: Connection, session: WebSession) -> None:
    """Raise 503 for an empty session that stands for one nobody could read: that is no logout."""
    if not session.available:
        raise _refusal(connection, 503, REFUSAL.decode().strip())


def _refusal(connection: Connection, status: int, text: str) -> Exception:
    """Return what Litestar turns into an answer by itself."""
    if connection.scope["type"] == ScopeType.WEBSOCKET:
        return WebSocketException(detail=text, code=close_code(status))
    return HTTPException(detail=text, status_code=status)


def _on_auth_needed(request: Request[Any, Any, Any], error: AuthNeeded) -> Response[str]:
    session = _found(request)
    known = session is not None and session.user is not None
    return _answer(403 if known else 401, str(error))


def _on_too_many_sessions(_: Request[Any, Any, Any], error: TooManySessions) -> Response[str]:
    return _answer(409, str(error))


def _on_unavailable(_: Request[Any, Any, Any], _error: Unavailable) -> Response[str]:
    response = _answer(503, REFUSAL.decode())
    response.headers["retry-after"] = RETRY_AFTER.decode()
    return response


def _answer(status: int, text: str) -> Response[str]:
    headers = {"cache-control": "no-store"}
    return Response(text, status_code=status, media_type=MediaType.TEXT, headers=headers)


_HANDLERS: dict[int | type[Exception], Any] = {
    AuthNeeded: _on_auth_needed,
    TooManySessions: _on_too_many_sessions,
    Unavailable: _on_unavailable,
}

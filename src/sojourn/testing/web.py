"""Testing web applications: log a test client in, and look into its session or change it.

For the test clients of Starlette, FastAPI and Litestar, and for httpx with an ASGI transport: they
are known by what they have, so none of them is imported. A clock that stands still is given to the
manager: `SessionManager.open("memory://", clock=FakeClock())`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sojourn.errors import InvalidQuery, InvalidSetting
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.transports import CookieTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sojourn.web.transports import Header
    from sojourn.web.websession import WebSession

LAYERS = 100
"""Most layers of an application that are looked through: more would be a circle."""


def middleware_of(app: Any, name: str = "session") -> SessionMiddleware:
    """Return the session middleware of an application, wherever in its layers.

    Raises `InvalidQuery` when there is none that keeps the session `name`.
    """
    found = app
    for _layer in range(LAYERS):
        if found is None:
            break
        if isinstance(found, SessionMiddleware) and found.name == name:
            return found
        found = _inside(found)
    raise InvalidQuery("app", f"it has no SessionMiddleware for {name!r}")


def _inside(app: Any) -> Any:
    """Return what an application wraps."""
    for plugin in getattr(app, "plugins", None) or ():
        sessions = getattr(getattr(plugin, "config", None), "sessions", None)
        if isinstance(sessions, SessionMiddleware):
            return sessions
    if hasattr(app, "build_middleware_stack"):
        if app.middleware_stack is None:
            app.middleware_stack = app.build_middleware_stack()
        return app.middleware_stack
    return getattr(app, "app", None)


# --- in the loop at hand ------------------------------------------------------------------------


@asynccontextmanager
async def session_of(client: Any, name: str = "session") -> AsyncIterator[WebSession]:
    """Hold the session of an async client: look at it, change it, log in or out.

    What changed is stored at the end, and the client has the cookie that goes with it. The
    application has to run in the loop at hand, as with `httpx.ASGITransport`. Raises
    `InvalidSetting` where the client would not send a secure cookie, `InvalidQuery` for a client
    whose application can not be found.
    """
    middleware = middleware_of(_app_of(client), name)
    web = await _admit(middleware, client)
    yield web
    await _settle(middleware, client, web)


async def log_in(client: Any, user: str, *, name: str = "session", **how: Any) -> None:
    """Log an async client in; `how` is what `WebSession.login` takes. Raises as `session_of`."""
    async with session_of(client, name) as web:
        await web.login(user, **how)


# --- for clients whose application runs in a thread ---------------------------------------------


@contextmanager
def session_in(client: Any, name: str = "session") -> Iterator[WebSession]:
    """Hold the session of a test client, inside its `with`: look at it, or set keys.

    As `session_of`, for clients that are not async. Raises as that does, and `InvalidQuery` outside
    of the client's `with`.
    """
    middleware = middleware_of(_app_of(client), name)
    call = _caller(client)
    web: WebSession = call(partial(_admit, middleware, client))
    yield web
    call(partial(_settle, middleware, client, web))


def log_client_in(client: Any, user: str, *, name: str = "session", **how: Any) -> None:
    """Log a test client in, inside its `with`; `how` is what `WebSession.login` takes."""
    with session_in(client, name) as web:
        _caller(client)(partial(web.login, user, **how))


def _caller(client: Any) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Return what runs a coroutine function where the application of a test client runs."""
    for place in ("portal", "blocking_portal"):
        portal: Any = getattr(client, place, None)
        if hasattr(portal, "call"):
            found: Callable[[Callable[[], Awaitable[Any]]], Any] = portal.call
            return found
    raise InvalidQuery("client", "use it inside of its `with`: the application has to run")


# --- tokens -------------------------------------------------------------------------------------


def _app_of(client: Any) -> Any:
    """Return the application behind a client. Raises `InvalidQuery` where none can be found."""
    transport = getattr(client, "_transport", None)
    for place in (client, transport):
        app = getattr(place, "app", None)
        if app is not None:
            return app
    raise InvalidQuery("client", "it has no application: give a test client")


async def _admit(middleware: SessionMiddleware, client: Any) -> WebSession:
    """Return the session that the client's next request would have."""
    transport = middleware.transport
    headers = [(name.lower().encode(), value.encode()) for name, value in client.headers.items()]
    if isinstance(transport, CookieTransport):
        _check_scheme(transport, client)
        headers += [
            (b"cookie", f"{cookie.name}={cookie.value}".encode()) for cookie in client.cookies.jar
        ]
    return await middleware.admission.admit(transport.presented(headers))


async def _settle(middleware: SessionMiddleware, client: Any, web: WebSession) -> None:
    """Store what changed, and give the client what a browser would be told."""
    admission, transport = middleware.admission, middleware.transport
    await admission.save(web)
    reply = admission.reply(web)
    if not isinstance(transport, CookieTransport):
        header = cast("Header", transport)
        if reply.token is not None:
            client.headers[header.name] = f"{header.scheme} {reply.token}".strip()
        elif reply.erase:
            client.headers.pop(header.name, None)
        return
    cookie = transport.cookie
    if reply.token is not None or reply.erase:
        for held in [held for held in client.cookies.jar if held.name == cookie.name]:
            client.cookies.jar.clear(held.domain, held.path, held.name)
    if reply.token is not None:
        domain = cookie.domain or _host(client)
        client.cookies.set(cookie.name, reply.token, domain=domain, path=cookie.path)


def _check_scheme(transport: CookieTransport, client: Any) -> None:
    if transport.cookie.secure and client.base_url.scheme not in ("https", "wss"):
        reason = "a secure cookie goes by https only: give base_url='https://testserver'"
        raise InvalidSetting("base_url", "sojourn.testing.web", reason)


def _host(client: Any) -> str:
    """Return the domain under which a cookie jar keeps cookies of this host."""
    host: str = client.base_url.host
    return host if "." in host else f"{host}.local"

"""Visits: the same small site on each framework's sessions, asked by raw ASGI or WSGI calls.

A visitor logs in once. Of twenty requests that follow, seventeen read the session, two carry no
cookie, and one writes a key. What is timed is the application alone: no socket, no server.
"""

from __future__ import annotations

import asyncio
import io
from contextlib import AsyncExitStack
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from benchmarks.peers.timing import at_once, awaited_in_turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.sample import Sample

    Ask = Callable[[str, str], Awaitable[tuple[int, str]]]

ROUND = 20
"""Requests of one round of the mix."""

ANONYMOUS = (5, 15)
"""Which of them carry no cookie."""

WRITING = 10
"""Which of them writes."""

TURN = 800
"""Requests of one turn where several sites are asked in one process."""

FINE = 200

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
HOST = "shop.example"

CART = [{"item": "tea", "number": 2}, {"item": "cup", "number": 1}]


async def visit(*, kind: str, count: int, warm: int, path: str = "", visitors: int = 1) -> Sample:
    """Ask an application of one kind; `path` is a SQLite file or the URL of a server.

    One visitor asks again and again, or so many at once: `count` and `warm` are of all together.
    """
    async with AsyncExitStack() as stack:
        ask = await _SITES[kind](stack, path)
        step = await _visiting(ask, visitors)
        if visitors == 1:
            return await awaited_in_turn(partial(step, 0), count=count, warm=warm)
        each, before = count // visitors, warm // visitors
        return await at_once(step, callers=visitors, each=each, warm=before)


async def together(*, those: list[dict[str, Any]]) -> list[list[Sample]]:
    """Ask several sites in turns, one visitor each; return what they took, turn by turn.

    `those` are what `visit` would be given for each: as many requests of all.
    """
    warm, turns = those[0]["warm"], max(1, those[0]["count"] // TURN)
    found: list[list[Sample]] = []
    async with AsyncExitStack() as stack:
        steps = [
            partial(await _visiting(await _SITES[each["kind"]](stack, ""), 1), 0) for each in those
        ]
        for step in steps:
            for number in range(warm):
                await step(number)
        for turn in range(turns):
            order = list(enumerate(steps))
            taken = [
                (place, await awaited_in_turn(step, count=TURN, warm=0))
                for place, step in (reversed(order) if turn % 2 else order)
            ]
            found.append([sample for _, sample in sorted(taken, key=itemgetter(0))])
    return found


async def _visiting(ask: Ask, visitors: int) -> Callable[[int, int], Awaitable[None]]:
    """Log visitors in and return what makes one of their requests."""
    cookies = [await _logged_in(ask) for _ in range(visitors)]

    async def step(visitor: int, number: int) -> None:
        place = (number + visitor) % ROUND  # visitors write at different times
        if place in ANONYMOUS:
            answered, _ = await ask("/read", "")
        elif place == WRITING:
            answered, given = await ask("/write", cookies[visitor])
            cookies[visitor] = given or cookies[visitor]
        else:
            answered, _ = await ask("/read", cookies[visitor])
        assert answered == FINE

    return step


async def _logged_in(ask: Ask) -> str:
    status, cookie = await ask("/login", "")
    assert status == FINE
    return cookie


def _asgi(app: Any) -> Ask:
    """Return how to ask an ASGI application."""

    async def ask(path: str, cookie: str) -> tuple[int, str]:
        status, given, asked = 0, "", False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:  # Django listens for the client to go away, which it does not
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, given
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message["headers"]:
                    if name.lower() == b"set-cookie":
                        given = value.decode().split(";", 1)[0]

        headers = [(b"host", HOST.encode()), (b"user-agent", AGENT.encode()), (b"accept", b"*/*")]
        if cookie:
            headers.append((b"cookie", cookie.encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 50_000),
            "server": (HOST, 443),
        }
        await app(scope, receive, send)
        return status, given

    return ask


# --- Starlette: bare, its own cookies, ours, starsessions ---------------------------------------


def _starlette(middleware: list[Any], session: Callable[[Any], Any]) -> Any:
    """Return the site on Starlette; `session` finds the session of a request."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def login(request: Any) -> Any:
        mapping = await session(request)
        mapping["user"], mapping["cart"] = "ada", CART
        return PlainTextResponse("welcome")

    async def read(request: Any) -> Any:
        mapping = await session(request)
        return PlainTextResponse(f"{mapping.get('user')} {len(mapping.get('cart', ()))}")

    async def write(request: Any) -> Any:
        mapping = await session(request)
        mapping["n"] = mapping.get("n", 0) + 1
        return PlainTextResponse(str(mapping["n"]))

    routes = [Route("/login", login), Route("/read", read), Route("/write", write)]
    return Starlette(routes=routes, middleware=middleware)


async def _given(request: Any) -> Any:
    return request.session


async def _bare(_stack: AsyncExitStack, _path: str) -> Ask:
    kept: dict[str, Any] = {}

    async def session(_request: Any) -> Any:
        return kept

    return _asgi(_starlette([], session))


async def _cookies(_stack: AsyncExitStack, _path: str) -> Ask:
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware

    middleware = [Middleware(SessionMiddleware, secret_key="s" * 32, https_only=True)]
    return _asgi(_starlette(middleware, _given))


async def _sojourn(stack: AsyncExitStack, path: str) -> Ask:
    from starlette.middleware import Middleware

    from sojourn import SessionManager
    from sojourn.web import SessionMiddleware

    url = path if "://" in path else f"sqlite:///{path}" if path else "memory://"
    sessions = await stack.enter_async_context(SessionManager.open(url))
    return _asgi(_starlette([Middleware(SessionMiddleware, sessions=sessions)], _given))


async def _starsessions(stack: AsyncExitStack, path: str) -> Ask:
    from starlette.middleware import Middleware
    from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware

    store: Any = InMemoryStore()
    if path:
        from redis.asyncio import Redis
        from starsessions.stores.redis import RedisStore

        client = Redis.from_url(path)
        stack.push_async_callback(client.aclose)
        store = RedisStore(connection=client)
    middleware = [
        Middleware(SessionMiddleware, store=store, lifetime=1_800, rolling=True),
        Middleware(SessionAutoloadMiddleware),
    ]
    return _asgi(_starlette(middleware, _given))


# --- Litestar, Django, Flask --------------------------------------------------------------------


async def _litestar(_stack: AsyncExitStack, _path: str) -> Ask:
    from litestar import Litestar, Request, get
    from litestar.middleware.session.server_side import ServerSideSessionConfig

    async def login(request: Request[Any, Any, Any]) -> str:
        request.session["user"], request.session["cart"] = "ada", CART
        return "welcome"

    async def read(request: Request[Any, Any, Any]) -> str:
        return f"{request.session.get('user')} {len(request.session.get('cart', ()))}"

    async def write(request: Request[Any, Any, Any]) -> str:
        request.session["n"] = request.session.get("n", 0) + 1
        return str(request.session["n"])

    for handler in (login, read, write):
        handler.__annotations__["request"] = Request
        handler.__annotations__["return"] = str
    handlers = [get("/login")(login), get("/read")(read), get("/write")(write)]
    config = ServerSideSessionConfig()
    return _asgi(Litestar(handlers, middleware=[config.middleware]))


def _django(engine: str) -> Callable[[AsyncExitStack, str], Awaitable[Ask]]:
    async def site(_stack: AsyncExitStack, path: str) -> Ask:
        import django
        from asgiref.sync import sync_to_async
        from django.conf import settings
        from django.http import HttpResponse

        async def login(request: Any) -> Any:
            await request.session.aset("user", "ada")
            await request.session.aset("cart", CART)
            return HttpResponse("welcome")

        async def read(request: Any) -> Any:
            cart = await request.session.aget("cart", ())
            return HttpResponse(f"{await request.session.aget('user')} {len(cart)}")

        async def write(request: Any) -> Any:
            number = await request.session.aget("n", 0) + 1
            await request.session.aset("n", number)
            return HttpResponse(str(number))

        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": path or ":memory:"}
        settings.configure(
            SECRET_KEY="s" * 32,
            ALLOWED_HOSTS=[HOST],
            ROOT_URLCONF=tuple(_urls(login=login, read=read, write=write)),
            INSTALLED_APPS=["django.contrib.sessions"],
            MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
            SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
            DATABASES={"default": database},
        )
        django.setup()
        from django.core.asgi import get_asgi_application
        from django.core.management import call_command

        await sync_to_async(call_command)("migrate", verbosity=0)
        return _asgi(get_asgi_application())

    return site


def _urls(**views: Any) -> list[Any]:
    from django.urls import path

    return [path(name, view) for name, view in views.items()]


async def _flask_session(_stack: AsyncExitStack, _path: str) -> Ask:
    from cachelib import SimpleCache
    from flask import Flask, session
    from flask_session import Session

    app = Flask("visits")
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
    Session(app)

    def login() -> str:
        session["user"], session["cart"] = "ada", CART
        return "welcome"

    def read() -> str:
        return f"{session.get('user')} {len(session.get('cart', ()))}"

    def write() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    for view in (login, read, write):
        app.add_url_rule(f"/{view.__name__}", view_func=view)
    return _wsgi(app)


def _wsgi(app: Any) -> Ask:
    """Return how to ask a WSGI application."""

    async def ask(path: str, cookie: str) -> tuple[int, str]:
        status, given = 0, ""

        def start(line: str, headers: list[tuple[str, str]], _error: object = None) -> None:
            nonlocal status, given
            status = int(line.split(maxsplit=1)[0])
            for name, value in headers:
                if name.lower() == "set-cookie":
                    given = value.split(";", 1)[0]

        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": HOST,
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": HOST,
            "HTTP_USER_AGENT": AGENT,
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        body = app(environ, start)
        b"".join(body)
        if hasattr(body, "close"):
            body.close()
        return status, given

    return ask


_SITES: dict[str, Callable[[AsyncExitStack, str], Awaitable[Ask]]] = {
    "bare": _bare,
    "cookies": _cookies,
    "sojourn": _sojourn,
    "starsessions": _starsessions,
    "litestar": _litestar,
    "django-cached": _django("cached_db"),
    "django-db": _django("db"),
    "flask-session": _flask_session,
}

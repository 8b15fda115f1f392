"""Starlette and FastAPI: dependencies, errors as responses, background tasks, streams, sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Form, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads it
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sojourn import (
    AuthNeeded,
    InvalidId,
    InvalidSetting,
    Session,
    SessionManager,
    TooManySessions,
    Unavailable,
    carry,
    current_session,
    run_in_scope,
)
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web import Cap, SessionMiddleware, WebSession
from sojourn.web.starlette import (
    exception_handlers,
    get_session,
    require_csrf,
    require_recent_auth,
    require_user,
    session_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

Held = Annotated[WebSession, Depends(get_session)]
User = Annotated[str, Depends(require_user)]
Recent = Annotated[str, Depends(require_recent_auth(300, level=1))]

TEST_URL = "https://testserver"
TALK = "wss://testserver/talk"


@pytest.fixture
def opened() -> Opener:
    """How to open a manager in memory: what stores do is tested with them."""

    def open_manager(**collaborators: Any) -> SessionManager:
        return SessionManager.open("memory://", **collaborators)

    return open_manager


def shop() -> FastAPI:
    """Return an application with a login, a cart and pages that not everybody may see."""
    app = FastAPI(exception_handlers=exception_handlers())

    @app.post("/login/{user}")
    async def login(user: str, session: Held, level: int = 0) -> str:
        await session.login(user, auth="pwd", level=level)
        return session.csrf_token

    @app.post("/logout")
    async def logout(session: Held) -> None:
        await session.logout()

    @app.get("/me")
    async def me(user: User) -> str:
        return user

    @app.get("/money")
    async def money(user: Recent) -> str:
        return user

    @app.post("/cart/{item}")
    def add(item: str, request: Request) -> list[str]:  # in a thread
        request.session["cart"] = [*request.session.get("cart", []), item]
        return list(request.session["cart"])

    @app.get("/cart")
    async def cart(request: Request) -> list[str]:
        return list(request.session.get("cart", []))

    @app.post("/form", dependencies=[Depends(require_csrf)])
    async def form(name: Annotated[str, Form()]) -> str:
        return name

    @app.put("/json", dependencies=[Depends(require_csrf)])
    async def put(body: dict[str, Any]) -> dict[str, Any]:
        return body

    @app.get("/raises/{what}")
    async def raises(what: str) -> None:
        raise {
            "auth": AuthNeeded("say who you are"),
            "many": TooManySessions(3),
            "down": Unavailable("redis at secret-host", "refused"),
        }[what]

    return app


def browser(app: Any) -> httpx2.AsyncClient:
    """Return a browser, in the loop at hand."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=TEST_URL)


def around(app: Any, sessions: SessionManager, **options: Any) -> SessionMiddleware:
    """Return the application with sessions."""
    return SessionMiddleware(app, sessions=sessions, **options)


async def test_a_login_lets_pass_who_has_one(opened: Opener) -> None:
    async with opened() as sessions, browser(around(shop(), sessions)) as client:
        refused = await client.get("/me")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"]
        await client.post("/cart/tea")
        assert (await client.post("/login/u-1")).status_code == 200
        assert (await client.get("/me")).json() == "u-1"
        assert (await client.get("/cart")).json() == ["tea"]
        await client.post("/logout")
        assert (await client.get("/me")).status_code == 401
        assert not client.cookies


@pytest.mark.behaviour(32)
async def test_looking_at_a_session_begins_none(opened: Opener) -> None:
    async with opened() as sessions, browser(around(shop(), sessions)) as client:
        response = await client.get("/cart")
        assert "set-cookie" not in response.headers
        assert "cookie" in response.headers["vary"].lower()
        assert await sessions.count() == 0


async def test_a_login_that_is_old_or_weak_is_told_from_none() -> None:
    clock = FakeClock()
    opened = SessionManager.open("memory://", clock=clock)
    async with opened as sessions, browser(around(shop(), sessions)) as client:
        assert (await client.get("/money")).status_code == 401
        await client.post("/login/u-1")
        weak = await client.get("/money")
        assert (weak.status_code, "level" in weak.text) == (403, True)
        await client.post("/login/u-1?level=1")
        assert (await client.get("/money")).json() == "u-1"
        clock.advance(301)
        assert (await client.get("/money")).status_code == 403
        assert (await client.get("/me")).status_code == 200


async def test_a_form_and_a_script_send_the_csrf_token_back(opened: Opener) -> None:
    async with opened() as sessions, browser(around(shop(), sessions)) as client:
        token = (await client.post("/login/u-1")).json()
        fields = {"name": "n", "csrf_token": token}
        assert (await client.post("/form", data=fields)).json() == "n"
        assert (await client.post("/form", data={"name": "n"})).status_code == 403
        files = {"file": b"0" * 3}
        assert (await client.post("/form", data=fields, files=files)).json() == "n"
        headers = {"x-csrf-token": token}
        assert (await client.put("/json", json={"a": 1}, headers=headers)).json() == {"a": 1}
        for given in ("", token[:-1] + "é", token + "x"):
            bad = [(b"x-csrf-token", given.encode())]
            assert (await client.put("/json", json={}, headers=bad)).status_code == 403
        # What a login answers with is the value that goes with its new token.
        again = (await client.post("/login/u-1")).json()
        assert again != token
        assert (await client.put("/json", json={}, headers=headers)).status_code == 403
        headers = {"x-csrf-token": again}
        assert (await client.put("/json", json={}, headers=headers)).status_code == 200
    async with opened() as sessions, browser(around(shop(), sessions)) as client:
        assert (await client.post("/form", data={"name": "n"})).status_code == 403


async def test_who_reads_the_body_after_the_csrf_token_finds_it_whole(opened: Opener) -> None:
    app = shop()

    @app.post("/raw", dependencies=[Depends(require_csrf)])
    async def raw(request: Request) -> str:
        return (await request.body()).decode()

    async with opened() as sessions, browser(around(app, sessions)) as client:
        token = (await client.post("/login/u-1")).json()
        sent = await client.post("/raw", data={"name": "n", "csrf_token": token})
        assert sent.json() == f"name=n&csrf_token={token}"


async def test_errors_of_ours_become_responses(opened: Opener) -> None:
    async with opened() as sessions, browser(around(shop(), sessions)) as client:
        assert (await client.get("/raises/auth")).status_code == 401
        assert (await client.get("/raises/many")).status_code == 409
        down = await client.get("/raises/down")
        assert (down.status_code, down.headers["retry-after"]) == (503, "5")
        assert "secret-host" not in down.text
        await client.post("/login/u-1")
        assert (await client.get("/raises/auth")).status_code == 403


async def test_one_login_too_many_is_refused_as_a_conflict(opened: Opener) -> None:
    async with opened() as sessions:
        app = around(shop(), sessions, cap=Cap(1, "refuse"))
        async with browser(app) as first, browser(app) as second:
            assert (await first.post("/login/u-1")).status_code == 200
            assert (await second.post("/login/u-1")).status_code == 409
            assert not second.cookies


async def test_nobody_is_logged_out_because_the_store_is_down() -> None:
    """An optional route goes on without a session; what needs a user is told to try again."""
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        app = around(shop(), SessionManager(store), policy="optional")
        async with browser(app) as client:
            token = (await client.post("/login/u-1")).json()
            store.fail("get", times=None)
            assert (await client.get("/cart")).json() == []
            for path in ("/me", "/money"):
                assert (await client.get(path)).status_code == 503
            answer = await client.put("/json", json={}, headers={"x-csrf-token": token})
            assert answer.status_code == 503
            assert "set-cookie" not in answer.headers
            store.heal()
            assert (await client.get("/me")).json() == "u-1"


async def test_without_the_middleware_it_says_what_to_do() -> None:
    async with browser(shop()) as client:
        with pytest.raises(InvalidSetting, match="add_middleware"):
            await client.get("/me")


# ---------------------------------------------------------------------------------- after it began


async def test_background_tasks_work_in_the_session_of_their_request(opened: Opener) -> None:
    """Ambient in a task, in a thread of it and in what it starts; stored when it is done."""
    app = FastAPI()

    def in_thread(session: Session) -> None:
        assert current_session() is session
        session.state["thread"] = True

    async def later() -> None:
        session = current_session()
        assert session is not None
        session.state["later"] = carry()["session"]
        await run_in_scope(in_thread, session)
        await asyncio.create_task(asyncio.to_thread(session.state.update, {"child": True}))

    @app.post("/start")
    async def start(request: Request, tasks: BackgroundTasks) -> None:
        request.session["began"] = True
        tasks.add_task(later)

    @app.get("/all")
    async def everything(request: Request) -> dict[str, Any]:
        return dict(request.session)

    async with opened() as sessions, browser(around(app, sessions)) as client:
        await client.post("/start")
        (session,) = (await sessions.list()).items
        expected = {"began": True, "later": session.id, "thread": True, "child": True}
        assert (await client.get("/all")).json() == expected
    assert current_session() is None


async def test_a_sync_background_task_of_starlette_sees_the_session(opened: Opener) -> None:
    def later() -> None:
        session = current_session()
        assert session is not None
        session.state["later"] = True

    async def start(request: Request) -> PlainTextResponse:
        request.session["began"] = True
        return PlainTextResponse("", background=BackgroundTask(later))

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(dict(request.session))

    app = Starlette(routes=[Route("/", start, methods=["POST"]), Route("/", show)])
    async with opened() as sessions, browser(around(app, sessions)) as client:
        await client.post("/")
        assert (await client.get("/")).json() == {"began": True, "later": True}


async def test_a_change_while_a_response_streams_is_stored(opened: Opener) -> None:
    app = FastAPI()

    @app.get("/stream")
    async def stream(session: Held) -> StreamingResponse:
        session["pages"] = 0

        async def pages() -> AsyncIterator[bytes]:
            for number in range(3):
                session["pages"] = number + 1
                yield b"page"

        return StreamingResponse(pages())

    @app.get("/pages")
    async def pages(session: Held) -> int:
        return int(session["pages"])

    async with opened() as sessions, browser(around(app, sessions)) as client:
        assert len((await client.get("/stream")).content) == 12
        assert (await client.get("/pages")).json() == 3


def test_a_socket_has_the_session_and_keeps_its_changes(tmp_path: Any) -> None:
    app = shop()

    @app.websocket("/talk")
    async def talk(socket: WebSocket, session: Held, user: User) -> None:
        await socket.accept()
        while (text := await socket.receive_text()) != "bye":
            session["said"] = [*session.get("said", []), text]
            await socket.send_text(user)
        await socket.close()

    @app.get("/said")
    async def said(session: Held) -> list[str]:
        return list(session.get("said", []))

    app.add_middleware(SessionMiddleware, sessions=f"sqlite:///{tmp_path / 's.db'}")
    with TestClient(app, base_url=TEST_URL) as client:
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect(TALK):
            pass
        assert refused.value.code == 4401
        client.post("/login/u-1")
        with client.websocket_connect(TALK) as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "u-1"
            assert client.get("/said").json() == ["hello"]
            socket.send_text("again")
            socket.receive_text()
            socket.send_text("bye")
        assert client.get("/said").json() == ["hello", "again"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AuthNeeded("say who you are"), 4401),
        (TooManySessions(1), 4409),
        (Unavailable("x", "y"), 1013),
    ],
)
def test_an_error_of_ours_closes_a_socket(error: Exception, code: int) -> None:
    app = FastAPI(exception_handlers=exception_handlers())

    @app.websocket("/fails")
    async def fails(socket: WebSocket) -> None:
        await socket.accept()
        raise error

    with TestClient(app, base_url=TEST_URL) as client, client.websocket_connect("/fails") as socket:
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == code


async def test_two_sessions_have_two_names(opened: Opener) -> None:
    """A shop and its back office, each with a cookie of its own."""
    from sojourn.web import Cookie

    async def both(request: HTTPConnection) -> str:
        session_of(request)["shop"] = 1
        session_of(request, "office")["office"] = 1
        return "done"

    app = FastAPI()
    app.get("/both")(both)
    async with opened() as sessions:
        inner = around(app, sessions)
        outer = around(inner, sessions, name="office", cookie=Cookie(name="__Host-office"))
        async with browser(outer) as client:
            assert (await client.get("/both")).json() == "done"
            assert set(client.cookies) == {"__Host-sid", "__Host-office"}
        stored = [dict(session.state) for session in (await sessions.list()).items]
        assert sorted(key for state in stored for key in state if key[0] != "~") == [
            "office",
            "shop",
        ]


async def test_a_session_takes_several_keys_at_once_as_a_dict_does(opened: Opener) -> None:
    app = FastAPI()

    @app.put("/many")
    async def many(session: Held, body: dict[str, Any]) -> dict[str, Any]:
        session |= body
        return dict(session)

    async with opened() as sessions, browser(around(app, sessions)) as client:
        assert (await client.put("/many", json={"a": 1, "b": 2})).json() == {"a": 1, "b": 2}
        assert (await client.put("/many", json={"b": 3})).json() == {"a": 1, "b": 3}
        with pytest.raises(InvalidId, match="reserved"):
            await client.put("/many", json={"~token": {}})

"""Litestar: the plugin, the config, guards, and what a Litestar application does with a session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest
from litestar import Litestar, Request, WebSocket, get, post, put, websocket
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import FromPath, FromQuery, JSONBody  # noqa: TC002 - read at run time
from litestar.response import Stream
from litestar.security.session_auth import SessionAuth
from litestar.testing import TestClient as LitestarClient
from pydantic import BaseModel
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sojourn import (
    AuthNeeded,
    Closed,
    InvalidSetting,
    SessionManager,
    TooManySessions,
    Unavailable,
    current_session,
)
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web import Cookie
from sojourn.web.litestar import (
    SessionConfig,
    SessionPlugin,
    requires_csrf,
    requires_recent_auth,
    requires_user,
    session_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

AnyRequest = Request[Any, Any, Any]

TEST_URL = "https://testserver.local"
TALK = "wss://testserver.local/talk"


@pytest.fixture
def opened() -> Opener:
    """How to open a manager in memory: what stores do is tested with them."""

    def open_manager(**collaborators: Any) -> SessionManager:
        return SessionManager.open("memory://", **collaborators)

    return open_manager


@post("/login/{user:str}")
async def login(user: FromPath[str], request: AnyRequest, level: FromQuery[int] = 0) -> str:
    session = session_of(request)
    await session.login(user, auth="pwd", level=level)
    return session.csrf_token


@post("/logout")
async def logout(request: AnyRequest) -> None:
    await session_of(request).logout()


@get("/me", guards=[requires_user])
async def me(request: AnyRequest) -> str | None:
    return session_of(request).user


@get("/money", guards=[requires_recent_auth(300, level=1)])
async def money() -> str:
    return "money"


@get("/all")
async def everything(request: AnyRequest) -> dict[str, Any]:
    return dict(request.session)


@post("/set/{key:str}/{value:str}")
async def set_key(key: FromPath[str], value: FromPath[str], request: AnyRequest) -> None:
    request.session[key] = value


@post("/replace")
async def replace_all(data: JSONBody[dict[str, Any]], request: AnyRequest) -> None:
    request.set_session(data)


@post("/clear")
async def clear(request: AnyRequest) -> None:
    request.clear_session()


@get("/none", skip_session=True)
async def without(request: AnyRequest) -> bool:
    return "session" in request.scope


@post("/form", guards=[requires_csrf])
async def form(request: AnyRequest) -> str:
    return str((await request.form())["name"])


@put("/json", guards=[requires_csrf])
async def put_json(data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
    return data


@get("/stream")
async def stream(request: AnyRequest) -> Stream:
    session = request.session
    session["pages"] = 0

    async def pages() -> AsyncIterator[bytes]:
        for number in range(3):
            session["pages"] = number + 1
            yield b"page"

    return Stream(pages())


@get("/raises/{what:str}")
async def raises(what: FromPath[str]) -> None:
    raise {
        "auth": AuthNeeded("say who you are"),
        "many": TooManySessions(3),
        "down": Unavailable("redis at secret-host", "refused"),
        "bug": RuntimeError("a bug"),
    }[what]


@post("/fails")
async def fails(request: AnyRequest) -> None:
    request.session["never"] = True
    raise RuntimeError("a bug")


@get("/ambient")
async def ambient(request: AnyRequest) -> bool:
    session = current_session()
    return session is not None and session.id == session_of(request).id


@websocket("/talk", guards=[requires_user])
async def talk(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while (text := await socket.receive_text()) != "bye":
        socket.session["said"] = [*socket.session.get("said", []), text]
        await socket.send_text(text)
    await socket.close()


HANDLERS = [
    *(login, logout, me, money, everything, set_key, replace_all, clear, without, form, put_json),
    *(stream, raises, fails, ambient, talk),
]


def site(sessions: SessionManager | str, **options: Any) -> Litestar:
    """Return an application with sessions."""
    return Litestar(
        logging_config=None, route_handlers=HANDLERS, plugins=[SessionPlugin(sessions, **options)]
    )


def browser(sessions: SessionManager, **options: Any) -> httpx2.AsyncClient:
    """Return a browser that looks at the application, in the loop at hand."""
    return visiting(site(sessions, **options))


def visiting(app: Any) -> httpx2.AsyncClient:
    """Return a browser in the loop at hand: Litestar's test clients have one of their own."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=TEST_URL)


async def keys_stored(sessions: SessionManager) -> list[set[str]]:
    """Return the keys of each stored session, without the library's own."""
    found = (await sessions.list()).items
    return [{key for key in session.state if key[0] != "~"} for session in found]


# ---------------------------------------------------------------------------------------- requests


async def test_a_login_lets_pass_who_has_one(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        assert (await client.get("/me")).status_code == 401
        await client.post("/set/cart/tea")
        before = client.cookies["__Host-sid"]
        await client.post("/login/u-1")
        assert client.cookies["__Host-sid"] != before
        assert (await client.get("/me")).text == "u-1"
        assert (await client.get("/all")).json() == {"cart": "tea"}
        assert (await client.get("/ambient")).json() is True
        await client.post("/logout")
        assert (await client.get("/me")).status_code == 401
        assert not client.cookies


@pytest.mark.behaviour(32)
async def test_looking_at_a_session_begins_none(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        for path in ("/all", "/none"):
            assert "set-cookie" not in (await client.get(path)).headers
        assert (await client.get("/none")).json() is False
        assert await sessions.count() == 0


async def test_two_requests_at_once_keep_both_their_keys(opened: Opener) -> None:
    """As the peer does not: it stores each session whole."""
    party = asyncio.Barrier(2)

    @post("/meet/{key:str}")
    async def meet(key: FromPath[str], request: AnyRequest) -> None:
        request.session[key] = True
        await party.wait()

    async with opened() as sessions:
        app = Litestar(
            logging_config=None,
            route_handlers=[meet, login, everything],
            plugins=[SessionPlugin(sessions)],
        )
        async with visiting(app) as client:
            await client.post("/login/u-1")
            await asyncio.gather(client.post("/meet/a"), client.post("/meet/b"))
            assert (await client.get("/all")).json() == {"a": True, "b": True}


async def test_what_is_set_in_place_of_the_session_is_stored(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        await client.post("/login/u-1")
        await client.post("/set/a/1")
        await client.post("/replace", json={"b": {"c": [1]}})
        assert (await client.get("/all")).json() == {"b": {"c": [1]}}
        assert (await client.get("/me")).text == "u-1"
        (session,) = (await sessions.list()).items
        revision = session.revision
        await client.post("/replace", json={"b": {"c": [1]}})
        assert (await sessions.require(session.id)).revision == revision


class Cart(BaseModel):
    """A model of pydantic's."""

    items: list[str]


class Basket(msgspec.Struct):
    """A model of msgspec's."""

    items: list[str]


@pytest.mark.parametrize("kind", [Cart, Basket])
async def test_a_model_may_be_set_in_place_of_the_session(kind: Any) -> None:
    @post("/model")
    async def set_model(request: AnyRequest) -> None:
        request.set_session(kind(items=["tea"]))

    async with SessionManager.open("memory://") as sessions:
        app = Litestar(
            logging_config=None,
            route_handlers=[set_model, everything],
            plugins=[SessionPlugin(sessions)],
        )
        async with visiting(app) as client:
            await client.post("/model")
            assert (await client.get("/all")).json() == {"items": ["tea"]}


async def test_clearing_the_session_is_a_logout(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        await client.post("/clear")  # of nothing
        await client.post("/login/u-1")
        token = client.cookies["__Host-sid"]
        await client.post("/clear")
        assert not client.cookies
        assert await sessions.count() == 0
        client.cookies.set("__Host-sid", token, domain="testserver.local")
        assert (await client.get("/me")).status_code == 401


Act = tuple[str, Any]

ACTS: dict[str, list[Act]] = {
    "set": [("set", {"new": 1})],
    "clear, set": [("clear", None), ("set", {"new": 1})],
    "write, clear, set": [("write", "early"), ("clear", None), ("set", {"new": 1})],
    "set, clear": [("set", {"early": 1}), ("clear", None)],
    "set, clear, set": [("set", {"early": 1}), ("clear", None), ("set", {"new": 1})],
    "clear, set, write": [("clear", None), ("set", {"new": 1}), ("write", "late")],
    "clear, set nothing": [("clear", None), ("set", {})],
    "clear, set, clear": [("clear", None), ("set", {"early": 1}), ("clear", None)],
}


def acting(acts: list[Act], *, logs_in: bool = False) -> Any:
    """Return a handler that does this to the session, one after the other."""

    @post("/act")
    async def act(request: AnyRequest) -> None:
        if logs_in:
            await session_of(request).login("u-2")
        for verb, value in acts:
            if verb == "write":
                request.session[value] = True
            elif verb == "set":
                request.set_session(dict(value))
            else:
                request.clear_session()

    return act


def acting_site(acts: list[Act], peer: str, sessions: SessionManager) -> Litestar:
    """Return an application with that handler, with sessions of ours or of Litestar's own."""
    handlers = [acting(acts), login, me, everything, set_key]
    if peer == "litestar":
        own = [ServerSideSessionConfig().middleware]
        return Litestar(logging_config=None, route_handlers=handlers, middleware=own)
    plugins = [SessionPlugin(sessions)]
    return Litestar(logging_config=None, route_handlers=handlers, plugins=plugins)


@pytest.mark.parametrize("acts", ACTS.values(), ids=ACTS.keys())
async def test_replacing_and_clearing_leave_what_they_leave_with_litestars_own(
    opened: Opener, acts: list[Act]
) -> None:
    found = []
    async with opened() as sessions:
        for peer in ("litestar", "sojourn"):
            for begun in (False, True):
                async with visiting(acting_site(acts, peer, sessions)) as client:
                    if begun:
                        await client.post("/set/old/1")
                    await client.post("/act")
                    found.append((await client.get("/all")).json())
    assert found[:2] == found[2:]


@pytest.mark.parametrize("name", [name for name in ACTS if "clear" in name])
async def test_clearing_is_a_logout_whatever_is_set_afterwards(opened: Opener, name: str) -> None:
    stays = bool(dict(ACTS[name][-1:]).get("set")) or name.endswith("write")
    async with (
        opened() as sessions,
        visiting(acting_site(ACTS[name], "sojourn", sessions)) as client,
    ):
        await client.post("/login/u-1")
        await client.post("/set/old/1")
        token = client.cookies["__Host-sid"]
        await client.post("/act")
        assert client.cookies.get("__Host-sid") != token
        assert ("__Host-sid" in client.cookies) == stays
        assert await sessions.count() == stays
        assert (await client.get("/me")).status_code == 401
        client.cookies.set("__Host-sid", token, domain="testserver.local")
        assert (await client.get("/me")).status_code == 401


@pytest.mark.parametrize("acts", [[("write", "a")], [("set", {"a": 1})], []])
@pytest.mark.parametrize("logs_in", [True, False])
async def test_what_is_cleared_before_it_was_stored_is_not_stored(
    opened: Opener, acts: list[Act], *, logs_in: bool
) -> None:
    async with opened() as sessions:
        plugin = SessionPlugin(sessions)
        app = Litestar(
            logging_config=None,
            route_handlers=[acting([*acts, ("clear", None)], logs_in=logs_in)],
            plugins=[plugin],
        )
        async with visiting(app) as client:
            assert "set-cookie" not in (await client.post("/act")).headers
        assert plugin.config.sessions.admission.notices.counts["created"] == 0
        assert await sessions.count() == 0


async def test_litestar_knows_the_id_of_a_stored_session(opened: Opener) -> None:
    @get("/id")
    async def its_id(request: AnyRequest) -> list[str | None]:
        before = request.get_session_id()
        request.clear_session()
        return [before, request.get_session_id()]

    async with opened() as sessions:
        app = Litestar(
            logging_config=None, route_handlers=[its_id, login], plugins=[SessionPlugin(sessions)]
        )
        async with visiting(app) as client:
            assert (await client.get("/id")).json() == [None, None]
            await client.post("/login/u-1")
            (session,) = (await sessions.list()).items
            assert (await client.get("/id")).json() == [session.id, None]


async def test_a_request_that_fails_stores_nothing(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        assert (await client.post("/fails")).status_code == 500
        assert await sessions.count() == 0
        await client.post("/login/u-1")
        assert (await client.post("/fails")).status_code == 500
        assert await keys_stored(sessions) == [set()]


async def test_a_change_while_a_response_streams_is_stored(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        assert len((await client.get("/stream")).content) == 12
        assert (await client.get("/all")).json() == {"pages": 3}


def test_a_socket_has_the_session_and_keeps_its_changes(tmp_path: Path) -> None:
    """By Starlette's test client: Litestar's speaks ws:// only, where no secure cookie goes."""
    app: Any = site(f"sqlite:///{tmp_path / 's.db'}")
    with TestClient(app, base_url=TEST_URL) as client:
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect(TALK):
            pass
        assert refused.value.code == 4401
        client.post("/login/u-1")
        with client.websocket_connect(TALK) as socket:
            for text in ("hello", "again"):
                socket.send_text(text)
                assert socket.receive_text() == text
            socket.send_text("bye")
        assert client.get("/all").json() == {"said": ["hello", "again"]}


# ------------------------------------------------------------------------------------------ guards


async def test_a_login_that_is_old_or_weak_is_told_from_none() -> None:
    clock = FakeClock()
    opened = SessionManager.open("memory://", clock=clock)
    async with opened as sessions, browser(sessions) as client:
        assert (await client.get("/money")).status_code == 401
        await client.post("/login/u-1")
        assert (await client.get("/money")).status_code == 403
        await client.post("/login/u-1?level=1")
        assert (await client.get("/money")).text == "money"
        clock.advance(301)
        assert (await client.get("/money")).status_code == 403


async def test_a_form_and_a_script_send_the_csrf_token_back(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        assert (await client.post("/form", data={"name": "n"})).status_code == 403
        token = (await client.post("/login/u-1")).text
        fields = {"name": "n", "csrf_token": token}
        assert (await client.post("/form", data=fields)).text == "n"
        assert (await client.post("/form", data={"name": "n"})).status_code == 403
        headers = {"x-csrf-token": token}
        assert (await client.put("/json", json={"a": 1}, headers=headers)).json() == {"a": 1}
        assert (await client.put("/json", json={})).status_code == 403


async def test_errors_of_ours_become_responses(opened: Opener) -> None:
    async with opened() as sessions, browser(sessions) as client:
        assert (await client.get("/raises/auth")).status_code == 401
        assert (await client.get("/raises/many")).status_code == 409
        down = await client.get("/raises/down")
        assert (down.status_code, down.headers["retry-after"]) == (503, "5")
        assert "secret-host" not in down.text
        await client.post("/login/u-1")
        assert (await client.get("/raises/auth")).status_code == 403


async def test_nobody_is_logged_out_because_the_store_is_down() -> None:
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        async with browser(SessionManager(store), policy={"/me": "optional"}) as client:
            await client.post("/login/u-1")
            store.fail("get", times=None)
            for path in ("/me", "/all"):
                answer = await client.get(path)
                assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
            assert (await client.get("/none")).json() is False
            store.heal()
            assert (await client.get("/me")).text == "u-1"


# -------------------------------------------------------------------------------------- configuring


def test_a_store_of_a_url_is_opened_with_the_application(tmp_path: Path) -> None:
    plugin = SessionPlugin(f"sqlite:///{tmp_path / 's.db'}")
    sessions = plugin.config.sessions.sessions
    app = Litestar(logging_config=None, route_handlers=HANDLERS, plugins=[plugin])
    with LitestarClient(app, base_url=TEST_URL) as client:
        client.post("/set/a/1")
        assert client.get("/all").json() == {"a": "1"}
        with client.portal() as portal:
            assert portal.call(sessions.count) == 1
    with pytest.raises(Closed):
        asyncio.run(sessions.count())


async def test_all_routes_share_one_admission(opened: Opener) -> None:
    """Litestar makes a layer for each route; what is counted is counted once."""
    async with opened() as sessions:
        plugin = SessionPlugin(sessions)
        app = Litestar(logging_config=None, route_handlers=HANDLERS, plugins=[plugin])
        async with visiting(app) as client:
            await client.post("/login/u-1")
            await client.post("/set/a/1")
            await client.post("/logout")
        counts = plugin.config.sessions.admission.notices.counts
        assert (counts["created"], counts["login"], counts["logout"]) == (1, 1, 1)


def test_the_test_client_of_litestar_edits_the_session(tmp_path: Path) -> None:
    """Its `session_config` works as with Litestar's own backends."""
    config = SessionConfig(f"sqlite:///{tmp_path / 's.db'}")
    app = Litestar(
        logging_config=None,
        route_handlers=HANDLERS,
        middleware=[config.middleware],
        lifespan=[config.lifespan],
    )
    with LitestarClient(app, base_url=TEST_URL, session_config=config) as client:
        assert client.get_session_data() == {}
        client.set_session_data({"cart": ["tea"]})
        assert client.get("/all").json() == {"cart": ["tea"]}
        client.post("/set/a/1")
        assert client.get_session_data() == {"cart": ["tea"], "a": "1"}
        client.set_session_data({"b": 2})
        assert client.get("/all").json() == {"b": 2}
        with client.portal() as portal:
            assert portal.call(config.sessions.sessions.count) == 1


async def test_session_auth_of_litestar_works_on_it(opened: Opener) -> None:
    async def user_of(session: dict[str, Any], _connection: Any) -> str | None:
        found = session.get("user_id")
        return str(found) if found else None

    @post("/in")
    async def sign_in(request: AnyRequest) -> None:
        request.set_session({"user_id": "u-1"})

    @get("/who")
    async def who(request: AnyRequest) -> str:
        return str(request.user)

    async with opened() as sessions:
        config = SessionConfig(sessions)
        auth: SessionAuth[str, Any] = SessionAuth(
            retrieve_user_handler=user_of, session_backend_config=config, exclude=["/in"]
        )
        app = Litestar(
            logging_config=None, route_handlers=[sign_in, who], on_app_init=[auth.on_app_init]
        )
        async with visiting(app) as client:
            assert (await client.get("/who")).status_code == 401
            await client.post("/in")
            assert (await client.get("/who")).text == "u-1"
            (session,) = (await sessions.list()).items
            await sessions.end(session.id)
            assert (await client.get("/who")).status_code == 401


async def test_a_name_or_a_missing_plugin_is_told(opened: Opener) -> None:
    async with opened() as sessions:
        with pytest.raises(InvalidSetting, match="one session"):
            SessionConfig(sessions, name="other")
        config = SessionConfig(sessions, cookie=Cookie(name="__Host-other"))
        assert config.key == "__Host-other"
        with pytest.raises(AssertionError):
            await config.sessions({"type": "lifespan"}, None, None)  # type: ignore[arg-type]  # a server would give both
    async with visiting(Litestar(logging_config=None, route_handlers=[me])) as client:
        assert (await client.get("/me")).status_code == 500

"""The identity middleware: whose session a request works in, and who is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.authentication import SimpleUser, UnauthenticatedUser
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from tests.faults.soak import count, scaled

from sojourn import (
    Expiry,
    InvalidSetting,
    SessionManager,
    Unavailable,
    current_scope,
    current_session,
)
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web import SessionMiddleware
from sojourn.web.identity import IdentityMiddleware, authenticated_user

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request
    from starlette.responses import Response

    from sojourn.web.asgi import Receive, Scope, Send

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

FIRSTS = 20
PARTS = 3
ROUNDS = count(3, 1000)

KEYS = {"key-of-1": "u-1", "key-of-2": "u-2"}


async def work(request: Request) -> Response:
    """Write a key, say which session it is in, and whether it is ambient."""
    session: Any = request.scope.get("identity")
    if session is None:
        return JSONResponse(None)
    key = request.query_params.get("set")
    if key:
        session.state[key] = True
    assert id(current_session()) == id(session)
    status = int(request.query_params.get("status", "200"))
    own = dict(session.state)
    return JSONResponse({"id": session.id, "user": session.user, "state": own}, status)


@pytest.fixture
def in_memory() -> Opener:
    """How to open a manager in memory: what stores do is tested with them."""

    def open_manager(**collaborators: Any) -> SessionManager:
        return SessionManager.open("memory://", **collaborators)

    return open_manager


def owner_of(key: str) -> str | None:
    """Return whose an API key is."""
    return KEYS.get(key)


def user_of(scope: Any) -> str | None:
    """Return who is authenticated, as a test says it."""
    return dict(scope["headers"]).get(b"x-user", b"").decode() or None


async def order_of(scope: Any) -> str | None:
    """Return the order that a path names."""
    path: str = scope["path"]
    return path.removeprefix("/orders/") if path.startswith("/orders/") else None


def service(sessions: SessionManager, **options: Any) -> httpx2.AsyncClient:
    """Return a client of a service whose requests work in the session of who asks."""
    app = Starlette(routes=[Route("/{path:path}", work)])
    options = {"user": user_of, "api_key": owner_of, "key": order_of} | options
    around = IdentityMiddleware(app, sessions=sessions, **options)
    transport = httpx2.ASGITransport(around)
    return httpx2.AsyncClient(transport=transport, base_url="https://testserver")


def as_user(user: str) -> dict[str, str]:
    """Return the headers of a user."""
    return {"x-user": user}


@scaled
@pytest.mark.behaviour(128)
async def test_twenty_first_requests_of_one_user_have_one_session(opened: Opener) -> None:
    """However they meet, and what each wrote is there."""
    async with opened() as sessions, service(sessions) as client:
        for number in range(ROUNDS):
            headers = as_user(f"u-{number}")
            found = await asyncio.gather(
                *(client.get(f"/?set=k{one}", headers=headers) for one in range(FIRSTS))
            )
            assert len({response.json()["id"] for response in found}) == 1
            state = (await client.get("/", headers=headers)).json()["state"]
            assert state == {f"k{one}": True for one in range(FIRSTS)}


async def test_twenty_first_requests_about_one_order_have_one_session(opened: Opener) -> None:
    async with opened() as sessions, service(sessions) as client:
        asked = (client.get("/orders/42", headers=as_user("u-1")) for _ in range(FIRSTS))
        found = await asyncio.gather(*asked)
        assert len({response.json()["id"] for response in found}) == 1
        other = (await client.get("/", headers=as_user("u-1"))).json()
        assert other["id"] != found[0].json()["id"]


@pytest.mark.behaviour(131)
async def test_the_session_of_a_key_is_its_owners(opened: Opener) -> None:
    async with opened() as sessions, service(sessions) as client:
        first = await client.get("/orders/42?set=paid", headers=as_user("u-1"))
        assert first.json()["user"] == "u-1"
        for headers in (as_user("u-2"), {"x-api-key": "key-of-2"}):
            refused = await client.get("/orders/42?set=stolen", headers=headers)
            assert (refused.status_code, "u-1" in refused.text) == (403, False)
        again = await client.get("/orders/42", headers={"x-api-key": "key-of-1"})
        assert again.json()["state"] == {"paid": True}


@pytest.mark.parametrize("strangers", ["none", "refuse", "own"])
@pytest.mark.behaviour(131)
async def test_nobody_in_particular_has_the_session_of_an_owned_key(
    in_memory: Opener, strangers: str
) -> None:
    """Whoever brings a key and no identity is no owner, and does not keep the session alive."""
    clock = FakeClock()
    expiry = Expiry(idle=60)
    async with (
        in_memory(clock=clock) as sessions,
        service(sessions, strangers=strangers, expiry=expiry) as client,
    ):
        ada = {"x-api-key": "key-of-1"}
        assert (await client.get("/orders/42?set=paid", headers=ada)).json()["user"] == "u-1"
        clock.advance(40)
        for headers in ({}, {"x-api-key": ""}, {"x-user": ""}):
            refused = await client.get("/orders/42?set=stolen", headers=headers)
            assert (refused.status_code, "u-1" in refused.text) == (403, False)
        found = await sessions.find(key="key:42")
        assert found is not None
        assert dict(found.state) == {"paid": True}
        assert found.header.active_at == found.header.created_at
        assert (await client.get("/orders/42", headers=ada)).status_code == 200


@pytest.mark.parametrize("strangers", ["none", "refuse", "own"])
async def test_a_key_of_nobody_is_for_whoever_brings_it(in_memory: Opener, strangers: str) -> None:
    clock = FakeClock()
    expiry = Expiry(idle=60)
    async with (
        in_memory(clock=clock) as sessions,
        service(sessions, strangers=strangers, expiry=expiry) as client,
    ):
        first = (await client.get("/orders/42?set=a")).json()
        assert (first["user"], first["state"]) == (None, {"a": True})
        for _ in range(3):
            clock.advance(40)
            assert (await client.get("/orders/42")).json() == first
        assert (await client.get("/orders/42", headers=as_user("u-1"))).status_code == 403
        clock.advance(61)
        assert (await client.get("/orders/42")).json()["state"] == {}


@scaled
async def test_of_an_owner_and_a_stranger_at_once_only_one_has_the_session(
    opened: Opener,
) -> None:
    async with opened() as sessions, service(sessions) as client:
        for number in range(ROUNDS):
            asked = [
                client.get(f"/orders/{number}", headers=as_user("u-1") if one % 2 else {})
                for one in range(FIRSTS)
            ]
            found = await asyncio.gather(*asked)
            served = [response.json()["user"] for response in found if response.status_code == 200]
            assert sorted({response.status_code for response in found}) == [200, 403]
            assert (len(served), len(set(served))) == (FIRSTS // 2, 1)


async def test_a_key_whose_session_ends_under_a_look_has_a_new_one() -> None:
    clock = FakeClock()
    async with SessionManager.open("memory://", clock=clock) as inner:
        store = FaultyStore(inner.store)
        sessions = SessionManager(store, clock=clock)
        async with service(sessions, expiry=Expiry(idle=60)) as client:
            first = (await client.get("/orders/42?set=a")).json()

            async def gone() -> None:
                await inner.delete(first["id"])

            clock.advance(40)
            store.delay("touch", until=gone)
            assert (await client.get("/orders/42")).json()["state"] == {}


async def test_an_api_key_has_a_session_and_is_not_kept(in_memory: Opener) -> None:
    async with in_memory() as sessions, service(sessions) as client:
        first = await client.get("/?set=a", headers={"x-api-key": "key-of-1"})
        again = await client.get("/", headers={"X-Api-Key": "key-of-1"} | as_user("u-1"))
        assert again.json() == first.json()
        session = await sessions.require(first.json()["id"])
        assert session.user == "u-1"
        assert not any("key-of-1" in value for value in session.labels.values())
        for key in ("unknown", "k" * 2_000):
            assert (await client.get("/", headers={"x-api-key": key})).status_code == 401
        mixed = await client.get("/", headers={"x-api-key": "key-of-1"} | as_user("u-2"))
        assert mixed.status_code == 403


async def test_strangers_have_none_or_one_of_their_own_or_are_refused(in_memory: Opener) -> None:
    async with in_memory() as sessions:
        async with service(sessions) as client:
            assert (await client.get("/")).json() is None
        async with service(sessions, strangers="refuse") as client:
            assert (await client.get("/")).status_code == 401
        async with service(sessions, strangers="own") as client:
            first, second = (await client.get("/?set=a")).json(), (await client.get("/")).json()
            assert (first["state"], second["state"]) == ({"a": True}, {})
            assert first["id"] != second["id"]
        assert await sessions.count() == 0


async def test_paths_are_passed_by_whole_segments(in_memory: Opener) -> None:
    bypass = ["/health", "/static/"]
    async with in_memory() as s, service(s, strangers="refuse", bypass=bypass) as client:
        for path in ("/health", "/health/live", "/static/a.css"):
            assert (await client.get(path)).json() is None
        for path in ("/healthy", "/static-admin", "/"):
            assert (await client.get(path)).status_code == 401


async def test_a_request_that_fails_saves_nothing(in_memory: Opener) -> None:
    async with in_memory() as sessions, service(sessions) as client:
        headers = as_user("u-1")
        assert (await client.get("/?set=a&status=500", headers=headers)).status_code == 500
        await client.get("/?set=b&status=404", headers=headers)
        assert (await client.get("/", headers=headers)).json()["state"] == {"b": True}
        assert sessions.scopes.live() == frozenset()
        assert current_scope() is None


async def test_a_late_write_brings_no_session_back(opened: Opener) -> None:
    async def end(request: Request) -> Response:
        session = request.scope["identity"]
        await sessions.end(session.id)
        session.state["late"] = True
        return PlainTextResponse("done")

    async with opened() as sessions:
        app = IdentityMiddleware(
            Starlette(routes=[Route("/", end)]), sessions=sessions, user=user_of
        )
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://t") as client:
            assert (await client.get("/", headers=as_user("u-1"))).text == "done"
            assert await sessions.count() == 0


async def test_trouble_with_the_store_is_told_and_makes_no_session() -> None:
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        async with service(SessionManager(store)) as client:
            before = (await client.get("/", headers=as_user("u-1"))).json()
            store.fail("list", times=None)
            assert (await client.get("/", headers=as_user("u-1"))).status_code == 503
            store.heal()
            assert (await client.get("/", headers=as_user("u-1"))).json() == before


async def test_what_can_not_be_stored_before_the_response_begins_is_503(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the application sends then is not sent, and nothing is stored later."""
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        async with service(SessionManager(store), strangers="own") as client:
            before = (await client.get("/?set=a", headers=as_user("u-1"))).json()
            for headers in (as_user("u-1"), {}):
                store.fail("commit", "create")
                answer = await client.get("/?set=b", headers=headers)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert "b" not in answer.text.split()
                store.heal()
            assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
            assert (await client.get("/", headers=as_user("u-1"))).json() == before
            assert await inner.count() == 1


async def stream(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer in parts, and change the session after each."""
    state = scope["identity"].state
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in range(PARTS):
        state["part"] = part
        await send({"type": "http.response.body", "body": b"part ", "more_body": True})
    state["part"] = "last"
    await send({"type": "http.response.body", "body": b"last"})
    state["part"] = "after"


@pytest.mark.parametrize(("failures", "kept"), [(1, "after"), (None, None)])
async def test_what_can_not_be_stored_once_the_response_has_begun_is_logged(
    caplog: pytest.LogCaptureFixture, failures: int | None, kept: str | None
) -> None:
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        app = IdentityMiddleware(stream, sessions=SessionManager(store), user=user_of)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://t") as client:
            store.fail("commit", times=failures)
            answer = await client.get("/", headers=as_user("u-1"))
            assert (answer.status_code, answer.text) == (200, "part " * PARTS + "last")
            store.heal()
        assert {record.levelname for record in caplog.records} == {"ERROR"}
        assert len(caplog.records) == (1 if failures else 2)  # not one for each part
        found = await inner.find(user="u-1")
        assert found is not None
        assert found.state.get("part") == kept


async def test_a_session_of_a_stranger_that_can_not_be_ended_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        async with service(SessionManager(store), strangers="own") as client:
            store.fail("get", times=None)
            assert (await client.get("/?set=a")).status_code == 200
            assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_trouble_of_the_application_is_the_applications() -> None:
    """Also once the response has begun: whoever looks for failures has to see it."""

    async def fail(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Unavailable("another store", "it is down")

    async with SessionManager.open("memory://") as sessions:
        app = IdentityMiddleware(fail, sessions=sessions, user=user_of)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://t") as client:
            with pytest.raises(Unavailable, match="another store"):
                await client.get("/", headers=as_user("u-1"))


async def test_what_can_be_no_key_is_a_bad_request(in_memory: Opener) -> None:
    async with in_memory() as sessions, service(sessions) as client:
        for key in ("x" * 300, "%00"):
            answer = await client.get(f"/orders/{key}", headers=as_user("u-1"))
            assert answer.status_code == 400


async def test_after_its_deadline_the_next_request_begins_anew() -> None:
    clock = FakeClock()
    opened = SessionManager.open("memory://", clock=clock)
    async with opened as sessions, service(sessions, expiry=Expiry(idle=60)) as client:
        first = (await client.get("/?set=a", headers=as_user("u-1"))).json()
        clock.advance(59)
        assert (await client.get("/", headers=as_user("u-1"))).json() == first
        clock.advance(60)
        assert (await client.get("/", headers=as_user("u-1"))).json()["state"] == {}


async def test_a_login_of_the_web_is_an_identity(in_memory: Opener) -> None:
    """The session of the user beside that of the browser: two browsers, one of it."""

    async def login(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/login":
            await scope["session"].login("u-1")
            await PlainTextResponse("")(scope, receive, send)
        else:
            await inner(scope, receive, send)

    async with in_memory() as sessions:
        app = Starlette(routes=[Route("/{path:path}", work)])
        inner = IdentityMiddleware(app, sessions=sessions)
        transport = httpx2.ASGITransport(SessionMiddleware(login, sessions=sessions))
        found = []
        for _ in range(2):
            async with httpx2.AsyncClient(transport=transport, base_url="https://t") as client:
                assert (await client.get("/")).json() is None
                await client.get("/login")
                found.append((await client.get("/")).json())
        assert found[0] == found[1]
        assert found[0]["user"] == "u-1"
        assert await sessions.count() == 3


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (SimpleUser("ada"), "ada"),
        (UnauthenticatedUser(), None),
        ("ada", "ada"),
        ("", None),
        (None, None),
    ],
)
def test_who_is_authenticated_is_known_from_the_scope(user: object, expected: str | None) -> None:
    assert authenticated_user({"type": "http", "user": user}) == expected


async def test_settings_that_make_no_sense_are_refused(in_memory: Opener) -> None:
    async with in_memory() as sessions:
        for options in ({"strangers": "some"}, {"bypass": "/health"}, {"bypass": ["health"]}):
            with pytest.raises(InvalidSetting):
                service(sessions, **options)

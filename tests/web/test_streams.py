"""What changes after a response has begun: streams, background work, WebSockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.browser import Browser, Client, Site

from sojourn import Closed, SessionManager, Unavailable, current_session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore
from sojourn.web import SessionMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sojourn.testing.faults import Call, Fault
    from sojourn.web.asgi import App, Receive, Scope, Send


def site(sessions: SessionManager, app: App | None = None, **options: Any) -> Browser:
    """Return a browser in front of an application."""
    return Browser(SessionMiddleware(app or Site(), sessions=sessions, **options))


async def logged_in(sessions: SessionManager, app: App, **options: Any) -> Browser:
    """Return a browser that is logged in, in front of another application by now."""
    browser = site(sessions)
    await browser.get("/login")
    browser.app = SessionMiddleware(app, sessions=sessions, **options)
    return browser


async def stored(sessions: SessionManager, browser: Browser) -> dict[str, Any]:
    """Return what the store has of a browser's session."""
    session = await sessions.require(browser.token.split(".")[0])
    return {key: value for key, value in session.state.items() if not key.startswith("~")}


async def test_a_streaming_response_changes_the_session() -> None:
    async def stream(scope: Scope, _receive: Receive, send: Send) -> None:
        session = scope["session"]
        session["before"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in range(3):
            session["parts"] = part + 1
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        session["after"] = 1  # as a background task does

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, stream)
        await browser.get("/")
        assert await stored(sessions, browser) == {"before": 1, "parts": 3, "after": 1}


async def test_what_is_written_before_the_response_is_there_when_it_begins() -> None:
    """Whoever follows a redirect reads it, on any other server."""
    seen: list[dict[str, Any]] = []

    async def redirect(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["session"]["n"] = 1
        await send({"type": "http.response.start", "status": 303, "headers": []})
        seen.append(await stored(sessions, browser))
        await send({"type": "http.response.body", "body": b""})

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, redirect)
        await browser.get("/")
        assert seen == [{"n": 1}]


async def test_a_client_that_goes_away_loses_nothing_that_was_begun() -> None:
    async def stream(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["n"] = 1
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def gone(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client is gone")

    async def receive() -> Any:
        return {"type": "http.request"}

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, stream)
        with pytest.raises(OSError, match="gone"):
            await browser.app(browser.scope("/"), receive, gone)
        assert await stored(sessions, browser) == {"n": 1}


async def test_a_cancelled_request_stores_what_it_had_begun_and_is_cancelled() -> None:
    begun = asyncio.Event()

    async def stream(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["n"] = 1
        begun.set()
        await asyncio.Event().wait()

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, stream)
        task = asyncio.ensure_future(browser.get("/"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stored(sessions, browser) == {"n": 1}


async def test_the_session_is_ambient_while_a_request_is_served() -> None:
    found: list[bool] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        web = scope["session"]

        def look() -> None:
            found.append(current_session() is web.session)

        look()
        await asyncio.gather(asyncio.to_thread(look), asyncio.create_task(_call(look)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, app)
        await browser.get("/")
        assert found == [True] * 3
        assert current_session() is None


async def _call(work: Callable[[], None]) -> None:
    work()


async def test_two_sessions_live_beside_each_other() -> None:
    from sojourn.web import Cookie

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["session"]["n"] = scope["session"].get("n", 0) + 1
        scope["admin"]["m"] = scope["admin"].get("m", 0) + 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = f"{dict(scope['session'])}{dict(scope['admin'])}".encode()
        await send({"type": "http.response.body", "body": body})

    async with SessionManager.open("memory://") as sessions:
        inner = SessionMiddleware(
            app, sessions=sessions, name="admin", cookie=Cookie(name="__Host-admin")
        )
        browser = Browser(SessionMiddleware(inner, sessions=sessions))
        await browser.get("/")
        assert set(browser.cookies) == {"__Host-sid", "__Host-admin"}
        assert (await browser.get("/")).body == b"{'n': 2}{'m': 2}"
        assert await sessions.count() == 2


async def test_a_url_is_opened_and_closed_with_the_application(tmp_path: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await Site()(scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})

    web = SessionMiddleware(app, sessions=f"sqlite:///{tmp_path / 'web.db'}")
    asked: asyncio.Queue[Any] = asyncio.Queue()
    told: asyncio.Queue[Any] = asyncio.Queue()
    running = asyncio.ensure_future(web({"type": "lifespan"}, asked.get, told.put))
    asked.put_nowait({"type": "lifespan.startup"})
    assert (await told.get())["type"] == "lifespan.startup.complete"
    browser = Browser(web)
    await browser.get("/login")
    assert (await browser.get("/read")).json["user"] == "ada"
    asked.put_nowait({"type": "lifespan.shutdown"})
    assert (await told.get())["type"] == "lifespan.shutdown.complete"
    await running
    with pytest.raises(Exception, match="closed"):
        await web.sessions.get("x")


async def test_a_server_without_a_lifespan_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not open says why: a write fails with it, a token that is refused logs it."""
    web = SessionMiddleware(Site(), sessions=f"sqlite:///{tmp_path / 's.db'}")
    around = web.around(Site())
    with pytest.raises(Closed, match=r"not open yet: .* no lifespan.*`async with middleware.open"):
        await Browser(around).get("/write")
    async with around.opened():
        browser = Browser(web)
        assert (await browser.get("/write")).status == 200
    other = SessionMiddleware(Site(), sessions=f"sqlite:///{tmp_path / 's.db'}")
    assert (await Browser(other, cookies=browser.cookies).get("/read")).status == 503
    assert "no lifespan" in caplog.text
    caplog.clear()
    assert (await browser.get("/read")).status == 503
    with pytest.raises(Closed, match=r"is closed$"):
        await Browser(web).get("/write")
    given = SessionMiddleware(Site(), sessions=SessionManager.open(f"sqlite:///{tmp_path}/t.db"))
    with pytest.raises(Closed, match=r"is not open yet$"):
        await Browser(given).get("/write")
    assert "no lifespan" not in caplog.text


async def test_other_kinds_of_connections_pass_through() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(dict(scope))

    async with SessionManager.open("memory://") as sessions:
        web = SessionMiddleware(app, sessions=sessions)
        for kind in ("lifespan", "something-new"):
            await web({"type": kind}, None, None)  # type: ignore[arg-type]  # nobody calls them
        assert seen == [{"type": "lifespan"}, {"type": "something-new"}]


# --- the store fails when it matters -----------------------------------------------------------


async def test_a_response_that_could_not_be_stored_is_not_given() -> None:
    """The page would promise what is not so: 503, and the session is as it was."""
    store = FaultyStore(MemoryStore())
    await store.open()
    sessions = SessionManager(store)
    browser = site(sessions)
    await browser.get("/write")
    store.fail("commit", times=None)
    answer = await browser.get("/write")
    assert (answer.status, answer.all("set-cookie")) == (503, [])
    store.heal()
    assert (await browser.get("/write")).json == 2
    await store.close()


async def test_trouble_after_the_response_is_noted() -> None:
    store = FaultyStore(MemoryStore())
    await store.open()
    sessions = SessionManager(store)

    async def late(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["n"] = 1
        store.fail("commit", times=None)
        await send({"type": "http.response.body", "body": b""})

    browser = await logged_in(sessions, late)
    assert (await browser.get("/")).status == 200
    assert browser.app.admission.notices.counts["failed"] == 1  # type: ignore[attr-defined]  # the app is ours
    store.heal()
    await store.close()


async def test_a_store_that_hangs_is_waited_for_only_so_long() -> None:
    store = FaultyStore(MemoryStore())
    await store.open()
    sessions = SessionManager(store)
    browser = await logged_in(sessions, Site(), timeout=0.01)
    store.delay("get", until=asyncio.Event().wait)
    assert (await browser.get("/read")).status == 503
    assert (await browser.get("/read")).json["user"] == "ada"
    await store.close()


async def test_a_failed_login_can_be_caught() -> None:
    """An explicit save tells; the request goes on as it likes."""
    store = FaultyStore(MemoryStore())
    await store.open()
    sessions = SessionManager(store)

    async def careful(session: Any) -> object:
        await session.login("ada")
        try:
            await session.save()
        except Unavailable:
            session.clear()
            return "try again"
        return "welcome"

    browser = site(sessions, Site(careful=careful))
    store.fail("create")
    answer = await browser.get("/careful")
    assert (answer.status, answer.json) == (200, "try again")
    assert (await browser.get("/careful")).json == "welcome"
    assert (await browser.get("/read")).json["user"] == "ada"
    await store.close()


# --- WebSockets --------------------------------------------------------------------------------


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, count what comes, answer with the count."""
    session = scope["session"]
    await receive()
    session["opened"] = True
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        session["said"] = [*session.get("said", []), message["text"]]
        await send({"type": "websocket.send", "text": str(len(session["said"]))})
    session["closed"] = message.get("code")


async def test_a_socket_stores_as_it_goes() -> None:
    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, echo)
        client = Client(browser)
        assert (await client.next())["type"] == "websocket.accept"
        assert await stored(sessions, browser) == {"opened": True}
        client.say("a")
        assert (await client.next())["text"] == "1"
        assert (await stored(sessions, browser))["said"] == ["a"]
        client.say("b")
        await client.next()
        await client.close()
        assert await stored(sessions, browser) == {
            "opened": True,
            "said": ["a", "b"],
            "closed": 1000,
        }


@pytest.mark.parametrize(("version", "told"), [("2.0", False), ("2.1", True), ("2.4", True)])
async def test_a_socket_gets_its_cookie_while_it_is_accepted(version: str, told: bool) -> None:
    async with SessionManager.open("memory://") as sessions:
        browser = site(sessions, echo)
        client = Client(browser, asgi={"version": "3.0", "spec_version": version})
        accept = await client.next()
        cookies = [value for name, value in accept.get("headers", []) if name == b"set-cookie"]
        assert bool(cookies) is told
        await client.close()


async def test_a_denied_socket_can_set_a_cookie() -> None:
    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        scope["session"]["denied"] = True
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async with SessionManager.open("memory://") as sessions:
        client = Client(site(sessions, deny))
        start = await client.next()
        assert [name for name, _ in start["headers"]] == [b"set-cookie"]
        await client.next()
        await client.done()


async def test_a_closing_socket_writes_nothing_over_a_later_change() -> None:
    """What another request stored meanwhile stays: a socket saves its own keys."""
    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, echo)
        client = Client(browser)
        await client.next()
        other = Browser(SessionMiddleware(Site(), sessions=sessions), cookies=browser.cookies)
        await other.get("/write")
        await client.close()
        assert await stored(sessions, browser) == {"opened": True, "n": 1, "closed": 1000}


async def test_a_socket_that_only_sends_is_closed_when_its_session_is_over() -> None:
    async def ticker(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0)

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions, ticker, socket_check=0.001)
        client = Client(browser)
        await client.next()
        await sessions.end(browser.token.split(".")[0], reason="logout")
        message = await client.next()
        while message["type"] == "websocket.send":
            message = await client.next()
        assert (message["type"], message["code"]) == ("websocket.close", 4401)
        await client.done()


async def test_trouble_with_the_store_closes_no_socket() -> None:
    store = FaultyStore(MemoryStore())
    await store.open()
    sessions = SessionManager(store)
    browser = await logged_in(sessions, echo, socket_check=0.001)
    client = Client(browser)
    await client.next()
    asked = asyncio.Event()

    def noted(call: Call) -> list[Fault]:
        if call.verb == "get":
            asked.set()
        return []

    store.follow(noted)
    store.fail("get", times=3)
    await asked.wait()
    client.say("a")
    assert (await client.next())["text"] == "1"
    store.heal()
    await client.close()
    await store.close()


async def test_a_socket_is_refused_without_the_store() -> None:
    store = FaultyStore(MemoryStore())
    await store.open()
    sessions = SessionManager(store)
    browser = await logged_in(sessions, echo)
    store.fail("get", times=None)
    closed = await Client(browser).next()
    assert (closed["type"], closed["code"]) == ("websocket.close", 1013)
    store.heal()
    await store.close()

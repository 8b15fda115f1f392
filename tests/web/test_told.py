"""What a browser can be told, and what not any more: tokens around the start of a response."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.browser import Browser, Client, Site

from sojourn import Ended, Expiry, InvalidId, InvalidQuery, SessionManager
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.testing.faults import Delay
from sojourn.web import Cap, Cookie, SessionMiddleware
from sojourn.web.admission import NOTHING
from sojourn.web.sockets import WebSitting

if TYPE_CHECKING:
    from sojourn.web import WebSession
    from sojourn.web.asgi import App, Message, Receive, Scope, Send
    from sojourn.web.notices import Notice

OLD_SERVER = {"version": "3.0", "spec_version": "2.0"}


def with_app(sessions: SessionManager, app: App, browser: Browser, **options: Any) -> Browser:
    """Return the same browser in front of another application."""
    inside = SessionMiddleware(app, sessions=sessions, **options)
    return Browser(inside, cookies=browser.cookies)


async def logged_in(sessions: SessionManager, **options: Any) -> Browser:
    """Return a browser that is logged in at the usual site."""
    browser = Browser(SessionMiddleware(Site(), sessions=sessions, **options))
    await browser.get("/login")
    return browser


async def only_accept(_scope: Scope, receive: Receive, send: Send) -> None:
    """Accept a socket, and wait for its end."""
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.accept"})


async def counted(sessions: SessionManager) -> int:
    """Return how many sessions are stored."""
    return len((await sessions.list(order="created")).items)


def cookie_of(accept: Message) -> str:
    """Return the cookie that a socket was accepted with, empty without one."""
    lines = [value.decode() for name, value in accept.get("headers", []) if name == b"set-cookie"]
    return lines[0].partition(";")[0].partition("=")[2] if lines else ""


# --- sockets: what is issued before they are accepted ------------------------------------------


async def test_a_socket_that_is_opened_renews_its_token_by_age_and_says_so() -> None:
    clock = FakeClock()
    options = {"renew_after": 60, "grace": 30}
    async with SessionManager.open("memory://", clock=clock) as sessions:
        browser = await logged_in(sessions, **options)
        clock.advance(61)
        client = Client(with_app(sessions, only_accept, browser, **options))
        renewed = cookie_of(await client.next())
        assert renewed not in ("", browser.token)
        await client.close()
        clock.advance(31)
        (name,) = browser.cookies
        browser.cookies[name] = renewed
        assert (await browser.get("/read")).json == {"user": "ada"}


async def test_a_server_that_takes_no_headers_renews_no_token_in_a_socket() -> None:
    clock = FakeClock()
    options = {"renew_after": 60, "grace": 30}
    async with SessionManager.open("memory://", clock=clock) as sessions:
        browser = await logged_in(sessions, **options)
        clock.advance(61)
        client = Client(with_app(sessions, only_accept, browser, **options), asgi=OLD_SERVER)
        assert cookie_of(await client.next()) == ""
        await client.close()
        clock.advance(31)
        assert (await browser.get("/read")).json == {"user": "ada"}


@pytest.mark.parametrize("verb", ["set", "login"])
async def test_what_begins_before_a_socket_is_accepted_gets_its_cookie(verb: str) -> None:
    """As a framework does it, whose dependencies run before it waits for the connection."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = scope["session"]
        session["seen"] = True
        if verb == "login":
            await session.login("ada")
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await receive()

    async with SessionManager.open("memory://") as sessions:
        browser = Browser(SessionMiddleware(Site(), sessions=sessions))
        for _ in range(2):
            client = Client(with_app(sessions, app, browser))
            token = cookie_of(await client.next())
            if token:
                browser.cookies["__Host-sid"] = token
            await client.close()
        user = "ada" if verb == "login" else None
        assert (await browser.get("/read")).json == {"user": user, "seen": True}
        assert await counted(sessions) == 1


async def test_a_session_that_begins_in_an_open_socket_is_not_stored() -> None:
    """Nobody could be given its token. The socket stays open."""
    notices: list[Notice] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            scope["session"]["said"] = True
            await send({"type": "websocket.send", "text": "heard"})

    async with SessionManager.open("memory://") as sessions:
        inside = SessionMiddleware(
            app, sessions=sessions, socket_check=0.001, on_notice=[notices.append]
        )
        client = Client(Browser(inside))
        await client.next()
        for _ in range(3):
            client.say("a")
            assert (await client.next())["text"] == "heard"
        await client.close()
        assert await counted(sessions) == 0
        assert {notice.kind for notice in notices} == {"lost"}


# --- sockets: the end --------------------------------------------------------------------------


async def test_30_a_socket_that_writes_is_closed_once_its_session_is_over() -> None:
    """Its late writes are dropped, and begin no session that nobody could open."""
    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions)
        inside = SessionMiddleware(only_accept, sessions=sessions)
        web = await inside.admission.admit([browser.token])
        sitting = WebSitting(inside.admission, web)
        sitting.seal()
        assert await sitting.is_open(used=True)
        await browser.get("/logout")
        for number in range(3):
            web["n"] = number
            assert await sitting.store() == NOTHING
            assert not await sitting.is_open(used=True)
        assert await counted(sessions) == 0


async def test_15_a_socket_in_use_keeps_its_session() -> None:
    clock = FakeClock()

    async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "heard"})

    async with SessionManager.open("memory://", clock=clock) as sessions:
        options = {"expiry": Expiry(idle=1_800)}
        browser = await logged_in(sessions, **options)
        client = Client(with_app(sessions, echo, browser, socket_check=0.0, **options))
        await client.next()
        for _ in range(40):
            clock.advance(60)
            client.say("still here")
            assert (await client.next())["type"] == "websocket.send"
        await client.close()
        assert (await browser.get("/read")).json == {"user": "ada"}


# --- requests: what comes after the start ------------------------------------------------------


def late(work: Any) -> App:
    """Return an application that answers, and then does something with the session."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        await work(scope["session"])

    return app


async def test_a_session_that_begins_after_the_response_is_not_stored() -> None:
    async def work(session: WebSession) -> None:
        session["late"] = True

    async with SessionManager.open("memory://") as sessions:
        answer = await Browser(SessionMiddleware(late(work), sessions=sessions)).get("/")
        assert (answer.status, await counted(sessions)) == (200, 0)


async def test_saving_it_oneself_says_why() -> None:
    async def work(session: WebSession) -> None:
        session["late"] = True
        with pytest.raises(Ended, match="the response had begun"):
            await session.save()
        with pytest.raises(InvalidQuery, match="the response has begun"):
            session.rotate()
        with pytest.raises(InvalidQuery, match="the response has begun"):
            await session.login("ada")

    async with SessionManager.open("memory://") as sessions:
        await Browser(SessionMiddleware(late(work), sessions=sessions)).get("/")
        assert await counted(sessions) == 0


async def test_a_late_write_begins_no_session_in_place_of_one_that_was_ended() -> None:
    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions)
        other = Browser(browser.app, cookies=browser.cookies)

        async def work(session: WebSession) -> None:
            await other.get("/logout")
            session["late"] = 1
            with pytest.raises(Ended):
                await session.save()
            session["late"] = 2

        answer = await with_app(sessions, late(work), browser).get("/")
        assert (answer.status, await counted(sessions)) == (200, 0)


async def test_a_request_that_fails_ends_no_session() -> None:
    """Clearing it is a change like any other: neither the store nor the cookie knows of it."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["session"].clear()
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions)
        answer = await with_app(sessions, app, browser).get("/")
        assert answer.all("set-cookie") == []
        assert (await browser.get("/read")).json == {"user": "ada"}


async def test_a_refusal_brings_the_token_that_was_stored_before() -> None:
    """Else nobody has the session any more: the old one is dead."""
    store = FaultyStore(MemoryStore())

    async def half(session: WebSession) -> None:
        session.rotate()
        await session.save()
        session["half"] = True
        store.fail("commit")

    async with SessionManager(store) as sessions:
        browser = await logged_in(sessions)
        shown = with_app(sessions, Site(half=half), browser)
        answer = await shown.get("/half")
        assert answer.status == 503
        assert shown.token != browser.token
        assert (await shown.get("/read")).json == {"user": "ada"}


@pytest.mark.parametrize("verb", ["login", "rotate"])
async def test_who_holds_the_session_holds_it_after_a_new_token_too(verb: str) -> None:
    """Its log, its documents and its state are reached by way of `session.session`."""
    async with SessionManager.open("memory://") as sessions:

        async def change(session: WebSession) -> str:
            rich = session.session
            assert rich is not None
            rich.state["first"] = 1
            if verb == "login":
                await session.login("ada")
            else:
                session.rotate()
            await session.save()
            assert session.session is rich
            assert rich.state["first"] == 1
            rich.state["second"] = 2
            assert rich.user == "ada"
            return "done"

        browser = await logged_in(sessions)
        shown = with_app(sessions, Site(change=change), browser)
        assert (await shown.get("/change")).json == "done"
        assert (await shown.get("/read")).json == {"user": "ada", "first": 1, "second": 2}


async def test_what_is_set_while_a_new_token_is_stored_is_kept_for_the_next_save() -> None:
    """On the session itself, and inside of a value that was looked at before."""
    store = FaultyStore(MemoryStore())
    async with SessionManager(store) as sessions:
        browser = await logged_in(sessions)
        inside = SessionMiddleware(Site(), sessions=sessions)
        web = await inside.admission.admit([browser.token])
        web["cart"] = [1]
        await web.save()
        web = await inside.admission.admit([browser.token])
        rich, cart = web.session, web["cart"]
        assert rich is not None
        web.rotate()
        delay = asyncio.Event()
        store.follow(lambda call: [Delay(delay)] if call.verb == "commit" else [])
        saving = asyncio.create_task(web.save())
        for _ in range(20):
            await asyncio.sleep(0)
        web["meanwhile"] = 1
        rich.state["too"] = 2
        cart.append(2)
        store.follow(None)
        delay.set()
        await saving
        assert web.session is rich
        await web.save()
        found = await sessions.require(rich.id)
        assert [found.state[key] for key in ("meanwhile", "too", "cart")] == [1, 2, [1, 2]]


async def test_a_value_that_was_held_over_a_login_under_a_cap_can_be_changed() -> None:
    async with SessionManager.open("memory://") as sessions:
        inside = SessionMiddleware(Site(), sessions=sessions, cap=Cap(3, "refuse"))
        web = await inside.admission.admit([])
        web["cart"] = [1]
        await web.save()
        web = await inside.admission.admit([inside.admission.reply(web).token or ""])
        cart = web["cart"]
        await web.login("ada")
        cart.append(2)
        await web.save()
        assert (await sessions.require(web.id or "")).state["cart"] == [1, 2]


@pytest.mark.parametrize("user", [42, "\ud800", "", None])
@pytest.mark.parametrize("cap", [None, Cap(1), Cap(1, "refuse")])
async def test_a_user_that_can_be_none_is_refused(user: Any, cap: Cap | None) -> None:
    async with SessionManager.open("memory://") as sessions:
        inside = SessionMiddleware(Site(), sessions=sessions, cap=cap)
        web = await inside.admission.admit([])
        with pytest.raises(InvalidId, match="user"):
            await web.login(user)


async def test_53_whatever_is_looked_at_makes_a_page_differ() -> None:
    """Its id, its age and whether it is new, too."""
    looks = ("id", "new", "expires_at", "time_left", "longest_at", "user", "auth", "session")

    async def look(session: WebSession, name: str) -> str:
        return repr(getattr(session, name))

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions)
        for name in looks:
            page = {name.replace("_", ""): lambda session, name=name: look(session, name)}
            shown = with_app(sessions, Site(**page), browser)
            answer = await shown.get(f"/{name.replace('_', '')}")
            assert answer.all("vary") == ["Cookie"], name


async def test_showing_it_is_no_look() -> None:
    async def shown(session: WebSession) -> str:
        return repr(session)

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions)
        answer = await with_app(sessions, Site(shown=shown), browser).get("/shown")
        assert answer.json == "<WebSession stored of a user>"
        assert answer.all("vary") == []


# --- names -------------------------------------------------------------------------------------


async def test_a_token_of_one_name_opens_nothing_under_another() -> None:
    """Or who is logged in at the shop were logged in where its administrators are."""
    async with SessionManager.open("memory://") as sessions:
        shop = await logged_in(sessions)

        async def read(scope: Scope, receive: Receive, send: Send) -> None:
            scope["session"] = scope["admin"]
            await Site()(scope, receive, send)

        cookie = Cookie(name="__Host-admin")
        inside = SessionMiddleware(read, sessions=sessions, name="admin", cookie=cookie)
        admin = Browser(inside, cookies={"__Host-admin": shop.token})
        assert (await admin.get("/read")).json == {"user": None}
        await admin.get("/login")
        assert (await admin.get("/rotate")).status == 200
        assert (await admin.get("/read")).json == {"user": "ada"}
        shop.cookies["__Host-sid"] = admin.token
        assert (await shop.get("/read")).json == {"user": None}


async def test_52_what_came_in_the_clear_is_not_upgraded() -> None:
    """A cookie of a plain name opens nothing, and none is set that plain HTTP would carry."""
    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions)
        plain = Browser(browser.app, cookies={"sid": browser.token, "session": browser.token})
        assert (await plain.get("/read")).json == {"user": None}
        line = (await plain.get("/login")).all("set-cookie")
        assert len(line) == 1
        assert line[0].startswith("__Host-sid=")
        assert "; Secure" in line[0]


async def test_58_what_can_not_be_stored_is_logged_without_an_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Here the session is ended after the response, and a hook of its end fails."""

    async def work(session: WebSession) -> None:
        session.clear()

    async with SessionManager.open("memory://") as sessions:
        browser = await logged_in(sessions)
        id = browser.token.partition(".")[0]

        @sessions.on_end
        async def fail(_session: object, _reason: str) -> None:
            raise OSError("no such archive")

        await with_app(sessions, late(work), browser).get("/")
        assert "EndFailed" in caplog.text
        assert id not in "".join(
            record.getMessage() for record in caplog.records if record.name == "sojourn.web"
        )

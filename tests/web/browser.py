"""A browser as far as sessions see it: it keeps cookies, and calls an ASGI application directly."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence

    from sojourn.web import WebSession
    from sojourn.web.asgi import App, Message, Receive, Scope, Send

    Page = Callable[[Any], Awaitable[object]]


class Answer(NamedTuple):
    """A response: its status, its headers as they came, and its body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as the value that the page returned."""
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key == name]


class Browser:
    """Keeps the cookies that it is given, and sends them back."""

    def __init__(
        self, app: App, *, agent: str = "Firefox", cookies: Mapping[str, str] = {}
    ) -> None:
        """`cookies` are there from the start."""
        self.app = app
        self.agent = agent
        self.cookies = dict(cookies)

    def copy(self) -> Browser:
        """Return another one with the same cookies: a second tab before either has loaded."""
        return Browser(self.app, agent=self.agent, cookies=self.cookies)

    @property
    def token(self) -> str:
        """The only cookie's value."""
        (value,) = self.cookies.values()
        return value

    def scope(self, path: str, headers: Sequence[tuple[str, str]] = (), **more: Any) -> Scope:
        """Return the scope of a request."""
        given = {name for name, _ in headers}
        usual = [("host", "shop.example"), ("user-agent", self.agent)]
        sent = [*(pair for pair in usual if pair[0] not in given), *headers]
        if self.cookies:
            sent.append(("cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items())))
        path, _, query = path.partition("?")
        return {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent],
            "client": ("192.0.2.7", 50_000),
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            **more,
        }

    async def get(self, path: str, *headers: tuple[str, str]) -> Answer:
        """Ask for a page and keep the cookies that come with it."""
        status, raw, body = 0, [], b""

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, raw, body
            if message["type"] == "http.response.start":
                assert not status, "a response begins once"
                status, raw = message["status"], list(message["headers"])
            else:
                assert status, "a body comes after the start"
                body += message.get("body", b"")

        await self.app(self.scope(path, headers), receive, send)
        answer = Answer(status, [(k.decode(), v.decode()) for k, v in raw], body)
        self._keep(answer)
        return answer

    def _keep(self, answer: Answer) -> None:
        for line in answer.all("set-cookie"):
            pair, _, attributes = line.partition(";")
            name, _, value = pair.partition("=")
            if "max-age=0" in attributes.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value


class Site:
    """An application whose pages are functions of the session; it answers with what they return."""

    def __init__(self, **pages: Page) -> None:
        """`/name` is the page `name`."""
        self.pages: dict[str, Page] = {**PAGES, **pages}

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer with what the page returns, as JSON."""
        page = self.pages[scope["path"].strip("/") or "home"]
        value = await page(scope.get("session"))
        status = 200
        if isinstance(value, tuple):
            status, value = value
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def home(_session: WebSession | None) -> object:
    """Look at nothing."""
    return "home"


async def read(session: WebSession) -> object:
    """Show what is in the session."""
    return {"user": session.user, **session}


async def write(session: WebSession) -> object:
    """Count up."""
    session["n"] = session.get("n", 0) + 1
    return session["n"]


async def login(session: WebSession) -> object:
    """Log Ada in."""
    await session.login("ada", auth="pwd")
    return session.user


async def logout(session: WebSession) -> object:
    """Log out."""
    await session.logout()
    return None


async def rotate(session: WebSession) -> object:
    """Get a new token."""
    session.rotate()
    return None


async def devices(session: WebSession) -> object:
    """List the user's sessions."""
    return [
        {"id": each.id, "agent": each.agent, "address": each.address, "current": each.current}
        for each in await session.devices()
    ]


async def fail(session: WebSession) -> object:
    """Write, then fail."""
    session["n"] = -1
    session.rotate()
    return 500, "failed"


PAGES: dict[str, Page] = {
    "home": home,
    "read": read,
    "write": write,
    "login": login,
    "logout": logout,
    "rotate": rotate,
    "devices": devices,
    "fail": fail,
}


class Client:
    """The client's end of a WebSocket, whose application runs in a task."""

    def __init__(self, browser: Browser, path: str = "/socket", **more: Any) -> None:
        """Nothing is sent yet."""
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._got: asyncio.Queue[Message] = asyncio.Queue()
        scope = browser.scope(path, type="websocket", **more)
        self._task = asyncio.ensure_future(browser.app(scope, self._sent.get, self._got.put))
        self._sent.put_nowait({"type": "websocket.connect"})

    async def next(self) -> MutableMapping[str, Any]:
        """Return the next message from the application, or raise what it failed with."""
        got = asyncio.ensure_future(self._got.get())
        await asyncio.wait([got, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not got.done():
            got.cancel()
            await self._task
            raise EOFError("the application is done")
        return got.result()

    def say(self, text: str) -> None:
        """Send a text."""
        self._sent.put_nowait({"type": "websocket.receive", "text": text})

    async def close(self) -> None:
        """Go away, and wait until the application is done."""
        self._sent.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self._task

    async def done(self) -> None:
        """Wait until the application is done."""
        await self._task

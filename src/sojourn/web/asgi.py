"""The ASGI middleware: sessions for HTTP and WebSocket, for every framework that speaks ASGI."""

from __future__ import annotations

import copy
import logging
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from sojourn.context import completed
from sojourn.errors import Closed, InvalidSetting, SojournError, Unavailable
from sojourn.manager import SessionManager
from sojourn.reaper import Reaper
from sojourn.scopes import lend, unlend
from sojourn.web.admission import DEFAULT_EXPIRY, GRACE_SECONDS, NOTHING, TIMEOUT_SECONDS, Admission
from sojourn.web.cookies import Cookie, PlainWarning
from sojourn.web.notices import Listener, Notices, Source, said_of
from sojourn.web.policies import FAILURE, REFUSAL, RETRY_AFTER, UNAVAILABLE, Policies, Policy
from sojourn.web.sockets import SOCKET_CHECK_SECONDS, Socket, SocketClosed, WebSitting
from sojourn.web.tokens import Tokens
from sojourn.web.transports import CookieTransport, Header
from sojourn.web.websession import WebSession

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Mapping,
        MutableMapping,
        Sequence,
    )

    from sojourn.expiry import Expiry
    from sojourn.web.admission import Reply
    from sojourn.web.caps import Cap
    from sojourn.web.devices import Devices
    from sojourn.web.transports import Transport

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("sojourn.web")

NO_LIFESPAN = (
    ": SessionMiddleware was told of no lifespan, so the server runs none, or this application "
    "is mounted in another; open it with `async with middleware.opened()`, or give an open manager"
)
"""Why the store of a URL is not open when a request comes, and what to do about it."""


class SessionMiddleware:
    """Puts a `WebSession` into `scope["session"]` of each request, and stores what changes.

    A request without a token costs no call of the store. One that only reads writes nothing but a
    touch now and then. What changed is stored before the response begins, and again at its end, for
    streams, sockets and background tasks; a request that fails (an exception, a status of 500 or
    more) stores nothing but what it saved itself.
    """

    def __init__(
        self,
        app: App,
        *,
        sessions: SessionManager | str,
        cookie: Cookie | None = None,
        header: Header | None = None,
        expiry: Expiry = DEFAULT_EXPIRY,
        keys: Sequence[str | bytes] = (),
        name: str = "session",
        policy: Policy | Mapping[str, Policy] = "required",
        renew_after: float | None = None,
        grace: float = GRACE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        cap: Cap | None = None,
        keep_device: bool = True,
        on_notice: Sequence[Listener] = (),
        notice_key: bytes | None = None,
        clear_site_data: bool = False,
        socket_check: float = SOCKET_CHECK_SECONDS,
    ) -> None:
        """Wrap `app`.

        `sessions` is a manager that somebody opens and closes, or the URL of a store that is opened
        and swept from the start of the application to its end. Tokens travel in `cookie`, or, with
        `header`, in that and nothing else. `keys` sign them. `name` is the session's place in the
        scope: two middlewares with two names and cookies keep two sessions. `policy` is one word
        for all paths, or one by prefix of the path, the longest that fits. `renew_after`, `grace`,
        `timeout`, `cap`, `keep_device` are explained at `Admission`. `on_notice` is told what
        befalls sessions; `notice_key` makes the hashes in it the same in all processes.
        `clear_site_data` sends that header at a logout. An open socket learns within
        `socket_check` seconds that its session was ended.

        Raises `InvalidSetting`, `InvalidQuery` for what makes no sense, when it is made.
        """
        if cookie is not None and header is not None:
            raise InvalidSetting("header", "SessionMiddleware", "give a cookie or a header")
        self.app = app
        """The application inside."""
        self._own = isinstance(sessions, str)
        self.sessions = SessionManager.open(sessions) if isinstance(sessions, str) else sessions
        """The manager underneath."""
        self.admission = Admission(
            self.sessions,
            tokens=Tokens(keys),
            expiry=expiry,
            renew_after=renew_after,
            grace=grace,
            timeout=timeout,
            cap=cap,
            keep_device=keep_device,
            notices=Notices(on_notice, notice_key),
            name=name,
        )
        """What tokens go through; its `notices` count."""
        self._transport: Transport = (
            CookieTransport(cookie or Cookie()) if header is None else header
        )
        self._name = name
        self._policies = Policies(policy)
        self._clear_site_data = clear_site_data
        self._socket_check = socket_check
        self._plain = PlainWarning(cookie)
        self._begun = threading.Event()  # what `around` returns shares it

    @property
    def devices(self) -> Devices:
        """All users' sessions, for administrators: list them, end them."""
        return self.admission.devices

    @property
    def transport(self) -> Transport:
        """How tokens travel: for frameworks and tests that speak for a browser."""
        return self._transport

    @property
    def name(self) -> str:
        """The session's place in the scope."""
        return self._name

    def around(self, app: App) -> Self:
        """Return the same middleware around another application: all that is counted is shared.

        For frameworks that wrap each route by itself.
        """
        other = copy.copy(self)
        other.app = app
        return other

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the store of a URL, sweep it, and close it at the end.

        A server's lifespan does this by itself; without one, what needs the store raises `Closed`
        outside of this. A manager that was given is its maker's to open.
        """
        async with AsyncExitStack() as stack:
            if self._own:
                await stack.enter_async_context(self.sessions)
                self._begun.set()
                await stack.enter_async_context(Reaper(self.sessions))
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. What is neither HTTP nor WebSocket passes through."""
        kind = scope["type"]
        if kind == "lifespan" and self._own:
            await self._live(scope, receive, send)
            return
        policy = "skip"
        if kind in ("http", "websocket"):
            policy = self._policies.of(scope.get("path", "/"))
        if policy == "skip":
            await self.app(scope, receive, send)
            return
        headers = scope["headers"]
        presented = self._transport.presented(headers)
        source = _source(scope, headers)
        if self._plain.due:
            self._plain.look(_host(headers))
        if not presented:
            web = WebSession(self.admission, source)
        else:
            try:
                web = await self.admission.admit(presented, source)
            except SojournError as error:
                self._note_trouble(error, source)
                if policy == "required":
                    await refuse(scope, send)
                    return
                web = self.admission.unavailable(source)
        scope[self._name] = web
        ambient = lend(web)
        try:
            if kind == "http":
                await self._http(web, scope, receive, send)
            else:
                await self._socket(web, scope, receive, send)
        except Closed as error:
            self._explain(error)
            raise
        finally:
            unlend(ambient)

    async def _http(self, web: WebSession, scope: Scope, receive: Receive, send: Send) -> None:
        begun = refused = failed = False

        async def send_saved(message: Message) -> None:
            nonlocal begun, refused, failed
            if refused:
                return
            if not begun and message["type"] == "http.response.start":
                failed = message["status"] >= FAILURE
                reply = NOTHING
                if web.modified or web.erase or web.issued is not None:
                    try:
                        reply = await self._settled(web, failed=failed)
                    except Unavailable as error:
                        refused = True
                        self._note_trouble(error, web.source)
                        reply = self.admission.reply(web)  # of what it had stored itself
                        await refuse(scope, send, self._transport.told(reply))
                        return
                begun = True
                self._tell(message, web, reply)
                web.seal()
            await send(message)

        try:
            await self.app(scope, receive, send_saved)
        finally:
            if begun and not failed and web.modified:
                await completed(self._flush(web))

    async def _socket(self, web: WebSession, scope: Scope, receive: Receive, send: Send) -> None:
        sitting = WebSitting(self.admission, web)
        socket = Socket(sitting, scope, receive, send, check=self._socket_check)
        try:
            await self.app(scope, socket.receive, socket.send(self._transport))
        except SocketClosed:
            pass  # an application that only sends has learned so that it is over
        finally:
            await completed(self._flush(web))

    async def _settled(self, web: WebSession, *, failed: bool) -> Reply:
        """Store what changed, but nothing of a request that failed, and return what to tell."""
        return self.admission.reply(web) if failed else await self.admission.settle(web)

    async def _flush(self, web: WebSession) -> None:
        """Store what changed after the response began. Nobody is there to be told of an error."""
        try:
            await self.admission.settle(web)
        except SojournError as error:
            self._note_trouble(error, web.source)

    def _tell(self, message: Message, web: WebSession, reply: Reply) -> None:
        """Add the headers of a response: the cookie, and what keeps it out of caches."""
        if not web.accessed and reply is NOTHING:
            return
        headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
        if reply is not NOTHING and (told := self._transport.told(reply)):
            headers = [pair for pair in headers if pair[0].lower() != b"cache-control"]
            headers.append((b"cache-control", b"no-store"))
            headers += told
            if reply.erase and self._clear_site_data:
                headers.append((b"clear-site-data", b'"cache", "cookies", "storage"'))
        headers.append((b"vary", self._transport.vary))
        message["headers"] = headers

    def _note_trouble(self, error: SojournError, source: Source) -> None:
        log.error("sessions can not be asked: %s%s", said_of(error), self._why(error))
        self.admission.notify("failed", source=source, reason=type(error).__name__)

    def _explain(self, error: Closed) -> None:
        """Raise the error anew if more can be said of it."""
        if why := self._why(error):
            raise Closed(error.what, error.reason + why) from error

    def _why(self, error: SojournError) -> str:
        """Return why the store of a URL was never opened, if that is the error."""
        if not self._own or self._begun.is_set() or not isinstance(error, Closed):
            return ""
        return NO_LIFESPAN if error.what == self.sessions.store.name else ""

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the store before the application starts, close it when that has shut down."""
        async with AsyncExitStack() as stack:

            async def receive_open() -> Message:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    await stack.enter_async_context(self.opened())
                return message

            async def send_closed(message: Message) -> None:
                if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                    await stack.aclose()
                await send(message)

            await self.app(scope, receive_open, send_closed)


async def refuse(scope: Scope, send: Send, told: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Answer that sessions are unavailable: 503, or a socket that is not accepted.

    `told` are more headers: a token that was stored has to reach the browser all the same.
    """
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013, "reason": "sessions are unavailable"})
        return
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(REFUSAL)).encode()),
        (b"cache-control", b"no-store"),
        (b"retry-after", RETRY_AFTER),
        *told,
    ]
    await send({"type": "http.response.start", "status": UNAVAILABLE, "headers": headers})
    await send({"type": "http.response.body", "body": REFUSAL})


def _host(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == b"host"), "")


def _source(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> Source:
    client = scope.get("client")
    for name, value in headers:
        if name == b"user-agent":
            return Source(client[0] if client else "", value.decode("latin-1"))
    return Source(client[0] if client else "")

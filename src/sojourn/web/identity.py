"""Identity: the session of who asks, found by user, API key or business key, without any cookie.

For services: who asks is known from elsewhere, and has one session, however many requests begin at
once. Browsers have `SessionMiddleware`; both may be used, that one outside of this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sojourn.errors import (
    Ended,
    InvalidId,
    InvalidSetting,
    NotFound,
    NotOwner,
    RoleTaken,
    Unavailable,
)
from sojourn.web.admission import DEFAULT_EXPIRY, NOTHING, TIMEOUT_SECONDS
from sojourn.web.asgi import refuse
from sojourn.web.bounded import Bounded
from sojourn.web.notices import said_of
from sojourn.web.policies import FAILURE
from sojourn.web.sockets import SOCKET_CHECK_SECONDS, Socket, SocketClosed, close_code
from sojourn.web.websession import WebSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sojourn.errors import SojournError
    from sojourn.expiry import Expiry
    from sojourn.manager import SessionManager
    from sojourn.session import Session
    from sojourn.web.admission import Reply
    from sojourn.web.asgi import App, Message, Receive, Scope, Send

    Identify = Callable[[Scope], str | Awaitable[str | None] | None]
    """Says who a request is from, `None` for nobody; it may be async."""

    CheckKey = Callable[[str], str | Awaitable[str | None] | None]
    """Says whose an API key is, `None` for nobody's; it may be async."""

log = logging.getLogger("sojourn.web")

API_KEY_HEADER = "x-api-key"
"""The header that carries an API key."""

MAX_API_KEY = 1_024
"""Characters of an API key: more is no key, and is not handed on."""

Stranger = Literal["none", "refuse", "own"]
"""What becomes of a request without any identity: it has no session, it is refused (401), or it has
one of its own that ends with it. A business key counts as an identity: of what it names."""


class Who(NamedTuple):
    """Whose session a request is about: a user's, that of a key, or a key's that is the user's."""

    user: str | None = None
    key: str | None = None


class Refused(Exception):
    """A request that is not served: `status` and the text that says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class _Failed(Exception):
    """Leaves a scope without saving what a failed request changed."""


def authenticated_user(scope: Scope) -> str | None:
    """Return who is authenticated: by a `SessionMiddleware` outside, else by `scope["user"]`.

    That is what Starlette's `AuthenticationMiddleware` sets: an object with `is_authenticated`, and
    `identity` or `display_name`; a plain string counts too. `None` for nobody.
    """
    session = scope.get("session")
    if isinstance(session, WebSession) and session.user is not None:
        return session.user
    user = scope.get("user")
    if isinstance(user, str):
        return user or None
    if not getattr(user, "is_authenticated", False):
        return None
    try:
        found = user.identity  # type: ignore[union-attr]  # Starlette's, or somebody's like it
    except (AttributeError, NotImplementedError):
        found = getattr(user, "display_name", None)
    return str(found) if found else None


class IdentityMiddleware:
    """Works each request in the session of who asks: ambient, in `scope[name]`, saved per key.

    Looked at in this order: a business key, an API key, the user. Of many first requests at once
    one makes the session. It is saved before the response begins and at its end; a request that
    fails (an exception, a status of 500 or more) saves nothing. Put it inside of what
    authenticates.

    - A key whose session belongs to somebody else, also for a request without a user, and an API
      key of another user than the one who is authenticated: 403.
    - An API key that nobody owns: 401. A key that can be no name: 400.
    - A store in trouble: 503, and once the response has begun, a line in the log.
    """

    def __init__(
        self,
        app: App,
        *,
        sessions: SessionManager,
        user: Identify = authenticated_user,
        api_key: CheckKey | None = None,
        key: Identify | None = None,
        strangers: Stranger = "none",
        bypass: Sequence[str] = (),
        expiry: Expiry = DEFAULT_EXPIRY,
        timeout: float = TIMEOUT_SECONDS,
        name: str = "identity",
        socket_check: float = SOCKET_CHECK_SECONDS,
    ) -> None:
        """Wrap `app`; `sessions` is opened and closed by whoever made it.

        `user(scope)` says who is authenticated. `api_key(text)` says whose an API key is, `None`
        for nobody's; only a hash of it is kept. `key(scope)` returns a name of your own, such as
        the number of an order. Each may be async. Paths at or below one of `bypass` are passed on
        untouched. `timeout` bounds the calls of the store, in seconds. An open socket learns within
        `socket_check` seconds that its session was ended. Raises `InvalidSetting`.
        """
        if strangers not in ("none", "refuse", "own"):
            raise InvalidSetting("strangers", "IdentityMiddleware", "give none, refuse or own")
        if isinstance(bypass, str) or not all(path.startswith("/") for path in bypass):
            raise InvalidSetting("bypass", "IdentityMiddleware", "give paths that begin with /")
        self.app = app
        """The application inside."""
        self.sessions = sessions
        """The manager underneath."""
        self._user = user
        self._api_key = api_key
        self._key = key
        self._strangers = strangers
        self._bypass = tuple(path.rstrip("/") for path in bypass)
        self._expiry = expiry
        self._bounded = Bounded(sessions.store, timeout)
        self._name = name
        self._socket_check = socket_check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. What is neither HTTP nor WebSocket passes through."""
        if scope["type"] not in ("http", "websocket") or self._passes(scope.get("path", "/")):
            await self.app(scope, receive, send)
            return
        try:
            session = await self._session(scope)
        except Refused as refused:
            await _answer(scope, send, refused)
            return
        except (Unavailable, RoleTaken) as error:
            log.error("the session of a request can not be had: %s", said_of(error))  # noqa: TRY400 - no trace
            await refuse(scope, send)
            return
        if session is None:
            await self.app(scope, receive, send)
        else:
            await self._work(session, scope, receive, send)

    def _passes(self, path: str) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self._bypass)

    # --- who asks ------------------------------------------------------------------------------

    async def who(self, scope: Scope) -> Who | None:
        """Return whose session a request is about, `None` for nobody's. Raises `Refused`."""
        user = await _told(self._user(scope))
        found = Who(user=user)
        given = _header(scope, API_KEY_HEADER) if self._api_key is not None else None
        if given is not None and self._api_key is not None:
            owner = await _told(self._api_key(given)) if len(given) <= MAX_API_KEY else None
            if owner is None:
                raise Refused(401, "nobody has this API key")
            if user not in (None, owner):
                raise Refused(403, "the API key is of another user")
            digest = hashlib.sha256(given.encode()).hexdigest()
            found = Who(user=owner, key=f"api:{digest}")
        key = None if self._key is None else await _told(self._key(scope))
        if key is not None:
            return Who(user=found.user, key=f"key:{key}")
        return None if found == Who() else found

    async def _session(self, scope: Scope) -> Session | None:
        """Return the session to work in. Raises `Refused` and what the store does."""
        who = await self.who(scope)
        if who is None:
            if self._strangers == "refuse":
                raise Refused(401, "say who you are")
            return self.sessions.new(expiry=self._expiry) if self._strangers == "own" else None
        try:
            return await self._bounded(self._found(who))
        except NotOwner as error:
            raise Refused(403, "this is somebody else's") from error
        except InvalidId as error:
            raise Refused(400, f"this can not name a session: {error.reason}") from error

    async def _found(self, who: Who) -> Session:
        """Return the session of who asks, made if there is none. Raises `NotOwner`.

        Without a user it is looked at first: what belongs to a user is not even kept in use.
        """
        if who.user is None:
            found = await self.sessions.find(key=who.key)
            if found is not None:
                _nobodys(found)
                with contextlib.suppress(NotFound):  # it went meanwhile
                    return await self.sessions.touch(found)
        made = await self.sessions.get_or_create(user=who.user, key=who.key, expiry=self._expiry)
        return _nobodys(made) if who.user is None else made

    # --- working -------------------------------------------------------------------------------

    async def _work(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection inside a scope of the session."""
        scope[self._name] = session
        own = not session.stored
        serve = self._http if scope["type"] == "http" else self._socket
        begun: list[bool] = []
        served = False
        try:
            async with self.sessions.scope(session, end=own):
                await serve(session, scope, receive, send, begun)
                served = bool(begun)
                await self.save(session)
        except (_Failed, SocketClosed):
            pass
        except (Ended, NotFound) as error:
            if not begun or error.id != session.id:
                raise
            log.info("a late write was dropped: its session was ended")
        except Unavailable as error:
            if not served:
                raise
            _note_unsaved(error)

    async def _http(
        self, session: Session, scope: Scope, receive: Receive, send: Send, begun: list[bool]
    ) -> None:
        """Serve a request; raises `_Failed` after one that failed, or was refused."""
        failed = refused = troubled = False

        async def send_saved(message: Message) -> None:
            nonlocal failed, refused, troubled
            if refused:
                return
            starts = not begun and message["type"] == "http.response.start"
            if starts:
                failed = message["status"] >= FAILURE
            try:
                if not failed and not troubled:
                    await self.save(session)
            except Unavailable as error:
                _note_unsaved(error)
                refused = not begun
                troubled = True
                if refused:
                    await refuse(scope, send)
                    return
            if starts:
                begun.append(True)
            await send(message)

        await self.app(scope, receive, send_saved)
        if failed or refused:
            raise _Failed

    async def _socket(
        self, session: Session, scope: Scope, receive: Receive, send: Send, begun: list[bool]
    ) -> None:
        """Serve a socket, and close it when the session was ended."""
        begun.append(True)
        sitting = _Sitting(self, session)
        socket = Socket(sitting, scope, receive, send, check=self._socket_check)
        await self.app(scope, socket.receive, socket.send())

    async def save(self, session: Session) -> None:
        """Store what changed; what comes after the session was ended is dropped."""
        if not session.modified:
            return
        try:
            await self._bounded(self.sessions.save(session))
        except NotFound:
            log.info("a late write was dropped: its session was ended")

    async def is_open(self, session: Session, *, used: bool) -> bool:
        """Return whether a session is live, and still of the same user; `used` keeps it so."""
        if not session.stored:
            return True
        fresh = await self._bounded(self.sessions.get(session.id, touch=used))
        if fresh is None or fresh.epoch != session.epoch or not fresh.header.live:
            return False
        return fresh.user == session.user


class _Sitting:
    """The sitting of an identity's session: there is nothing to tell a browser."""

    def __init__(self, identity: IdentityMiddleware, session: Session) -> None:
        self._identity = identity
        self._session = session

    async def store(self) -> Reply:
        await self._identity.save(self._session)
        return NOTHING

    def seal(self) -> None:
        """There are no tokens."""

    async def is_open(self, *, used: bool) -> bool:
        return await self._identity.is_open(self._session, used=used)

    def note(self, error: SojournError | None) -> None:
        if error is None:
            log.info("a socket was closed: its session was ended")
        else:
            log.error("the session of a socket can not be asked: %s", said_of(error))


def _note_unsaved(error: Unavailable) -> None:
    log.error("what a request changed can not be stored: %s", error)


def _nobodys(session: Session) -> Session:
    """Return the session. Raises `NotOwner` if it belongs to a user."""
    if session.user is not None:
        raise NotOwner(session.id)
    return session


async def _told(answer: Any) -> str | None:
    found: str | None = await answer if inspect.isawaitable(answer) else answer
    return found or None


def _header(scope: Scope, wanted: str) -> str | None:
    for name, value in scope["headers"]:
        if name.lower() == wanted.encode():
            text: str = value.decode("latin-1").strip()
            return text or None
    return None


async def _answer(scope: Scope, send: Send, refused: Refused) -> None:
    """Answer a request that is refused, or close its socket."""
    if scope["type"] == "websocket":
        code = close_code(refused.status)
        await send({"type": "websocket.close", "code": code, "reason": refused.text})
        return
    body = refused.text.encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if refused.status == 401:  # noqa: PLR2004 - the number is the name of a status
        headers.append((b"www-authenticate", b"Session"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

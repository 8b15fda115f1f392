"""Starlette and FastAPI: the session as a dependency, who may go on, and errors as responses.

`pip install "sojourn[web]"`. The dependencies have no `yield`: saving is the middleware's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sojourn.errors import AuthNeeded, InvalidSetting, MissingExtra, TooManySessions, Unavailable
from sojourn.web.csrf import (
    CSRF_FIELD,
    CSRF_HEADER,
    CSRF_REFUSAL,
    SAFE_METHODS,
    is_plain_form,
    may_hold_field,
)
from sojourn.web.policies import REFUSAL, RETRY_AFTER
from sojourn.web.sockets import close_code
from sojourn.web.websession import WebSession

try:
    from starlette.exceptions import HTTPException, WebSocketException
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import PlainTextResponse
    from starlette.websockets import WebSocket
except ImportError as error:
    raise MissingExtra("sojourn.web.starlette", "web") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response

CHALLENGE = {"www-authenticate": "Session"}
"""What a 401 has to have (RFC 9110, 15.5.2)."""


def session_of(connection: HTTPConnection, name: str = "session") -> WebSession:
    """Return the session of a request or socket; `name` is the one the middleware was given.

    Raises `InvalidSetting` where no `SessionMiddleware` is around the application.
    """
    session = connection.scope.get(name)
    if not isinstance(session, WebSession):
        reason = f"there is none in scope[{name!r}]: app.add_middleware(SessionMiddleware, …)"
        raise InvalidSetting("SessionMiddleware", "sojourn.web.starlette", reason)
    return session


async def get_session(connection: HTTPConnection) -> WebSession:
    """Return the session: `session: Annotated[WebSession, Depends(get_session)]`."""
    return session_of(connection)


async def require_user(connection: HTTPConnection) -> str:
    """Return who is logged in: `user: Annotated[str, Depends(require_user)]`.

    401 while nobody is, or 503 where the session can not be asked; a socket is closed with 4401.
    """
    session = session_of(connection)
    user = session.user
    if user is None:
        _refuse_unavailable(connection, session)
        raise _refusal(connection, 401, "log in first")
    return user


def require_recent_auth(
    max_age: float, *, level: int = 0
) -> Callable[[HTTPConnection], Awaitable[str]]:
    """Return a dependency on a login no older than `max_age` seconds, at least of `level`.

    It returns who is logged in. 401 while nobody is; 403 for a login that is too old or too weak:
    ask for the password, then call `WebSession.login` again.
    """

    async def recent_user(connection: HTTPConnection) -> str:
        user = await require_user(connection)
        try:
            session_of(connection).require_recent_auth(max_age, level=level)
        except AuthNeeded as needed:
            raise _refusal(connection, 403, str(needed)) from needed
        return user

    return recent_user


async def require_csrf(request: Request) -> None:
    """Refuse (403) a request that does not send `WebSession.csrf_token` back.

    For `dependencies=[Depends(require_csrf)]`. It is looked for in the header `CSRF_HEADER`, then
    in the field `CSRF_FIELD` of a form. Methods that change nothing need none. What comes after it
    reads the form by `request.form()`, or one without files by `request.body()`.
    """
    if request.method in SAFE_METHODS:
        return
    given: object = request.headers.get(CSRF_HEADER)
    kind = request.headers.get("content-type", "")
    if given is None and may_hold_field(kind):
        if is_plain_form(kind):
            with suppress(RuntimeError):  # it was read as a form before
                await request.body()
        given = (await request.form()).get(CSRF_FIELD)
    session = session_of(request)
    if not session.check_csrf(given):
        _refuse_unavailable(request, session)
        raise _refusal(request, 403, CSRF_REFUSAL)


def exception_handlers() -> dict[int | type[Exception], Any]:
    """Return what makes responses of our errors: `FastAPI(exception_handlers=…())`.

    - `AuthNeeded`: 401 while nobody is logged in, else 403.
    - `TooManySessions`: 409, another session has to be ended first.
    - `Unavailable`: 503, to be tried again.

    A socket is closed with the code that goes with it.
    """
    return {
        AuthNeeded: _on_auth_needed,
        TooManySessions: _on_too_many_sessions,
        Unavailable: _on_unavailable,
    }


async def _on_auth_needed(connection: HTTPConnection, error: AuthNeeded) -> Response | None:
    session = connection.scope.get("session")
    known = isinstance(session, WebSession) and session.user is not None
    return await _answer(connection, 403 if known else 401, str(error))


async def _on_too_many_sessions(
    connection: HTTPConnection, error: TooManySessions
) -> Response | None:
    return await _answer(connection, 409, str(error))


async def _on_unavailable(connection: HTTPConnection, _error: Unavailable) -> Response | None:
    return await _answer(connection, 503, REFUSAL.decode())


async def _answer(connection: HTTPConnection, status: int, text: str) -> Response | None:
    """Answer a request, or close a socket."""
    if isinstance(connection, WebSocket):
        await connection.close(close_code(status), text)
        return None
    return PlainTextResponse(text, status, headers=_headers(status))


def _refusal(connection: HTTPConnection, status: int, text: str) -> Exception:
    """Return what the framework turns into an answer by itself."""
    if connection.scope["type"] == "websocket":
        return WebSocketException(close_code(status), text)
    return HTTPException(status, text, headers=_headers(status))


def _refuse_unavailable(connection: HTTPConnection, session: WebSession) -> None:
    """Raise 503 for an empty session that stands for one nobody could read: that is no logout."""
    if not session.available:
        raise _refusal(connection, 503, REFUSAL.decode().strip())


def _headers(status: int) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if status == 401:  # noqa: PLR2004 - the number is the name of a status
        headers |= CHALLENGE
    if status == 503:  # noqa: PLR2004 - the number is the name of a status
        headers["retry-after"] = RETRY_AFTER.decode()
    return headers

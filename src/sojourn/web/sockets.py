"""WebSockets: a session for as long as the socket lives, stored as it goes, and ended with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from sojourn.context import completed
from sojourn.errors import SojournError
from sojourn.web.admission import NOTHING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from sojourn.web.admission import Admission, Reply
    from sojourn.web.transports import Transport
    from sojourn.web.websession import WebSession

    Message = MutableMapping[str, Any]

SOCKET_CHECK_SECONDS = 5.0
"""How long an open socket may go on after its session was ended elsewhere."""

SESSION_ENDED = 4401
"""The code that such a socket is closed with: as 401 is for HTTP."""

ENDED = "the session was ended"


class SocketClosed(ConnectionError):
    """Nothing can be sent: the session was ended. Servers raise an `OSError` for closed sockets."""


def close_code(status: int) -> int:
    """Return the code that a socket is closed with where a request has this status: 401 is 4401.

    For 503 it is 1013, which says "try again later".
    """
    return 1013 if status == 503 else 4000 + status  # noqa: PLR2004 - the numbers are names


class Sitting(Protocol):
    """A session that somebody works in for as long as a socket is open."""

    async def store(self) -> Reply:
        """Store what changed; return what the browser has to be told."""

    def seal(self) -> None:
        """Note that the browser can be told nothing any more."""

    async def is_open(self, *, used: bool) -> bool:
        """Return whether it is still theirs; `used` keeps it so. Raises what the store does."""

    def note(self, error: SojournError | None) -> None:
        """Say that it could not be asked, or, with `None`, that its socket is closed."""


class WebSitting:
    """The sitting of a browser's session."""

    def __init__(self, admission: Admission, web: WebSession) -> None:
        self._admission = admission
        self._web = web

    async def store(self) -> Reply:
        """Store what changed, and finish even when cancelled."""
        if not (self._web.modified or self._web.erase or self._web.issued):
            return NOTHING
        return await completed(self._admission.settle(self._web))

    def seal(self) -> None:
        """Issue no more tokens."""
        self._web.seal()

    async def is_open(self, *, used: bool) -> bool:
        """Return whether the session is open, and its user the same."""
        return await self._admission.is_open(self._web, used=used)

    def note(self, error: SojournError | None) -> None:
        """Give notice."""
        if error is None:
            self._admission.notify("ended", self._web.held, reason="its socket was closed")
        else:
            self._admission.notify("failed", reason=type(error).__name__)


class Socket:
    """Stands between an application and its socket."""

    def __init__(
        self,
        sitting: Sitting,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        *,
        check: float,
    ) -> None:
        """`check` is how often, in seconds, it is looked whether the session is still open."""
        self._sitting = sitting
        self._receive = receive
        self._send = send
        self._check = check
        self._due = asyncio.get_running_loop().time() + check
        self._coming: asyncio.Task[Message] | None = None
        self._takes_headers = scope.get("asgi", {}).get("spec_version", "2.0") >= "2.1"
        self._closed = False
        self._used = False
        self._untold = NOTHING
        if not self._takes_headers:
            sitting.seal()

    async def receive(self) -> Message:
        """Return the next message; before it waits, what changed is stored.

        A session that was ended meanwhile ends the socket.
        """
        if self._closed:
            return {"type": "websocket.disconnect", "code": SESSION_ENDED, "reason": ENDED}
        await self._store()
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        try:
            while not await self._has_come(self._coming):
                if not await self._is_open():
                    return await self._close()
            if self._is_due() and not await self._is_open():
                return await self._close()
        except asyncio.CancelledError:
            self._coming.cancel()
            raise
        coming, self._coming = self._coming, None
        self._used = True
        return coming.result()

    async def _store(self) -> None:
        """Store what changed. What the browser has to be told waits for the answer to it."""
        reply = await self._sitting.store()
        if reply is not NOTHING:
            self._untold = reply

    async def _has_come(self, coming: asyncio.Task[Message]) -> bool:
        left = max(0.0, self._due - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait([coming], timeout=left)
        return bool(done)

    def _is_due(self) -> bool:
        return asyncio.get_running_loop().time() >= self._due

    async def _is_open(self) -> bool:
        """Return whether the session is open as far as can be told; ask again later."""
        self._due = asyncio.get_running_loop().time() + self._check
        used, self._used = self._used, False
        try:
            return await self._sitting.is_open(used=used)
        except SojournError as error:
            self._sitting.note(error)
            return True  # trouble with the store logs nobody out

    async def _close(self) -> Message:
        """Close the socket for the client, and for the application."""
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None
        self._sitting.note(None)
        self._closed = True
        await self._send({"type": "websocket.close", "code": SESSION_ENDED, "reason": ENDED})
        return {"type": "websocket.disconnect", "code": SESSION_ENDED, "reason": ENDED}

    def send(self, transport: Transport | None = None) -> Callable[[Message], Awaitable[None]]:
        """Return the `send` of the application: what changed is stored before anything goes out.

        Where the session was ended meanwhile it raises `SocketClosed`, as a server does for a
        client that is gone.
        """

        async def send(message: Message) -> None:
            sends = message["type"] == "websocket.send"
            if sends and not self._closed and self._is_due() and not await self._is_open():
                await self._close()
            if self._closed:
                if sends:
                    raise SocketClosed("the session was ended, and its socket closed")
                return
            await self._store()
            if message["type"] in ("websocket.accept", "websocket.http.response.start"):
                told = transport.told(self._untold) if transport and self._takes_headers else []
                if told:
                    message["headers"] = [*message.get("headers", ()), *told]
                self._sitting.seal()
            self._used = self._used or sends
            await self._send(message)

        return send

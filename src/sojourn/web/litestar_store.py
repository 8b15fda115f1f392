"""A Litestar `Store` on the sessions of a manager: for caches, rate limits, and what else asks.

`pip install "sojourn[litestar]"`. For sessions use `sojourn.web.litestar.SessionPlugin` instead: a
store by itself can neither rotate nor keep what two requests write at the same time.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64decode, b64encode
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from sojourn.errors import AlreadyExists, Conflict, Corrupt, InvalidId, MissingExtra, NotFound
from sojourn.expiry import NEVER, Expiry
from sojourn.limits import CREATE_ATTEMPTS, MAX_NAME, MAX_PAGE
from sojourn.manager import SessionManager
from sojourn.reaper import Reaper

try:
    from litestar.stores.base import NamespacedStore
except ImportError as error:
    raise MissingExtra("sojourn.web.litestar_store", "litestar") from error

if TYPE_CHECKING:
    from types import TracebackType

    from sojourn.session import Session

STORE_LABEL = "sojourn:store"
"""The label of a session that holds a value: which root namespace it belongs to."""

MAX_PATH = 180
"""Characters of a namespace with all that are around it: room is left for a key or its hash."""


class Store(NamespacedStore):
    """Keeps each value in a session of its own, with its deadline: on every store of sessions.

    Values are bytes up to some 3 MiB (`TooLarge` beyond). A namespace inside another is removed
    with it. Raises what a manager does; `Unavailable` is never a missing value.
    """

    __slots__ = ("_lifespan", "_own", "_path", "_root", "sessions")

    def __init__(
        self, sessions: SessionManager | str, *, namespace: str = "litestar", around: str = ""
    ) -> None:
        """`sessions` is a manager, or the URL of a store that is opened with the application.

        `around` is what `with_namespace` gives. Raises `InvalidId` for a bad namespace.
        """
        self._own = isinstance(sessions, str)
        self.sessions = SessionManager.open(sessions) if isinstance(sessions, str) else sessions
        """The manager underneath."""
        self._path = f"{around}{_escaped(namespace)}/"
        if len(self._path) > MAX_PATH:
            raise InvalidId("namespace", f"with those around it, it is over {MAX_PATH} characters")
        self._root = self._path.partition("/")[0]
        self._lifespan = AsyncExitStack()

    def with_namespace(self, namespace: str) -> Self:
        """Return a store inside this one. Raises `InvalidId` for one that is empty or too deep."""
        return type(self)(self.sessions, namespace=namespace, around=self._path)

    async def __aenter__(self) -> None:
        """Open the store of a URL, and sweep it."""
        if self._own:
            await self._lifespan.enter_async_context(self.sessions)
            await self._lifespan.enter_async_context(Reaper(self.sessions))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Close it."""
        await self._lifespan.aclose()

    async def set(
        self, key: str, value: str | bytes, expires_in: int | timedelta | None = None
    ) -> None:
        """Set a value, for `expires_in` seconds, or for ever."""
        seconds = _seconds(expires_in)
        if seconds is not None and seconds <= 0:
            await self.delete(key)
            return
        expiry = NEVER if seconds is None else Expiry(absolute=seconds)
        state = _state_of(value.encode() if isinstance(value, str) else value)
        for _attempt in range(CREATE_ATTEMPTS):
            if await self._replaced(key, state, expiry) or await self._created(key, state, expiry):
                return
        raise AlreadyExists(self._id(key), "it is set and removed over and over")

    async def _replaced(self, key: str, state: dict[str, str], expiry: Expiry) -> bool:
        """Set a value that is there; return whether it was."""
        session = await self.sessions.get(self._id(key))
        if session is None:
            return False
        session.state.clear()
        session.state.update(state)
        try:
            await self.sessions.save(session, expiry=expiry)
        except (NotFound, Conflict):  # it was removed meanwhile, and perhaps set again
            return False
        return True

    async def _created(self, key: str, state: dict[str, str], expiry: Expiry) -> bool:
        """Set a value that is not there; return whether it was not."""
        labels = {STORE_LABEL: self._root}
        try:
            await self.sessions.create(id=self._id(key), state=state, labels=labels, expiry=expiry)
        except AlreadyExists as error:
            if error.expired:  # its end fails, so it stands in the way
                raise
            return False
        return True

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """Return a value, `None` when there is none.

        With `renew_for`, one that has a deadline has it so many seconds from now: in a commit
        that leaves the value alone, so that nobody's write is undone and nothing removed is back.
        """
        session = await self.sessions.get(self._id(key))
        if session is None:
            return None
        seconds = _seconds(renew_for)
        if seconds is not None and seconds > 0 and session.expires_at is not None:
            try:
                await self.sessions.save(session, expiry=Expiry(absolute=seconds))
            except NotFound:
                return None
        return _value_of(session)

    async def delete(self, key: str) -> None:
        """Remove a value. A missing one is fine."""
        await self.sessions.delete(self._id(key))

    async def delete_all(self) -> None:
        """Remove all values of this namespace, and of those inside it."""
        cursor: str | None = None
        while True:
            page = await self.sessions.list(
                labels={STORE_LABEL: self._root}, order="created", limit=MAX_PAGE, cursor=cursor
            )
            ids = [session.id for session in page.items if session.id.startswith(self._path)]
            await asyncio.gather(*(self.sessions.delete(id) for id in ids))
            cursor = page.cursor
            if cursor is None:
                return

    async def exists(self, key: str) -> bool:
        """Return whether there is a value."""
        return await self.sessions.get(self._id(key)) is not None

    async def expires_in(self, key: str) -> int | None:
        """Return the seconds that a value has left: -1 for ever, `None` when there is none."""
        session = await self.sessions.get(self._id(key))
        if session is None:
            return None
        until = session.header.expires_at
        return -1 if until is None else max(0, (until - self.sessions.now()) // 1_000_000)

    def _id(self, key: str) -> str:
        """Return the id of the session that holds a value; no two keys share one."""
        id = f"{self._path}={quote(key, safe='')}"
        if len(id) <= MAX_NAME:
            return id
        return f"{self._path}#{hashlib.sha256(key.encode()).hexdigest()}"


def _escaped(namespace: str) -> str:
    if not namespace:
        raise InvalidId("namespace", "it is empty")
    return quote(namespace, safe="")


def _seconds(span: float | timedelta | None) -> float | None:
    return span.total_seconds() if isinstance(span, timedelta) else span


def _state_of(value: bytes) -> dict[str, str]:
    """Return what holds a value: text where it is some, for people who look, else base64."""
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _value_of(session: Session) -> bytes:
    """Return the value. Raises `Corrupt` for a session that holds none."""
    text = session.state.get("text")
    if isinstance(text, str):
        return text.encode()
    encoded = session.state.get("base64")
    if not isinstance(encoded, str):
        raise Corrupt(session.id, "it holds no value of a Litestar store")
    return b64decode(encoded)

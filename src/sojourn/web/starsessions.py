"""starsessions: a `SessionStore` of its shape, so that its users can keep their middleware.

`pip install "sojourn[starsessions]"`. Two things that its middleware leaves open are closed here:
an id that a browser made up is never adopted, and a late write brings back nothing that is gone.
What it can not give is in `sojourn.web.SessionMiddleware`: it stores each session whole, so of two
writers at the same time one is lost.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import OrderedDict
from secrets import token_hex
from typing import TYPE_CHECKING

from sojourn.errors import AlreadyExists, Corrupt, MissingExtra, NotFound
from sojourn.expiry import Expiry
from sojourn.web.tokens import digest

try:
    from starsessions.stores import SessionStore as StarSessionStore
except ImportError as error:
    raise MissingExtra("sojourn.web.starsessions", "starsessions") from error

if TYPE_CHECKING:
    from sojourn.manager import SessionManager

BROWSER_SECONDS = 43_200.0
"""How long a session is kept that ends with the browser: nobody tells us when that is."""

MAX_SEEN = 10_000
"""Ids that were read and may still be written, the last ones: requests under way are far fewer."""

DATA = "data"


class SessionStore(StarSessionStore):
    """Keeps each session's bytes in a session of a manager. The id is stored as a hash only."""

    def __init__(
        self, sessions: SessionManager, *, browser_lifetime: float = BROWSER_SECONDS
    ) -> None:
        """`browser_lifetime` is for sessions with `lifetime=0`, in seconds."""
        self.sessions = sessions
        """The manager underneath."""
        self._browser = browser_lifetime
        self._seen: OrderedDict[str, bool] = OrderedDict()

    async def read(self, session_id: str, lifetime: int) -> bytes:  # noqa: ARG002 - its shape
        """Return the data of a session, `b""` when there is none. Raises `Unavailable`, `Corrupt`.

        `lifetime` is what `write` was told already.
        """
        session = await self.sessions.get(digest(session_id))
        self._note(session_id, found=session is not None)
        if session is None:
            return b""
        text = session.state.get(DATA)
        if not isinstance(text, str):
            raise Corrupt(session.id, "it holds no data of starsessions")
        return b64decode(text)

    async def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> str:
        """Store the data for `ttl` seconds; return the id, which may be another one.

        An id that was read and is not known here is the browser's own: there is a new one then. One
        that was there when it was read and is gone was ended meanwhile: nothing is written.
        """
        seconds = ttl if ttl > 0 else lifetime
        expiry = Expiry(absolute=seconds if seconds > 0 else self._browser)
        text = b64encode(data).decode()
        session = await self.sessions.get(digest(session_id))
        if session is not None:
            session.state[DATA] = text
            try:
                await self.sessions.save(session, expiry=expiry)
            except NotFound:
                self._note(session_id, found=True)
            return session_id
        was_there = self._seen.get(session_id)
        if was_there:
            return session_id
        id = session_id if was_there is None else token_hex(16)
        try:
            await self.sessions.create(id=digest(id), state={DATA: text}, expiry=expiry)
        except AlreadyExists:  # written by another request, just now
            return await self.write(id, data, lifetime, ttl)
        return id

    async def remove(self, session_id: str) -> None:
        """Remove a session; a missing one is fine."""
        self._note(session_id, found=True)
        await self.sessions.delete(digest(session_id))

    def _note(self, session_id: str, *, found: bool) -> None:
        """Remember whether an id was there when it was looked for."""
        self._seen[session_id] = found
        self._seen.move_to_end(session_id)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

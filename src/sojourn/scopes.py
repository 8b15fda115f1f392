"""Scopes: the span during which code works inside a session, and the session that is ambient there.

A scope counts as use: while it lives it touches its session, so that no reaper, of this process or
another, takes it for idle.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from sojourn.errors import Ended, NotFound, SojournError
from sojourn.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.reading import Reading
    from sojourn.saving import Saving

TOUCHES = 3
"""How often a live scope touches its session in its idle time, so that one failure is no loss."""

_current: ContextVar[Session | None] = ContextVar("sojourn_session", default=None)


def current_session() -> Session | None:
    """Return the session of the innermost scope around this code, `None` outside of any."""
    return _current.get()


class Scopes:
    """The live scopes of one manager."""

    def __init__(self, reading: Reading, saving: Saving) -> None:
        """Made by `SessionManager`."""
        self._reading = reading
        self._saving = saving
        self._live: Counter[str] = Counter()

    def live(self) -> frozenset[str]:
        """Return the ids of the sessions with a live scope in this process."""
        return frozenset(self._live)

    @asynccontextmanager
    async def scope(self, target: Session | str, *, save_on_error: bool) -> AsyncIterator[Session]:
        """Work inside a session. See `SessionManager.scope`."""
        session = await self._enter(target)
        self._live[session.id] += 1
        session.scopes += 1
        token = _current.set(session)
        keeper = asyncio.ensure_future(self._keep(session))
        try:
            try:
                yield session
            except BaseException as error:
                if save_on_error:
                    await self._save_after(error, session)
                raise
            await self._save(session)
        finally:
            keeper.cancel()
            _current.reset(token)
            session.scopes -= 1
            self._live[session.id] -= 1
            if not self._live[session.id]:
                del self._live[session.id]

    async def _enter(self, target: Session | str) -> Session:
        if not isinstance(target, Session):
            session = await self._reading.require(target, user=None, events=None, touch=False)
        else:
            session = target
        if session.stored:
            await self._reading.touch(session)
        if not session.header.live:
            raise Ended(session.id, session.phase, "it takes no new scopes")
        return session

    async def _save_after(self, error: BaseException, session: Session) -> None:
        """Save although the body raised; what it raised is what matters, even if this fails."""
        try:
            await self._save(session)
        except SojournError as trouble:
            error.add_note(f"and the session was not saved: {trouble}")

    async def _save(self, session: Session) -> None:
        await self._saving.save(session, conflict="merge", lease=None, durability=None)

    async def _keep(self, session: Session) -> None:
        """Touch the session while the scope lives."""
        while True:
            idle = session.header.idle
            if idle is None:
                return
            await asyncio.sleep(idle / 1_000_000 / TOUCHES)
            try:
                with contextlib.suppress(NotFound):
                    await self._reading.touch(session)
            except SojournError:  # trouble with the store: the next touch may work again
                continue

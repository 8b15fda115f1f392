"""Guards: what one request does at a time, among all processes of an application."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sojourn.context import completed
from sojourn.errors import AlreadyExists, SojournError, Unavailable
from sojourn.expiry import Expiry, is_past
from sojourn.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.manager import SessionManager
    from sojourn.session import Session
    from sojourn.web.bounded import Bounded

POLL_SECONDS = 0.05
"""How often a request that waits for a guard asks again."""

SPANS = 4
"""A guard lasts so many time limits of the store. What is left by a process that died over it is in
the way for no longer."""


class Guards:
    """Lets one at a time in: a guard is a session without a user, state or token, under its id.

    A store creates an id once, so one has it. It is removed afterwards, without any end hook.
    """

    def __init__(self, sessions: SessionManager, bounded: Bounded, timeout: float) -> None:
        """`timeout` is the time limit of the store in seconds, that of `bounded`."""
        self._sessions = sessions
        self._bounded = bounded
        self._margin = from_seconds(timeout)
        self._poll = min(POLL_SECONDS, timeout / 10)
        self._expiry = Expiry(absolute=timeout * SPANS)

    @asynccontextmanager
    async def held(self, id: str) -> AsyncIterator[Session]:
        """Hold a guard for the span of a body. Raises `Unavailable` if it is not free in time."""
        guard = await self._bounded(self._taken(id))
        try:
            yield guard
        finally:
            await completed(self._let_go(guard))

    def check(self, guard: Session) -> None:
        """Raise `Unavailable` unless a guard is held for one more time limit of the store."""
        until = guard.header.absolute_at
        if until is None or self._sessions.now() + self._margin > until:
            raise Unavailable(self._sessions.store.name, "it took too long to get to the write")

    async def _taken(self, id: str) -> Session:
        while True:
            guard = self._sessions.new(id=id)
            try:
                return await self._sessions.save(guard, expiry=self._expiry)
            except AlreadyExists as error:
                if error.expired and await self._cleared(id):
                    continue
            except BaseException:
                if guard.stored:
                    await completed(self._let_go(guard))
                raise
            await asyncio.sleep(self._poll)

    async def _cleared(self, id: str) -> bool:
        """Remove a guard that was left and whose end fails: end hooks may know nothing of it."""
        left = await self._sessions.get(id, expired=True)
        if left is None or not is_past(left.header.expires_at, self._sessions.now()):
            return False
        return await self._sessions.ending.remove(id, epoch=left.epoch)

    async def _let_go(self, guard: Session) -> None:
        with suppress(SojournError):  # it expires by itself then
            await self._bounded(self._sessions.ending.remove(guard.id, epoch=guard.epoch))

"""A user's sessions: on which devices somebody is logged in, and ending them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from sojourn.limits import MAX_PAGE
from sojourn.web import facts
from sojourn.web.facts import Auth, Device

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.session import Session
    from sojourn.web.admission import Admission
    from sojourn.web.websession import WebSession


class DeviceSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session as its user sees it in a list of devices.

    `id` is what `revoke` takes; it opens nothing. `agent` and `address` are hints: where it was
    begun. `auth` says when and how the user logged in.
    """

    id: str
    created_at: datetime
    active_at: datetime
    expires_at: datetime | None
    agent: str
    address: str
    current: bool
    auth: Auth | None


class Devices:
    """Sessions of the web, by user. An administrator reaches it as `middleware.devices`."""

    def __init__(self, admission: Admission) -> None:
        """Made by `Admission`."""
        self._admission = admission

    async def of(self, user: str, current: WebSession | None = None) -> list[DeviceSession]:
        """Return a user's sessions, the one used last first."""
        here = None if current is None else current.id
        return [_shown(session, here) async for session in self._all(user)]

    async def revoke(self, id: str, *, user: str | None = None, reason: str = "revoked") -> bool:
        """End a session; with `user`, only one of theirs. `False` when there is none."""
        sessions = self._admission.sessions
        session = await sessions.get(id)
        if session is None or facts.TOKEN not in session.state or user not in (None, session.user):
            return False
        return await self._end(session, reason)

    async def revoke_all(
        self, user: str, *, keep: str | None = None, reason: str = "revoked"
    ) -> int:
        """End all sessions of a user, but the one with the id `keep`; return how many."""
        doomed = [session async for session in self._all(user) if session.id != keep]
        return sum([await self._end(session, reason) for session in doomed])

    async def revoke_everybody(self, *, reason: str = "revoked") -> int:
        """End all sessions of all users, and of nobody; return how many."""
        doomed = [session async for session in self._all(None)]
        return sum([await self._end(session, reason) for session in doomed])

    async def labelled(self, labels: dict[str, str], *, reason: str = "revoked") -> int:
        """End the sessions that were logged in with these labels: back-channel logout."""
        sessions = self._admission.sessions
        doomed: list[Session] = []
        cursor: str | None = None
        while True:
            page = await sessions.list(labels=labels, limit=MAX_PAGE, cursor=cursor)
            doomed += [session for session in page.items if facts.TOKEN in session.state]
            cursor = page.cursor
            if cursor is None:
                return sum([await self._end(session, reason) for session in doomed])

    async def keep_newest(self, user: str, most: int, *, current: str) -> None:
        """End what is beyond `most`: those that were used longest ago, never the current one."""
        others = [session async for session in self._all(user) if session.id != current]
        for session in others[most - 1 :] if most > 1 else others:
            await self._end(session, "too many sessions of this user")

    async def _all(self, user: str | None) -> AsyncIterator[Session]:
        """Yield live sessions of the web: of a user, or all of them."""
        sessions = self._admission.sessions
        cursor: str | None = None
        while True:
            page = await sessions.list(user=user, limit=MAX_PAGE, cursor=cursor)
            for session in page.items:
                if session.header.live and facts.TOKEN in session.state:
                    yield session
            cursor = page.cursor
            if cursor is None:
                return

    async def _end(self, session: Session, reason: str) -> bool:
        ended = await self._admission.sessions.end(session.id, reason=reason)
        if ended:
            self._admission.notify("ended", session, reason=reason)
        return ended


def _shown(session: Session, current: str | None) -> DeviceSession:
    device = facts.read(session.state, facts.DEVICE, Device) or Device()
    return DeviceSession(
        id=session.id,
        created_at=session.created_at,
        active_at=session.active_at,
        expires_at=session.expires_at,
        agent=device.agent,
        address=device.address,
        current=session.id == current,
        auth=facts.read(session.state, facts.AUTH, Auth),
    )

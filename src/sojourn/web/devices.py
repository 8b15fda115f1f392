"""A user's sessions: on which devices somebody is logged in, and ending them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import Conflict, EndFailed, Unavailable
from sojourn.limits import MAX_PAGE
from sojourn.web import facts
from sojourn.web.facts import Auth, Device, TokenFacts
from sojourn.web.notices import NOWHERE, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sojourn.session import Session
    from sojourn.web.admission import Admission
    from sojourn.web.bounded import Bounded
    from sojourn.web.websession import WebSession


CONCURRENCY = 10
"""Sessions that are ended at the same time, as the reaper does: their hooks may take a while."""

END_ATTEMPTS = 50
"""Most tries to end one that is written to all the time: the next login tries again."""


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
    """Sessions of the web, by user. An administrator reaches it as `middleware.devices`.

    `source` is whom notices name as who did it. Raises `Unavailable` when the store does not answer
    in time. Of several sessions that are to end, one whose end fails (`EndFailed`) opens nothing
    any more and stops none of the others; the first error is raised when all were tried.
    """

    def __init__(self, admission: Admission, bounded: Bounded) -> None:
        """Made by `Admission`."""
        self._admission = admission
        self._bounded = bounded

    async def of(self, user: str, current: WebSession | None = None) -> list[DeviceSession]:
        """Return a user's sessions, the one used last first."""
        here = None if current is None else current.id
        shown = [_shown(session, here) for session in await self._all(user=user)]
        return sorted(shown, key=lambda each: each.active_at, reverse=True)

    async def revoke(
        self, id: str, *, user: str | None = None, reason: str = "revoked", source: Source = NOWHERE
    ) -> bool:
        """End a session; with `user`, only one of theirs. `False` when there is none."""
        session = await self._bounded(self._admission.sessions.get(id))
        if session is None or facts.TOKEN not in session.state or user not in (None, session.user):
            return False
        return await self._end(session, reason, source)

    async def revoke_all(
        self,
        user: str,
        *,
        keep: str | None = None,
        reason: str = "revoked",
        source: Source = NOWHERE,
    ) -> int:
        """End all sessions of a user, but the one with the id `keep`; return how many."""
        doomed = [session for session in await self._all(user=user) if session.id != keep]
        return await self._revoked(doomed, reason, source)

    async def revoke_everybody(self, *, reason: str = "revoked", source: Source = NOWHERE) -> int:
        """End all sessions of all users, and of nobody; return how many."""
        return await self._revoked(await self._all(), reason, source)

    async def labelled(
        self, labels: dict[str, str], *, reason: str = "revoked", source: Source = NOWHERE
    ) -> int:
        """End the sessions that were logged in with these labels: back-channel logout."""
        return await self._revoked(await self._all(labels=labels), reason, source)

    async def beside(self, web: WebSession, user: str) -> int:
        """Return how many sessions a user has beside the one that a login in `web` would be."""
        now = self._admission.sessions.now()
        found = await self._all(user=user)
        return sum(not _is_opened(session, web, now) for session in found)

    async def login_place(self, user: str) -> int:
        """Return the place of a login now: an instant after all logins of the user that are known.

        Clocks of several machines differ, and a later login must not count as an older one.
        """
        latest = max((_login_of(session)[0] for session in await self._all(user=user)), default=0)
        return max(self._admission.sessions.now(), latest + 1)

    async def keep_newest(self, user: str, most: int, *, source: Source = NOWHERE) -> None:
        """End all sessions of a user but those of the `most` newest logins.

        Called after each login. Of many calls at once each sees the newest logins in the same
        order, and ends a session only as it has seen it: what is left is exactly those.
        """
        logins = sorted(await self._all(user=user), key=_login_of, reverse=True)
        reason = "too many sessions of this user"
        await self._end_all(logins[most:], lambda each: self._end_login(each, reason, source))

    async def _end_login(self, session: Session, reason: str, source: Source) -> bool:
        """End a session unless its user logs in again in it meanwhile."""
        ending, seen = self._admission.sessions.ending, session
        for attempt in range(1, END_ATTEMPTS + 1):
            try:
                work = ending.end_as_seen(seen.header, reason=reason)
                return await self._told(session, work, reason, source)
            except Conflict:
                if attempt == END_ATTEMPTS:
                    raise
                fresh = await self._bounded(self._admission.sessions.get(session.id))
                if fresh is None or not fresh.header.live or _login_of(fresh) != _login_of(session):
                    return False
                seen = fresh
        raise AssertionError("the last attempt returns or raises")

    async def _all(
        self, *, user: str | None = None, labels: dict[str, str] | None = None
    ) -> list[Session]:
        """Return live sessions of the web: of a user, with labels, or all of them.

        In the order of their creation, which no use changes: none is missed between two pages.
        """
        found: list[Session] = []
        cursor: str | None = None
        while True:
            page = await self._bounded(
                self._admission.sessions.list(
                    user=user, labels=labels, order="created", limit=MAX_PAGE, cursor=cursor
                )
            )
            found += [
                session
                for session in page.items
                if session.header.live and facts.TOKEN in session.state
            ]
            cursor = page.cursor
            if cursor is None:
                return found

    async def _end_all(
        self, doomed: list[Session], end: Callable[[Session], Coroutine[Any, Any, bool]]
    ) -> int:
        """End sessions, some at a time, and return how many. Raises the first error at the end.

        A store that fails for all that were tried at a time is not asked for the others.
        """
        ended = 0
        errors: list[BaseException] = []
        for start in range(0, len(doomed), CONCURRENCY):
            some = doomed[start : start + CONCURRENCY]
            outcomes = await asyncio.gather(*map(end, some), return_exceptions=True)
            errors += [each for each in outcomes if isinstance(each, BaseException)]
            ended += outcomes.count(True)
            if all(isinstance(each, Unavailable) for each in outcomes):
                break
        if errors:
            raise errors[0]
        return ended

    async def _revoked(self, doomed: list[Session], reason: str, source: Source) -> int:
        """End sessions, as above."""
        return await self._end_all(doomed, lambda session: self._end(session, reason, source))

    async def _end(self, session: Session, reason: str, source: Source) -> bool:
        """End a session and give notice."""
        work = self._admission.sessions.end(session.id, reason=reason)
        return await self._told(session, work, reason, source)

    async def _told(
        self, session: Session, work: Coroutine[Any, Any, bool], reason: str, source: Source
    ) -> bool:
        """Await an end and give notice.

        Where it fails, or its hooks take longer than a call of the store may, it is over for its
        user all the same.
        """
        try:
            ended = await self._bounded(work)
        except EndFailed:
            self._admission.notify("ended", session, source=source, reason=reason)
            raise
        except Unavailable:
            if not await self._is_over(session):
                raise
            ended = True
        if ended:
            self._admission.notify("ended", session, source=source, reason=reason)
        return ended

    async def _is_over(self, session: Session) -> bool:
        """Return whether a session opens nothing any more; raises what the store does."""
        fresh = await self._bounded(self._admission.sessions.get(session.id))
        return fresh is None or fresh.epoch != session.epoch or not fresh.header.live


def _is_opened(session: Session, web: WebSession, now: int) -> bool:
    """Return whether it is the session of a request, opened by its token still."""
    if web.token is None or session.id != web.id:
        return False
    kept = facts.read(session.state, facts.TOKEN, TokenFacts)
    return kept is not None and kept.accepts(web.token, now)


def _login_of(session: Session) -> tuple[int, str]:
    """Return what orders logins, the same for everybody who asks: when it was, then the id."""
    auth = facts.read(session.state, facts.AUTH, Auth)
    return (session.header.created_at if auth is None else max(auth.at, auth.place)), session.id


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

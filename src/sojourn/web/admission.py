"""Admission: from the tokens that a request brings to its session, and back to the store."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sojourn.errors import (
    Closed,
    Conflict,
    Ended,
    EndFailed,
    InvalidQuery,
    InvalidSetting,
    NotFound,
    TooManySessions,
    Unavailable,
)
from sojourn.expiry import Expiry, is_past, touch_is_due
from sojourn.names import check_name
from sojourn.timestamps import from_seconds, to_datetime
from sojourn.web import facts
from sojourn.web.bounded import Bounded
from sojourn.web.caps import Cap
from sojourn.web.devices import Devices
from sojourn.web.facts import Device, TokenFacts
from sojourn.web.guards import Guards
from sojourn.web.notices import NOWHERE, Notice, Notices, Source
from sojourn.web.tokens import Tokens, digest
from sojourn.web.websession import Plan, WebSession, is_same

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sojourn.manager import SessionManager
    from sojourn.session import Session
    from sojourn.web.notices import Kind
    from sojourn.web.tokens import Token

log = logging.getLogger("sojourn.web")

TIMEOUT_SECONDS = 5.0
"""How long a request waits for the store before it goes without: nobody waits longer for a page."""

GRACE_SECONDS = 30.0
"""How long a token that was renewed by age is honoured: requests that are on their way bring it."""

CHANGE_ATTEMPTS = 50
"""Most tries of an atomic change to one key, each after somebody else's: far more than compete."""

CHANGE_WAIT_SECONDS = 0.01
"""Longest first wait between two such tries."""

CHANGE_WAIT_LAST_SECONDS = 0.2
"""Longest wait between any two: it doubles up to here."""

GUARD = "cap:"
"""What the id of the guard of a user's logins begins with; a hash of the user follows."""

DEFAULT_EXPIRY = Expiry(idle=1_800, absolute=43_200)
"""Half an hour without use, twelve hours in all: what OWASP advises for low risk."""


class Reply(NamedTuple):
    """What a response has to tell the browser: a token to keep, or to forget the one it has."""

    token: str | None = None
    max_age: int | None = None
    erase: bool = False

    def __repr__(self) -> str:
        """Show what is told, and not the token: whoever reads it has the session."""
        kept = "a token" if self.token is not None else "nothing"
        return f"<Reply {'erase' if self.erase else kept}>"


NOTHING = Reply()


class Admission:
    """Opens sessions by token and stores what became of them; one for each application."""

    def __init__(
        self,
        sessions: SessionManager,
        *,
        tokens: Tokens | None = None,
        expiry: Expiry = DEFAULT_EXPIRY,
        renew_after: float | None = None,
        grace: float = GRACE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        cap: Cap | None = None,
        keep_device: bool = True,
        notices: Notices | None = None,
        name: str = facts.PLACE,
    ) -> None:
        """`renew_after` seconds a token is replaced by itself, and honoured `grace` seconds more.

        `timeout` bounds each call of the store, `cap` the sessions of a user. `keep_device` stores
        user agent and address with the session, as a hint for its user. `name` is the session's in
        its application: a token that was issued for another name opens nothing. Raises
        `InvalidQuery`, `InvalidSetting` for what makes no sense.
        """
        if cap is not None and not isinstance(cap, Cap):
            raise InvalidSetting("cap", "sessions of the web", f"give a Cap, not {cap!r}")
        self.name = name
        """The session's name: tokens are for it alone."""
        self.sessions = sessions
        """The manager underneath."""
        self.tokens = Tokens() if tokens is None else tokens
        """What makes tokens and reads them."""
        self.notices = Notices() if notices is None else notices
        """Who is told what befalls sessions, and what was counted."""
        self._bounded = Bounded(sessions.store, timeout)
        self._guards = Guards(sessions, self._bounded, timeout)
        self.devices = Devices(self, self._bounded)
        """All users' sessions, for administrators."""
        self.keeps_device = keep_device
        """Whether user agent and address are stored with a session."""
        self._expiry = expiry
        self._renew_after = None if renew_after is None else from_seconds(renew_after)
        self._grace = grace
        self._cap = cap

    # --- coming in -----------------------------------------------------------------------------

    async def admit(self, presented: Sequence[str], source: Source = NOWHERE) -> WebSession:
        """Return the session that one of the tokens opens, a new one if none does.

        The first valid one counts. A token that was not issued here is never adopted. Being used
        extends the idle deadline, at most once in a tenth of it. Raises `Unavailable` when the
        store can not be asked in time, `Corrupt`.
        """
        for text in presented:
            token = self.tokens.read(text)
            if token is None:
                self.notify("refused", source=source, reason="not a token of ours")
                continue
            web = await self._open(token, source)
            if web is not None:
                return web
        return WebSession(self, source)

    async def _open(self, token: Token, source: Source) -> WebSession | None:
        """Return the session of a token, `None` where it does not open one."""
        session: Session | None
        work = self.sessions.get(token.id, expired=True)
        try:  # as `_bounded`, but for a step: what there is most of
            first = work.send(None)
        except StopIteration as done:
            session = done.value
        else:
            session = await self._bounded.rest(first, work)
        kept = None if session is None else facts.read(session.state, facts.TOKEN, TokenFacts)
        now = self.sessions.now()
        if session is None or kept is None or not self._accepts(kept, token, now):
            self.notify("refused", session, source=source, reason="unknown or replaced token")
            return None
        header = session.header
        if is_past(header.expires_at, now):
            self.notify("expired", session, source=source)
            return None
        touch = touch_is_due(header.active_at, header.idle, now)
        if not header.live or (touch and not await self._touched(session)):
            self.notify("refused", session, source=source, reason="the session is over")
            return None
        web = WebSession(self, source, session, token)
        if self.keeps_device and source.agent:
            self._look_at_device(session, source)
        after = self._renew_after
        if after is not None and now - kept.at >= after and not kept.is_graced(token, now):
            web.plan = Plan(firm=False, grace=self._grace)
        return web

    def _accepts(self, kept: TokenFacts, token: Token, now: int) -> bool:
        return kept.place == self.name and kept.accepts(token, now)

    async def _touched(self, session: Session) -> bool:
        """Note that a session is used; return whether it is there still."""
        try:
            await self._bounded(self.sessions.touch(session))
        except NotFound:
            return False
        except Unavailable:  # reading it went well, so the page can be shown
            self.notify("failed", session, reason="a touch could not be stored")
        return True

    def _look_at_device(self, session: Session, source: Source) -> None:
        """Give notice when another browser comes with the token. Nobody is refused for it."""
        device = facts.read(session.state, facts.DEVICE, Device)
        if device is not None and device.agent != source.agent[: facts.MAX_AGENT]:
            self.notify("moved", session, source=source, reason="another user agent")

    def begin(self, token: Token) -> Session:
        """Return the session of a new token; it is not stored yet."""
        return self.sessions.new(id=token.id, expiry=self._expiry)

    def unavailable(self, source: Source = NOWHERE) -> WebSession:
        """Return the empty session that stands for one which could not be read."""
        return WebSession(self, source, available=False)

    # --- going out -----------------------------------------------------------------------------

    async def save(self, web: WebSession) -> None:
        """Store what changed; see `WebSession.save`."""
        if web.leaving is not None:
            await self.end(web, web.leaving, "cleared")
            web.leaving = None
        if web.sealed:  # a new token would reach nobody
            web.plan = None
        session, plan = web.held, web.plan
        if session is None or not web.available:
            return
        if not session.stored:
            await self._store(web, session, plan)
            return
        try:
            if plan is not None:
                await self._save_planned(web, session, plan)
            elif session.modified or web.expiry is not None:
                await self._save_merged(web, session)
        except Ended:
            raise
        except NotFound as error:  # it was there when its token opened it
            raise Ended(session.id, session.phase, "it was ended meanwhile") from error

    def reply(self, web: WebSession) -> Reply:
        """Return what the browser has to be told, once.

        A session that is still to be ended keeps its cookie: a request that failed ends none.
        """
        token, erase, web.erase = web.issued, web.erase and web.leaving is None, False
        if token is not None and web.held is not None and web.held.stored:
            web.issued = None
            return Reply(self.tokens.write(token), self._max_age(web.held))
        return Reply(erase=True) if erase else NOTHING

    async def settle(self, web: WebSession) -> Reply:
        """Store what changed by itself, without anybody who could catch an error of it.

        A write that comes after the session was ended is dropped: a logout stays one. Raises
        `Unavailable` and what else says that nothing could be stored.
        """
        try:
            await self.save(web)
        except NotFound as error:
            self.notify("lost", web.held, source=web.source, reason=error.reason)
            web.over = web.over or (web.held is not None and web.held.stored)
            web.held = web.plan = web.issued = None
        return self.reply(web)

    async def refresh(self, session: Session) -> None:
        """Load a session anew."""
        await self._bounded(self.sessions.refresh(session))

    async def _store(self, web: WebSession, session: Session, plan: Plan | None) -> None:
        """Store a session for the first time, if its token can still reach the browser."""
        if web.sealed:
            reason = "the response had begun, so nobody would have been given its token"
            raise Ended(session.id, session.phase, reason)
        user, labels = (None, None) if plan is None else (plan.user, plan.labels)
        if plan is not None:
            self._note_login(session, plan)
        expiry = web.expiry or self._expiry
        work = self.sessions.save(session, user=user, expiry=expiry, labels=labels)
        await self._bounded(work)
        web.plan = web.expiry = None
        self.notify("created", session, source=web.source)
        await self._after_login(web, session, plan)

    async def _save_merged(self, web: WebSession, session: Session) -> None:
        """Save what changed beside what others did."""
        await self._bounded(self.sessions.save(session, expiry=web.expiry))
        web.expiry = None

    async def _save_planned(self, web: WebSession, session: Session, plan: Plan) -> None:
        """Save with a new token, in one commit that nothing comes between.

        It is made on a fresh copy: what others stored meanwhile must not bring a dead token back.
        """
        for _attempt in range(CHANGE_ATTEMPTS):
            fresh = await self._bounded(self.sessions.get(session.id))
            if fresh is None or fresh.epoch != session.epoch or not fresh.header.live:
                raise Ended(session.id, session.phase, "it was ended meanwhile")
            kept = facts.read(fresh.state, facts.TOKEN, TokenFacts)
            now = self.sessions.now()
            if kept is None or web.token is None or not kept.accepts(web.token, now):
                await self._save_outrun(web, session, plan)
                return
            if not plan.firm and kept.is_graced(web.token, now):
                break  # somebody else has renewed it
            delta, writes = session.state.delta(), session.state.writes
            _carry_over(session, fresh)
            token = plan.token or self.tokens.issue(session.id)
            fact = _replaced(kept, token, plan, now)
            facts.write(fresh.state, facts.TOKEN, fact)
            self._note_login(fresh, plan)
            expiry = web.expiry or (None if plan.user is None else self._expiry)
            try:
                await self._bounded(
                    self.sessions.save(
                        fresh, user=plan.user, expiry=expiry, labels=plan.labels, conflict="fail"
                    )
                )
            except Conflict:
                continue
            session.adopt(fresh, delta, writes)  # whoever holds it goes on with it
            web.token = web.issued = token
            web.plan = web.expiry = None
            self.notify("renewed", session, source=web.source)
            await self._after_login(web, session, plan)
            return
        web.plan = None
        await self._save_merged(web, session)

    async def _save_outrun(self, web: WebSession, session: Session, plan: Plan) -> None:
        """Save where the token was replaced meanwhile: it opens nothing any more.

        What was written is kept. A login has proven who it is, so it gets a session of its own.
        """
        web.plan = None
        await self._save_merged(web, session)
        if plan.user is None:
            return
        await self._check_cap(web, plan.user)
        own = {key: value for key, value in session.state.items() if _is_own(key)}
        web.held = None
        begun = web.begun()
        begun.state.update(own)
        await self._store(web, begun, plan)

    def _note_login(self, session: Session, plan: Plan) -> None:
        if plan.auth is not None:
            facts.write(session.state, facts.AUTH, plan.auth)
        if plan.remember is not None:
            kept = facts.read(session.state, facts.TOKEN, TokenFacts)
            assert kept is not None  # it was written just now
            fact = msgspec.structs.replace(kept, remember=plan.remember)
            facts.write(session.state, facts.TOKEN, fact)

    async def _after_login(self, web: WebSession, session: Session, plan: Plan | None) -> None:
        """Do what follows a login. It is stored: no failure may keep its token from the browser."""
        if plan is None or plan.user is None:
            return
        self.notify("login", session, source=web.source)
        cap = self._cap
        if cap is None or cap.rule != "end-oldest":
            return
        try:
            await self.devices.keep_newest(plan.user, cap.sessions, source=web.source)
        except Exception as error:  # noqa: BLE001 - whatever it is, the login has happened
            self._note_late(web, session, error)

    def _note_late(self, web: WebSession, session: Session, error: Exception) -> None:
        """Say that a login is stored and what its cap asks for could not be done yet."""
        reason = f"an older session could not be ended: {_name_of(error)}"
        log.error("after a login, %s", reason)
        self.notify("failed", session, source=web.source, reason=reason)

    def _max_age(self, session: Session) -> int | None:
        """Return how long a browser may keep the cookie: as long as the session can last."""
        kept = facts.read(session.state, facts.TOKEN, TokenFacts)
        if kept is None or not kept.remember:
            return None
        until = session.header.absolute_at or session.header.expires_at
        if until is None:
            return 400 * 86_400  # the longest that browsers allow
        return max(0, (until - self.sessions.now()) // 1_000_000)

    # --- ending --------------------------------------------------------------------------------

    async def end(self, web: WebSession, session: Session, reason: str) -> None:
        """End a session that its own user is done with."""
        await self._bounded(self.sessions.end(session.id, reason=reason))
        self.notify("logout", session, source=web.source, reason=reason)

    async def is_open(self, web: WebSession, *, used: bool) -> bool:
        """Return whether a session that is in use for long is still the user's: for sockets.

        If it was `used`, its idle deadline is extended, as that of a request's is.
        """
        session, token = web.held, web.token
        if web.over:
            return False
        if session is None or not session.stored:
            return True
        fresh = await self._bounded(self.sessions.get(session.id))
        if fresh is None or fresh.epoch != session.epoch or not fresh.header.live:
            return False
        if token is not None and fresh.user != session.user:
            return False
        header = fresh.header
        is_due = used and touch_is_due(header.active_at, header.idle, self.sessions.now())
        return not is_due or await self._touched(fresh)

    @asynccontextmanager
    async def entering(self, web: WebSession, user: str) -> AsyncIterator[int]:
        """Let a login be planned in the body, with the place among logins that is given.

        Where a cap refuses, one login of a user at a time gets there, and is stored at the end:
        `TooManySessions` comes before anything has changed. `Unavailable` may come after another
        user's session, which was at hand, has been ended.
        """
        cap = self._cap
        check_name("user", user)
        if cap is None:
            yield self.sessions.now()
        elif cap.rule == "end-oldest":
            yield await self.devices.login_place(user)
        else:
            async with self._guards.held(f"{GUARD}{digest(user)}") as guard:
                await self._check_cap(web, user)
                held, plan = web.held, web.plan
                yield self.sessions.now()
                try:
                    self._guards.check(guard)
                    await self._bounded(self.save(web))
                except BaseException:  # else the response would store it, unguarded
                    web.plan = plan if web.held is held else None
                    if web.held is not held and web.new:
                        web.held = web.token = web.issued = None
                    raise

    async def _check_cap(self, web: WebSession, user: str) -> None:
        """Raise `TooManySessions` where one more is refused; the one at hand does not count."""
        cap = self._cap
        if cap is None or cap.rule == "end-oldest":
            return
        if await self.devices.beside(web, user) >= cap.sessions:
            raise TooManySessions(cap.sessions)

    async def opened_by(self, text: str) -> Session | None:
        """Return the live session that a token opens, `None` where there is none.

        Nothing is noted: it is no use of the session.
        """
        token = self.tokens.read(text)
        session = None if token is None else await self._bounded(self.sessions.get(token.id))
        if token is None or session is None or not session.header.live:
            return None
        kept = facts.read(session.state, facts.TOKEN, TokenFacts)
        accepted = kept is not None and self._accepts(kept, token, self.sessions.now())
        return session if accepted else None

    async def is_current(self, web: WebSession) -> bool:
        """Return whether a session's token is the one in use, not one that was replaced meanwhile.

        Only then may a browser be told again to keep it. The store is asked where others have
        written to the session since it was loaded.
        """
        session: Session | None = web.held
        if session is None or web.token is None:
            return False
        if session.header.revision != session.revision:
            session = await self._bounded(self.sessions.get(session.id))
        if session is None:
            return False
        kept = facts.read(session.state, facts.TOKEN, TokenFacts)
        return kept is not None and kept.is_current(web.token)

    # --- one key, atomically -------------------------------------------------------------------

    async def change(
        self, web: WebSession, key: str, made: Callable[[Any], Any], only_if: Any = ...
    ) -> tuple[bool, Any]:
        """Change one key in the store by what is there; return whether, and the value.

        With `only_if`, only where the value is that. Raises `Conflict` when others are faster
        `CHANGE_ATTEMPTS` times in a row.
        """
        if key.startswith(facts.RESERVED):
            raise InvalidQuery("key", f"keys that begin with {facts.RESERVED} are reserved")
        session = web.begun()
        if not session.stored:
            value = session.state.get(key)
            if only_if is not ... and not is_same(value, only_if):
                return False, value
            session.state[key] = made(value)
            return True, session.state[key]
        wait = CHANGE_WAIT_SECONDS
        for attempt in range(1, CHANGE_ATTEMPTS + 1):
            fresh = await self._bounded(self.sessions.require(session.id))
            value = fresh.state.get(key)
            if only_if is not ... and not is_same(value, only_if):
                return False, value
            fresh.state[key] = new = made(value)
            try:
                await self._bounded(self.sessions.save(fresh, conflict="fail"))
            except Conflict:
                if attempt == CHANGE_ATTEMPTS:
                    raise
                await asyncio.sleep(random.uniform(0, wait))  # noqa: S311 - only to spread them
                wait = min(wait * 2, CHANGE_WAIT_LAST_SECONDS)
                continue
            session.state.take(key, fresh.state)
            session.seen(fresh.header)
            return True, new
        raise AssertionError("the last attempt returns or raises")

    # --- notices -------------------------------------------------------------------------------

    def notify(
        self,
        kind: Kind,
        session: Session | None = None,
        *,
        source: Source = NOWHERE,
        reason: str = "",
    ) -> None:
        """Give notice of something that befell a session; of nothing once the manager is closed."""
        try:
            now = self.sessions.now()
        except (
            Closed
        ):  # the application stops, and a last request is answered with 503 all the same
            return
        self.notices.give(
            Notice(
                kind=kind,
                at=to_datetime(now),
                session=None if session is None else self.notices.hashed(session.id),
                user=None if session is None else session.user,
                source=source,
                reason=reason,
            )
        )


def _replaced(kept: TokenFacts, token: Token, plan: Plan, now: int) -> TokenFacts:
    """Return the facts of a token that takes another's place."""
    grace = from_seconds(plan.grace) if plan.grace > 0 else 0
    return TokenFacts(
        hash=digest(token.secret),
        at=now,
        before=kept.hash if grace else None,
        until=now + grace if grace else 0,
        remember=kept.remember,
        place=kept.place,
    )


def _name_of(error: Exception) -> str:
    """Return what to call an error in a log, without the id that its text may hold."""
    causes = error.causes if isinstance(error, EndFailed) else ()
    return ", ".join(map(repr, causes)) or type(error).__name__


def _is_own(key: str) -> bool:
    return not key.startswith((facts.RESERVED, "app:", "user:", "temp:"))


def _carry_over(session: Session, fresh: Session) -> None:
    """Make the unsaved changes of a working copy to another one."""
    for key in session.state.changed():
        if key == facts.TOKEN:  # the fresh one knows what became of it
            continue
        if key in session.state:
            fresh.state[key] = session.state[key]
        else:
            fresh.state.pop(key, None)

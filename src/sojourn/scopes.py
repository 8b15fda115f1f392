"""Scopes: the span during which code works inside a session, and the session that is ambient there.

A scope counts as use: while it lives it touches its session, so that no reaper, of this process or
another, takes it for idle. What is ambient follows the code into the tasks that it starts, and is
over everywhere once the scope is left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from sojourn.context import completed
from sojourn.errors import Ended, InvalidQuery, NotFound, OutOfScope, SojournError
from sojourn.names import check_name
from sojourn.session import Session, check_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager
    from contextvars import Token

    from sojourn.context import Context
    from sojourn.ending import Ending
    from sojourn.reading import Reading
    from sojourn.saving import Saving

TOUCHES = 3
"""How often a live scope touches its session in its idle time, so that one failure is no loss."""

TOUCH_SECONDS = 0.001
"""Shortest wait between two touches: an idle time that is hardly one must not spin the loop."""


class Scope:
    """One span of work inside a session, with an id of its own."""

    __slots__ = (
        "__weakref__",
        "_around",
        "_keep",
        "_keeper",
        "_left",
        "_token",
        "ends",
        "id",
        "owner",
        "parent_id",
        "session",
    )

    def __init__(
        self, id: str, session: Session, scopes: Scopes, *, ends: bool, outer: Scope | None
    ) -> None:
        """Made by `SessionManager.scope`."""
        self.id = id
        """Its own, random; not the session's."""
        self.session = session
        """The working copy that is ambient in it."""
        self.parent_id = None if outer is None else outer.id
        """The id of the scope around it when it was entered, `None` for an outermost one."""
        self.ends = ends
        """Whether the session is to end with its last scope."""
        self.owner = scopes
        """The scopes of its manager."""
        self._left = False
        self._keep: Callable[[], Coroutine[object, object, None]] | None = None
        self._keeper: asyncio.Future[None] | None = None
        self._token: Token[Scope | None] | None = None
        # Weakly: work that starts further work, over and over, must not keep all that went before.
        # A scope that is live is held by the code inside it.
        self._around: tuple[ref[Scope], ...] = (
            () if outer is None else (ref(outer), *outer.live_around())
        )

    def __repr__(self) -> str:
        """Show whose it is."""
        return f"<Scope {self.id} of session {self.session.id!r}{' left' if self._left else ''}>"

    @property
    def left(self) -> bool:
        """Whether the code inside it is done."""
        return self._left

    @property
    def parent(self) -> Scope | None:
        """The innermost scope around it that is not left yet."""
        around = self.live_around()
        return around[0]() if around else None

    def child(self, *, save_on_error: bool = False) -> AbstractAsyncContextManager[Session]:
        """Work in the same session with a working copy of its own, saved when the child is left.

        The copy shows what is stored: not what the copy of this scope has not saved. Raises
        `NotFound` for a session that has not been saved yet, and what `SessionManager.scope` does.
        """
        return self.owner.resume(carry(self.session), save_on_error=save_on_error, end=False)

    def begin(self, keep: Callable[[], Coroutine[object, object, None]]) -> None:
        """Make the session ambient; `keep` keeps it in use at the pace of its idle time."""
        self._keep = keep
        self._keep_pace()
        self.session.idle_moved += (self._keep_pace,)
        self._token = _current.set(self)

    def _keep_pace(self) -> None:
        """Keep the session in use anew: it has another idle time now, or has one at all."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        if self._keep is not None and self.session.header.idle is not None:
            self._keeper = asyncio.ensure_future(self._keep())

    def leave(self) -> None:
        """Be over, for all code that was started inside as well."""
        if self._keeper is not None:
            self._keeper.cancel()
        told = self.session.idle_moved
        self.session.idle_moved = tuple(tell for tell in told if tell != self._keep_pace)
        self._left = True
        token, self._token = self._token, None  # it holds on to what was ambient before
        if _current.get() is self and token is not None:
            # A generator that somebody else closes is left in another context than it was entered
            # in. There it stays what it is: left.
            with contextlib.suppress(ValueError):
                _current.reset(token)

    def live_around(self) -> tuple[ref[Scope], ...]:
        """Return the scopes around this one that are not left, the innermost first."""
        return tuple(
            outer for outer in self._around if (scope := outer()) is not None and not scope.left
        )


_current: ContextVar[Scope | None] = ContextVar("sojourn_scope", default=None)


def current_scope() -> Scope | None:
    """Return the innermost scope around this code that is not left, `None` outside of any."""
    scope = _current.get()
    return scope.parent if scope is not None and scope.left else scope


class Lender(Protocol):
    """Something that code works in, which may have a session: a request."""

    @property
    def session(self) -> Session | None:
        """The session, `None` while there is none."""


_lender: ContextVar[Lender | None] = ContextVar("sojourn_lender", default=None)


def lend(lender: Lender) -> Token[Lender | None]:
    """Make the session of a request ambient where there is no scope; give the token to `unlend`."""
    return _lender.set(lender)


def unlend(token: Token[Lender | None]) -> None:
    """Make what was ambient before `lend` ambient again."""
    try:
        _lender.reset(token)
    except ValueError:  # in another context it never was
        return


def current_session() -> Session | None:
    """Return the session of the innermost scope around this code, else that of its request.

    `None` where there is neither, or the request has no session.
    """
    scope = current_scope()
    if scope is not None:
        return scope.session
    lender = _lender.get()
    return None if lender is None else lender.session


def carry(session: Session | None = None) -> dict[str, str]:
    """Return what a job needs to work in this session elsewhere: see `SessionManager.resume`.

    It names the session (the ambient one if none is given) and is a few JSON strings: app, id,
    and the epoch, which tells it from a later session with the same id. No token, no state. Raises
    `OutOfScope` where no session is ambient, `NotFound` for one that has not been saved yet.
    """
    session = current_session() if session is None else session
    if session is None:
        raise OutOfScope("carry()")
    if not isinstance(session, Session):
        raise InvalidQuery("session", f"give a Session, not {type(session).__name__}")
    if not session.stored:
        raise NotFound(session.id, "it has not been saved yet: save it before it is carried")
    return {"app": session.app, "session": session.id, "epoch": session.epoch}


class Scopes:
    """The live scopes of one manager."""

    def __init__(self, context: Context, reading: Reading, saving: Saving, ending: Ending) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._reading = reading
        self._saving = saving
        self._ending = ending
        self._live: Counter[str] = Counter()
        self._to_end: dict[str, str] = {}  # by id, the epoch of the session that was asked to end

    def live(self) -> frozenset[str]:
        """Return the ids of the sessions with a live scope in this process."""
        return frozenset(self._live)

    @asynccontextmanager
    async def scope(
        self, target: Session | str, *, save_on_error: bool, end: bool
    ) -> AsyncIterator[Session]:
        """Work inside a session. See `SessionManager.scope`."""
        session = await self._found(target)
        scope = self._enter(session, ends=end)
        try:
            try:
                yield session
            except BaseException as error:
                if save_on_error:
                    await _though(error, self._save(session), "saved")
                raise
            await self._save(session)
        except BaseException as error:
            if self._leave(scope):
                await _though(error, self._end(session), "ended")
            raise
        if self._leave(scope):
            await self._end(session)

    @asynccontextmanager
    async def resume(
        self, carried: Mapping[str, str], *, save_on_error: bool, end: bool
    ) -> AsyncIterator[Session]:
        """Work inside a session that was carried here. See `SessionManager.resume`."""
        id, epoch = self._unpacked(carried)
        session = await self._reading.require(id, user=None, events=None, touch=False)
        if epoch not in (None, session.epoch):
            raise NotFound(id, "the session that was carried is gone; this is a later one")
        async with self.scope(session, save_on_error=save_on_error, end=end) as s:
            yield s

    def _unpacked(self, carried: Mapping[str, str]) -> tuple[str, str | None]:
        """Return the id and the epoch that were carried. Raises `InvalidQuery`, `InvalidId`."""
        try:
            app, id, epoch = carried["app"], carried["session"], carried.get("epoch")
        except (AttributeError, KeyError, TypeError):
            raise InvalidQuery("carried", "give what carry() returned") from None
        if app != self._context.app:
            reason = f"it is of app {app!r}, and this manager keeps {self._context.app!r}"
            raise InvalidQuery("carried", reason)
        return check_name("session id", id), epoch

    async def _found(self, target: Session | str) -> Session:
        """Return the session to work in, touched. Raises `NotFound`, `Ended`."""
        if not isinstance(target, Session):
            session = await self._reading.require(target, user=None, events=None, touch=False)
        else:
            session = target
            check_app(session, self._context.app)
        if session.stored:
            await self._reading.touch(session)
        if not session.header.live:
            raise Ended(session.id, session.phase, "it takes no new scopes")
        return session

    def _enter(self, session: Session, *, ends: bool) -> Scope:
        """Make a session ambient and keep it in use."""
        outer = current_scope()
        scope = Scope(self._context.ids.epoch(), session, self, ends=ends, outer=outer)
        self._live[session.id] += 1
        session.scopes += 1
        scope.begin(partial(self._keep, session))
        return scope

    def _leave(self, scope: Scope) -> bool:
        """Undo `_enter`; return whether the session is to end, as this was its last scope here."""
        scope.leave()
        session = scope.session
        session.scopes -= 1
        self._live[session.id] -= 1
        if scope.ends:
            self._to_end[session.id] = session.epoch
        if self._live[session.id]:
            return False
        del self._live[session.id]
        return self._to_end.pop(session.id, None) == session.epoch

    async def _save(self, session: Session) -> None:
        await self._saving.save(session, conflict="merge", lease=None, durability=None)

    async def _end(self, session: Session) -> None:
        """End the session whose last scope was left; whoever cancels, it is seen through."""

        async def end() -> None:
            record = await self._reading.record(session.id, expired=True)
            if record is not None and record.header.epoch == session.epoch:
                await self._ending.end(session.id, reason="its last scope was left", retain=None)

        await completed(end())

    async def _keep(self, session: Session) -> None:
        """Touch the session while the scope lives, or until it has another idle time."""
        while (idle := session.header.idle) is not None:
            await asyncio.sleep(max(idle / 1_000_000 / TOUCHES, TOUCH_SECONDS))
            # Gone, not saved yet, or trouble with the store: the next touch may work again.
            with contextlib.suppress(SojournError):
                await self._reading.touch(session)


async def _though(error: BaseException, work: Coroutine[object, object, None], done: str) -> None:
    """Do this although the body raised; what it raised is what matters, even if this fails."""
    try:
        await work
    except SojournError as trouble:
        error.add_note(f"and the session was not {done}: {trouble}")

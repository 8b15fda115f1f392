"""dishka: the session manager, the session and the scope as dependencies of a dishka container.

`pip install "sojourn[dishka]"`. For asynchronous containers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, NewType

from sojourn.errors import InvalidQuery, MissingExtra, OutOfScope
from sojourn.manager import SessionManager
from sojourn.scopes import Scope, current_scope, current_session
from sojourn.session import Session

try:
    import dishka
    from dishka import Has, Provider, from_context, provide
except ImportError as error:
    raise MissingExtra("sojourn.dishka", "dishka") from error

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

SessionId = NewType("SessionId", str)
"""The id of the session of a SESSION scope: given as context, or by a provider of your own.

With strict validation, such a provider says `override=True`.
"""


class SojournProvider(Provider):
    """Provides `SessionManager` for the app, `Session` for its session, `Scope` for each request.

    - `SessionManager`, scope APP: the one that was given; or one that is opened from a URL and
      closed with the container.
    - `Session`, scope SESSION: the working copy of the session that `SessionId` names, in a scope
      that is left with the container's: kept in use, and saved unless the container was closed
      with an error. Without a `SessionId` it is the ambient session, whoever made it so saves it;
      `OutOfScope` when there is none.
    - `Scope`, scope REQUEST: a span of its own inside that session, with a working copy of its own
      (`scope.session`), ambient and saved at the end of the request. Ask for it where one SESSION
      has many requests, as on a socket. A session that was not saved yet has one copy for all.
    """

    session_id = from_context(provides=SessionId, scope=dishka.Scope.SESSION)

    def __init__(self, sessions: SessionManager | str, **collaborators: Any) -> None:
        """Provide this manager, or one that `SessionManager.open(url, **collaborators)` makes.

        Raises `InvalidQuery` for something else, and for collaborators of a manager that is there.
        """
        super().__init__()
        if not isinstance(sessions, SessionManager | str):
            raise InvalidQuery("sessions", f"give a SessionManager or a URL, not {sessions!r}")
        if collaborators and not isinstance(sessions, str):
            raise InvalidQuery(next(iter(collaborators)), "the manager has its own already")
        self._sessions = sessions
        self._collaborators = collaborators

    @provide(scope=dishka.Scope.APP)
    async def manager(self) -> AsyncGenerator[SessionManager, BaseException | None]:
        """Provide the manager; one that was opened here is closed with the container."""
        if isinstance(self._sessions, SessionManager):
            yield self._sessions
            return
        async with SessionManager.open(self._sessions, **self._collaborators) as sessions:
            yield sessions

    @provide(scope=dishka.Scope.SESSION)
    def ambient(self) -> Session:
        """Provide the ambient session. Raises `OutOfScope` when there is none."""
        session = current_session()
        if session is None:
            raise OutOfScope("a dependency on Session without a SessionId")
        return session

    @provide(scope=dishka.Scope.SESSION, when=Has(SessionId))
    async def named(
        self, id: SessionId, sessions: SessionManager
    ) -> AsyncGenerator[Session, BaseException | None]:
        """Provide the session of this id, in a scope. Raises `NotFound`, `Ended`."""
        scope = sessions.scope(id)
        session = await scope.__aenter__()
        try:
            error = yield session
        except GeneratorExit as closed:  # the container was never closed
            await _leave(scope, closed)
            raise
        await _leave(scope, error)

    @provide(scope=dishka.Scope.REQUEST)
    async def request(
        self, session: Session, sessions: SessionManager
    ) -> AsyncGenerator[Scope, BaseException | None]:
        """Provide a scope of the request's own inside the session. Raises `NotFound`, `Ended`."""
        scope = sessions.scope(session.id if session.stored else session)
        await scope.__aenter__()
        entered = current_scope()
        assert entered is not None  # it was entered just now
        try:
            error = yield entered
        except GeneratorExit as closed:  # the container was never closed
            await _leave(scope, closed)
            raise
        await _leave(scope, error)


async def _leave(scope: AbstractAsyncContextManager[Session], error: BaseException | None) -> None:
    """Leave a scope with what its container was closed with, which the container raises itself."""
    kind = None if error is None else type(error)
    await scope.__aexit__(kind, error, None if error is None else error.__traceback__)

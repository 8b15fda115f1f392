"""The web where code blocks: the same admission, at work in the loop of a blocking manager."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from sojourn.blocking.manager import SessionManager, gateway_of
from sojourn.reaper import Reaper
from sojourn.web.notices import said_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime, timedelta

    from sojourn import manager
    from sojourn.errors import SojournError
    from sojourn.session import Session
    from sojourn.web.admission import Admission
    from sojourn.web.devices import DeviceSession
    from sojourn.web.facts import Auth
    from sojourn.web.notices import Source
    from sojourn.web.values import Values
    from sojourn.web.websession import WebSession

T = TypeVar("T")

log = logging.getLogger("sojourn.web")


class Admissions:
    """The admission of an application whose code blocks: one in each process that it forks into.

    Given a URL it opens the store with the first call that needs it, and sweeps it from then on.
    """

    def __init__(
        self,
        sessions: SessionManager | str,
        make: Callable[[manager.SessionManager], Admission],
        **collaborators: Any,
    ) -> None:
        """`make` makes the admission of a manager.

        `collaborators` are for the manager of a URL. Raises what `SessionManager.open` does.
        """
        self._owns = isinstance(sessions, str)
        self.sessions = (
            SessionManager.open(sessions, **collaborators)
            if isinstance(sessions, str)
            else sessions
        )
        self._gateway = gateway_of(self.sessions)
        self._make = make
        self._admission: Admission | None = None
        self._swept: manager.SessionManager | None = None

    @property
    def here(self) -> Admission:
        """The admission of this process."""
        return self._of(self._gateway.bridge().sessions)

    def run(self, work: Callable[[Admission], Awaitable[T]]) -> T:
        """Await `work(admission)` in the manager's loop and return the result.

        Raises `WouldBlock` where an event loop runs in this thread, and what the work does.
        """
        return self._gateway.run(lambda sessions: self._worked(sessions, work))

    async def awaited(self, work: Callable[[Admission], Awaitable[T]]) -> T:
        """Do the same for code in an event loop of its own, which goes on meanwhile."""
        return await self._gateway.awaited(lambda sessions: self._worked(sessions, work))

    def close(self) -> None:
        """Close the manager, if it is ours. Twice is fine."""
        if self._owns:
            self.sessions.close()

    async def _worked(
        self, sessions: manager.SessionManager, work: Callable[[Admission], Awaitable[T]]
    ) -> T:
        if self._owns and self._swept is not sessions:
            self._swept = sessions
            # In a context of its own: it goes on long after the request that began it.
            start = Reaper(sessions).__aenter__()
            await asyncio.get_running_loop().create_task(start, context=Context())
        return await work(self._of(sessions))

    def _of(self, sessions: manager.SessionManager) -> Admission:
        admission = self._admission
        if admission is None or admission.sessions is not sessions:
            admission = self._admission = self._make(sessions)
        return admission

    def note_trouble(self, error: SojournError, source: Source) -> None:
        """Say that sessions could not be asked."""
        log.error("sessions can not be asked: %s", said_of(error))
        self.here.notify("failed", source=source, reason=type(error).__name__)


class Devices:
    """All users' sessions, for administrators: list them, end them."""

    def __init__(self, admissions: Admissions) -> None:
        """Made by the adapter of a framework."""
        self._run = admissions.run

    def of(self, user: str) -> list[DeviceSession]:
        """Return a user's sessions, the one used last first."""
        return self._run(lambda admission: admission.devices.of(user))

    def revoke(self, id: str, *, user: str | None = None, reason: str = "revoked") -> bool:
        """End a session; with `user`, only one of theirs. `False` when there is none."""
        return self._run(lambda admission: admission.devices.revoke(id, user=user, reason=reason))

    def revoke_all(self, user: str, *, keep: str | None = None, reason: str = "revoked") -> int:
        """End all sessions of a user, but the one with the id `keep`; return how many."""
        return self._run(
            lambda admission: admission.devices.revoke_all(user, keep=keep, reason=reason)
        )

    def revoke_everybody(self, *, reason: str = "revoked") -> int:
        """End all sessions of all users, and of nobody; return how many."""
        return self._run(lambda admission: admission.devices.revoke_everybody(reason=reason))

    def labelled(self, labels: dict[str, str], *, reason: str = "revoked") -> int:
        """End the sessions that were logged in with these labels: back-channel logout."""
        return self._run(lambda admission: admission.devices.labelled(labels, reason=reason))


class Face:
    """What can be done with a session beside its values, in code that blocks.

    What `WebSession` says of each verb holds here. Logging in and out is the framework's.
    """

    def _opened(self) -> WebSession:
        """Return the session behind it, opened by now, with what was set so far."""
        return self._held_values().flushed()

    def _held_values(self) -> Values:
        """Return its values, loaded by now."""
        raise NotImplementedError

    def _run(self, work: Callable[[Admission], Awaitable[T]]) -> T:
        """Await `work(admission)` in the manager's loop."""
        raise NotImplementedError

    def _verb(self, work: Callable[[WebSession], Awaitable[T]]) -> T:
        """Await a verb of the session; what was looked at before is looked at anew."""
        web = self._opened()
        try:
            return self._run(lambda _admission: work(web))
        finally:
            self._held_values().forget()

    # --- what it is ----------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """The session behind it, `None` while there is none: its log, documents and labels."""
        return self._opened().session

    @property
    def id(self) -> str | None:
        """The session's id. It is no secret: it opens nothing without the token."""
        return self._opened().id

    @property
    def user(self) -> str | None:
        """Who is logged in, `None` while nobody is."""
        return self._opened().user

    @property
    def available(self) -> bool:
        """Whether the store could be asked."""
        return self._opened().available

    @property
    def auth(self) -> Auth | None:
        """When and how the user logged in, `None` while nobody is."""
        return self._opened().auth

    @property
    def expires_at(self) -> datetime | None:
        """When it ends unless it is used again, `None` for never or not yet."""
        return self._opened().expires_at

    @property
    def time_left(self) -> timedelta | None:
        """How long it lasts if it is not used again: for a warning before the end."""
        return self._opened().time_left

    @property
    def longest_at(self) -> datetime | None:
        """When it ends however much it is used, `None` for never or not yet."""
        return self._opened().longest_at

    # --- what can be done with it --------------------------------------------------------------

    def rotate(self, *, grace: float = 0.0) -> None:
        """Get a new token: after any change of what the user may do."""
        self._opened().rotate(grace=grace)

    def require_recent_auth(self, max_age: float, *, level: int = 0) -> Auth:
        """Return the login if it is recent (seconds) and strong enough, else `AuthNeeded`."""
        return self._opened().require_recent_auth(max_age, level=level)

    def devices(self) -> list[DeviceSession]:
        """Return the user's sessions, the one used last first; none while nobody is logged in."""
        return self._verb(lambda web: web.devices())

    def revoke(self, id: str, *, reason: str = "revoked by the user") -> bool:
        """End one of the user's sessions; `False` when there is none of theirs with this id."""
        return self._verb(lambda web: web.revoke(id, reason=reason))

    def revoke_others(self, *, reason: str = "revoked by the user") -> int:
        """End all of the user's sessions but this one; return how many."""
        return self._verb(lambda web: web.revoke_others(reason=reason))

    @property
    def csrf_token(self) -> str:
        """What a form sends back to prove that it is ours. It changes with the token."""
        return self._opened().csrf_token

    def check_csrf(self, given: object) -> bool:
        """Return whether a form sent back the right value."""
        return self._opened().check_csrf(given)

    def incr(self, key: str, by: float = 1) -> Any:
        """Add to a number, in the store, and return it. Of many at once, each counts."""
        return self._verb(lambda web: web.incr(key, by))

    def compare_and_set(self, key: str, old: Any, new: Any) -> bool:
        """Set a key, in the store, if its value is `old` (`None` for missing); say if it was."""
        return self._verb(lambda web: web.compare_and_set(key, old, new))

    def refresh(self) -> None:
        """Load it anew; unsaved changes are dropped. Raises `NotFound` when it is gone."""
        self._verb(lambda web: web.refresh())

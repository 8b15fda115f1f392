"""taskiq: a task works in the session that its sender worked in.

`pip install "sojourn[taskiq]"`. What travels is `carry()`: no token, no state.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from sojourn.errors import MissingExtra, NotFound, OutOfScope, SojournError
from sojourn.manager import SessionManager
from sojourn.scopes import carry, current_session
from sojourn.session import Session  # noqa: TC001 - taskiq reads the annotation

try:
    from taskiq import TaskiqMiddleware
    from taskiq.exceptions import NoResultError
except ImportError as error:
    raise MissingExtra("sojourn.taskiq", "taskiq") from error

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from contextvars import Token

    from taskiq import TaskiqMessage, TaskiqResult

log = logging.getLogger("sojourn.taskiq")

LABEL = "sojourn"
"""The label of a message that names the session."""


class _Entered(NamedTuple):
    """The scope that a task works in, and what was there before it."""

    scope: AbstractAsyncContextManager[Session] | None
    token: Token[_Entered | None]


_entered: ContextVar[_Entered | None] = ContextVar("sojourn_taskiq", default=None)


class SessionCarrier(TaskiqMiddleware):
    """Sends the ambient session along with each task, and makes it ambient around the task.

    `broker.with_middlewares(SessionCarrier("sqlite:///app.db"))`, for sender and worker alike. The
    task has a working copy of its own, saved when it is done; what the sender has not saved yet is
    not in it. A task that raises saves nothing. One whose save fails has failed.

    A session that is over by the time its task runs is no reason to drop the task: it runs without
    one (`current_session()` is `None`), and that is logged. A task that can not do without depends
    on `get_session`. While the store is in trouble a task does not begin: what the broker does then
    is what it does with any task that could not be received.
    """

    def __init__(self, sessions: SessionManager | str) -> None:
        """Resume in this manager, or in one that is opened from a URL when the first task needs it.

        One that was opened here is closed with the broker.
        """
        super().__init__()
        self._own = isinstance(sessions, str)
        self.sessions = SessionManager.open(sessions) if isinstance(sessions, str) else sessions
        """The manager underneath."""
        self._opening = asyncio.Lock()
        self._opened = False

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Name the ambient session in the message.

        Raises `NotFound` for one with changes that was never saved: save it before the task is
        sent, or the worker could not find it.
        """
        session = current_session()
        if session is not None and (session.stored or session.modified):
            message.labels[LABEL] = json.dumps(carry(session))
        return message

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Enter the session of the message. Raises `Unavailable` while it can not be asked."""
        text = message.labels.get(LABEL)
        scope = None if text is None else await self._resumed(text, message.task_name)
        # A broker that runs tasks in place runs them inside of each other.
        before = _entered.set(None)
        _entered.set(_Entered(scope, before))
        return message

    async def _resumed(self, text: str, task: str) -> AbstractAsyncContextManager[Session] | None:
        """Enter the session that a label names; `None` when it is over."""
        await self._open()
        scope = self.sessions.resume(json.loads(text))
        try:
            await scope.__aenter__()
        except NotFound as error:
            log.warning("task %s runs without its session: %s", task, error.reason)
            return None
        return scope

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Leave the session, saved unless the task failed."""
        entered = _entered.get()
        if entered is None:
            return
        _entered.reset(entered.token)
        if entered.scope is None:
            return
        error = result.error
        failed = error is not None and not isinstance(error, NoResultError)
        try:
            if failed and error is not None:
                await entered.scope.__aexit__(type(error), error, error.__traceback__)
            else:
                await entered.scope.__aexit__(None, None, None)
        except SojournError as trouble:
            if trouble is error:
                return
            log.exception("the session of task %s was not saved", message.task_name)
            result.is_err, result.error = True, trouble

    async def shutdown(self) -> None:
        """Close what was opened here."""
        if self._opened:
            await self.sessions.close()

    async def _open(self) -> None:
        """Open the store of a URL, once."""
        if not self._own or self._opened:
            return
        async with self._opening:
            if not self._opened:
                await self.sessions.__aenter__()
                self._opened = True


async def get_session() -> Session:
    """Return the session of the task: `session: Annotated[Session, TaskiqDepends(get_session)]`.

    Raises `OutOfScope` when the task has none: then that is its result.
    """
    session = current_session()
    if session is None:
        raise OutOfScope("a task that depends on its session")
    return session

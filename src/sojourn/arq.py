"""arq: a job works in the session that its sender worked in.

arq has no place for such things beside a job's arguments, so that is where it travels: `carry()`,
under one name. Nothing of arq is imported here.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from sojourn.errors import InvalidQuery
from sojourn.manager import SessionManager
from sojourn.scopes import carry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn.session import Session

    Job = Callable[..., Awaitable[Any]]

ARGUMENT = "sojourn_session"
"""The keyword argument of a job that names the session."""

SESSIONS = "sessions"
"""Where a worker's `ctx` holds the manager: `ctx["sessions"]`, set in `on_startup`."""


def carried(session: Session | None = None) -> dict[str, dict[str, str]]:
    """Return what to enqueue a job with: `await pool.enqueue_job("cook", "soup", **carried())`.

    It names the session given, or the ambient one. Raises what `sojourn.carry` does.
    """
    return {ARGUMENT: carry(session)}


def in_session(job: Job) -> Job:
    """Return a job that works in the session it was enqueued with, ambient and saved at its end.

    `functions = [in_session(cook)]`, or as a decorator. The manager is `ctx["sessions"]`. A job
    that raises (`Retry` too) saves nothing. One that was enqueued without `carried` runs without a
    session. Raises `NotFound` or `Ended` for a session that is over, as the job's own failure, and
    `InvalidQuery` for a function that is not async, or where `ctx` has no manager.
    """
    if not inspect.iscoroutinefunction(job):
        raise InvalidQuery("job", "give an async function, as arq takes them")

    @functools.wraps(job)
    async def resumed(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        given = kwargs.pop(ARGUMENT, None)
        if given is None:
            return await job(ctx, *args, **kwargs)
        sessions = ctx.get(SESSIONS)
        if not isinstance(sessions, SessionManager):
            raise InvalidQuery(f"ctx[{SESSIONS!r}]", "set it to a SessionManager in on_startup")
        async with sessions.resume(given):
            return await job(ctx, *args, **kwargs)

    return resumed

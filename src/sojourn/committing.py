"""Commits through a working copy: what it expects, and one whose outcome nobody knew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from sojourn.errors import Ended, InvalidQuery, LeaseLost, NotFound, Unavailable
from sojourn.expiry import is_past
from sojourn.names import check_name
from sojourn.session import Doubtful, Session
from sojourn.store import Change

if TYPE_CHECKING:
    from collections.abc import Callable

    from sojourn.context import Context
    from sojourn.lease import Lease
    from sojourn.store import Committed, Durability

REMOVED = "it was ended and removed"
"""Why a copy that was open in a scope is missing."""

Policy = Literal["merge", "fail"]
"""What a write does when the session moved on: merge per key, or raise `Conflict`."""


class Committing:
    """What the parts of a manager that write to sessions share."""

    def __init__(self, context: Context) -> None:
        """Made by `SessionManager`."""
        self._context = context

    def change(
        self,
        target: Session | str,
        *,
        conflict: Policy,
        lease: Lease | None,
        durability: Durability | None = None,
        **parts: Any,
    ) -> Change:
        """Return a change to a session, with what this copy of it expects."""
        id, epoch, revision = expected_of(target, conflict, lease)
        return Change(
            app=self._context.app,
            id=id,
            op=self._context.ids.operation(),
            now=self._context.now(),
            epoch=epoch,
            revision=revision,
            fence=None if lease is None else lease.token,
            durability=self._context.durability(durability),
            **parts,
        )

    async def commit(
        self, session: Session | None, change: Change, taken: Callable[[Committed], None]
    ) -> None:
        """Commit. A copy in a scope, or past its deadline, says `Ended` of what was removed."""
        try:
            await self._context.commit(change, taken)
        except (Unavailable, asyncio.CancelledError):
            if session is not None:
                session.doubtful = Doubtful(change, taken)
            raise
        except NotFound as error:
            if session is None or not was_ended(session, change, error):
                raise
            raise Ended(session.id, session.phase, REMOVED) from error

    async def settle(self, session: Session) -> None:
        """Find out what came of this copy's last commit, if nobody could say at the time.

        Else a strict write would conflict with it, and a save would send it again. Raises
        `Unavailable` when nobody can say yet.
        """
        doubtful = session.doubtful
        if doubtful is None:
            return
        committed = await self._context.outcome(doubtful.change)
        if session.doubtful is not doubtful:
            return  # another call has settled it meanwhile
        session.doubtful = None
        if committed is not None:
            doubtful.taken(committed)


def was_ended(session: Session, change: Change, error: NotFound) -> bool:
    """Return whether a session is missing because it was ended.

    Of a copy that is in a scope or past its deadline that is all it can be.
    """
    if isinstance(error, Ended):  # which says more
        return False
    return session.scopes > 0 or is_past(session.header.expires_at, change.now)


def expected_of(
    target: Session | str, conflict: Policy, lease: Lease | None
) -> tuple[str, str | None, int | None]:
    """Return the id that is meant, with the epoch and revision that this copy of it expects."""
    epoch: str | None = None
    revision: int | None = None
    if isinstance(target, Session):
        header = target.header
        id, epoch = header.id, header.epoch
        if not target.stored:
            raise NotFound(id, "it has not been saved yet")
        revision = target.revision if conflict == "fail" else None
    else:
        id = check_name("session id", target)
        if conflict == "fail":
            raise InvalidQuery("conflict", "'fail' needs a session that was loaded, not an id")
    if lease is not None:
        epoch = _fenced(lease, id, epoch)
    return id, epoch, revision


def _fenced(lease: Lease, id: str, epoch: str | None) -> str | None:
    """Return the incarnation that a lease is of: tokens of another one mean nothing."""
    try:
        of, of_epoch, token = lease.id, lease.epoch, lease.token
    except AttributeError:
        given = type(lease).__name__
        raise InvalidQuery("lease", f"give what `lease()` handed out, not {given}") from None
    if of != id:
        raise InvalidQuery("lease", f"it is of session {of!r}, not of {id!r}")
    if epoch not in (None, of_epoch):
        raise LeaseLost(id, token)
    return of_epoch


def check_policy(conflict: object) -> None:
    """Raise `InvalidQuery` for anything but "merge" and "fail"."""
    if conflict not in ("merge", "fail"):
        raise InvalidQuery("conflict", f"{conflict!r} is neither 'merge' nor 'fail'")

"""Ending sessions: the one path that an explicit end and the reaper share, and plain removal.

Move to the ending phase (no new writes) → run end hooks and cleaners, under a lease → remove, or
keep the ended record for its retention time. What fails on the way leaves the session ending and
readable, and is tried again.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from sojourn.errors import (
    Conflict,
    Corrupt,
    EndFailed,
    InvalidQuery,
    InvalidTransition,
    LeaseLost,
    NotFound,
)
from sojourn.expiry import span_of
from sojourn.lease import Releasing, acquire
from sojourn.lifecycle import END_OF, ENDING, FINISH_OF, OVER
from sojourn.limits import (
    END_CLAIM_SECONDS,
    END_RETRY_FIRST_SECONDS,
    END_RETRY_LAST_SECONDS,
    HOOK_SECONDS,
    MAX_PAGE,
)
from sojourn.names import check_name
from sojourn.session import session_from
from sojourn.store import Change, Delete, Due, Move, Query, Retry
from sojourn.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.context import Context
    from sojourn.lease import Lease
    from sojourn.model import Header, Record
    from sojourn.ports import Cleaner, Hook
    from sojourn.reading import Reading
    from sojourn.session import Session
    from sojourn.watch import Watches

REMOVE_ATTEMPTS = 8
"""Tries to remove a watched session between two writes to it, before it is removed amid them."""

MAX_REASON = 1_000
"""Characters in the reason of an end: it is for people to read."""

_finishing: ContextVar[tuple[tuple[str, asyncio.Task[bool]], ...]] = ContextVar(
    "sojourn_finishing", default=()
)
"""The ends, by epoch, that the code at hand is part of: to wait for one would never end."""


class Ending:
    """The part of a manager that ends and removes sessions."""

    def __init__(
        self, context: Context, reading: Reading, watches: Watches, cleaners: Sequence[Cleaner]
    ) -> None:
        """Made by `SessionManager`."""
        self._context = context
        self._reading = reading
        self._watches = watches
        self._hooks: list[Hook] = []
        self._cleaners = tuple(cleaners)
        self._running: dict[str, asyncio.Future[bool]] = {}

    def add_hook(self, hook: Hook) -> None:
        """Run `hook` at the end of every session from now on."""
        if not callable(hook):
            raise InvalidQuery("hook", "give an async function of a session and a reason")
        self._hooks.append(hook)

    @property
    def has_hooks(self) -> bool:
        """Whether ending a session means more than removing it."""
        return bool(self._hooks or self._cleaners)

    # --- the two halves of an end --------------------------------------------------------------

    async def end(self, id: str, *, reason: str, retain: float | None) -> bool:
        """See `SessionManager.end`."""
        if retain is not None:
            span_of("retain", retain)
        check_reason(reason)
        check_name("session id", id)
        record = await self._reading.record(id, expired=True)
        if record is None or record.header.phase in OVER or _is_being_finished(record.header):
            return False
        await self._begin(record.header, reason=reason, retain=retain, expired="allow")
        return await self.finish(id, epoch=record.header.epoch)

    async def end_as_seen(self, header: Header, *, reason: str) -> bool:
        """End a session as `end` does. Raises `Conflict` if anybody committed since it was read."""
        check_reason(reason)
        if header.phase in OVER or _is_being_finished(header):
            return False
        await self._begin(header, reason=reason, retain=None, expired="allow", strict=True)
        return await self.finish(header.id, epoch=header.epoch)

    async def _end_children(self, id: str, lease: Lease) -> tuple[BaseException, ...]:
        """End a session's children, in parallel; return what failed.

        Its own end has begun, so it gets no new ones.
        """
        children = await self._children(id)
        # A child that was listed before its parent was seen to be there still is this parent's.
        if not children or await self._claimed(id, lease) is None:
            return ()
        outcomes = await asyncio.gather(
            *(self.end(child, reason="its parent ends", retain=None) for child in children),
            return_exceptions=True,
        )
        await lease.renew()  # that took its time
        return tuple(outcome for outcome in outcomes if isinstance(outcome, BaseException))

    async def _children(self, id: str) -> list[str]:
        found: list[str] = []
        position: str | None = None
        while True:
            query = Query(
                app=self._context.app,
                now=self._context.now(),
                parent=id,
                order="created",
                limit=MAX_PAGE,
                position=position,
                expired=True,
            )
            listed = await self._context.store.list(query)
            found += [
                record.header.id for record in listed.records if record.header.phase not in OVER
            ]
            position = listed.position
            if position is None:
                return found

    async def _begin(
        self,
        header: Header,
        *,
        reason: str,
        retain: float | None,
        expired: Literal["allow", "require"],
        strict: bool = False,
    ) -> None:
        """Move a session to its ending phase. One that is there already is fine, a gone one too.

        If it is `strict`, only as it was read: else `Conflict`.
        """
        now = self._context.now()
        move = Move(
            trigger=END_OF[header.lifecycle],
            reason=reason,
            due_at=now + from_seconds(END_CLAIM_SECONDS),
            retain=None if retain is None else span_of("retain", retain),
        )
        change = Change(
            app=header.app,
            id=header.id,
            op=self._context.ids.operation(),
            now=now,
            epoch=header.epoch,
            revision=header.revision if strict else None,
            move=move,
            expired=expired,
        )
        try:
            await self._context.commit(change, lambda _done: None)
        except InvalidTransition:
            record = await self._reading.record(header.id, expired=True)
            if record is not None and record.header.phase not in OVER:
                raise
        except NotFound:
            return

    async def finish(self, id: str, *, epoch: str | None = None) -> bool:
        """See `SessionManager.finish`. Of many callers in this process, one runs; all wait.

        With `epoch` it means that incarnation and no later one of the id.
        """
        check_name("session id", id)
        record = await self._reading.record(id, expired=True)
        if record is None or record.header.phase in OVER:
            return False
        header = record.header
        if epoch not in (None, header.epoch) or _is_being_finished(header):
            return False
        if header.phase not in ENDING:
            trigger = FINISH_OF[header.lifecycle]
            raise InvalidTransition(header.phase, trigger, "its end has not begun: use end()")
        # By epoch: a session that gets the id once this one is removed has an end of its own.
        running = self._running.get(header.epoch)
        if running is None:
            running = asyncio.ensure_future(self._finish(header))
            self._running[header.epoch] = running
            running.add_done_callback(lambda _done: self._running.pop(header.epoch, None))
        # Shielded: a caller that gives up must not leave hooks half run for the others.
        return await asyncio.shield(running)

    def refuse_from_within(self, verb: str) -> None:
        """Raise `InvalidQuery` in a hook, or what one calls: the verb waits for its end."""
        own = {task for _, task in _finishing.get()}
        if own & set(self._running.values()):
            raise InvalidQuery(verb, "an end hook can not do that: it waits for the hook")

    async def settle(self) -> None:
        """Wait for the ends under way; each is bounded by the time its hooks have."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def _finish(self, header: Header) -> bool:
        task = asyncio.current_task()
        assert task is not None  # it was made for this
        _finishing.set((*_finishing.get(), (header.epoch, task)))  # seen in here and in the hooks
        lease = await self._claim(header)
        if lease is None:
            return False
        try:
            async with Releasing(lease):
                return await self._run(header.id, lease)
        except LeaseLost:  # it took so long that somebody else is at it by now
            return False

    async def _claim(self, header: Header) -> Lease | None:
        """Take the lease to end a session; `None` when somebody else has ended it meanwhile."""
        try:
            return await acquire(
                self._context,
                header.id,
                ttl=END_CLAIM_SECONDS,
                wait=END_CLAIM_SECONDS,
                epoch=header.epoch,
            )
        except NotFound:
            return None

    async def _run(self, id: str, lease: Lease) -> bool:
        record = await self._claimed(id, lease)
        if record is None:
            return False
        causes = await self._end_children(id, lease)
        if not causes:
            causes = await self._run_hooks(session_from(record), record.header.reason or "ended")
        if causes:
            await self._note_failure(record.header, lease)
            raise EndFailed(id, causes)
        # Read again: an end that was asked for meanwhile may have asked to keep the record.
        record = await self._claimed(id, lease)
        if record is None:
            return False
        if record.header.retain is not None:
            await self._keep(record.header, lease)
            return True
        return await self.remove(id, epoch=record.header.epoch, fence=lease.token)

    async def _claimed(self, id: str, lease: Lease) -> Record | None:
        """Return the session that the lease is of while it is ending; a later one is not it."""
        record = await self._reading.record(id, expired=True)
        if record is None or record.header.epoch != lease.epoch:
            return None
        return record if record.header.phase in ENDING else None

    async def _run_hooks(self, session: Session, reason: str) -> tuple[BaseException, ...]:
        """Run hooks, then cleaners, each group in parallel; return what failed."""
        failed = await _all_of(self._hooks, session, reason)
        if failed:
            return failed
        return await _all_of([cleaner.clean for cleaner in self._cleaners], session, reason)

    async def _note_failure(self, header: Header, lease: Lease) -> None:
        """Leave the session ending, to be tried again later; the wait doubles each time."""
        wait = END_RETRY_FIRST_SECONDS * 2 ** min(header.attempts, 16)
        now = self._context.now()
        due_at = now + from_seconds(min(wait, END_RETRY_LAST_SECONDS))
        await self._commit_end(header, lease, now, retry=Retry(due_at=due_at))

    async def _keep(self, header: Header, lease: Lease) -> None:
        """Complete the end of a session whose record is kept for a while."""
        move = Move(trigger=FINISH_OF[header.lifecycle])
        await self._commit_end(header, lease, self._context.now(), move=move)

    async def _commit_end(
        self,
        header: Header,
        lease: Lease,
        now: int,
        *,
        move: Move | None = None,
        retry: Retry | None = None,
    ) -> None:
        change = Change(
            app=header.app,
            id=header.id,
            op=self._context.ids.operation(),
            now=now,
            epoch=header.epoch,
            fence=lease.token,
            move=move,
            retry=retry,
            expired="allow",
        )
        await self._context.commit(change, lambda _done: None)

    # --- sessions past their deadline ----------------------------------------------------------

    async def finish_expired(self, id: str) -> None:
        """Take an expired session down its end path now."""
        record = await self._reading.record(id, expired=True)
        if record is None:
            return
        await self.finish_due(record.header)

    async def finish_due(self, header: Header) -> bool:
        """End what the reaper found due; return whether it is gone or over now.

        Nothing happens to a session that was used or changed since it was found.
        """
        if header.phase in OVER:
            return await self.remove(header.id, epoch=header.epoch, revision=header.revision)
        if header.phase not in ENDING:
            try:
                await self._begin(
                    header, reason="expired", retain=None, expired="require", strict=True
                )
            except Conflict:
                # It was used or changed; or somebody else began its end, which we join then.
                record = await self._reading.record(header.id, expired=True)
                if record is None or record.header.phase not in ENDING:
                    return False
        return await self.finish(header.id, epoch=header.epoch)

    async def due(self, limit: int) -> Sequence[Header]:
        """Return up to `limit` sessions that the reaper has to look at."""
        return await self._context.store.due(self._due(limit))

    async def reap(self, limit: int) -> Sequence[str]:
        """Remove up to `limit` due sessions at once; for when there are no hooks to run."""
        if self._watches.watched:
            await self._watches.hand_over(header.id for header in await self.due(limit))
        return await self._context.store.reap(self._due(limit))

    def _due(self, limit: int) -> Due:
        return Due(app=self._context.app, now=self._context.now(), limit=limit)

    # --- plain removal -------------------------------------------------------------------------

    async def remove(
        self,
        id: str,
        *,
        epoch: str | None = None,
        revision: int | None = None,
        fence: int | None = None,
    ) -> bool:
        """Remove a session if the expectations hold; watchers here get what they had not read."""
        check_name("session id", id)
        if revision is None and fence is None and self._watches.concern(id):
            removed = await self._remove_as_read(id, epoch)
            if removed is not None:
                return removed
        return await self._remove(id, epoch=epoch, revision=revision, fence=fence)

    async def _remove_as_read(self, id: str, epoch: str | None) -> bool | None:
        """Remove a session that is watched; `None` if it is written to all the time, or damaged.

        What is written after the watchers were handed the rest would be lost on them.
        """
        for _attempt in range(REMOVE_ATTEMPTS):
            try:
                record = await self._reading.record(id, expired=True)
            except Corrupt:
                return None
            if record is None or epoch not in (None, record.header.epoch):
                return False
            seen = record.header
            if await self._remove(id, epoch=seen.epoch, revision=seen.revision, fence=None):
                return True
        return None

    async def _remove(
        self, id: str, *, epoch: str | None, revision: int | None, fence: int | None
    ) -> bool:
        delete = Delete(
            app=self._context.app,
            id=id,
            now=self._context.now(),
            epoch=epoch,
            revision=revision,
            fence=fence,
        )
        await self._watches.hand_over([id])
        return await self._context.store.delete(delete)

    async def forget(self, user: str) -> int:
        """See `SessionManager.forget`."""
        check_name("user", user)
        self._context.now()
        await self._watches.hand_over(self._watches.watched)  # whose they are may have changed
        return await self._context.store.forget(self._context.app, user)


def check_reason(reason: object) -> str:
    """Return a reason if it can be stored. Raises `InvalidQuery`."""
    if not isinstance(reason, str):
        raise InvalidQuery("reason", f"give a string, not {type(reason).__name__}")
    if len(reason) > MAX_REASON:
        raise InvalidQuery("reason", f"give at most {MAX_REASON} characters, not {len(reason)}")
    try:
        reason.encode()
    except UnicodeEncodeError as error:
        raise InvalidQuery("reason", str(error)) from None
    return reason


def _is_being_finished(header: Header) -> bool:
    """Return whether this is called, however indirectly, by a hook of that very end."""
    return any(epoch == header.epoch and not task.done() for epoch, task in _finishing.get())


async def _all_of(
    hooks: Sequence[Hook], session: Session, reason: str
) -> tuple[BaseException, ...]:
    """Run hooks in parallel, each in bounded time; return the exceptions, in order."""

    async def one(hook: Hook) -> None:
        async with asyncio.timeout(HOOK_SECONDS):
            await hook(session, reason)

    outcomes = await asyncio.gather(*(one(hook) for hook in hooks), return_exceptions=True)
    return tuple(outcome for outcome in outcomes if isinstance(outcome, BaseException))

"""Leases: the right of one worker to run a session for a while, with a fencing token."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sojourn.arguments import is_wait
from sojourn.context import completed, uninterrupted
from sojourn.errors import (
    Ended,
    InvalidQuery,
    LeaseHeld,
    LeaseLost,
    NotFound,
    SojournError,
    Unavailable,
)
from sojourn.expiry import span_of
from sojourn.limits import LEASE_MAX_SECONDS
from sojourn.store import Acquire, Renew, SupportsLease
from sojourn.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.context import Context
    from sojourn.reading import Reading

RETRY_SECONDS = 0.05
"""How often a worker that waits for a lease asks again."""

RENEWALS = 3
"""A lease that is kept is renewed this many times in its span, so that one failure is no loss."""


class Lease:
    """A lease that is held. Hand it to `append`, `save` and the like: they fail once it is lost."""

    def __init__(self, context: Context, store: SupportsLease, grant: Acquire, token: int) -> None:
        """Made by `SessionManager.lease`."""
        self.id = grant.id
        """The id of the session."""
        self.epoch = grant.epoch
        """The incarnation of the session that it is of."""
        self.token = token
        """The number that rises with every holder."""
        self.lost = False
        """Whether it is known to be another's by now."""
        self._context = context
        self._store = store
        self._holder = grant.holder
        self._span = grant.until - grant.now

    def __repr__(self) -> str:
        """Show whose it is and its token."""
        return f"<Lease of {self.id!r} token {self.token}{' lost' if self.lost else ''}>"

    async def renew(self) -> None:
        """Start its span over. Raises `LeaseLost` once another worker has it."""
        now = self._context.now()
        await self._move(now, now + self._span)

    async def release(self) -> None:
        """Let the next worker have it. One that is lost already is fine."""
        with contextlib.suppress(LeaseLost, NotFound):
            await self._move(self._context.now(), None)

    async def _move(self, now: int, until: int | None) -> None:
        renew = Renew(
            app=self._context.app,
            id=self.id,
            token=self.token,
            holder=self._holder,
            now=now,
            until=until,
        )
        try:
            await self._store.renew(renew)
        except (LeaseLost, NotFound):
            self.lost = True
            raise

    async def keep(self) -> None:
        """Renew until cancelled or lost."""
        seconds = self._span / 1_000_000 / RENEWALS
        while not self.lost:
            await asyncio.sleep(seconds)
            # A store in trouble may come back before the span is over; the fence decides.
            with contextlib.suppress(SojournError):
                await self.renew()


async def acquire(
    context: Context, id: str, *, ttl: float, wait: float, epoch: str | None = None
) -> Lease:
    """Take a lease. Held by another: `LeaseHeld`, once `wait` seconds are over."""
    store = context.store
    if not isinstance(store, SupportsLease):
        raise Unavailable(store.name, "this store has no leases")
    if span_of("ttl", ttl) > from_seconds(LEASE_MAX_SECONDS):
        raise InvalidQuery("ttl", f"give seconds, above 0 and up to {LEASE_MAX_SECONDS:.0f}")
    if not is_wait(wait):
        raise InvalidQuery("wait", "give a number of seconds, 0 for not at all")
    loop = asyncio.get_running_loop()
    give_up = loop.time() + wait
    holder = context.ids.epoch()
    while True:
        now = context.now()
        until = now + from_seconds(ttl)
        grant = Acquire(app=context.app, id=id, holder=holder, now=now, until=until, epoch=epoch)
        try:
            token = await store.acquire(grant)
        except LeaseHeld:
            left = give_up - loop.time()
            if left <= 0:
                raise
            await asyncio.sleep(min(RETRY_SECONDS, left))
        except asyncio.CancelledError:
            # The grant may have been written: let go of it, so that nobody waits its span out.
            await uninterrupted(_let_go(context, store, grant))
            raise
        else:
            return Lease(context, store, grant, token)


async def _let_go(context: Context, store: SupportsLease, grant: Acquire) -> None:
    with contextlib.suppress(SojournError):
        token = await store.acquire(grant)
        await Lease(context, store, grant, token).release()


@asynccontextmanager
async def hold(
    context: Context, reading: Reading, id: str, *, ttl: float, wait: float, renew: bool
) -> AsyncIterator[Lease]:
    """Hold a lease for the span of a body. See `SessionManager.lease`."""
    record = await reading.record(id)
    if record is None:
        raise NotFound(str(id))
    if not record.header.live:
        raise Ended(id, record.header.phase, record.header.reason or "no reason given")
    lease = await acquire(context, id, ttl=ttl, wait=wait, epoch=record.header.epoch)
    keeper = asyncio.ensure_future(lease.keep()) if renew else None
    async with Releasing(lease, keeper):
        yield lease


class Releasing:
    """Lets go of a lease after a body, and of what renews it.

    What the body raised, or that it was cancelled, is what matters, even if the release fails. It
    is no generator: an event loop that is stopped closes all of those at once, also one inside of
    another.
    """

    def __init__(self, lease: Lease, keeper: asyncio.Future[None] | None = None) -> None:
        self._lease = lease
        self._keeper = keeper

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        try:
            await completed(_stop(self._keeper, self._lease))
        except SojournError as trouble:
            if error is None:
                raise
            error.add_note(f"and its lease was not released: {trouble}")


async def _stop(keeper: asyncio.Future[None] | None, lease: Lease) -> None:
    """Renew a lease no more, and let go of it."""
    if keeper is not None:
        keeper.cancel()
        await asyncio.wait([keeper])
    await lease.release()

"""Laws of leases: one worker at a time, and each holder's token is higher than any before."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from sojourn.errors import LeaseHeld, LeaseLost, NotFound
from sojourn.lifecycle import Phase
from sojourn.store import SupportsLease
from sojourn.testing.laws.corner import ONE, Corner, draft, drafts, instant
from sojourn.testing.laws.expect import Broken, equal, exactly, holds, refused
from sojourn.testing.laws.law import law
from sojourn.testing.laws.lifecycle import FINISH, end


@law(needs=SupportsLease)
async def a_lease_has_one_holder_until_it_ends(corner: Corner) -> None:
    """Others get `LeaseHeld`, which says until when; at that instant it is free."""
    await corner.create()
    await corner.acquire("a", until=30)
    error = await refused(corner.acquire("b", now=29, until=60), LeaseHeld, "a second holder")
    equal((error.id, error.until), (ONE, instant(30)), "the id and the end in the error")
    await corner.acquire("b", now=30, until=60)
    await refused(corner.acquire("a", now=31, until=60), LeaseHeld, "the first, too late")


@law(needs=SupportsLease)
async def tokens_rise_with_every_holder(corner: Corner) -> None:
    """Whether the lease before ran out or was released; each is higher than all before."""
    await corner.create()
    tokens = [await corner.acquire("h0", until=1)]
    for n in range(1, 10):
        if n % 2:
            await corner.renew(tokens[-1], f"h{n - 1}", now=n, until=None)
        tokens.append(await corner.acquire(f"h{n}", now=n, until=n + 1))
    holds(all(a < b for a, b in pairwise(tokens)), f"tokens rise: {tokens}")
    holds(tokens[0] > 0, f"tokens are positive: {tokens}")


@law(needs=SupportsLease)
async def asking_again_is_the_same_lease(corner: Corner) -> None:
    """The same holder, after a lost reply: the same token, and the new end counts."""
    await corner.create()
    token = await corner.acquire("a", until=10)
    equal(await corner.acquire("a", now=5, until=40), token, "the token, asked again")
    await refused(corner.acquire("b", now=39, until=50), LeaseHeld, "another before the new end")
    await corner.acquire("b", now=40, until=50)


@law(needs=SupportsLease)
async def renewing_moves_the_end(corner: Corner) -> None:
    """Later or earlier; also past the end, as long as nobody else took over."""
    await corner.create()
    token = await corner.acquire("a", until=10)
    await corner.renew(token, "a", now=5, until=30)
    await refused(corner.acquire("b", now=29, until=60), LeaseHeld, "another before the new end")
    await corner.renew(token, "a", now=35, until=50)
    await refused(corner.acquire("b", now=49, until=60), LeaseHeld, "another, renewed late")
    await corner.renew(token, "a", now=49, until=49)
    await corner.acquire("b", now=49, until=60)


@law(needs=SupportsLease)
async def a_lease_that_is_over_can_not_be_renewed(corner: Corner) -> None:
    """Superseded, released, or never granted: `LeaseLost`, and who holds it now keeps it."""
    await corner.create()
    first = await corner.acquire("a", until=10)
    second = await corner.acquire("b", now=10, until=100)
    for until in (50, None):
        error = await refused(
            corner.renew(first, "a", now=11, until=until), LeaseLost, f"the old one, until={until}"
        )
        equal((error.id, error.token), (ONE, first), "the id and token in the error")
    bad = corner.renew(second, "a", now=11, until=50)
    await refused(bad, LeaseLost, "the new token with another holder")
    await refused(corner.acquire("c", now=99, until=200), LeaseHeld, "a third while it runs")
    await corner.renew(second, "b", now=20, until=None)
    bad = corner.renew(second, "b", now=21, until=50)
    await refused(bad, LeaseLost, "one that was released")


@law(needs=SupportsLease)
async def a_released_lease_is_free_at_once(corner: Corner) -> None:
    """The next holder need not wait for its end."""
    await corner.create()
    token = await corner.acquire("a", until=100)
    await corner.renew(token, "a", now=1, until=None)
    next_token = await corner.acquire("b", now=1, until=100)
    holds(next_token > token, f"the next token {next_token} is higher than {token}")


@law(needs=SupportsLease)
async def leases_are_for_sessions_that_exist(corner: Corner) -> None:
    """An unknown, deleted or re-created session: `NotFound`."""
    await refused(corner.acquire("a"), NotFound, "a lease of an unknown id")
    await refused(corner.renew(1, "a"), NotFound, "renewing a lease of an unknown id")
    epoch = (await corner.create()).header.epoch
    token = await corner.acquire("a", epoch=epoch)
    await corner.delete()
    await refused(corner.renew(token, "a"), NotFound, "renewing a lease of a deleted session")
    await corner.create()
    bad = corner.acquire("b", epoch=epoch)
    await refused(bad, NotFound, "a lease of an earlier incarnation")
    await corner.acquire("b")


@law(needs=SupportsLease)
async def sessions_that_are_expired_or_ending_can_be_leased(corner: Corner) -> None:
    """To be ended by one runner."""
    await corner.create("expired", idle=10)
    await corner.acquire("a", id="expired", now=20, until=30)
    await refused(corner.acquire("b", id="expired", now=20, until=30), LeaseHeld, "a second runner")
    await corner.create("ending")
    await corner.commit("ending", move=end())
    await corner.acquire("a", id="ending")
    equal((await corner.read("ending")).header.phase, Phase.ENDING, "the phase")
    equal(await corner.get("expired", now=20), None, "the expired session to a reader")


@law(needs=SupportsLease)
async def commits_are_fenced(corner: Corner) -> None:
    """With the newest token they pass; superseded or released: `LeaseLost`, nothing is written."""
    await corner.create()
    first = await corner.acquire("a", until=10)
    await corner.commit(fence=first, state={"by": "a"})
    await corner.commit(fence=first, state={"late": 1}, now=15)
    second = await corner.acquire("b", now=20, until=30)
    before = await corner.snapshot(ONE)
    bad = corner.commit(fence=first, state={"by": "a"}, app_state={"by": "a"}, events=drafts(1))
    error = await refused(bad, LeaseLost, "a commit with the old token")
    equal((error.id, error.token), (ONE, first), "the id and token in the error")
    equal(await corner.snapshot(ONE), before, "everything after the refusal")
    await corner.commit(fence=second, state={"by": "b"}, now=20)
    await corner.renew(second, "b", now=21, until=None)
    bad = corner.commit(fence=second, state={"by": "b again"}, now=22)
    await refused(bad, LeaseLost, "a commit with a token that was released")
    exactly(await corner.state(now=22), {"by": "b", "late": 1}, "the state in the end")


@law(needs=SupportsLease)
async def leases_leave_the_session_as_it_is(corner: Corner) -> None:
    """Neither revision, nor deadline, nor activity change: strict savers are not disturbed."""
    before = (await corner.create(idle=10, events=drafts(1))).header
    token = await corner.acquire("a", now=5, until=50)
    await corner.renew(token, "a", now=6, until=60)
    header = (await corner.read(now=6)).header
    for field in ("revision", "seq", "active_at", "expires_at", "due_at", "phase"):
        equal(getattr(header, field), getattr(before, field), f"{field} after a lease")
    await corner.commit(revision=1, now=6)
    held = corner.acquire("b", now=59, until=99)
    await refused(held, LeaseHeld, "the lease after a commit by somebody else")


@law(needs=SupportsLease)
async def beginning_the_end_revokes_the_lease(corner: Corner) -> None:
    """Whoever ran the session runs it no more: who ends it can lease it at once."""
    await corner.create()
    token = await corner.acquire("worker", until=1000)
    await corner.commit(move=end())
    await refused(corner.renew(token, "worker", now=1), LeaseLost, "renewing while it ends")
    runner = await corner.acquire("runner", now=1, until=60)
    holds(runner > token, f"the runner's token {runner} is higher than the worker's {token}")


@law(needs=SupportsLease)
async def ending_again_takes_the_lease_from_nobody(corner: Corner) -> None:
    """Who begins an end that is under way leaves its runner the lease: hooks have one runner."""
    await corner.create()
    await corner.commit(move=end())
    runner = await corner.acquire("runner", until=60)
    await corner.commit(move=end(), now=1)
    await refused(corner.acquire("second", now=2, until=90), LeaseHeld, "a second runner")
    await corner.renew(runner, "runner", now=3, until=90)
    await corner.commit(move=FINISH, fence=runner, now=4)
    equal((await corner.read(now=5)).header.phase, Phase.ENDED, "the phase that it finished in")


@law(needs=SupportsLease)
async def of_many_that_want_a_lease_at_once_exactly_one_gets_it(corner: Corner) -> None:
    """Ten workers: one token, the others `LeaseHeld`."""
    await corner.create()
    calls = [corner.acquire(f"h{n}") for n in range(10)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    equal(sum(isinstance(outcome, int) for outcome in outcomes), 1, "workers that got the lease")
    for outcome in outcomes:
        if not isinstance(outcome, int | LeaseHeld):
            raise Broken(f"a worker that lost got {outcome!r}, not LeaseHeld")


@law(needs=SupportsLease)
async def leases_beside_commits_undo_nothing(corner: Corner) -> None:
    """Renewed and taken while others write: every acknowledged commit stays as it was told."""
    await corner.create()
    token = await corner.acquire("a", until=10)
    commits = [corner.commit(events=(draft(f"e{n}"),), fence=token) for n in range(30)]
    renewals = [corner.renew(token, "a", until=20 + n) for n in range(30)]
    calls = [call for pair in zip(renewals, commits, strict=True) for call in pair]
    await asyncio.gather(corner.acquire("a", until=99), *calls)
    header = (await corner.read()).header
    equal((header.revision, header.seq), (31, 30), "revision and last number in the end")
    equal(await corner.seqs(), list(range(1, 31)), "the log")
    equal((header.fence, header.holder), (token, "a"), "token and holder in the end")

"""Laws of durability: what was acknowledged is there when the store is opened again."""

from __future__ import annotations

import asyncio
from typing import Any

from sojourn.errors import Closed, NotFound, RoleTaken
from sojourn.lifecycle import Phase
from sojourn.limits import OPERATIONS_REMEMBERED
from sojourn.store import Committed, Drop, SupportsLease
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, drafts, put
from sojourn.testing.laws.expect import Broken, equal, exactly, refused
from sojourn.testing.laws.law import Reopen, law
from sojourn.testing.laws.lifecycle import end
from sojourn.testing.laws.state import VALUES


@law(needs=Reopen, behaviours=(64,))
async def everything_outlives_the_store(corner: Corner) -> None:
    """Header, state of every tier, log, documents, labels: the same after close and open."""
    await corner.create(
        user="u",
        state=VALUES,
        user_state={"n": 1},
        app_state={"n": 1},
        events=tuple(draft(name, value) for name, value in VALUES.items()),
        labels={"a": "b"},
        idle=1000,
        absolute=5000,
    )
    await corner.commit(documents=(put("doc", bytes(range(256))), put("more", expires=50)))
    await corner.commit(None, documents=(put("shared", b"1"),))
    await corner.touch(now=5)
    before = await corner.snapshot(ONE, users=("u",))
    await corner.reopen()
    equal(await corner.snapshot(ONE, users=("u",)), before, "everything after opening again")
    equal(await corner.body("shared", None), b"1", "the app's document")
    exactly(decoded((await corner.read()).state), VALUES, "the state")
    for filters in ({}, {"user": "u"}, {"labels": {"a": "b"}}):
        equal(await corner.ids(**filters), [ONE], f"the sessions by {filters}")
        equal(await corner.count(**filters), 1, f"the count by {filters}")


@law(needs=Reopen)
async def every_acknowledged_commit_outlives_the_store(corner: Corner) -> None:
    """Whatever it asked for: a store closed in order loses nothing, relaxed ones included."""
    await corner.create()
    for n, durability in enumerate((None, "relaxed", "durable", "relaxed")):
        await corner.commit(state={f"k{n}": n}, durability=durability, events=(draft(f"e{n}"),))
        await corner.reopen()
        exactly(await corner.state(), {f"k{k}": k for k in range(n + 1)}, f"the state after {n}")
        equal(await corner.seqs(), list(range(1, n + 2)), f"the log after commit {n}")


@law(needs=Reopen)
async def what_was_acknowledged_before_closing_is_there_and_nothing_else(corner: Corner) -> None:
    """Of commits in flight when the store is closed, exactly the acknowledged ones are found."""
    await corner.create()
    calls = [
        asyncio.ensure_future(corner.commit(state={f"k{n}": n}, events=(draft(f"e{n}"),)))
        for n in range(50)
    ]
    await asyncio.sleep(0)
    await corner.store.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    await corner.reopen()
    acknowledged = set()
    for n, outcome in enumerate(outcomes):
        if isinstance(outcome, Committed):
            acknowledged.add(n)
        elif not isinstance(outcome, Closed):
            raise Broken(f"a commit in flight at the time of closing came to {outcome!r}")
    exactly(await corner.state(), {f"k{n}": n for n in sorted(acknowledged)}, "the state")
    equal({e.id for e in await corner.log()}, {f"e{n}" for n in acknowledged}, "the log")


@law(needs=Reopen, behaviours=(19, 49, 64))
async def what_was_removed_stays_removed(corner: Corner) -> None:
    """Deleted, forgotten and reaped sessions, removed keys, dropped documents, cut events."""
    await corner.create("deleted", state={"n": 1}, events=drafts(2))
    await corner.delete("deleted")
    await corner.create("forgotten", user="u", user_state={"n": 1})
    await corner.store.forget(corner.app, "u")
    await corner.create("reaped", idle=10)
    await corner.reap(now=10)
    await corner.create(state={"a": 1, "b": 1}, events=drafts(3))
    await corner.commit(documents=(put("a"), put("b")))
    await corner.commit(drop=("a",), documents=(Drop(collection="notes", key="a"),))
    await corner.commit(truncate_after=1)
    await corner.reopen()
    for id in ("deleted", "forgotten", "reaped"):
        equal(await corner.get(id, expired=True), None, f"what was {id}")
        await refused(corner.commit(id), NotFound, f"a commit to what was {id}")
    exactly(await corner.user_state("u"), {}, "the tier of the forgotten user")
    exactly(await corner.state(), {"b": 1}, "the keys left")
    equal(await corner.keys(), ["b"], "the documents left")
    equal(await corner.seqs(), [1], "the events left")
    equal(await corner.count(), 1, "the sessions left")
    await corner.create("deleted")
    equal(await corner.seqs("deleted"), [], "the log of a new session of the same id")


@law(needs=Reopen)
async def numbers_are_not_reused_after_opening_again(corner: Corner) -> None:
    """Neither revisions nor the numbers of events that were cut off."""
    await corner.create(events=drafts(5))
    await corner.commit(truncate_after=0)
    await corner.reopen()
    equal(await corner.append(draft("new")), (6,), "the number of the next event")
    equal((await corner.read()).header.revision, 3, "the revision")
    equal(await corner.append(draft("new")), (6,), "the number of the same event again")


@law(needs=Reopen)
async def operations_are_remembered_after_opening_again(corner: Corner) -> None:
    """A retry over a restart is applied once, the oldest one remembered included."""
    await corner.create()
    change = corner.change(state={"n": 0}, events=drafts(1))
    first = await corner.store.commit(change)
    for n in range(1, OPERATIONS_REMEMBERED):
        await corner.commit(state={"n": n})
    await corner.reopen()
    again = await corner.store.commit(change)
    result = (again.repeated, again.revision, again.seqs)
    equal(result, (True, first.revision, (1,)), "the result after opening again")
    exactly(await corner.state(), {"n": OPERATIONS_REMEMBERED - 1}, "the state")


@law(needs=Reopen)
async def the_lifecycle_goes_on_after_opening_again(corner: Corner) -> None:
    """Phases, deadlines, what is due, roles, parents and children."""
    role: dict[str, Any] = {"labels": {"role": "writer"}, "exclusive": ("role",)}
    await corner.create(idle=10, **role)
    await corner.create("child", parent=ONE)
    await corner.create("ending")
    await corner.commit("ending", move=end(20))
    await corner.reopen()
    taken = await refused(corner.create("rival", **role), RoleTaken, "the role, taken before")
    equal(taken.holder, ONE, "the holder of the role")
    header = (await corner.read("ending")).header
    equal((header.phase, header.reason), (Phase.ENDING, "over"), "phase and reason")
    equal(await corner.due(now=20), [ONE, "ending"], "what is due")
    equal(await corner.get(now=10), None, "the session at its deadline")
    await corner.delete()
    equal(await corner.ids(), ["ending"], "the sessions after the deletion of the parent")
    await corner.create("rival", **role)


@law(needs=Reopen)
async def positions_outlive_the_store(corner: Corner) -> None:
    """A list that was begun before goes on after."""
    for n in range(6):
        await corner.create(f"s{n}", now=n)
    for order in ("created", "-active"):
        whole = await corner.ids(order=order, now=9)
        page = await corner.page(order=order, now=9, limit=2)
        await corner.reopen()
        rest = await corner.ids(order=order, now=9, position=page.position)
        equal(rest, whole[2:], f"the rest in the order {order!r}")


@law(needs=Reopen)
async def opening_again_and_again_changes_nothing(corner: Corner) -> None:
    """Opening migrates once at most and leaves no mark."""
    await corner.create(state={"n": 1}, events=drafts(2))
    before = await corner.snapshot(ONE)
    for _ in range(5):
        await corner.reopen()
    equal(await corner.snapshot(ONE), before, "everything after five openings")


@law(needs=Reopen)
async def a_durable_commit_says_so(corner: Corner) -> None:
    """What a store that keeps its data reaches for `durable` is `durable`."""
    await corner.create()
    reached = (await corner.commit(durability="durable")).durability
    equal(reached, "durable", "the durability reached")
    if isinstance(corner.store, SupportsLease):
        token = await corner.acquire("a", until=100)
        await corner.reopen()
        equal((await corner.read()).header.fence, token, "the token of the lease, kept")

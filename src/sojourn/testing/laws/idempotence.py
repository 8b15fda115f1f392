"""Laws of idempotence: an operation that is sent again is answered, and applied, as once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from sojourn.errors import AlreadyExists, Conflict
from sojourn.lifecycle import Phase, Trigger
from sojourn.limits import OPERATIONS_REMEMBERED
from sojourn.store import Move
from sojourn.testing.laws.corner import ONE, Corner, draft, drafts, put
from sojourn.testing.laws.expect import equal, exactly, refused
from sojourn.testing.laws.law import law

if TYPE_CHECKING:
    from sojourn.model import Draft


@law()
async def a_commit_sent_again_has_its_first_result_and_is_applied_once(corner: Corner) -> None:
    """Same operation id: the same revision and numbers, `repeated`, and nothing is doubled."""
    await corner.create(user="u", events=drafts(2))
    change = corner.change(
        state={"n": 1}, user_state={"n": 1}, events=(*drafts(2), *drafts(2, start=10))
    )
    first = await corner.store.commit(change)
    equal((first.repeated, first.seqs), (False, (1, 2, 3, 4)), "the first result")
    before = await corner.snapshot(ONE, users=("u",))
    for _ in range(3):
        again = await corner.store.commit(change)
        equal(again.repeated, True, "whether the repetition says that it is one")
        equal(
            (again.revision, again.seqs), (first.revision, first.seqs), "its revision and numbers"
        )
        equal(again.before, first.before, "the last number before it: which events were new")
    equal(await corner.snapshot(ONE, users=("u",)), before, "everything after the repetitions")


@law()
async def generated_events_sent_again_are_not_doubled(corner: Corner) -> None:
    """Also events whose ids are new each time by promise (`fresh`) come once, by operation id."""
    await corner.create()
    fresh = draft("a", stamped=False)
    change = corner.change(events=tuple(_fresh(fresh, n) for n in range(3)))
    first = await corner.store.commit(change)
    await corner.append(*drafts(2))
    again = await corner.store.commit(change)
    equal((first.seqs, again.seqs), ((1, 2, 3), (1, 2, 3)), "the numbers, twice")
    equal(await corner.seqs(), [1, 2, 3, 4, 5], "the log")


def _fresh(event: Draft, n: int) -> Draft:
    return msgspec.structs.replace(event, id=f"fresh{n}", fresh=True)


@law()
async def an_operation_is_remembered_over_many_commits(corner: Corner) -> None:
    """`OPERATIONS_REMEMBERED` of them are known, the oldest included, whatever came between."""
    await corner.create()
    change = corner.change(state={"n": 0}, events=drafts(1))
    first = await corner.store.commit(change)
    for n in range(1, OPERATIONS_REMEMBERED):
        await corner.commit(state={"n": n}, events=(draft(f"other{n}"),))
    again = await corner.store.commit(change)
    equal((again.repeated, again.revision), (True, first.revision), "the result, much later")
    equal(again.seqs, (1,), "its numbers, much later")
    exactly(await corner.state(), {"n": OPERATIONS_REMEMBERED - 1}, "the state")
    equal(len(await corner.log()), OPERATIONS_REMEMBERED, "events in the log")


@law()
async def a_repetition_does_not_undo_what_came_after(corner: Corner) -> None:
    """No part of an old operation overwrites a newer one: tiers, documents, labels, a cut log."""
    await corner.create(user="u")
    old = corner.change(
        state={"n": "old"},
        drop=("later",),
        user_state={"n": "old"},
        app_state={"n": "old"},
        documents=(put("doc", b"old"),),
        labels={"stage": "old"},
        truncate_after=0,
        clear=True,
    )
    await corner.store.commit(old)
    new = {"n": "new"}
    await corner.commit(
        state={**new, "later": 1},
        user_state=new,
        app_state=new,
        documents=(put("doc", b"new"),),
        labels={"stage": "new"},
        events=drafts(2),
    )
    before = await corner.snapshot(ONE, users=("u",))
    again = await corner.store.commit(old)
    equal((again.repeated, again.revision), (True, 2), "the repetition")
    equal(await corner.snapshot(ONE, users=("u",)), before, "everything after the repetition")


@law()
async def a_repetition_is_not_refused_for_what_it_did_itself(corner: Corner) -> None:
    """A lost reply and a strict expectation: the retry gets its result, no `Conflict`."""
    epoch = (await corner.create(events=drafts(2))).header.epoch
    strict = corner.change(epoch=epoch, revision=1, expect_tail=(1, 2), truncate_after=1)
    equal((await corner.store.commit(strict)).revision, 2, "the strict commit")
    equal((await corner.store.commit(strict)).revision, 2, "the strict commit, sent again")
    end = corner.change(revision=2, move=Move(trigger=Trigger.END))
    equal((await corner.store.commit(end)).header.phase, Phase.ENDING, "the move")
    again = await corner.store.commit(end)
    equal((again.repeated, again.revision), (True, 3), "the move, sent again")


@law()
async def a_create_sent_again_has_its_first_result(corner: Corner) -> None:
    """Same operation id: the first result. Another one: `AlreadyExists`."""
    op = corner.op()
    first = await corner.create(
        op=op, user="u", state={"n": 1}, app_state={"n": 1}, events=drafts(2), epoch="e"
    )
    for n in range(1, OPERATIONS_REMEMBERED):
        await corner.commit(state={"n": n + 1}, app_state={"n": n + 1})
    before = await corner.snapshot(ONE)
    again = await corner.create(
        op=op, user="u", state={"n": 1}, app_state={"n": 1}, events=drafts(2), epoch="e"
    )
    equal((first.repeated, again.repeated), (False, True), "whether they say they are repeated")
    equal((again.revision, again.seqs), (first.revision, (1, 2)), "revision and numbers")
    equal(again.header.epoch, "e", "the epoch")
    equal(await corner.snapshot(ONE), before, "everything after the repetition")
    await refused(corner.create(epoch="e"), AlreadyExists, "another create of the same id")


@law()
async def a_fork_sent_again_has_its_first_result(corner: Corner) -> None:
    """Same operation id: the first result, and the fork is not made anew. Another: refused."""
    await corner.create(state={"n": 1}, events=drafts(2))
    op = corner.op()
    first = await corner.fork(op=op, epoch="e")
    await corner.commit("fork", state={"n": 2}, events=drafts(1, start=9))
    before = await corner.snapshot("fork")
    again = await corner.fork(op=op, epoch="e")
    equal((again.repeated, again.revision), (True, first.revision), "the repetition")
    equal(await corner.snapshot("fork"), before, "the fork after the repetition")
    await refused(corner.fork(), AlreadyExists, "another fork to the same id")


@law()
async def operations_are_remembered_by_session(corner: Corner) -> None:
    """The same operation id on another session is another operation."""
    await corner.create("left")
    await corner.create("right")
    op = corner.op()
    for id in ("left", "right"):
        committed = await corner.commit(id, op=op, state={"n": 1})
        equal(committed.repeated, False, f"whether the first commit to {id!r} is a repetition")
    for id in ("left", "right"):
        exactly(await corner.state(id), {"n": 1}, f"the state of {id!r}")


@law()
async def an_operation_that_was_refused_can_be_sent_again(corner: Corner) -> None:
    """Only what was applied is remembered."""
    await corner.create()
    op = corner.op()
    await refused(corner.commit(op=op, revision=9), Conflict, "the first try")
    committed = await corner.commit(op=op, revision=1, state={"n": 1})
    equal((committed.repeated, committed.revision), (False, 2), "the second try")
    exactly(await corner.state(), {"n": 1}, "the state")


@law()
async def an_operation_sent_many_times_at_once_is_applied_once(corner: Corner) -> None:
    """Ten identical commits together: one is applied, all have its result."""
    await corner.create()
    change = corner.change(state={"n": 1}, events=drafts(2))
    done = await asyncio.gather(*(corner.store.commit(change) for _ in range(10)))
    results = {(committed.revision, committed.seqs) for committed in done}
    equal(results, {(2, (1, 2))}, "the results")
    equal(sum(not committed.repeated for committed in done), 1, "how many were not repetitions")
    equal(await corner.seqs(), [1, 2], "the log")
    equal((await corner.read()).header.revision, 2, "the revision")


@law()
async def a_cancelled_commit_can_be_sent_again(corner: Corner) -> None:
    """Whether it had been applied or not: after the retry it is, once."""
    await corner.create()
    for n in range(1, 20):
        change = corner.change(state={"n": n}, events=(draft(f"e{n}"),))
        task = asyncio.ensure_future(corner.store.commit(change))
        for _ in range(n):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        retried = await corner.store.commit(change)
        equal((retried.revision, retried.seqs), (n + 1, (n,)), f"the retry, after {n} turns")
        exactly(await corner.state(), {"n": n}, f"the state after retry {n}")
    equal(await corner.seqs(), list(range(1, 20)), "the log")

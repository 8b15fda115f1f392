"""Laws of concurrency: many at once end as if one after the other, each with its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from sojourn.errors import AlreadyBound, Conflict, NotFound
from sojourn.store import Committed
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, instant, put
from sojourn.testing.laws.expect import Broken, equal, exactly, holds, refused
from sojourn.testing.laws.law import law

MANY = 200
CANCEL_POINTS = 30
"""How many turns of the event loop a commit is left alone before it is cancelled, at most."""
HEAD_STARTS = (0, 0, 1, 2, 3, 5, 8, 13)
"""How many turns of the event loop one of two calls that race begins after the other."""

Call = Coroutine[Any, Any, object]


async def raced(first: Call, second: Call, turns: int) -> tuple[object, object]:
    """Return what two calls come to, the second begun so many turns after the first."""

    async def late() -> object:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await second

    one, other = await asyncio.gather(first, late(), return_exceptions=True)
    return one, other


@law(behaviours=(97, 119))
async def many_commits_at_once_are_all_applied_once(corner: Corner) -> None:
    """Two hundred on one session: every revision is reached once, numbers have no gap."""
    await corner.create()
    calls = [
        corner.commit(state={f"k{n}": n}, app_state={f"k{n}": n}, events=(draft(f"e{n}", n),))
        for n in range(MANY)
    ]
    done = await asyncio.gather(*calls)
    equal(sorted(c.revision for c in done), list(range(2, MANY + 2)), "the revisions reached")
    numbers = sorted(seq for c in done for seq in c.seqs)
    equal(numbers, list(range(1, MANY + 1)), "the numbers given out")
    log = {entry.seq: entry.id for entry in await corner.log()}
    equal(log, {c.seqs[0]: f"e{n}" for n, c in enumerate(done)}, "each event at its number")
    values = {f"k{n}": n for n in range(MANY)}
    exactly(await corner.state(), values, "the session's keys")
    exactly(await corner.app_state(), values, "the app's keys")
    equal((await corner.read()).header.revision, MANY + 1, "the revision in the end")


@law(behaviours=(109,))
async def many_sessions_at_once_do_not_mix(corner: Corner) -> None:
    """Commits to different sessions, interleaved: each session has its own, in order."""
    ids = [f"s{n}" for n in range(20)]
    await asyncio.gather(*(corner.create(id) for id in ids))
    calls = [corner.commit(id, events=(draft(f"{id}-{n}"),)) for n in range(10) for id in ids]
    await asyncio.gather(*calls)
    for id in ids:
        log = await corner.log(id)
        equal(sorted(e.id for e in log), [f"{id}-{n}" for n in range(10)], f"the events of {id}")
        equal([entry.seq for entry in log], list(range(1, 11)), f"the numbers of {id}")


@law(behaviours=(45, 106))
async def of_many_strict_commits_exactly_one_wins(corner: Corner) -> None:
    """All expect the same revision: one is applied, the others get `Conflict`, every round."""
    epoch = (await corner.create()).header.epoch
    for round_ in range(1, 4):
        calls = [
            corner.commit(
                epoch=epoch, revision=round_, state={"by": n}, events=(draft(f"r{round_}-{n}"),)
            )
            for n in range(20)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Committed)]
        equal(len(winners), 1, f"winners of round {round_}")
        for outcome in outcomes:
            if not isinstance(outcome, Committed | Conflict):
                raise Broken(f"a commit that lost raised {outcome!r}, not Conflict")
        exactly(await corner.state(), {"by": winners[0]}, f"the state after round {round_}")
        equal(len(await corner.log()), round_, f"events after round {round_}")


@law()
async def a_commit_that_fails_does_not_fail_its_neighbours(corner: Corner) -> None:
    """Of many that come together each is judged on its own: the good are applied, the bad not."""
    await corner.create(user="u")
    await corner.create("other")
    calls = []
    for n in range(10):
        calls += [
            corner.commit(state={f"good{n}": n}, events=(draft(f"good{n}"),)),
            corner.commit(revision=999, state={f"bad{n}": n}, app_state={f"bad{n}": n}),
            corner.commit("ghost", state={f"bad{n}": n}, app_state={f"bad{n}": n}),
            corner.commit(user="v", state={f"bad{n}": n}, events=(draft(f"bad{n}"),)),
            corner.commit("other", state={f"good{n}": n}, app_state={f"good{n}": n}),
        ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for position, kind in enumerate((Committed, Conflict, NotFound, AlreadyBound, Committed)):
        for n, outcome in enumerate(outcomes[position::5]):
            if not isinstance(outcome, kind):
                raise Broken(
                    f"commit {position} of group {n} came to {outcome!r}, not {kind.__name__}"
                )
    good = {f"good{n}": n for n in range(10)}
    exactly(await corner.state(), good, "the state of the one session")
    exactly(await corner.state("other"), good, "the state of the other")
    exactly(await corner.app_state(), good, "the app's tier")
    equal(await corner.seqs(), list(range(1, 11)), "the numbers in the log")


@law(behaviours=(68,))
async def readers_see_whole_commits(corner: Corner) -> None:
    """While writers write, every read is one commit's outcome: tiers, log and revision agree."""
    await corner.create(user="u", state={"n": -1}, user_state={"n": -1}, app_state={"n": -1})

    async def write(writer: int) -> None:
        for turn in range(25):
            n = writer * 100 + turn
            same = {"n": n}
            event = draft(f"e{n}", n)
            await corner.commit(state=same, user_state=same, app_state=same, events=(event,))
            await asyncio.sleep(0)

    async def read() -> None:
        for _ in range(50):
            record = await corner.read(last=1)
            n = decoded(record.state)["n"]
            body = int(record.entries[0].body) if record.entries else -1
            tiers = (decoded(record.user_state)["n"], decoded(record.app_state)["n"], body)
            equal(tiers, (n, n, n), "user's tier, app's tier and last event beside the state")
            seq = record.entries[0].seq if record.entries else 0
            numbers = (record.header.seq, record.header.revision)
            equal(numbers, (seq, seq + 1), "last number and revision beside the last event")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(write(number))
            group.create_task(read())
    equal(len(await corner.log()), 100, "events in the end")


@law()
async def a_cancelled_commit_is_applied_wholly_or_not_at_all(corner: Corner) -> None:
    """Whenever it is cancelled: all of it or nothing, and final once the cancellation is raised."""
    await corner.create(state={"n": 0}, app_state={"n": 0})
    await corner.create("barrier")
    applied: list[str] = []
    for n in range(1, CANCEL_POINTS):
        task = asyncio.ensure_future(
            corner.commit(
                state={"n": n},
                app_state={"n": n},
                events=(draft(f"e{n}"),),
                documents=(put("last", b"%d" % n),),
            )
        )
        for _ in range(n):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        settled = await corner.snapshot(ONE)
        await corner.commit("barrier")
        equal(await corner.snapshot(ONE), settled, f"everything later, cancelled after {n} turns")
        if (await corner.state())["n"] == n:
            applied.append(f"e{n}")
        await _check_whole(corner, applied)


async def _check_whole(corner: Corner, applied: list[str]) -> None:
    """Check that exactly the commits whose event ids are given were applied, each wholly."""
    last = int(applied[-1][1:]) if applied else 0
    where = f"after the commits {applied}"
    equal([entry.id for entry in await corner.log()], applied, f"the log {where}")
    exactly(await corner.state(), {"n": last}, f"the state {where}")
    exactly(await corner.app_state(), {"n": last}, f"the app's tier {where}")
    body = b"%d" % last if applied else None
    equal(await corner.body("last"), body, f"the document {where}")
    equal((await corner.read()).header.revision, len(applied) + 1, f"the revision {where}")


@law()
async def a_cancelled_caller_does_not_take_others_along(corner: Corner) -> None:
    """Commits that came together with one that is cancelled are applied as if it had not been."""
    await corner.create()
    tasks = [
        asyncio.ensure_future(corner.commit(state={f"k{n}": n}, events=(draft(f"e{n}"),)))
        for n in range(30)
    ]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    log = {entry.id for entry in await corner.log()}
    for n, outcome in enumerate(outcomes):
        if isinstance(outcome, Committed):
            equal(f"e{n}" in log, True, f"whether the acknowledged event e{n} is in the log")
        elif n % 3 or not isinstance(outcome, asyncio.CancelledError):
            raise Broken(f"commit {n} of 30 came to {outcome!r}")
    equal(await corner.seqs(), list(range(1, len(log) + 1)), "the numbers in the log")


@law()
async def deleting_and_committing_at_once_ends_with_the_session_gone(corner: Corner) -> None:
    """Commits that lose against a delete are `NotFound`; none of them brings the session back."""
    for n in range(10):
        id = f"s{n}"
        await corner.create(id)
        calls = [corner.commit(id, state={"k": k}, events=(draft(f"e{k}"),)) for k in range(5)]
        outcomes = await asyncio.gather(
            *calls[:3], corner.delete(id), *calls[3:], return_exceptions=True
        )
        equal(outcomes[3], True, f"the outcome of deleting {id}")
        for outcome in (*outcomes[:3], *outcomes[4:]):
            if not isinstance(outcome, Committed | NotFound):
                raise Broken(f"a commit that raced a delete came to {outcome!r}")
        equal(await corner.get(id, expired=True), None, f"{id} after its deletion")
        await refused(corner.commit(id), NotFound, f"a commit to {id} afterwards")
    equal(await corner.count(), 0, "sessions in the end")


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do some work beside a body, to its end; a body that fails leaves nothing of it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


@law()
async def a_delete_that_expects_a_revision_removes_no_later_one(corner: Corner) -> None:
    """Beside a commit it is before or after: whichever is acknowledged, the other is refused."""
    for n, turns in enumerate(HEAD_STARTS):
        for who in ("delete", "commit"):
            id = f"{who} first {n}"
            await corner.create(id)
            delete = corner.delete(id, revision=1)
            commit = corner.commit(id, state={"n": n}, events=(draft("e"),))
            if who == "delete":
                deleted, committed = await raced(delete, commit, turns)
            else:
                committed, deleted = await raced(commit, delete, turns)
            there = await corner.get(id) is not None
            if isinstance(committed, Committed):
                equal((deleted, there), (False, True), f"a delete that lost, and {id!r} then")
            elif isinstance(committed, NotFound):
                equal((deleted, there), (True, False), f"a delete that won, and {id!r} then")
            else:
                raise Broken(f"a commit that raced a delete came to {committed!r}")


@law(behaviours=(53,))
async def a_sweep_removes_nothing_that_is_used_at_that_moment(corner: Corner) -> None:
    """A touch or commit beside it: either it was in time and the session stays, or refused."""
    for n, turns in enumerate(HEAD_STARTS):
        for how in ("touch", "commit"):
            id = f"{how} {n}"
            await corner.create(id, idle=10)
            use = corner.touch(id, now=9) if how == "touch" else corner.commit(id, now=9)
            sweep = corner.reap(now=10)
            if n % 2:
                reaped, used = await raced(sweep, use, turns)
            else:
                used, reaped = await raced(use, sweep, turns)
            there = await corner.get(id, now=11) is not None
            if isinstance(used, NotFound):
                equal((reaped, there), ([id], False), f"what was swept beside the late {how}")
            elif isinstance(used, BaseException):
                raise Broken(f"a {how} that raced a sweep came to {used!r}")
            else:
                equal((reaped, there), ([], True), f"what was swept beside the timely {how}")
            await corner.delete(id)


@law()
async def touches_beside_commits_undo_nothing(corner: Corner) -> None:
    """Revision, numbers and keys of every acknowledged commit stay, and the latest use counts."""
    await corner.create(idle=1000)
    commits = [corner.commit(state={f"k{n}": n}, events=(draft(f"e{n}"),)) for n in range(40)]
    touches = [corner.touch(now=n) for n in range(1, 41)]
    calls = [call for pair in zip(touches, commits, strict=True) for call in pair]
    await asyncio.gather(*calls)
    header = (await corner.read()).header
    equal((header.revision, header.seq), (41, 40), "revision and last number in the end")
    equal(header.active_at, instant(40), "the activity in the end")
    equal(await corner.seqs(), list(range(1, 41)), "the log")
    exactly(await corner.state(), {f"k{n}": n for n in range(40)}, "the state")
    equal((await corner.append(draft("next"))), (41,), "the number of the next event")


@law(behaviours=(120,))
async def a_family_is_gone_in_one_step(corner: Corner) -> None:
    """A reader beside the deletion of a parent never finds some of them missing."""
    for turns in HEAD_STARTS:
        family = [ONE, "a", "b", "c"]
        await corner.create()
        for id in family[1:]:
            await corner.create(id, parent=ONE)

        async def look(ids: list[str]) -> None:
            gone = ""
            while not gone:
                await asyncio.sleep(0)
                for id in ids:
                    there = await corner.get(id) is not None
                    holds(not (gone and there), f"{id!r} is gone, as {gone!r} was before")
                    gone = gone if there else id

        async with beside(look(family), look(family[::-1])):
            for _ in range(turns):
                await asyncio.sleep(0)
            equal(await corner.delete(), True, "the deletion")


@law()
async def a_fork_is_there_in_one_step(corner: Corner) -> None:
    """A reader beside it finds no fork, or one with state, log and documents."""
    await corner.create(state={"n": 1}, events=(draft("a"), draft("b")))
    await corner.commit(documents=(put("doc"),))
    for n, turns in enumerate(HEAD_STARTS):
        id = f"fork {n}"

        async def look(id: str) -> None:
            record = None
            while record is None:
                await asyncio.sleep(0)
                record = await corner.get(id, last=5)
            exactly(decoded(record.state), {"n": 1}, "the state of a fork that is seen")
            equal([entry.seq for entry in record.entries], [1, 2], "its log")
            equal(await corner.body("doc", id), b"body", "its document")

        async with beside(look(id)):
            for _ in range(turns):
                await asyncio.sleep(0)
            await corner.fork(id)

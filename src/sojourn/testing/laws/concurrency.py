"""Laws of concurrency: many at once end as if one after the other, each with its own outcome."""

from __future__ import annotations

import asyncio

from sojourn.errors import AlreadyBound, Conflict, NotFound
from sojourn.store import Committed
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, put
from sojourn.testing.laws.expect import Broken, equal, exactly, refused
from sojourn.testing.laws.law import law

MANY = 200
CANCEL_POINTS = 30
"""How many turns of the event loop a commit is left alone before it is cancelled, at most."""


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

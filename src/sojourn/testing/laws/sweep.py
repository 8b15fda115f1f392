"""Laws of sweeping: the due are found and removed in bounded batches, and nothing else is."""

from __future__ import annotations

from sojourn.testing.laws.corner import Corner, drafts, put
from sojourn.testing.laws.expect import equal, exactly
from sojourn.testing.laws.law import law
from sojourn.testing.laws.lifecycle import FINISH, end


async def some(corner: Corner) -> None:
    """Create sessions that are due in an order that is not that of their creation."""
    for id, idle in (("c", 30), ("a", 10), ("d", 40), ("b", 20)):
        await corner.create(id, idle=idle)
    await corner.create("forever")


@law(behaviours=(53,))
async def the_due_are_found_the_longest_due_first(corner: Corner) -> None:
    """From their deadline on, at most `limit` of them; finding changes nothing."""
    await some(corner)
    for now, ids in ((9, []), (10, ["a"]), (29, ["a", "b"]), (99, ["a", "b", "c", "d"])):
        equal(await corner.due(now=now), ids, f"what is due at {now} s")
    equal(await corner.due(now=99, limit=2), ["a", "b"], "the two longest due")
    equal(await corner.due(now=99, limit=0), [], "none of them")
    equal(await corner.due(now=99), ["a", "b", "c", "d"], "what is due, asked again")


@law(behaviours=(53,))
async def reaping_removes_the_due_and_only_those(corner: Corner) -> None:
    """In bounded batches, the longest due first; what is not due stays, for ever if it has to."""
    await some(corner)
    equal(await corner.reap(now=9), [], "reaped too early")
    equal(await corner.reap(now=99, limit=3), ["a", "b", "c"], "the first batch")
    equal(await corner.reap(now=39), [], "reaped before the last one is due")
    equal(await corner.reap(now=99, limit=3), ["d"], "the second batch")
    equal(await corner.reap(now=99, limit=3), [], "the third batch")
    equal(await corner.ids(now=99), ["forever"], "the sessions left")
    for id in "abcd":
        equal(await corner.get(id, expired=True), None, f"{id!r}, even when asked for expired ones")


@law(behaviours=(53, 55))
async def what_was_used_since_is_not_due(corner: Corner) -> None:
    """A touch or a commit moves a session to its new deadline in the queue; the old one is void."""
    await some(corner)
    await corner.touch("a", now=5)
    await corner.commit("b", now=18)
    equal(await corner.due(now=14), [], "what is due before the new deadlines")
    equal(await corner.reap(now=20), ["a"], "what is reaped in between")
    await corner.touch("b", now=37)
    equal(await corner.due(now=45), ["c", "d"], "what is due, the touched one left out")
    equal(await corner.reap(now=57), ["c", "d", "b"], "what is reaped when all are due")


@law()
async def reaping_removes_all_that_a_session_owned(corner: Corner) -> None:
    """Events, documents, children and counts; the tiers of user and app stay."""
    await corner.create(
        user="u", user_state={"n": 1}, app_state={"n": 1}, events=drafts(3), idle=10
    )
    await corner.commit(documents=(put("doc"),), labels={"a": "b"})
    await corner.create("child", parent="one", events=drafts(1))
    equal(await corner.reap(now=10), ["one"], "the ids that were due")
    equal(await corner.get("child", now=10), None, "the child of the one that was due")
    equal(await corner.count(now=10), 0, "sessions counted")
    equal(await corner.count(now=10, labels={"a": "b"}), 0, "sessions counted by label")
    exactly(await corner.user_state("u"), {"n": 1}, "the user's tier")
    exactly(await corner.app_state(), {"n": 1}, "the app's tier")
    await corner.create(now=10)
    equal(await corner.seqs(now=10), [], "the log of a new session of the same id")
    equal(await corner.keys(now=10), [], "the documents of a new session of the same id")


@law()
async def reaping_reports_every_id_that_was_due(corner: Corner) -> None:
    """Also a child that was due itself and went with its parent."""
    await corner.create("parent", idle=10)
    await corner.create("due child", parent="parent", idle=20)
    await corner.create("other child", parent="parent")
    reaped = await corner.reap(now=30)
    equal(reaped, ["parent", "due child"], "the ids that were due")
    equal(await corner.count(now=30), 0, "sessions left")


@law()
async def ended_sessions_are_reaped_when_their_time_is_up(corner: Corner) -> None:
    """An ending session is due at its `due_at`, an ended one when it is no longer retained."""
    await corner.create("ending", idle=5)
    await corner.commit("ending", move=end(100))
    await corner.create("ended", idle=5)
    await corner.commit("ended", move=end(50))
    await corner.commit("ended", move=FINISH)
    equal(await corner.due(now=99), [], "what is due before both")
    equal(await corner.due(now=3600), ["ending", "ended"], "what is due after both")
    equal(await corner.reap(now=3599), ["ending"], "reaped while the other is retained")
    equal(await corner.reap(now=3600), ["ended"], "reaped when it is no longer retained")


@law()
async def each_app_is_swept_by_itself(corner: Corner) -> None:
    """Due in one app is not due in another."""
    other = corner.beside(f"{corner.app}2")
    await corner.create("a", idle=10)
    await other.create("b", idle=10)
    equal(await corner.due(now=10), ["a"], "what is due in the first app")
    equal(await corner.reap(now=10), ["a"], "what is reaped in the first app")
    equal(await other.due(now=10), ["b"], "what is due in the second app")


@law()
async def many_are_swept_batch_by_batch(corner: Corner) -> None:
    """Every due session exactly once over the batches, though others are used and created."""
    for n in range(60):
        await corner.create(f"s{n:02}", idle=10 + n % 7)
    reaped: list[str] = []
    while batch := await corner.reap(now=20, limit=7):
        reaped += batch
        await corner.create(f"new{len(reaped)}", now=20, idle=100)
    equal(sorted(reaped), [f"s{n:02}" for n in range(60)], "the sessions reaped")
    equal(await corner.count(now=20), 9, "the sessions created meanwhile")

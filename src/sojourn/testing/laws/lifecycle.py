"""Laws of the lifecycle: phases move by the table, and what is over takes no writes."""

from __future__ import annotations

from sojourn.errors import Conflict, Ended, InvalidTransition
from sojourn.lifecycle import FIRST, TRANSITIONS, Phase, Trigger
from sojourn.store import Move, Retry
from sojourn.testing.laws.corner import ONE, SECOND, Corner, decoded, draft, drafts, instant, put
from sojourn.testing.laws.expect import equal, exactly, refused
from sojourn.testing.laws.law import law

WAYS: dict[str, dict[Phase, tuple[Trigger, ...]]] = {
    "open": {
        Phase.OPEN: (),
        Phase.ENDING: (Trigger.END,),
        Phase.ENDED: (Trigger.END, Trigger.FINISH),
    },
    "agent": {
        Phase.CREATED: (),
        Phase.SPAWNING: (Trigger.SPAWN,),
        Phase.ACTIVE: (Trigger.SPAWN, Trigger.ACTIVATE),
        Phase.TERMINATING: (Trigger.TERMINATE,),
        Phase.CLEANED: (Trigger.TERMINATE, Trigger.CLEAN),
    },
}
"""How to get to each phase of each preset."""

HOUR = 3600 * SECOND


def end(seconds: float | None = None, retain: int | None = HOUR) -> Move:
    """Return the move that begins the end; the reaper takes over `seconds` after the start."""
    due_at = None if seconds is None else instant(seconds)
    return Move(trigger=Trigger.END, reason="over", due_at=due_at, retain=retain)


FINISH = Move(trigger=Trigger.FINISH)


async def ending(corner: Corner, id: str = ONE, *, finish: bool = False) -> None:
    """Create a session with something in it and begin, or complete, its end at the start."""
    await corner.create(id, state={"n": 1}, events=drafts(2), idle=60)
    await corner.commit(id, documents=(put("doc"),))
    await corner.commit(id, move=end())
    if finish:
        await corner.commit(id, move=FINISH)


@law(behaviours=(111,))
async def phases_move_by_the_table(corner: Corner) -> None:
    """Every legal move of every preset leads where the table says, and raises the revision."""
    for preset, table in TRANSITIONS.items():
        for (start, trigger), target in table.items():
            id = f"{preset} {start} {trigger}"
            await walk(corner, id, preset, start)
            before = (await corner.read(id)).header.revision
            committed = await corner.commit(id, move=Move(trigger=trigger, retain=HOUR))
            equal(committed.header.phase, target, f"the phase that {trigger} of {start} leads to")
            header = (await corner.read(id, expired=True)).header
            equal(header.phase, target, f"the phase read after {trigger} of {start}")
            equal(header.revision, before + 1, f"the revision after {trigger} of {start}")


async def walk(corner: Corner, id: str, preset: str, phase: Phase) -> None:
    """Create a session and move it to a phase."""
    await corner.create(id, lifecycle=preset)
    equal((await corner.read(id)).header.phase, FIRST[preset], f"the first phase of {preset!r}")
    for trigger in WAYS[preset][phase]:
        await corner.commit(id, move=Move(trigger=trigger, retain=HOUR))


@law(behaviours=(111, 112))
async def a_move_that_is_not_in_the_table_changes_nothing(corner: Corner) -> None:
    """`InvalidTransition`, naming phase and trigger; no other part of the commit is applied."""
    for preset, ways in WAYS.items():
        for phase in ways:
            id = f"{preset} {phase}"
            await walk(corner, id, preset, phase)
            before = await corner.snapshot(id)
            for trigger in Trigger:
                if (phase, trigger) in TRANSITIONS[preset]:
                    continue
                bad = corner.commit(id, move=Move(trigger=trigger), events=drafts(1))
                error = await refused(bad, InvalidTransition, f"{trigger} in {phase}")
                named = (error.phase, error.trigger)
                equal(named, (phase, trigger), "the phase and trigger in the error")
                equal(await corner.snapshot(id), before, f"everything after {trigger} in {phase}")


@law(behaviours=(112,))
async def ending_twice_is_ending_once(corner: Corner) -> None:
    """The trigger of the end is legal while the session is ending; it stays there."""
    for preset, trigger, phase in (
        ("open", Trigger.END, Phase.ENDING),
        ("agent", Trigger.TERMINATE, Phase.TERMINATING),
    ):
        await corner.create(preset, lifecycle=preset)
        for n in range(2):
            committed = await corner.commit(preset, move=Move(trigger=trigger, reason="first"))
            equal(committed.header.phase, phase, f"the phase after end {n + 1}")
        equal((await corner.read(preset)).header.reason, "first", "the reason")


@law()
async def an_ending_session_takes_no_writes_and_stays_readable(corner: Corner) -> None:
    """`Ended`, whatever is written; what it holds is there for the hooks of its end."""
    await ending(corner)
    before = await corner.snapshot(ONE)
    for fields in ({"state": {"n": 2}}, {"events": drafts(1)}, {"labels": {"a": "b"}}, {}):
        error = await refused(corner.commit(**fields), Ended, f"a commit of {fields} while ending")
        equal((error.phase, error.reason), (Phase.ENDING, "over"), "phase and reason in the error")
    equal(await corner.snapshot(ONE), before, "everything after the refusals")
    exactly(await corner.state(), {"n": 1}, "the state while ending")
    equal(await corner.seqs(), [1, 2], "the log while ending")
    equal(await corner.body("doc"), b"body", "the document while ending")


@law()
async def an_ending_session_does_not_expire(corner: Corner) -> None:
    """Beginning the end before the deadline lifts the deadline: hooks may take their time."""
    await ending(corner)
    exactly(await corner.state(now=10**6), {"n": 1}, "the state long after the deadline it had")
    equal((await corner.read(now=10**6)).header.expires_at, None, "its deadline")


@law()
async def using_an_ending_session_keeps_it_due(corner: Corner) -> None:
    """A touch meanwhile notes the use; it brings no deadline back, and the reaper still comes."""
    await corner.create(state={"n": 1}, idle=60, absolute=600)
    await corner.commit(move=end(120))
    header = await corner.touch(now=30)
    equal(header.active_at, instant(30), "the activity that touch returns")
    read = (await corner.read(now=10**6)).header
    seen = (read.phase, read.active_at, read.expires_at, read.due_at)
    expected = (Phase.ENDING, instant(30), None, instant(120))
    equal(seen, expected, "phase, activity, deadline and due after the touch")
    equal(await corner.due(now=119), [], "what is due before")
    equal(await corner.due(now=120), [ONE], "what is due then")


@law()
async def an_ended_session_takes_no_writes_until_it_is_removed(corner: Corner) -> None:
    """Once over, every write is `Ended`; it is readable for as long as it is retained."""
    await ending(corner, finish=True)
    await refused(corner.commit(state={"n": 2}), Ended, "a commit to an ended session")
    await refused(corner.touch(now=1), Ended, "a touch of an ended session")
    await refused(corner.create("child", parent=ONE), Ended, "a child of an ended session")
    exactly(await corner.state(now=3599), {"n": 1}, "the state within the retention time")
    equal(await corner.seqs(now=3599), [1, 2], "the log within the retention time")
    equal(await corner.due(now=3599), [], "what is due within the retention time")
    equal(await corner.get(now=3600), None, "the session once the retention time is up")
    equal(await corner.due(now=3600), [ONE], "what is due once the retention time is up")


@law()
async def an_ended_session_that_is_not_retained_is_missing_at_once(corner: Corner) -> None:
    """Without a retention time it is due for removal when its end completes."""
    await corner.create()
    await corner.commit(move=end(retain=None))
    await corner.commit(move=FINISH, now=5)
    equal(await corner.get(now=5), None, "the session after its end")
    equal(await corner.due(now=5), [ONE], "what is due after its end")
    equal((await corner.read(now=5, expired=True)).header.phase, Phase.ENDED, "its phase")


@law()
async def what_the_end_said_is_kept_until_it_is_said_anew(corner: Corner) -> None:
    """Its reason, and how long it is retained: a move that says neither changes neither."""
    for id, again, seconds in (("once", None, 3600), ("twice", 2 * HOUR, 7200)):
        await corner.create(id)
        await corner.commit(id, move=end())
        await corner.commit(id, move=Move(trigger=Trigger.END, retain=again), now=1)
        equal((await corner.read(id, now=1)).header.reason, "over", "the reason while ending")
        await corner.commit(id, move=FINISH, now=10)
        header = (await corner.read(id, now=9 + seconds)).header
        equal((header.phase, header.reason), (Phase.ENDED, "over"), "its phase and reason")
        equal(await corner.get(id, now=10 + seconds), None, f"{id!r}, no longer retained")
    await corner.create("late", idle=10)
    await corner.commit("late", move=end(), now=10, expired="allow")
    await corner.commit("late", move=end(), now=11, expired="allow")
    await corner.commit("late", move=FINISH, now=12, expired="allow")
    equal(await corner.get("late", now=12), None, "one that had expired before, ended")


@law()
async def an_ending_session_is_due_when_its_move_says(corner: Corner) -> None:
    """`due_at` hands a session whose end got stuck to the reaper; `None` to nobody."""
    await corner.create("handed over", idle=60)
    await corner.create("kept", idle=60)
    await corner.commit("handed over", move=end(120))
    await corner.commit("kept", move=end())
    equal(await corner.due(now=119), [], "what is due before")
    equal(await corner.due(now=120), ["handed over"], "what is due then")
    equal(await corner.due(now=10**6), ["handed over"], "what is due much later")


@law(behaviours=(116,))
async def a_failed_end_is_counted_and_due_again(corner: Corner) -> None:
    """`retry` on an ending session: one attempt more, due at its instant, and nothing else."""
    await ending(corner)
    for attempt, seconds in enumerate((10, 30, 70), start=1):
        await corner.commit(retry=Retry(due_at=instant(seconds)), now=seconds - 10)
        header = (await corner.read(now=seconds)).header
        seen = (header.attempts, header.due_at, header.phase)
        equal(seen, (attempt, instant(seconds), Phase.ENDING), "attempts, due and phase")
        equal(header.active_at, instant(0), "its activity: a failed end is no use of it")
        equal(await corner.due(now=seconds - 1), [], f"what is due before retry {attempt}")
        equal(await corner.due(now=seconds), [ONE], f"what is due at retry {attempt}")
    exactly(await corner.state(now=70), {"n": 1}, "the state, for the next try")
    await corner.commit(move=FINISH, now=71)
    await refused(
        corner.commit(retry=Retry(due_at=instant(99)), now=72), Ended, "a retry when over"
    )


@law(behaviours=(50, 58))
async def only_who_ends_a_session_reaches_it_past_its_deadline(corner: Corner) -> None:
    """`expired="allow"` begins the end of an expired session, which stays missing to readers."""
    await corner.create(state={"n": 1}, idle=10)
    await corner.create("beside", now=50)
    await refused(corner.commit(move=end(), now=10), Ended, "ending it like a live one")
    committed = await corner.commit(move=end(60, retain=None), now=10, expired="allow")
    equal(committed.header.phase, Phase.ENDING, "its phase")
    equal(await corner.get(now=10), None, "what a reader sees")
    equal(await corner.count(now=10), 1, "sessions counted: one that is beside it")
    equal(await corner.ids(now=10), ["beside"], "sessions listed")
    old = await corner.read(now=10, expired=True)
    exactly(decoded(old.state), {"n": 1}, "what its hooks see")
    await corner.commit(retry=Retry(due_at=instant(90)), now=20, expired="allow")
    equal(await corner.due(now=89), [], "what is due before the retry")
    equal(await corner.due(now=90), [ONE], "what is due at the retry")
    equal(await corner.count(now=90), 1, "sessions counted while it waits")
    await corner.commit(move=FINISH, now=91, expired="allow")
    equal(await corner.get(now=91), None, "what a reader sees once it is over")
    equal(await corner.count(now=91), 1, "sessions counted once it is over")
    await corner.delete(now=92)
    equal(await corner.count(now=92), 1, "sessions counted once it is removed")
    await corner.create("again", idle=10)
    await corner.commit("again", move=end(60), now=10, expired="allow")
    await corner.delete("again", now=11)
    equal(await corner.count(now=92), 1, "sessions counted, one removed while it was ending")


@law(behaviours=(53,))
async def ending_what_expired_can_insist_that_it_did(corner: Corner) -> None:
    """`expired="require"` refuses with `Conflict` when somebody extended the deadline meanwhile."""
    await corner.create(idle=10)
    await corner.touch(now=5)
    before = await corner.snapshot(ONE)
    late = corner.commit(move=end(), now=12, expired="require")
    await refused(late, Conflict, "ending a session that was touched since it was found due")
    equal(await corner.snapshot(ONE), before, "everything after the refusal")
    committed = await corner.commit(move=end(), now=15, expired="require")
    equal(committed.header.phase, Phase.ENDING, "its phase once it did expire")


@law()
async def events_and_state_can_come_with_the_move(corner: Corner) -> None:
    """The commit that begins the end may say goodbye."""
    await corner.create(state={"n": 1})
    committed = await corner.commit(move=end(), state={"n": 2}, events=(draft("bye"),))
    equal((committed.seqs, committed.header.phase), ((1,), Phase.ENDING), "numbers and phase")
    exactly(await corner.state(), {"n": 2}, "the state")


@law()
async def lists_and_counts_follow_the_phase(corner: Corner) -> None:
    """A session is found by the phase that it is in now."""
    for id in ("a", "b", "c"):
        await corner.create(id)
    await corner.commit("b", move=end())
    await corner.commit("c", move=end())
    await corner.commit("c", move=FINISH)
    for phase, ids in ((Phase.OPEN, ["a"]), (Phase.ENDING, ["b"]), (Phase.ENDED, ["c"])):
        equal(await corner.ids(phases=(phase,)), ids, f"the sessions in {phase}")
        equal(await corner.count(phases=(phase,)), 1, f"the count in {phase}")
    await corner.delete("b")
    equal(await corner.count(phases=(Phase.ENDING,)), 0, "the count after a deletion")

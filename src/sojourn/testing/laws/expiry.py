"""Laws of expiry: at its deadline a session is missing, before any sweep, and never comes back."""

from __future__ import annotations

from sojourn.errors import Ended, NotFound
from sojourn.store import Deadlines, EventQuery
from sojourn.testing.laws.corner import (
    ONE,
    SECOND,
    Corner,
    decoded,
    drafts,
    instant,
    put,
)
from sojourn.testing.laws.expect import equal, exactly, refused
from sojourn.testing.laws.law import law

JUST_BEFORE = 10 - 1 / SECOND
"""One microsecond before the tenth second."""


@law(behaviours=(49,))
async def a_session_is_there_until_its_deadline(corner: Corner) -> None:
    """One microsecond before it, every verb finds it."""
    await corner.create(state={"n": 1}, events=drafts(2), idle=10, user="u", labels={"a": "b"})
    await corner.commit(documents=(put("doc"),))
    exactly(await corner.state(now=JUST_BEFORE), {"n": 1}, "get just before the deadline")
    equal(await corner.seqs(now=JUST_BEFORE), [1, 2], "events just before the deadline")
    equal(await corner.body("doc", now=JUST_BEFORE), b"body", "a document just before the deadline")
    equal(await corner.keys(now=JUST_BEFORE), ["doc"], "documents just before the deadline")
    equal(await corner.ids(now=JUST_BEFORE), [ONE], "list just before the deadline")
    equal(await corner.count(now=JUST_BEFORE), 1, "count just before the deadline")
    equal(await corner.due(now=JUST_BEFORE), [], "due just before the deadline")
    await corner.fork(now=JUST_BEFORE)
    await corner.commit(now=JUST_BEFORE, state={"n": 2})
    exactly(await corner.state(now=15), {"n": 2}, "get after a commit just before the deadline")


@law(behaviours=(49, 50))
async def a_session_is_missing_at_its_deadline(corner: Corner) -> None:
    """At it, not only past it: no read finds it, and writes are `Ended`, before any sweep."""
    await corner.create(events=drafts(2), idle=10, user="u", labels={"a": "b"})
    await corner.commit(documents=(put("doc"),))
    for now in (10, 11, 10**6):
        equal(await corner.get(now=now), None, f"get at {now} s")
        log = await corner.store.events(corner.app, ONE, instant(now), EventQuery())
        equal(log, None, f"events at {now} s")
        equal(await corner.document("doc", now=now), None, f"a document at {now} s")
        equal(await corner.keys(now=now), [], f"documents at {now} s")
        for filters in ({}, {"user": "u"}, {"labels": {"a": "b"}}):
            equal(await corner.ids(now=now, **filters), [], f"list by {filters} at {now} s")
            equal(await corner.count(now=now, **filters), 0, f"count by {filters} at {now} s")
        await refused(corner.commit(now=now, state={"n": 2}), Ended, f"a commit at {now} s")
        await refused(corner.touch(now=now), Ended, f"a touch at {now} s")
        await refused(corner.fork(f"f{now}", now=now), NotFound, f"a fork at {now} s")


@law(behaviours=(50,))
async def an_expired_session_is_never_revived(corner: Corner) -> None:
    """No refused write extends it; only who asks for expired ones finds it, unchanged."""
    await corner.create(state={"n": 1}, events=drafts(1), idle=10)
    before = await corner.snapshot(ONE)
    await refused(corner.touch(now=12), Ended, "a touch")
    await refused(corner.commit(now=12, state={"n": 2}), Ended, "a commit")
    equal(await corner.get(now=12), None, "the session after the refusals")
    equal(await corner.snapshot(ONE), before, "all of it, as of before its deadline")
    old = await corner.read(now=12, expired=True, last=5)
    exactly(decoded(old.state), {"n": 1}, "the state of the expired session, asked for")
    equal([entry.id for entry in old.entries], ["e1"], "its log, asked for")
    equal(await corner.ids(now=12, expired=True), [ONE], "the list that includes expired ones")
    equal(await corner.count(now=12, expired=True), 0, "the count, which never does")


@law(behaviours=(51, 52))
async def a_touch_extends_the_idle_deadline_and_nothing_else(corner: Corner) -> None:
    """Its idle deadline and `active_at` move; revision, state and log stay."""
    await corner.create(state={"n": 1}, events=drafts(2), idle=10)
    header = await corner.touch(now=6)
    equal(header.expires_at, instant(16), "the deadline that touch returns")
    read = (await corner.read(now=15)).header
    seen = (read.expires_at, read.active_at, read.revision)
    equal(seen, (instant(16), instant(6), 1), "deadline, activity and revision after the touch")
    equal(read.created_at, instant(0), "the time of creation after the touch")
    equal(await corner.get(now=16), None, "the session at its new deadline")
    await corner.create("strict", idle=10)
    await corner.touch("strict", now=5)
    await corner.commit("strict", now=6, revision=1)


@law(behaviours=(51,))
async def an_absolute_deadline_is_not_extended(corner: Corner) -> None:
    """Neither by touches nor by commits; the earlier of two deadlines counts."""
    await corner.create("absolute", absolute=20)
    await corner.create("both", idle=10, absolute=20)
    for now in (5, 10, 15, 19):
        await corner.commit("absolute", now=now)
        await corner.touch("both", now=now)
    equal(
        (await corner.read("both", now=19)).header.expires_at, instant(20), "the earlier deadline"
    )
    for id in ("absolute", "both"):
        equal(await corner.get(id, now=20), None, f"{id!r} at its absolute deadline")
        await refused(corner.touch(id, now=20), Ended, f"a touch of {id!r} then")
        await refused(corner.commit(id, now=20), Ended, f"a commit to {id!r} then")


@law(behaviours=(51,))
async def a_commit_extends_the_idle_deadline(corner: Corner) -> None:
    """Writing is using."""
    await corner.create(idle=10)
    committed = await corner.commit(now=7)
    seen = (committed.header.expires_at, committed.header.active_at)
    equal(seen, (instant(17), instant(7)), "deadline and activity after a commit")
    equal((await corner.read(now=16)).header.expires_at, instant(17), "the deadline read back")


@law(behaviours=(51,))
async def a_commit_may_replace_the_deadlines(corner: Corner) -> None:
    """Both at once, the idle time counted from then; what had passed stays passed."""
    await corner.create(state={"n": 1}, idle=10, absolute=20)
    limits = Deadlines(idle=int(30 * SECOND), absolute_at=instant(100))
    committed = await corner.commit(now=5, deadlines=limits, state={"n": 2}, user="u")
    equal(committed.header.expires_at, instant(35), "the deadline that the commit returns")
    read = (await corner.read(now=34)).header
    seen = (read.idle, read.absolute_at, read.expires_at)
    equal(seen, (30 * SECOND, instant(100), instant(35)), "the deadlines, read back")
    await corner.commit(now=30, state={"n": 3})
    equal((await corner.touch(now=59)).expires_at, instant(89), "the deadline after a touch")
    equal(await corner.due(now=88), [], "what is due before the new deadline")
    equal(await corner.due(now=89), [ONE], "what is due at the new deadline")
    await corner.commit(now=80, deadlines=Deadlines(idle=None, absolute_at=instant(90)))
    equal((await corner.read(now=89)).header.idle, None, "the idle time after it was taken away")
    equal(await corner.get(now=90), None, "the session at the deadline that is left")
    never = Deadlines(idle=None, absolute_at=None)
    await refused(corner.commit(now=90, deadlines=never), Ended, "a commit past the deadline")
    await corner.create("other", idle=10)
    await corner.commit("other", now=5, deadlines=never)
    equal((await corner.read("other", now=10**9)).header.expires_at, None, "no deadline any more")
    equal(await corner.due(now=10**9), [ONE], "what is due of the two")


@law(behaviours=(119,))
async def activity_never_goes_back(corner: Corner) -> None:
    """A touch or a commit with an earlier instant moves neither activity nor deadline back."""
    await corner.create(idle=10)
    await corner.touch(now=8)
    for header in (await corner.touch(now=3), (await corner.commit(now=4)).header):
        seen = (header.active_at, header.expires_at)
        equal(seen, (instant(8), instant(18)), "activity and deadline after a step back")
    read = (await corner.read(now=8)).header
    equal((read.active_at, read.expires_at), (instant(8), instant(18)), "both, read back")


@law(behaviours=(47,))
async def a_session_without_deadlines_never_expires(corner: Corner) -> None:
    """It is there whenever it is asked for, and never due."""
    await corner.create(state={"n": 1})
    for now in (10**3, 10**6, 10**10):
        exactly(await corner.state(now=now), {"n": 1}, f"get at {now} s")
        equal(await corner.count(now=now), 1, f"count at {now} s")
        equal(await corner.due(now=now), [], f"what is due at {now} s")
    await corner.touch(now=10**9)
    equal((await corner.read(now=10**9)).header.expires_at, None, "its deadline after a touch")


@law(behaviours=(117,))
async def touching_what_is_not_there_is_not_found(corner: Corner) -> None:
    """A touch never creates."""
    await refused(corner.touch("ghost"), NotFound, "a touch of an unknown id")
    equal(await corner.count(), 0, "sessions after the refusal")
    epoch = (await corner.create(idle=10)).header.epoch
    await corner.touch(epoch=epoch, now=1)
    await corner.delete()
    await corner.create(idle=10)
    await refused(corner.touch(epoch=epoch, now=5), NotFound, "a touch of an earlier incarnation")
    equal((await corner.read()).header.expires_at, instant(10), "the deadline of the new one")


@law()
async def an_expired_session_can_be_deleted(corner: Corner) -> None:
    """Missing to readers, it still holds its id until it is removed; then the id is free."""
    await corner.create(state={"of": "old"}, events=drafts(3), idle=10)
    await corner.delete(now=20)
    equal(await corner.get(now=20, expired=True), None, "the expired session after its deletion")
    await corner.create(now=20, state={"of": "new"})
    exactly(await corner.state(now=20), {"of": "new"}, "the state of the new one")
    equal(await corner.seqs(now=20), [], "the log of the new one")


@law()
async def counts_leave_out_the_expired(corner: Corner) -> None:
    """By every filter, as time passes, counts are what a list would show."""
    for n in range(1, 7):
        user = "u" if n % 2 else None
        await corner.create(f"s{n}", idle=n * 10, user=user, labels={"parity": str(n % 2)})
    await corner.create("forever", user="u", labels={"parity": "1"})
    for now in (0, 10, 25, 30, 60, 100):
        for filters in ({}, {"user": "u"}, {"anonymous": True}, {"labels": {"parity": "1"}}):
            listed = await corner.ids(now=now, **filters)
            counted = await corner.count(now=now, **filters)
            equal(counted, len(listed), f"the count by {filters} at {now} s, beside the list")
    equal(await corner.count(now=30), 4, "sessions left at 30 s")
    await corner.touch("s6", now=50)
    equal(await corner.count(now=100), 2, "sessions left at 100 s after a touch of s6 at 50 s")

"""Laws of the log: numbers given by the store, order by number, repeats harmless, cuts final."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import LogFull, TailMismatch
from sojourn.limits import MAX_SEQ
from sojourn.store import SupportsTransfer
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, drafts, instant
from sojourn.testing.laws.expect import equal, exactly, refused
from sojourn.testing.laws.law import law
from sojourn.testing.laws.transfer import restored, taken

if TYPE_CHECKING:
    from sojourn.model import Draft


@law(behaviours=(83,))
async def events_are_numbered_from_one_without_gaps(corner: Corner) -> None:
    """Each event gets the next number of its session, in the order given, commit after commit."""
    await corner.create()
    equal(await corner.append(*drafts(2)), (1, 2), "the numbers of the first two")
    equal(await corner.append(), (), "the numbers of none")
    equal(await corner.append(*drafts(3, start=3)), (3, 4, 5), "the numbers of the next three")
    log = await corner.log()
    equal([entry.seq for entry in log], [1, 2, 3, 4, 5], "the numbers read")
    equal([entry.id for entry in log], ["e1", "e2", "e3", "e4", "e5"], "the ids read")
    equal((await corner.read()).header.seq, 5, "the last number in the header")


@law(behaviours=(92,))
async def an_event_comes_back_with_every_field(corner: Corner) -> None:
    """Id, kind, author, time, body and delta; absent and empty deltas are told apart."""
    await corner.create()
    full = draft(
        "full",
        {"text": "hi"},
        kind="message",
        author="me",
        at=-5.000001,
        changes={"a": None, "user:b": 1},
        deleted=["c", "app:d"],
    )
    bare = draft("bare")
    empty = draft("empty", {}, author="", changes={}, deleted=[])
    await corner.append(full, bare, empty)
    for given, entry in zip((full, bare, empty), await corner.log(), strict=True):
        for field in ("id", "kind", "author", "at"):
            read, sent = getattr(entry, field), getattr(given, field)
            equal(read, sent, f"the {field} of the event {given.id!r}")
        for field in ("body", "changes", "deleted"):
            read, sent = getattr(entry, field), getattr(given, field)
            equal(read is None, sent is None, f"whether {field} of {given.id!r} is absent")
            if sent is not None:
                value = msgspec.json.decode(read)
                exactly(value, msgspec.json.decode(sent), f"the {field} of {given.id!r}")


@law(behaviours=(14, 96))
async def logs_of_sessions_are_their_own(corner: Corner) -> None:
    """Numbers and ids of events mean something in one session only."""
    await corner.create("left")
    await corner.create("right")
    await corner.append(draft("same", "left"), id="left")
    equal(await corner.append(draft("same", "right"), id="right"), (1,), "its number on the right")
    equal([entry.body for entry in await corner.log("left")], ['"left"'], "the log on the left")
    equal([entry.body for entry in await corner.log("right")], ['"right"'], "the log on the right")


@law()
async def the_same_event_again_is_stored_once(corner: Corner) -> None:
    """Equal id and equal content: harmless, and the first one's number is returned."""
    await corner.create(events=drafts(2))
    equal(await corner.append(*drafts(4)), (1, 2, 3, 4), "the numbers of two old, two new")
    equal(await corner.append(*drafts(1)), (1,), "the number of a repeat")
    equal(await corner.append(*drafts(1, start=5)), (5,), "the number of the next new one")
    ids = [entry.id for entry in await corner.log()]
    equal(ids, ["e1", "e2", "e3", "e4", "e5"], "the log after the repeats")


@law(behaviours=(83,))
async def a_repeated_event_does_not_change_the_state_again(corner: Corner) -> None:
    """What an event did to the state is done once; new events beside it do what they do."""
    await corner.create(user="u")

    def step(n: int) -> Draft:
        return draft(f"e{n}", changes={"step": n, "user:step": n, "app:step": n})

    def tiers(n: int) -> dict[str, Any]:
        return {"state": {"step": n}, "user_state": {"step": n}, "app_state": {"step": n}}

    for n in (1, 2):
        await corner.commit(events=(step(n),), **tiers(n))
    equal((await corner.commit(events=(step(1),), **tiers(1))).seqs, (1,), "a repeat's number")
    exactly(decoded((await corner.read()).state), {"step": 2}, "the state after a repeat")
    exactly(await corner.user_state("u"), {"step": 2}, "the user's state after a repeat")
    exactly(await corner.app_state(), {"step": 2}, "the app's state after a repeat")
    mixed = await corner.commit(events=(step(3), step(1)), **tiers(1))
    equal((mixed.seqs, mixed.before), ((3, 1), 2), "a new event and a repeat together")
    exactly(decoded((await corner.read()).state), {"step": 3}, "the state after both")


@law()
async def a_repeated_event_removes_nothing_again(corner: Corner) -> None:
    """A removal is done once as well, and a new one beside a repeat is done."""
    gone = draft("gone", deleted=["a"])
    await corner.create(state={"a": 1, "b": 1})
    await corner.commit(events=(gone,), drop=("a",))
    back = draft("back", changes={"a": 2})
    await corner.commit(events=(back,), state={"a": 2})
    equal((await corner.commit(events=(gone,), drop=("a",))).seqs, (1,), "a repeat's number")
    exactly(await corner.state(), {"a": 2, "b": 1}, "the state after a repeated removal")
    more = draft("more", changes={"c": 3})
    await corner.commit(events=(gone, more), state={"c": 3}, drop=("a",))
    exactly(await corner.state(), {"a": 2, "b": 1, "c": 3}, "the state after it and a new event")
    await corner.commit(state={"a": 4})
    removing = draft("removing", deleted=["b"])
    await corner.commit(events=(removing, back), state={"a": 2}, drop=("b",))
    exactly(await corner.state(), {"a": 4, "c": 3}, "the state after a new removal and a repeat")
    last = draft("last", deleted=["a"])
    await corner.commit(events=(back, last), drop=("a",))
    exactly(await corner.state(), {"c": 3}, "the state after a removal of what a repeat had set")


@law()
async def the_same_event_twice_in_one_commit_is_stored_once(corner: Corner) -> None:
    """Also the events that come together, in a create or in a commit, are compared."""
    twice = (draft("a", 1), draft("b", 1), draft("a", 1), draft("a", 2))
    created = await corner.create(events=twice)
    equal(created.seqs, (1, 2, 1, 3), "the numbers given by create")
    equal(created.header.seq, 3, "the last number after create")
    later = (draft("c", 1), draft("c", 1), draft("b", 1), draft("d", 1))
    equal(await corner.append(*later), (4, 4, 2, 5), "the numbers given by a commit")
    equal(await corner.seqs(), [1, 2, 3, 4, 5], "the log")
    equal(await corner.append(draft("e")), (6,), "the number of the next event")


@law()
async def equal_content_is_compared_as_json(corner: Corner) -> None:
    """The order of an object's keys is no content; 1, 1.0 and true are three contents."""
    await corner.create()
    first = draft("a", {"x": 1, "y": [2]}, changes={"p": 1, "q": 2})
    again = draft("a", {"y": [2], "x": 1}, changes={"q": 2, "p": 1})
    equal(await corner.append(first), (1,), "the first")
    equal(await corner.append(again), (1,), "the same with its keys in another order")
    for seq, one in enumerate((1, 1.0, True), start=2):
        other = draft("a", {"x": one, "y": [2.0]}, changes={"p": 1, "q": 2})
        equal(await corner.append(other), (seq,), f"another one, with {one!r}")
    equal(await corner.append(draft("b", deleted=["p", "q"])), (5,), "one that removes two keys")
    equal(await corner.append(draft("b", deleted=["q", "p"])), (5,), "the same, the other first")
    equal(await corner.append(draft("b", deleted=["q", "r"])), (6,), "one that removes another")
    equal(await corner.seqs(), [1, 2, 3, 4, 5, 6], "the log")


@law()
async def different_events_with_one_id_are_all_kept(corner: Corner) -> None:
    """Whatever differs: kind, author, time given, body, delta. Nothing overwrites anything."""
    await corner.create()
    variants = (
        draft("a", 1),
        draft("a", 2),
        draft("a", 1, kind="other"),
        draft("a", 1, author="me"),
        draft("a", 1, author=""),
        draft("a", 1, at=1),
        draft("a", 1, changes={"k": 1}),
        draft("a", 1, changes={}),
        draft("a", 1, deleted=["k"]),
        draft("a", None),
    )
    for seq, variant in enumerate(variants, start=1):
        equal(await corner.append(variant), (seq,), f"the number of variant {seq}")
    for seq, variant in enumerate(variants, start=1):
        equal(await corner.append(variant), (seq,), f"the number of variant {seq}, repeated")
    equal(len(await corner.log()), len(variants), "events in the log")


@law()
async def a_time_that_nobody_gave_does_not_make_events_differ(corner: Corner) -> None:
    """An event stamped by the clock, sent again later, is the same event."""
    await corner.create()
    equal(await corner.append(draft("a", 1, at=1, stamped=False)), (1,), "the first")
    equal(await corner.append(draft("a", 1, at=9, stamped=False)), (1,), "the same, later")
    equal([entry.at for entry in await corner.log()], [instant(1)], "the time that is kept")


@law()
async def order_is_by_number_whatever_the_times_say(corner: Corner) -> None:
    """Ties and times that step back keep the order in which events were appended."""
    await corner.create()
    times = (5, 5, 3, 9, 3, -100, 9, 5)
    await corner.append(*(draft(f"e{n}", at=at) for n, at in enumerate(times)))
    log = await corner.log()
    equal([entry.id for entry in log], [f"e{n}" for n in range(len(times))], "the order")
    equal([entry.at for entry in log], [instant(at) for at in times], "the times, as they were")
    last = [entry.id for entry in await corner.log(last=3)]
    equal(last, ["e5", "e6", "e7"], "the last three")


@law()
async def truncating_removes_the_tail_and_numbers_are_not_reused(corner: Corner) -> None:
    """Events behind `truncate_after` are gone, the rest stays; the next number is a new one."""
    await corner.create(state={"n": 1}, events=drafts(5))
    cut = await corner.commit(truncate_after=3)
    equal(cut.header.seq, 5, "the last number given out, after the cut")
    equal(await corner.seqs(), [1, 2, 3], "the log after the cut")
    equal(await corner.append(draft("new")), (6,), "the number of the next event")
    await corner.commit(truncate_after=0)
    equal(await corner.seqs(), [], "the log after cutting all of it")
    equal(await corner.append(draft("newer")), (7,), "the number after that")
    await corner.commit(truncate_after=100)
    equal(await corner.seqs(), [7], "the log after cutting behind its end")
    exactly(await corner.state(), {"n": 1}, "the state, which a cut does not touch")


@law(needs=SupportsTransfer)
async def a_log_without_numbers_left_takes_no_events(corner: Corner) -> None:
    """The last number is given out, then `LogFull`; what adds no event is done all the same."""
    await corner.create(state={"n": 1}, events=drafts(1))
    there = await taken(corner)
    await corner.delete()
    header = msgspec.structs.replace(there.header, seq=MAX_SEQ - 2)
    await restored(corner, msgspec.structs.replace(there, header=header))
    await refused(corner.append(*drafts(3, start=2)), LogFull, "one event too many")
    equal(await corner.append(*drafts(2, start=2)), (MAX_SEQ - 1, MAX_SEQ), "the last numbers")
    before = await corner.snapshot(ONE)
    error = await refused(
        corner.commit(events=(draft("more"),), state={"n": 2}, app_state={"n": 2}),
        LogFull,
        "an event without a number",
    )
    equal(error.limit, MAX_SEQ, "the limit in the error")
    equal(await corner.snapshot(ONE), before, "everything after the refusal")
    equal(await corner.seqs(last=2), [MAX_SEQ - 1, MAX_SEQ], "the last two of the log")
    await corner.commit(state={"n": 3})
    exactly(await corner.state(), {"n": 3}, "the state, which can still be written")


@law()
async def an_event_that_was_cut_off_can_come_again(corner: Corner) -> None:
    """What is truncated is forgotten: the same event is new, also within the commit that cuts."""
    await corner.create(events=drafts(3))
    await corner.commit(truncate_after=2)
    equal(await corner.append(*drafts(3)), (1, 2, 4), "the numbers after the cut")
    both = await corner.commit(truncate_after=1, events=drafts(3))
    equal(both.seqs, (1, 5, 6), "the numbers when the cut and the events come together")
    log = [(entry.seq, entry.id) for entry in await corner.log()]
    equal(log, [(1, "e1"), (5, "e2"), (6, "e3")], "the log")
    await corner.commit(truncate_after=1)
    equal(await corner.append(*drafts(3)), (1, 7, 8), "the numbers after one more cut")
    equal(await corner.append(*drafts(3)), (1, 7, 8), "the same events, once more")
    equal(await corner.seqs(), [1, 7, 8], "the log in the end")


@law()
async def a_suffix_is_replaced_only_when_it_is_the_tail(corner: Corner) -> None:
    """`expect_tail` guards a cut: `TailMismatch`, with both tails, when the log ends otherwise."""
    await corner.create(events=drafts(4))
    replaced = await corner.commit(truncate_after=2, expect_tail=(3, 4), events=(draft("new"),))
    equal(replaced.seqs, (5,), "the number of the replacement")
    equal(await corner.seqs(), [1, 2, 5], "the log after the replacement")
    before = await corner.snapshot(ONE)
    for tail, actual in (
        ((3, 4), (2, 5)),
        ((4,), (5,)),
        ((1, 2), (2, 5)),
        ((5, 6), (2, 5)),
        ((1, 2, 3, 5), (1, 2, 5)),
    ):
        bad = corner.commit(truncate_after=2, expect_tail=tail, events=(draft("bad"),))
        error = await refused(bad, TailMismatch, f"expecting the tail {tail}")
        found = (error.expected_tail, error.actual_tail)
        equal(found, (tail, actual), "the tails in the error")
    equal(await corner.snapshot(ONE), before, "everything after the refusals")
    await corner.commit(expect_tail=(1, 2, 5), truncate_after=0)
    equal(await corner.seqs(), [], "the log after replacing all of it by nothing")


@law()
async def a_long_log_reads_back_in_order(corner: Corner) -> None:
    """Thousands of events in one commit and over several, read whole and in parts."""
    await corner.create(events=drafts(2000))
    await corner.append(*drafts(1000, start=2001))
    whole = await corner.log()
    equal([entry.seq for entry in whole], list(range(1, 3001)), "the numbers of the whole log")
    equal([entry.body for entry in whole], [str(n) for n in range(1, 3001)], "its bodies")
    equal(await corner.seqs(after_seq=1500, first=2), [1501, 1502], "a window in its middle")
    equal(await corner.seqs(last=600), list(range(2401, 3001)), "its last 600")

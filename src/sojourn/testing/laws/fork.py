"""Laws of forking: a copy as of an event, in one step, that goes its own way."""

from __future__ import annotations

from sojourn.errors import AlreadyExists, NotFound
from sojourn.lifecycle import Phase, Trigger
from sojourn.store import Move
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, drafts, put
from sojourn.testing.laws.expect import equal, exactly, refused
from sojourn.testing.laws.law import law


@law()
async def a_fork_is_a_copy(corner: Corner) -> None:
    """State, log, documents, user and labels come along; it is new in revision, epoch and times."""
    source = await corner.create(
        user="u",
        state={"n": 1},
        user_state={"n": 1},
        events=drafts(3),
        labels={"a": "b"},
        lifecycle="agent",
    )
    await corner.commit(documents=(put("doc", b"1"), put("x", b"2", collection="other")))
    await corner.commit(move=Move(trigger=Trigger.SPAWN))
    forked = await corner.fork(now=9)
    record = await corner.read("fork", now=9, last=9)
    header = record.header
    equal(header, forked.header, "the header, returned and read")
    equal(forked.repeated, False, "whether it says that it is a repetition")
    kin = (header.user, header.labels, header.lifecycle, header.forked_from)
    equal(kin, ("u", {"a": "b"}, "agent", ONE), "user, labels, lifecycle and origin")
    new = (header.revision, header.phase, header.seq)
    equal(new, (1, Phase.CREATED, 3), "revision, phase and last number")
    equal(header.epoch != source.header.epoch, True, "whether its epoch is its own")
    exactly(decoded(record.state), {"n": 1}, "the state")
    exactly(decoded(record.user_state), {"n": 1}, "the user's tier")
    log = [(entry.seq, entry.id, entry.body) for entry in record.entries]
    equal(log, [(1, "e1", "1"), (2, "e2", "2"), (3, "e3", "3")], "the log")
    equal(await corner.body("doc", "fork"), b"1", "a document")
    equal(await corner.body("x", "fork", collection="other"), b"2", "one of another collection")
    equal(await corner.ids(user="u"), ["fork", ONE], "the user's sessions")
    equal(await corner.count(labels={"a": "b"}), 2, "the count of the label")


@law()
async def a_fork_and_its_source_go_separate_ways(corner: Corner) -> None:
    """What happens to one does not show in the other, its deletion included."""
    await corner.create(state={"n": 1}, events=drafts(2))
    await corner.commit(documents=(put("doc", b"old"),))
    await corner.fork()
    equal(await corner.append(draft("f"), id="fork"), (3,), "the number of the fork's next event")
    fork = await corner.snapshot("fork")
    await corner.commit(
        state={"n": 2}, events=drafts(2, start=8), documents=(put("doc", b"new"),), truncate_after=1
    )
    equal(await corner.snapshot("fork"), fork, "the fork after a commit to its source")
    source = await corner.snapshot(ONE)
    await corner.commit("fork", clear=True, truncate_after=0, documents=(put("doc", b"other"),))
    equal(await corner.snapshot(ONE), source, "the source after a commit to the fork")
    await corner.delete()
    equal(await corner.body("doc", "fork"), b"other", "the fork's document without its source")
    equal(await corner.append(draft("g"), id="fork"), (4,), "the number of an event after that")


@law()
async def a_fork_takes_the_log_and_documents_up_to_its_event(corner: Corner) -> None:
    """Events up to `at`, documents put at or before it; numbers go on from there."""
    await corner.create(events=drafts(2))
    await corner.commit(documents=(put("early"), put("moved", b"early")))
    await corner.append(*drafts(2, start=3))
    await corner.commit(documents=(put("late"), put("moved", b"late")))
    for at, log, keys in ((1, [1], []), (2, [1, 2], ["early"]), (3, [1, 2, 3], ["early"])):
        await corner.fork(f"at{at}", at=at)
        equal(await corner.seqs(f"at{at}"), log, f"the log of a fork at {at}")
        equal(await corner.keys(f"at{at}"), keys, f"the documents of a fork at {at}")
        next_one = await corner.append(draft("new"), id=f"at{at}")
        equal(next_one, (at + 1,), f"the number of the next event of a fork at {at}")
    for end in (4, 99, None):
        await corner.fork(f"at{end}", at=end)
        equal(await corner.seqs(f"at{end}"), [1, 2, 3, 4], f"the log of a fork at {end}")
        equal(await corner.keys(f"at{end}"), ["early", "late", "moved"], f"its documents at {end}")
    await corner.fork("at0", at=0)
    equal([await corner.seqs("at0"), await corner.keys("at0")], [[], []], "a fork before all")


@law()
async def a_fork_rewinds_state_by_the_deltas_behind_it(corner: Corner) -> None:
    """A key whose last delta lies behind `at` goes back to its last one before, or away."""
    await corner.create(state={"never": 0, "plain": 0})
    await corner.commit(
        state={"a": 1, "b": 1, "dropped": 1},
        events=(draft("e1", changes={"a": 1, "b": 1, "dropped": 1}),),
    )
    await corner.commit(
        state={"a": 2, "late": 2},
        drop=("dropped",),
        events=(draft("e2", changes={"a": 2, "late": 2, "user:a": 9}, deleted=["dropped"]),),
    )
    await corner.commit(state={"a": 3}, drop=("b",), events=(draft("e3", changes={"a": 3}),))
    await corner.commit(state={"plain": 9})
    for at, expected in (
        (0, {"never": 0, "plain": 9}),
        (1, {"never": 0, "plain": 9, "a": 1, "dropped": 1}),
        (2, {"never": 0, "plain": 9, "a": 2, "late": 2}),
        (3, {"never": 0, "plain": 9, "a": 3, "late": 2}),
    ):
        await corner.fork(f"at{at}", at=at)
        exactly(await corner.state(f"at{at}"), expected, f"the state of a fork at {at}")
    exactly(await corner.state(), {"never": 0, "plain": 9, "a": 3, "late": 2}, "the source's state")


@law()
async def a_fork_brings_back_what_was_removed_behind_its_event(corner: Corner) -> None:
    """And what was removed before it stays so; keys of the user stay with the user."""
    await corner.create(user="u")
    one, two, three = {"a": 1, "b": 1}, {"c": 2}, {"a": 3}
    await corner.commit(state=one, events=(draft("e1", changes={**one, "user:u": 1}),))
    await corner.commit(drop=("a",), events=(draft("e2", deleted=["a"]),))
    await corner.commit(state=two, events=(draft("e3", changes=two),))
    await corner.commit(state=three, events=(draft("e4", changes={**three, "user:u": 4}),))
    for at, expected in (
        (1, {"a": 1, "b": 1}),
        (2, {"b": 1}),
        (3, {"b": 1, "c": 2}),
        (4, {"a": 3, "b": 1, "c": 2}),
    ):
        await corner.fork(f"at{at}", at=at)
        exactly(await corner.state(f"at{at}"), expected, f"the state of a fork at {at}")


@law()
async def a_fork_claims_nothing_and_has_no_parent(corner: Corner) -> None:
    """The labels come along, the exclusive claim on them and the place under a parent do not."""
    await corner.create("parent")
    await corner.create(parent="parent", labels={"role": "writer"}, exclusive=("role",))
    header = (await corner.fork()).header
    equal((header.parent, header.exclusive), (None, ()), "its parent and claims")
    equal(header.labels, {"role": "writer"}, "its labels")
    await corner.delete("parent")
    equal(await corner.ids(), ["fork"], "the sessions once the parent is deleted")
    await corner.commit("fork", labels={"role": "reader"})


@law()
async def a_fork_needs_a_source_and_a_free_id(corner: Corner) -> None:
    """Missing or expired source: `NotFound`. Id taken, even by an expired one: `AlreadyExists`."""
    await refused(corner.fork("f", source="ghost"), NotFound, "a fork of an unknown id")
    await corner.create("expired", idle=10)
    await refused(corner.fork("f", source="expired", now=10), NotFound, "a fork of an expired one")
    await corner.create(state={"n": 1})
    await corner.create("taken", state={"n": 2})
    await refused(corner.fork("taken"), AlreadyExists, "a fork to an id that is taken")
    error = await refused(
        corner.fork("expired", now=10), AlreadyExists, "a fork to the id of an expired one"
    )
    equal(error.expired, True, "`expired` of the error")
    exactly(await corner.state("taken"), {"n": 2}, "the session that was there")
    equal(await corner.get("f", expired=True), None, "the fork that was refused")


@law()
async def a_fork_of_a_cut_log_goes_on_from_the_last_number(corner: Corner) -> None:
    """Numbers that were cut off are not given out again, in the fork neither."""
    await corner.create(events=drafts(5))
    await corner.commit(truncate_after=2)
    await corner.fork()
    equal(await corner.seqs("fork"), [1, 2], "the log of the fork")
    equal(await corner.append(draft("new"), id="fork"), (6,), "the number of its next event")
    equal(await corner.seqs("fork", last=2), [2, 6], "its last two")

"""Laws of committing: the one write, all or nothing, and what refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import (
    AlreadyBound,
    Conflict,
    InvalidId,
    InvalidTransition,
    LeaseLost,
    NotFound,
    SojournError,
    TailMismatch,
    TooLarge,
)
from sojourn.lifecycle import Phase, Trigger
from sojourn.limits import MAX_LABELS
from sojourn.store import Move
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, drafts, put
from sojourn.testing.laws.expect import equal, exactly, holds, refused
from sojourn.testing.laws.law import law

if TYPE_CHECKING:
    from sojourn.store import Change

EVERYTHING: dict[str, Any] = {
    "state": {"n": 2},
    "user_state": {"n": 2},
    "app_state": {"n": 2},
    "events": drafts(2, start=10),
    "documents": (put("doc", b"two"), put("new", b"two")),
    "labels": {"stage": "two", "new": "label"},
}
"""A commit that touches every part but the phase."""


async def full_session(corner: Corner) -> None:
    """Create a session that has something of everything."""
    await corner.create(
        user="u",
        state={"n": 1, "kept": 1},
        user_state={"n": 1},
        app_state={"n": 1},
        events=drafts(2),
        labels={"stage": "one", "role": "writer"},
        exclusive=("role",),
        idle=3600,
    )
    await corner.commit(documents=(put("doc", b"one"),))


@law(behaviours=(15, 21, 85))
async def a_commit_never_creates(corner: Corner) -> None:
    """A commit to an id that is not there raises `NotFound` and writes nothing, in any tier."""
    change = corner.commit("ghost", user="u", **EVERYTHING)
    error = await refused(change, NotFound, "a commit to an unknown id")
    equal((type(error), error.id), (NotFound, "ghost"), "what the error says (type, id)")
    equal(await corner.get("ghost"), None, "the session after the refusal")
    equal(await corner.count(), 0, "sessions after the refusal")
    exactly(await corner.app_state(), {}, "the app's tier after the refusal")
    exactly(await corner.user_state("u"), {}, "the user's tier after the refusal")


@law(behaviours=(15, 21))
async def a_commit_never_brings_back_a_deleted_session(corner: Corner) -> None:
    """After a deletion, an old handle's commit is `NotFound` and the session stays gone."""
    await full_session(corner)
    await corner.delete()
    await refused(corner.commit(**EVERYTHING), NotFound, "a commit to a deleted session")
    equal(await corner.get(expired=True), None, "the session after the refusal")
    equal(await corner.count(), 0, "sessions after the refusal")


@law()
async def a_commit_applies_all_its_parts(corner: Corner) -> None:
    """State of three tiers, events, documents, labels and a move arrive together."""
    await full_session(corner)
    move = Move(trigger=Trigger.END, reason="done")
    committed = await corner.commit(move=move, now=5, **EVERYTHING)
    record = await corner.read(now=5, after_seq=0)
    equal(record.header, committed.header, "the header, read and returned")
    equal(committed.seqs, (3, 4), "the numbers of the events")
    exactly(decoded(record.state), {"n": 2, "kept": 1}, "the session's own state")
    exactly(decoded(record.user_state), {"n": 2}, "the user's tier")
    exactly(decoded(record.app_state), {"n": 2}, "the app's tier")
    ids = [entry.id for entry in record.entries]
    equal(ids, ["e1", "e2", "e10", "e11"], "the log")
    equal(await corner.body("doc", now=5), b"two", "the document that was replaced")
    equal(await corner.body("new", now=5), b"two", "the document that was added")
    labels = {"stage": "two", "role": "writer", "new": "label"}
    exactly(record.header.labels, labels, "the labels")
    equal((record.header.phase, record.header.reason), (Phase.ENDING, "done"), "phase and reason")


@law()
async def every_commit_raises_the_revision_by_one(corner: Corner) -> None:
    """Also one that changes nothing; what is returned is what the next read shows."""
    await corner.create()
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"state": {"a": 1}},
        {"state": {"a": 1}},
        {"events": drafts(3)},
        {"events": drafts(3)},
        {"documents": (put("a"),)},
        {"labels": {"a": "b"}},
        {"user": "u"},
        {"truncate_after": 1},
    )
    for revision, fields in enumerate(changes, start=2):
        committed = await corner.commit(**fields)
        equal(committed.revision, revision, f"the revision returned by a commit of {fields}")
        equal(committed.header.revision, revision, f"the revision in its header, of {fields}")
        read = (await corner.read()).header
        equal(read.revision, revision, f"the revision read after a commit of {fields}")


@law(behaviours=(106,))
async def an_outdated_revision_is_a_conflict(corner: Corner) -> None:
    """Of two commits that expect the same revision one is `Conflict`, carrying both sides."""
    created = await corner.create()
    epoch = created.header.epoch
    await corner.commit(epoch=epoch, revision=1, state={"first": 1})
    before = await corner.snapshot(ONE)
    stale = corner.commit(epoch=epoch, revision=1, state={"second": 1})
    error = await refused(stale, Conflict, "a commit that expects an old revision")
    equal(error.expected, (epoch, 1), "what the error says was expected")
    equal(error.actual, (epoch, 2), "what the error says was found")
    equal(await corner.snapshot(ONE), before, "everything after the refusal")
    ahead = corner.commit(epoch=epoch, revision=3)
    await refused(ahead, Conflict, "a commit that expects a revision of the future")
    await corner.commit(epoch=epoch, revision=2, state={"second": 1})
    exactly(await corner.state(), {"first": 1, "second": 1}, "the state after both")


@law(behaviours=(21,))
async def a_handle_from_before_a_deletion_is_refused(corner: Corner) -> None:
    """The epoch tells incarnations of an id apart: `Conflict` or `NotFound`, nothing written."""
    old = (await corner.create(state={"of": "old"})).header
    await corner.delete()
    await corner.create(state={"of": "new"})
    before = await corner.snapshot(ONE)
    stale = corner.commit(epoch=old.epoch, state={"of": "old"})
    await refused(stale, NotFound, "a commit of the old incarnation, expecting no revision")
    stale = corner.commit(epoch=old.epoch, revision=1, state={"of": "old"})
    await refused(stale, Conflict, "a commit of the old incarnation at an equal revision")
    await refused(corner.touch(epoch=old.epoch), NotFound, "a touch of the old incarnation")
    equal(await corner.delete(epoch=old.epoch), False, "a delete of the old incarnation")
    equal(await corner.snapshot(ONE), before, "the new session afterwards")


@law()
async def a_refused_commit_changes_nothing(corner: Corner) -> None:
    """Whatever refuses it, no part of a commit is applied: state, tiers, log, documents, labels."""
    await full_session(corner)
    refusals: tuple[tuple[dict[str, Any], type[SojournError]], ...] = (
        ({"revision": 1}, Conflict),
        ({"epoch": "another"}, NotFound),
        ({"epoch": "another", "revision": 2}, Conflict),
        ({"fence": 1}, LeaseLost),
        ({"user": "v"}, AlreadyBound),
        ({"expect_tail": (1,), "truncate_after": 0}, TailMismatch),
        ({"move": Move(trigger=Trigger.FINISH)}, InvalidTransition),
        ({"move": Move(trigger=Trigger.SPAWN)}, InvalidTransition),
        ({"labels": {f"l{n}": "x" for n in range(MAX_LABELS)}}, TooLarge),
        ({"labels": {"role": "reader"}}, InvalidId),
        ({"expired": "require"}, Conflict),
    )
    before = await corner.snapshot(ONE, users=("u", "v"))
    listed = await corner.page()
    for fields, error in refusals:
        await refused(corner.commit(**{**EVERYTHING, **fields}), error, f"a commit with {fields}")
        after = await corner.snapshot(ONE, users=("u", "v"))
        equal(after, before, f"everything after a refused commit with {fields}")
    equal(await corner.page(), listed, "the list after all refusals")
    equal((await corner.commit()).revision, 3, "the revision of the next commit")


@law()
async def a_commit_without_a_session_writes_only_what_is_shared(corner: Corner) -> None:
    """With `id=None` the tiers and the app's documents change, and no session comes of it."""
    change: Change = corner.change(None, user="u", user_state={"a": 1}, app_state={"b": 1})
    change = msgspec.structs.replace(change, documents=(put("shared", b"1"),))
    committed = await corner.store.commit(change)
    equal(committed.seqs, (), "the events of a commit without a session")
    equal(await corner.body("shared", None), b"1", "the app's document")
    exactly(await corner.user_state("u"), {"a": 1}, "the user's tier")
    exactly(await corner.app_state(), {"b": 1}, "the app's tier")
    equal(await corner.ids(), [], "sessions afterwards")


@law()
async def what_a_commit_reached_is_part_of_its_result(corner: Corner) -> None:
    """`durability` says memory, relaxed or durable; asked for durable, it is never just relaxed."""
    await corner.create()
    for asked in (None, "durable", "relaxed"):
        reached = (await corner.commit(durability=asked)).durability
        known = reached in ("memory", "relaxed", "durable")
        holds(known, f"the durability reached is a known one, not {reached!r}")
        holds(
            asked != "durable" or reached != "relaxed",
            "a commit that asked for durable says more than relaxed",
        )
    await corner.append(draft("a"))
    equal(await corner.seqs(), [1], "the log after commits of every durability")

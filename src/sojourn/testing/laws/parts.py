"""Laws of parts: a large session is taken out and put back piece by piece, and seen only whole."""

from __future__ import annotations

from contextlib import aclosing

import msgspec

from sojourn.errors import Corrupt, NotFound
from sojourn.store import Drop, Snapshot, SupportsTransfer
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, drafts, instant, put
from sojourn.testing.laws.expect import equal, exactly, holds, refused
from sojourn.testing.laws.law import law
from sojourn.testing.laws.transfer import (
    LATER,
    apps_of,
    back_to,
    dumped,
    moving,
    restored,
    still,
    taken,
)

BIG = bytes(600_000)
"""A body of which two do not travel in one piece."""


async def in_parts(corner: Corner, id: str = ONE, *, now: float = 0) -> list[Snapshot]:
    """Return all parts of a session."""
    async with aclosing(moving(corner).parts(corner.app, id, instant(now))) as parts:
        return [part async for part in parts]


async def a_large_one(corner: Corner, id: str = ONE) -> None:
    """Create a session that does not fit into one part."""
    events = tuple(draft(f"big{n}", BIG.hex()[:400_000], at=n) for n in range(4))
    await corner.create(id, user="u", state={"n": 1}, labels={"a": "b"}, events=events)
    for name in ("x", "w"):
        await corner.commit(id, documents=(put(name, BIG),))


@law(needs=SupportsTransfer)
async def a_large_session_comes_part_by_part(corner: Corner) -> None:
    """All as of one moment, whatever is written meanwhile; a page has its header alone."""
    await a_large_one(corner)
    await corner.create("small")
    page = (await dumped(corner)).snapshots
    facts = [(item.header.id, item.last, len(item.entries)) for item in page]
    equal(facts, [(ONE, False, 0), ("small", True, 0)], "the sessions of a page")
    parts: list[Snapshot] = []
    async with aclosing(moving(corner).parts(corner.app, ONE, instant(0))) as reading:
        async for part in reading:
            parts.append(part)
            if len(parts) == 1:
                await corner.commit(truncate_after=1, events=(draft("new"),), state={"n": 2})
                await corner.delete()
    holds(len(parts) > 1, f"it comes in several parts, not {len(parts)}")
    equal([part.part for part in parts], list(range(len(parts))), "the numbers of the parts")
    equal([part.last for part in parts].index(True), len(parts) - 1, "which is the last")
    equal({part.header.revision for part in parts}, {3}, "the revisions of the parts")
    equal([entry.seq for part in parts for entry in part.entries], [1, 2, 3, 4], "the log")
    bodies = [(item.key, item.body) for part in parts for item in part.documents]
    equal(bodies, [("x", BIG), ("w", BIG)], "the documents")
    exactly(decoded(parts[0].state), {"n": 1}, "the state")
    equal(await in_parts(corner, "ghost"), [], "the parts of a missing session")
    (whole,) = await in_parts(corner, "small")
    equal((whole.part, whole.last), (0, True), "the only part of a small session")


@law(needs=SupportsTransfer)
async def a_large_session_is_seen_once_it_is_whole(corner: Corner) -> None:
    """Before its last part nobody sees it; afterwards it is exactly what it was."""
    await a_large_one(corner)
    parts = await in_parts(corner)
    await corner.delete()
    op = corner.op()
    for part in parts[:-1]:
        equal(await restored(corner, part, op=op), "partial", f"what part {part.part} leads to")
        equal(await restored(corner, part, op=op), "partial", f"part {part.part}, sent again")
        unseen = [await corner.get(expired=True), await corner.count(), await corner.ids()]
        equal(unseen, [None, 0, []], "what a reader sees of it")
        equal((await dumped(corner)).snapshots, [], "what is dumped of it")
        equal(await apps_of(corner), [], "its app, while nothing else is in it")
    for said in ("restored", "unchanged"):
        equal(await restored(corner, parts[-1], op=op), said, "what the last part leads to")
    _same_parts(await in_parts(corner), parts)
    equal(await corner.ids(user="u", labels={"a": "b"}), [ONE], "by user and label")
    equal(await corner.append(draft("next")), (5,), "the number of its next event")
    equal(await corner.delete(), True, "whether it can be deleted")


def _same_parts(actual: list[Snapshot], expected: list[Snapshot]) -> None:
    equal(len(actual), len(expected), "how many parts it comes in")
    for ours, theirs in zip(actual, expected, strict=True):
        equal(still(ours), still(theirs), f"part {theirs.part}")


@law(needs=SupportsTransfer)
async def a_large_session_replaces_its_older_revision(corner: Corner) -> None:
    """The older one is there until the last part is; its place and children stay."""
    await corner.create(labels={"a": "b"}, exclusive=("a",), user="u", events=drafts(2))
    await corner.create("second")
    await corner.create("child", parent=ONE)
    await corner.commit(documents=(put("gone"),))
    old = await taken(corner)
    big = tuple(draft(f"big{n}", BIG.hex()[:500_000]) for n in range(4))
    await corner.commit(events=big, documents=(Drop(collection="notes"), put("new", BIG)), now=5)
    parts = await in_parts(corner)
    await back_to(corner, old)
    op = corner.op()
    for part in parts[:-1]:
        await restored(corner, part, op=op, replace=True)
        equal(still(await taken(corner)), still(old), "the older one, meanwhile")
    equal(await restored(corner, parts[-1], op=op, replace=True), "restored", "the last part")
    _same_parts(await in_parts(corner), parts)
    equal(await corner.ids(order="created"), [ONE, "second", "child"], "the order of creation")
    equal(await corner.ids(parent=ONE), ["child"], "its children")
    equal([await corner.count(), await corner.count(user="u")], [3, 1], "the counts")


@law(needs=SupportsTransfer)
async def parts_of_another_restore_are_not_mixed_in(corner: Corner) -> None:
    """A part without those before it: `NotFound`; a first part begins anew."""
    await a_large_one(corner)
    parts = await in_parts(corner)
    await corner.delete()
    await refused(restored(corner, parts[1]), NotFound, "a second part alone")
    first, second = corner.op(), corner.op()
    await restored(corner, parts[0], op=first)
    await refused(restored(corner, parts[1], op=second), NotFound, "another's second part")
    skipped = msgspec.structs.replace(parts[-1], part=len(parts) + 1)
    await refused(restored(corner, skipped, op=first), NotFound, "a part too far")
    await restored(corner, parts[0], op=second)
    await refused(restored(corner, parts[1], op=first), NotFound, "a part of the one before")
    doubled = msgspec.structs.replace(parts[0], part=1, state={})
    await refused(restored(corner, doubled, op=second), Corrupt, "events that were there before")
    for part in parts[1:]:
        await restored(corner, part, op=second)
    _same_parts(await in_parts(corner), parts)


@law(needs=SupportsTransfer)
async def an_unfinished_restore_leaves_nothing_behind(corner: Corner) -> None:
    """It goes with a delete, with its user, and by a sweep once it is abandoned."""
    await a_large_one(corner)
    parts = await in_parts(corner)
    await corner.delete()

    async def swept() -> None:
        equal(await corner.reap(now=LATER), [], "what a sweep says to have removed")

    async def found() -> None:
        equal(await corner.due(now=LATER), [], "what is due")

    async def deleted() -> None:
        equal(await corner.delete(), False, "whether there was a session to delete")

    async def forgotten() -> None:
        equal(await corner.store.forget(corner.app, "u"), 0, "the sessions of its user")

    for ended_by in (swept, found, deleted, forgotten):
        op = corner.op()
        await restored(corner, parts[0], op=op)
        equal(await corner.reap(now=LATER - 1), [], "what a sweep before removes")
        await ended_by()
        left = restored(corner, parts[1], op=op)
        await refused(left, NotFound, f"a second part after it was {ended_by.__name__}")
    equal(await corner.count(), 0, "the sessions in the end")


@law(needs=SupportsTransfer)
async def a_restore_under_way_is_not_swept(corner: Corner) -> None:
    """Before it is abandoned no sweep touches it, nor does one of another app ever."""
    await a_large_one(corner)
    parts = await in_parts(corner)
    await corner.delete()
    other = corner.beside(f"{corner.app} elsewhere")
    op = corner.op()
    for part in parts[:-1]:
        await restored(corner, part, op=op)
        equal(await corner.due(now=LATER - 1), [], "what is due before it is abandoned")
        equal(await corner.reap(now=LATER - 1), [], "what a sweep before that removes")
        equal(await other.due(now=LATER), [], "what is due in another app")
        equal(await other.reap(now=LATER), [], "what a sweep of another app removes")
    equal(await restored(corner, parts[-1], op=op), "restored", "what the last part leads to")
    _same_parts(await in_parts(corner), parts)

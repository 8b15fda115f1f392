"""Laws of children: a session under another lives its own life and dies with its parent."""

from __future__ import annotations

from sojourn.errors import Ended, NotFound
from sojourn.lifecycle import Phase, Trigger
from sojourn.store import Move
from sojourn.testing.laws.corner import ONE, Corner, drafts, put
from sojourn.testing.laws.expect import equal, exactly, refused
from sojourn.testing.laws.law import law
from sojourn.testing.laws.lifecycle import FINISH, end


@law()
async def a_child_needs_a_parent_that_lives(corner: Corner) -> None:
    """Missing: `NotFound`. Expired, ending or over: refused as well; nothing is created."""
    await refused(corner.create("a", parent="ghost"), NotFound, "a child of nobody")
    await corner.create("expired", idle=10)
    call = corner.create("b", parent="expired", now=10)
    await refused(call, NotFound, "a child of an expired session")
    await corner.create("ending")
    await corner.commit("ending", move=end())
    await refused(corner.create("c", parent="ending"), Ended, "a child of an ending session")
    await corner.commit("ending", move=FINISH)
    await refused(corner.create("d", parent="ending"), Ended, "a child of an ended session")
    other = corner.beside(f"{corner.app}2")
    await corner.create()
    await refused(other.create("e", parent=ONE), NotFound, "a child of another app's session")
    for id in "abcd":
        equal(await corner.get(id), None, f"the child {id!r} that was refused")
    await corner.create("child", parent=ONE)
    equal((await corner.read("child")).header.parent, ONE, "the parent of the child")


@law(behaviours=(120,))
async def a_child_has_its_own_phase(corner: Corner) -> None:
    """What becomes of a child, its end included, leaves its parent and its siblings alone."""
    await corner.create(lifecycle="agent")
    for id in ("left", "right"):
        await corner.create(id, parent=ONE, lifecycle="agent")
    await corner.commit("left", move=Move(trigger=Trigger.TERMINATE, reason="it failed"))
    phases = {id: (await corner.read(id)).header.phase for id in (ONE, "left", "right")}
    expected = {ONE: Phase.CREATED, "left": Phase.TERMINATING, "right": Phase.CREATED}
    equal(phases, expected, "the phases after the end of one child")
    equal((await corner.read()).header.revision, 1, "the parent's revision")
    await corner.delete("left")
    equal(await corner.ids(), ["right", ONE], "the sessions after the deletion of one child")
    await corner.commit()


@law(behaviours=(120,))
async def deleting_a_parent_deletes_all_below_it(corner: Corner) -> None:
    """Children, their children, and all that each of them owns, in one step."""
    await corner.create()
    await corner.create("sibling")
    parent, family = ONE, []
    for n in range(4):
        for side in ("left", "right"):
            family.append(f"{side}{n}")
            await corner.create(f"{side}{n}", parent=parent, user=f"u{n}", events=drafts(2))
            await corner.commit(f"{side}{n}", documents=(put("doc"),), labels={"in": "family"})
        parent = f"left{n}"
    equal(await corner.ids(parent=ONE), ["right0", "left0"], "the children in the list")
    equal(await corner.delete(), True, "the deletion")
    for id in family:
        equal(await corner.get(id, expired=True), None, f"{id} after the deletion")
    equal(await corner.ids(), ["sibling"], "the sessions left")
    equal(await corner.count(), 1, "the count left")
    equal(await corner.count(labels={"in": "family"}), 0, "the count of the label left")
    await corner.create("left0")
    equal(await corner.seqs("left0"), [], "the log of a new session with a child's id")
    equal(await corner.keys("left0"), [], "the documents of a new session with a child's id")
    equal(await corner.ids(parent=ONE), [], "the children of the parent that is gone")


@law()
async def a_new_parent_of_the_same_id_has_no_old_children(corner: Corner) -> None:
    """Children belong to an incarnation: what was deleted hands nothing on."""
    await corner.create()
    await corner.create("child", parent=ONE)
    await corner.delete()
    await corner.create()
    equal(await corner.ids(parent=ONE), [], "the children of the new session")
    equal(await corner.count(parent=ONE), 0, "their count")
    await corner.create("child")
    await corner.delete()
    exactly(await corner.state("child"), {}, "a session that is nobody's child, afterwards")


@law()
async def a_deleted_child_is_its_parents_no_more(corner: Corner) -> None:
    """The parent goes on without it, and is deleted without whoever has its id by then."""
    await corner.create()
    for id in ("gone", "stays"):
        await corner.create(id, parent=ONE)
    await corner.delete("gone")
    equal(await corner.ids(parent=ONE), ["stays"], "the children after the deletion of one")
    equal(await corner.count(parent=ONE), 1, "their count")
    await corner.create("gone", state={"n": 1})
    equal(await corner.ids(parent=ONE), ["stays"], "the children once its id is used again")
    equal(await corner.delete(), True, "the deletion of the parent")
    equal(await corner.ids(), ["gone"], "the sessions left")
    exactly(await corner.state("gone"), {"n": 1}, "the state of the one that is nobody's child")

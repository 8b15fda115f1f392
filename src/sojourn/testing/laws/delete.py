"""Laws of deleting: all that a session owns goes, in one step, and nothing else does."""

from __future__ import annotations

from typing import Any

from sojourn.store import SupportsLease
from sojourn.testing.laws.corner import ONE, Corner, drafts, put
from sojourn.testing.laws.expect import equal, exactly
from sojourn.testing.laws.law import law


@law(behaviours=(18, 117))
async def deleting_what_is_not_there_is_false(corner: Corner) -> None:
    """An unknown id, and the same one a second time: `False`, no error."""
    equal(await corner.delete("ghost"), False, "deleting an unknown id")
    await corner.create()
    equal(await corner.delete(), True, "the first deletion")
    equal(await corner.delete(), False, "the second deletion")


@law(behaviours=(19, 60))
async def deleting_removes_all_that_the_session_owned(corner: Corner) -> None:
    """State, log, documents, labels and counts; a new session of that id starts from nothing."""
    await corner.create(
        user="u",
        state={"n": 1},
        user_state={"n": 1},
        app_state={"n": 1},
        events=drafts(3),
        labels={"a": "b"},
    )
    await corner.commit(documents=(put("doc"), put("other", collection="more")))
    equal(await corner.delete(), True, "the deletion")
    equal(await corner.get(expired=True), None, "get afterwards")
    equal(await corner.keys(), [], "documents afterwards")
    equal([await corner.ids(), await corner.count()], [[], 0], "list and count afterwards")
    equal(await corner.count(labels={"a": "b"}), 0, "the count of its label afterwards")
    equal(await corner.count(user="u"), 0, "the count of its user afterwards")
    exactly(await corner.user_state("u"), {"n": 1}, "the user's tier, which stays")
    exactly(await corner.app_state(), {"n": 1}, "the app's tier, which stays")
    equal((await corner.create()).revision, 1, "the revision of a new one")
    equal(await corner.seqs(), [], "the log of a new one")
    equal(await corner.append(*drafts(1, start=9)), (1,), "the number of its first event")
    exactly(await corner.state(), {}, "the state of a new one")
    equal(await corner.keys(), [], "the documents of a new one")
    equal(await corner.keys(collection="more"), [], "its documents of another collection")
    equal((await corner.read()).header.labels, {}, "the labels of a new one")


@law()
async def deleting_leaves_the_others_alone(corner: Corner) -> None:
    """Neighbours by id, by user, by label keep everything."""
    for id in ("a", "b", "c"):
        await corner.create(id, user="u", state={"id": id}, events=drafts(2), labels={"l": "x"})
        await corner.commit(id, documents=(put("doc", id.encode()),))
    before = await corner.snapshot("a", "c", users=("u",))
    await corner.delete("b")
    equal(await corner.snapshot("a", "c", users=("u",)), before, "the neighbours")
    equal(await corner.ids(user="u", order="created"), ["a", "c"], "the user's sessions")
    equal(await corner.count(labels={"l": "x"}), 2, "the count of the label")


@law(behaviours=(17,))
async def a_delete_with_expectations_needs_all_of_them(corner: Corner) -> None:
    """Another epoch, revision or fence: `False`, and the session stays as it was."""
    epoch = (await corner.create(events=drafts(1))).header.epoch
    await corner.commit(state={"n": 1})
    before = await corner.snapshot(ONE)
    expectations: tuple[dict[str, Any], ...] = (
        {"epoch": "another"},
        {"revision": 1},
        {"revision": 3},
        {"fence": 7},
        {"epoch": epoch, "revision": 1},
        {"epoch": "another", "revision": 2},
        {"epoch": epoch, "revision": 2, "fence": 7},
    )
    for expected in expectations:
        equal(await corner.delete(**expected), False, f"deleting with {expected}")
        equal(await corner.snapshot(ONE), before, f"everything after deleting with {expected}")
    equal(await corner.delete(epoch=epoch, revision=2), True, "deleting with what is so")
    equal(await corner.get(), None, "the session in the end")


@law()
async def forgetting_a_user_removes_everything_of_theirs(corner: Corner) -> None:
    """All their sessions with all they own, expired ones too, and their tier; nobody else's."""
    await corner.create("a", user="u", user_state={"n": 1}, app_state={"n": 1}, events=drafts(2))
    await corner.create("b", user="u", idle=10)
    await corner.create("c", user="v", user_state={"n": 2}, events=drafts(2))
    await corner.create("d")
    await corner.create("child", user="v", parent="a")
    await corner.touch("b", now=5)
    others = await corner.snapshot("c", "d", users=("v",))
    equal(await corner.store.forget(corner.app, "u"), 2, "sessions forgotten")
    for id in ("a", "b", "child"):
        equal(await corner.get(id, expired=True), None, f"{id!r} afterwards")
    exactly(await corner.user_state("u"), {}, "the user's tier afterwards")
    equal(await corner.snapshot("c", "d", users=("v",)), others, "what is not theirs")
    equal(await corner.ids(order="created"), ["c", "d"], "the sessions left")
    equal(await corner.store.forget(corner.app, "u"), 0, "sessions forgotten, the second time")
    equal(await corner.store.forget(corner.app, "nobody"), 0, "sessions of an unknown user")
    await corner.create("a", user="u")
    equal(await corner.seqs("a"), [], "the log of a new session of the same id and user")


@law()
async def forgetting_is_for_one_app(corner: Corner) -> None:
    """The user of the same name in another app is another user."""
    other = corner.beside(f"{corner.app}2")
    for app in (corner, other):
        await app.create(user="u", user_state={"n": 1})
    await corner.store.forget(corner.app, "u")
    equal(await other.count(user="u"), 1, "sessions in the other app")
    exactly(await other.user_state("u"), {"n": 1}, "the tier in the other app")


@law(needs=SupportsLease)
async def a_delete_is_fenced(corner: Corner) -> None:
    """With the token of a lease that was superseded: `False`. With the newest: it goes."""
    await corner.create()
    old = await corner.acquire("a", until=10)
    new = await corner.acquire("b", now=10, until=20)
    equal(await corner.delete(fence=old), False, "deleting with the old token")
    equal((await corner.read()).header.revision, 1, "the session's revision")
    equal(await corner.delete(fence=new), True, "deleting with the new token")
    await corner.create()
    released = await corner.acquire("a")
    await corner.renew(released, "a", until=None)
    equal(await corner.delete(fence=released), False, "deleting with a token that was released")
    equal(await corner.delete(), True, "deleting without one")
    await corner.create()
    await corner.acquire("c")
    equal((await corner.read()).header.holder, "c", "the holder of the new session's lease")

"""Laws of transfer: what is taken out whole and put back is exactly what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sojourn.errors import AlreadyExists, Conflict, Corrupt, InvalidCursor, NotFound, RoleTaken
from sojourn.lifecycle import Phase, Trigger
from sojourn.model import Entry, StoredDocument
from sojourn.store import (
    Drop,
    Move,
    Restore,
    RestoreShared,
    Snapshot,
    SupportsLease,
    SupportsTransfer,
    Tier,
    Walk,
)
from sojourn.testing.laws.corner import ONE, Corner, decoded, delta, draft, drafts, instant, put
from sojourn.testing.laws.expect import Broken, equal, exactly, holds, refused
from sojourn.testing.laws.law import law

if TYPE_CHECKING:
    from sojourn.store import Dumped

LATER = 1_000.0
"""When parts of restores that were not followed up may go, in seconds."""


def moving(corner: Corner) -> SupportsTransfer:
    """Return the store as one whose sessions can be taken out and put back."""
    if not isinstance(corner.store, SupportsTransfer):
        raise Broken("this store does not support transfer")
    return corner.store


async def dumped(corner: Corner, *ids: str, now: float = 0, **walk: Any) -> Dumped:
    """Return a page of sessions: of these ids, or of all."""
    chosen = ids or None
    return await moving(corner).dump(Walk(app=corner.app, now=instant(now), ids=chosen, **walk))


async def taken(corner: Corner, id: str = ONE, *, now: float = 0) -> Snapshot:
    """Return a session as it is, of which one page is enough."""
    (snapshot,) = (await dumped(corner, id, now=now)).snapshots
    holds(snapshot.last, f"session {id!r} comes in one part")
    return snapshot


async def apps_of(corner: Corner) -> list[str]:
    """Return the apps whose names begin with this corner's; others may use the store as well."""
    found: list[str] = []
    while page := await moving(corner).apps(found[-1] if found else "", 1_000):
        found += page
    return [app for app in found if app.startswith(corner.app)]


async def restored(
    corner: Corner, snapshot: Snapshot, *, op: bytes | None = None, replace: bool = False
) -> Literal["restored", "unchanged", "partial"]:
    """Restore a session or a part of one."""
    return await moving(corner).restore(
        Restore(
            snapshot=snapshot,
            op=op or corner.op(),
            abandoned_at=instant(LATER),
            replace=replace,
        )
    )


def still(snapshot: Snapshot) -> Snapshot:
    """Return a session without what a restore does not put: its lease, its documents' numbers."""
    documents = tuple(msgspec.structs.replace(item, number=0) for item in snapshot.documents)
    header = msgspec.structs.replace(snapshot.header, holder=None, leased_until=0)
    return msgspec.structs.replace(snapshot, header=header, documents=documents)


async def a_rich_one(corner: Corner, id: str = ONE, **header: Any) -> None:
    """Create a session that has something of everything."""
    await corner.create(
        id,
        user="u",
        state={"n": 1, "deep": {"\x00": [-0.0, 2**70, None, ""]}},
        user_state={"shared": 1},
        app_state={"shared": 2},
        events=(*drafts(3), draft("e2", "another", author="a", at=-5)),
        labels={"color": "blue", "who": id},
        idle=100,
        absolute=1000,
        **header,
    )
    await corner.commit(id, documents=(put("b", b"1"), put("a", b"2"), put("c", b"", expires=50)))
    await corner.commit(id, truncate_after=2, documents=(put("x", b"\xff", collection="other"),))
    await corner.commit(
        id, events=(draft("f", {"x": 1}, changes={"n": 2}, deleted=["gone"]),), state={"n": 2}
    )


@law(needs=SupportsTransfer)
async def a_dump_is_all_of_a_session(corner: Corner) -> None:
    """The header as it is, its own state, the log with its gaps, documents with their bodies."""
    await a_rich_one(corner)
    snapshot = await taken(corner)
    equal(snapshot.header, (await corner.read()).header, "the header")
    exactly(decoded(snapshot.state), await corner.state(), "the state")
    equal(list(snapshot.entries), await corner.log(), "the log")
    equal([entry.seq for entry in snapshot.entries], [1, 2, 5], "the numbers of the log")
    names = [(item.collection, item.key, item.body) for item in snapshot.documents]
    there = [("notes", "b", b"1"), ("notes", "a", b"2"), ("notes", "c", b"")]
    equal(names, [*there, ("other", "x", b"\xff")], "the documents, in their places")
    late = [item.key for item in (await taken(corner, now=50)).documents]
    equal(late, ["b", "a", "x"], "the documents once one is past its deadline")


@law(needs=SupportsTransfer)
async def what_is_restored_is_what_was_dumped(corner: Corner) -> None:
    """Every field, every value; lists, counts and filters find it again."""
    await a_rich_one(corner)
    await corner.touch(now=7)
    before = await taken(corner)
    seen = await corner.snapshot(ONE)
    await corner.delete()
    equal(await restored(corner, before), "restored", "what the restore says")
    equal(still(await taken(corner)), still(before), "the session, dumped again")
    again = await corner.snapshot(ONE)
    equal(_unnumbered(again), _unnumbered(seen), "the session, read")
    equal(await corner.ids(user="u"), [ONE], "the user's sessions")
    equal(await corner.ids(labels={"color": "blue"}), [ONE], "those with its label")
    counts = [await corner.count(), await corner.count(user="u")]
    equal([*counts, await corner.count(labels={"who": ONE})], [1, 1, 1], "the counts")
    equal(await corner.seqs(kinds=("note",)), [1, 2, 5], "its log by kind")
    equal(await corner.seqs(since=instant(2)), [2], "its log by time")


def _unnumbered(seen: dict[str, Any]) -> dict[str, Any]:
    header, state, entries, documents = seen[ONE]
    documents = [msgspec.structs.replace(document, number=0) for document in documents]
    return {**seen, ONE: (header, state, entries, documents)}


@law(needs=SupportsTransfer)
async def a_restored_session_goes_on(corner: Corner) -> None:
    """Numbers, revisions and known operations continue; its deadline ends it."""
    await a_rich_one(corner)
    op = corner.op()
    committed = await corner.commit(op=op, state={"last": 1}, events=(draft("z"),))
    snapshot = await taken(corner)
    await corner.delete()
    await restored(corner, snapshot)
    again = await corner.commit(op=op, state={"last": 2}, events=(draft("z"),))
    equal((again.repeated, again.seqs), (True, committed.seqs), "a commit that is sent again")
    revision = snapshot.header.revision
    after = await corner.commit(revision=revision, events=(draft("new"),), now=1)
    equal((after.revision, after.seqs), (revision + 1, (7,)), "the next revision and number")
    equal(await corner.append(draft("new")), (7,), "the number of that event, sent again")
    equal(await corner.get(now=101), None, "the session past its deadline")
    equal(await corner.reap(now=101), [ONE], "what is swept then")


@law(needs=SupportsTransfer)
async def sessions_that_are_over_are_dumped_and_restored_as_such(corner: Corner) -> None:
    """Expired, ending and ended ones: as missing, due and readable as they were."""
    await corner.create("expired", idle=10, state={"n": 1})
    await corner.create("ending", state={"n": 2})
    await corner.commit("ending", move=Move(trigger=Trigger.END, due_at=instant(500)))
    await corner.create("ended", labels={"a": "b"}, exclusive=("a",))
    await corner.commit("ended", move=Move(trigger=Trigger.END, retain=900_000_000))
    await corner.commit("ended", move=Move(trigger=Trigger.FINISH), now=5)
    found = (await dumped(corner, now=20)).snapshots
    equal([item.header.id for item in found], ["expired", "ending", "ended"], "what is dumped")
    due = await corner.due(now=600)
    for item in found:
        await corner.delete(item.header.id)
        await restored(corner, item)
    equal(list(map(still, (await dumped(corner)).snapshots)), list(map(still, found)), "all again")
    equal(await corner.get("expired", now=20), None, "the expired one to a reader")
    equal((await corner.read("ended", now=20)).header.phase, Phase.ENDED, "the ended one's phase")
    equal(await corner.due(now=600), due, "what is due")
    await corner.create("heir", labels={"a": "b"}, exclusive=("a",))


@law(needs=SupportsTransfer)
async def sessions_are_dumped_as_they_were_created(corner: Corner) -> None:
    """Each once, in steady order, by pages; what is created meanwhile comes at the end."""
    names = ["z", "y", "Ä", "b", "a"]
    for name in names:
        await corner.create(name)
    first = await dumped(corner, limit=2)
    await corner.commit("z", state={"n": 1}, now=9)
    await corner.delete("y")
    await corner.create("0")
    seen = [item.header.id for item in first.snapshots]
    position = first.position
    while position is not None:
        page = await dumped(corner, limit=2, position=position)
        seen += [item.header.id for item in page.snapshots]
        position = page.position
    equal(seen, [*names, "0"], "the sessions over all pages")
    walk = Walk(app=corner.app, now=instant(0), limit=3)
    some = await moving(corner).headers(walk)
    equal([header.id for header in some.headers], ["z", "Ä", "b"], "a page of headers")
    holds(some.position is not None, "a page of headers has a position when more follow")
    walk = msgspec.structs.replace(walk, position=some.position)
    some = await moving(corner).headers(walk)
    equal([header.id for header in some.headers], ["a", "0"], "the rest of the headers")
    await refused(dumped(corner, position="here"), InvalidCursor, "a position that is none")


@law(needs=SupportsTransfer)
async def chosen_sessions_are_dumped_in_the_order_asked_for(corner: Corner) -> None:
    """Those that exist, by pages as well; others are left out."""
    for name in ("a", "b", "c"):
        await corner.create(name)
    found = await dumped(corner, "c", "ghost", "a", "b")
    equal([item.header.id for item in found.snapshots], ["c", "a", "b"], "the chosen ones")
    ids = ("c", "ghost", "a", "b")
    seen: list[str] = []
    position: str | None = None
    while True:
        walk = Walk(app=corner.app, now=instant(0), ids=ids, limit=1, position=position)
        headers = await moving(corner).headers(walk)
        seen += [header.id for header in headers.headers]
        if headers.position is None:
            break
        position = headers.position
    equal(seen, ["c", "a", "b"], "their headers, one at a time")


@law(needs=SupportsTransfer)
async def every_app_with_anything_is_named(corner: Corner) -> None:
    """Ascending, each once: one with sessions, with a tier, or with a document."""
    apps = [f"{corner.app} {name}" for name in ("a", "b", "c", "d")]
    await corner.beside(apps[0]).create()
    await corner.beside(apps[0]).create("two", app_state={"n": 1})
    await corner.beside(apps[1]).commit(None, app_state={"n": 1})
    await corner.beside(apps[2]).commit(None, user="u", user_state={"n": 1})
    await corner.beside(apps[3]).commit(None, documents=(put("doc"),))
    equal(await apps_of(corner), apps, "the apps")
    equal(list(await moving(corner).apps(apps[0], 2)), apps[1:3], "a page of them")
    holds(apps[3] not in await moving(corner).apps(apps[3], 2), "those behind the last are others")


@law(needs=SupportsTransfer)
async def what_sessions_share_is_dumped_and_restored(corner: Corner) -> None:
    """The app's tier, each user's, and the app's documents with all that belongs to them."""
    await corner.commit(None, app_state={"theme": "dark", "n": 2**70})
    for user in ("u", "U", "app"):
        await corner.commit(None, user=user, user_state={"name": user})
    await corner.commit(None, documents=(put("b", b"\x00"), put("a"), put("old", expires=5)), now=1)
    await corner.commit(None, documents=(put("b", b"\x01"), put("z", collection="aside")), now=2)
    items = (await moving(corner).shared(corner.app, instant(5), None)).items
    tiers = {item.user: decoded(item.state) for item in items if isinstance(item, Tier)}
    exactly(tiers.pop(None), {"theme": "dark", "n": 2**70}, "the app's tier")
    equal(tiers, {user: {"name": user} for user in ("u", "U", "app")}, "the users' tiers")
    other = corner.beside(f"{corner.app} elsewhere")
    await moving(other).restore_shared(RestoreShared(app=other.app, items=tuple(items)))
    again = (await moving(other).shared(other.app, instant(5), None)).items
    equal(list(map(_placeless, again)), list(map(_placeless, items)), "what was restored")
    equal([await other.body("b", None), await other.keys(None)], [b"\x01", ["a", "b"]], "documents")
    exactly(await other.user_state("U"), {"name": "U"}, "a tier, read")


def _placeless(item: Tier | StoredDocument) -> object:
    if isinstance(item, Tier):
        return item.user, decoded(item.state)
    return msgspec.structs.replace(item, number=0)


@law(needs=SupportsTransfer)
async def shared_things_that_are_there_stay_unless_replaced(corner: Corner) -> None:
    """Missing keys and documents are added; `replace` makes each what is given, keys gone too."""
    await corner.commit(None, user="u", user_state={"a": "here", "b": "here"})
    await corner.commit(None, documents=(put("doc", b"here"),), now=3)
    document = StoredDocument(
        collection="notes",
        key="doc",
        content_type="text/html",
        size=5,
        seq=0,
        created_at=instant(1),
        updated_at=instant(2),
        body=b"there",
    )
    change = delta({"b": "there", "c": "there"})
    assert change is not None, "it sets keys"
    items = (Tier(user="u", state=change.set), document)
    await moving(corner).restore_shared(RestoreShared(app=corner.app, items=items))
    exactly(await corner.user_state("u"), {"a": "here", "b": "here", "c": "there"}, "the tier")
    equal(await corner.body("doc", None), b"here", "the document")
    replacing = RestoreShared(app=corner.app, items=items, replace=True)
    await moving(corner).restore_shared(replacing)
    exactly(await corner.user_state("u"), {"b": "there", "c": "there"}, "the tier, replaced")
    found = await corner.document("doc", None)
    assert found is not None, "it was there before"
    equal(_placeless(found), document, "the document, replaced")
    gone = RestoreShared(app=corner.app, items=(Tier(user="u", state={}),), replace=True)
    await moving(corner).restore_shared(gone)
    exactly(await corner.user_state("u"), {}, "a tier replaced by none")


@law(needs=SupportsTransfer)
async def a_restore_sent_again_changes_nothing(corner: Corner) -> None:
    """The same epoch and revision: unchanged, whoever asks and how often."""
    await a_rich_one(corner)
    snapshot = await taken(corner)
    for replace in (False, True):
        again = await restored(corner, snapshot, replace=replace)
        equal(again, "unchanged", f"a restore of what is there, replace={replace}")
    equal(await taken(corner), snapshot, "the session afterwards")
    await corner.commit(revision=snapshot.header.revision, state={"goes": "on"})


@law(needs=SupportsTransfer)
async def activity_and_deadline_catch_up_and_never_go_back(corner: Corner) -> None:
    """They move without a revision; the later of here and there counts."""
    await corner.create(idle=10, labels={"a": "b"})
    early = await taken(corner)
    await corner.touch(now=8)
    late = await taken(corner)
    await restored(corner, early)
    equal(await taken(corner), late, "after an earlier state of it")
    await corner.delete()
    await restored(corner, early)
    equal(await restored(corner, late), "unchanged", "what a later state of it leads to")
    equal(await taken(corner), late, "after a later state of it")
    holds(await corner.get(now=17) is not None, "it lives until its later deadline")
    equal(await corner.ids(labels={"a": "b"}, order="-active"), [ONE], "its label, by activity")
    equal(await corner.reap(now=17), [], "what is swept before")


@law(needs=SupportsTransfer)
async def an_older_revision_is_replaced_when_asked(corner: Corner) -> None:
    """Else `AlreadyExists`. What it owned goes, its children and its place in lists stay."""
    await corner.create(labels={"a": "1"}, exclusive=("a",), lifecycle="agent", events=drafts(2))
    await corner.create("second")
    await corner.create("child", parent=ONE)
    await corner.commit(documents=(put("kept", b"old"), put("gone")), state={"old": 1})
    old = await taken(corner)
    await corner.commit(documents=(put("kept", b"new"), Drop(collection="notes", key="gone")))
    move = Move(trigger=Trigger.SPAWN)
    await corner.commit(truncate_after=1, move=move, labels={"b": "2"}, user="u", now=5)
    await corner.commit(clear=True, state={"new": 1}, events=(draft("n"),), now=6)
    new = await taken(corner)
    await back_to(corner, old)
    await refused(restored(corner, new), AlreadyExists, "an older one, not to be replaced")
    equal(still(await taken(corner)), still(old), "the session after the refusal")
    equal(await restored(corner, new, replace=True), "restored", "what replacing says")
    equal(still(await taken(corner)), still(new), "the session, replaced")
    equal(await corner.seqs(), [1, 3], "its log")
    equal([await corner.ids(user="u"), await corner.count(user="u")], [[ONE], 1], "by user")
    equal(await corner.count(anonymous=True), 2, "the others")
    equal(await corner.ids(labels={"b": "2"}), [ONE], "by its new label")
    equal(await corner.ids(order="created"), [ONE, "second", "child"], "the order of creation")
    taken_role = corner.create("rival", labels={"a": "1"}, exclusive=("a",))
    await refused(taken_role, RoleTaken, "a rival for its role")
    await corner.delete()
    equal(await corner.ids(), ["second"], "what is left when it goes")


async def back_to(corner: Corner, old: Snapshot) -> None:
    """Have an older revision of `ONE` be there, first of all sessions, with its child."""
    others = [await taken(corner, name) for name in ("second", "child")]
    for name in ("second", ONE):
        await corner.delete(name)
    await restored(corner, old)
    for other in others:
        await restored(corner, other)


@law(needs=SupportsTransfer)
async def a_session_that_moved_on_here_is_not_set_back(corner: Corner) -> None:
    """A later revision, or the same one by another commit: `Conflict`, and nothing changes."""
    await corner.create(state={"n": 1})
    first = await taken(corner)
    await corner.commit(state={"by": "them"})
    theirs = await taken(corner)
    for replace in (False, True):
        error = await refused(
            restored(corner, first, replace=replace), Conflict, f"an older one, replace={replace}"
        )
        epoch = first.header.epoch
        equal((error.expected, error.actual), ((epoch, 1), (epoch, 2)), "what the error says")
    await corner.delete()
    await restored(corner, first)
    await corner.commit(state={"by": "us"})
    ours = await taken(corner)
    await refused(restored(corner, theirs, replace=True), Conflict, "another second revision")
    longer = msgspec.structs.replace(theirs.header, revision=3)
    parted = msgspec.structs.replace(theirs, header=longer)
    await refused(restored(corner, parted, replace=True), Conflict, "a third that does not know it")
    equal(await taken(corner), ours, "the session in the end")


@law(needs=SupportsTransfer)
async def another_incarnation_is_not_replaced(corner: Corner) -> None:
    """An id that was deleted and given again: `AlreadyExists`, and nothing changes."""
    await corner.create(state={"n": 1})
    old = await taken(corner)
    await corner.delete()
    await corner.create(state={"n": 2})
    new = await taken(corner)
    for replace in (False, True):
        again = restored(corner, old, replace=replace)
        await refused(again, AlreadyExists, f"another incarnation, replace={replace}")
    equal(await taken(corner), new, "the session that is there")


@law(needs=SupportsTransfer)
async def a_child_is_restored_under_its_parent(corner: Corner) -> None:
    """Without it: `NotFound`. Under it, it goes when the parent does."""
    await corner.create("z-parent")
    await corner.create("a-child", parent="z-parent")
    await corner.commit("z-parent", move=Move(trigger=Trigger.END))
    parent, child = (await dumped(corner)).snapshots
    equal(child.header.parent, "z-parent", "the second session that is dumped")
    await corner.delete("z-parent")
    await refused(restored(corner, child), NotFound, "a child without its parent")
    equal(await corner.count(), 0, "the sessions after the refusal")
    await restored(corner, parent)
    await restored(corner, child)
    equal(await corner.ids(parent="z-parent"), ["a-child"], "the children")
    await corner.delete("z-parent")
    equal(await corner.count(), 0, "the sessions once the parent is deleted")


@law(needs=SupportsTransfer)
async def a_role_that_is_taken_is_not_restored(corner: Corner) -> None:
    """`RoleTaken`, naming the holder; restored, it holds the role again."""
    await corner.create(labels={"role": "writer"}, exclusive=("role",))
    snapshot = await taken(corner)
    await corner.delete()
    await corner.create("rival", labels={"role": "writer"}, exclusive=("role",))
    error = await refused(restored(corner, snapshot), RoleTaken, "a role that is taken")
    equal(error.holder, "rival", "the holder in the error")
    equal(await corner.get(), None, "the session that was refused")
    await corner.delete("rival")
    await restored(corner, snapshot)
    rival = corner.create("rival", labels={"role": "writer"}, exclusive=("role",))
    await refused(rival, RoleTaken, "a rival of the restored session")


@law(needs=SupportsTransfer)
async def an_ended_session_takes_no_role_from_its_holder(corner: Corner) -> None:
    """It gave the role up when it ended; restored, it claims nothing."""
    await corner.create("old", labels={"role": "writer"}, exclusive=("role",))
    await corner.commit("old", move=Move(trigger=Trigger.END, retain=10**9))
    await corner.commit("old", move=Move(trigger=Trigger.FINISH))
    old = await taken(corner, "old")
    await corner.delete("old")
    await corner.create("heir", labels={"role": "writer"}, exclusive=("role",))
    await restored(corner, old)
    await corner.delete("old")
    rival = corner.create("rival", labels={"role": "writer"}, exclusive=("role",))
    await refused(rival, RoleTaken, "a rival of the heir")


@law(needs=SupportsTransfer)
async def a_lease_stays_behind_and_its_fence_never_falls(corner: Corner) -> None:
    """Nobody holds the restored session; tokens go on above those that were granted."""
    if not isinstance(corner.store, SupportsLease):
        return
    await corner.create()
    old = await taken(corner)
    token = await corner.acquire("a", until=1000)
    leased = await taken(corner)
    equal(leased.header.fence, token, "the fence that is dumped")
    await restored(corner, old)
    await corner.renew(token, "a", now=1, until=1000)
    await corner.delete()
    await restored(corner, old)
    await restored(corner, leased)
    header = (await corner.read()).header
    equal((header.fence, header.holder), (token, None), "fence and holder, caught up")
    await corner.commit(state={"n": 1})
    newer = await taken(corner)
    for first in (leased, newer):
        await corner.delete()
        await restored(corner, first)
        next_token = await corner.acquire("b", now=1, until=1000)
        holds(next_token > token, f"the next token {next_token} is above {token}")
    await corner.delete()
    await restored(corner, leased)
    token = await corner.acquire("c", now=1, until=1000)
    await restored(corner, newer, replace=True)
    header = (await corner.read()).header
    equal((header.fence, header.holder), (token, None), "fence and holder, replaced")


@law(needs=SupportsTransfer)
async def what_no_session_can_have_is_refused(corner: Corner) -> None:
    """Numbers out of order or out of range, bodies of another size: `Corrupt`, nothing is put."""
    await a_rich_one(corner)
    good = await taken(corner)
    await corner.delete()
    header, entries, replace = good.header, good.entries, msgspec.structs.replace
    wrong: dict[str, dict[str, Any]] = {
        "a log out of order": {"entries": (entries[1], entries[0])},
        "an event twice": {"entries": (entries[0], entries[0])},
        "an event above the last": {"header": replace(header, seq=3)},
        "a number that is too large": {"header": replace(header, seq=1 << 40)},
        "a revision that is too large": {"header": replace(header, revision=1 << 63)},
        "a claim without its label": {"header": replace(header, exclusive=("no",))},
        "a body of another size": {"documents": (replace(good.documents[0], size=9),)},
    }
    for what, fields in wrong.items():
        bad = msgspec.structs.replace(good, **fields)
        await refused(restored(corner, bad), Corrupt, what)
    equal([await corner.count(), await corner.get(expired=True)], [0, None], "what was put")


@law(needs=SupportsTransfer)
async def entries_are_restored_as_entries(corner: Corner) -> None:
    """Texts as they are, ids that come twice, times that go back."""
    entries = (
        Entry(2, "same", "k", None, instant(5), '{ "spaced" :1 }', '{"a":1}', None),
        Entry(3, "same", "k", "x", instant(-9), "null", None, '["b"]'),
        Entry(9, "other", "l", "", 0, '"\\u00e9é"'),
    )
    header = corner.header(seq=12, revision=40)
    await restored(corner, Snapshot(header=header, entries=entries))
    equal(await corner.log(), list(entries), "the log")
    equal(await corner.append(draft("new")), (13,), "the number of the next event")

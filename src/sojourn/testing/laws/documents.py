"""Laws of documents: named bytes that belong to a session or an app, exactly as they were put."""

from __future__ import annotations

from sojourn.errors import Conflict
from sojourn.store import Drop
from sojourn.testing.laws.corner import Corner, draft, drafts, instant, put
from sojourn.testing.laws.expect import equal, holds, refused
from sojourn.testing.laws.law import law


@law(behaviours=(60, 104))
async def a_document_comes_back_as_it_was_put(corner: Corner) -> None:
    """Every byte, and what is known of it: type, size, times, and where the log stood."""
    bodies = {"empty": b"", "all": bytes(range(256)), "big": b"\x00\xff" * 500_000}
    await corner.create(events=drafts(3))
    await corner.commit(documents=tuple(put(k, b) for k, b in bodies.items()), now=5)
    for key, body in bodies.items():
        found = await corner.document(key, now=6)
        if found is None:
            equal(found, "a document", f"the document {key!r}")
            continue
        equal(found.body, body, f"the body of {key!r}")
        facts = (found.collection, found.key, found.content_type, found.size, found.seq)
        equal(facts, ("notes", key, "text/plain", len(body), 3), f"the facts of {key!r}")
        times = (found.created_at, found.updated_at, found.expires_at)
        equal(times, (instant(5), instant(5), None), f"the times of {key!r}")


@law()
async def an_unknown_document_is_none(corner: Corner) -> None:
    """Unknown key, collection or session: `None`, and an empty listing."""
    await corner.create()
    await corner.commit(documents=(put("key"),))
    equal(await corner.document("other"), None, "an unknown key")
    equal(await corner.document("key", collection="other"), None, "an unknown collection")
    equal(await corner.document("key", "ghost"), None, "an unknown session")
    equal(await corner.document("key", None), None, "the app, which has no such document")
    equal(await corner.keys(collection="other"), [], "the keys of an unknown collection")
    equal(await corner.keys("ghost"), [], "the keys of an unknown session")


@law(behaviours=(61, 104))
async def putting_again_replaces_all_but_the_time_of_creation(corner: Corner) -> None:
    """Body, type, size, deadline, place in the log and `updated_at` are those of the last put."""
    await corner.create()
    await corner.commit(documents=(put("key", b"first", expires=50),), now=1)
    await corner.commit(documents=(put("key", b"second!"),), events=(draft("a"),), now=2)
    found = await corner.document("key", now=99)
    seen = found and (found.body, found.size, found.seq, found.expires_at)
    equal(seen, (b"second!", 7, 1, None), "body, size, place and deadline")
    times = found and (found.created_at, found.updated_at)
    equal(times, (instant(1), instant(2)), "the times of creation and update")


@law()
async def documents_are_put_and_dropped_in_order(corner: Corner) -> None:
    """Within one commit too; dropping a key, a collection, or what is not there is fine."""
    await corner.create()
    await corner.commit(
        documents=(
            put("a", b"1"),
            Drop(collection="notes", key="a"),
            put("a", b"2"),
            put("b", b"1"),
            put("c", b"1", collection="other"),
            Drop(collection="never"),
            Drop(collection="never", key="a"),
            put("b", b"2"),
        )
    )
    equal([await corner.body("a"), await corner.body("b")], [b"2", b"2"], "the bodies")
    await corner.commit(documents=(Drop(collection="notes"), put("d", b"1")))
    equal(await corner.keys(), ["d"], "the collection, dropped and begun again")
    equal(await corner.keys(collection="other"), ["c"], "the other collection")
    await corner.commit(documents=(Drop(collection="notes", key="d"),))
    equal(await corner.keys(), [], "the collection once its last key is dropped")


@law(behaviours=(62,))
async def listings_are_by_key_without_bodies_and_bounded(corner: Corner) -> None:
    """Ascending by code point, after a key if one is given, at most `limit`, no bodies."""
    keys = ["", "0", "A", "B", "a", "a b", "a/b", "aa", "b", "\u00e9", "\uffee", "\U0001f600"][1:]
    await corner.create()
    await corner.commit(documents=tuple(put(key, key.encode()) for key in reversed(keys)))
    equal(await corner.keys(), keys, "all keys")
    equal(await corner.keys(limit=3), keys[:3], "the first three")
    equal(await corner.keys(after="a", limit=2), ["a b", "a/b"], "two after 'a'")
    equal(await corner.keys(after="a!"), keys[keys.index("a/b") :], "those after a key not there")
    equal(await corner.keys(after=keys[-1]), [], "those after the last")
    for found in await corner.store.documents(corner.documents_of()):
        equal((found.body, found.size), (None, len(found.key.encode())), "body and size, listed")


@law()
async def a_document_is_missing_at_its_own_deadline(corner: Corner) -> None:
    """At it, not only past it, in reads and listings; the session and other documents stay."""
    await corner.create()
    await corner.commit(documents=(put("short", expires=10), put("long", expires=20), put("ever")))
    equal(await corner.keys(now=10 - 1e-6), ["ever", "long", "short"], "just before the deadline")
    equal(await corner.body("short", now=10 - 1e-6), b"body", "the short one just before")
    equal(await corner.body("short", now=10), None, "the short one at its deadline")
    equal(await corner.keys(now=10), ["ever", "long"], "the keys at the first deadline")
    equal(await corner.keys(now=10, limit=1), ["ever"], "one key at the first deadline")
    equal(await corner.keys(now=99), ["ever"], "the keys past both deadlines")
    await corner.commit(documents=(put("short", b"new", expires=200),), now=99)
    again = await corner.document("short", now=100)
    holds(again is not None and again.body == b"new", "the short one is there, put again")
    assert again is not None
    equal(again.created_at, instant(99), "when the one that was put again began")


@law()
async def documents_of_the_app_belong_to_no_session(corner: Corner) -> None:
    """They outlive every session, and no session shows them."""
    await corner.create()
    await corner.commit(None, documents=(put("key", b"app"), put("more", expires=10)))
    await corner.commit(documents=(put("key", b"session"),))
    equal(await corner.body("key", None), b"app", "the app's document")
    equal(await corner.body("key"), b"session", "the session's document")
    found = await corner.document("key", None)
    equal(found and (found.seq, found.created_at), (0, instant(0)), "its place and time")
    await corner.delete()
    equal(await corner.keys(None), ["key", "more"], "the app's keys after the session's deletion")
    equal(await corner.keys(None, now=10), ["key"], "the app's keys at a deadline")
    equal(await corner.keys(None, collection="other"), [], "another collection of the app")
    await corner.commit(None, documents=(Drop(collection="notes", key="key"),))
    equal(await corner.keys(None), ["more"], "the app's keys after a drop")
    equal(await corner.beside(f"{corner.app}2").keys(None), [], "the keys of another app")


@law()
async def documents_come_with_the_commit_or_not_at_all(corner: Corner) -> None:
    """A refused commit puts and drops nothing."""
    await corner.create()
    await corner.commit(documents=(put("kept"),))
    bad = corner.commit(revision=1, documents=(Drop(collection="notes"), put("new")))
    await refused(bad, Conflict, "a commit that expects an old revision")
    equal(await corner.keys(), ["kept"], "the keys after the refusal")


@law()
async def documents_of_an_expired_session_are_for_its_end_only(corner: Corner) -> None:
    """`expired` reads what a session past its deadline still holds; nothing else does."""
    await corner.create(idle=10)
    await corner.commit(documents=(put("doc"),))
    equal(await corner.keys(now=10), [], "the keys at the session's deadline")
    equal(await corner.body("doc", now=10), None, "the document at the session's deadline")
    equal(await corner.keys(now=10, expired=True), ["doc"], "the keys, asked for")
    equal(await corner.body("doc", now=10, expired=True), b"body", "the document, asked for")


@law(behaviours=(104,))
async def documents_have_a_place_in_the_order_of_commits(corner: Corner) -> None:
    """The newest first, whatever the clock and the keys say; replacing one does not move it."""
    await corner.create()
    keys = ["m", "a", "z", "\U0001f600", "b"]
    for number, key in enumerate(keys):
        await corner.commit(documents=(put(key),), now=9 - number)
        await corner.commit(documents=(put(f"{number}", collection="other"),))
    equal(await corner.keys(newest=True), keys[::-1], "the keys, the newest first")
    await corner.commit(documents=(put("a", b"again"), put("y"), put("c")))
    newest = ["c", "y", *keys[::-1]]
    equal(await corner.keys(newest=True), newest, "the keys after one was replaced")
    await corner.commit(documents=(Drop(collection="notes", key="m"), put("m"), put("y")))
    newest = ["m", *(key for key in newest if key != "m")]
    equal(await corner.keys(newest=True), newest, "the keys after one was dropped and put again")
    found = await corner.store.documents(corner.documents_of(newest=True))
    numbers = [item.number for item in found]
    equal(numbers, sorted(set(numbers), reverse=True), "the numbers, each higher than the next")
    single = [(await corner.document(item.key)) for item in found]
    equal([item and item.number for item in single], numbers, "the numbers, read one by one")


@law(behaviours=(104,))
async def places_are_read_in_pages(corner: Corner) -> None:
    """At most `limit` below `before`; what is expired or dropped meanwhile leaves no gap."""
    await corner.create()
    for number in range(7):
        await corner.commit(documents=(put(f"k{number}", expires={3: 5}.get(number)),))
    await corner.commit(None, documents=(put("a"), put("b")))
    page = await corner.store.documents(corner.documents_of(newest=True, limit=3))
    equal([item.key for item in page], ["k6", "k5", "k4"], "the first page")
    last = page[-1].number
    await corner.commit(documents=(Drop(collection="notes", key="k4"), put("k7")))
    below = await corner.keys(newest=True, limit=2, before=last, now=5)
    equal(below, ["k2", "k1"], "the page below a document that is gone, past one's deadline")
    equal(
        await corner.keys(newest=True, before=last, now=4),
        ["k3", "k2", "k1", "k0"],
        "all below it, before that deadline",
    )
    equal(await corner.keys(newest=True, before=0), [], "what is below all numbers")
    equal(await corner.keys(None, newest=True), ["b", "a"], "the app's")
    equal(await corner.keys("ghost", newest=True), [], "those of an unknown session")


@law()
async def a_listing_shows_as_much_of_each_body_as_is_asked_for(corner: Corner) -> None:
    """The first `lead` bytes, fewer if the body is shorter, in either order."""
    await corner.create()
    await corner.commit(
        documents=(put("a", b""), put("b", b"\x00\xff\x01"), put("c", b"x" * 9_000))
    )
    for newest in (False, True):
        query = corner.documents_of(newest=newest, lead=2)
        found = {item.key: (item.body, item.size) for item in await corner.store.documents(query)}
        shown = {"a": (b"", 0), "b": (b"\x00\xff", 3), "c": (b"xx", 9_000)}
        equal(found, shown, f"the beginnings with newest={newest}")


@law(behaviours=(104,))
async def a_fork_keeps_the_places_of_documents(corner: Corner) -> None:
    """Those that it copies are in the same order, and what is put into it comes after them."""
    await corner.create(events=drafts(1))
    keys = ["m", "a", "z", "b"]
    for key in keys:
        await corner.commit(documents=(put(key), put(key, collection="another")))
    await corner.commit(documents=(put("late"),), events=(draft("e2"),))
    await corner.fork(at=1)
    equal(await corner.keys("fork", newest=True), keys[::-1], "the keys in the fork")
    await corner.commit("fork", documents=(put("c"), put("a")))
    equal(await corner.keys("fork", newest=True), ["c", *keys[::-1]], "the keys after a put")

"""Laws of creating: a session begins once, wholly, and only by this verb."""

from __future__ import annotations

import asyncio

from sojourn.errors import AlreadyExists, NotFound, Unbound
from sojourn.store import Committed, EventQuery
from sojourn.testing.laws.corner import ONE, START, Corner, decoded, draft, drafts
from sojourn.testing.laws.expect import Broken, equal, exactly, holds, refused
from sojourn.testing.laws.law import law


@law(behaviours=(8, 9, 60))
async def a_created_session_reads_back_whole(corner: Corner) -> None:
    """What `create` was given is what `get` returns: header, every tier, and the first events."""
    created = await corner.create(
        user="u",
        state={"cart": []},
        user_state={"theme": "dark"},
        app_state={"motd": "hi"},
        events=drafts(2),
        labels={"kind": "chat"},
        idle=60,
        absolute=600,
    )
    record = await corner.read(last=10)
    equal(record.header, created.header, "the header read back")
    given = corner.header(
        user="u", labels={"kind": "chat"}, idle=60, absolute=600, epoch=record.header.epoch
    )
    for field in ("app", "id", "user", "labels", "created_at", "active_at", "expires_at", "phase"):
        equal(getattr(record.header, field), getattr(given, field), f"the {field} read back")
    exactly(decoded(record.state), {"cart": []}, "the session's own state")
    exactly(decoded(record.user_state), {"theme": "dark"}, "the user's tier")
    exactly(decoded(record.app_state), {"motd": "hi"}, "the app's tier")
    equal([entry.id for entry in record.entries], ["e1", "e2"], "the first events")


@law()
async def a_new_session_has_revision_one_and_its_events_are_numbered_from_one(
    corner: Corner,
) -> None:
    """`create` leads to revision 1; its events have the numbers 1, 2, ... and `seq` is the last."""
    plain = await corner.create("plain")
    equal((plain.revision, plain.seqs, plain.header.seq), (1, (), 0), "a session without events")
    full = await corner.create("full", events=drafts(3))
    equal((full.revision, full.seqs, full.header.seq), (1, (1, 2, 3), 3), "one with three events")
    equal(full.repeated, False, "whether a first create says it is a repetition")


@law(behaviours=(15, 31))
async def a_session_that_was_never_created_reads_as_none(corner: Corner) -> None:
    """Reading what is not there gives `None` or nothing, never an error and never a new session."""
    equal(await corner.get("ghost"), None, "get of an unknown id")
    equal(await corner.get("ghost", expired=True), None, "get of an unknown id, expired or not")
    equal(await corner.document("key", "ghost"), None, "a document of an unknown id")
    equal(await corner.keys("ghost"), [], "the documents of an unknown id")
    log = await corner.store.events(corner.app, "ghost", START, EventQuery())
    equal(log, None, "the events of an unknown id")
    equal(await corner.count(), 0, "sessions after the reads")


@law(behaviours=(12,))
async def creating_over_an_existing_session_is_refused_and_keeps_it(corner: Corner) -> None:
    """A second create of an id raises `AlreadyExists` and changes nothing, in any tier."""
    await corner.create(user="u", state={"n": 1}, user_state={"n": 1}, events=drafts(1))
    before = await corner.snapshot(ONE, users=("u",))
    again = corner.create(
        user="u", state={"n": 2}, user_state={"n": 2}, app_state={"n": 2}, events=drafts(2)
    )
    error = await refused(again, AlreadyExists, "a second create of the same id")
    equal((error.id, error.expired), (ONE, False), "what the error says (id, expired)")
    equal(await corner.snapshot(ONE, users=("u",)), before, "everything after the refusal")


@law(behaviours=(50,))
async def creating_over_an_expired_session_is_refused_and_says_that_it_expired(
    corner: Corner,
) -> None:
    """An expired session that nobody removed yet still holds its id; `AlreadyExists.expired`."""
    await corner.create(state={"n": 1}, idle=10)
    error = await refused(
        corner.create(state={"n": 2}, now=10), AlreadyExists, "a create over an expired session"
    )
    equal(error.expired, True, "`expired` of the error")
    old = await corner.read(now=10, expired=True)
    exactly(decoded(old.state), {"n": 1}, "the state of the expired session")


@law(behaviours=(14,))
async def the_same_id_in_two_apps_is_two_sessions(corner: Corner) -> None:
    """Apps share nothing: state, events, documents and deletion stay in their app."""
    other = corner.beside(f"{corner.app}2")
    await corner.create(state={"of": "first"}, events=(draft("a", "first"),))
    await other.create(state={"of": "second"}, events=(draft("a", "second"),))
    exactly(await corner.state(), {"of": "first"}, "the state in the first app")
    exactly(await other.state(), {"of": "second"}, "the state in the second app")
    equal([entry.body for entry in await other.log()], ['"second"'], "the second app's log")
    await other.delete()
    exactly(await corner.state(), {"of": "first"}, "the first app's after the second's deletion")


@law(behaviours=(151,))
async def a_refused_create_leaves_nothing_behind(corner: Corner) -> None:
    """A create that is refused writes no tier, takes no claim and leaves no events."""
    await corner.create("kept", user="u", user_state={"n": 1}, app_state={"n": 1})
    before = await corner.snapshot(ONE, "kept", users=("u",))
    bad = corner.create(
        user="u",
        state={"n": 2},
        user_state={"n": 2},
        app_state={"n": 2},
        events=drafts(2),
        parent="ghost",
        labels={"role": "writer"},
        exclusive=("role",),
    )
    await refused(bad, NotFound, "a create under a parent that does not exist")
    equal(await corner.snapshot(ONE, "kept", users=("u",)), before, "everything after the refusal")
    equal(await corner.count(), 1, "sessions after the refusal")
    await corner.create(labels={"role": "writer"}, exclusive=("role",))
    equal(await corner.seqs(), [], "the log of the session created afterwards")


@law()
async def creating_with_keys_of_the_user_needs_a_user(corner: Corner) -> None:
    """The user's tier of an anonymous session has no owner: `Unbound`, and no tier is written."""
    bad = corner.create(user_state={"theme": "dark"})
    await refused(bad, Unbound, "a create with keys of the user but without one")
    equal(await corner.get(), None, "the session after the refusal")
    equal(await corner.app_state(), {}, "the app's tier after the refusal")


@law(behaviours=(7, 122, 128))
async def of_many_creates_of_one_id_exactly_one_succeeds(corner: Corner) -> None:
    """Twenty creates at once: one session, that of the winner; the others get `AlreadyExists`."""
    calls = [corner.create(state={"by": n}) for n in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Committed)]
    equal(len(winners), 1, "creates that succeeded")
    for outcome in outcomes:
        if not isinstance(outcome, Committed | AlreadyExists):
            raise Broken(f"a create that lost raised {outcome!r}, not AlreadyExists")
    exactly(await corner.state(), {"by": winners[0]}, "the state of the one that was created")


@law()
async def what_was_acknowledged_is_what_the_next_read_sees(corner: Corner) -> None:
    """After each write returns, every read shows it: get, events, list, count and tiers."""
    for n in range(1, 11):
        id = f"s{n}"
        await corner.create(id, state={"n": n}, app_state={"n": n})
        exactly(await corner.state(id), {"n": n}, f"the state of {id} after its create")
        exactly(await corner.app_state(), {"n": n}, f"the app's tier after the create of {id}")
        equal(await corner.count(), n, f"sessions after {n} creates")
        holds(id in await corner.ids(), f"{id} is in the list after its create")
        await corner.append(draft("a"), id=id)
        equal(await corner.seqs(id), [1], f"the log of {id} after an append")

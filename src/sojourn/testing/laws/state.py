"""Laws of state: per-key deltas, three tiers, exact values, and nothing shared by accident."""

from __future__ import annotations

from typing import Any

import msgspec

from sojourn.errors import AlreadyBound, TooLarge, Unbound
from sojourn.limits import MAX_STATE, MAX_VALUE
from sojourn.store import RestoreShared, SupportsTransfer, Tier, TierDelta
from sojourn.testing.laws.corner import ONE, Corner, decoded, draft, encoded
from sojourn.testing.laws.expect import equal, exactly, holds, refused
from sojourn.testing.laws.law import law
from sojourn.testing.laws.transfer import moving


def nested(depth: int) -> Any:
    """Return lists and objects inside each other."""
    value: Any = []
    for level in range(depth - 1):
        value = {"in": value} if level % 2 else [value]
    return value


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "2**53 + 1": 2**53 + 1,
    "2**63 - 1": 2**63 - 1,
    "2**63": 2**63,
    "-2**63 - 1": -(2**63) - 1,
    "2**64": 2**64,
    "10**40": 10**40,
    "-10**40": -(10**40),
    "0.0": 0.0,
    "-0.0": -0.0,
    "1.0": 1.0,
    "0.1": 0.1,
    "1e16": 1e16,
    "1e22": 1e22,
    "1e308": 1e308,
    "5e-324": 5e-324,
    "empty text": "",
    "NUL": "\x00",
    "NUL inside": "a\x00b",
    "controls": "\x01\x1f\x7f\x80\n\r\t",
    "quotes": "\"'\\/`",
    "separators": "\u2028\u2029\ufeff",
    "outside the first plane": "\U0001f600\U0010ffff",
    "looks like a number": "1",
    "looks like null": "null",
    "looks like a date": "2026-01-01T00:00:00Z",
    "looks like a marker": {"$type": "DELETE", "__class__": "x"},
    "empty list": [],
    "empty object": {},
    "empties": [[], {}, "", None, [{}]],
    "kinds": [1, 1.0, True, "1", None, 0, False, 0.0, -0.0],
    "odd keys": {"": 1, "a\nb": 2, 'a"b': 3, "a\x00b": 4, "\U0001f600": 5, "a.b": 6, "$": 7},
    "deep": nested(99),
    "long": "x" * 100_000,
    "wide": list(range(1000)),
}
"""JSON values that some encoder, column type or driver changes."""


@law(behaviours=(44, 92))
async def values_come_back_exactly(corner: Corner) -> None:
    """Every JSON value is equal in type and value when it comes back, from every tier and event."""
    await corner.create(user="u", state=VALUES)
    await corner.commit(user_state=VALUES, app_state=VALUES)
    await corner.append(
        *(draft(name, value, changes={"k": value}) for name, value in VALUES.items())
    )
    record = await corner.read(last=len(VALUES))
    for name, value in VALUES.items():
        exactly(decoded(record.state).get(name), value, f"the session's own value {name!r}")
        exactly(decoded(record.user_state).get(name), value, f"the user's value {name!r}")
        exactly(decoded(record.app_state).get(name), value, f"the app's value {name!r}")
    for entry, (name, value) in zip(record.entries, VALUES.items(), strict=True):
        body = msgspec.json.decode(entry.body)
        exactly(body, value, f"the body of the event {name!r}")
        changes = msgspec.json.decode(entry.changes or "{}")
        exactly(changes, {"k": value}, f"the delta of the event {name!r}")


@law(behaviours=(45,))
async def writers_of_different_keys_both_survive(corner: Corner) -> None:
    """Without an expectation, a commit sets the keys it names and leaves the others alone."""
    await corner.create(user="u", state={"kept": 0}, user_state={"kept": 0}, app_state={"kept": 0})
    for name in ("left", "right"):
        await corner.commit(state={name: 1}, user_state={name: 1}, app_state={name: 1})
    merged = {"kept": 0, "left": 1, "right": 1}
    exactly(await corner.state(), merged, "the session's own state")
    exactly(await corner.user_state("u"), merged, "the user's tier")
    exactly(await corner.app_state(), merged, "the app's tier")


@law()
async def the_last_writer_of_a_key_wins_and_values_are_replaced_whole(corner: Corner) -> None:
    """A delta replaces the value of a key; it never merges into it."""
    await corner.create(state={"a": {"x": 1, "y": 2}, "b": [1, 2, 3]})
    await corner.commit(state={"a": {"z": 3}, "b": []})
    exactly(await corner.state(), {"a": {"z": 3}, "b": []}, "the values that were set last")


@law(behaviours=(79,))
async def removing_a_key_is_not_setting_it_to_none(corner: Corner) -> None:
    """`None` is a value that stays; a dropped key is gone, in every tier, missing ones included."""
    both = {"none": 1, "gone": 1}
    await corner.create(user="u", state=both, user_state=both, app_state=both)
    drop = ("gone", "never there")
    none = {"none": None}
    await corner.commit(
        state=none,
        drop=drop,
        user_state=none,
        user_drop=drop,
        app_state=none,
        app_drop=drop,
    )
    exactly(await corner.state(), none, "the session's own state")
    exactly(await corner.user_state("u"), none, "the user's tier")
    exactly(await corner.app_state(), none, "the app's tier")


@law(behaviours=(36,))
async def clearing_empties_the_sessions_own_tier_first(corner: Corner) -> None:
    """`clear` removes every own key and then applies the delta; the shared tiers stay."""
    await corner.create(user="u", state={"a": 1, "b": 2}, user_state={"a": 1}, app_state={"a": 1})
    await corner.commit(clear=True, state={"b": 3})
    exactly(await corner.state(), {"b": 3}, "the own state after clear and set")
    await corner.commit(clear=True)
    exactly(await corner.state(), {}, "the own state after clear alone")
    exactly(await corner.user_state("u"), {"a": 1}, "the user's tier after clear")
    exactly(await corner.app_state(), {"a": 1}, "the app's tier after clear")


@law(behaviours=(46,))
async def a_session_with_empty_state_is_a_session(corner: Corner) -> None:
    """Having no keys is not being missing."""
    await corner.create()
    exactly(await corner.state(), {}, "the state of a session without keys")
    await corner.commit(state={"a": 1})
    await corner.commit(drop=("a",))
    exactly(await corner.state(), {}, "the state once its only key is removed")


@law(behaviours=(70,))
async def the_apps_tier_is_shared_by_all_its_sessions(corner: Corner) -> None:
    """A key of the app set by one session is in every session of the app, older ones too."""
    await corner.create("older", user="u")
    await corner.create("anonymous")
    await corner.create("writer", user="w", app_state={"a": 1})
    await corner.commit("writer", app_state={"b": 2})
    for id in ("older", "anonymous", "writer"):
        record = await corner.read(id)
        exactly(decoded(record.app_state), {"a": 1, "b": 2}, f"the app's tier in {id!r}")
        exactly(decoded(record.state), {}, f"the own state of {id!r}")
    other = corner.beside(f"{corner.app}2")
    exactly(await other.app_state(), {}, "the tier of another app")


@law(behaviours=(71, 72))
async def the_users_tier_is_shared_by_that_users_sessions_only(corner: Corner) -> None:
    """A key of the user is in all sessions of the user; others and anonymous ones never see it."""
    for id, user in (("mine", "u"), ("also mine", "u"), ("another's", "v"), ("nobody's", None)):
        await corner.create(id, user=user)
    await corner.commit("mine", state={"own": 1}, user_state={"theme": "dark"})
    for id, expected in (
        ("mine", {"theme": "dark"}),
        ("also mine", {"theme": "dark"}),
        ("another's", {}),
        ("nobody's", {}),
    ):
        exactly(decoded((await corner.read(id)).user_state), expected, f"the tier seen by {id!r}")
    exactly(await corner.state("also mine"), {}, "own keys of the user's other session")


@law(behaviours=(80,))
async def shared_tiers_can_be_read_and_written_without_a_session(corner: Corner) -> None:
    """`tiers` needs no session and is empty for the unknown; a change without an id writes them."""
    exactly(await corner.user_state("u"), {}, "the tier of an unknown user")
    exactly(await corner.app_state(), {}, "the tier of an unknown app")
    await corner.commit(None, user="u", user_state={"a": 1}, app_state={"b": 2})
    exactly(await corner.user_state("u"), {"a": 1}, "the user's tier")
    exactly(await corner.app_state(), {"b": 2}, "the app's tier")
    exactly(await corner.user_state("v"), {}, "another user's tier")
    equal(await corner.count(), 0, "sessions after writing shared tiers")
    await corner.create(user="u")
    exactly(decoded((await corner.read()).user_state), {"a": 1}, "the tier in a later session")


@law()
async def keys_of_the_user_need_a_user(corner: Corner) -> None:
    """On an anonymous session they are `Unbound`; no tier is written, the app's least of all."""
    await corner.create(state={"n": 1})
    before = await corner.snapshot(ONE)
    await refused(
        corner.commit(state={"n": 2}, user_state={"a": 1}), Unbound, "keys of the user on nobody's"
    )
    await refused(
        corner.commit(None, user_state={"a": 1}),
        Unbound,
        "keys of the user without session or user",
    )
    equal(await corner.snapshot(ONE), before, "everything after the refusals")


@law(behaviours=(130,))
async def a_session_is_bound_once(corner: Corner) -> None:
    """An anonymous session can be given a user; the same again is fine, another: `AlreadyBound`."""
    await corner.create("one")
    await corner.commit(None, user="u", user_state={"theme": "dark"})
    await corner.commit(user="u", user_state={"first": 1})
    record = await corner.read()
    equal(record.header.user, "u", "the user after binding")
    tier = {"theme": "dark", "first": 1}
    exactly(decoded(record.user_state), tier, "the tier after binding")
    equal(await corner.ids(user="u"), [ONE], "the user's sessions after binding")
    equal(await corner.ids(anonymous=True), [], "nobody's sessions after binding")
    await corner.commit(user="u")
    before = await corner.snapshot(ONE, users=("u", "v"))
    rebinding = corner.commit(user="v", state={"stolen": 1}, user_state={"stolen": 1})
    await refused(rebinding, AlreadyBound, "binding a bound session to another user")
    equal(await corner.snapshot(ONE, users=("u", "v")), before, "everything after the refusal")


@law(behaviours=(40, 41))
async def nothing_that_is_returned_is_what_is_stored(corner: Corner) -> None:
    """Changing what went in or what came out changes nothing in the store."""
    labels = {"kind": "chat"}
    given = corner.header(user="u", labels=labels)
    await corner.create(user="u", state={"a": 1}, user_state={"a": 1}, labels=given.labels)
    await corner.commit(app_state={"a": 1})
    before = await corner.snapshot(ONE, users=("u",))
    labels["kind"] = "changed"
    committed = await corner.commit()
    touched = await corner.touch()
    listed = (await corner.page()).records[0]
    record = await corner.read()
    for header in (committed.header, touched, record.header, listed.header):
        header.labels["new"] = "label"
    for tier in (record.state, record.user_state, record.app_state, listed.state):
        tier["b"] = msgspec.Raw(b"2")
        tier.pop("a", None)
    tiers = await corner.store.tiers(corner.app, "u")
    tiers.user_state.clear()
    tiers.app_state.clear()
    after = await corner.read()
    exactly(after.header.labels, {"kind": "chat"}, "the labels")
    equal(await corner.ids(labels={"kind": "chat"}), [ONE], "the sessions with the label")
    for name, tier in (("own", after.state), ("user", after.user_state), ("app", after.app_state)):
        exactly(decoded(tier), {"a": 1}, f"the {name} tier")
    exactly(await corner.user_state("u"), {"a": 1}, "the user's tier, read by itself")
    exactly(await corner.app_state(), before["app"], "the app's tier, read by itself")


@law()
async def small_writes_do_not_outgrow_a_shared_tier(corner: Corner) -> None:
    """They are refused in the end, soon after `MAX_STATE` at the latest, until there is room.

    A store may add a tier up once some kilobytes were written to it.
    """
    room, each, more = 16 * 1024, 2 * 1024, 6 * 1024
    await corner.create(user="u")
    for tier in ("user_tier", "app_tier"):

        async def write(value: str, key: str, tier: str = tier) -> None:
            text = f'"{value}"'.encode()
            size = len(key) + len(text) + 8 if tier == "app_tier" else None  # nobody has to count
            delta = TierDelta({key: msgspec.Raw(text)}, size=size)
            await corner.store.commit(msgspec.structs.replace(corner.change(), **{tier: delta}))

        await write("x" * (MAX_STATE - room), "big")
        written = 0
        while written < room + more:
            try:
                await write("é" * (each // 2 - 10), f"k{written}")
            except TooLarge:
                break
            written += each
        holds(written >= room - each, f"{tier}: {written} bytes fit where {room} are left")
        holds(written < room + more, f"{tier}: {written} bytes were taken where {room} are left")
        await refused(write("é" * (each // 2 - 10), "next"), TooLarge, f"one more in {tier}")
        await write("small again", "big")
        await write("é" * (each // 2 - 10), "next")


@law()
async def a_tier_has_a_size_that_it_can_not_outgrow(corner: Corner) -> None:
    """A delta that would make a tier larger than `MAX_STATE` bytes is `TooLarge`, not applied.

    What it replaces does not count.
    """
    big = TierDelta({"big": msgspec.Raw(b'"' + b"x" * (MAX_STATE - 1024 * 1024) + b'"')})
    more = TierDelta({"more": msgspec.Raw(b'"' + b"y" * (2 * 1024 * 1024) + b'"')})
    await corner.create(user="u")
    for tier in ("session", "user_tier", "app_tier"):
        whole = msgspec.structs.replace(corner.change(), **{tier: big})
        await corner.store.commit(whole)
        again = msgspec.structs.replace(corner.change(), **{tier: big})
        await corner.store.commit(again)
        over = msgspec.structs.replace(corner.change(state={"n": 1}), **{tier: more})
        if tier == "session":
            over = msgspec.structs.replace(corner.change(app_state={"n": 1}), session=more)
        await refused(corner.store.commit(over), TooLarge, f"outgrowing {tier}")
    record = await corner.read()
    for name, state in (
        ("session", record.state),
        ("user_tier", record.user_state),
        ("app_tier", record.app_state),
    ):
        equal(sorted(state), ["big"], f"the keys of {name} after the refusals")


@law(needs=SupportsTransfer)
async def a_tier_that_would_be_too_large_is_not_restored(corner: Corner) -> None:
    """`TooLarge` over `MAX_STATE` bytes, of what is given and what is there together."""
    part = MAX_VALUE // 2
    fits = {f"k{n}": "x" * part for n in range(MAX_STATE // part - 1)}
    await corner.commit(None, user="u", user_state={"a": "x" * part, "b": "x" * part})
    before = await corner.user_state("u")
    tier = Tier(user="u", state=encoded(fits))
    whole = RestoreShared(app=corner.app, items=(Tier(user=None, state=encoded({"n": 1})), tier))
    error = await refused(moving(corner).restore_shared(whole), TooLarge, "a tier too large")
    equal(error.limit, MAX_STATE, "the limit in the error")
    exactly(await corner.user_state("u"), before, "the tier after the refusal")
    exactly(await corner.app_state(), {}, "the tier beside it, which came with it")
    await moving(corner).restore_shared(msgspec.structs.replace(whole, replace=True))
    exactly(await corner.user_state("u"), fits, "the tier that fits, replaced")

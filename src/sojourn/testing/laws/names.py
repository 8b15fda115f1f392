"""Laws of names: whatever a name is made of, it means itself and nothing else."""

from __future__ import annotations

from itertools import permutations

from sojourn.store import Change, Drop
from sojourn.testing.laws.corner import START, Corner, put
from sojourn.testing.laws.expect import equal, exactly
from sojourn.testing.laws.law import law

ODD_NAMES = (
    "a",
    "A",
    "a ",
    " a",
    "a:b",
    "a/b",
    "a.b",
    "a\\b",
    "a|b",
    "a,b",
    "a%3Ab",
    "a%",
    "a_",
    "a*",
    "a?",
    "[a]",
    "{a}",
    "{}",
    "..",
    ".",
    "-",
    "$",
    "NULL",
    "0",
    "00",
    "1",
    "1.0",
    '"',
    "'",
    "a'b",
    'a" OR "1"="1',
    "'; DROP TABLE sessions; --",
    "caf\u00e9",  # composed
    "cafe\u0301",  # decomposed: another name
    "\u212b",  # the angstrom sign normalises to the next one
    "\u00c5",
    "stra\u00dfe",
    "STRASSE",
    "\u0131",  # without its dot; folds to the letter above in some cases
    "I",
    "i",
    "\U0001f600",
    "\uffee",  # sorts behind the one above in UTF-16, before it by code point
    "n" * 255,
    "n" * 254,
    "\u00e9" * 255,
    "\U0001f600" * 255,
)
"""Names that something or other takes for the same, for a separator, or for a pattern."""

PAIRS = (("a", "b:c"), ("a:b", "c"), ("a", "b/c"), ("a/b", "c"), ("{a", "}b"), ("{a}", "b"))
"""Pairs of names that are one when they are joined."""


@law(behaviours=(11,))
async def ids_mean_themselves(corner: Corner) -> None:
    """No two different ids share a session, by case, space, normalisation or special characters."""
    for n, name in enumerate(ODD_NAMES):
        await corner.create(name, state={"n": n})
    for n, name in enumerate(ODD_NAMES):
        record = await corner.read(name)
        equal(record.header.id, name, "the id read back")
        exactly(await corner.state(name), {"n": n}, f"the state of the session {name!r}")
    await corner.delete("a")
    left = [name for name in ODD_NAMES if await corner.get(name) is not None]
    equal(left, [name for name in ODD_NAMES if name != "a"], "the sessions left without 'a'")


@law(behaviours=(11, 23))
async def users_mean_themselves(corner: Corner) -> None:
    """No two different users share a session, a tier, a list or a count."""
    for n, user in enumerate(ODD_NAMES):
        await corner.create(f"s{n}", user=user, user_state={"n": n})
    for n, user in enumerate(ODD_NAMES):
        equal(await corner.ids(user=user), [f"s{n}"], f"the sessions of {user!r}")
        equal(await corner.count(user=user), 1, f"how many sessions {user!r} has")
        exactly(await corner.user_state(user), {"n": n}, f"the tier of {user!r}")
    equal(await corner.store.forget(corner.app, "a"), 1, "sessions forgotten with the user 'a'")
    equal(await corner.user_state("A"), {"n": 1}, "the tier of 'A' after 'a' is forgotten")
    equal(await corner.count(), len(ODD_NAMES) - 1, "sessions left without 'a'")


@law(behaviours=(23,))
async def apps_mean_themselves(corner: Corner) -> None:
    """No two different apps share a session, a tier or a list."""
    apps = [corner.beside(f"{corner.app[:20]}{name}"[:255]) for name in ODD_NAMES[:-4]]
    for n, app in enumerate(apps):
        await app.create(state={"n": n}, app_state={"n": n})
    for n, app in enumerate(apps):
        exactly(await app.state(), {"n": n}, f"the state in the app {app.app!r}")
        exactly(await app.app_state(), {"n": n}, f"the tier of the app {app.app!r}")
        equal(await app.count(), 1, f"sessions of the app {app.app!r}")


@law()
async def names_that_look_alike_when_joined_stay_apart(corner: Corner) -> None:
    """App and id, app and user, collection and key: joining them in a key must not collide."""
    for n, (first, second) in enumerate(PAIRS):
        app = corner.beside(f"{corner.app}-{first}")
        await app.create(second, user=second, state={"n": n}, user_state={"n": n})
        await app.commit(second, documents=(put(second, b"%d" % n, collection=first),))
    for n, (first, second) in enumerate(PAIRS):
        app = corner.beside(f"{corner.app}-{first}")
        where = f"app {first!r} and {second!r}"
        exactly(await app.state(second), {"n": n}, f"the state at {where}")
        exactly(await app.user_state(second), {"n": n}, f"the user's tier at {where}")
        body = await app.body(second, second, collection=first)
        equal(body, b"%d" % n, f"the document at {where}")


@law()
async def keys_of_state_mean_themselves(corner: Corner) -> None:
    """A key of any tier may be any text: quotes, newlines, NUL, 512 characters, look-alikes."""
    keys = (*ODD_NAMES[:-3], "a\nb", "a\x00b", "\x00", "\t", "\x1f", "\x7f", "k" * 512)
    values = {key: n for n, key in enumerate(keys)}
    await corner.create(user="u", state=values, user_state=values, app_state=values)
    await corner.commit(drop=("a",), user_drop=("a",), app_drop=("a",))
    left = {key: n for key, n in values.items() if key != "a"}
    exactly(await corner.state(), left, "the session's own keys without 'a'")
    exactly(await corner.user_state("u"), left, "the user's keys without 'a'")
    exactly(await corner.app_state(), left, "the app's keys without 'a'")


@law(behaviours=(62,))
async def documents_mean_themselves(corner: Corner) -> None:
    """Collections and keys of documents: no two share a body, and dropping one drops one."""
    await corner.create()
    puts = [put(name, name.encode(), collection=name) for name in ODD_NAMES]
    await corner.commit(documents=tuple(puts))
    for name in ODD_NAMES:
        body = await corner.body(name, collection=name)
        equal(body, name.encode(), f"the document {name!r} in the collection {name!r}")
    await corner.commit(documents=(Drop(collection="a"),))
    for name in ODD_NAMES:
        kept = [] if name == "a" else [name]
        found = await corner.keys(collection=name)
        equal(found, kept, f"the keys of the collection {name!r} once 'a' is dropped")


@law()
async def labels_mean_themselves(corner: Corner) -> None:
    """Names and values of labels: a filter finds what has exactly that label."""
    for n, name in enumerate(ODD_NAMES):
        await corner.create(f"s{n}", labels={name: name, "all": "yes"})
    for n, name in enumerate(ODD_NAMES):
        equal(await corner.ids(labels={name: name}), [f"s{n}"], f"sessions with the label {name!r}")
    for name, value in permutations(("a", "A", "a "), 2):
        equal(await corner.ids(labels={name: value}), [], f"sessions labelled {name!r}={value!r}")


@law()
async def the_apps_own_things_are_not_a_sessions(corner: Corner) -> None:
    """What belongs to the app is in no session, whatever that session is called."""
    shared = Change(
        app=corner.app, id=None, op=corner.op(), now=START, documents=(put("key", b"app"),)
    )
    await corner.store.commit(shared)
    for id in ("None", "null", "0", "-", "app", corner.app):
        await corner.create(id)
        equal(await corner.body("key", id), None, f"the app's document in the session {id!r}")
        await corner.commit(id, documents=(put("key", id.encode()),))
    equal(await corner.body("key", None), b"app", "the app's document afterwards")

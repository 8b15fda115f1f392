"""Laws of lists: filters, orders and counts, and what a listed session carries."""

from __future__ import annotations

from typing import Any

from sojourn.lifecycle import Phase
from sojourn.testing.laws.corner import Corner, decoded, drafts
from sojourn.testing.laws.expect import equal, exactly
from sojourn.testing.laws.law import law
from sojourn.testing.laws.lifecycle import FINISH, end


@law(behaviours=(23,))
async def lists_of_the_unknown_are_empty(corner: Corner) -> None:
    """An unknown app, user, label or parent: an empty page without a position, and a count of 0."""
    for filters in (
        {},
        {"user": "u"},
        {"anonymous": True},
        {"labels": {"a": "b"}},
        {"parent": "p"},
    ):
        page = await corner.page(**filters)
        equal((page.records, page.position), ([], None), f"the page by {filters}, nothing there")
        equal(await corner.count(**filters), 0, f"the count by {filters}, nothing there")
    await corner.create(user="u", labels={"a": "b"})
    for filters in (
        {"user": "v"},
        {"labels": {"a": "c"}},
        {"labels": {"b": "a"}},
        {"parent": "one"},
    ):
        page = await corner.page(**filters)
        equal((page.records, page.position), ([], None), f"the page by {filters}, nothing matches")
        equal(await corner.count(**filters), 0, f"the count by {filters}, nothing matches")


@law(behaviours=(24,))
async def a_listed_session_carries_its_state_and_no_events(corner: Corner) -> None:
    """Header, own state, and the tiers as its own user sees them; the log stays where it is."""
    await corner.create("mine", user="u", state={"n": 1}, user_state={"of": "u"}, events=drafts(2))
    await corner.create("another's", user="v", state={"n": 2}, user_state={"of": "v"})
    await corner.create("nobody's", app_state={"a": 1})
    page = await corner.page(order="created")
    for record, own, users in zip(
        page.records, ({"n": 1}, {"n": 2}, {}), ({"of": "u"}, {"of": "v"}, {}), strict=True
    ):
        id = record.header.id
        exactly(decoded(record.state), own, f"the own state of {id!r}")
        exactly(decoded(record.user_state), users, f"the user's tier of {id!r}")
        exactly(decoded(record.app_state), {"a": 1}, f"the app's tier of {id!r}")
        equal(record.entries, (), f"the events of {id!r}")
        equal(record.header, (await corner.read(id)).header, f"the header of {id!r}")
    equal(page.corrupt, (), "what could not be read back")


@law()
async def lists_are_in_the_order_that_was_asked_for(corner: Corner) -> None:
    """By creation or by activity, either way; the most recently active first by default."""
    for n, id in enumerate(("a", "b", "c", "d")):
        await corner.create(id, now=n, idle=1000)
    await corner.touch("b", now=10)
    await corner.commit("a", now=11)
    for order, ids in (
        ("created", "abcd"),
        ("-created", "dcba"),
        ("active", "cdba"),
        ("-active", "abdc"),
    ):
        equal("".join(await corner.ids(order=order, now=12)), ids, f"the order {order!r}")
    equal("".join(await corner.ids(now=12)), "abdc", "the order by default")


@law()
async def equally_active_sessions_have_an_order_too(corner: Corner) -> None:
    """Ties are broken the same way each time, and reversed by the reverse order."""
    for n in range(10):
        await corner.create(f"s{n}")
    for kind in ("created", "active"):
        forward = await corner.ids(order=kind)
        equal(sorted(forward), [f"s{n}" for n in range(10)], f"the sessions by {kind}")
        equal(await corner.ids(order=kind), forward, f"the order by {kind}, asked again")
        backward = await corner.ids(order=f"-{kind}")
        equal(backward, forward[::-1], f"the reverse order by {kind}")


async def varied(corner: Corner) -> None:
    """Create sessions of every combination: two users or none, two labels, two phases, parents."""
    await corner.create("p", idle=10**6)
    for user in (None, "u", "v"):
        for label in ("x", "y"):
            for phase in (Phase.OPEN, Phase.ENDING, Phase.ENDED):
                id = f"{user}-{label}-{phase}"
                labels = {"l": label, "all": "yes", f"only {user}": "yes"}
                parent = "p" if label == "x" else None
                await corner.create(id, user=user, labels=labels, parent=parent, idle=10**6)
                if phase is not Phase.OPEN:
                    await corner.commit(id, move=end())
                if phase is Phase.ENDED:
                    await corner.commit(id, move=FINISH)


@law(behaviours=(23, 28))
async def filters_are_all_applied(corner: Corner) -> None:
    """User, anonymous, phases, labels and parent narrow the list together; counts agree with it."""
    await varied(corner)
    cases: tuple[tuple[dict[str, Any], int], ...] = (
        ({}, 19),
        ({"user": "u"}, 6),
        ({"anonymous": True}, 7),
        ({"phases": (Phase.OPEN,)}, 7),
        ({"phases": (Phase.ENDING, Phase.ENDED)}, 12),
        ({"phases": (Phase.OPEN, Phase.OPEN)}, 7),
        ({"phases": (Phase.ACTIVE,)}, 0),
        ({"phases": ()}, 0),
        ({"labels": {}}, 19),
        ({"labels": {"l": "x"}}, 9),
        ({"labels": {"l": "x", "all": "yes"}}, 9),
        ({"labels": {"all": "yes", "only u": "yes"}}, 6),
        ({"labels": {"all": "yes", "only u": "no"}}, 0),
        ({"parent": "p"}, 9),
        ({"user": "u", "phases": (Phase.OPEN,)}, 2),
        ({"user": "u", "labels": {"l": "x"}}, 3),
        ({"user": "u", "labels": {"l": "x"}, "phases": (Phase.ENDED,)}, 1),
        ({"user": "u", "labels": {"only v": "yes"}}, 0),
        ({"user": "u", "parent": "p"}, 3),
        ({"anonymous": True, "labels": {"l": "y"}}, 3),
        ({"anonymous": True, "phases": (Phase.OPEN,)}, 3),
        ({"parent": "p", "labels": {"l": "y"}}, 0),
        ({"parent": "p", "labels": {"l": "x"}, "phases": (Phase.OPEN, Phase.ENDING)}, 6),
    )
    for filters, expected in cases:
        for order in ("created", "-active"):
            ids = await corner.ids(order=order, **filters)
            equal(len(ids), expected, f"sessions listed by {filters} in the order {order!r}")
            equal(len(set(ids)), expected, f"different sessions listed by {filters}")
        equal(await corner.count(**filters), expected, f"sessions counted by {filters}")


@law()
async def a_count_is_not_a_page(corner: Corner) -> None:
    """Order, limit and position of a query do not change what it counts."""
    for n in range(7):
        await corner.create(f"s{n}")
    position = (await corner.page(limit=3)).position
    equal(await corner.count(limit=3), 7, "the count with a limit")
    equal(await corner.count(limit=3, position=position, order="-active"), 7, "with a position")


@law()
async def counts_follow_what_happens(corner: Corner) -> None:
    """Create, bind, move, fork, delete, forget and reap: the count is right after each."""
    for n in range(6):
        await corner.create(f"s{n}", idle=100 + n)
    await corner.commit("s0", user="u")
    await corner.commit("s1", user="u")
    await corner.fork("f", source="s0", idle=1000)
    await corner.commit("s2", move=end())
    counts = [
        await corner.count(),
        await corner.count(user="u"),
        await corner.count(anonymous=True),
        await corner.count(phases=(Phase.OPEN,)),
    ]
    equal(counts, [7, 3, 4, 6], "the counts: all, the user's, nobody's, open")
    await corner.delete("s1")
    await corner.delete("ghost")
    equal([await corner.count(), await corner.count(user="u")], [6, 2], "after a deletion")
    await corner.store.forget(corner.app, "u")
    equal([await corner.count(), await corner.count(user="u")], [4, 0], "after forgetting")
    await corner.reap(now=104)
    left = [await corner.count(now=104), await corner.count(now=104, phases=(Phase.ENDING,))]
    equal(left, [2, 1], "after a sweep")

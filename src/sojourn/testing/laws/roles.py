"""Laws of exclusive roles: one live session holds a combination of labels at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sojourn.errors import RoleTaken
from sojourn.lifecycle import Trigger
from sojourn.store import Committed, Move
from sojourn.testing.laws.expect import Broken, equal, exactly, refused
from sojourn.testing.laws.law import law
from sojourn.testing.laws.lifecycle import FINISH, end

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn.testing.laws.corner import Corner

ROLE: Mapping[str, Any] = {
    "labels": {"workspace": "w", "role": "writer"},
    "exclusive": ("workspace", "role"),
}


async def taken(corner: Corner, holder: str, when: str, **role: Any) -> None:
    """Check that the role is refused to another session, naming its holder."""
    call = corner.create(f"rival of {holder}", **{**ROLE, **role})
    error = await refused(call, RoleTaken, f"taking the role {when}")
    equal(error.holder, holder, f"the holder named {when}")
    exactly(error.claim, dict({**ROLE, **role}["labels"]), f"the claim named {when}")
    equal(await corner.get(f"rival of {holder}"), None, f"the session refused {when}")


@law(behaviours=(118,))
async def a_role_has_one_holder(corner: Corner) -> None:
    """A second live session with the same values is refused, and the error names the first."""
    await corner.create("first", **ROLE)
    await taken(corner, "first", "while the first is live")
    await taken(corner, "first", "in another order", exclusive=("role", "workspace"))
    await corner.commit("first", state={"n": 1})
    await taken(corner, "first", "after a commit of the first")


@law(behaviours=(118,))
async def a_role_is_free_again_once_its_holder_is_deleted(corner: Corner) -> None:
    """By a delete, with its parent, with its user, or by the reaper."""
    await corner.create("first", **ROLE)
    await corner.delete("first")
    await corner.create("parent")
    await corner.create("second", parent="parent", **ROLE)
    await taken(corner, "second", "while the second is live")
    await corner.delete("parent")
    await corner.create("third", user="u", **ROLE)
    await taken(corner, "third", "while the third is live")
    await corner.store.forget(corner.app, "u")
    await corner.create("fourth", idle=1, **ROLE)
    await corner.reap(now=1)
    await corner.create("fifth", **ROLE)
    await taken(corner, "fifth", "while the fifth is live")


@law(behaviours=(118,))
async def a_role_is_free_again_once_its_holder_is_over(corner: Corner) -> None:
    """While its holder is ending it is still taken: the old one may be at work. Then it is free."""
    await corner.create("first", **ROLE)
    await corner.commit("first", move=end())
    await taken(corner, "first", "while the first is ending")
    await corner.commit("first", move=FINISH)
    await corner.create("second", lifecycle="agent", **ROLE)
    await taken(corner, "second", "while the second is live")
    await corner.commit("second", move=Move(trigger=Trigger.TERMINATE))
    await taken(corner, "second", "while the second is terminating")
    await corner.commit("second", move=Move(trigger=Trigger.CLEAN))
    await corner.create("third", **ROLE)
    await corner.delete("first")
    await taken(corner, "third", "after the deletion of an earlier holder")


@law(behaviours=(118,))
async def roles_differ_by_every_part(corner: Corner) -> None:
    """Other values, other labels, another app, or not exclusive at all: not the same role."""
    await corner.create("first", **ROLE)
    others: dict[str, dict[str, Any]] = {
        "another workspace": {"labels": {"workspace": "v", "role": "writer"}},
        "another role": {"labels": {"workspace": "w", "role": "reader"}},
        "not exclusive": {"exclusive": ()},
        "only one of the two": {"exclusive": ("role",)},
    }
    for id, fields in others.items():
        await corner.create(id, **{**ROLE, **fields})
    await corner.beside(f"{corner.app}2").create("first", **ROLE)
    for n, (name, value) in enumerate((("a", "b:c"), ("a:b", "c"), ("a", "b"), ("a=b", ""))):
        await corner.create(f"joined {n}", labels={name: value}, exclusive=(name,))
    equal(await corner.count(), 9, "sessions of the app")


@law(behaviours=(122,))
async def of_many_that_claim_a_role_at_once_exactly_one_gets_it(corner: Corner) -> None:
    """Ten creates together: one session, the others `RoleTaken` naming it."""
    calls = [corner.create(f"s{n}", **ROLE) for n in range(10)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    winners = [o.header.id for o in outcomes if isinstance(o, Committed)]
    equal(len(winners), 1, "sessions that got the role")
    for outcome in outcomes:
        if isinstance(outcome, Committed):
            continue
        if not isinstance(outcome, RoleTaken):
            raise Broken(f"a create that lost came to {outcome!r}, not RoleTaken")
        equal(outcome.holder, winners[0], "the holder named to a loser")
    equal(await corner.count(), 1, "sessions afterwards")

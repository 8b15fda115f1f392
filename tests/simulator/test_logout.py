"""Logging out beside a slow write: whatever the order, what was ended or deleted stays gone."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.faults.soak import Progress, count, scaled
from tests.simulator.planted import UpsertsOnCommit

from sojourn import Event, NotFound, Session, SessionManager, SojournError
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, SequenceIds, SimulatedLoop
from sojourn.testing.faults import Delay
from sojourn.testing.simulator.draw import Draw

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sojourn.testing import Call, Fault

    Act = Callable[[SessionManager, Session], Awaitable[object]]

A_WHILE = 1.0
"""Seconds of virtual time in which what was told to stop has stopped."""

INTERLEAVINGS = 10_000
SHORT = 1_000


async def save(sessions: SessionManager, session: Session) -> None:
    session.state["k"] = 2
    await sessions.save(session)


async def save_strictly(sessions: SessionManager, session: Session) -> None:
    session.state["k"] = 2
    await sessions.save(session, conflict="fail")


async def in_a_scope(sessions: SessionManager, session: Session) -> None:
    async with sessions.scope(session):
        session.state["k"] = 2
        await asyncio.sleep(0)


async def under_a_lease(sessions: SessionManager, session: Session) -> None:
    async with sessions.lease("s1", wait=1) as lease:
        await sessions.append(session, Event(kind="a"), lease=lease)


async def clear(sessions: SessionManager, session: Session) -> None:
    session.state.clear()
    await sessions.save(session)


WRITES: dict[str, Act] = {
    "append": lambda sessions, s: sessions.append(s, Event(kind="a"), state={"k": 2}),
    "append by id": lambda sessions, s: sessions.append(s.id, Event(kind="a"), state={"k": 2}),
    "bind": lambda sessions, s: sessions.bind(s, "u"),
    "document": lambda sessions, s: sessions.documents(s.id).put("c", "k", b"x"),
    "heartbeat": lambda sessions, s: sessions.heartbeat(s.id),
    "label": lambda sessions, s: sessions.label(s, {"a": "b"}),
    "lease": under_a_lease,
    "save": save,
    "save strictly": save_strictly,
    "scope": in_a_scope,
    "truncate": lambda sessions, s: sessions.truncate(s, after=0),
}
"""Every way to write to a session."""

REMOVALS: dict[str, Act] = {
    "clear": clear,
    "delete": lambda sessions, s: sessions.delete(s.id),
    "end": lambda sessions, s: sessions.end(s.id),
    "forget": lambda sessions, s: sessions.forget(s.user or ""),
}
"""Every way to have a session gone."""


class Slowly:
    """A plan: each call takes a few turns on the way there, and a few on the way back."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def __call__(self, call: Call) -> Sequence[Fault]:
        del call
        return (Delay(self.turns), Delay(self.turns, applied=True))

    async def turns(self) -> None:
        for _ in range(self._draw.randrange(6)):
            await asyncio.sleep(0)


async def interleave(draw: Draw, store: MemoryStore) -> tuple[str, list[str]]:
    """Write and remove at the same time; return what was done, and what is wrong afterwards."""
    managers = []
    for name in ("writer", "remover"):
        connection = FaultyStore(store)
        connection.follow(Slowly(draw))
        managers.append(SessionManager(connection, ids=SequenceIds(name)))
    writer, remover = managers
    write, removal = draw.choice(list(WRITES)), draw.choice(list(REMOVALS))
    user = "u" if removal == "forget" else None
    await writer.create(id="s1", user=user, state={"k": 1}, events=[Event(kind="a")])
    theirs, ours = await writer.require("s1"), await remover.require("s1")
    both = await asyncio.gather(
        WRITES[write](writer, theirs), REMOVALS[removal](remover, ours), return_exceptions=True
    )
    wrong = [repr(one) for one in both if isinstance(one, BaseException) and not expected(one)]
    if isinstance(both[1], BaseException):
        wrong.append(f"{removal} was refused: {both[1]!r}")
    bare = SessionManager(store)
    if (found := await bare.get("s1", expired=True)) is not None:
        wrong.append(f"it is back: {found!r}, {dict(found.state)}")
    if await bare.count():
        wrong.append("it is counted")
    theirs.state["k"] = 3
    try:
        await writer.save(theirs)
        wrong.append("an old copy can be saved")
    except NotFound:
        pass
    except SojournError as error:
        wrong.append(f"an old copy is refused for another reason: {error!r}")
    return f"{write} beside {removal}", wrong


def expected(error: BaseException) -> bool:
    """Return whether an error is one of a session that is gone, or that somebody has moved on."""
    return isinstance(error, SojournError)


def interleaved(seed: int, store: MemoryStore) -> tuple[str, list[str]]:
    """Run one interleaving in a loop whose order the seed decides."""
    with closing(SimulatedLoop(seed)) as loop:
        what, wrong = loop.run_until_complete(interleave(Draw(seed, "logout"), store))
        loop.run_until_complete(asyncio.sleep(A_WHILE))
        return what, [*wrong, *map(repr, loop.unfinished)]


@pytest.mark.behaviour(21)
@scaled
def test_nobody_who_logged_out_is_back() -> None:
    """Every write beside every removal, in thousands of orders: none is resurrected."""
    total = count(SHORT, INTERLEAVINGS)
    progress = Progress("logouts", total)
    met: set[str] = set()
    for seed in range(total):
        what, wrong = interleaved(seed, MemoryStore())
        assert not wrong, (seed, what, wrong)
        met.add(what)
        progress.at(seed + 1)
    assert len(met) == len(WRITES) * len(REMOVALS)
    progress.figure("logouts", interleavings=total, resurrected=0)


def test_a_store_that_upserts_would_be_found() -> None:
    """The check can fail: with that bug, every hundred interleavings bring somebody back."""
    wrong = [told for seed in range(200) for told in interleaved(seed, UpsertsOnCommit())[1]]
    assert sum("it is back" in told for told in wrong) >= 2

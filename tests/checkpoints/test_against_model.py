"""Checkpoints against a list of what was saved, over whatever is done to them."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.checkpoints.contents import bodies, ids, pending, pieces, stored

from sojourn import CheckpointInUse, CheckpointMissing, Event, InvalidQuery, SessionManager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sojourn import Checkpoints

BODIES = [b"", b"tiny", b"o" * 40, b"p" * 64, b"m" * 65, b"n" * 200]
NAMES = ["a", "b", "c", "d", "e"]
INLINE = 16

KINDS = ["save", "save", "save", "save", "save", "delete", "delete", "fork", "prune", "append"]
PARENTS = ["newest", "newest", "newest", None, *NAMES[:2]]

names = st.sampled_from(NAMES)


@st.composite
def drawn_steps(draw: st.DrawFn) -> list[Any]:
    """Draw things to do, saving on the last one most of the time, so that there is what to cut."""
    steps: list[Any] = []
    step: st.SearchStrategy[Any]
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=6, max_size=14)):
        match kind:
            case "save":
                body, parent = st.sampled_from(BODIES), st.sampled_from(PARENTS)
                step = st.tuples(st.just(kind), names, body, parent, st.booleans())
            case "delete":
                doomed = st.lists(names, min_size=1, max_size=2)
                step = st.tuples(st.just(kind), doomed, st.sampled_from([False, False, True]))
            case "prune":
                step = st.tuples(st.just(kind), st.integers(0, 4))
            case "fork":
                step = st.tuples(st.just(kind), names)
            case _:
                step = st.tuples(st.just(kind))
        steps.append(draw(step))
    return steps


numbers = itertools.count()


class Kept(NamedTuple):
    """A checkpoint, as the model knows it."""

    body: bytes
    parent: str | None
    birth: int = 0
    parent_birth: int = 0
    seq: int = 0


class Model:
    """What was saved, the oldest first, and what may be done to it."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.seq = 0

    def line(self, id: str | None) -> Iterator[str]:
        while id in self.kept:
            assert id is not None
            yield id
            at = self.kept[id]
            id = at.parent
            if id in self.kept and self.kept[id].birth != at.parent_birth:
                return  # another, that was given the id of the one that it came from

    def save(self, id: str, body: bytes, parent: str | None) -> type[Exception] | None:
        if parent == id:
            return InvalidQuery
        if parent is not None and parent not in self.kept:
            return CheckpointMissing
        if id in self.kept and id in self.line(parent):
            return InvalidQuery
        old = self.kept.pop(id, None)
        birth = next(numbers) if old is None else old.birth
        parent_birth = 0 if parent is None else self.kept[parent].birth
        self.kept[id] = Kept(body, parent, birth, parent_birth, self.seq)
        return None

    def delete(self, doomed: list[str], *, cut: bool) -> type[Exception] | None:
        there = {id for id in doomed if id in self.kept}
        births = {(id, self.kept[id].birth) for id in there}
        children = {
            id for id, kept in self.kept.items() if (kept.parent, kept.parent_birth) in births
        }
        if not cut and children - there:
            return CheckpointInUse
        for id in there:
            del self.kept[id]
        return None

    def prune(self, keep: int) -> None:
        self.kept = dict(list(self.kept.items())[max(len(self.kept) - keep, 0) :])

    def fork(self, id: str) -> type[Exception] | None:
        if id not in self.kept:
            return CheckpointMissing
        self.seq = self.kept[id].seq
        up = itertools.takewhile(lambda name: self.kept[name].seq <= self.seq, self.line(id))
        line, order = set(up), list(self.kept)
        at = order.index(id)
        stay = [*order[:at], *(name for name in order[at + 1 :] if name in line), id]
        self.kept = {name: self.kept[name] for name in stay}
        return None


async def check(sessions: SessionManager, id: str, model: Model) -> None:
    """Compare all that can be read, and what is stored for it."""
    checkpoints = sessions.checkpoints(id)
    assert (await sessions.require(id)).header.seq == model.seq
    assert await ids(checkpoints) == list(model.kept)[::-1]
    latest = await checkpoints.latest()
    assert (latest and latest.id) == (list(model.kept)[-1] if model.kept else None)
    for name in NAMES:
        found = await checkpoints.get(name)
        wanted = model.kept.get(name)
        assert (found and (found.body, found.parent)) == (wanted and wanted[:2])
        assert [item.id for item in await checkpoints.lineage(name)] == list(model.line(name))
    large = {kept.body for kept in model.kept.values() if len(kept.body) > INLINE}
    assert len(await bodies(sessions, id)) == len(large)
    assert await pending(sessions, id) == []


async def apply(sessions: SessionManager, id: str, model: Model, operation: Any) -> str:
    """Do one thing to both, and return the session to go on in."""
    checkpoints = sessions.checkpoints(id)
    match operation:
        case ("save", name, body, parent, streamed):
            if parent == "newest":
                parent = next(reversed(model.kept), None)
            given_body = pieces(body[:50], body[50:]) if streamed else body
            refused = model.save(name, body, parent)
            saving = checkpoints.save(given_body, id=name, parent=parent)
            await expect(refused, saving)
        case ("delete", doomed, cut):
            await expect(model.delete(doomed, cut=cut), checkpoints.delete(*doomed, cut=cut))
        case ("prune", keep):
            model.prune(keep)
            await checkpoints.prune(keep=keep)
            assert await stored(sessions, id) == {*await bodies(sessions, id)}
        case ("append",):
            model.seq += 1
            await sessions.append(id, Event(kind="step"))
        case ("fork", name):
            return await fork(checkpoints, id, model, name)
    return id


async def fork(checkpoints: Checkpoints, id: str, model: Model, name: str) -> str:
    refused = model.fork(name)
    if refused is not None:
        await expect(refused, checkpoints.fork(name))
        return id
    return (await checkpoints.fork(name)).id


async def expect(refused: type[Exception] | None, work: Any) -> None:
    if refused is None:
        await work
        return
    with pytest.raises(refused):
        await work


async def run(url: str, steps: list[Any]) -> None:
    async with SessionManager.open(url) as sessions:
        id = (await sessions.create()).id
        model = Model()
        for step in steps:
            id = await apply(sessions, id, model, step)
            await check(sessions, id, model)


@given(steps=drawn_steps())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_checkpoints_are_what_the_model_says(url: str, small: None, steps: list[Any]) -> None:
    """Order, bodies, lines, and one stored body for all equal ones, after every step."""
    asyncio.run(run(f"{url}{next(numbers)}", steps))

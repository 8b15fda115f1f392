"""Saving with a parent while others save and delete: no line is cut, or closed, without a word."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.checkpoints.contents import bodies, ids, pending
from tests.manager.watched_store import watched

from sojourn import (
    CheckpointInUse,
    CheckpointMissing,
    Conflict,
    Event,
    InvalidQuery,
    NotFound,
)
from sojourn.checkpoints.record import COLLECTION
from sojourn.store import Drop, Put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.manager.watched_store import WatchedStore

    from sojourn import SessionManager
    from sojourn.store import Change

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

sizes = pytest.mark.parametrize("size", [1, 40, 200], ids=["inline", "one chunk", "many"])
by = pytest.mark.parametrize("by", ["id", "session"])


def just_before(
    store: WatchedStore, kind: type[Put | Drop], id: str, meanwhile: Callable[[], Awaitable[Any]]
) -> None:
    """Do something once, right before a checkpoint with this id is put, or dropped."""
    commit = store._store.commit
    waiting = [meanwhile]

    async def overtaken(change: Change) -> Any:
        concerned = (
            type(part) is kind and (part.collection, part.key) == (COLLECTION, id)
            for part in change.documents
        )
        if waiting and any(concerned):
            await waiting.pop()()
        return await commit(change)

    store._store.commit = overtaken  # type: ignore[method-assign]  # a rival, not a mock


@sizes
@by
@pytest.mark.parametrize("how", ["delete", "cut", "prune", "end"])
async def test_a_parent_that_goes_while_its_child_is_saved_is_missing(
    url: str, small: None, size: int, by: str, how: str
) -> None:
    """The child is saved only at the revision at which its parent was there."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        checkpoints = sessions.checkpoints(session if by == "session" else "s")
        rival = sessions.checkpoints("s")
        await rival.save(b"", id="p")
        await sessions.refresh(session)

        async def meanwhile() -> None:
            if how == "prune":
                await rival.prune(keep=0)
            elif how == "end":
                await sessions.delete("s")
            else:
                await rival.delete("p", cut=how == "cut")

        just_before(store, Put, "k", meanwhile)
        with pytest.raises(NotFound if how == "end" else CheckpointMissing):
            await checkpoints.save(b"x" * size, id="k", parent="p")
        assert await ids(checkpoints) == []
        if how != "end":
            assert await pending(sessions, "s") == []


@sizes
async def test_what_a_child_is_saved_of_meanwhile_is_not_deleted(
    url: str, small: None, size: int
) -> None:
    """The deletion goes through only at the revision at which nothing came from it."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        rival = sessions.checkpoints("s")
        await checkpoints.save(b"x" * size, id="p")
        just_before(store, Drop, "p", lambda: rival.save(b"", id="k", parent="p"))
        with pytest.raises(CheckpointInUse):
            await checkpoints.delete("p")
        assert await ids(checkpoints) == ["k", "p"]
        found = await checkpoints.get("p")
        assert found is not None
        assert found.body == b"x" * size


@sizes
@by
async def test_two_who_save_anew_at_once_do_not_lead_a_line_back(
    url: str, small: None, size: int, by: str
) -> None:
    """Whoever comes second sees that its parent came from the very one that it saves."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        checkpoints = sessions.checkpoints(session if by == "session" else "s")
        rival = sessions.checkpoints("s")
        for name in "ab":
            await checkpoints.save(b"", id=name)
        just_before(store, Put, "a", lambda: rival.save(b"", id="b", parent="a"))
        with pytest.raises(InvalidQuery, match="'b' came from 'a' itself"):
            await checkpoints.save(b"x" * size, id="a", parent="b")
        assert [item.id for item in await checkpoints.lineage("b")] == ["b", "a"]
        assert await bodies(sessions, "s") == {}


async def _told(*works: Awaitable[object]) -> list[type[BaseException]]:
    """Do things at once and return the errors that they met."""
    told = await asyncio.gather(*works, return_exceptions=True)
    return [type(each) for each in told if isinstance(each, BaseException)]


async def test_of_two_at_once_one_is_told(opened: Opener) -> None:
    """Whichever comes first, in two managers or in one."""
    async with opened() as one, opened() as other:
        for number, (first, second) in enumerate([(one, one), (one, other)] * 5):
            id = (await one.create(id=f"s{number}")).id
            a, b = first.checkpoints(id), second.checkpoints(id)
            await a.save(b"", id="p")
            errors = await _told(b.save(b"", id="k", parent="p"), a.delete("p"))
            assert errors in ([CheckpointMissing], [CheckpointInUse])
            left = ["k", "p"] if errors == [CheckpointInUse] else []
            assert await ids(a) == left

            await a.save(b"", id="x")
            await a.save(b"", id="y")
            errors = await _told(a.save(b"", id="x", parent="y"), b.save(b"", id="y", parent="x"))
            assert errors == [InvalidQuery]
            assert len(await a.lineage("x")) + len(await a.lineage("y")) == 3


@pytest.mark.parametrize("size", [1, 40])
async def test_many_who_save_at_once_all_come_to_their_end(
    opened: Opener, small: None, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Far more than there are tries: those that got in each other's way take turns."""
    monkeypatch.setattr("sojourn.checkpoints.place.SETTLE_ATTEMPTS", 2)
    async with opened() as sessions:
        await sessions.create(id="s")
        root = await sessions.checkpoints("s").save(b"", id="root")
        saves = [
            sessions.checkpoints("s").save(bytes([n]) * size, id=f"c{n}", parent=root)
            for n in range(40)
        ]
        await asyncio.gather(*saves)
        checkpoints = sessions.checkpoints("s")
        assert sorted(await ids(checkpoints)) == sorted(["root", *(f"c{n}" for n in range(40))])
        await asyncio.gather(*(sessions.checkpoints("s").delete(f"c{n}") for n in range(40)))
        assert await ids(checkpoints) == ["root"]
        assert len(sessions.checkpoints("s")._place.context._turns) == 0


@pytest.mark.parametrize("by", ["id", "session"])
@pytest.mark.parametrize("given", [True, False])
async def test_who_goes_on_saving_does_not_keep_another_from_it(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, by: str, given: bool
) -> None:
    """A new save waits for one that has lost a try, however quick it would be."""
    monkeypatch.setattr("sojourn.checkpoints.place.SETTLE_ATTEMPTS", 2)
    async with opened() as sessions:
        session = await sessions.create(id="s")

        async def save(who: str) -> None:
            checkpoints = sessions.checkpoints(session if by == "session" else "s")
            parent = None
            for number in range(20):
                id = f"{who}{number}" if given else None
                parent = await checkpoints.save(who.encode(), id=id, parent=parent)
            assert parent is not None
            assert len(await checkpoints.lineage(parent.id)) == 20

        await asyncio.gather(*map(save, "abc"))
        assert len(await ids(sessions.checkpoints("s"))) == 60


@sizes
async def test_in_a_session_that_is_never_still_a_line_is_not_touched(
    url: str, small: None, size: int
) -> None:
    """With `Conflict`; what needs no look at a line goes through."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        await checkpoints.save(b"", id="p")
        commit = store._store.commit

        async def overtaken(change: Change) -> Any:
            if change.revision is not None:
                store._store.commit = commit  # type: ignore[method-assign]  # not its own rival
                await sessions.append("s", Event(kind="step"))
                store._store.commit = overtaken  # type: ignore[method-assign]  # as before
            return await commit(change)

        store._store.commit = overtaken  # type: ignore[method-assign]  # a rival, not a mock
        with pytest.raises(Conflict):
            await checkpoints.save(b"x" * size, id="k", parent="p")
        with pytest.raises(Conflict):
            await checkpoints.delete("p")
        assert await ids(checkpoints) == ["p"]
        await checkpoints.save(b"y" * size, id="other")
        assert await checkpoints.delete("p", cut=True) == 1
        assert await ids(checkpoints) == ["other"]

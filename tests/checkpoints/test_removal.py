"""Deleting and pruning: what goes, what stays, and that a line is never cut without a word."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.checkpoints.contents import bodies, ids, is_clean, stored
from tests.manager.watched_store import watched

from sojourn import CheckpointInUse, Conflict, Ended, Event, SessionManager, Unavailable
from sojourn.checkpoints.bodies import CHUNKS, PENDING, STORED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import Checkpoints

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


async def chain(checkpoints: Checkpoints, length: int, size: int = 1) -> list[str]:
    """Save a line of checkpoints and return their ids, the oldest first."""
    parent = None
    for number in range(length):
        parent = await checkpoints.save(bytes([number]) * size, id=f"c{number}", parent=parent)
    return [f"c{number}" for number in range(length)]


async def test_what_another_came_from_is_not_deleted_without_a_word(opened: Opener) -> None:
    """It is refused, naming the child; with the child, or if told to cut, it goes."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        line = await chain(checkpoints, 5)
        with pytest.raises(CheckpointInUse) as refused:
            await checkpoints.delete("c4", "c2")
        facts = (refused.value.id, refused.value.checkpoint, refused.value.child)
        assert facts == ("s", "c2", "c3")
        assert await ids(checkpoints) == line[::-1]
        assert await checkpoints.delete("c4", "c3") == 2
        assert await checkpoints.delete("c1", cut=True) == 1
        (last,) = await checkpoints.lineage("c2")
        assert (last.id, last.parent) == ("c2", "c1")  # so it shows that the line was cut
        assert await ids(checkpoints) == ["c2", "c0"]


async def test_deleting_what_is_not_there_is_fine(opened: Opener) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        await checkpoints.save(b"", id="a")
        assert await checkpoints.delete("unknown") == 0
        assert await checkpoints.delete("a", "unknown", "a") == 1
        assert await checkpoints.delete("a") == 0
        assert await checkpoints.latest() is None


@pytest.mark.parametrize("size", [1, 40, 200])
@pytest.mark.parametrize("keep", [0, 1, 3, 7, 9])
async def test_pruning_keeps_the_newest(
    opened: Opener, small: None, monkeypatch: pytest.MonkeyPatch, keep: int, size: int
) -> None:
    """So many, whichever page they are on; it says how many went, and which line that cut."""
    monkeypatch.setattr("sojourn.checkpoints.removal.REMOVED_AT_ONCE", 2)
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        line = await chain(checkpoints, 7, size)
        pruned = await checkpoints.prune(keep=keep)
        kept = line[::-1][:keep]
        assert await ids(checkpoints) == kept
        assert pruned.removed == 7 - len(kept)
        assert pruned.cut == ((kept[-1],) if 0 < keep < 7 else ())
        if kept:
            assert [item.id for item in await checkpoints.lineage(kept[0])] == kept
        assert len(await bodies(sessions, "s")) == (len(kept) if size > 16 else 0)
        assert await is_clean(sessions, "s") is (keep == 0)


async def test_pruning_says_of_every_branch_that_was_cut(opened: Opener) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        for name, parent in (("root", None), ("a", "root"), ("b", "root"), ("c", "b"), ("d", None)):
            await checkpoints.save(b"", id=name, parent=parent)
        pruned = await checkpoints.prune(keep=4)
        assert (pruned.removed, pruned.cut) == (1, ("b", "a"))
        assert (await checkpoints.prune(keep=4)).removed == 0


@pytest.mark.parametrize("late", ["late", "c0", "c1"])
async def test_what_is_saved_while_pruning_stays(url: str, small: None, late: str) -> None:
    """A new one, and one that was on the list of those to go and is saved anew."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await chain(checkpoints, 3, size=40)
        gate = store.hold("commit", "before")
        pruning = asyncio.create_task(checkpoints.prune(keep=1))
        await gate.arrived.wait()
        await checkpoints.save(b"saved anew " * 9, id=late)
        gate.go()
        pruned = await pruning
        found = await checkpoints.latest()
        assert found is not None
        assert (found.id, found.body) == (late, b"saved anew " * 9)
        assert await ids(checkpoints) == [late]
        assert pruned.removed == (3 if late == "late" else 2)
        assert len(await bodies(sessions, "s")) == 1


async def test_pruning_gives_up_in_a_session_that_is_never_still(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `Conflict`, and nothing is lost."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        line = await chain(checkpoints, 3)
        read = store._store.get

        async def overtaken(get: Any) -> Any:
            record = await read(get)
            await sessions.append(get.id, Event(kind="step"))
            return record

        monkeypatch.setattr(store._store, "get", overtaken)
        with pytest.raises(Conflict):
            await checkpoints.prune(keep=1)
        assert await ids(checkpoints) == line[::-1]


async def test_a_body_that_could_not_be_removed_is_left_to_the_next_sweep(
    url: str, small: None
) -> None:
    """The checkpoint is gone all the same, and that is what the caller hears."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(b"x" * 200, id="a")
        store.fail("get", Unavailable("test", "trouble"))
        assert await checkpoints.delete("a", cut=True) == 1
        assert len(await bodies(sessions, "s")) == 1
        await checkpoints.save(b"y" * 200, id="b")
        assert len(await bodies(sessions, "s")) == 1
        store.fail("get", Unavailable("test", "trouble"))
        await checkpoints.save(b"tiny", id="b")
        assert len(await bodies(sessions, "s")) == 1
        await checkpoints.prune(keep=1)
        assert await bodies(sessions, "s") == {}


@pytest.mark.parametrize("size", [40, 200])
@pytest.mark.parametrize("by", ["session", "checkpoint"])
async def test_what_a_fork_has_of_bodies_that_are_used_later_is_pruned(
    opened: Opener, small: None, monkeypatch: pytest.MonkeyPatch, size: int, by: str
) -> None:
    """Saved anew at a later place, a checkpoint is not in the fork, and its body has no use."""
    monkeypatch.setattr("sojourn.checkpoints.bodies.REMOVED_AT_ONCE", 2)
    async with opened() as sessions:
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        for turn in range(5):
            await checkpoints.save(bytes([turn]) * size, id=f"anew {turn}")
        await checkpoints.save(b"k" * size, id="kept")
        await sessions.append("s", Event(kind="step"))
        for turn in range(5):
            await checkpoints.save(bytes([turn]) * size, id=f"anew {turn}")
        if by == "session":
            fork = await sessions.fork("s", at=0)
        else:
            fork = await checkpoints.fork("kept")
        there = sessions.checkpoints(fork)
        assert await ids(there) == ["kept"]
        before = await stored(sessions, fork.id)
        assert len(before) == 6
        await there.prune(keep=9)
        left = await stored(sessions, fork.id)
        assert left == {*await bodies(sessions, fork.id)}
        assert len(left) == 1
        for name in before - left:
            assert await sessions.documents(fork.id).list(CHUNKS + name) == []
        found = await there.get("kept")
        assert found is not None
        assert found.body == b"k" * size
        await checkpoints.prune(keep=9)
        for turn in range(5):
            found = await checkpoints.get(f"anew {turn}")
            assert found is not None
            assert found.body == bytes([turn]) * size
        await there.prune(keep=0)
        assert await is_clean(sessions, fork.id)


async def test_a_body_that_comes_into_use_while_pruning_stays(
    url: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is used and the look at what is pending it is in neither."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        read, seen = store._store.documents, list[str]()
        uploaded, go = asyncio.Event(), asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            yield b"x" * 200
            uploaded.set()
            await go.wait()

        saving = asyncio.create_task(checkpoints.save(source(), id="a"))
        await uploaded.wait()

        async def overtaken(query: Any) -> Any:
            seen.append(query.collection)
            if query.collection == PENDING and STORED in seen:
                go.set()
                await saving
            return await read(query)

        monkeypatch.setattr(store._store, "documents", overtaken)
        await checkpoints.prune(keep=1)
        monkeypatch.undo()
        assert saving.done()
        found = await checkpoints.get("a")
        assert found is not None
        assert found.body == b"x" * 200


async def test_a_session_that_is_ending_keeps_its_checkpoints(opened: Opener) -> None:
    async with opened() as sessions:
        await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")
        await checkpoints.save(b"kept", id="a")
        await sessions.end("s", retain=60)
        for write in (checkpoints.delete("a"), checkpoints.prune(keep=0), checkpoints.save(b"")):
            with pytest.raises(Ended):
                await write
        found = await checkpoints.get("a")
        assert found is not None
        assert found.body == b"kept"

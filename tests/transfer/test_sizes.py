"""What is large, or much: pages that are full, parts that are refused, notes by the hundred."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.transfer.contents import CLOCK, contents, fill, opened

from sojourn import Event, SessionManager
from sojourn.errors import AlreadyExists, Corrupt, TooLarge
from sojourn.limits import DUMP_BYTES, MAX_STATE, PART_BYTES
from sojourn.ports import RandomIds
from sojourn.restoring import item_weight, weight
from sojourn.store import Change, Put, RestoreShared, Tier, Walk
from sojourn.stores.memory import MemoryStore
from sojourn.transfer import copy, export_sessions, import_sessions
from sojourn.transfer.files import in_thread
from sojourn.transfer.journal import Journal, Note

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn.store import Restore
    from sojourn.transfer.walking import TransferStore

MUCH = 900_000
"""Bytes of which some fit into a part and few into a page."""


async def filled(store: TransferStore) -> SessionManager:
    """Put sessions that are almost too large for one part, and large tiers and documents."""
    sessions = SessionManager(store, app="shop", clock=CLOCK)
    for number in range(7):
        state = {"user:much": "x" * MUCH, "n": number}
        s = await sessions.create(id=f"s-{number}", user=f"u-{number}", state=state)
        await sessions.append(s, Event(kind="k", body="y" * MUCH))
        await sessions.documents(None).put("d", f"{number}", b"z" * MUCH)
    return sessions


async def test_pages_are_bounded_by_their_bytes(url: str) -> None:
    async with opened(url) as store:
        await filled(store)
        position: str | None = None
        pages = 0
        for ids in (None, tuple(f"s-{number}" for number in range(7))):
            seen: list[str] = []
            while True:
                walk = Walk(app="shop", now=CLOCK.now(), ids=ids, position=position)
                page = await store.dump(walk)
                seen += [snapshot.header.id for snapshot in page.snapshots]
                assert sum(map(weight, page.snapshots)) <= DUMP_BYTES + PART_BYTES
                pages += 1
                if (position := page.position) is None:
                    break
            assert seen == [f"s-{number}" for number in range(7)]
        assert pages >= 4
        position, users, documents, pages = None, 0, 0, 0
        while True:
            shared = await store.shared("shop", CLOCK.now(), position)
            users += sum(isinstance(item, Tier) for item in shared.items)
            documents += sum(not isinstance(item, Tier) for item in shared.items)
            assert sum(map(item_weight, shared.items)) <= DUMP_BYTES + PART_BYTES
            pages += 1
            if (position := shared.position) is None:
                break
        assert (users, documents) == (7, 7)
        assert pages >= 3


async def test_much_is_moved_like_little(url: str, tmp_path: Path) -> None:
    async with opened(url) as source, opened("memory://") as target, opened("memory://") as other:
        await filled(source)
        await export_sessions(source, tmp_path / "file.gz", clock=CLOCK)
        await import_sessions(target, tmp_path / "file.gz", clock=CLOCK)
        assert (await copy(source, other, clock=CLOCK)).complete
        assert await contents(source) == await contents(target) == await contents(other)


async def test_a_large_session_that_is_refused_is_passed_over(url: str, tmp_path: Path) -> None:
    async with opened("memory://") as source, opened(url) as target:
        ours = SessionManager(source, app="shop", clock=CLOCK)
        large = await ours.create(id="large")
        for _ in range(4):
            await ours.append(large, Event(kind="k", body="x" * MUCH))
        await ours.create(id="small")
        theirs = SessionManager(target, app="shop", clock=CLOCK)
        await theirs.create(id="large", state={"own": True})
        await export_sessions(source, tmp_path / "file", clock=CLOCK)
        imported = await import_sessions(target, tmp_path / "file", clock=CLOCK)
        assert (imported.restored, imported.refused) == (1, 1)
        assert isinstance(imported.refusals[0].error, AlreadyExists)
        outcome = await copy(source, target, clock=CLOCK)
        assert (outcome.verified, outcome.different) == (1, 1)
        assert (await theirs.require("large")).state["own"] is True


@pytest.mark.parametrize("replace", [False, True])
async def test_a_tier_does_not_grow_over_its_limit(url: str, *, replace: bool) -> None:
    async with opened(url) as store:
        sessions = SessionManager(store, app="shop", clock=CLOCK)
        await sessions.create(state={"app:there": "x" * 1_000_000})
        size = MAX_STATE if replace else MAX_STATE - 900_000
        given = {"new": msgspec.Raw(b'"' + b"x" * size + b'"')}
        restore = RestoreShared(app="shop", items=(Tier(user=None, state=given),), replace=replace)
        before = await contents(store)
        with pytest.raises(TooLarge):
            await store.restore_shared(restore)
        assert await contents(store) == before


class Shuffling(MemoryStore):
    """Applies what comes at the same time in any order, as a store across a network does."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = random.Random(1)

    async def restore(self, restore: Restore, /) -> Any:
        for _ in range(self.dice.randrange(9)):
            await asyncio.sleep(0)
        return await super().restore(restore)


async def test_parents_are_there_before_their_children_come(tmp_path: Path) -> None:
    async with opened("memory://") as source:
        sessions = SessionManager(source, app="shop", clock=CLOCK)
        for number in range(60):
            parent = f"{number - 1}" if number % 5 else None
            await sessions.create(id=f"{number}", parent=parent)
        await export_sessions(source, tmp_path / "file", clock=CLOCK)
        assert (await import_sessions(Shuffling(), tmp_path / "file")).refused == 0
        target = Shuffling()
        assert (await copy(source, target, clock=CLOCK)).put == 60


async def test_an_import_leaves_other_apps_large_sessions_out(tmp_path: Path) -> None:
    async with opened("memory://") as source, opened("memory://") as target:
        for app in ("a", "b"):
            sessions = SessionManager(source, app=app, clock=CLOCK)
            large = await sessions.create(id="large")
            for _ in range(3):
                await sessions.append(large, Event(kind="k", body="x" * MUCH))
        await export_sessions(source, tmp_path / "file", clock=CLOCK)
        assert (await import_sessions(target, tmp_path / "file", apps=["b"])).restored == 1
        assert await contents(target) == await contents(source, "b")


async def test_notes_are_read_page_by_page() -> None:
    async with opened("memory://") as store:
        await fill(store)
        journal = Journal(store, "source", "shop", clock=CLOCK, ids=RandomIds())
        other = Journal(store, "another source", "shop", clock=CLOCK, ids=RandomIds())
        for number in range(230):
            await journal.add(Note(sessions=((f"{number}", "epoch", 1),)))
        seen = {note.sessions[0][0] async for note in journal.notes()}
        assert seen == {f"{number}" for number in range(230)}
        assert [note async for note in other.notes()] == []
        await journal.clear()
        assert [note async for note in journal.notes()] == []


async def test_a_damaged_note_is_no_reason_to_remove_anything() -> None:
    async with opened("memory://") as source, opened("memory://") as target:
        await fill(source)
        await copy(source, target, clock=CLOCK)
        before = await contents(target)
        items = (await target.shared("shop", CLOCK.now(), None)).items
        (first, *_) = [item for item in items if "copy" in getattr(item, "collection", "")]
        assert not isinstance(first, Tier)
        put = Put(collection=first.collection, key=first.key, body=b"{", content_type="x")
        change = Change(app="shop", id=None, op=b"12345678", now=CLOCK.now(), documents=(put,))
        await target.commit(change)
        with pytest.raises(Corrupt, match="note"):
            await copy(source, target, clock=CLOCK)
        assert await contents(target) == before


async def test_a_thread_is_waited_for_whoever_cancels() -> None:
    began, go_on = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        assert go_on.wait(30)
        return "done"

    task = asyncio.create_task(in_thread(work))
    assert await asyncio.to_thread(began.wait, 30)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    await asyncio.wait([task])
    assert task.cancelled()

"""The store in plain files beside other processes: forked ones, and stopped ones."""

from __future__ import annotations

import asyncio
import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.faults.processes import Worker

from sojourn import Event, SessionManager, Unavailable
from sojourn.stores.filesystem import FilesystemStore, writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def kept_gate(path: Path) -> Iterator[None]:
    """Keep the gate shut, as a process does that was stopped in the middle of a write."""
    with (path / "gate").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def test_a_stopped_process_makes_writes_unavailable_and_reads_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes fail after a bounded wait and leave nothing; then work goes on."""
    path = tmp_path / "s"
    async with SessionManager.open(f"file://{path}") as sessions:
        await sessions.create(id="s", events=[Event(kind="first")])
        with kept_gate(path):
            monkeypatch.setattr(writer, "GATE_SECONDS", 0.05)
            for _ in range(3):
                with pytest.raises(Unavailable, match="nothing was written"):
                    await sessions.append("s", Event(kind="late"))
            assert len(await sessions.events("s")) == 1, "reads go on meanwhile"
            monkeypatch.setattr(writer, "GATE_SECONDS", 30.0)
            waiting = asyncio.create_task(sessions.append("s", Event(kind="after")))
        assert (await waiting).seq == 2


async def test_opening_and_closing_do_not_wait_for_a_stopped_process_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the gate is kept, `open` is `Unavailable` and `close` ends; later, all is there."""
    path = tmp_path / "s"
    store = FilesystemStore(path)
    await store.open()
    sessions = SessionManager(store)
    await sessions.create(id="gone")
    await sessions.create(id="s")
    await sessions.delete("gone")
    monkeypatch.setattr(writer, "GATE_SECONDS", 0.05)
    other = FilesystemStore(path)
    with kept_gate(path):
        with pytest.raises(Unavailable, match="another process has kept the folder"):
            await other.open()
        await store.close()
    monkeypatch.setattr(writer, "GATE_SECONDS", 30.0)
    await other.open()
    assert await SessionManager(other).get("s") is not None
    assert await SessionManager(other).get("gone") is None
    await other.close()


def test_a_forked_child_is_told_and_harms_nobody(tmp_path: Path) -> None:
    """Every verb of the child is `Closed`; the parent goes on, and so do other processes."""
    url = f"file://{tmp_path / 's'}"
    with Worker("forker", url) as forker:
        told: dict[str, object] = {}
        while len(told) < 3:
            told |= forker.hear()
        assert told["parent"] == [2]
        assert told["verbs"] == ["Closed"] * 5 + [""]
        asyncio.run(append(url, 3))
        forker.say()
        assert forker.finish() == 0
    asyncio.run(append(url, 4))


async def append(url: str, seq: int) -> None:
    """Append from this process; nobody keeps the gate."""
    async with asyncio.timeout(20), SessionManager.open(url) as sessions:
        assert (await sessions.append("s", Event(kind="op"))).seq == seq

"""Laws of backups: a copy made while the store is in use, and a store that can check itself."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from sojourn.errors import SojournError
from sojourn.store import SupportsBackup
from sojourn.testing.laws.corner import ONE, Corner, draft, drafts, put
from sojourn.testing.laws.expect import Broken, equal, exactly, holds, refused
from sojourn.testing.laws.law import law


def backing(corner: Corner) -> SupportsBackup:
    """Return the store as one that makes backups."""
    if not isinstance(corner.store, SupportsBackup):
        raise Broken("this store does not support backups")
    return corner.store


@law(needs=SupportsBackup)
async def a_store_in_use_checks_out(corner: Corner) -> None:
    """After all kinds of writes, `check` finds nothing wrong."""
    await corner.create(user="u", state={"n": 1}, events=drafts(5), labels={"a": "b"}, idle=10)
    await corner.commit(documents=(put("doc"),), truncate_after=2)
    await corner.create("child", parent=ONE)
    await corner.fork()
    await corner.delete("child")
    await corner.reap(now=10)
    equal(list(await backing(corner).check()), [], "what is wrong")


@law(needs=SupportsBackup)
async def a_backup_is_made_while_writers_go_on(corner: Corner) -> None:
    """It appears at its path, and no commit meanwhile is lost or refused."""
    await corner.create()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy"
        writes = [corner.append(draft(f"e{n}", "x" * 1000)) for n in range(100)]
        await asyncio.gather(backing(corner).backup(str(path)), *writes)
        there = await asyncio.to_thread(lambda: path.is_dir() or path.stat().st_size > 0)
        holds(there, "something is at the path of the backup")
    equal(await corner.seqs(), list(range(1, 101)), "the log after the backup")
    equal(list(await backing(corner).check()), [], "what is wrong after the backup")


@law(needs=SupportsBackup)
async def a_backup_overwrites_nothing(corner: Corner) -> None:
    """A path where something is already is refused, and that something stays as it is."""
    await corner.create(state={"n": 1})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taken"
        await asyncio.to_thread(path.write_bytes, b"precious")
        await refused(backing(corner).backup(str(path)), SojournError, "a backup over a file")
        equal(await asyncio.to_thread(path.read_bytes), b"precious", "the file that was there")
    exactly(await corner.state(), {"n": 1}, "the state after the refusal")

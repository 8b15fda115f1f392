"""Copies among real processes: killed in the middle, and beside writers that go on."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.transfer.contents import CLOCK, contents, fill, headers_of, opened

from sojourn import AlreadyExists, Event, SessionManager
from sojourn.transfer import copy, export_sessions, import_sessions

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from sojourn.transfer.walking import TransferStore

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = 600


@asynccontextmanager
async def worker(script: str, *arguments: str) -> AsyncIterator[Process]:
    """Run a script of `tests/transfer/workers`; kill it in the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.transfer.workers.{script}",
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def many(store: TransferStore) -> None:
    """Put so many sessions into a store that a copy takes a while, one of them large."""
    sessions = SessionManager(store, app="shop", clock=CLOCK)
    await fill(store)
    large = await sessions.create(id="large", state={"n": 1})
    for _ in range(4):
        await sessions.append(large, Event(kind="k", body="x" * 600_000))
    for first in range(0, SESSIONS, 100):
        made = [
            sessions.create(id=f"{n:06}", state={"n": n}, user=f"u-{n % 5}")
            for n in range(first, first + 100)
        ]
        await asyncio.gather(*made)


async def test_a_copy_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    ours = f"sqlite:///{tmp_path}/source.db"
    async with opened(ours) as source:
        await many(source)
        before = await contents(source)
        headers = await headers_of(source, "shop")
        for lines in (1, 2, 3, 6):
            theirs = f"sqlite:///{tmp_path}/target {lines}.db"
            async with worker("copier", ours, theirs) as process:
                assert process.stdout is not None
                for _ in range(lines):
                    assert await process.stdout.readline()
                process.kill()
                await process.wait()
            async with opened(theirs) as target:
                there = await headers_of(target, "shop")
                assert there == headers[: len(there)]  # whole or not there at all
                outcome = await copy(source, target, clock=CLOCK)
                assert outcome.complete
                assert outcome.put == len(headers) - len(there)
                assert await contents(target) == before
                assert await target.check() == []  # type: ignore[attr-defined]  # a SQLite store can


async def test_writers_go_on_during_a_copy(tmp_path: Path) -> None:
    ours, theirs = (f"sqlite:///{tmp_path}/{name}.db" for name in ("source", "target"))
    async with opened(ours) as source, opened(theirs) as target:
        await many(source)
        async with worker("writer", ours, "1") as one, worker("writer", ours, "2") as two:
            for process in (one, two):
                assert process.stdout is not None
                assert await process.stdout.readline() == b"writing\n"
            for _ in range(3):
                outcome = await copy(source, target)
                # An id that was given again between two looks waits for the next copy.
                assert outcome.different == len(outcome.refusals)
                assert {type(refusal.error) for refusal in outcome.refusals} <= {AlreadyExists}
            exported = tmp_path / "export.gz"
            await export_sessions(source, exported)
            for process in (one, two):
                said, _ = await process.communicate(b"")
                assert process.returncode == 0
                assert int(said) > 10
        outcome = await copy(source, target)
        assert outcome.complete
        assert await _by_id(target) == await _by_id(source)
        assert await target.check() == []  # type: ignore[attr-defined]  # a SQLite store can
        async with opened("memory://") as other:
            imported = await import_sessions(other, exported)
            assert imported.restored > SESSIONS / 2
            # An id that was given again meanwhile is in the file twice; the first one stays.
            assert {type(refusal.error) for refusal in imported.refusals} <= {AlreadyExists}


async def _by_id(store: TransferStore) -> dict[str, object]:
    """Return all that a store holds, whatever the order of creation."""
    found = (await contents(store))["shop"]
    return {"shared": found["shared"], **{item[0].id: item for item in found["sessions"]}}

"""The power goes off at any moment: a checkpoint that was acknowledged is whole, none is half."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, cast

from tests.checkpoints.contents import ids, pieces
from tests.crash.power_loss import crash_image, crash_point
from tests.crash.recording_vfs import RecordingVFS
from tests.faults.actors import opened
from tests.faults.soak import Progress, count, scaled

from sojourn.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from tests.crash.recording_vfs import Trace

    from sojourn.checkpoints import Checkpoint
    from sojourn.stores.sqlite import SqliteStore

IMAGES = count(40, 1_000)


def body_of(name: str) -> bytes:
    """Return the body that a checkpoint of this name has: small, of one chunk, or of many."""
    number = int(name)
    return bytes([number]) * (10, 5_000, 40_000)[number % 3]


async def record(directory: Path) -> Trace:
    """Save checkpoints through the recorder, and mark each once it is acknowledged."""
    recorder = RecordingVFS(directory)
    sessions = await opened(directory / "a.db", vfs=recorder.name)
    await sessions.create(id="s")
    recorder.mark("")
    checkpoints = sessions.checkpoints("s")
    parent: Checkpoint | None = None
    for number in range(12):
        body = body_of(str(number))
        parent = await checkpoints.save(
            pieces(body[:9_000], body[9_000:]), id=str(number), parent=parent
        )
        recorder.mark(str(number))
    await sessions.store.close()
    recorder.close()
    return recorder.trace


async def examine(path: Path, acknowledged: list[str]) -> int:
    """Check an image, and return how many checkpoints are in it."""
    sessions = await opened(path)
    try:
        assert not await cast("SqliteStore", sessions.store).check()
        if await sessions.get("s") is None:
            assert not acknowledged
            return 0
        checkpoints = sessions.checkpoints("s")
        there = (await ids(checkpoints))[::-1]
        assert there == [str(number) for number in range(len(there))]
        assert set(acknowledged) <= {"", *there}
        for name in there:
            found = await checkpoints.get(name)
            assert found is not None
            assert found.body == body_of(name)
        return len(there)
    finally:
        await sessions.store.close()


@scaled
def test_checkpoints_survive_every_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks do not wait for the disk; the commit that completes them does, for all of them."""
    monkeypatch.setattr("sojourn.checkpoints.keeping.CHUNK_BYTES", 8_192)
    monkeypatch.setattr("sojourn.checkpoints.keeping.INLINE_BYTES", 1_024)
    (tmp_path / "live").mkdir()
    trace = asyncio.run(record(tmp_path / "live"))
    progress = Progress("power loss, checkpoints", IMAGES)

    async def examine_all() -> set[int]:
        found: set[int] = set()
        for seed in range(progress.total):
            rng = random.Random(seed)
            marks = crash_image(trace, crash_point(trace, rng), rng, tmp_path / "image")
            try:
                found.add(await examine(tmp_path / "image" / "a.db", cast("list[str]", marks)))
            except Unavailable:
                assert not marks  # the file itself was still being made
            progress.at(seed + 1)
        return found

    assert len(asyncio.run(examine_all())) > 5

"""The power goes off at any moment: what was acknowledged is on the disk, whole.

The real store writes through a VFS that records what reaches the disk; images of what could be left
are built from that, and opened with the store itself.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, cast

import pytest
from tests.crash.power_loss import crash_image, crash_point
from tests.crash.recording_vfs import Kind, RecordingVFS
from tests.faults.actors import Appender, Founder, Maker, Trimmer, judge, opened, run
from tests.faults.soak import Progress, count, scaled

from sojourn import SojournError
from sojourn.stores.sqlite import SqliteStore, writer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.recording_vfs import Trace
    from tests.faults.actors import Actor

    from sojourn.store import Durability

IMAGES = count(100, 2_000)
STEPS = 16
LAX = "lax"
"""The actor that asks for relaxed writes from a durable store: what it loses is not counted."""

CHECKPOINT_PAGES = 60
"""Few, so that the log is moved into the file in the middle of the work."""


def cast_of_actors(*others: Actor) -> list[Actor]:
    """Return actors that take the store's default durability, and others beside them."""
    appenders = [Appender(f"a{number}") for number in range(3)]
    alike: list[Actor] = [Trimmer("t0"), Trimmer("t1"), Maker("m0"), Maker("m1")]
    return [Founder(), *others, *appenders, *alike]


def live(folder: Path) -> Path:
    """Make the folder of the file that is recorded."""
    folder.mkdir()
    return folder


async def record(
    directory: Path, durability: Durability, *others: Actor
) -> tuple[Trace, list[Actor]]:
    """Write to a new file through the recorder, close it, open it and write again."""
    recorder = RecordingVFS(directory)
    actors = cast_of_actors(*others)

    def note(what: str, actor: Actor, step: int) -> None:
        recorder.mark((what, actor.name, step))

    for _ in range(2):
        path = directory / "a.db"
        sessions = await opened(path, durability=durability, vfs=recorder.name)
        if actors[0].left == [False]:
            await run(sessions, actors[:1], 1, note)
        await run(sessions, actors[1:], STEPS, note)
        await sessions.store.close()
    recorder.close()
    return recorder.trace, actors


def acknowledged(marks: list[object]) -> Counter[str]:
    """Return how many steps of each actor were acknowledged before the crash."""
    done: Counter[str] = Counter()
    for what, name, step in cast("list[tuple[str, str, int]]", marks):
        if what == "done":
            done[name] = step
    return done


async def examine(path: Path, actors: list[Actor], done: Counter[str]) -> Counter[str]:
    """Open an image the way a restarted process would, and judge it."""
    try:
        sessions = await opened(path)
    except SojournError as error:
        return Counter({"corrupt": 1, f"corrupt: {type(error).__name__}": 1})
    verdicts: Counter[str] = Counter()
    store = cast("SqliteStore", sessions.store)
    try:
        verdicts["corrupt"] = bool(await store.check())
        for actor in actors:
            verdict = judge(actor, await actor.observe(sessions), done[actor.name])
            verdicts[f"{verdict} {actor.name}"] = 1
            if (verdict, actor.name) != ("lost", LAX):
                verdicts[verdict] = 1
    except SojournError:
        verdicts["corrupt"] = 1
    finally:
        await store.close()
    return verdicts


def examine_images(
    trace: Trace, actors: list[Actor], target: Path, progress: Progress
) -> Counter[str]:
    """Return in how many images something was lost, torn or corrupt, also for each actor."""

    async def examine_all() -> Counter[str]:
        tally: Counter[str] = Counter()
        for seed in range(progress.total):
            rng = random.Random(seed)
            marks = crash_image(trace, crash_point(trace, rng), rng, target)
            tally += await examine(target / "a.db", actors, acknowledged(marks))
            progress.at(seed + 1, lost=tally["lost"], torn=tally["torn"], corrupt=tally["corrupt"])
        return tally

    return asyncio.run(examine_all())


def figure(progress: Progress, name: str, tally: Counter[str]) -> None:
    kinds = {kind: tally[kind] for kind in ("lost", "torn", "corrupt")}
    progress.figure(f"power_loss_{name}", images=progress.total, **kinds)


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", CHECKPOINT_PAGES)


@scaled
def test_durable_writes_survive_every_power_loss(tmp_path: Path) -> None:
    """Nothing acknowledged as durable is lost, nothing is torn, no image is corrupt."""
    lax = Appender(LAX, durability="relaxed")
    trace, actors = asyncio.run(record(live(tmp_path / "live"), "durable", lax))
    progress = Progress("power loss, durable", IMAGES)
    tally = examine_images(trace, actors, tmp_path / "image", progress)
    figure(progress, "durable", tally)
    assert (tally["lost"], tally["torn"], tally["corrupt"]) == (0, 0, 0), tally


@scaled
def test_a_power_loss_while_the_file_is_made_leaves_a_place_to_start(tmp_path: Path) -> None:
    """Whatever is left of a file that was being made: it opens, as new or as far as it came."""
    trace, actors = asyncio.run(record(live(tmp_path / "live"), "durable"))
    made = next(at for at, op in enumerate(trace.ops) if op.kind is Kind.MARK)
    # Between the first write of the file's first page and its sync, only the journal is whole.
    first_sync = next(
        at for at, op in enumerate(trace.ops) if op.kind is Kind.SYNC and op.inode == 0
    )
    progress = Progress("power loss while the file is made", count(200, 2_000))

    async def examine_all() -> Counter[str]:
        tally: Counter[str] = Counter()
        for seed in range(progress.total):
            rng = random.Random(seed)
            point = first_sync if seed % 2 else rng.randrange(made)
            marks = crash_image(trace, point, rng, tmp_path / "image")
            tally += await examine(tmp_path / "image" / "a.db", actors, acknowledged(marks))
            progress.at(seed + 1, corrupt=tally["corrupt"])
        return tally

    tally = asyncio.run(examine_all())
    figure(progress, "creation", tally)
    assert (tally["lost"], tally["torn"], tally["corrupt"]) == (0, 0, 0), tally


@scaled
def test_relaxed_writes_may_be_lost_but_are_never_torn(tmp_path: Path) -> None:
    """Relaxed writes keep the file consistent; that some are lost shows that they were relaxed."""
    trace, actors = asyncio.run(record(live(tmp_path / "live"), "relaxed"))
    progress = Progress("power loss, relaxed", IMAGES)
    tally = examine_images(trace, actors, tmp_path / "image", progress)
    figure(progress, "relaxed", tally)
    assert (tally["torn"], tally["corrupt"]) == (0, 0), tally
    assert tally["lost"] > 0, "nothing was ever at risk"


@scaled
def test_a_durable_write_among_relaxed_ones_is_durable(tmp_path: Path) -> None:
    """In a relaxed store, who asks for durable writes loses none, while its neighbours do."""
    strict = Appender("strict", durability="durable")
    trace, actors = asyncio.run(record(live(tmp_path / "live"), "relaxed", strict))
    progress = Progress("power loss, durable among relaxed", IMAGES)
    tally = examine_images(trace, actors, tmp_path / "image", progress)
    figure(progress, "mixed", tally)
    assert (tally["torn"], tally["corrupt"], tally["lost strict"]) == (0, 0, 0), tally
    assert tally["lost"] > 0, "the neighbours were never at risk"


@scaled
def test_without_syncs_the_same_images_lose_and_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with syncs off, the very same examination finds loss and corruption."""

    def off(self: writer.Writer, _level: str) -> None:
        self._db.execute("PRAGMA synchronous=OFF")

    monkeypatch.setattr(writer.Writer, "_set_synchronous", off)
    trace, actors = asyncio.run(record(live(tmp_path / "live"), "durable"))
    progress = Progress("power loss, control without syncs", count(60, 500))
    tally = examine_images(trace, actors, tmp_path / "image", progress)
    figure(progress, "control", tally)
    assert tally["lost"] > 0, tally
    assert tally["corrupt"] + tally["torn"] > 0, tally

"""The power goes off at any moment: what was acknowledged is in the files, whole.

The real store writes through a disk that records every call; images of what could be left are built
from that, and opened with the store itself.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from tests.crash.recording_disk import RecordingDisk, UnsyncedDisk, crash_image, crash_point
from tests.faults.actors import Appender, Founder, Maker, Trimmer, judge, opened_files, run
from tests.faults.soak import Progress, count, scaled

from sojourn import SojournError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.actors import Actor

    from sojourn.store import Durability

IMAGES = count(80, 2_000)
STEPS = 10
LAX = "lax"
"""The actor that asks for relaxed writes from a durable store: what it loses is not counted."""


async def record(disk: RecordingDisk, durability: Durability, *others: Actor) -> list[Actor]:
    """Write to a new folder through the recorder, compacting meanwhile; again after opening."""
    appenders = [Appender(f"a{number}") for number in range(3)]
    makers: list[Actor] = [Trimmer("t0"), Trimmer("t1"), Maker("m0"), Maker("m1")]
    actors: list[Actor] = [Founder(), *others, *appenders, *makers]

    def note(what: str, actor: Actor, step: int) -> None:
        disk.mark((what, actor.name, step))

    for _ in range(2):
        sessions = await opened_files(f"{disk.root}/s", durability=durability, disk=disk)
        if actors[0].left == [False]:
            await run(sessions, actors[:1], 1, note)
        store: Any = sessions.store
        await asyncio.gather(run(sessions, actors[1:], STEPS, note), store.compact())
        await store.close()
    return actors


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
        sessions = await opened_files(path)
    except SojournError as error:
        return Counter({"corrupt": 1, f"corrupt: {error}": 1})
    verdicts: Counter[str] = Counter()
    store: Any = sessions.store
    try:
        for words in await store.check():
            verdicts["corrupt"] = verdicts[f"corrupt: {words}"] = 1
        for actor in actors:
            verdict = judge(actor, await actor.observe(sessions), done[actor.name])
            verdicts[f"{verdict} {actor.name}"] = 1
            if (verdict, actor.name) != ("lost", LAX):
                verdicts[verdict] = 1
    except SojournError as error:
        verdicts["corrupt"] = verdicts[f"corrupt: {error}"] = 1
    finally:
        await store.close()
    return verdicts


def examine_images(
    disk: RecordingDisk, actors: list[Actor], target: Path, progress: Progress
) -> Counter[str]:
    """Return in how many images something was lost, torn or corrupt, also for each actor."""

    async def examine_all() -> Counter[str]:
        tally: Counter[str] = Counter()
        for seed in range(progress.total):
            rng = random.Random(seed)
            marks = crash_image(disk.ops, crash_point(disk.ops, rng), rng, target)
            tally += await examine(target / "s", actors, acknowledged(marks))
            progress.at(seed + 1, lost=tally["lost"], torn=tally["torn"], corrupt=tally["corrupt"])
        return tally

    tally = asyncio.run(examine_all())
    kinds = {kind: tally[kind] for kind in ("lost", "torn", "corrupt")}
    progress.figure(progress.what.replace(" ", "_"), images=progress.total, **kinds)
    return tally


def recorder(folder: Path, kind: type[RecordingDisk] = RecordingDisk) -> RecordingDisk:
    """Return a recorder of a new folder."""
    folder.mkdir()
    return kind(folder)


@scaled
def test_durable_writes_survive_every_power_loss(tmp_path: Path) -> None:
    """Nothing acknowledged as durable is lost, nothing is torn, no image is corrupt."""
    disk = recorder(tmp_path / "live")
    actors = asyncio.run(record(disk, "durable", Appender(LAX, durability="relaxed")))
    progress = Progress("power loss of files durable", IMAGES)
    tally = examine_images(disk, actors, tmp_path / "image", progress)
    assert (tally["lost"], tally["torn"], tally["corrupt"]) == (0, 0, 0), tally


@scaled
def test_relaxed_writes_may_be_lost_but_are_never_torn(tmp_path: Path) -> None:
    """Relaxed writes keep the files consistent; that some are lost shows that they were relaxed."""
    disk = recorder(tmp_path / "live")
    actors = asyncio.run(record(disk, "relaxed"))
    progress = Progress("power loss of files relaxed", IMAGES)
    tally = examine_images(disk, actors, tmp_path / "image", progress)
    assert (tally["torn"], tally["corrupt"]) == (0, 0), tally
    assert tally["lost"] > 0, "nothing was ever at risk"


@scaled
def test_a_durable_write_among_relaxed_ones_is_durable(tmp_path: Path) -> None:
    """In a relaxed store, who asks for durable writes loses none, while its neighbours do."""
    disk = recorder(tmp_path / "live")
    actors = asyncio.run(record(disk, "relaxed", Appender("strict", durability="durable")))
    progress = Progress("power loss of files mixed", IMAGES)
    tally = examine_images(disk, actors, tmp_path / "image", progress)
    assert (tally["torn"], tally["corrupt"], tally["lost strict"]) == (0, 0, 0), tally


@scaled
def test_without_syncs_the_same_images_lose_and_break(tmp_path: Path) -> None:
    """The control: on a disk that syncs nothing, the very same examination finds loss."""
    disk = recorder(tmp_path / "live", UnsyncedDisk)
    actors = asyncio.run(record(disk, "durable"))
    progress = Progress("power loss of files control", count(40, 500))
    tally = examine_images(disk, actors, tmp_path / "image", progress)
    assert tally["lost"] > 0, tally
    assert tally["corrupt"] + tally["torn"] > 0, tally

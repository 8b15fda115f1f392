"""Every call to the disk fails once: an error is raised, or what was asked for is on the disk.

A fixed piece of work is done again and again, with the first, the second, the third ... call of a
kind failing, until there is none left to fail.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import apsw
import pytest
from tests.crash.failing_vfs import FailingVFS, Fault
from tests.faults.actors import Appender, Founder, Maker, Trimmer, judge, opened
from tests.faults.soak import Progress, count, scaled

from sojourn import (
    Corrupt,
    Event,
    Page,
    Session,
    SessionManager,
    SojournError,
    StorageFull,
    Unavailable,
)
from sojourn.stores.sqlite import SqliteStore, writer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.actors import Actor

ROUNDS = 7
STRIDE = count(11, 1)
"""The short form fails every eleventh call, the long one each."""


class Work:
    """One go at the work, with one call failing."""

    def __init__(self, path: Path, fault: Fault) -> None:
        self.path = path
        self.fault = fault
        self.store: SqliteStore | None = None
        self.actors: list[Actor] = [Founder(), Appender("a0"), Appender("a1")]
        self.actors += [Trimmer("t0"), Maker("m0")]
        self.done: Counter[str] = Counter()
        self.errors: list[SojournError] = []
        self.stopped = False

    async def run(self, vfs: str) -> None:
        """Open, work, close; stop early when the engine is poisoned."""
        self.store = SqliteStore(self.path, vfs=vfs)
        try:
            await self.store.open()
        except SojournError as error:
            self.errors.append(error)
            return
        sessions = SessionManager(self.store)
        while self.actors[0].left == [False] and not self.stopped:
            await self._round(sessions, self.actors[:1])
        for _ in range(ROUNDS):
            if not self.stopped:
                await self._round(sessions, self.actors[1:])
        await self.store.close()

    async def _round(self, sessions: SessionManager, actors: list[Actor]) -> None:
        steps = [actor.step(sessions) for actor in actors]
        results = await asyncio.gather(*steps, return_exceptions=True)
        for actor, result in zip(actors, results, strict=True):
            if result is None:
                self.done[actor.name] = len(actor.left) - 1
            elif isinstance(result, SojournError):
                self.errors.append(result)
            else:
                raise result
        assert self.store is not None
        assert self.store._writer is not None
        if self.store._writer.poison is not None:
            self.stopped = True
            await self._refuses_everything(sessions)
            return
        for actor, result in zip(actors, results, strict=True):
            if result is not None:
                await self._resume(sessions, actor)

    async def _resume(self, sessions: SessionManager, actor: Actor) -> None:
        """Take over what a failed step left, which is nothing or all of it."""
        found = await actor.observe(sessions)
        assert found in actor.left[-2:], f"{actor.name} is half done"
        if found != actor.left[-1]:
            actor.left.pop()
        self.done[actor.name] = len(actor.left) - 1

    async def _refuses_everything(self, sessions: SessionManager) -> None:
        """Once the disk failed, nothing is answered until the file is opened anew."""
        assert self.fault.error == "IOERR", "a full disk is no reason to stop"
        for work in (
            sessions.get("shared"),
            sessions.append("shared", Event(kind="op")),
            sessions.create(),
            sessions.list(),
            sessions.count(),
            sessions.delete("shared"),
            sessions.documents("shared").get("c", "k"),
            sessions.app_state(),
            cast("SqliteStore", sessions.store).check(),
        ):
            with pytest.raises(Unavailable):
                await work

    async def verify(self) -> None:
        """Open the file with a disk that works: all that was acknowledged is there, whole."""
        sessions = await opened(self.path)
        store = cast("SqliteStore", sessions.store)
        assert await store.check() == [], self.fault
        for actor in self.actors:
            verdict = judge(actor, await actor.observe(sessions), self.done[actor.name])
            assert verdict == "ok", f"{actor.name} is {verdict}: {self.fault}"
        await store.close()


def empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


async def attempt(path: Path, vfs: FailingVFS, fault: Fault) -> Work:
    """Do the work with a fault, judge its errors, and verify what is left."""
    work = Work(path, fault)
    vfs.arm(fault)
    try:
        await work.run(vfs.name)
    finally:
        vfs.disarm()
    for error in work.errors:
        expected = StorageFull if fault.error == "FULL" else (Unavailable, Corrupt)
        assert isinstance(error, expected), f"{error!r}: {fault}"
    await work.verify()
    return work


@pytest.fixture
def swallowed(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What apsw could not raise anywhere because SQLite goes on without, as when it closes."""
    seen: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: seen.append(report.exc_value))
    return seen


CASES = [
    Fault("write"),
    Fault("write", partial=True),
    Fault("write", error="FULL", partial=True),
    Fault("sync"),
    Fault("truncate"),
    Fault("delete"),
    Fault("open"),
    Fault("read"),
]


def name_of(fault: Fault) -> str:
    return f"{fault.kind}_{fault.error}{'_partly' if fault.partial else ''}"


@scaled
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_each_failing_call_is_reported_or_harmless(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swallowed: list[BaseException | None],
    case: Fault,
) -> None:
    """For every N: an error was raised or the work is on the disk; nothing is lost or halved."""
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 20)
    vfs = FailingVFS()
    progress = Progress(f"each {name_of(case)}", 0)
    tally: Counter[str] = Counter()

    async def all_of_them() -> None:
        nth = 1
        while True:
            empty(tmp_path / "live")
            work = await attempt(tmp_path / "live" / "a.db", vfs, replace(case, nth=nth))
            if not vfs.hits:
                return
            tally["failed"] += 1
            tally["reported"] += bool(work.errors)
            tally["poisoned"] += work.stopped
            nth += 1 if nth < 4 else STRIDE
            progress.at(nth, **tally)

    asyncio.run(all_of_them())
    vfs.close()
    progress.figure(f"io_errors_{name_of(case)}", **tally)
    assert all(isinstance(item, apsw.IOError | apsw.FullError) for item in swallowed), swallowed
    assert tally["failed"], "nothing ever failed"
    if case.error == "FULL":
        assert not tally["poisoned"]
    elif case.kind in {"write", "sync"}:
        assert tally["poisoned"]


async def test_a_poisoned_store_can_be_asked_again_and_again(tmp_path: Path) -> None:
    """The error that every verb raises from then on does not grow with each time it is raised."""
    vfs = FailingVFS()
    sessions = await opened(tmp_path / "a.db", vfs=vfs.name)
    await sessions.create(id="s")
    vfs.arm(Fault("sync", 1))
    lengths = []
    for _ in range(20):
        with pytest.raises(Unavailable, match="open it again") as caught:
            await sessions.append("s", Event(kind="op"))
        lengths.append(len(caught.traceback))
    vfs.disarm()
    await sessions.store.close()
    vfs.close()
    assert len(set(lengths[1:])) == 1
    again = await opened(tmp_path / "a.db")
    assert await again.events("s") == []
    await again.store.close()


async def read_all(sessions: SessionManager) -> list[object]:
    """Return what each kind of read answers, or the error that it raised."""
    answers: list[object] = []
    for read in (
        lambda: sessions.get("s", events=20),
        lambda: sessions.get("s"),
        lambda: sessions.events("s", last=1_000),
        lambda: sessions.documents("s").get("c", "k"),
        sessions.list,
        lambda: sessions.count(user="u"),
        lambda: sessions.user_state("u"),
    ):
        try:
            found = await read()
        except SojournError as error:
            answers.append(error)
        else:
            answers.append(summary(found))
    return answers


def summary(found: object) -> object:
    """Return what can be compared of an answer."""
    if isinstance(found, Session):
        return dict(found.state), [event.body for event in found.events]
    if isinstance(found, Page):
        return [(session.id, dict(session.state)) for session in found.items], found.corrupt
    return found


async def test_a_read_that_fails_is_unavailable_never_missing(tmp_path: Path) -> None:
    """With nothing cached, each failing read: an error or the answer, and later all answers."""
    path = tmp_path / "a.db"
    sessions = await opened(path)
    await sessions.create(id="s", user="u", state={"n": 1, "user:n": 1, "app:n": 1})
    for number in range(60):
        await sessions.append("s", Event(kind="op", body=[number, "x" * 2_000]))
    await sessions.documents("s").put("c", "k", b"x" * 50_000)
    right = await read_all(sessions)
    await sessions.store.close()
    assert None not in right
    vfs = FailingVFS()
    failed = 0
    for nth in range(1, 1_000):
        sessions = await opened(path, vfs=vfs.name)
        vfs.arm(Fault("read", nth))
        answers = await read_all(sessions)
        vfs.disarm()
        for answer, expected in zip(answers, right, strict=True):
            assert isinstance(answer, Unavailable) or answer == expected, nth
        failed += any(isinstance(answer, Unavailable) for answer in answers)
        assert await read_all(sessions) == right, "one failed read spoils later ones"
        await sessions.store.close()
        if not vfs.hits:
            break
    assert not vfs.hits, "there are more reads than were tried"
    vfs.close()
    assert failed > 20

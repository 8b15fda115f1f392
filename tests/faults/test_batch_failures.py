"""Many commits in one transaction: each is refused or done on its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import apsw
import pytest
from tests.crash.failing_vfs import FailingVFS, Fault
from tests.faults.actors import opened

from sojourn import (
    AlreadyExists,
    Conflict,
    Corrupt,
    Event,
    NotFound,
    RoleTaken,
    SessionManager,
    SojournError,
    StorageFull,
    TooLarge,
    Unavailable,
    Unbound,
    batcher,
)
from sojourn.limits import MAX_STATE
from sojourn.stores.sqlite.batch import Batch
from sojourn.stores.sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from sojourn.operations import Operation
    from sojourn.stores.sqlite import SqliteStore

NEIGHBOURS = 20


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many operations each transaction has."""
    seen: list[int] = []
    transact = Writer._transact

    def counted(self: Writer, operations: list[Operation]) -> Any:
        seen.append(len(operations))
        return transact(self, operations)

    monkeypatch.setattr(Writer, "_transact", counted)
    monkeypatch.setattr(batcher, "BATCH_BYTES", 1 << 40)
    return seen


async def neighbours(sessions: SessionManager, first: int) -> AsyncIterator[Awaitable[object]]:
    """Yield innocent commits to one session."""
    for number in range(first, first + NEIGHBOURS // 2):
        event = Event(kind="op", body=number)
        yield sessions.append("s", event, state={f"k{number}": number, f"user:k{number}": number})


async def among_neighbours(
    sessions: SessionManager, bad: Callable[[], Awaitable[object]]
) -> BaseException | None:
    """Do something bad in the middle of a batch; return its error, after all others succeeded."""
    before = [work async for work in neighbours(sessions, 0)]
    after = [work async for work in neighbours(sessions, NEIGHBOURS // 2)]
    opening = asyncio.create_task(sessions.store.tiers("default", None))
    await opening
    results = await asyncio.gather(*before, bad(), *after, return_exceptions=True)
    error = results.pop(len(before))
    assert [result for result in results if not isinstance(result, Event)] == []
    session = await sessions.require("s", events=1000)
    assert sorted(event.body for event in session.events) == list(range(NEIGHBOURS))
    for number in range(NEIGHBOURS):
        assert session.state[f"k{number}"] == session.state[f"user:k{number}"] == number
    assert await cast("SqliteStore", sessions.store).check() == []
    return error if isinstance(error, BaseException) else None


async def prepared(path: Path, **options: Any) -> SessionManager:
    sessions = await opened(path, **options)
    await sessions.create(id="s", user="u")
    await sessions.create(id="anonymous")
    await sessions.create(id="held", labels={"role": "r"}, exclusive=("role",))
    return sessions


async def stale_save(sessions: SessionManager) -> None:
    session = await sessions.require("anonymous")
    await sessions.append("anonymous", Event(kind="op"))
    session.state["x"] = 1
    await sessions.save(session, conflict="fail")


REFUSED: dict[str, tuple[type[SojournError], Callable[[SessionManager], Awaitable[object]]]] = {
    "unbound": (Unbound, lambda s: s.append("anonymous", Event(kind="op"), state={"user:x": 1})),
    "missing": (NotFound, lambda s: s.append("nowhere", Event(kind="op"))),
    "conflict": (Conflict, stale_save),
    "exists": (AlreadyExists, lambda s: s.create(id="s", state={"x": 1, "app:x": 1})),
    "role": (RoleTaken, lambda s: s.create(labels={"role": "r"}, exclusive=("role",))),
    "too large": (
        TooLarge,
        lambda s: s.append(
            "s",
            Event(kind="op"),
            state={f"big{n}": "x" * (MAX_STATE // 5) for n in range(6)},
        ),
    ),
    "too large for a tier": (
        TooLarge,
        lambda s: s.append(
            "s",
            Event(kind="op"),
            state={f"user:big{n}": "x" * (MAX_STATE // 5) for n in range(6)} | {"small": 1},
        ),
    ),
}


@pytest.mark.parametrize(("error", "bad"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_commit_leaves_its_neighbours_alone(
    tmp_path: Path,
    batches: list[int],
    error: type[SojournError],
    bad: Callable[[SessionManager], Awaitable[object]],
) -> None:
    """One commit in the middle of a batch is refused with its own error and leaves no trace."""
    sessions = await prepared(tmp_path / "a.db")
    assert isinstance(await among_neighbours(sessions, lambda: bad(sessions)), error)
    assert max(batches) > NEIGHBOURS // 2, "there was no batch"
    session = await sessions.require("s")
    assert not [key for key in session.state if key.removeprefix("user:")[0] != "k"]
    await sessions.store.close()


@pytest.mark.parametrize(
    "broken",
    [
        (apsw.SQLITE_CONSTRAINT_UNIQUE, Unavailable),
        (apsw.SQLITE_TOOBIG, Unavailable),
        (apsw.SQLITE_FULL, StorageFull),
        (apsw.SQLITE_CORRUPT, Corrupt),
    ],
)
@pytest.mark.parametrize("moment", ["when applied", "when written"])
async def test_a_commit_that_breaks_the_transaction_breaks_only_its_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches: list[int],
    broken: tuple[int, type[SojournError]],
    moment: str,
) -> None:
    """An error of the driver undoes the batch; each commit is then done alone."""
    code, error = broken
    sessions = await prepared(tmp_path / "a.db")
    fail_for(monkeypatch, "anonymous", apsw.exception_for(code), moment)
    found = await among_neighbours(
        sessions, lambda: sessions.append("anonymous", Event(kind="op"), state={"app:x": 1})
    )
    monkeypatch.undo()
    assert isinstance(found, error)
    assert found.__cause__ is not None, "the driver's own error is lost"
    assert max(batches) > NEIGHBOURS // 2, "there was no batch"
    assert await sessions.events("anonymous") == []
    assert await sessions.app_state() == {}
    assert (await sessions.append("anonymous", Event(kind="op"))).seq == 1
    await sessions.store.close()


def fail_for(
    monkeypatch: pytest.MonkeyPatch, id: str, error: Exception, moment: str = "when applied"
) -> None:
    """Let the driver fail in each transaction that has a commit to a session."""
    apply, commit_all = Batch.apply, Batch.commit_all

    def failing_apply(self: Batch, operation: Operation) -> Any:
        outcome = apply(self, operation)
        if getattr(operation, "id", None) == id and moment == "when applied":
            raise error
        return outcome

    def failing_commit(self: Batch) -> None:
        if ("default", id) in self.changed and moment == "when written":
            self._gathered.flush()
            raise error
        commit_all(self)

    monkeypatch.setattr(Batch, "apply", failing_apply)
    monkeypatch.setattr(Batch, "commit_all", failing_commit)


async def test_damage_met_by_one_commit_leaves_no_half_of_it_behind(
    tmp_path: Path, batches: list[int]
) -> None:
    """A commit that meets a corrupt event is refused whole: its state does not slip in."""
    sessions = await prepared(tmp_path / "a.db")
    await sessions.append("s", Event(kind="op", id="twice", body={"a": 1}))
    await sessions.store.close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("UPDATE events SET body = '{' WHERE id = 'twice'")
        db.commit()
    sessions = await opened(tmp_path / "a.db")
    results = await asyncio.gather(
        sessions.append("s", Event(kind="op", body=1), state={"one": 1}),
        sessions.append("s", Event(kind="op", body=2), state={"two": 2}),
        sessions.append(
            "s", Event(kind="op", id="twice", body={"a": 1}), state={"bad": 1, "user:bad": 1}
        ),
        sessions.append("s", Event(kind="op", body=3), state={"three": 3}),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == ["Event", "Event", "Corrupt", "Event"]
    assert max(batches) > 1, "there was no batch"
    assert dict((await sessions.require("s")).state) == {"one": 1, "two": 2, "three": 3}
    await sessions.store.close()


async def test_a_disk_that_fails_while_a_batch_is_done_one_by_one_stops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync nothing more is written: no later commit of the batch is tried."""
    vfs = FailingVFS()
    sessions = await prepared(tmp_path / "a.db", vfs=vfs.name)
    fail_for(monkeypatch, "anonymous", apsw.exception_for(apsw.SQLITE_CONSTRAINT_UNIQUE))
    first = asyncio.create_task(sessions.append("s", Event(kind="op", body="alone")))
    await asyncio.sleep(0)
    vfs.arm(Fault("sync", 3))  # the lone one, then the first of the batch, then this one
    works = [sessions.append("s", Event(kind="op", body=number)) for number in range(6)]
    works.insert(1, sessions.append("anonymous", Event(kind="op")))
    results = await asyncio.gather(first, *works, return_exceptions=True)
    assert vfs.hits == 1
    vfs.disarm()
    told = ["ok" if isinstance(result, Event) else type(result).__name__ for result in results]
    assert told == ["ok", "ok", *["Unavailable"] * 6]
    await sessions.store.close()
    again = await opened(tmp_path / "a.db")
    bodies = [event.body for event in await again.events("s")]
    assert bodies[:2] == ["alone", 0]
    assert bodies[2:] in ([], [1]), "commits were tried on a disk that had failed"
    await again.store.close()
    vfs.close()


async def test_cancelled_commits_are_whole_or_not_there(tmp_path: Path, batches: list[int]) -> None:
    """Callers cancelled before, in and after the flight: event and state agree, others succeed."""
    sessions = await prepared(tmp_path / "a.db")
    fates: Counter[str] = Counter()
    expected = 0
    for round_ in range(30):
        tasks = [
            asyncio.create_task(
                sessions.append(
                    "s",
                    Event(kind="op", body=f"{round_}.{number}"),
                    state={f"{round_}.{number}": True, f"user:{round_}.{number}": True},
                )
            )
            for number in range(12)
        ]
        for _ in range(round_ % 7):
            await asyncio.sleep(0)
        victims = tasks[round_ % 3 :: 3]
        for task in victims:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for task, result in zip(tasks, results, strict=True):
            kind = "done" if isinstance(result, Event) else type(result).__name__
            fates[kind] += 1
            assert kind == "done" or (task in victims and kind == "CancelledError")
            expected += kind == "done"
    session = await sessions.require("s", events=10_000)
    bodies = [event.body for event in session.events]
    own = {key for key in session.state if not key.startswith("user:")}
    shared = {key.removeprefix("user:") for key in session.state if key.startswith("user:")}
    assert len(bodies) == len(set(bodies)) >= expected
    assert set(bodies) == own == shared
    assert fates["CancelledError"] > 0
    assert fates["done"] > fates["CancelledError"]
    assert max(batches) > 1
    await sessions.store.close()


async def test_a_cancelled_callers_handle_agrees_with_the_store(tmp_path: Path) -> None:
    """Cancelled in flight, a working copy shows what was stored, and saves on from there."""
    sessions = await prepared(tmp_path / "a.db")
    session = await sessions.require("s")
    seen: Counter[bool] = Counter()
    for number in range(40):
        session.state["n"] = number
        task = asyncio.create_task(sessions.save(session))
        for _ in range(number % 6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stored = await sessions.require("s")
        applied = stored.state.get("n") == number
        seen[applied] += 1
        assert session.modified is not applied
        assert session.revision == stored.revision
    assert seen[True] > 0
    assert seen[False] > 0
    await sessions.save(session, conflict="fail")
    await sessions.store.close()

"""The writer decides by what it knows of the file, and decides again when that was old."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import Event, SessionManager
from sojourn.stores.sqlite import tally
from sojourn.stores.sqlite.batch import Batch

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn.operations import Operation

CROWD = 3 * tally.FEW
"""So many appends at once are written by one statement, without a transaction around it."""


PROGRAM = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    db.execute(sys.argv[2])
db.close()
"""
"""Opens the file that it is given, executes a statement and goes away."""


def another_program_writes(
    monkeypatch: pytest.MonkeyPatch, path: Path, statement: str
) -> list[Operation]:
    """Let another program change the file right after a batch was decided, once.

    Returns what has been decided since, each time it was.
    """
    apply, decided = Batch.apply, []

    def then_write(self: Batch, operation: Operation) -> Any:
        outcome = apply(self, operation)
        decided.append(operation)
        if len(decided) == 1:  # in this process, it would see no locks of ours
            subprocess.run([sys.executable, "-c", PROGRAM, path, statement], check=True)
        return outcome

    monkeypatch.setattr(Batch, "apply", then_write)
    return decided


@pytest.mark.parametrize("callers", [2, CROWD])
async def test_a_change_by_another_program_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callers: int
) -> None:
    """A batch that was decided by what was known is decided anew, and nothing is lost."""
    path = tmp_path / "a.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        held = [await sessions.create(id=f"s{n}", state={"n": 0}) for n in range(callers)]
        await asyncio.gather(*(sessions.append(s, Event(kind="x")) for s in held))
        statement = "UPDATE sessions SET revision = 40, state = '{\"theirs\":1}' WHERE id = 's0'"
        decided = another_program_writes(monkeypatch, path, statement)
        appends = (sessions.append(s, Event(kind="y"), state={"ours": 2}) for s in held)
        events = await asyncio.gather(*appends)
        assert [event.seq for event in events] == [2] * callers
        assert len(decided) > callers, "nothing was decided again"
        again = await sessions.require("s0")
        assert again.revision == 41
        assert dict(again.state) == {"theirs": 1, "ours": 2}
        for id in (s.id for s in held[1:]):
            other = await sessions.require(id)
            assert (other.revision, dict(other.state)) == (3, {"n": 0, "ours": 2})


async def test_a_session_removed_by_another_program_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gone from the file does not come back from what was known of it."""
    path = tmp_path / "a.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        held = [await sessions.create(id=f"s{n}") for n in range(CROWD)]
        await asyncio.gather(*(sessions.append(s, Event(kind="x")) for s in held))
        another_program_writes(monkeypatch, path, "DELETE FROM sessions WHERE id = 's0'")
        found = await asyncio.gather(
            *(sessions.append(s, Event(kind="y")) for s in held), return_exceptions=True
        )
        assert [type(item).__name__ for item in found] == ["NotFound"] + ["Event"] * (CROWD - 1)
        assert await sessions.get("s0") is None


@pytest.mark.parametrize("events", [1, tally.FEW, tally.FEW + 1, tally.MOST, tally.MOST + 3])
async def test_any_number_of_rows_is_written_whole(tmp_path: Path, events: int) -> None:
    """One by one, in one statement or in several: each row is there once."""
    async with SessionManager.open(f"sqlite:///{tmp_path / 'a.db'}") as sessions:
        s = await sessions.create(user="u", state={"n": 0})
        await sessions.append(s, Event(kind="first"))
        more = [Event(kind="x", body=n) for n in range(events)]
        await sessions.append(s, *more, state={"n": events, "user:n": events, "app:n": events})
        log = await sessions.events(s.id, last=events)
        assert [event.body for event in log] == list(range(events))
        again = await sessions.require(s.id)
        assert dict(again.state) == {"n": events, "user:n": events, "app:n": events}

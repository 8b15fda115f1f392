"""What reads and sweeps of a SQLite file cost, counted in steps of its virtual machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.files import APP, IDLE, START, Contents, build

from sojourn.store import Due
from sojourn.stores.sqlite import connection
from sojourn.stores.sqlite.recent import Recent
from sojourn.stores.sqlite.removal import Removal
from sojourn.stores.sqlite.transaction import Transaction

if TYPE_CHECKING:
    from pathlib import Path


def steps_to_find(path: Path, sessions: int) -> int:
    """Return how many steps it takes to find ten due sessions among so many."""
    build(path, Contents(sessions=sessions, users=5))
    db = connection.connect(str(path), vfs=None, writer=True)
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return False

    db.set_progress_handler(step, 1)
    removal = Removal(Transaction(db, Recent(), "a file"), lambda *_: None, lambda *_: None)
    found = removal.due_rows(Due(app=APP, now=START + 10 * IDLE, limit=10))
    db.close()
    assert len(found) == 10
    return steps


def test_finding_what_is_due_costs_what_is_asked_for(tmp_path: Path) -> None:
    """A batch of a sweep costs the batch, however many more sessions are due."""
    few = steps_to_find(tmp_path / "few.db", 50)
    many = steps_to_find(tmp_path / "many.db", 5_000)
    assert many <= 2 * few


def test_sessions_used_since_are_put_right_and_not_found(tmp_path: Path) -> None:
    """An index entry from before a session was used is moved, and the session is not due."""
    path = tmp_path / "used.db"
    build(path, Contents(sessions=30, users=5))
    db = connection.connect(str(path), vfs=None, writer=True)
    late = START + 100 * IDLE
    db.execute("UPDATE sessions SET due_at = ?, expires_at = ? WHERE row <= 20", (late, late))
    found = Removal(Transaction(db, Recent(), "a file"), lambda *_: None, lambda *_: None).due_rows(
        Due(app=APP, now=START + 10 * IDLE, limit=25)
    )
    assert [row for row, _ in found] == list(range(21, 31))
    moved = db.execute("SELECT count(*) FROM sessions WHERE wake_at = ?", (late,)).get
    assert moved == 20
    db.close()

"""The benchmarks run and say what they measured; never how fast anything is."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from benchmarks.core import main
from benchmarks.figures import QUICK, Bench
from benchmarks.files import APP, IDLE, START, Contents, build, session_id

from sojourn import SessionManager
from sojourn.stores.sqlite import SqliteStore
from sojourn.testing import FakeClock
from sojourn.timestamps import to_datetime

if TYPE_CHECKING:
    from pathlib import Path


def test_every_figure_is_measured_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quick run measures every figure, shows each with its target, and writes both files."""
    page = tmp_path / "performance.md"
    figures = main(["--quick", "--folder", str(tmp_path), "--write", str(page)])
    names = list(Bench(tmp_path / "files", QUICK).figures())
    assert [figure.name for figure in figures] == names
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "figures" / "core.json").read_bytes())
    assert {"date", "commit", "cpu", "cores", "python", "sqlite", "settings"} <= written.keys()
    for figure, kept in zip(figures, written["figures"], strict=True):
        assert figure.value > 0
        assert figure.rounds
        assert figure.name in shown
        assert figure.what in page.read_text(encoding="utf-8")
        assert kept["name"] == figure.name
        assert kept["met"] is figure.met
        assert len(kept["rounds"]) == len(figure.rounds)


def test_only_the_named_figures_are_measured(tmp_path: Path) -> None:
    """`--only` measures what it names and nothing else."""
    figures = main(["--quick", "--folder", str(tmp_path), "--only", "import", "memory"])
    assert [figure.name for figure in figures] == ["import", "memory"]


@pytest.mark.parametrize("events", [0, 3])
def test_a_file_written_in_bulk_is_what_the_store_would_have_written(
    tmp_path: Path, events: int
) -> None:
    """A file built for measuring passes the store's own check, and reads back as described."""
    path = tmp_path / "built.db"
    build(path, Contents(sessions=30, users=3, events=events))

    async def look() -> None:
        clock = FakeClock(to_datetime(START))
        async with SessionManager.open(f"sqlite:///{path}", app=APP, clock=clock) as sessions:
            assert isinstance(sessions.store, SqliteStore)
            assert await sessions.store.check() == []
            page = await sessions.list(user="user-1", limit=50)
            assert len(page.items) == 10
            assert await sessions.count(user="user-1") == 10
            assert await sessions.count() == 30
            assert len(await sessions.events(session_id(7))) == events
            clock.advance(2 * IDLE / 1_000_000)
            assert await sessions.count() == 0

    asyncio.run(look())

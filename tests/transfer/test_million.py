"""A million sessions: the export shows how far it is, and holds no more of them than of a few."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchmarks.files import Contents, build
from tests.cli.terminals import Terminal, terminal
from tests.faults.soak import Progress

from sojourn.stores.sqlite.connection import CACHE_KIB

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSIONS = 1_000_000
GROWTH = 1.25
"""Memory from a tenth of the way on over that before it: ten times the sessions, and no more than
the allocator's scraps."""

_SHOWN = re.compile(r"(\d+)/(\d+)")


def memory_of(process: int, what: str) -> int:
    """Return what a process holds in KB: `RssAnon` now without files, `VmHWM` all at its peak."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    assert found
    return int(found[1])


def steps(terminal: Terminal) -> Iterator[tuple[int, int]]:
    """Yield (done, total) as the screen shows it, whenever something new is shown."""
    while terminal._read():
        shown = _SHOWN.findall(terminal.screen.text)
        if shown:
            done, total = shown[-1]
            yield int(done), int(total)


def measured(folder: Path, *arguments: str) -> dict[str, int]:
    """Run a command in a terminal; return what it held in KB, and how many numbers it showed."""
    early = early_peak = late = late_peak = 0
    seen: set[int] = set()
    with terminal(folder, *arguments) as running:
        for done, total in steps(running):
            if running.process.poll() is not None:
                break
            seen.add(done)
            held = memory_of(running.process.pid, "RssAnon")
            late_peak = memory_of(running.process.pid, "VmHWM")
            if done <= total / 10 and not late:
                early, early_peak = max(early, held), late_peak
            else:
                late = max(late, held)
        assert running.finish() == 0
    return {
        "held_to_a_tenth": early,
        "held_from_there": late,
        "peak_at_a_tenth": early_peak,
        "peak_at_the_end": late_peak,
        "numbers_shown": len(seen),
    }


@pytest.mark.soak
def test_a_million_sessions_are_moved_in_flat_memory(tmp_path: Path) -> None:
    build(tmp_path / "app.db", Contents(sessions=SESSIONS, users=SESSIONS // 10))
    url = "sqlite:///app.db"
    for what, arguments in {
        "export": ("--url", url, "export", "all.jsonl.gz"),
        "import": ("--url", "sqlite:///imported.db", "import", "all.jsonl.gz"),
        "copy": ("copy", url, "sqlite:///copied.db"),
    }.items():
        progress = Progress(f"{what} of {SESSIONS} sessions", SESSIONS)
        figures = measured(tmp_path, *arguments)
        progress.figure(f"transfer-{what}", sessions=SESSIONS, **figures)
        print(what, figures)  # noqa: T201 - a soak test prints its figures
        assert figures["numbers_shown"] > 20, "the bar moves"
        # Who writes fills SQLite's page cache on the way, which is bounded.
        filled = 0 if what == "export" else CACHE_KIB
        assert figures["held_from_there"] <= figures["held_to_a_tenth"] * GROWTH + filled
        if what == "export":
            assert figures["peak_at_the_end"] <= figures["peak_at_a_tenth"] * GROWTH

"""The command line of the demo: options, the table at the end, the exit code."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sojourn import SojournError
from sojourn.demo import ledger, tour
from sojourn.demo.report import Report
from sojourn.demo.verify import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.demo.ledger import Check, Ledger

QUERIES = (
    "SELECT id, phase, revision, last_seq, state FROM session_overview",
    """SELECT seq, kind, author, body, changes FROM event_overview \
WHERE session = '{room}' ORDER BY seq DESC LIMIT 10""",
    "SELECT collection, key, content_type, size, CAST(body AS TEXT) FROM documents",
)
"""What there is to see, to be typed into a shell; shown, never run from here."""

LOSS = """DELETE FROM events WHERE seq = 1 \
AND session = (SELECT row FROM sessions WHERE id = '{room}')"""
"""How to lose a message."""

MESSAGES, QUICK_MESSAGES = 100, 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, or check what it left. Returns 0 if nothing was lost, else 1."""
    options = parse(arguments)
    report = Report(sys.stdout)
    try:
        told = ledger.load(options.folder) if options.check else play(options, report)
    except OSError as error:
        report.line(_unfit(options, error))
        return 2
    report.chapter("What the file says")
    try:
        found = asyncio.run(verify(options.folder, told))
    except SojournError as error:
        report.line(f"it can not be checked: {error}")
        return 1
    checks = [*told.checks, *found]
    report.table(checks)
    conclude(options.folder, checks, told, report)
    return 0 if all(check.ok for check in checks) else 1


def _unfit(options: argparse.Namespace, error: OSError) -> str:
    """Return what is wrong with the folder, and what to do."""
    if error.errno is None:  # said by the demo itself
        return str(error)
    if options.check and isinstance(error, FileNotFoundError):
        return f"there is nothing from an earlier run in {options.folder}"
    return f"{options.folder} can not be used: {error.strerror}; choose another --folder"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python -m sojourn.demo", description="Several processes, one file, nothing lost."
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("demo-run"), help="where the file goes (%(default)s)"
    )
    parser.add_argument(
        "--messages", type=int, default=MESSAGES, help="what each one says (%(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_const", dest="messages", const=QUICK_MESSAGES, help="a few only"
    )
    parser.add_argument(
        "--check", action="store_true", help="only check what an earlier run left in the folder"
    )
    options = parser.parse_args(arguments)
    if options.messages < 1:
        parser.error("--messages: give a number from 1")
    return options


def play(options: argparse.Namespace, report: Report) -> Ledger:
    """Run the demo on an empty database and return what happened."""
    report.line("Sojourn: several processes, one SQLite file.")
    told = ledger.start_over(options.folder)
    asyncio.run(tour.run(options.folder, told, options.messages, report))
    return told


def conclude(folder: Path, checks: Sequence[Check], told: Ledger, report: Report) -> None:
    """Say how it went and where to look."""
    wrong = sum(not check.ok for check in checks)
    report.line()
    report.line(f"{wrong} of {len(checks)} checks FAILED." if wrong else "Nothing was lost.")
    report.line(f"The file is {(folder / ledger.DATABASE).resolve()}. To look at it:")
    file = shlex.quote(str(folder / ledger.DATABASE))
    for query in QUERIES:
        report.command(f'sqlite3 -box {file} "{query.format(room=told.room)}"')
    report.line("To see the check fail, lose a message and check again:")
    report.command(f'sqlite3 {file} "{LOSS.format(room=told.room)}"')
    report.command(f"{python()} -m sojourn.demo --check --folder {shlex.quote(str(folder))}")


def python() -> str:
    """Return how to call this interpreter from here."""
    path = Path(sys.executable)
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


if __name__ == "__main__":
    sys.exit(main())

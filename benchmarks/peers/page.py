"""How comparisons are shown: lines on a terminal, JSON for machines, a page with charts."""

from __future__ import annotations

import sqlite3
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks import report
from benchmarks.peers.chart import Bar, bars
from benchmarks.report import number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.peers.comparisons import Comparison, Sizes
    from benchmarks.peers.contest import Outcome, Standing, Verdict

PACKAGES = (
    "google-adk",
    "google-adk-community",
    "openai-agents",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "aiosqlite",
    "asyncpg",
    "psycopg",
    "redis",
    "sqlalchemy",
)

_COLUMNS = "operations a second | p50 | p99 | CPU each | peak RSS"
MEGABYTE = 1024 * 1024

COMMAND = "python -m benchmarks.peers --write benchmarks/RESULTS.md"

_INTRODUCTION = f"""\
# Sojourn beside its peers

Written by `{COMMAND}`;
`make bench` measures the same without changing this page. Everybody does the same work in turns
(A B C, C B A, ...), each run in a fresh process on empty storage, and every run checks what was
stored. A ratio is that of the throughputs within one round, and the median of those over the
rounds; the other numbers are medians too. Latencies are those of one operation; with many callers
at once they contain the waiting.

The raw floor is the least work that keeps the same data: plain statements on one connection, or
plain dicts and lists, without checks, other writers or an event loop. Awaited, it is done in a
thread that an event loop waits for, as a sync of the disk has to be: the least that an async caller
can pay, and what it reaches is what any async session layer could. The objects of events and
checkpoints are made before the clock starts, everybody's; what is stored is encoded within it. CPU
is that of all threads of the process. The resident set includes imports, and what was made before
the clock started.
"""


def surroundings(sizes: Sizes) -> dict[str, Any]:
    """Return where and with what everything was measured."""
    return {
        **report.surroundings(sizes),
        "settings": "WAL, synchronous=FULL, default event loop, all sides alike",
        "python-sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def lines(outcome: Outcome) -> list[str]:
    """Return a comparison as lines for a terminal."""
    shown = [f"{outcome.comparison.name}: {outcome.comparison.what}"]
    shown += [
        (
            f"  {standing.label:<40} {number(median(standing.rates)):>9}/s"
            f"  p50 {_time(standing.middle('p50')):>8}  p99 {_time(standing.middle('p99')):>8}"
            f"  CPU {_time(standing.cpu):>8}  RSS {standing.middle('rss') / MEGABYTE:>4.0f} MB"
            f"  {number(outcome.multiple(standing)):>6} x"
        )
        for standing in outcome.standings
    ]
    shown += [f"  {_reached(verdict)}" for verdict in outcome.verdicts]
    return shown


def _reached(verdict: Verdict) -> str:
    reached = "not measured" if verdict.ratio is None else f"{number(verdict.ratio)} x"
    return f"{verdict.target.what}: {reached}, {_met(verdict)}"


def _met(verdict: Verdict) -> str:
    return {None: "-", True: "met", False: "NOT met"}[verdict.met]


def as_json(outcomes: Sequence[Outcome], around: dict[str, Any]) -> bytes:
    """Return everything that was measured."""
    everything = {**around, "comparisons": [outcome.facts() for outcome in outcomes]}
    return msgspec.json.format(msgspec.json.encode(everything), indent=2)


def write(path: Path, outcomes: Sequence[Outcome], around: dict[str, Any]) -> None:
    """Write the page, and its charts into a folder beside it."""
    folder = path.parent / "charts"
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        (folder / f"{outcome.comparison.name}.svg").write_text(_chart(outcome), encoding="utf-8")
    path.write_text(_markdown(outcomes, around), encoding="utf-8")


def _markdown(outcomes: Sequence[Outcome], around: dict[str, Any]) -> str:
    parts = [_INTRODUCTION, _measured(around), _targets(outcomes)]
    return "\n".join([*parts, *map(_section, outcomes)])


def _measured(around: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in around["packages"].items())
    rounds = around["sizes"]["rounds"]
    return (
        f"Measured {around['date']} at commit {around['commit']}, in {rounds} "
        f"{'round' if rounds == 1 else 'rounds'}, on {around['cores']} cores\n"
        f"({around['cpu']}), {around['system']}, Python {around['python']}. Sojourn and the floor "
        f"use\nSQLite {around['sqlite']} (apsw {around['apsw']}) and msgspec {around['msgspec']}, "
        f"the peers Python's own SQLite\n{around['python-sqlite']}. Peers: {packages}.\n"
    )


def _targets(outcomes: Sequence[Outcome]) -> str:
    rows = [
        f"| [{outcome.comparison.name}](#{outcome.comparison.name}) | {verdict.target.what} "
        f"| {'-' if verdict.ratio is None else number(verdict.ratio) + ' x'} | {_met(verdict)} |"
        for outcome in outcomes
        for verdict in outcome.verdicts
    ]
    return "\n".join(
        ["## Targets", "", "| | throughput | reached | |", "|---|---|---:|---|", *rows, ""]
    )


def _section(outcome: Outcome) -> str:
    comparison = outcome.comparison
    rows = [
        f"| {standing.label} | {number(median(standing.rates))} | {_time(standing.middle('p50'))} "
        f"| {_time(standing.middle('p99'))} | {_time(standing.cpu)} "
        f"| {standing.middle('rss') / MEGABYTE:.0f} MB "
        f"| {number(outcome.multiple(standing))} x |"
        for standing in outcome.standings
    ]
    return "\n".join(
        [
            f"## {comparison.name}",
            "",
            f"{_sentence(comparison.what)} {comparison.settings}",
            "",
            f"![{comparison.what}](charts/{comparison.name}.svg)",
            "",
            f"| | {_COLUMNS} | throughput of Sojourn over it |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *rows,
            "",
            *_refusals(outcome),
        ]
    )


def _refusals(outcome: Outcome) -> list[str]:
    """Say who refused what."""
    said = [
        f"{standing.label} refused {standing.refused:,} operations of all rounds."
        for standing in outcome.standings
        if standing.refused
    ]
    return [*said, ""] if said else []


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _chart(outcome: Outcome) -> str:
    items = [
        Bar(standing.label, median(standing.rates), number(median(standing.rates)), _kind(standing))
        for standing in outcome.standings
    ]
    return bars(_title(outcome.comparison), "operations a second", items)


def _title(comparison: Comparison) -> str:
    return comparison.name.replace("-", " ").capitalize()


def _kind(standing: Standing) -> str:
    if standing.label.startswith("Sojourn"):
        return "ours"
    return "peer" if standing.label.startswith(("ADK", "openai", "langgraph")) else "floor"


def _time(seconds: float) -> str:
    """Return a time in the unit that it deserves."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.2f} {unit}"
    return f"{seconds * 1e6:.1f} µs"

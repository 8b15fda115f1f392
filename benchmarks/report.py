"""How figures are shown: lines on a terminal, JSON for machines, Markdown for the documentation."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from benchmarks.rounds import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks import scale
    from benchmarks.figures import Figure, Sizes
    from benchmarks.peers import comparisons as peers


def line(figure: Figure) -> str:
    """Return a figure as one line."""
    return (
        f"{figure.name:<17} {number(figure.value):>9} {figure.unit:<36} "
        f"{target(figure):<9} {verdict(figure).upper():<4} {figure.note}"
    )


def target(figure: Figure) -> str:
    """Return what a figure has to reach; some only tell where the time goes."""
    if figure.target == math.inf:
        return "none"
    return f"{'≥' if figure.higher_is_better else '≤'} {number(figure.target)}"


def verdict(figure: Figure) -> str:
    """Return whether it does."""
    if figure.target == math.inf:
        return ""
    return "yes" if figure.met else "no"


def number(value: float) -> str:
    """Return a number as precisely as it deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - three digits


def surroundings(sizes: Sizes | peers.Sizes | scale.Sizes) -> dict[str, Any]:
    """Return where and with what the figures were measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "apsw": apsw.apsw_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "msgspec": msgspec.__version__,
        "settings": "WAL, synchronous=FULL, default event loop, both sides alike",
        "sizes": asdict(sizes),
    }


def as_json(figures: Sequence[Figure], around: dict[str, Any]) -> bytes:
    """Return everything that was measured."""
    everything = {**around, "figures": [figure.facts() for figure in figures]}
    return msgspec.json.format(msgspec.json.encode(everything), indent=2)


def as_markdown(figures: Sequence[Figure], around: dict[str, Any]) -> str:
    """Return the page of the documentation."""
    rows = [
        f"| {figure.what} | {number(figure.value)} {figure.unit} "
        f"| {target(figure)} | {verdict(figure)} | {figure.note} |"
        for figure in figures
    ]
    return "\n".join(
        [
            "# Performance",
            "",
            "Written by `python -m benchmarks.core --write docs/performance.md`. Every figure is",
            "taken beside what it is compared with, in turns and in fresh processes; a ratio is",
            "the median of the ratios of the rounds. The floor is the same rows written by plain",
            "prepared statements on the same driver, schema and settings, without any check.",
            "With many callers the floor has as many too: tasks that hand their rows to one",
            "thread, which commits what came meanwhile in one transaction. The same rows in a bare",
            "loop, without callers, event loop or threads, are a figure without a target.",
            "",
            f"Measured {around['date']} at commit {around['commit']}, on {around['cores']} cores",
            f"({around['cpu']}), {around['system']}, Python {around['python']}, SQLite",
            f"{around['sqlite']} (apsw {around['apsw']}), msgspec {around['msgspec']}.",
            f"Settings: {around['settings']}.",
            "",
            "| figure | measured | target | met | from |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603 - no input
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (item.partition(":")[2].strip() for item in lines if item.startswith("model name"))
    return next(names, platform.processor() or "unknown")

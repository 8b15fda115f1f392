"""Measure the core on this machine: `python -m benchmarks.core` (or `make bench`)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.figures import QUICK, Bench, Figure, Sizes, measure
from benchmarks.rounds import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print a table, write build/figures/core.json and, if asked to, a page."""
    options = _options(arguments)
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = Sizes(**{**vars(sizes), "rounds": options.rounds})
    print(f"{'figure':<17} {'measured':>9} {'unit':<36} {'target':<9} met")
    figures = measure(
        Bench(options.folder / "files", sizes),
        options.only,
        lambda figure: print(report.line(figure), flush=True),
    )
    around = report.surroundings(sizes)
    target = options.folder / "figures" / "core.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(report.as_json(figures, around))
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(report.as_markdown(figures, around), encoding="utf-8")
    return figures


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether it runs")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--only", nargs="+", help="names of figures")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write a Markdown page")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="for files, figures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

"""What the documentation shows of the code, made from it: `python -m tests.docs.generated`."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry
from tests.docs import command_reference, reference
from tests.docs.pages import ROOT, section_of

from sojourn import lifecycle, limits
from sojourn.settings import PREFIX, SETTINGS, Settings
from sojourn.telemetry import PrometheusObserver
from sojourn.testing import LAWS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOCS = ROOT / "docs"


class Section(NamedTuple):
    """A part of a page that is made from the code."""

    page: Path
    name: str
    render: Callable[[], str]

    def __str__(self) -> str:
        return f"{self.page.name}: {self.name}"


def lifecycle_of(preset: str) -> Callable[[], str]:
    """Return what draws a preset's table."""
    return lambda: f"```mermaid\n{lifecycle.diagram(preset)}```"


def limits_table() -> str:
    """Return every limit: its name, its number, and what is said of it."""
    body = ast.parse(inspect.getsource(limits)).body
    lines = ["| name | number | what, and why |", "|---|---|---|"]
    for assignment, text in itertools.pairwise(body):
        if isinstance(assignment, ast.Assign) and isinstance(text, ast.Expr):
            name = ast.unparse(assignment.targets[0])
            said = " ".join(ast.literal_eval(text.value).split()).removesuffix(".")
            lines.append(f"| `{name}` | {getattr(limits, name):,.10g} | {said} |")
    return "\n".join(lines)


def laws_table() -> str:
    """Return what the laws are about: the first line of each module of them."""
    modules = {law.noun: inspect.getmodule(law.check) for law in LAWS.values()}
    lines = ["| about | laws |", "|---|---|"]
    for noun, module in sorted(modules.items()):
        first = (inspect.getdoc(module) or "").partition("\n")[0].removesuffix(".")
        lines.append(f"| {noun} | {re.sub(r'^Laws of [^:]+: ', '', first)} |")
    return "\n".join(lines)


def settings_table() -> str:
    """Return every setting: its name, what it takes, its default, its unit, what it is for."""
    rows = {row.name: row.value for row in Settings().described()}
    lines = ["| setting | variable | takes | default | unit | what |", "|---|---|---|---|---|---|"]
    for name, setting in SETTINGS.items():
        cells = (
            f"`{name}`",
            f"`{PREFIX}{name.upper()}`",
            setting.kind.text,
            f"`{rows[name]}`",
            setting.kind.unit,
            setting.text.removesuffix("."),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Return every metric of Prometheus: its name, its labels, what is said of it."""
    lines = ["| metric | labels | what |", "|---|---|---|"]
    for metric in PrometheusObserver(CollectorRegistry())._metrics:
        total = "_total" * (metric._type == "counter")
        labels = ", ".join(metric._labelnames)
        lines.append(f"| `{metric._name}{total}` | {labels} | {metric._documentation} |")
    return "\n".join(lines)


SECTIONS = [
    Section(DOCS / "cli.md", "exit codes", command_reference.exit_codes_table),
    Section(DOCS / "cli.md", "options", command_reference.options_table),
    Section(DOCS / "cli.md", "commands", command_reference.commands),
    *(Section(DOCS / "concepts.md", f"lifecycle {p}", lifecycle_of(p)) for p in lifecycle.PRESETS),
    Section(DOCS / "operations.md", "limits", limits_table),
    Section(DOCS / "settings.md", "settings", settings_table),
    Section(DOCS / "stores.md", "laws", laws_table),
    Section(DOCS / "telemetry.md", "metrics", metrics_table),
]


def write() -> None:
    """Put what the code says into the pages."""
    for section in SECTIONS:
        opening, closing = f"<!-- {section.name} -->\n", f"<!-- /{section.name} -->"
        text = section.page.read_text(encoding="utf-8")
        head, _, rest = text.partition(opening)
        _, _, tail = rest.partition(closing)
        section.page.write_text(
            f"{head}{opening}{section.render()}\n{closing}{tail}", encoding="utf-8"
        )
        assert section_of(section.page, section.name) == section.render()
    reference.FOLDER.mkdir(exist_ok=True)
    for page, text in reference.pages().items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()

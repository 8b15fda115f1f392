"""The pages of the documentation, taken apart: their code blocks, headings and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

ONE_FOLDER = "<!-- one folder -->"
"""Stands in a page whose examples build on what those before them left in files."""

_BLOCK = re.compile(
    r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$"
    r"(?:\n\n```output\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A code block: where it is, its language, its text, and what it is said to print."""

    page: Path
    line: int
    language: str
    text: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a page; an `output` block belongs to the one before it."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, at.start()) + 1, at["language"], at["text"], at["output"])
        for at in _BLOCK.finditer(text)
    ]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, formed as code hosts do."""
    headings = _HEADING.findall(prose_of(page))
    return {anchor_of(heading) for heading in headings}


def anchor_of(heading: str) -> str:
    """Return the anchor of a heading, formed as code hosts do."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def shares_folder(page: Path) -> bool:
    """Return whether the examples of a page run one after the other in one folder."""
    return ONE_FOLDER in page.read_text(encoding="utf-8")


def links_of(page: Path) -> list[str]:
    """Return the targets of a page's links."""
    return _LINK.findall(prose_of(page))


def prose_of(page: Path) -> str:
    """Return a page without its code blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def section_of(page: Path, name: str) -> str:
    """Return what stands between `<!-- name -->` and `<!-- /name -->`, without blank edges."""
    text = page.read_text(encoding="utf-8")
    (found,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    return str(found).strip("\n")

"""What the demo shows: plain lines, a table at the end, colours only on a terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.demo.ledger import Check

BOLD, GREEN, RED, DIM = "1", "32", "31", "2"
HEADINGS = ("check", "expected", "found", "ok")


class Report:
    """Writes to a stream."""

    def __init__(self, stream: TextIO) -> None:
        """Use colours if the stream is a terminal and nobody asked for none (`NO_COLOR`)."""
        self._stream = stream
        self._colours = stream.isatty() and not os.environ.get("NO_COLOR")
        self._chapter = 0

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text

    def line(self, text: str = "") -> None:
        """Write a line, at once."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def chapter(self, title: str) -> None:
        """Begin the next part."""
        self._chapter += 1
        self.line()
        self.line(self._paint(f"{self._chapter}. {title}", BOLD))

    def say(self, text: str) -> None:
        """Tell what happens."""
        self.line(f"   {text}")

    def command(self, text: str) -> None:
        """Show something to type."""
        self.line(self._paint(f"   {text}", DIM))

    def table(self, checks: Sequence[Check]) -> None:
        """Show what was expected and what was found."""
        rows = [(check.what, check.expected, check.found, check.ok) for check in checks]
        widths = [
            max(len(HEADINGS[column]), *(len(str(row[column])) for row in rows))
            for column in range(3)
        ]

        def cells(row: Sequence[object]) -> str:
            padded = zip(row, widths, strict=False)
            return "  ".join(str(cell).ljust(width) for cell, width in padded)

        self.line(self._paint(f"   {cells(HEADINGS)}  {HEADINGS[3]}", BOLD))
        for row in rows:
            mark = self._paint("yes", GREEN) if row[3] else self._paint("NO", RED)
            self.line(f"   {cells(row)}  {mark}")

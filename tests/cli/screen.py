"""A terminal's screen in plain Python: what a person would see of what a program wrote."""

from __future__ import annotations

import re
import unicodedata

_SEQUENCE = re.compile(r"\x1b\[(?P<numbers>[0-9;?]*)(?P<verb>[A-Za-z])")
_BEGUN = re.compile(r"\x1b(\[[0-9;?]*)?")
STYLES_AND_MODES = "mhl"


class Screen:
    """So many columns, and as many lines as are written. What it does not know, it refuses."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.wrapped = 0
        self._cells: list[list[str]] = [[]]
        self._row = self._column = 0
        self._begun = ""
        """A sequence of which not all has come yet: pieces end anywhere."""

    @property
    def lines(self) -> list[str]:
        """The lines as they stand, without blanks at their ends."""
        return ["".join(row).rstrip() for row in self._cells]

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    def feed(self, text: str) -> None:
        """Take what was written to the terminal."""
        text, self._begun = self._begun + text, ""
        place = 0
        while place < len(text):
            if text[place] == "\x1b":
                if _BEGUN.fullmatch(text, place):
                    self._begun = text[place:]
                    return
                found = _SEQUENCE.match(text, place)
                assert found, f"an unknown sequence: {text[place : place + 20]!r}"
                self._obey(found["verb"], found["numbers"])
                place = found.end()
                continue
            self._put(text[place])
            place += 1

    def _obey(self, verb: str, numbers: str) -> None:
        if verb in STYLES_AND_MODES:
            return
        number = int(numbers or 0)
        if verb == "K":
            row = self._cells[self._row]
            self._cells[self._row] = [] if number else row[: self._column]
        elif verb == "A":
            self._row = max(self._row - max(number, 1), 0)
        else:
            raise AssertionError(f"an unknown command: {numbers}{verb}")

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._down()
        else:
            assert char.isprintable(), f"raw on the terminal: {char!r}"
            self._write(char)

    def _write(self, char: str) -> None:
        width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if self._column + width > self.columns:
            self.wrapped += 1
            self._column = 0
            self._down()
        row = self._cells[self._row]
        row.extend(" " * (self._column - len(row)))
        row[self._column : self._column + width] = [char, *[""] * (width - 1)]
        self._column += width

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._cells):
            self._cells.append([])

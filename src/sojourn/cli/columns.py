"""Tables that fit: which columns a terminal has room for, and how wide each may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from sojourn.cli.escaping import elided, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GAP = 2
"""Spaces between two columns."""


class Column(NamedTuple):
    """A column of a table.

    `least` is the width below which it is of no use; `spare` says when it is left out of a narrow
    table: the highest first, 0 never. `middle` keeps both ends of what is cut, `right` aligns.
    """

    title: str
    least: int = 4
    spare: int = 0
    middle: bool = False
    right: bool = False
    style: str = ""


class Layout:
    """The columns of one table with the widths that they get; made once, used page by page."""

    def __init__(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str]], room: int | None, mark: str
    ) -> None:
        """Measure the rows (printable text). `room` is the terminal's width, `None` for any."""
        self._columns = columns
        self._mark = mark
        natural = [cell_len(column.title) for column in columns]
        for row in rows:
            natural = [max(width, cell_len(cell)) for width, cell in zip(natural, row, strict=True)]
        self._bounded = room is not None
        self._widths = natural if room is None else fitted(columns, natural, room)

    def head(self) -> Text:
        """Return the line of titles."""
        return Text(self._line([column.title for column in self._columns]).plain, style="bold")

    def row(self, cells: Sequence[str]) -> Text:
        """Return a line of the table."""
        return self._line(cells)

    def _line(self, cells: Sequence[str]) -> Text:
        shown = [place for place, width in enumerate(self._widths) if width]
        line = Text(no_wrap=True)
        for place in shown:
            column, width = self._columns[place], self._widths[place]
            text = cells[place]
            if self._bounded:
                text = elided(text, width, middle=column.middle, mark=self._mark)
            blank = " " * max(width - cell_len(text), 0)
            if column.right:
                line.append(blank)
            line.append(text, style=column.style)
            if place != shown[-1]:
                line.append(" " * GAP if column.right else blank + " " * GAP)
        return line


def fitted(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int]:
    """Return the width of each column in so much room, 0 for one that is left out."""
    widths = [min(width, room) for width in natural]  # one long value may be millions
    least = [min(width, column.least) for column, width in zip(columns, widths, strict=True)]
    while _total(least) > room:
        spare = max(range(len(columns)), key=lambda n: columns[n].spare if widths[n] else 0)
        if not (columns[spare].spare and widths[spare]):
            break
        widths[spare] = least[spare] = 0
    if _total(least) > room:  # a terminal so narrow that nothing reads well
        least = [min(width, 1) for width in least]
    while _total(widths) > room:
        slack = [width - low for width, low in zip(widths, least, strict=True)]
        widest = max(range(len(widths)), key=lambda n: widths[n] if slack[n] else 0)
        if not slack[widest]:
            break
        widths[widest] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + GAP * max(len(shown) - 1, 0)


def printed(cells: Iterable[str]) -> Iterator[str]:
    """Yield cells as a terminal may have them."""
    return (printable(cell) for cell in cells)

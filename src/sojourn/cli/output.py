"""Where a command writes: results to stdout, everything else to stderr, nothing of it raw.

Text for people adapts to the terminal; a pipe gets whole values. With `--json` a command writes one
JSON document, or where the number of results has no bound, one JSON value a line.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from sojourn.cli.columns import Column, Layout, printed
from sojourn.cli.escaping import ELLIPSIS, json_text, printable
from sojourn.cli.failures import ExitCode, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ANY_WIDTH = 1_000_000_000
"""Cells of a line that is not cut: more than any value has."""


def sensible_width() -> int | None:
    """Return the cells of a line where `COLUMNS` makes no sense, `None` where rich can tell.

    Some surroundings set it to 0, and rich would write lines of no cells: nothing at all.
    """
    return _sensible("COLUMNS")


def _sensible(name: str) -> int | None:
    given = os.environ.get(name, "")
    if not given.isdecimal() or int(given) > 0:
        return None
    found = shutil.get_terminal_size()
    return found.columns if name == "COLUMNS" else found.lines


class Terminal(Console):
    """A console that writes text as it is: no markup, no emoji, no colours of its own choice."""

    def __init__(self, stream: TextIO) -> None:
        """Take colours from the terminal, and none if there is none or `NO_COLOR` is set."""
        width, height = (_sensible(name) for name in ("COLUMNS", "LINES"))
        super().__init__(
            file=stream, width=width, height=height, markup=False, emoji=False, highlight=False
        )

    def on_broken_pipe(self) -> None:
        """Leave the answer to a reader that went away to the command line."""
        raise  # noqa: PLE0704 - called while the error is handled


class Output:
    """The results and the remarks of one call of a command."""

    def __init__(self, *, json: bool = False, wide: bool = False) -> None:
        """`json` chooses the form, `wide` shows values whole on a terminal too."""
        self.json = json
        self._stream = sys.stdout
        self._out = Terminal(sys.stdout)
        self._err = Terminal(sys.stderr)
        self.narrow = self._out.is_terminal and not wide
        """Whether values are cut to fit a terminal."""

    @property
    def width(self) -> int:
        """Cells in a line of the terminal."""
        return self._out.width

    @property
    def plain(self) -> bool:
        """Whether the terminal has only ASCII."""
        return not self._out.encoding.startswith("utf")

    @property
    def mark(self) -> str:
        """What stands where something was left out."""
        return "..." if self.plain else ELLIPSIS

    # --- results -------------------------------------------------------------------------------

    def line(self, text: str | Text = "", *, style: str = "") -> None:
        """Write one line of text for people; a string is escaped."""
        shown = text if isinstance(text, Text) else Text(printable(text))
        self._out.print(shown, style=style or None, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Write the title of a part, with an empty line above."""
        self.line()
        self.line(text, style="bold")

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Write a table; cells are escaped."""
        self.layout(columns, rows)(rows, head=True)

    def layout(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> _Pages:
        """Return what writes pages of a table whose widths are those of these rows."""
        safe = [tuple(printed(row)) for row in rows]
        room = self.width if self.narrow else None
        layout = Layout(columns, safe, room, self.mark)
        return _Pages(self, layout)

    def facts(self, facts: Sequence[tuple[str, str]], *, indent: int = 0) -> None:
        """Write names and values, one pair a line."""
        least = max((len(name) for name, _ in facts), default=0)
        for name, value in facts:
            line = Text(" " * indent).append(f"{name:<{least}}  ", style="dim")
            self.line(line.append(printable(value)))

    def document(self, value: Any) -> None:
        """Write one JSON document."""
        self._write(json_text(value, indent=2, plain=self._plain_json))

    def record(self, value: Any) -> None:
        """Write one line of JSON, at once."""
        self._write(json_text(value, plain=self._plain_json))

    @property
    def _plain_json(self) -> bool:
        """Whether JSON, which is UTF-8 for whoever reads it, is to be ASCII: it reads as both.

        What another encoding has not, the stream would write as escapes that JSON does not know.
        """
        return codecs.lookup(self._out.encoding).name != "utf-8"

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def flush(self) -> None:
        """Have everything written."""
        self._stream.flush()

    # --- remarks -------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Write a remark to stderr, in one line."""
        self._err.print(Text(f"sojourn: {printable(text)}"), soft_wrap=True)

    async def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is destroyed, unless `yes`.

        Raises `Refusal` when nobody can be asked (exit code 2), or the answer is not yes (1).
        """
        if yes:
            return
        if sys.stdin is None or not sys.stdin.isatty():
            reason = f"nobody is there to be asked: {question.rstrip('?')}"
            raise Refusal(ExitCode.USAGE, reason, "the same with --yes")
        self._err.print(Text(f"{printable(question)} [y/N] "), end="", soft_wrap=True)
        await _typed()  # a plain read would keep Ctrl-C waiting for the answer
        reply = sys.stdin.readline()
        if not reply:
            self._err.print()
        if reply.strip().lower() not in ("y", "yes"):
            raise Refusal(ExitCode.FAILED, "not confirmed, nothing was done", "the same and y")

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a bar on stderr, if that is a terminal; call what this yields with each advance.

        Without a `total` it counts.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        bar = Progress(
            *columns, TimeElapsedColumn(), console=self._err, disable=not self._err.is_terminal
        )
        with bar:
            task = bar.add_task(printable(what), total=total)
            yield lambda advance: bar.advance(task, advance)


async def _typed() -> None:
    """Wait until a line has been typed; waiting can be cancelled."""
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())


class _Pages:
    """Writes pages of one table."""

    def __init__(self, output: Output, layout: Layout) -> None:
        self._output = output
        self._layout = layout

    def __call__(self, rows: Sequence[Sequence[str]], *, head: bool = False) -> None:
        """Write a page, the first with the titles."""
        if head:
            self._output.line(self._layout.head())
        for row in rows:
            self._output.line(self._layout.row(tuple(printed(row))))

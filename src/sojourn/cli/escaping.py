"""Stored text on its way to a terminal: nothing in it may command the terminal.

What is stored is anybody's text. An escape sequence in it could move the cursor, set the title or
worse; a mark that turns the direction of writing could make one id look like another. So
whatever is not a printable character is shown as an escape, in tables, messages and JSON alike.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Iterator

ELLIPSIS = "…"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LAST_OF_PLANE = 0xFFFF


def printable(text: str) -> str:
    """Return text as a terminal may have it: what is not printable becomes an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    number = ord(char)
    if number <= 0xFF:  # noqa: PLR2004 - what two hex digits can hold
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= _LAST_OF_PLANE else f"\\U{number:08x}"


def json_text(value: Any, *, indent: int | None = None, plain: bool = False) -> str:
    """Return a JSON value as text that a terminal may have, and that reads back the same.

    With `plain` it is ASCII: what else there is becomes an escape.
    """
    text = json.dumps(value, ensure_ascii=plain, allow_nan=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(_in_json(text))


def _in_json(text: str) -> Iterator[str]:
    for char in text:
        if char == "\n" or char.isprintable():  # between values; inside text it is escaped already
            yield char
        elif ord(char) <= _LAST_OF_PLANE:
            yield f"\\u{ord(char):04x}"
        else:
            yield json.dumps(char).strip('"')


def elided(text: str, width: int, *, middle: bool = False, mark: str = ELLIPSIS) -> str:
    """Return text in at most `width` cells of a terminal; `mark` stands where some was left out.

    With `middle` both ends stay: ids made at one time begin alike.
    """
    if cell_len(text) <= width:
        return text
    room = width - cell_len(mark)
    if room < 1:
        return mark[: max(width, 0)]
    tail = _last_cells(text, room // 2) if middle else ""
    return f"{set_cell_size(text, room - cell_len(tail))}{mark}{tail}"


def _last_cells(text: str, width: int) -> str:
    start = max(len(text) - width, 0)
    while cell_len(text[start:]) > width:
        start += 1
    return text[start:]

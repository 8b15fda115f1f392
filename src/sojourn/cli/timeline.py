"""Events and times as people read them: a line an event, and how long ago."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.text import Text

from sojourn.cli.escaping import elided, json_text, printable
from sojourn.model import Deletion

if TYPE_CHECKING:
    from sojourn.cli.output import Output
    from sojourn.model import Event

SECONDS_OF = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
"""Units of a span of time, the longest first."""

TEXT_KEYS = ("text", "content", "message")
"""Where the words are in the body of a message."""

NARROWEST = 12
"""Cells below which a value is not worth cutting."""


def stamp(moment: datetime | None) -> str:
    """Return a time to the second, in UTC; a dash for none."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"


def span(length: timedelta) -> str:
    """Return about how long a span is, in the largest unit that it fills."""
    seconds = abs(length).total_seconds()
    for unit, size in SECONDS_OF:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"


def ago(moment: datetime | None, now: datetime) -> str:
    """Return when something was or will be, seen from `now`; a dash for none."""
    if moment is None:
        return "-"
    length = span(moment - now)
    return f"in {length}" if moment > now else f"{length} ago"


def value_text(value: Any) -> str:
    """Return a JSON value in one line."""
    return json_text(value)


def words(body: Any) -> str:
    """Return the body of an event in one line: its words, if it is a message, else its JSON."""
    if isinstance(body, str):
        return printable(body)
    if isinstance(body, dict):
        for key in TEXT_KEYS:
            if isinstance(body.get(key), str):
                return printable(body[key])
    return "" if body is None else value_text(body)


def effects(event: Event) -> str:
    """Return which keys of the state an event set, and which it removed."""
    return " ".join(
        printable(f"-{key}" if isinstance(value, Deletion) else f"+{key}")
        for key, value in event.delta.items()
    )


def event_line(event: Event, output: Output) -> Text:
    """Return an event as one line: number, time, kind, author, words, and what it changed."""
    parts = [
        (f"{event.seq:>6}  ", "dim"),
        (f"{stamp(event.at)}  ", "dim"),
        (printable(event.kind), "bold"),
        (f" {printable(event.author)}" if event.author else "", "cyan"),
    ]
    line = Text(no_wrap=True)
    for text, style in parts:
        line.append(text, style=style)
    told = words(event.body)
    changed = effects(event)
    if not output.narrow:
        line.append(f"  {told}" if told else "")
        line.append(f"  {changed}" if changed else "", style="green")
        return line
    room = output.width - line.cell_len
    changed = elided(changed, max(room // 3, NARROWEST), mark=output.mark)
    room -= Text(changed).cell_len + 2 if changed else 0
    told = elided(told, max(room - 2, 0), mark=output.mark)
    line.append(f"  {told}" if told else "")
    line.append(f"  {changed}" if changed else "", style="green")
    line.truncate(output.width, overflow="crop")
    return line

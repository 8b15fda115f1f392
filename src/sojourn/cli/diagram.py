"""The lifecycle of a session as one line of text, with the phase that it is in marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sojourn.lifecycle import FIRST, OVER, TRANSITIONS

if TYPE_CHECKING:
    from sojourn.cli.output import Output
    from sojourn.lifecycle import Phase, Trigger

NOW = "bold reverse"
BEFORE = "dim"


def path(lifecycle: str) -> list[tuple[Trigger | None, Phase]]:
    """Return the longest way through a lifecycle: each phase with the trigger that leads to it."""
    longest: list[tuple[Trigger | None, Phase]] = []
    ways: list[list[tuple[Trigger | None, Phase]]] = [[(None, FIRST[lifecycle])]]
    while ways:
        way = ways.pop()
        if len(way) > len(longest):
            longest = way
        seen = {phase for _, phase in way}
        ways += [
            [*way, (trigger, end)]
            for (start, trigger), end in TRANSITIONS[lifecycle].items()
            if start is way[-1][1] and end not in seen
        ]
    return longest


def diagram(lifecycle: str, phase: Phase, output: Output) -> Text:
    """Return the phases in their order, the current one in brackets; triggers if there is room."""
    full = _drawn(lifecycle, phase, triggers=True, plain=output.plain)
    if not output.narrow or full.cell_len <= output.width:
        return full
    return _drawn(lifecycle, phase, triggers=False, plain=output.plain)


def _drawn(lifecycle: str, phase: Phase, *, triggers: bool, plain: bool) -> Text:
    line, head = ("-", ">") if plain else ("─", "▶")
    drawn = Text(no_wrap=True)
    reached = False
    for trigger, at in path(lifecycle):
        if trigger is not None:
            name = f"{line}{trigger}" if triggers else ""
            drawn.append(f" {name}{line}{head} ", style="dim")
        if at is phase:
            reached = True
            drawn.append(f"[{at}]", style=NOW)
        else:
            drawn.append(at.value, style="" if reached else BEFORE)
    return drawn


def next_moves(lifecycle: str, phase: Phase) -> str:
    """Return where the session can go from its phase, in words."""
    if phase in OVER:
        return "over"
    moves = [
        f"{trigger} to {end}"
        for (start, trigger), end in TRANSITIONS[lifecycle].items()
        if start is phase and end is not phase
    ]
    return ", ".join(moves)

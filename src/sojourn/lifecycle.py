"""The lifecycle of a session: phases, triggers, and the table that says what moves where.

The table is the whole machine. `next_phase` reads it, the tests walk it pair by pair, and the
diagram in the documentation is printed from it (`diagram`).
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from sojourn.errors import InvalidTransition

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(StrEnum):
    """Where a session is in its lifecycle."""

    OPEN = "OPEN"
    ENDING = "ENDING"
    ENDED = "ENDED"
    CREATED = "CREATED"
    SPAWNING = "SPAWNING"
    ACTIVE = "ACTIVE"
    TERMINATING = "TERMINATING"
    CLEANED = "CLEANED"


class Trigger(StrEnum):
    """What moves a session from one phase to another."""

    END = "END"
    FINISH = "FINISH"
    SPAWN = "SPAWN"
    ACTIVATE = "ACTIVATE"
    TERMINATE = "TERMINATE"
    CLEAN = "CLEAN"


TRANSITIONS: Mapping[str, Mapping[tuple[Phase, Trigger], Phase]] = MappingProxyType(
    {
        "open": MappingProxyType(
            {
                (Phase.OPEN, Trigger.END): Phase.ENDING,
                (Phase.ENDING, Trigger.END): Phase.ENDING,
                (Phase.ENDING, Trigger.FINISH): Phase.ENDED,
            }
        ),
        "agent": MappingProxyType(
            {
                (Phase.CREATED, Trigger.SPAWN): Phase.SPAWNING,
                (Phase.CREATED, Trigger.TERMINATE): Phase.TERMINATING,
                (Phase.SPAWNING, Trigger.ACTIVATE): Phase.ACTIVE,
                (Phase.SPAWNING, Trigger.TERMINATE): Phase.TERMINATING,
                (Phase.ACTIVE, Trigger.TERMINATE): Phase.TERMINATING,
                (Phase.TERMINATING, Trigger.TERMINATE): Phase.TERMINATING,
                (Phase.TERMINATING, Trigger.CLEAN): Phase.CLEANED,
            }
        ),
    }
)
"""Every legal move, by preset. What is not listed is illegal and changes nothing."""

PRESETS: tuple[str, ...] = tuple(TRANSITIONS)
"""Names of the presets, the default first."""

FIRST: Mapping[str, Phase] = MappingProxyType({"open": Phase.OPEN, "agent": Phase.CREATED})
"""The phase in which a new session of a preset starts."""

ENDING: frozenset[Phase] = frozenset({Phase.ENDING, Phase.TERMINATING})
"""Phases in which end hooks run: readable, but no new writes and no new scopes."""

OVER: frozenset[Phase] = frozenset({Phase.ENDED, Phase.CLEANED})
"""Terminal phases: kept, if at all, only to be read until the retention time is up."""

LIVE: frozenset[Phase] = frozenset(Phase) - ENDING - OVER
"""Phases that take writes."""

END_OF: Mapping[str, Trigger] = MappingProxyType({"open": Trigger.END, "agent": Trigger.TERMINATE})
"""The trigger that begins the end, by preset."""

FINISH_OF: Mapping[str, Trigger] = MappingProxyType(
    {"open": Trigger.FINISH, "agent": Trigger.CLEAN}
)
"""The trigger that completes the end, by preset; reached only through `finish`."""


def next_phase(lifecycle: str, phase: Phase, trigger: Trigger) -> Phase:
    """Return the phase that `trigger` leads to from `phase`.

    Raises `InvalidTransition`, naming both and the reason, for every pair not in the table.
    """
    found = TRANSITIONS[lifecycle].get((phase, trigger))
    if found is None:
        raise InvalidTransition(phase, trigger, _why_not(lifecycle, phase, trigger))
    return found


def _why_not(lifecycle: str, phase: Phase, trigger: Trigger) -> str:
    """Say in words why the table has no such pair."""
    table = TRANSITIONS[lifecycle]
    if all(known is not trigger for _, known in table):
        return f"the {lifecycle!r} lifecycle has no such trigger"
    allowed = [known.value for at, known in table if at is phase]
    if not allowed:
        return "the phase is terminal"
    return f"allowed here: {', '.join(allowed)}"


def diagram(lifecycle: str) -> str:
    """Return the preset's table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {FIRST[lifecycle]}"]
    table = TRANSITIONS[lifecycle]
    lines += [f"    {start} --> {end}: {trigger}" for (start, trigger), end in table.items()]
    lines += [f"    {end} --> [*]" for end in dict.fromkeys(table.values()) if end in OVER]
    return "\n".join(lines) + "\n"

"""The lifecycle tables, pair by pair: what is legal moves, everything else says why not."""

from __future__ import annotations

import itertools
import re

import pytest

from sojourn import TRANSITIONS, InvalidTransition, Phase, Trigger
from sojourn.lifecycle import (
    END_OF,
    ENDING,
    FINISH_OF,
    FIRST,
    LIVE,
    OVER,
    PRESETS,
    diagram,
    next_phase,
)

AGENT_PHASES = (
    Phase.CREATED,
    Phase.SPAWNING,
    Phase.ACTIVE,
    Phase.TERMINATING,
    Phase.CLEANED,
)
AGENT_TRIGGERS = (Trigger.SPAWN, Trigger.ACTIVATE, Trigger.TERMINATE, Trigger.CLEAN)
OPEN_PHASES = (Phase.OPEN, Phase.ENDING, Phase.ENDED)
OPEN_TRIGGERS = (Trigger.END, Trigger.FINISH)

# Written out by hand, so that a slip in the table can not be repeated here by computing it.
AGENT_LEGAL = {
    ("CREATED", "SPAWN"): "SPAWNING",
    ("CREATED", "TERMINATE"): "TERMINATING",
    ("SPAWNING", "ACTIVATE"): "ACTIVE",
    ("SPAWNING", "TERMINATE"): "TERMINATING",
    ("ACTIVE", "TERMINATE"): "TERMINATING",
    ("TERMINATING", "TERMINATE"): "TERMINATING",
    ("TERMINATING", "CLEAN"): "CLEANED",
}
OPEN_LEGAL = {
    ("OPEN", "END"): "ENDING",
    ("ENDING", "END"): "ENDING",
    ("ENDING", "FINISH"): "ENDED",
}
AGENT_ALLOWED = {
    "CREATED": "allowed here: SPAWN, TERMINATE",
    "SPAWNING": "allowed here: ACTIVATE, TERMINATE",
    "ACTIVE": "allowed here: TERMINATE",
    "TERMINATING": "allowed here: TERMINATE, CLEAN",
    "CLEANED": "the phase is terminal",
}
OPEN_ALLOWED = {
    "OPEN": "allowed here: END",
    "ENDING": "allowed here: END, FINISH",
    "ENDED": "the phase is terminal",
}


def check_pair(
    preset: str, phase: Phase, trigger: Trigger, legal: dict[tuple[str, str], str], why: str
) -> None:
    """Check one pair against the hand-written table."""
    expected = legal.get((phase.value, trigger.value))
    if expected is not None:
        assert next_phase(preset, phase, trigger) is Phase(expected)
        return
    with pytest.raises(InvalidTransition) as caught:
        next_phase(preset, phase, trigger)
    error = caught.value
    assert (error.phase, error.trigger, error.reason) == (phase, trigger, why)
    assert str(error) == (
        f"invalid transition: phase={phase.value} trigger={trigger.value} reason={why}"
    )


@pytest.mark.behaviour(111)
@pytest.mark.parametrize("trigger", AGENT_TRIGGERS)
@pytest.mark.parametrize("phase", AGENT_PHASES)
def test_every_pair_of_the_agent_preset(phase: Phase, trigger: Trigger) -> None:
    """Each of the 20 pairs does what the hand-written table says, or names all facts."""
    check_pair("agent", phase, trigger, AGENT_LEGAL, AGENT_ALLOWED[phase.value])


@pytest.mark.behaviour(111)
def test_the_agent_preset_has_seven_legal_moves_and_thirteen_illegal_ones() -> None:
    """The counts of the machine: 5 phases by 4 triggers are 7 legal and 13 illegal pairs."""
    legal = 0
    illegal = 0
    for phase, trigger in itertools.product(AGENT_PHASES, AGENT_TRIGGERS):
        try:
            next_phase("agent", phase, trigger)
        except InvalidTransition:
            illegal += 1
        else:
            legal += 1
    assert (legal, illegal) == (7, 13)


@pytest.mark.behaviour(112)
def test_terminate_is_idempotent_and_cleaned_accepts_nothing() -> None:
    """TERMINATE in TERMINATING stays there; nothing at all leads out of CLEANED."""
    again = next_phase("agent", Phase.TERMINATING, Trigger.TERMINATE)
    assert again is Phase.TERMINATING
    for trigger in Trigger:
        with pytest.raises(InvalidTransition):
            next_phase("agent", Phase.CLEANED, trigger)


@pytest.mark.parametrize("trigger", OPEN_TRIGGERS)
@pytest.mark.parametrize("phase", OPEN_PHASES)
def test_every_pair_of_the_open_preset(phase: Phase, trigger: Trigger) -> None:
    """Each of the 6 pairs of OPEN - ENDING - ENDED does what the hand-written table says."""
    check_pair("open", phase, trigger, OPEN_LEGAL, OPEN_ALLOWED[phase.value])


@pytest.mark.parametrize(
    ("preset", "phase", "trigger"),
    [
        *(("open", phase, trigger) for phase in OPEN_PHASES for trigger in AGENT_TRIGGERS),
        *(("agent", phase, trigger) for phase in AGENT_PHASES for trigger in OPEN_TRIGGERS),
    ],
)
def test_a_trigger_of_the_other_preset_is_refused(
    preset: str, phase: Phase, trigger: Trigger
) -> None:
    """A foreign trigger is illegal in every phase, and the reason says that it is foreign."""
    with pytest.raises(InvalidTransition) as caught:
        next_phase(preset, phase, trigger)
    assert caught.value.reason == f"the {preset!r} lifecycle has no such trigger"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("trigger", list(Trigger))
def test_a_phase_of_the_other_preset_allows_nothing(preset: str, trigger: Trigger) -> None:
    """A phase that the preset does not have is never moved out of by accident."""
    known = {FIRST[preset], *TRANSITIONS[preset].values()}
    for phase in set(Phase) - known:
        with pytest.raises(InvalidTransition):
            next_phase(preset, phase, trigger)


def test_the_tables_are_read_only() -> None:
    """Nobody can add a move at run time."""
    with pytest.raises(TypeError):
        TRANSITIONS["open"] = {}  # type: ignore[index]  # that it is refused is the point
    with pytest.raises(TypeError):
        TRANSITIONS["open"][Phase.ENDED, Trigger.END] = Phase.OPEN  # type: ignore[index]  # ditto: refused


def test_open_is_the_default_preset() -> None:
    """The presets are `open`, first because it is the default, and `agent`."""
    assert PRESETS == ("open", "agent")
    assert dict(FIRST) == {"open": Phase.OPEN, "agent": Phase.CREATED}


def test_every_phase_is_live_ending_or_over() -> None:
    """The three groups cover all phases without overlap."""
    assert sorted([*LIVE, *ENDING, *OVER]) == sorted(Phase)
    assert {Phase.ENDING, Phase.TERMINATING} == ENDING
    assert {Phase.ENDED, Phase.CLEANED} == OVER


@pytest.mark.parametrize("preset", PRESETS)
def test_an_end_begins_and_finishes_by_the_named_triggers(preset: str) -> None:
    """From every live phase the end trigger leads to ending, and from there to over."""
    for phase in {FIRST[preset], *TRANSITIONS[preset].values()} & LIVE:
        ending = next_phase(preset, phase, END_OF[preset])
        assert ending in ENDING
        assert next_phase(preset, ending, FINISH_OF[preset]) in OVER


@pytest.mark.parametrize(("preset", "legal"), [("agent", AGENT_LEGAL), ("open", OPEN_LEGAL)])
def test_the_diagram_is_printed_from_the_table(
    preset: str, legal: dict[tuple[str, str], str]
) -> None:
    """The Mermaid text has an arrow for every legal move and for nothing else."""
    text = diagram(preset)
    assert text.startswith("stateDiagram-v2\n")
    arrows = re.findall(r"^    (\S+) --> (\S+?)(?:: (\S+))?$", text, re.MULTILINE)
    moves = {(start, trigger): end for start, end, trigger in arrows if trigger}
    assert moves == legal
    bare = {(start, end) for start, end, trigger in arrows if not trigger}
    last = "CLEANED" if preset == "agent" else "ENDED"
    assert bare == {("[*]", FIRST[preset].value), (last, "[*]")}
    assert len(text.splitlines()) == 1 + len(arrows)

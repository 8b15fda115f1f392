"""Events, times and lifecycles as one line of text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sojourn import DELETE, Event, Phase
from sojourn.cli.diagram import next_moves, path
from sojourn.cli.output import Output
from sojourn.cli.timeline import ago, event_line, stamp, words
from sojourn.lifecycle import PRESETS

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s ago"),
        (-59, "59 s ago"),
        (-60, "1 min ago"),
        (-7200, "2 h ago"),
        (-86_400 * 400, "400 d ago"),
        (90, "in 1 min"),
    ],
)
def test_how_long_ago(seconds: int, text: str) -> None:
    assert ago(NOW + timedelta(seconds=seconds), NOW) == text


def test_no_time_is_a_dash() -> None:
    assert ago(None, NOW) == stamp(None) == "-"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (None, ""),
        ("hi\n", r"hi\n"),
        ({"text": "hi"}, "hi"),
        ({"content": [1]}, '{"content": [1]}'),
        ({"a": 1}, '{"a": 1}'),
        ([1, 2], "[1, 2]"),
    ],
)
def test_the_words_of_an_event(body: object, text: str) -> None:
    assert words(body) == text


def test_an_event_in_a_pipe_is_whole() -> None:
    event = Event(kind="k", body="w" * 500, delta={"a": 1, "b": DELETE}, seq=7, at=NOW)
    line = event_line(event, Output()).plain
    assert line == f"     7  2026-01-05 12:00:00Z  k  {'w' * 500}  +a -b"


def test_an_event_without_words_or_effects() -> None:
    assert event_line(Event(kind="k", seq=7, at=NOW), Output()).plain.endswith("Z  k")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_way_through_a_lifecycle_has_every_phase_once(preset: str) -> None:
    phases = [phase for _, phase in path(preset)]
    assert len(phases) == len(set(phases)) == {"open": 3, "agent": 5}[preset]


def test_where_a_session_can_go() -> None:
    assert next_moves("open", Phase.ENDED) == "over"
    assert next_moves("agent", Phase.CREATED) == "SPAWN to SPAWNING, TERMINATE to TERMINATING"

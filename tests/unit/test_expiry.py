"""Deadlines as arithmetic: which one counts, when it is reached, when a touch is worth a write."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import Expiry, InvalidQuery
from sojourn.expiry import (
    NEVER,
    absolute_deadline,
    deadline,
    idle_span,
    is_past,
    touch_is_due,
)
from sojourn.timestamps import LATEST, MICROSECONDS

START = 1_767_225_600 * MICROSECONDS
INSTANTS = st.integers(0, LATEST)
SPANS = st.integers(1, 10**15)


@pytest.mark.behaviour(47)
@pytest.mark.parametrize("seconds", [None, 0, 0.0, -0.0, -1, -1.5, -(10**9)])
def test_nothing_zero_and_less_mean_never(seconds: float | None) -> None:
    """`None`, zero and negative seconds are no deadline, idle and absolute alike."""
    policy = Expiry(idle=seconds, absolute=seconds)
    idle, absolute_at = idle_span(policy), absolute_deadline(policy, START)
    assert (idle, absolute_at) == (None, None)
    assert deadline(START, idle, absolute_at) is None


@pytest.mark.behaviour(47)
def test_the_default_is_never() -> None:
    """`Expiry()` and `NEVER` are the same policy, without any deadline."""
    assert Expiry() == NEVER
    assert (NEVER.idle, NEVER.absolute) == (None, None)
    assert not is_past(None, LATEST)


@pytest.mark.parametrize("field", ["idle", "absolute"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, "60", b"60", []])
def test_a_policy_is_finite_numbers(field: str, value: object) -> None:
    """Not a number, infinite or of another type is refused at once, naming the field."""
    with pytest.raises(InvalidQuery) as caught:
        Expiry(**{field: value})  # type: ignore[arg-type]  # the wrong types are the point
    assert caught.value.field == f"expiry.{field}"


@pytest.mark.parametrize(
    ("seconds", "microseconds"),
    [(1, 1_000_000), (1800, 1_800_000_000), (0.5, 500_000), (1e-6, 1), (0.1, 100_000)],
)
def test_seconds_become_whole_microseconds(seconds: float, microseconds: int) -> None:
    """Idle spans and absolute deadlines are exact to the microsecond."""
    assert idle_span(Expiry(idle=seconds)) == microseconds
    assert absolute_deadline(Expiry(absolute=seconds), START) == START + microseconds


def test_the_earlier_deadline_counts() -> None:
    """With both, the session expires at whichever comes first."""
    assert deadline(100, 50, 200) == 150
    assert deadline(100, 100, 200) == 200
    assert deadline(100, 101, 200) == 200
    assert deadline(100, 50, None) == 150
    assert deadline(100, None, 200) == 200
    assert deadline(100, None, None) is None


def test_a_deadline_is_reached_at_its_instant() -> None:
    """One microsecond before it is not past; at it and after it is."""
    assert not is_past(1_000, 999)
    assert is_past(1_000, 1_000)
    assert is_past(1_000, 1_001)


def test_far_deadlines_stay_within_the_calendar() -> None:
    """A policy of ages does not leave the years that a datetime can show."""
    ages = Expiry(idle=1e18, absolute=1e18)
    assert absolute_deadline(ages, START) == LATEST
    assert deadline(START, idle_span(ages), None) == LATEST


@given(INSTANTS, SPANS, st.none() | INSTANTS)
def test_a_deadline_is_never_behind_either_bound(
    active_at: int, idle: int, absolute_at: int | None
) -> None:
    """It is at or before the idle deadline, the absolute one and the end of the calendar."""
    found = deadline(active_at, idle, absolute_at)
    assert found is not None
    bounds = [active_at + idle, LATEST, *([] if absolute_at is None else [absolute_at])]
    assert found == min(bounds)


@given(INSTANTS, INSTANTS, SPANS, st.none() | INSTANTS)
def test_use_never_brings_a_deadline_forward(
    first: int, second: int, idle: int, absolute_at: int | None
) -> None:
    """Later activity gives the same deadline or a later one, never beyond the absolute one."""
    early, late = sorted((first, second))
    before, after = deadline(early, idle, absolute_at), deadline(late, idle, absolute_at)
    assert before is not None
    assert after is not None
    assert before <= after


@pytest.mark.behaviour(52)
def test_a_touch_is_due_after_a_tenth_of_the_idle_time() -> None:
    """Sooner than a tenth it is not worth a write; from there on it is."""
    assert not touch_is_due(0, 1_000, 99)
    assert touch_is_due(0, 1_000, 100)
    assert touch_is_due(0, 1_000, 999)


def test_a_touch_is_never_due_without_an_idle_deadline() -> None:
    """There is nothing to extend."""
    assert not touch_is_due(0, None, LATEST)


def test_a_touch_is_not_due_when_the_clock_went_back() -> None:
    """Activity in the future of this clock is recent enough."""
    assert not touch_is_due(1_000, 10, 500)

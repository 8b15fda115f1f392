"""Instants: what is parsed, what is refused, and that nothing is lost on the way."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn.timestamps import (
    EARLIEST,
    LATEST,
    MICROSECONDS,
    PLAUSIBLE_SECONDS,
    from_datetime,
    from_seconds,
    parse_instant,
    to_datetime,
)

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
NEW_YEAR_INSTANT = 1_767_225_600 * MICROSECONDS


@pytest.mark.behaviour(93)
@pytest.mark.parametrize(
    ("value", "instant"),
    [
        ("2026-01-01T00:00:00Z", NEW_YEAR_INSTANT),
        ("2026-01-01T00:00:00+00:00", NEW_YEAR_INSTANT),
        ("2026-01-01T02:00:00+02:00", NEW_YEAR_INSTANT),
        ("2025-12-31T19:00:00-05:00", NEW_YEAR_INSTANT),
        ("2026-01-01T00:00:00.000001Z", NEW_YEAR_INSTANT + 1),
        ("2026-01-01T00:00:00.5Z", NEW_YEAR_INSTANT + 500_000),
        ("1969-12-31T23:59:59Z", -MICROSECONDS),
        (1_767_225_600, NEW_YEAR_INSTANT),
        (1_767_225_600.25, NEW_YEAR_INSTANT + 250_000),
        (0, 0),
        (-1, -MICROSECONDS),
        (-1.5, -1_500_000),
        (NEW_YEAR, NEW_YEAR_INSTANT),
        (NEW_YEAR.astimezone(timezone(timedelta(hours=9))), NEW_YEAR_INSTANT),
    ],
)
def test_instants_are_parsed(value: datetime | str | float, instant: int) -> None:
    """RFC 3339 text, seconds (int, float, negative) and aware datetimes all give the instant."""
    assert parse_instant(value) == instant


@pytest.mark.behaviour(93)
@pytest.mark.parametrize(
    "value",
    [
        1_767_225_600_000,
        1_767_225_600_000.0,
        -1_767_225_600_000,
        PLAUSIBLE_SECONDS,
        math.nan,
        math.inf,
        -math.inf,
        1e300,
        -1e300,
        10**400,
        EARLIEST // MICROSECONDS - 1,
        "",
        "yesterday",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "1767225600",
        "0001-01-01T00:00:00+09:00",
        "9999-12-31T23:59:59-09:00",
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime(2026, 1, 1),  # noqa: DTZ001 - a naive one is what is refused
    ],
)
def test_implausible_instants_are_refused(value: datetime | str | float) -> None:
    """Milliseconds, not finite, out of range, without a time zone or not a time: `ValueError`."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_instant(value)


@pytest.mark.behaviour(93)
@pytest.mark.parametrize("value", [True, False, None, b"2026-01-01T00:00:00Z", [], {}, 1j])
def test_other_types_are_refused(value: object) -> None:
    """Booleans are no numbers here; the error names the type."""
    with pytest.raises(TypeError, match=type(value).__name__):
        parse_instant(value)  # type: ignore[arg-type]  # the wrong types are the point


def test_the_bounds_are_those_of_a_datetime() -> None:
    """The first and last instants are exactly the first and last datetimes."""
    assert to_datetime(EARLIEST) == datetime.min.replace(tzinfo=UTC)
    assert to_datetime(LATEST) == datetime.max.replace(tzinfo=UTC)
    assert parse_instant(EARLIEST // MICROSECONDS) == EARLIEST
    assert from_datetime(to_datetime(LATEST)) == LATEST


@given(st.integers(EARLIEST, LATEST) | st.integers(0, 2**33 * MICROSECONDS))
@example(2**32 * MICROSECONDS - 1)
@example(2**32 * MICROSECONDS)
@example(-1)
def test_an_instant_survives_a_datetime(instant: int) -> None:
    """To an aware UTC datetime and back is exact, before the epoch and far in the future too."""
    moment = to_datetime(instant)
    assert moment.tzinfo is UTC
    assert from_datetime(moment) == instant


@given(
    st.datetimes(
        min_value=datetime(1, 1, 3),  # noqa: DTZ001 - the strategy adds the zone
        max_value=datetime(9999, 12, 29),  # noqa: DTZ001 - the strategy adds the zone
        timezones=st.timezones(),
    )
)
def test_a_datetime_survives_an_instant(moment: datetime) -> None:
    """Any aware datetime comes back as the same moment."""
    assert to_datetime(from_datetime(moment)) == moment.astimezone(UTC)


@given(st.integers(EARLIEST, LATEST))
def test_text_survives(instant: int) -> None:
    """RFC 3339 text of an instant parses to the instant."""
    assert parse_instant(to_datetime(instant).isoformat()) == instant


@given(st.integers(-(10**15), 10**15))
def test_whole_seconds_are_exact(seconds: int) -> None:
    """Integers never pass through a float."""
    assert from_seconds(seconds) == seconds * MICROSECONDS


@pytest.mark.parametrize(
    ("seconds", "instant"),
    [(0.1, 100_000), (1e-6, 1), (0.000_000_6, 1), (0.000_000_4, 0), (-0.1, -100_000)],
)
def test_fractions_are_rounded_to_the_nearest_microsecond(seconds: float, instant: int) -> None:
    """Not cut off: 0.1 seconds are 100000 microseconds."""
    assert from_seconds(seconds) == instant


def test_a_naive_datetime_is_refused() -> None:
    """Its time zone would be a guess."""
    with pytest.raises(ValueError, match="time zone"):
        from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - a naive one is what is refused

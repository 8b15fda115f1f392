"""Instants: whole microseconds since the epoch inside, aware UTC datetimes outside.

Integers compare, add and store exactly in every backend; datetimes are what a caller reads.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

MICROSECONDS = 1_000_000
"""Microseconds in a second."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NEAR = 2**32 * MICROSECONDS
"""In 2106. Up to here a float tells seconds to a quarter of a microsecond, so that none is lost."""

EARLIEST = -62_135_596_800 * MICROSECONDS
"""0001-01-01T00:00:00Z, the first instant a `datetime` can hold."""

LATEST = 253_402_300_800 * MICROSECONDS - 1
"""9999-12-31T23:59:59.999999Z, the last instant a `datetime` can hold."""

NO_DATE = "one of its times is outside the years 1 to 9999"
"""What is wrong with a record whose instant no `datetime` can hold."""

PLAUSIBLE_SECONDS = 100_000_000_000
"""Numbers beyond this (the year 5138) are taken for milliseconds and refused, not guessed at."""


def to_datetime(instant: int) -> datetime:
    """Return `instant` (microseconds since the epoch) as an aware UTC datetime.

    Raises `OverflowError` outside the years 1 to 9999.
    """
    if 0 <= instant < _NEAR:  # half the time of the exact way, and there are many to a page
        return datetime.fromtimestamp(instant / MICROSECONDS, UTC)
    return _EPOCH + timedelta(0, 0, instant)


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch.

    Raises `ValueError` for a naive one: its time zone would be a guess.
    """
    if moment.tzinfo is None:
        message = "a datetime needs a time zone, for example datetime.now(UTC)"
        raise ValueError(message)
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * MICROSECONDS + delta.microseconds


def from_seconds(seconds: float) -> int:
    """Return seconds as whole microseconds, rounded to the nearest."""
    if type(seconds) is int:
        return seconds * MICROSECONDS
    return round(seconds * MICROSECONDS)


def parse_instant(value: datetime | str | float) -> int:
    """Return an instant given as an aware datetime, RFC 3339 text, or seconds since the epoch.

    Raises `ValueError` when it is none of these, not finite, outside the years 1 to 9999, or a
    number so large that it must be milliseconds; `TypeError` for a boolean or another type.
    """
    if isinstance(value, bool) or not isinstance(value, datetime | str | int | float):
        message = f"an instant is a datetime, RFC 3339 text or seconds, not {type(value).__name__}"
        raise TypeError(message)
    if isinstance(value, datetime):
        instant = from_datetime(value)
    elif isinstance(value, str):
        instant = from_datetime(datetime.fromisoformat(value))
    elif abs(value) >= PLAUSIBLE_SECONDS or not math.isfinite(value):
        message = f"{value!r} is not a plausible number of seconds since the epoch"
        raise ValueError(message)
    else:
        instant = from_seconds(value)
    if not EARLIEST <= instant <= LATEST:
        message = f"{value!r} lies outside the years 1 to 9999 in UTC"
        raise ValueError(message)
    return instant

"""Idle and absolute deadlines as arithmetic on a policy and instants.

Instants and durations are whole microseconds. A deadline is reached when `now >= deadline`: that
one rule holds in every store.
"""

from __future__ import annotations

import math

import msgspec

from sojourn.arguments import is_number
from sojourn.errors import InvalidQuery
from sojourn.timestamps import LATEST, MICROSECONDS, from_seconds

TOUCH_FRACTION = 10
"""A touch is written only once a tenth of the idle time has passed: reads stay reads."""


class Expiry(msgspec.Struct, frozen=True):
    """When a session expires: `idle` seconds after its last use, `absolute` after its start.

    Either, both, or (the default) neither. Zero and negative numbers mean "never", like `None`.
    Raises `InvalidQuery` for a number that is not finite.
    """

    idle: float | None = None
    absolute: float | None = None

    def __post_init__(self) -> None:
        for name in ("idle", "absolute"):
            seconds = getattr(self, name)
            if seconds is None:
                continue
            if not is_number(seconds):
                raise InvalidQuery(f"expiry.{name}", "give seconds as a number, or None for never")
            if isinstance(seconds, float) and not math.isfinite(seconds):
                raise InvalidQuery(f"expiry.{name}", "give a finite number, or None for never")


NEVER = Expiry()
"""No deadline at all."""


def check_expiry(expiry: object) -> None:
    """Raise `InvalidQuery` for what is no `Expiry`."""
    if not isinstance(expiry, Expiry):
        given = type(expiry).__name__
        raise InvalidQuery("expiry", f"give an Expiry, such as Expiry(idle=1800), not {given}")


def span_of(what: str, seconds: float) -> int:
    """Return seconds above 0 as microseconds, no more than any instant can hold.

    Raises `InvalidQuery`, naming `what`, for something else or a number that is not finite.
    """
    if not is_number(seconds) or not 0 < seconds < math.inf:
        raise InvalidQuery(what, "give a finite number of seconds above 0")
    return LATEST if seconds >= LATEST // MICROSECONDS else from_seconds(seconds)


def idle_span(policy: Expiry) -> int | None:
    """Return the idle time in microseconds, or `None` for no idle deadline."""
    return span_of("expiry.idle", policy.idle) if policy.idle and policy.idle > 0 else None


def absolute_deadline(policy: Expiry, start: int) -> int | None:
    """Return the instant of the absolute deadline, or `None`."""
    if not policy.absolute or policy.absolute <= 0:
        return None
    return min(start + span_of("expiry.absolute", policy.absolute), LATEST)


def deadline(active_at: int, idle: int | None, absolute_at: int | None) -> int | None:
    """Return the instant at which a session expires: the earlier of its two deadlines."""
    if idle is None:
        return absolute_at
    idle_at = min(active_at + idle, LATEST)
    return idle_at if absolute_at is None or idle_at < absolute_at else absolute_at


def is_past(expires_at: int | None, now: int) -> bool:
    """Return whether a deadline has been reached."""
    return expires_at is not None and now >= expires_at


def touch_is_due(active_at: int, idle: int | None, now: int) -> bool:
    """Return whether enough idle time has passed for a touch to be worth a write."""
    return idle is not None and (now - active_at) * TOUCH_FRACTION >= idle

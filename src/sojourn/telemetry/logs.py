"""Calls in the log: one line each, with the facts as fields of the record."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sojourn.errors import InvalidQuery
from sojourn.telemetry.observer import TROUBLE, Observer

if TYPE_CHECKING:
    from sojourn.telemetry.observer import Call, Outcome


class LoggingObserver(Observer):
    """Logs every call as it ends, to the logger `sojourn.telemetry` or one of yours.

    Ordinary ones are logged at `level`; those that took `slow` seconds or more as warnings; those
    that ended in trouble (unavailable, corrupt, closed, failed) as errors. The facts of `Call` and
    `Outcome` are fields of the record, each with `sojourn_` before its name.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.DEBUG,
        slow: float | None = None,
    ) -> None:
        """Raises `InvalidQuery` for a `slow` that is not above 0."""
        if slow is not None and not slow > 0:
            raise InvalidQuery("slow", "give seconds above 0, or None for never")
        self._logger = logging.getLogger("sojourn.telemetry") if logger is None else logger
        self._level = level
        self._slow = slow

    def started(self, call: Call, /) -> None:
        """Nothing is logged before the outcome is known."""

    def finished(self, call: Call, _note: object, outcome: Outcome, /) -> None:
        """Log the call."""
        level = self._level_of(outcome)
        if not self._logger.isEnabledFor(level):
            return
        self._logger.log(
            level,
            "%s %s in %.3f ms%s",
            call.verb,
            outcome.result.value,
            outcome.seconds * 1000,
            "" if call.session is None else f", session {call.session}",
            extra=_fields(call, outcome),
        )

    def _level_of(self, outcome: Outcome) -> int:
        if outcome.result in TROUBLE:
            return logging.ERROR
        if self._slow is not None and outcome.seconds >= self._slow:
            return max(logging.WARNING, self._level)
        return self._level


def _fields(call: Call, outcome: Outcome) -> dict[str, object]:
    return {
        "sojourn_store": call.store,
        "sojourn_verb": call.verb,
        "sojourn_app": call.app,
        "sojourn_session": call.session,
        "sojourn_trigger": call.trigger,
        "sojourn_limit": call.limit,
        "sojourn_events": call.events,
        "sojourn_size": call.size,
        "sojourn_result": outcome.result.value,
        "sojourn_seconds": outcome.seconds,
        "sojourn_error": outcome.error,
        "sojourn_items": outcome.items,
        "sojourn_size_returned": outcome.size,
        "sojourn_durability": outcome.durability,
        "sojourn_repeated": outcome.repeated,
    }

"""Pauses: who has just seen a summariser fail does not wait for it again at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SESSIONS = 1_024
"""Sessions whose last failure is remembered; of more, the oldest is forgotten."""


class Pauses:
    """The sessions of one manager whose summaries have failed of late."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now` tells the instant, in microseconds."""
        self._now = now
        self._until: dict[str, int] = {}

    def holds(self, id: str) -> bool:
        """Return whether a session's summariser is to be left alone."""
        until = self._until.get(id)
        return until is not None and self._now() < until

    def begin(self, id: str, span: int) -> None:
        """Leave a session's summariser alone for so many microseconds from now."""
        self.end(id)
        self._until[id] = self._now() + span
        if len(self._until) > SESSIONS:
            del self._until[next(iter(self._until))]

    def end(self, id: str) -> None:
        """Ask for a session's summaries as ever."""
        self._until.pop(id, None)

"""Pauses: who has just seen a summariser fail does not wait for it again at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SESSIONS = 1_024
"""Sessions whose last failure is remembered; of more, the oldest is forgotten."""


class Pauses:
    """The sessions of one manager whose summaries have failed of late, by their epochs.

    A later session with the same id has no part in that.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        """`now` tells the instant, in microseconds."""
        self._now = now
        self._until: dict[str, int] = {}

    def holds(self, epoch: str) -> bool:
        """Return whether a session's summariser is to be left alone."""
        until = self._until.get(epoch)
        return until is not None and self._now() < until

    def begin(self, epoch: str, span: int) -> None:
        """Leave a session's summariser alone for so many microseconds from now."""
        self.end(epoch)
        self._until[epoch] = self._now() + span
        if len(self._until) > SESSIONS:
            del self._until[next(iter(self._until))]

    def end(self, epoch: str) -> None:
        """Ask for a session's summaries as ever."""
        self._until.pop(epoch, None)

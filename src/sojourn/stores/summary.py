"""What a store holds of one app, for people: its sessions by phase, and how many are due."""

from __future__ import annotations

from typing import NamedTuple


class AppSummary(NamedTuple):
    """What there is of one app: sessions by phase, how many are due, and the first one since when.

    `due_since` is in microseconds since 1970, `None` if nothing is due.
    """

    app: str
    phases: dict[str, int]
    due: int
    due_since: int | None

    @property
    def sessions(self) -> int:
        """How many sessions there are, of all phases, expired ones too."""
        return sum(self.phases.values())

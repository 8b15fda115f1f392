"""Sessions that the writer has just written: the next commit to one of them needs no read.

What is kept equals the file, because the writer forgets everything when another process has
committed, when a transaction of its own failed, and when rows were changed behind its back.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sojourn.stores.weighing import Weighing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn.stores.sqlite.gathering import Loaded

SESSIONS = 1_024
"""Sessions kept: those in use at one time, at a few kilobytes each."""

STATE_BYTES = 16 * 1024
"""Sessions with a larger state are read again rather than kept: memory stays bounded."""

Key = tuple[str, str]


class Recent:
    """The sessions used last, by (app, id)."""

    def __init__(self) -> None:
        self._sessions: dict[Key, Loaded] = {}
        self.weighing = Weighing()
        """What was written to shared tiers. It is no copy of the file: `clear` leaves it alone."""
        self.version: int | None = None
        """The file's data version that the sessions are of, `None` if nothing was looked at."""

    def is_current(self, version: int) -> bool:
        """Return whether nobody else has committed since the last time; if not, forget all."""
        if version == self.version:
            return True
        self.version = version
        self._sessions.clear()
        return False

    def take(self, key: Key) -> Loaded | None:
        """Hand over a session, which is not kept any more."""
        return self._sessions.pop(key, None)

    def keep(self, sessions: Mapping[Key, Loaded | None]) -> None:
        """Keep sessions as a transaction has written them, and not more than so many."""
        for key, loaded in sessions.items():
            if loaded is not None and len(loaded.state) <= STATE_BYTES:
                self._sessions[key] = loaded
        surplus = len(self._sessions) - SESSIONS
        if surplus > 0:
            for key in list(islice(self._sessions, surplus)):
                del self._sessions[key]

    def clear(self) -> None:
        """Forget all, and that anything was looked at: the next transaction looks again."""
        self.version = None
        self._sessions.clear()

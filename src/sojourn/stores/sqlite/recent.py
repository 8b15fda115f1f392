"""Sessions that the writer has just written: the next commit to one of them needs no read.

What is kept equals the file, because the writer forgets everything when another process has
committed, when a transaction of its own failed, and when rows were changed behind its back.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn.stores.sqlite.gathering import Loaded

SESSIONS = 1_024
"""Sessions kept: those in use at one time, at a few kilobytes each."""

STATE_BYTES = 16 * 1024
"""Sessions with a larger state are read again rather than kept: memory stays bounded."""

WEIGH_BYTES = 4 * 1024
"""So much is written to a shared tier before its size is added up again, which costs its length."""

TIERS = 10_000
"""Shared tiers of which it is noted what was written to them."""

Key = tuple[str, str]


class Recent:
    """The sessions used last, by (app, id)."""

    def __init__(self) -> None:
        self._sessions: dict[Key, Loaded] = {}
        self._written: dict[Key, int] = {}
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

    def is_to_weigh(self, tier: Key, size: int) -> bool:
        """Note what is written to a shared tier; return whether its size is to be added up."""
        written = self._written.pop(tier, 0) + size
        self._written[tier] = written
        if len(self._written) > TIERS:
            del self._written[next(iter(self._written))]
        return written >= WEIGH_BYTES

    def weighed(self, tier: Key) -> None:
        """Note that the size of a shared tier was added up, and is fine."""
        self._written.pop(tier, None)

    def clear(self) -> None:
        """Forget all, and that anything was looked at: the next transaction looks again."""
        self.version = None
        self._sessions.clear()

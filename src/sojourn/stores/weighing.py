"""When to add up a shared tier: it costs its length, so not for every small write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

WEIGH_BYTES = 4 * 1024
"""So much is written to a shared tier before its size is added up again."""

TIERS = 10_000
"""Shared tiers of which it is noted what was written to them."""

AROUND = 4
"""Bytes of JSON around a name and its value: quotes, colon, comma."""

Owner: TypeAlias = "tuple[str, str | None]"
"""The app, and whose tier of it."""


def key_size(name: str, size: int) -> int:
    """Return what a key with a value of `size` bytes takes as JSON, escapes in its name aside."""
    return len(name.encode()) + size + AROUND


class Weighing:
    """What one process has written to shared tiers since they were added up."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self._written: dict[Owner, int] = {}

    def is_due(self, owner: Owner, size: int) -> bool:
        """Note what is written to a tier; return whether its size is to be added up.

        Who notes a write twice, as a plan that is made again does, has it added up the sooner.
        """
        written = self._written.pop(owner, 0) + size
        self._written[owner] = written
        if len(self._written) > TIERS:
            del self._written[next(iter(self._written))]
        return written >= WEIGH_BYTES

    def done(self, owner: Owner) -> None:
        """Note that a tier was added up, and is fine."""
        self._written.pop(owner, None)

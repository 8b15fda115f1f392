"""Sessions in an order that moves: by last activity, by creation, by the time they are due."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROW_BITS = 40
"""Low bits of a key that hold the row number; the position in the order is above them."""

_ROW_MASK = (1 << ROW_BITS) - 1

SLACK = 64
"""Outdated keys that are never worth a clean-up."""


def key_of(position: int, row: int) -> int:
    """Return the sort key of a row at a position."""
    return position << ROW_BITS | row


def row_of(key: int) -> int:
    """Return the row of a sort key."""
    return key & _ROW_MASK


class Order:
    """A sorted list of keys that is only ever added to; keys that are outdated are skipped.

    A session that moves gets a new key and its old one goes stale: the caller's `current` says
    which are. When more than half are stale, they are dropped, so that adding is O(1) amortised
    (positions mostly grow) and reading a page costs the page.
    """

    __slots__ = ("_keys", "_limit")

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._limit = SLACK

    def add(self, key: int, current: Callable[[int], bool]) -> None:
        """Add a key; `current(key)` says of any key whether it still holds."""
        keys = self._keys
        if not keys or key > keys[-1]:
            keys.append(key)
        else:
            insort(keys, key)
        if len(keys) > self._limit:
            self._keys = [key for key in dict.fromkeys(keys) if current(key)]
            self._limit = 2 * len(self._keys) + SLACK

    def ascending(self, after: int | None = None) -> Iterator[int]:
        """Yield keys above `after`, each once, stale ones included."""
        keys = self._keys
        index = 0 if after is None else bisect_right(keys, after)
        previous = None
        while index < len(keys):
            if keys[index] != previous:
                previous = keys[index]
                yield previous
            index += 1

    def descending(self, before: int | None = None) -> Iterator[int]:
        """Yield keys below `before` from the top, each once, stale ones included."""
        keys = self._keys
        index = (len(keys) if before is None else bisect_left(keys, before)) - 1
        previous = None
        while index >= 0:
            if keys[index] != previous:
                previous = keys[index]
                yield previous
            index -= 1

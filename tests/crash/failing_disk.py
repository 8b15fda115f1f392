"""A disk for the store in plain files of which one call fails, or all from one call on."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

from sojourn.stores.filesystem.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = (
    "open",
    "read",
    "write",
    "sync",
    "truncate",
    "size",
    "rename",
    "remove",
    "make_folder",
    "remove_folder",
    "names",
    "sync_folder",
)
"""Every call that a disk has."""

WRITING = ("write", "make_folder", "open")
"""The calls that need space."""


class FailingDisk(Disk):
    """Counts its calls; the one that is armed fails, a write after half of it was done.

    `made` are the names of all calls so far.
    """

    def __init__(self) -> None:
        """Nothing fails yet."""
        self.made: list[str] = []
        self.failed: list[str] = []
        self._lock = threading.Lock()
        self._at = -1
        self._error = 0
        self._names: tuple[str, ...] = CALLS
        self._forever = False

    def arm(
        self,
        at: int = 0,
        error: int = errno.EIO,
        names: tuple[str, ...] = CALLS,
        *,
        forever: bool = False,
    ) -> None:
        """Let call number `at` from now on (of those names) fail, or with `forever` all from it."""
        with self._lock:
            self._at, self._error, self._names, self._forever = at, error, names, forever

    def disarm(self) -> None:
        """Let everything work again."""
        self.arm(-1)

    def _fails(self, name: str) -> bool:
        with self._lock:
            self.made.append(name)
            if self._at < 0 or name not in self._names:
                return False
            self._at -= 1
            if self._at >= 0:
                return False
            self._at = 0 if self._forever else -1
            self.failed.append(name)
            return True

    def raise_error(self) -> None:
        """Raise what a call raises that fails."""
        raise OSError(self._error, os.strerror(self._error))


def _failing(name: str) -> Callable[..., Any]:
    real = getattr(Disk, name)

    def call(self: FailingDisk, *args: Any, **options: Any) -> Any:
        if self._fails(name):
            if name == "write":
                file, data, offset = args
                real(self, file, data[: len(data) // 2], offset)
            self.raise_error()
        return real(self, *args, **options)

    return call


for _name in CALLS:
    setattr(FailingDisk, _name, _failing(_name))

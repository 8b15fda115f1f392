"""The store under a manager of the sync face: what is asked of it directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import Unavailable
from sojourn.store import SupportsBackup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.blocking.gateway import Gateway
    from sojourn.manager import SessionManager


class Store:
    """The store underneath: its name, opening and closing, and what only some stores have."""

    def __init__(self, gateway: Gateway) -> None:
        """Made by `SessionManager.store`."""
        self._gateway = gateway

    @property
    def name(self) -> str:
        """What it is called in messages, for example its URL."""
        return self._gateway.bridge().sessions.store.name

    def open(self) -> None:
        """Open it: for one that the manager was given. Twice is fine, unless it was closed."""
        self._gateway.run(lambda sessions: sessions.store.open())

    def close(self) -> None:
        """Close it: for one that the manager was given, before the manager. Twice is fine."""
        self._gateway.run(lambda sessions: sessions.store.close())

    def backup(self, path: str, /) -> None:
        """Write a consistent copy to `path`, which must not exist yet.

        Raises `Unavailable` for a store that can not, `AlreadyExists` if there is something.
        """
        self._gateway.run(lambda sessions: _capable(sessions).backup(path))

    def check(self) -> Sequence[str]:
        """Return what is wrong, in words; empty when all is well. Raises `Unavailable`."""
        return self._gateway.run(lambda sessions: _capable(sessions).check())


def _capable(sessions: SessionManager) -> SupportsBackup:
    store = sessions.store
    if not isinstance(store, SupportsBackup):
        raise Unavailable(store.name, "this store can neither copy nor check itself")
    return store

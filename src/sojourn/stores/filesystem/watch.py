"""Wake-ups: whoever waits for a session is told when a frame has changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.wakeups import Wakeup, Wakeups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sojourn.wakeups import Key


class Watchers:
    """Who waits for which session. Used in the event loop only."""

    def __init__(self, left: Callable[[], None]) -> None:
        """`left` is called when nobody waits any more."""
        self._waiting = Wakeups()
        self._left = left

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def apps(self) -> set[str]:
        """Return the apps of which a session is watched."""
        return {app for app, _ in self._waiting.sessions()}

    def subscribe(self, key: Key) -> Wakeup:
        """Return a subscription to a session."""
        wakeup = Wakeup(key, self.leave)
        self._waiting.add(wakeup)
        return wakeup

    def leave(self, wakeup: Wakeup) -> None:
        """Forget a subscription."""
        if self._waiting.discard(wakeup) and not self._waiting:
            self._left()

    def wake(self, app: str, ids: Iterable[str]) -> None:
        """Wake whoever watches these sessions."""
        if self._waiting:
            self._waiting.wake((app, id) for id in ids)

    def wake_app(self, app: str) -> None:
        """Wake whoever watches a session of an app."""
        self._waiting.wake(key for key in self._waiting.sessions() if key[0] == app)

    def wake_all(self) -> None:
        """Wake everybody, to look for themselves."""
        self._waiting.wake_all()

"""The lifetime of a store: not open yet, open in one process and one event loop, closed."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sojourn.errors import Closed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ELSEWHERE = "open in another event loop: use and close it there, and open one more for this one"
"""What is wrong with a call in another loop: what it waits for would never come about here."""

FORKED = "of the process that this one was forked from; open it anew"
"""What is wrong with a call in a forked child: the connections are its parent's."""


class Lifetime:
    """Whether a store is open, and where."""

    def __init__(self, name: str) -> None:
        """`name` is the store's, for errors. It is not open yet."""
        self._name = name
        self._state = "not open yet"
        self._loop: asyncio.AbstractEventLoop | None = None  # while it is open
        self._process = os.getpid()
        self._closing: asyncio.Future[None] | None = None
        self.turn = asyncio.Lock()
        """Held by whoever opens the store."""

    def has_begun(self) -> bool:
        """Return whether it is open already. Raises `Closed` if it was closed, or is elsewhere."""
        if self._state != "not open yet":
            self.check()
        return self._state == "open"

    def begin(self) -> None:
        """Be open: in this process and this event loop. Raises `Closed` if it was closed by now."""
        if self._state == "closed":
            raise Closed(self._name)
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._state = "open"

    def check(self) -> None:
        """Raise `Closed` unless it is open, and this is the loop and the process it was opened in.

        The loop tells of the process too: no loop goes on in a forked child.
        """
        try:
            if asyncio.get_running_loop() is self._loop:
                return
        except RuntimeError:  # no loop runs here at all
            pass
        if self._state == "open":
            raise Closed(self._name, ELSEWHERE if self._process == os.getpid() else FORKED)
        raise Closed(self._name, self._state)

    async def end(self, shut: Callable[[], Coroutine[object, object, None]]) -> None:
        """Be closed; `shut` is called, once, if it was open. Twice is fine.

        A call that is cancelled does not stop `shut`; another one waits for its end. In a forked
        child nothing is shut: it is the parent's. Raises `Closed` in another event loop.
        """
        is_ours = self._process == os.getpid()
        if self._state == "open" and is_ours:
            self.check()
            self._closing = asyncio.ensure_future(shut())
        self._state, self._loop = "closed", None
        if self._closing is not None and is_ours:
            await asyncio.shield(self._closing)

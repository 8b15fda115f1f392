"""A doorbell: how a thread calls into an event loop at a fraction of the usual price.

`call_soon_threadsafe` writes to a socket that the loop reads until it is empty, and each of those
steps hands the GIL over. A counter of the kernel is one short write and one short read.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Doorbell:
    """Calls from other threads into one event loop, in the order in which they were made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hang the bell; call it in `loop`. Not every system has one, nor does every loop hear it.

        Then calls go the usual way.
        """
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._bell = self._hung()

    def _hung(self) -> int | None:
        """Return a bell that the loop listens to, `None` where there is none to be had."""
        if sys.platform != "linux":
            return None
        try:
            bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:  # no file is left for it: the usual way needs none
            return None
        try:
            # In a context of its own: who opens a store is not who is called for later.
            Context().run(self._loop.add_reader, bell, self._hear)
        except NotImplementedError:
            os.close(bell)
            return None
        return bell

    def ring(self, call: Callable[[], object]) -> None:
        """Have `call` called in the loop; from any thread. In a closed loop nobody hears it."""
        if self._bell is not None and sys.platform == "linux":
            self._calls.append(call)
            os.eventfd_write(self._bell, 1)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    def _hear(self) -> None:
        """Answer the bell."""
        if self._bell is not None and sys.platform == "linux":
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        self._answer()

    def _answer(self) -> None:
        """Make the calls that were asked for; one that fails does not keep the others waiting."""
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls:
                self._loop.call_soon(self._answer)

    def close(self) -> None:
        """Take the bell down, in the loop and once no thread rings any more. Twice is fine.

        What was rung for and not heard yet is answered.
        """
        bell, self._bell = self._bell, None
        if bell is not None:
            self._loop.remove_reader(bell)
            os.close(bell)
            self._answer()

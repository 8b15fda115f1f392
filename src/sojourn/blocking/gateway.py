"""The way into the async manager: from any thread, through its loop, and anew after a fork."""

from __future__ import annotations

import os
import threading
import weakref
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from sojourn.blocking import loop
from sojourn.blocking.deadline import without_deadline
from sojourn.blocking.hooks import in_thread
from sojourn.blocking.loop import LoopThread, refuse_inside_a_loop
from sojourn.errors import Closed, InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from sojourn.blocking.hooks import Hook
    from sojourn.blocking.loop import Lodger
    from sojourn.manager import SessionManager
    from sojourn.scopes import Scope, Scopes

T = TypeVar("T")


class Bridge:
    """One async manager and the loop that it lives in: of one process, until it is closed.

    The loop's thread is started by the first call, and stopped when the last object that needs
    the bridge is gone.
    """

    def __init__(self, sessions: SessionManager, *, owns_store: bool) -> None:
        """`owns_store`: whether the store is opened by the first call and closed with the loop."""
        self.sessions = sessions
        self.lodgers: weakref.WeakSet[Lodger] = weakref.WeakSet()
        """What is stopped before the loop is. Only the loop's thread adds to it."""
        self._owns_store = owns_store
        self._lock = threading.RLock()
        self._thread: LoopThread | None = None
        self._stopper: weakref.finalize[..., Bridge] | None = None
        self._is_open = False
        self._refusal: Closed | None = None
        _bridges.add(self)

    def run(
        self, work: Callable[[SessionManager], Awaitable[T]], context: Context | None = None
    ) -> T:
        """Await `work(sessions)` in the loop and return the result.

        It runs in a copy of the caller's context, or in the one that is given. Raises `WouldBlock`
        where an event loop runs, `Closed` once the bridge is closed, and what `LoopThread.run`
        does.
        """
        refuse_inside_a_loop()
        thread = self._running()
        context = without_deadline(copy_context() if context is None else context)
        return thread.run(lambda: self._opened(work), context)

    async def awaited(self, work: Callable[[SessionManager], Awaitable[T]]) -> T:
        """Do the same for code that runs in an event loop of its own: that loop goes on."""
        thread = self._running()
        return await thread.awaited(lambda: self._opened(work), without_deadline(copy_context()))

    async def _opened(self, work: Callable[[SessionManager], Awaitable[T]]) -> T:
        """Await `work`, with the store open; runs in the loop."""
        if not self._is_open:
            await self.sessions.__aenter__()
            self._is_open = True
        return await work(self.sessions)

    def ask(self, work: Callable[[SessionManager], T]) -> T:
        """Return `work(sessions)`, called in the loop: the manager is not for other threads."""

        async def answer(sessions: SessionManager) -> T:
            return work(sessions)

        return self.run(answer)

    def _running(self) -> LoopThread:
        with self._lock:
            if self._refusal is not None:
                raise Closed(self._refusal.what, self._refusal.reason)
            if self._thread is None:
                # Neither of them knows the bridge: it can be collected while they are there.
                last = self.sessions.store.close if self._owns_store else None
                self._thread = LoopThread(self.lodgers, last)
                self._stopper = weakref.finalize(self, self._thread.stop_soon)
                self._stopper.atexit = False  # the loop has a way of its own to go then
            return self._thread

    def close(self) -> None:
        """Close the manager, end what still waits with `Closed`, and stop. Twice is fine.

        Raises `InvalidQuery` in an end hook, and goes on.
        """
        refuse_inside_a_loop()
        with self._lock:
            thread = self._thread
            if thread is None:
                self._refusal = self._refusal or Closed("session manager")
                return

        async def close() -> None:
            await self.sessions.close()

        refused = False
        try:
            if thread.is_alive():
                thread.run(close, without_deadline(copy_context()))
        except Closed:  # another thread closes it as well
            pass
        except InvalidQuery:
            refused = True
            raise
        finally:
            if not refused:
                thread.stop()
                if self._stopper is not None:
                    self._stopper.detach()

    def disown(self) -> None:
        """Belong to the process that this one was forked from; called in the child.

        The loop, its thread and its store stay behind there. Nothing here may touch them: the file
        descriptors are shared.
        """
        self._lock = threading.RLock()  # a thread that is not here may hold the other one
        self._refusal = self._refusal or Closed(
            "session manager", "of the process that this one was forked from; open it anew"
        )
        if self._stopper is not None:
            self._stopper.detach()
        _left_behind.append((self._thread, self.sessions))
        self._thread = None


class Gateway:
    """Leads to the bridge of this process.

    One that owns its store makes a new bridge after a fork, with a loop and a store of its own.
    The others refuse the child's calls.
    """

    def __init__(self, make: Callable[[], SessionManager]) -> None:
        """`make` makes the async manager; raises what `make` does."""
        self._make = make
        self._owns_store = False
        self._hooks: list[Hook] = []
        self._bridge: Bridge | None = None
        self._lock = threading.RLock()
        self._closed = False
        self.bridge()
        _gateways.add(self)

    def own(self, make: Callable[[], SessionManager]) -> None:
        """Lead to managers that own their stores: `make` makes one, now and after a fork."""
        with self._lock:
            self._make, self._owns_store, self._bridge = make, True, None
            self.bridge()

    def bridge(self) -> Bridge:
        """Return the bridge of this process."""
        with self._lock:
            if self._bridge is None:
                sessions = self._make()
                for hook in self._hooks:
                    sessions.on_end(in_thread(hook))
                self._bridge = Bridge(sessions, owns_store=self._owns_store)
                _leading[sessions.scopes] = weakref.ref(self)
            return self._bridge

    def run(self, work: Callable[[SessionManager], Awaitable[T]]) -> T:
        """Await `work(sessions)` in the loop and return the result; see `Bridge.run`."""
        return self.bridge().run(work)

    async def awaited(self, work: Callable[[SessionManager], Awaitable[T]]) -> T:
        """Do the same from an event loop of one's own; see `Bridge.awaited`."""
        return await self.bridge().awaited(work)

    def ask(self, work: Callable[[SessionManager], T]) -> T:
        """Return `work(sessions)`, called in the loop; see `Bridge.ask`."""
        return self.bridge().ask(work)

    def add_hook(self, hook: Hook) -> None:
        """Run a hook at the end of every session from now on. Raises `InvalidQuery`."""
        with self._lock:
            self.bridge().sessions.on_end(in_thread(hook))
            self._hooks.append(hook)

    def close(self) -> None:
        """Close it in this process, and in those that are forked from now on."""
        self.bridge().close()
        self._closed = True

    def forked(self) -> None:
        """Leave the parent's bridge behind; called in the child."""
        self._lock = threading.RLock()  # a thread that is not here may hold the other one
        if self._owns_store and not self._closed:
            self._bridge = None


def gateway_to(scope: Scope) -> Gateway:
    """Return what leads to the manager that a scope is of. Raises `InvalidQuery` for none."""
    leading = _leading.get(scope.owner)
    gateway = None if leading is None else leading()
    if gateway is None:
        raise InvalidQuery("child", "the ambient session is of no sojourn.blocking.SessionManager")
    return gateway


_gateways: weakref.WeakSet[Gateway] = weakref.WeakSet()

_leading: weakref.WeakKeyDictionary[Scopes, weakref.ref[Gateway]] = weakref.WeakKeyDictionary()
"""By the scopes of its manager, what leads there. A lookup is one step, from whichever thread."""

_bridges: weakref.WeakSet[Bridge] = weakref.WeakSet()
"""Those that are led to, and those that only a lease or a watch still holds."""

_left_behind: list[object] = []
"""What is the parent's: kept, because taking it down would touch what the parent still uses."""


def _after_fork() -> None:
    loop.forget_all()
    for bridge in list(_bridges):
        bridge.disown()
    for gateway in list(_gateways):
        gateway.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

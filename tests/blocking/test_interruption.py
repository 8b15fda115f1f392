"""A caller that is interrupted or out of time has its call cancelled, and its outcome is final."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING

import pytest
from tests.blocking.waiting import SECONDS, HeldStore, in_threads, joined

from sojourn import Event, InvalidQuery, LeaseHeld, current_session
from sojourn.blocking import SessionManager, timeout
from sojourn.blocking.deadline import seconds_left
from sojourn.blocking.loop import SIGNAL_SECONDS, Call
from sojourn.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sojourn.store import Acquire, Change, Committed


@contextmanager
def interrupted_by(knock: Callable[[], object]) -> Iterator[None]:
    """Interrupt the main thread, as Ctrl-C would, once `knock` has returned in another thread."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        knock()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threads = in_threads(wait)
        yield
        joined(threads)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_call_is_cancelled() -> None:
    """The commit was not applied, and nobody applies it later."""
    store = HeldStore()
    with SessionManager(store) as sessions:
        s = sessions.create()
        with (
            interrupted_by(lambda: store.reached.wait(SECONDS)),
            pytest.raises(KeyboardInterrupt),
        ):
            sessions.append(s, Event(kind="k"))
        store.let_go()
        assert sessions.events(s.id) == []
        assert s.revision == 1
        sessions.append(s, Event(kind="k"))  # the copy is as good as before


class DeafStore(MemoryStore):
    """A store whose commits are applied whoever cancels, as those of a file that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.cancelled = threading.Event()

    async def commit(self, change: Change, /) -> Committed:
        self.reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
        return await super().commit(change)


def test_an_interrupted_call_that_was_applied_is_known_to_the_copy() -> None:
    store = DeafStore()
    with SessionManager(store) as sessions:
        s = sessions.create()
        with (
            interrupted_by(lambda: store.reached.wait(SECONDS)),
            pytest.raises(KeyboardInterrupt),
        ):
            sessions.append(s, Event(kind="k"))
        assert store.cancelled.is_set()
        assert s.revision == 2
        assert len(sessions.events(s.id)) == 1


def test_a_call_out_of_time_that_was_applied_returns_its_result() -> None:
    store = DeafStore()
    with SessionManager(store) as sessions:
        s = sessions.create()
        with timeout(0.01):
            assert sessions.append(s, Event(kind="k")).seq == 1


def test_a_call_out_of_time_is_cancelled() -> None:
    store = HeldStore()
    with SessionManager(store) as sessions:
        s = sessions.create()
        with pytest.raises(TimeoutError, match="cancelled"), timeout(0.01):
            sessions.append(s, Event(kind="k"))
        with pytest.raises(TimeoutError, match="no time"), timeout(0):
            sessions.count()
        store.let_go()
        assert sessions.events(s.id) == []


class SlowLease(MemoryStore):
    """A store that grants a lease, and answers only when it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.granted = threading.Event()
        self.slow = True

    async def acquire(self, acquire: Acquire, /) -> int:
        token = await super().acquire(acquire)
        if self.slow:
            self.slow = False
            self.granted.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return token  # too late: it is granted
        return token


def test_who_is_interrupted_while_entering_holds_nothing() -> None:
    """The lease was granted, and there is no body to leave: so it is left at once."""
    store = SlowLease()
    with SessionManager(store) as sessions:
        s = sessions.create()
        with (
            interrupted_by(lambda: store.granted.wait(SECONDS)),
            pytest.raises(KeyboardInterrupt),
            sessions.lease(s.id),
        ):
            pytest.fail("the body is not entered")
        with sessions.lease(s.id) as lease:
            assert lease.token == 2


def test_a_second_interruption_leaves_at_once() -> None:
    """The store neither answers nor heeds the cancellation; whoever insists is let go."""

    class StuckStore(HeldStore):
        def __init__(self) -> None:
            super().__init__()
            self.asked_to_stop = threading.Event()

        async def commit(self, change: Change, /) -> Committed:
            while not self.gate.is_set():
                try:
                    return await super().commit(change)
                except asyncio.CancelledError:
                    self.asked_to_stop.set()
            return await super().commit(change)

    store = StuckStore()
    with SessionManager(store) as sessions:
        s = sessions.create()
        with (
            interrupted_by(lambda: store.asked_to_stop.wait(SECONDS)),
            pytest.raises(KeyboardInterrupt),
            interrupted_by(lambda: store.reached.wait(SECONDS)),
        ):
            sessions.append(s, Event(kind="k"))
        store.let_go()
        assert len(sessions.events(s.id)) in {0, 1}


def test_a_signal_handler_may_call_while_its_thread_waits() -> None:
    """The handler's call is one of its own."""
    store = HeldStore()
    with SessionManager(store) as sessions:
        s = sessions.create()
        seen: list[int] = []

        def handler(_number: int, _frame: object) -> None:
            seen.append(sessions.count())
            store.let_go()

        def knock() -> None:
            store.reached.wait(SECONDS)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            in_threads(knock)
            assert sessions.append(s, Event(kind="k")).seq == 1
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert seen == [1]


def test_the_main_thread_never_sleeps_for_long() -> None:
    """A signal that comes just before it goes to sleep is handled only when it wakes."""

    class Waits:
        def __init__(self, ends: int) -> None:
            self.seen: list[float | None] = []
            self._ends = ends

        def wait(self, seconds: float | None = None) -> bool:
            self.seen.append(seconds)
            return len(self.seen) == self._ends

    async def nothing() -> None:
        """Never started."""

    call = Call(nothing, copy_context())
    for seconds, ends, waited in [
        (None, 3, [SIGNAL_SECONDS] * 3),
        (0.5 * SIGNAL_SECONDS, 1, [0.5 * SIGNAL_SECONDS]),
        (2.5 * SIGNAL_SECONDS, 3, [SIGNAL_SECONDS, SIGNAL_SECONDS, 0.5 * SIGNAL_SECONDS]),
        (2.5 * SIGNAL_SECONDS, 2, [SIGNAL_SECONDS] * 2),
    ]:
        over = call._over = Waits(ends)  # type: ignore[assignment]  # as much of an Event as it takes
        assert call.wait(seconds)
        assert over.seen == pytest.approx(waited)


def test_of_nested_deadlines_the_first_counts() -> None:
    assert seconds_left() is None
    with timeout(100):
        with timeout(10):
            left = seconds_left()
            assert left is not None
            assert left <= 10
            with timeout(1000):
                left = seconds_left()
                assert left is not None
                assert left <= 10
        left = seconds_left()
        assert left is not None
        assert left > 10
    assert seconds_left() is None


def test_a_deadline_is_not_for_what_is_called() -> None:
    """A hook has its own time: it is run for everybody, not only for whoever is in a hurry."""
    with SessionManager.open("memory://") as sessions:
        seen: list[float | None] = []
        sessions.on_end(lambda _session, _reason: seen.append(seconds_left()))
        with timeout(3600):
            sessions.end(sessions.create().id)
        assert seen == [None]


@pytest.mark.parametrize("wrong", [-1, float("nan"), True, "1", None])
def test_what_is_no_time_is_refused(wrong: float) -> None:
    with pytest.raises(InvalidQuery, match="seconds"), timeout(wrong):
        pass


def test_a_long_time_is_a_time() -> None:
    with timeout(float("inf")), SessionManager.open("memory://") as sessions:
        assert sessions.count() == 0


def test_waiting_for_a_lease_ends_with_the_deadline(sessions: SessionManager) -> None:
    s = sessions.create()
    with sessions.lease(s.id):
        with pytest.raises(TimeoutError), timeout(0.01), sessions.lease(s.id, wait=3600):
            pass
        with pytest.raises(LeaseHeld), sessions.lease(s.id):
            pass


@pytest.mark.parametrize("error", [None, ValueError("the body's")], ids=["late", "raises"])
def test_who_has_no_time_left_holds_nothing(
    sessions: SessionManager, error: ValueError | None
) -> None:
    """A lease would be renewed for ever, and a scope keep its session in use."""
    s = sessions.create(state={"n": 0})
    for span in (sessions.lease(s.id), sessions.scope(s)):
        span.__enter__()
        s.state["n"] = 1
        with timeout(0):
            if error is None:
                with pytest.raises(TimeoutError, match="no time"):
                    span.__exit__(None, None, None)
            else:
                assert not span.__exit__(ValueError, error, None)
    assert current_session() is None
    assert sessions._gateway.bridge().sessions.scopes.live() == frozenset()
    assert sessions.require(s.id).state["n"] == 0
    with sessions.lease(s.id) as lease:
        assert lease.token == 2

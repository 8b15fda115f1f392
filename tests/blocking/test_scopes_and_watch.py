"""Scopes are ambient in the thread that enters them; watches are iterators that can be closed."""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest
from tests.blocking.waiting import SECONDS, HeldStore, in_threads, joined

from sojourn import Closed, Ended, Event, NotFound, carry, current_session, in_scope
from sojourn.blocking import SessionManager, timeout
from sojourn.stores.memory import MemoryStore

if TYPE_CHECKING:
    from sojourn import Session

mine: ContextVar[int] = ContextVar("mine", default=0)


def test_a_scope_is_ambient_in_its_thread_and_saves(sessions: SessionManager) -> None:
    outer, inner = sessions.create(), sessions.create()
    with sessions.scope(outer.id) as s:
        assert current_session() is s
        with sessions.scope(inner) as nested:
            assert current_session() is nested is inner
        assert current_session() is s
        s.state["x"] = 1
        seen: list[Session | None] = []
        joined(in_threads(lambda: seen.append(current_session())))
        assert seen == [None]
        joined(in_threads(in_scope(lambda: seen.append(current_session()))))
        assert seen == [None, s]
        carried = carry()
    assert current_session() is None
    assert sessions.require(outer.id).state["x"] == 1
    with sessions.resume(carried) as again:
        assert current_session() is again
    with sessions.scope(outer.id, end=True):
        pass
    assert sessions.get(outer.id) is None


def test_a_body_that_raises_is_not_saved(sessions: SessionManager) -> None:
    s = sessions.create()
    error = ValueError("mine")

    def body() -> None:
        with sessions.scope(s.id) as copy:
            copy.state["x"] = 1
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        body()
    assert caught.value is error
    assert current_session() is None
    assert dict(sessions.require(s.id).state) == {}


def test_a_scope_that_cannot_be_entered_leaves_nothing(sessions: SessionManager) -> None:
    with pytest.raises(NotFound), sessions.scope("nobody"):
        pass
    assert current_session() is None
    s = sessions.create()

    def body() -> None:
        with sessions.scope(s):
            sessions.end(s.id)
            s.state["x"] = 1

    with pytest.raises(Ended):
        body()
    assert current_session() is None


def test_what_the_body_sets_in_its_context_stays(sessions: SessionManager) -> None:
    """Only what entering set is taken back."""

    def body() -> dict[ContextVar[Any], Any]:
        with sessions.scope(sessions.create()):
            mine.set(7)
        return dict(copy_context())

    assert copy_context().run(body) == {**copy_context(), mine: 7}


def test_a_scope_may_be_entered_again_and_inside_itself(sessions: SessionManager) -> None:
    s = sessions.create()
    scope = sessions.scope(s.id)
    for _ in range(2):
        with scope as outer, scope as inner:
            assert current_session() is inner is not outer
    assert current_session() is None


def test_a_scope_may_be_left_by_another_thread(sessions: SessionManager) -> None:
    """As when a generator is closed elsewhere: it is saved, and nobody's context is upset."""
    s = sessions.create()
    scope = sessions.scope(s)
    scope.__enter__()
    s.state["x"] = 1
    failed: list[BaseException] = []

    def leave() -> None:
        try:
            scope.__exit__(None, None, None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
            failed.append(error)

    joined(in_threads(leave))
    assert failed == []
    assert current_session() is None
    assert sessions.require(s.id).state["x"] == 1


def test_a_scope_is_left_when_its_manager_is_closed(url: str) -> None:
    sessions = SessionManager.open(url)
    s = sessions.create()
    with pytest.raises(Closed), sessions.scope(s):
        sessions.close()
    assert current_session() is None


def test_an_error_of_the_body_outlives_a_closed_manager(url: str) -> None:
    sessions = SessionManager.open(url)
    s = sessions.create()

    def body() -> None:
        with sessions.scope(s):
            sessions.close()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        body()
    assert current_session() is None


def test_a_deadline_holds_inside_a_scope() -> None:
    """And what the scope itself does later, in its own time, is not cut short by it."""
    store = HeldStore()
    sessions = SessionManager(store)
    s = sessions.create()
    with pytest.raises(TimeoutError), timeout(3600), sessions.scope(s), timeout(0.01):
        sessions.append(s, Event(kind="k"))
    assert current_session() is None
    assert sessions.events(s.id) == []
    sessions.close()


# ----------------------------------------------------------------------------------------- watching


def test_a_watch_shows_what_is_stored_and_what_comes(sessions: SessionManager) -> None:
    s = sessions.create(events=[Event(kind="k", body=n) for n in range(3)])
    watch = sessions.watch(s.id, after=1)
    assert [next(watch).body for _ in range(2)] == [1, 2]
    threads = in_threads(lambda: sessions.append(s.id, Event(kind="k", body=3)))
    assert next(watch).body == 3
    joined(threads)
    sessions.end(s.id)
    assert list(watch) == []
    with pytest.raises(StopIteration):
        next(watch)
    with pytest.raises(NotFound):
        next(sessions.watch("nobody"))


class WatchedStore(MemoryStore):
    """A store that tells when somebody waits for a session to change."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def subscribe(self, app: str, id: str, /) -> Any:
        subscription, waits = super().subscribe(app, id), self.waits

        class Told:
            async def wait(self, seconds: float, /) -> None:
                waits.set()
                await subscription.wait(3600 + seconds)

            def close(self) -> None:
                subscription.close()

        return Told()


def test_a_watch_is_closed_from_another_thread() -> None:
    """While it waits for an event that will not come."""
    store = WatchedStore()
    with SessionManager(store) as sessions:
        s = sessions.create(events=[Event(kind="k")])
        watch = sessions.watch(s.id)
        seen: list[int | None] = []
        threads = in_threads(lambda: seen.extend(event.seq for event in watch))
        assert store.waits.wait(SECONDS)
        watch.close()
        watch.close()
        joined(threads)
        assert seen == [1]


def test_threads_share_a_watch(sessions: SessionManager) -> None:
    """Each event goes to one of them."""
    s = sessions.create(events=[Event(kind="k", body=n) for n in range(40)])
    seen: list[object] = []
    all_seen = threading.Event()
    with sessions.watch(s.id) as watch:

        def follow() -> None:
            for event in watch:
                seen.append(event.body)
                if len(seen) == 40:
                    all_seen.set()

        threads = in_threads(*[follow] * 4)
        assert all_seen.wait(SECONDS)
    joined(threads)
    assert sorted(seen) == list(range(40))  # type: ignore[type-var]  # all are numbers


def test_a_watch_that_ran_out_of_time_goes_on_where_it_was(sessions: SessionManager) -> None:
    s = sessions.create(events=[Event(kind="k")])
    watch = sessions.watch(s.id)
    last = next(watch).seq
    assert last is not None
    with pytest.raises(TimeoutError), timeout(0.01):
        next(watch)
    with pytest.raises(StopIteration):
        next(watch)
    sessions.append(s, Event(kind="k"))
    assert next(sessions.watch(s.id, after=last)).seq == 2


def test_a_watch_that_is_closed_too_late_is_closed_all_the_same(sessions: SessionManager) -> None:
    """Nothing of it is left; that it was late is told, if the body did not raise."""
    s = sessions.create(events=[Event(kind="k")])
    watches = sessions._gateway.bridge().sessions._watches
    for late in (True, False):
        watch = sessions.watch(s.id)
        next(watch)
        assert watches.watched == {s.id}
        with timeout(0):
            if late:
                with pytest.raises(TimeoutError, match="no time"):
                    watch.close()
            else:
                watch.__exit__(KeyError, KeyError(), None)
        assert watches.watched == frozenset()
        assert list(watch) == []


def test_a_watch_that_nobody_holds_is_over(sessions: SessionManager) -> None:
    """Its subscription goes with it, and ending the session waits for nobody."""
    s = sessions.create(events=[Event(kind="k")])
    next(sessions.watch(s.id))
    assert sessions.end(s.id)


def test_a_watch_of_a_closed_manager_is_closed_in_peace(url: str) -> None:
    sessions = SessionManager.open(url)
    s = sessions.create(events=[Event(kind="k")])
    watch = sessions.watch(s.id)
    next(watch)
    sessions.close()
    with contextlib.closing(watch):
        pass
    assert list(watch) == []

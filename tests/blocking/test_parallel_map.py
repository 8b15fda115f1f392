"""A bounded parallel map in threads: order, bound, first error, deadline, child scopes."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.blocking.processes import printed_by, url_of
from tests.blocking.waiting import SECONDS

from sojourn import (
    InvalidQuery,
    NotFound,
    OutOfScope,
    WouldBlock,
    current_scope,
    current_session,
    run_in_scope,
)
from sojourn import SessionManager as AsyncSessionManager
from sojourn.blocking import SessionManager, parallel_map, timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")


class Oops(Exception):
    """What an item leads to."""


@given(count=st.integers(0, 20), limit=st.integers(1, 6), lazily=st.booleans())
@settings(deadline=None, max_examples=30)
def test_results_are_in_order_and_the_bound_holds(count: int, limit: int, lazily: bool) -> None:
    """Whatever the limit, from a list or a generator; the last to begin are the first to end."""
    lock, working, most = threading.Lock(), [0], [0]

    def work(item: int) -> int:
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        with lock:
            working[0] -= 1
        return item

    items = range(count)
    mapped = parallel_map(work, iter(items) if lazily else items, limit=limit)
    assert assert_type(mapped, list[int]) == list(items)
    assert most[0] <= limit
    assert working == [0]


def test_as_many_as_the_limit_work_at_once() -> None:
    """Not fewer: a party of four comes together, the last of them first, out of ten."""
    party = threading.Barrier(4)
    turns = [threading.Event() for _ in range(5)]
    turns[4].set()

    def work(item: int) -> int:
        if item < 4:
            party.wait(SECONDS)
            assert turns[item + 1].wait(SECONDS)
            turns[item].set()
        return item

    assert parallel_map(work, range(10), limit=4) == list(range(10))


def test_few_items_need_few_threads() -> None:
    """A large limit costs nothing by itself."""
    before = threading.active_count()
    most: list[int] = []
    parallel_map(lambda _item: most.append(threading.active_count() - before), [1, 2], limit=10**6)
    assert max(most) <= 2
    assert parallel_map(lambda item: item, list[int](), limit=5) == []


@pytest.mark.parametrize("error", [Oops(2), StopIteration(), SystemExit(1), KeyboardInterrupt()])
def test_the_first_error_is_raised_once_the_others_are_done(error: BaseException) -> None:
    """Itself, whatever it is; nothing more is begun, and a later error is not heard of."""
    begun: list[int] = []
    done: list[int] = []
    party = threading.Barrier(3)
    failing: list[threading.Thread] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 2:
            failing.append(threading.current_thread())
        party.wait(SECONDS)
        if item == 2:
            raise error
        failing[0].join(SECONDS)
        done.append(item)
        if item == 1:
            raise ValueError("too late")

    with pytest.raises(type(error)) as caught:
        parallel_map(work, range(100), limit=3)
    assert caught.value is error
    assert sorted(begun) == [0, 1, 2]
    assert sorted(done) == [0, 1]


def test_items_are_taken_as_they_are_needed() -> None:
    """A source of any length is never read ahead, by one thread at a time; its error is raised."""
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    def work(item: int) -> None:
        if item == 5:
            raise Oops

    with pytest.raises(Oops):
        parallel_map(work, endless(), limit=1)
    assert taken == [0, 1, 2, 3, 4, 5]

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        parallel_map(work, broken(), limit=2)


def test_one_thread_at_a_time_asks_for_an_item() -> None:
    """A generator would refuse the second one."""
    both = threading.Barrier(2)
    met: list[bool] = []

    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> int:
            try:
                both.wait(0.05)  # for another one to come in as well
            except threading.BrokenBarrierError:
                met.append(False)
            else:
                met.append(True)
            if len(met) > 4:
                raise StopIteration
            return 1

    parallel_map(abs, Source(), limit=2)
    assert not any(met)


def test_an_item_that_comes_after_an_error_is_not_begun() -> None:
    """Its source was asked for it before, and took its time."""
    begun: list[int] = []
    failing: list[threading.Thread] = []
    asked, working = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        yield 0
        asked.set()
        assert working.wait(SECONDS)
        failing[0].join(SECONDS)
        assert not failing[0].is_alive()
        yield 1

    def work(item: int) -> None:
        begun.append(item)
        failing.append(threading.current_thread())
        working.set()
        assert asked.wait(SECONDS)
        raise Oops

    with pytest.raises(Oops):
        parallel_map(work, slow(), limit=2)
    assert begun == [0]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3", None, 2**63])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(InvalidQuery, match="limit"):
        parallel_map(abs, [0], limit=limit)


def test_it_is_refused_inside_an_event_loop() -> None:
    async def main() -> None:
        with pytest.raises(WouldBlock):
            parallel_map(abs, [0])

    asyncio.run(main())


def test_a_thread_that_cannot_be_started_begins_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that were started end first."""
    start = threading.Thread.start
    begun: list[int] = []
    held = threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if "sojourn" in thread.name and begun:
            held.set()
            raise RuntimeError("can't start new thread")
        start(thread)
        assert arrived.wait(SECONDS)

    arrived = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        arrived.set()
        assert held.wait(SECONDS)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        parallel_map(work, range(2), limit=2)
    assert begun[0] == 0
    assert held.is_set()


def test_what_is_out_of_time_takes_no_more_items() -> None:
    """Those under way are waited for; all done, though late, is done."""
    ran: list[int] = []
    with pytest.raises(TimeoutError, match="no time"), timeout(0):
        parallel_map(ran.append, [1, 2])
    assert ran == []
    with timeout(0):
        assert parallel_map(ran.append, list[int]()) == []
    with timeout(3600):
        assert parallel_map(abs, [-1, -2]) == [1, 2]


def test_who_is_interrupted_leaves_once_those_under_way_are_done() -> None:
    begun: list[int] = []
    done: list[int] = []
    interrupted = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if len(begun) == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert interrupted.wait(SECONDS)
        done.append(item)

    def interrupt(_number: int, _frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            parallel_map(work, range(1000), limit=1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert begun == done
    assert len(done) < 1000


# ----------------------------------------------------------------------------------------- sessions


def test_all_items_see_the_ambient_session(sessions: SessionManager) -> None:
    """The same copy, and the context of the caller; outside of scopes, none."""
    s = sessions.create()
    asked_by.set("somebody")

    def look(_item: int) -> tuple[object, str]:
        seen = asked_by.get()
        asked_by.set("an item")
        sessions.count()
        return current_session(), seen

    with sessions.scope(s) as here:
        for session, _ in parallel_map(look, range(8), limit=4):
            assert session is here
    assert parallel_map(look, [0]) == [(None, "somebody")]
    assert asked_by.get() == "somebody"


def test_items_may_have_child_scopes_of_their_own(sessions: SessionManager) -> None:
    """Distinct ones, each with its own copy and the outer as parent; all are closed afterwards."""
    sessions.create(id="s1")
    live = sessions._gateway.bridge().sessions.scopes.live
    seen: list[tuple[str, str | None]] = []

    def work(item: int) -> object:
        scope = current_scope()
        assert scope is not None
        seen.append((scope.id, scope.parent_id))
        assert len(scope.session.state) < 20
        scope.session.state[str(item)] = item
        return scope.session

    with sessions.scope("s1") as s:
        outer = current_scope()
        assert outer is not None
        copies = parallel_map(work, range(20), limit=5, child=True)
        assert len({id(copy) for copy in (s, *copies)}) == 21
        assert live() == {"s1"}
        assert s.scopes == 1
        assert dict(s.state) == {}
        assert current_scope() is outer
    assert len({scope for scope, _ in seen}) == 20
    assert {parent for _, parent in seen} == {outer.id}
    assert len(sessions.require("s1").state) == 20
    assert live() == frozenset()


def test_of_child_scopes_the_failing_one_saves_nothing(sessions: SessionManager) -> None:
    """What the others had saved before stays."""
    s = sessions.create()

    def work(item: int) -> None:
        session = current_session()
        assert session is not None
        session.state[str(item)] = item
        if item == 1:
            raise Oops

    with pytest.raises(Oops), sessions.scope(s.id):
        parallel_map(work, range(3), limit=1, child=True)
    assert dict(sessions.require(s.id).state) == {"0": 0}


def test_child_scopes_need_a_scope_of_a_manager_that_blocks(sessions: SessionManager) -> None:
    """Asked for where there is none, nothing is begun."""
    with pytest.raises(OutOfScope, match="parallel_map"):
        parallel_map(abs, [0], child=True)
    with pytest.raises(NotFound, match="save it"), sessions.scope(sessions.new()):
        parallel_map(abs, [0], child=True)

    async def main() -> None:
        async with (
            AsyncSessionManager.open("memory://") as others,
            others.scope(await others.create()),
        ):
            with pytest.raises(InvalidQuery, match=r"sojourn\.blocking"):
                await run_in_scope(lambda: parallel_map(abs, [0], child=True))

    asyncio.run(main())


def test_child_scopes_of_the_manager_that_is_ambient(sessions: SessionManager) -> None:
    """Of several: the one whose session it is."""
    with SessionManager.open("memory://", app="other") as others:
        s, t = sessions.create(), others.create()
        with sessions.scope(s.id), others.scope(t.id):
            (app,) = parallel_map(lambda _item: current_session(), [0], child=True)
        assert app is not None
        assert app.app == "other"


def test_in_the_child_of_a_fork_it_works(tmp_path: Path) -> None:
    """With what the child has of its own: its threads, its loop, its store."""
    program = """
    from sojourn.blocking import parallel_map
    sessions = SessionManager.open(url)
    sessions.create(id="s")

    def work():
        print(parallel_map(abs, [-1, -2]))
        print(parallel_map(lambda n: current_session().id + str(n), [1, 2], child=True))

    with sessions.scope("s"):
        done(child(work))
    """
    assert printed_by(program, url_of(tmp_path)).splitlines() == ["[1, 2]", "['s1', 's2']"]

"""Many threads on one manager, closing under them, and threads that must not outlive it."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING

import pytest
from tests.blocking.waiting import SECONDS, HeldStore, in_threads, joined

from sojourn import Closed, Event, WouldBlock, current_session
from sojourn.blocking import Reaper, SessionManager, timeout
from sojourn.blocking.loop import Call, LoopThread

if TYPE_CHECKING:
    from sojourn import Session
    from sojourn.blocking import Hook

THREADS = 16
EACH = 10


def test_many_threads_share_a_manager(sessions: SessionManager) -> None:
    """Every append is there once, in an order of its own; every thread has its own scope."""
    shared = sessions.create()
    strangers: list[object] = []

    def work(number: int) -> None:
        mine = sessions.create(state={"n": 0})
        for turn in range(EACH):
            sessions.append(shared.id, Event(kind="turn", body=[number, turn]))
            with sessions.scope(mine.id) as s:
                s.state["n"] += 1
                if current_session() is not s:
                    strangers.append(current_session())
        if sessions.require(mine.id).state["n"] != EACH:
            strangers.append(mine.id)

    joined(in_threads(*(lambda n=n: work(n) for n in range(THREADS))))
    assert strangers == []
    bodies = [event.body for event in sessions.events(shared.id)]
    assert sorted(bodies) == [[n, turn] for n in range(THREADS) for turn in range(EACH)]
    for number in range(THREADS):
        assert [turn for n, turn in bodies if n == number] == list(range(EACH))


def test_one_of_many_creates(sessions: SessionManager) -> None:
    found: list[Session] = []
    barrier = threading.Barrier(THREADS)

    def work() -> None:
        barrier.wait(SECONDS)
        found.append(sessions.get_or_create("s-1"))

    joined(in_threads(*[work] * THREADS))
    assert len(found) == THREADS
    assert len({s.epoch for s in found}) == 1


def test_the_first_calls_open_one_loop(url: str) -> None:
    """However many come at once."""
    before = threading.active_count()
    sessions = SessionManager.open(url)
    barrier = threading.Barrier(THREADS)
    loops: set[int | None] = set()

    def loop_of(_session: Session, _reason: str) -> None:
        """Run where hooks run."""

    sessions.on_end(loop_of)
    assert threading.active_count() == before

    def work() -> None:
        barrier.wait(SECONDS)
        sessions.count()
        loops.update(t.ident for t in threading.enumerate() if t.name == "sojourn blocking")

    joined(in_threads(*[work] * THREADS))
    ours = {t.ident for t in threading.enumerate() if t.name == "sojourn blocking"}
    assert len(loops & ours) >= 1
    sessions.close()
    assert not any(t.name == "sojourn blocking" and t.ident in loops for t in threading.enumerate())


# ------------------------------------------------------------------------------------------ closing


def test_who_waits_when_it_is_closed_is_told(url: str) -> None:
    """Watchers, those who wait for a lease, and those who come later."""
    sessions = SessionManager.open(url)
    s = sessions.create()
    waiting = threading.Barrier(3)
    told: list[BaseException] = []

    def watch() -> None:
        waiting.wait(SECONDS)
        try:
            list(sessions.watch(s.id))
        except Closed as error:
            told.append(error)

    def lease() -> None:
        waiting.wait(SECONDS)
        try:
            with sessions.lease(s.id, wait=3600):
                told.append(AssertionError("the lease was to be had"))
        except Closed as error:
            told.append(error)

    held = sessions.lease(s.id)
    held.__enter__()
    threads = in_threads(watch, lease)
    waiting.wait(SECONDS)
    sessions.close()
    joined(threads)
    assert [type(error) for error in told] == [Closed, Closed]
    with pytest.raises(Closed):
        held.__exit__(None, None, None)


def test_a_call_under_way_ends_when_it_is_closed() -> None:
    """A commit that never comes back from its store does not keep its thread for ever."""
    store = HeldStore()
    sessions = SessionManager(store)
    s = sessions.create()
    told: list[BaseException] = []

    def append() -> None:
        try:
            sessions.append(s, Event(kind="k"))
        except Closed as error:
            told.append(error)

    threads = in_threads(append)
    assert store.reached.wait(SECONDS)
    joined(in_threads(*[sessions.close] * 4))
    joined(threads)
    assert "under way" in str(told[0])


def test_closing_waits_for_the_ends_under_way(sessions: SessionManager) -> None:
    """And a hook may use the manager meanwhile."""
    s = sessions.create(state={"answer": 42})
    running, go_on = threading.Event(), threading.Event()
    seen: list[object] = []

    @sessions.on_end
    def hook(session: Session, _reason: str) -> None:
        running.set()
        assert go_on.wait(SECONDS)
        sessions.share({"app:last": session.state["answer"]})
        seen.append(sessions.app_state())

    threads = in_threads(lambda: sessions.end(s.id))
    assert running.wait(SECONDS)
    threads += in_threads(sessions.close)
    go_on.set()
    joined(threads)
    assert seen == [{"last": 42}]


def _hook_that_knows(sessions: SessionManager) -> Hook:
    return lambda session, _reason: sessions.get(session.id)


def test_a_manager_that_is_gone_stops_its_thread(url: str) -> None:
    """Even if a hook of it names it, and although nobody closed it."""
    sessions = SessionManager.open(url)
    sessions.on_end(_hook_that_knows(sessions))
    sessions.create(id="s-1")
    (thread,) = (t for t in threading.enumerate() if t.name == "sojourn blocking")
    documents = sessions.documents("s-1")
    del sessions
    gc.collect()
    documents.put("a", "b", b"c")  # what was handed out keeps it alive
    assert thread.is_alive()
    del documents
    gc.collect()
    thread.join(SECONDS)
    assert not thread.is_alive()
    with SessionManager.open(url) as again:
        assert (again.get("s-1") is None) is url.startswith("memory")


def test_a_running_reaper_does_not_outlive_its_manager() -> None:
    sessions = SessionManager.open("memory://")
    reaper = Reaper(sessions, interval=3600).__enter__()
    (thread,) = (t for t in threading.enumerate() if t.name == "sojourn blocking")
    del sessions, reaper
    gc.collect()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_where_no_thread_can_be_started_a_manager_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at the end of the interpreter; the next call tries again."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sessions = SessionManager.open("memory://")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(Closed, match="can't start new thread"):
            sessions.count()
    assert sessions.count() == 0
    sessions.close()


def test_a_call_that_was_interrupted_while_it_was_submitted_never_begins() -> None:
    """The thread leaves between noting the call and handing it to the loop."""
    thread = LoopThread()
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    call = Call(work, copy_context())
    thread._calls.add(call)
    thread._give_up(call)
    with pytest.raises(Closed):
        call.outcome()
    thread.run(work, copy_context())
    assert begun == [1]
    assert not thread._calls
    thread.stop()


def test_whoever_waits_for_a_loop_that_broke_is_told() -> None:
    """However it went: a task that was lost must not keep a thread waiting for ever."""
    thread = LoopThread()

    async def break_the_loop() -> None:
        thread._stopped = True
        thread._loop.stop()
        await asyncio.Event().wait()

    for _ in range(2):
        with pytest.raises(Closed):
            thread.run(break_the_loop, copy_context())
        thread.join(SECONDS)
    thread.stop()


def test_a_store_that_fails_to_close_is_logged_when_nobody_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:

    async def fail() -> None:
        raise OSError("the disk is gone")

    thread = LoopThread(last=fail)
    thread.stop_soon()
    thread.join(SECONDS)
    assert "did not end well" in caplog.text


# ------------------------------------------------------------------------------- inside event loops


async def test_a_call_inside_an_event_loop_is_refused(url: str) -> None:
    """It would stop the loop, and what the call waits for may need that loop."""
    sessions = SessionManager.open(url)
    for call in (sessions.count, sessions.close, sessions.__enter__):
        with pytest.raises(WouldBlock, match="await"):
            call()
    with pytest.raises(WouldBlock), sessions.scope("s-1"):
        pass
    with pytest.raises(WouldBlock):
        next(sessions.watch("s-1"))
    assert await asyncio.to_thread(sessions.count) == 0
    await asyncio.to_thread(sessions.close)


def test_a_call_from_its_own_loop_is_refused(sessions: SessionManager) -> None:
    """An async hook runs in the loop: waiting there for the loop would never end."""
    told: list[BaseException] = []

    @sessions.on_end
    async def hook(session: Session, _reason: str) -> None:
        try:
            sessions.get(session.id)
        except WouldBlock as error:
            told.append(error)

    assert sessions.end(sessions.create().id)
    assert len(told) == 1


def test_something_that_tries_to_end_the_loop_does_not(sessions: SessionManager) -> None:
    """What a hook raises may be meant for the whole program; it is reported as its failure."""

    @sessions.on_end
    async def hook(_session: Session, _reason: str) -> None:
        raise SystemExit(3)

    s = sessions.create()
    with pytest.raises((SystemExit, Exception)):
        sessions.end(s.id)
    assert sessions.get(s.id, expired=True) is not None


def test_a_reaper_that_is_left_too_late_is_stopped_all_the_same(sessions: SessionManager) -> None:
    """It sweeps no more; that it was late is told, if the body did not raise."""
    reaper = Reaper(sessions, interval=3600)
    for how in ("stop", "with", "body"):
        reaper.__enter__()
        task = reaper._reaper._task
        assert task is not None
        with timeout(0):
            if how == "body":
                reaper.__exit__(KeyError, KeyError(), None)
            else:
                with pytest.raises(TimeoutError, match="no time"):
                    reaper.stop() if how == "stop" else reaper.__exit__(None, None, None)
        assert task.done()
    reaper.stop()
    assert reaper.sweep() == 0

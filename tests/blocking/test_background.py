"""The background runner without `await`: order, bounds, sessions, failures, threads, its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from tests.blocking.processes import printed_by, url_of
from tests.blocking.waiting import SECONDS, in_threads, joined

from sojourn import (
    Closed,
    InvalidQuery,
    NotFound,
    QueueFull,
    Unserializable,
    WouldBlock,
    current_session,
)
from sojourn.blocking import Background, SessionManager, parallel_map, timeout
from sojourn.blocking.background import Job
from sojourn.blocking.deadline import seconds_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")


class Oops(Exception):
    """What a job raises."""


class Held:
    """A job that waits until it is let go, and says that it has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(SECONDS)
        self.ended.set()
        return "done"


def nothing() -> None:
    """Do nothing."""


def fail(why: str = "") -> None:
    """Raise `Oops`."""
    raise Oops(why)


def ambient() -> str | None:
    """Return the id of the session that is ambient here."""
    session = current_session()
    return None if session is None else session.id


def count_up() -> None:
    """Add one to `n` of the ambient session."""
    session = current_session()
    assert session is not None
    session.state["n"] = session.state.get("n", 0) + 1


class Failures(list[tuple[str, BaseException]]):
    """Notes the failures that a runner reports, by the names of the jobs."""

    def __call__(self, job: Job[Any], error: BaseException) -> None:
        self.append((job.name, error))

    @property
    def kinds(self) -> list[type[BaseException]]:
        """What they were."""
        return [type(error) for _, error in self]


def wait_outside(jobs: Background, count: int) -> None:
    """Wait until so many submitters wait for room."""

    async def until() -> None:
        while len(jobs._runner._outside) != count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)

    jobs._home.run(until)


@pytest.fixture
def memory() -> Iterator[SessionManager]:
    """A manager for what no store has a part in."""
    with SessionManager.open("memory://") as manager:
        yield manager


# -------------------------------------------------------------------------------- order and bounds


def test_jobs_begin_in_the_order_in_which_they_were_accepted(memory: SessionManager) -> None:
    ran: list[int] = []
    with Background(memory, workers=1) as jobs:
        submitted = [jobs.submit(ran.append, number) for number in range(50)]
    assert ran == list(range(50))
    assert [job.number for job in submitted] == list(range(1, 51))
    assert all(job.done() and job.error is None for job in submitted)


def test_as_many_as_there_are_workers_run_at_once(memory: SessionManager) -> None:
    """Not fewer: a party of three comes together. And not more."""
    party = threading.Barrier(3)
    lock, most, working = threading.Lock(), [0], [0]

    def work(number: int) -> None:
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        if number < 3:
            party.wait(SECONDS)
        with lock:
            working[0] -= 1

    with Background(memory, workers=3) as jobs:
        for number in range(30):
            jobs.submit(work, number)
    assert most == [3]


def test_submit_waits_for_room_in_turn(memory: SessionManager) -> None:
    """One runs, two wait; the next ones wait outside, in the order in which they came."""
    held, ran = Held(), list[int]()
    with Background(memory, workers=1, queue=2) as jobs:
        jobs.submit(held)
        jobs.submit(ran.append, 0)
        jobs.submit(ran.append, 1)
        assert (jobs.running, jobs.waiting) == (1, 2)
        threads: list[threading.Thread] = []
        for number in range(2, 5):
            threads += in_threads(partial(jobs.submit, ran.append, number))
            wait_outside(jobs, number - 1)
        assert all(thread.is_alive() for thread in threads)
        with pytest.raises(QueueFull) as caught:
            jobs.submit_nowait(ran.append, 99)
        assert caught.value.limit == 2
        held.go.set()
        joined(threads)
        jobs.join()
        assert ran == list(range(5))
        assert (jobs.running, jobs.waiting) == (0, 0)
        jobs.submit_nowait(ran.append, 5).result()
        assert ran[-1] == 5


def test_many_threads_submit(memory: SessionManager) -> None:
    """Every job is there once, however small the queue."""
    ran: list[tuple[int, int]] = []
    submitted: list[Job[None]] = []

    def work(number: int) -> None:
        submitted.extend(jobs.submit(ran.append, (number, turn)) for turn in range(20))

    with Background(memory, workers=2, queue=2) as jobs:
        joined(in_threads(*(lambda n=n: work(n) for n in range(10))))
    assert jobs._threads == set()
    assert sorted(ran) == [(n, turn) for n in range(10) for turn in range(20)]
    assert sorted(job.number for job in submitted) == list(range(1, 201))


def test_who_is_out_of_time_while_waiting_for_room_takes_the_job_back(
    memory: SessionManager,
) -> None:
    held, ran = Held(), list[int]()
    with Background(memory, workers=1, queue=1) as jobs:
        jobs.submit(held)
        jobs.submit(ran.append, 0)
        with pytest.raises(TimeoutError), timeout(0.01):
            jobs.submit(ran.append, 1)
        with pytest.raises(TimeoutError, match="no time"), timeout(0):
            jobs.submit_nowait(ran.append, 2)
        wait_outside(jobs, 0)
        held.go.set()
    assert ran == [0]


def test_a_job_does_not_wait_for_room_that_it_takes_itself(memory: SessionManager) -> None:
    """All workers would wait for one another: it is refused instead, and so is a callback."""
    said: list[object] = []

    def work() -> str:
        jobs.submit(nothing)
        with pytest.raises(QueueFull):
            jobs.submit(nothing)
        with pytest.raises(QueueFull):
            parallel_map(lambda _item: jobs.submit(nothing), [1, 2, 3])
        for verb in (jobs.join, jobs.stop):
            with pytest.raises(InvalidQuery, match="wait for itself"):
                verb()
        return "refused"

    def on_error(_job: Job[Any], _error: BaseException) -> None:
        said.append(work())

    with Background(memory, workers=1, queue=1, on_error=on_error) as jobs:
        assert jobs.submit(work).result() == "refused"
        jobs.join()
        jobs.submit(fail)
        jobs.join()
        assert said == ["refused"]
        in_threads(lambda: said.append(jobs.stop()))[0].join(SECONDS)
    assert said[1:] == [[]]


@pytest.mark.parametrize("name", ["workers", "queue"])
@pytest.mark.parametrize("number", [0, -1, 1.5, True, None])
def test_bounds_that_are_none_are_refused(memory: SessionManager, name: str, number: Any) -> None:
    with pytest.raises(InvalidQuery, match=name):
        Background(memory, **{name: number})
    for wrong in ({"drain": -1}, {"on_error": 7}):
        with pytest.raises(InvalidQuery, match=next(iter(wrong))):
            Background(memory, **wrong)  # type: ignore[arg-type]  # what a caller without types may do
    with pytest.raises(InvalidQuery, match=r"sojourn\.blocking\.SessionManager"):
        Background(memory._gateway.bridge().sessions)  # type: ignore[arg-type]  # an async one


# ----------------------------------------------------------------------------------------- sessions


def test_a_job_joins_the_session_of_its_submitter(sessions: SessionManager) -> None:
    """On a copy of its own, saved at its end; the session has not ended when the job is done."""
    ends: list[str] = []
    sessions.on_end(lambda session, _reason: ends.append(session.id))
    with Background(sessions) as jobs:
        sessions.create(id="s1", state={"n": 0})
        with sessions.scope("s1") as s:
            job = jobs.submit(count_up)
            assert jobs.submit(ambient).result() == "s1"
            job.result()
            assert s.state["n"] == 0
            assert sessions.require("s1").state["n"] == 1
    assert sessions._gateway.bridge().sessions.scopes.live() == frozenset()
    assert sessions.require("s1").state["n"] == 1
    assert ends == []


def test_a_job_joins_the_session_that_is_given(sessions: SessionManager) -> None:
    """A copy or an id, whatever is ambient; without any of these, it works in none."""
    given = sessions.create(id="given")
    sessions.create(id="around")
    with Background(sessions) as jobs:
        assert jobs.submit(ambient).result() is None
        assert jobs.submit(ambient, session=given).result() == "given"
        with sessions.scope("around"):
            assert jobs.submit(ambient, session="given").result() == "given"
            assert jobs.submit_nowait(ambient, session=given).result() == "given"


def test_a_job_outlives_the_scope_that_submitted_it(sessions: SessionManager) -> None:
    sessions.create(id="s1")
    held = Held()

    def work() -> str | None:
        held()
        return ambient()

    with Background(sessions) as jobs:
        with sessions.scope("s1"):
            job = jobs.submit(work)
            assert held.begun.wait(SECONDS)
        held.go.set()
        assert job.result() == "s1"


def test_a_job_sees_the_context_of_its_submitter(memory: SessionManager) -> None:
    """Not that of the job before it, nor its deadline; what it sets stays with it."""

    def look() -> tuple[str, float | None]:
        seen = asked_by.get()
        asked_by.set("a job")
        return seen, seconds_left()

    submitted: list[Job[tuple[str, float | None]]] = []
    with Background(memory, workers=1) as jobs:
        for name in ("first", "second", "third"):
            asked_by.set(name)
            with timeout(3600):
                submitted.append(jobs.submit(look))
    assert [job.result() for job in submitted] == [
        ("first", None),
        ("second", None),
        ("third", None),
    ]


def test_a_job_may_use_the_manager(sessions: SessionManager) -> None:
    """However many do: the loop never waits for a thread."""
    sessions.create(id="s1", state={"n": 0})

    def work(number: int) -> int:
        with sessions.lease("s1", wait=SECONDS):
            other = sessions.create(state={"number": number})
        with sessions.scope(other.id):
            count_up()
            assert ambient() == other.id
        assert ambient() == "s1"
        count_up()
        return int(sessions.require(other.id).state["n"])

    with Background(sessions, workers=4) as jobs, sessions.scope("s1"):
        submitted = [jobs.submit(work, number) for number in range(8)]
        assert [job.result() for job in submitted] == [1] * 8
    assert sessions.count() == 9


def test_what_no_job_can_join_is_refused_at_once(memory: SessionManager) -> None:
    with SessionManager.open("memory://", app="other") as others, Background(memory) as jobs:
        with pytest.raises(InvalidQuery, match="of app 'other'"):
            jobs.submit(nothing, session=others.create())
        with pytest.raises(NotFound, match="save it before"):
            jobs.submit(nothing, session=memory.new())
        with pytest.raises(InvalidQuery, match="give a function, not NoneType"):
            jobs.submit(None)  # type: ignore[arg-type]  # what a caller without types may do
        assert (jobs.running, jobs.waiting) == (0, 0)


# ----------------------------------------------------------------------------------------- failures


def test_a_failing_job_stops_nothing_and_is_reported(
    sessions: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged with its name and session, and handed to the callback; later jobs still run."""
    sessions.create(id="s1")
    told: list[tuple[Job[Any], BaseException, str | None]] = []

    def on_error(job: Job[Any], error: BaseException) -> None:
        assert sessions.count() == 1  # a callback may block, too
        told.append((job, error, threading.current_thread().name))

    with Background(sessions, workers=1, on_error=on_error) as jobs:
        job = jobs.submit(fail, "secret-in-args", session="s1")
        after = jobs.submit(ambient, session="s1")
        for _ in range(2):
            with pytest.raises(Oops):
                job.result()
        assert after.result() == "s1"
        jobs.join()
    assert [(told_of is job, error) for told_of, error, _ in told] == [(True, job.error)]
    assert told[0][2] != "sojourn blocking"  # a thread, not the loop's
    (record,) = [record for record in caplog.records if record.name == "sojourn"]
    assert record.levelno == logging.ERROR
    assert repr(job) == "<Job 1 fail in session 's1'>"
    assert repr(job) in record.message
    assert "secret-in-args" not in record.message


def test_a_failing_job_saves_nothing_and_a_failing_save_fails_the_job(
    sessions: SessionManager,
) -> None:
    failures = Failures()

    def spoil(value: object) -> None:
        session = current_session()
        assert session is not None
        session.state["k"] = value
        if value == "raise":
            raise Oops

    with Background(sessions, workers=1, on_error=failures) as jobs:
        sessions.create(id="s1")
        jobs.submit(spoil, "raise", session="s1")
        jobs.submit(spoil, object(), session="s1")
        jobs.submit(nothing, session="unknown")
        jobs.join()
    assert failures.kinds == [Oops, Unserializable, NotFound]
    assert dict(sessions.require("s1").state) == {}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_would_end_a_program_ends_only_its_job(
    memory: SessionManager, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Raised in a thread of ours, it is a failure like any other."""
    failures = Failures()

    def work() -> None:
        raise error

    with Background(memory, workers=1, on_error=failures) as jobs:
        job = jobs.submit(work)
        assert jobs.submit(ambient).result() is None
        with pytest.raises(type(error)):
            job.result()
    assert [reported for _, reported in failures] == [error]
    assert [record.message for record in caplog.records] == [f"background job failed: {job!r}"]


def test_an_async_function_is_refused(memory: SessionManager) -> None:
    """With the way out; so is one that is not seen to be async until it is called."""

    async def work() -> None:
        """Never begun."""

    failures = Failures()
    with Background(memory, on_error=failures) as jobs:
        jobs.submit(work)
        jobs.submit(lambda: work())  # noqa: PLW0108 - a plain function is the point
    assert failures.kinds == [InvalidQuery, InvalidQuery]
    assert "sojourn.Background" in str(failures[0][1])


def test_a_callback_may_fail(memory: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def on_error(job: Job[Any], _error: BaseException) -> None:
        told.append(job.number)
        raise RuntimeError("the callback is broken")

    with Background(memory, on_error=on_error) as jobs:
        for _ in range(3):
            jobs.submit(fail)
        jobs.join()
        assert jobs.submit(ambient).result() is None
    assert sorted(told) == [1, 2, 3]
    assert "the callback for failed background jobs failed" in caplog.text


def test_giving_up_on_a_job_does_not_stop_it(memory: SessionManager) -> None:
    """Whoever waits for it may be out of time; it goes on, and others get its result."""
    held = Held()
    with Background(memory) as jobs:
        job = assert_type(jobs.submit(held), Job[str])
        with pytest.raises(TimeoutError), timeout(0.01):
            job.result()
        assert not job.done()
        assert job.error is None
        results: list[str] = []
        threads = in_threads(*[lambda: results.append(job.result())] * 3)
        held.go.set()
        joined(threads)
    assert results == ["done"] * 3
    with timeout(0):
        assert job.result() == "done"  # it is at hand: there is nothing to wait for


def test_a_thread_that_cannot_be_started_fails_its_job(
    memory: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Background(memory) as jobs:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                jobs.submit(nothing).result()
        assert jobs.submit(ambient).result() is None


def test_it_is_refused_inside_an_event_loop(memory: SessionManager) -> None:
    async def main() -> None:
        with pytest.raises(WouldBlock):
            jobs.submit_nowait(nothing)

    with Background(memory) as jobs:
        asyncio.run(main())


# ------------------------------------------------------------------------------------------ its end


def test_stopping_lets_the_accepted_jobs_finish(sessions: SessionManager) -> None:
    """Those that wait too; who waits outside, or comes later, is told that it is closed."""
    sessions.create(id="s1", state={"n": 0})
    jobs = Background(sessions, workers=1, queue=3)
    held = Held()
    told: list[object] = []

    def submit() -> None:
        with pytest.raises(Closed) as caught:
            jobs.submit(count_up, session="s1")
        told.append(caught.value)

    jobs.submit(held)
    for _ in range(3):
        jobs.submit(count_up, session="s1")
    outside = in_threads(submit)
    wait_outside(jobs, 1)
    stopping = in_threads(lambda: told.append(jobs.stop()))
    joined(outside)
    for verb in (jobs.submit, jobs.submit_nowait):
        with pytest.raises(Closed):
            verb(nothing)
    assert stopping[0].is_alive()
    held.go.set()
    joined(stopping)
    assert told[1:] == [[]]
    assert jobs.stop() == []
    assert sessions.require("s1").state["n"] == 3


@pytest.mark.parametrize("how", ["cancel", "drain", "body", "timeout"])
def test_what_is_cut_short_is_reported_and_saves_nothing(
    sessions: SessionManager, how: str
) -> None:
    """What did not begin never does; what runs goes on by itself, and is not waited for."""
    failures, held = Failures(), Held()
    sessions.create(id="s1")
    drain = 0.01 if how == "drain" else None
    jobs = Background(sessions, workers=1, drain=drain, on_error=failures)
    began: list[int] = []
    left: list[object] = []

    def work() -> None:
        session = current_session()
        assert session is not None
        held()
        session.state["k"] = "half"
        left.append(current_session())
        with pytest.raises(Closed):
            jobs.submit(nothing)
        left.append(sessions.count())

    running = jobs.submit(work, session="s1")
    waiting = jobs.submit(began.append, 1)
    assert held.begun.wait(SECONDS)
    if how == "body":
        with pytest.raises(Oops), jobs:
            raise Oops
    elif how == "timeout":
        with pytest.raises(TimeoutError), timeout(0.01):
            jobs.stop()
    else:
        assert jobs.stop(cancel=how == "cancel") == [running, waiting]
    assert not held.ended.is_set()
    assert (jobs.running, jobs.waiting) == (0, 0)
    assert failures.kinds == [Closed, Closed]
    for job in (running, waiting):
        assert job.done()
        with pytest.raises(Closed):
            job.result()
    threads = [t for t in threading.enumerate() if t.name == "sojourn job"]
    held.go.set()
    joined(threads)
    assert left == [None, 1]  # its scope is left, the manager is there
    assert began == []
    assert dict(sessions.require("s1").state) == {}
    assert sessions._gateway.bridge().sessions.scopes.live() == frozenset()
    assert jobs.stop(cancel=True) == []


@pytest.mark.parametrize("how", ["stop", "with", "body"])
def test_a_runner_that_is_left_too_late_is_stopped_all_the_same(
    memory: SessionManager, how: str
) -> None:
    """No job begins behind the back of whoever ran out of time, and none is taken any more."""
    failures, held, began = Failures(), Held(), list[int]()
    jobs = Background(memory, workers=1, drain=None, on_error=failures)
    jobs.__enter__()
    running = jobs.submit(held)
    waiting = jobs.submit(began.append, 1)
    assert held.begun.wait(SECONDS)
    with timeout(0):
        if how == "body":  # what it raised is what matters
            jobs.__exit__(Oops, Oops(), None)
        else:
            with pytest.raises(TimeoutError, match="no time"):
                jobs.stop() if how == "stop" else jobs.__exit__(None, None, None)
    assert (jobs.running, jobs.waiting) == (0, 0)
    assert failures.kinds == [Closed, Closed]
    for job in (running, waiting):
        with pytest.raises(Closed):
            job.result()
    with pytest.raises(Closed):
        jobs.submit(nothing)
    held.go.set()
    assert held.ended.wait(SECONDS)
    assert began == []
    with timeout(0):
        assert jobs.stop() == []


def test_dropping_many_jobs_tells_of_them_by_few_threads(memory: SessionManager) -> None:
    lock, most, telling, told = threading.Lock(), [0], [0], list[int]()

    def on_error(job: Job[Any], _error: BaseException) -> None:
        with lock:
            telling[0] += 1
            most[0] = max(most[0], telling[0])
        memory.count()
        with lock:
            telling[0] -= 1
        told.append(job.number)

    held = Held()
    jobs = Background(memory, workers=2, on_error=on_error)
    dropped: list[Job[Any]] = [jobs.submit(held), jobs.submit(held)]
    dropped += [jobs.submit(nothing) for _ in range(50)]
    assert held.begun.wait(SECONDS)
    assert {job.number for job in jobs.stop(cancel=True)} == set(range(1, 53))
    held.go.set()
    assert sorted(told) == [job.number for job in dropped]
    assert most[0] <= 2


def test_who_waits_for_a_job_is_told_when_it_is_dropped(memory: SessionManager) -> None:
    held = Held()
    jobs = Background(memory, workers=1)
    jobs.submit(held)
    waiting = jobs.submit(nothing)
    told: list[type[BaseException]] = []

    def wait() -> None:
        try:
            waiting.result()
        except Closed as error:
            told.append(type(error))

    threads = in_threads(wait, wait)
    jobs.stop(cancel=True)
    joined(threads)
    held.go.set()
    assert told == [Closed, Closed]


def test_closing_the_manager_cuts_short_its_runners(caplog: pytest.LogCaptureFixture) -> None:
    """No job begins once it is closed, and nobody waits for one for ever."""
    failures, held, began = Failures(), Held(), list[int]()
    sessions = SessionManager.open("memory://")
    jobs = Background(sessions, workers=1, queue=5, on_error=failures)
    submitted: list[Job[Any]] = [jobs.submit(held)]
    submitted += [jobs.submit(began.append, number) for number in range(5)]
    told: list[object] = []

    def wait(verb: Callable[[], object]) -> Callable[[], None]:
        def waiting() -> None:
            with pytest.raises(Closed):
                verb()
            told.append(verb)

        return waiting

    threads = in_threads(
        wait(submitted[0].result), wait(lambda: jobs.submit(nothing)), wait(submitted[5].result)
    )
    wait_outside(jobs, 1)
    assert held.begun.wait(SECONDS)
    sessions.close()
    joined(threads)
    assert len(told) == 3
    assert failures.kinds == [Closed] * 6
    assert all(type(job.error) is Closed for job in submitted)
    assert began == []
    assert jobs.stop() == []
    with pytest.raises(Closed):
        jobs.submit(nothing)
    held.go.set()
    assert "did not end well" not in caplog.text


def test_an_accepted_job_keeps_its_manager() -> None:
    """Although nobody else holds it any more; afterwards its thread is gone."""
    sessions = SessionManager.open("memory://")
    held, ran = Held(), threading.Event()
    jobs = Background(sessions, workers=1)
    jobs.submit(held)
    jobs.submit(ran.set)
    (thread,) = (t for t in threading.enumerate() if t.name == "sojourn blocking")
    del sessions, jobs
    gc.collect()
    held.go.set()
    assert ran.wait(SECONDS)
    while thread.is_alive():
        gc.collect()
        thread.join(0.01)


def test_jobs_of_many_sessions_run_side_by_side(sessions: SessionManager) -> None:
    """Each in its own session; what they change is all there."""
    made = [sessions.create(id=f"s{n}") for n in range(10)]
    with Background(sessions, workers=4, queue=3) as jobs:
        for _ in range(3):
            for session in made:
                jobs.submit(count_up, session=session)
            jobs.join()
    assert [sessions.require(session.id).state["n"] for session in made] == [3] * 10


# ---------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    "given", [True, False], ids=["a store that is given", "a store of its own"]
)
def test_a_child_of_a_fork_is_refused(tmp_path: Path, given: bool) -> None:
    """At once, whatever the parent was at; the parent's jobs run once, in the parent."""
    program = f"""
    from sojourn.blocking import Background
    from sojourn.stores.memory import MemoryStore
    sessions = SessionManager(MemoryStore()) if {given} else SessionManager.open(url)
    go, begun = threading.Event(), threading.Event()

    def hold():
        begun.set()
        go.wait()
        return os.getpid()

    def refused(work):
        try:
            work()
        except Closed as error:
            return "forked" in str(error)

    def work():
        print(*map(refused, [
            lambda: jobs.submit(print, "never"), lambda: jobs.submit_nowait(print, "never"),
            jobs.join, jobs.stop, lambda: jobs.stop(cancel=True), running.result, waiting.result,
            jobs.__enter__, lambda: jobs.__exit__(None, None, None),
        ]))
        print(jobs.__exit__(ValueError, ValueError(), None), early.result() == parent)
        if not {given}:
            sessions.create()
            with Background(sessions) as anew:
                print(anew.submit(os.getpid).result() == os.getpid())

    parent, ran = os.getpid(), []
    with Background(sessions, workers=1, queue=1) as jobs:
        early = jobs.submit(os.getpid)
        early.result()
        running, waiting = jobs.submit(hold), jobs.submit(os.getpid)
        begun.wait()
        outside = threading.Thread(target=jobs.submit, args=[ran.append, "once"])
        outside.start()
        while not jobs._runner._outside:
            sessions.count()
        for _ in range(2):
            done(child(work))
        go.set()
        print(running.result() == waiting.result() == parent)
        outside.join()
    print(ran)
    """
    child = ["True " * 8 + "True", "None True", *([] if given else ["True"])]
    said = printed_by(program, url_of(tmp_path)).splitlines()
    assert sorted(said) == sorted([*child, *child, "True", "['once']"])


def test_a_child_of_a_job_ends_by_itself(tmp_path: Path) -> None:
    """A job that forks is in the child as well, where its thread is the only one."""
    program = """
    from sojourn.blocking import Background
    sessions = SessionManager.open(url)

    def work():
        def inside():
            for verb in (jobs.submit, lambda fn: jobs.join()):
                try:
                    verb(print)
                except (Closed, InvalidQuery) as error:
                    print(type(error).__name__)
        done(child(inside))
        return "parent"

    with Background(sessions) as jobs:
        print(jobs.submit(work).result())
    """
    assert printed_by(program, url_of(tmp_path)) == "Closed\nInvalidQuery\nparent\n"


@pytest.mark.parametrize("cause", ["a job that never ends", "jobs that wait", "a body that exits"])
def test_a_program_ends_whatever_runs(tmp_path: Path, cause: str) -> None:
    """What was not done is logged; nothing that waits begins while the program ends."""
    program = f"""
    from sojourn.blocking import Background
    sessions = SessionManager.open(url)
    s = sessions.create(id="s", state={{"n": 0}})
    begun = threading.Event()

    def hold():
        current_session().state["n"] = 1
        begun.set()
        threading.Event().wait()

    jobs = Background(sessions, workers=1)
    jobs.submit(hold, session="s")
    if {cause == "jobs that wait"}:
        for _ in range(20):
            jobs.submit(print, "never")
    begun.wait()
    if {cause == "a body that exits"}:
        with jobs:
            sys.exit()
    """
    assert printed_by(program, url_of(tmp_path)) == ""
    with SessionManager.open(url_of(tmp_path)) as sessions:
        assert dict(sessions.require("s").state) == {"n": 0}

"""The background runner: order, bounds, sessions, failures, and its end."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn import (
    Background,
    Closed,
    Ended,
    InvalidId,
    InvalidQuery,
    NotFound,
    Phase,
    QueueFull,
    Session,
    SessionManager,
    Unserializable,
    background,
    current_scope,
    current_session,
    parallel_map,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn.background import Job

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

other_variable: ContextVar[str] = ContextVar("other_variable", default="unset")


class Oops(Exception):
    """What a job raises."""


async def nothing() -> None:
    """Do nothing."""


async def fail(why: str = "") -> None:
    """Raise `Oops`."""
    raise Oops(why)


async def ambient() -> str | None:
    """Return the id of the session that is ambient here."""
    session = current_session()
    return None if session is None else session.id


async def count_up() -> None:
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


# -------------------------------------------------------------------------------- order and bounds


@pytest.mark.behaviour(135)
@given(
    lengths=st.lists(st.integers(0, 3), max_size=25),
    workers=st.integers(1, 4),
    queue=st.integers(1, 4),
)
@settings(deadline=None, max_examples=50)
def test_jobs_begin_in_order_and_the_bounds_hold(
    lengths: list[int], workers: int, queue: int
) -> None:
    """However long each takes, with any bounds: none is lost, none waits too many at a time."""
    begun: list[int] = []
    most_running = most_waiting = 0

    async def work(number: int, length: int) -> int:
        nonlocal most_running, most_waiting
        begun.append(number)
        most_running = max(most_running, runners[0].running)
        most_waiting = max(most_waiting, runners[0].waiting)
        for _ in range(length):
            await asyncio.sleep(0)
        return number

    async def run() -> list[int]:
        async with SessionManager.open("memory://") as sessions:
            runner = Background(sessions, workers=workers, queue=queue)
            runners.append(runner)
            async with runner:
                jobs = [await runner.submit(work, *item) for item in enumerate(lengths)]
                await runner.join()
                return [await job for job in jobs]

    runners: list[Background] = []
    assert asyncio.run(run()) == list(range(len(lengths)))
    assert begun == list(range(len(lengths)))
    assert most_running <= workers
    assert most_waiting <= queue


@pytest.mark.behaviour(135)
async def test_submit_waits_for_room_in_turn(opened: Opener) -> None:
    """One runs, two wait; the next ones wait outside, in the order in which they came."""
    async with opened() as sessions, Background(sessions, workers=1, queue=2) as jobs:
        go = asyncio.Event()
        ran: list[int] = []

        async def work(number: int) -> None:
            await go.wait()
            ran.append(number)

        for number in range(3):
            await jobs.submit(work, number)
        assert (jobs.running, jobs.waiting) == (1, 2)
        outside = [asyncio.create_task(jobs.submit(work, number)) for number in range(3, 6)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(task.done() for task in outside)
        with pytest.raises(QueueFull) as caught:
            jobs.submit_nowait(work, 99)
        assert caught.value.limit == 2
        go.set()
        await asyncio.gather(*outside)
        await jobs.join()
        assert ran == list(range(6))
        jobs.submit_nowait(work, 6)
        await jobs.join()
        assert ran[-1] == 6


@pytest.mark.parametrize("when", ["outside", "just before", "let in", "taken"])
async def test_who_is_cancelled_while_waiting_for_room_takes_the_job_back(
    opened: Opener, when: str
) -> None:
    """Wherever it was by then, it never runs; the others keep their turn."""
    async with opened() as sessions, Background(sessions, workers=1, queue=1) as jobs:
        go = asyncio.Event()
        ran: list[int] = []

        async def work(number: int) -> None:
            await go.wait()
            ran.append(number)

        for number in range(2):
            await jobs.submit(work, number)
        outside = [asyncio.create_task(jobs.submit(work, number)) for number in range(2, 5)]
        await asyncio.sleep(0)
        if when == "just before":
            outside[0].cancel()
        if when in ("just before", "let in", "taken"):
            jobs._queue = 2  # room for one more
            jobs._workers = 3 if when == "taken" else 1
            jobs._begin_next()
        outside[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await outside[0]
        go.set()
        await asyncio.gather(*outside[1:])
        await jobs.join()
        assert sorted(ran) == [0, 1, 3, 4]


async def test_who_is_cancelled_just_as_the_runner_stops_is_cancelled(opened: Opener) -> None:
    """Not told that it is closed."""
    async with opened() as sessions:
        jobs = Background(sessions, workers=1, queue=1)
        for _ in range(2):
            await jobs.submit(nothing)
        outside = asyncio.create_task(jobs.submit(nothing))
        while not jobs._outside:  # noqa: ASYNC110 - its first step is all that it takes
            await asyncio.sleep(0)
        outside.cancel()
        await jobs.stop()
        with pytest.raises(asyncio.CancelledError):
            await outside


async def test_a_job_does_not_wait_for_room_that_it_takes_itself(opened: Opener) -> None:
    """All workers would wait for one another: it is refused instead."""
    async with opened() as sessions, Background(sessions, workers=1, queue=1) as jobs:

        async def work() -> str:
            await jobs.submit(nothing)
            with pytest.raises(QueueFull):
                await jobs.submit(nothing)
            for verb in (jobs.join, jobs.stop):
                with pytest.raises(InvalidQuery, match="wait for itself"):
                    await verb()
            return "refused"

        assert await (await jobs.submit(work)) == "refused"


async def test_neither_do_the_tasks_of_a_job(opened: Opener) -> None:
    async with opened() as sessions, Background(sessions, workers=1, queue=1) as jobs:

        async def work() -> str:
            await jobs.submit(nothing)
            with pytest.raises(QueueFull):
                await asyncio.gather(jobs.submit(nothing))
            with pytest.raises(QueueFull):
                await parallel_map(lambda _item: jobs.submit(nothing), [1, 2, 3])
            with pytest.raises(InvalidQuery, match="wait for itself"):
                await asyncio.gather(jobs.join())
            return "refused"

        assert await (await jobs.submit(work)) == "refused"


async def test_what_a_job_leaves_behind_may_wait_for_room(opened: Opener) -> None:
    """Nobody waits for it: a job that is done keeps no room."""
    async with opened() as sessions, Background(sessions, workers=1, queue=1) as jobs:
        done = asyncio.Event()

        async def later() -> None:
            await done.wait()
            for _ in range(5):
                await jobs.submit(nothing)
            await jobs.join()

        async def work() -> asyncio.Task[None]:
            return asyncio.create_task(later())

        left = await (await jobs.submit(work))
        done.set()
        await left


async def test_a_chain_of_jobs_keeps_none_of_them(opened: Opener) -> None:
    """Each submits the next one, in whose context it is."""
    async with opened() as sessions, Background(sessions, workers=1) as jobs:
        seen: list[int] = []

        async def link(left: int) -> None:
            seen.append(len(background._inside.get()))
            if left:
                await jobs.submit(link, left - 1)

        await jobs.submit(link, 20)
        await jobs.join()
        assert seen == [1] * 21


async def test_whatever_a_job_raises_is_told(opened: Opener) -> None:
    class Stop(BaseException):
        pass

    told: list[BaseException] = []

    async def stop() -> None:
        raise Stop

    async with opened() as sessions:
        async with Background(sessions, on_error=lambda _job, error: told.append(error)) as jobs:
            job = await jobs.submit(stop)
            await jobs.join()
            assert await (await jobs.submit(ambient)) is None
        assert isinstance(job.error, Stop)
        assert told == [job.error]


@pytest.mark.parametrize("name", ["workers", "queue"])
@pytest.mark.parametrize("number", [0, -1, 1.5, True, None])
async def test_bounds_that_are_none_are_refused(opened: Opener, name: str, number: Any) -> None:
    """They have to be whole numbers from 1; other arguments are checked as well."""
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match=name):
            Background(sessions, **{name: number})
        for wrong in ({"drain": -1}, {"on_error": 7}):
            with pytest.raises(InvalidQuery, match=next(iter(wrong))):
                Background(sessions, **wrong)  # type: ignore[arg-type]  # what a caller without types may do
        with pytest.raises(InvalidQuery, match="sessions"):
            Background(None)  # type: ignore[arg-type]  # what a caller without types may do


# ----------------------------------------------------------------------------------------- sessions


async def test_a_job_joins_the_session_of_its_submitter(opened: Opener) -> None:
    """On a copy of its own, saved at its end; the session has not ended when the job is done."""
    async with opened() as sessions, Background(sessions) as jobs:
        await sessions.create(id="s1", state={"n": 0})
        async with sessions.scope("s1") as s:
            job = await jobs.submit(count_up)
            assert await (await jobs.submit(ambient)) == "s1"
            await job
            assert s.state["n"] == 0
        assert (await sessions.require("s1")).state["n"] == 1
        assert sessions.scopes.live() == frozenset()


async def test_a_job_outlives_the_request_that_submitted_it(opened: Opener) -> None:
    """The request's scope is left first; the job's keeps the session in use."""
    begun, over = asyncio.Event(), asyncio.Event()
    async with opened() as sessions, Background(sessions) as jobs:
        await sessions.create(id="s1")

        async def work() -> tuple[str | None, object]:
            begun.set()
            await over.wait()
            scope = current_scope()
            assert scope is not None
            return await ambient(), scope.parent

        async with sessions.scope("s1"):
            job = await jobs.submit(work)
            await begun.wait()
        assert sessions.scopes.live() == {"s1"}
        over.set()
        assert await job == ("s1", None)


async def test_a_job_joins_the_session_that_is_given(opened: Opener) -> None:
    """A copy or an id, whatever is ambient; without any of these, it works in none."""
    async with opened() as sessions, Background(sessions) as jobs:
        given = await sessions.create(id="given")
        await sessions.create(id="around")
        assert await (await jobs.submit(ambient)) is None
        assert await (await jobs.submit(ambient, session=given)) == "given"
        async with sessions.scope("around"):
            assert await (await jobs.submit(ambient, session="given")) == "given"
            assert await jobs.submit_nowait(ambient, session=given) == "given"


async def test_a_runner_that_was_opened_in_a_scope_does_not_lend_it(opened: Opener) -> None:
    """A job sees the context of its submitter, not that of whoever opened the runner."""
    async with opened() as sessions:
        await sessions.create(id="opener")
        async with sessions.scope("opener"):
            jobs = Background(sessions)
        other_variable.set("submitter's")

        async def look() -> tuple[str | None, str]:
            return await ambient(), other_variable.get()

        assert await (await jobs.submit(look)) == (None, "submitter's")
        await jobs.stop()


async def test_a_job_that_waited_runs_in_the_context_of_its_own_submitter(opened: Opener) -> None:
    """Not in that of the job before it, whose end began it."""
    async with opened() as sessions, Background(sessions, workers=1) as jobs:

        async def look() -> str:
            return other_variable.get()

        submitted: list[Job[str]] = []
        for name in ("first", "second", "third"):
            other_variable.set(name)
            submitted.append(await jobs.submit(look))
        assert [await job for job in submitted] == ["first", "second", "third"]


async def test_what_no_job_can_join_is_refused_at_once(opened: Opener) -> None:
    """A session that is not stored, or of another app, a malformed id, no function."""
    async with (
        opened() as sessions,
        opened(app="other") as others,
        Background(sessions) as jobs,
    ):
        with pytest.raises(InvalidQuery, match="of app 'other'"):
            await jobs.submit(nothing, session=await others.create())
        with pytest.raises(NotFound, match="save it before"):
            await jobs.submit(nothing, session=sessions.new())
        with pytest.raises(InvalidId):
            await jobs.submit(nothing, session="")
        with pytest.raises(InvalidQuery, match="give an async function"):
            await jobs.submit(None)  # type: ignore[arg-type]  # what a caller without types may do
        assert (jobs.running, jobs.waiting) == (0, 0)


# ----------------------------------------------------------------------------------------- failures


@pytest.mark.behaviour(135)
async def test_a_failing_job_stops_nothing_and_is_reported(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged with its name and session, and handed to the callback; later jobs still run."""
    failures = Failures()
    async with opened() as sessions, Background(sessions, workers=1, on_error=failures) as jobs:
        await sessions.create(id="s1")
        job = await jobs.submit(fail, "secret-in-args", session="s1")
        after = await jobs.submit(ambient, session="s1")
        with pytest.raises(Oops):
            await job
        assert await after == "s1"
        assert [name for name, _ in failures] == ["fail"]
        assert job.done()
    (record,) = [record for record in caplog.records if record.name == "sojourn"]
    assert record.levelno == logging.ERROR
    assert "<Job 1 fail in session 's1'>" in record.message
    assert "secret-in-args" not in record.message


@pytest.mark.behaviour(132)
async def test_a_job_whose_session_is_gone_fails_and_leaves_nothing_ambient(
    opened: Opener,
) -> None:
    """Ended, deleted, unknown: reported as what it is; no session is made for it."""
    failures = Failures()
    async with opened() as sessions, Background(sessions, workers=1, on_error=failures) as jobs:
        for id in ("ended", "deleted"):
            await sessions.create(id=id)
        go = asyncio.Event()
        await jobs.submit(go.wait)
        async with sessions.scope("ended"):
            await jobs.submit(nothing)
            await sessions.end("ended", retain=60)
        await jobs.submit(nothing, session=await sessions.require("deleted"))
        await sessions.delete("deleted")
        await jobs.submit(nothing, session="unknown")
        go.set()
        assert await (await jobs.submit(ambient)) is None
        assert failures.kinds == [Ended, NotFound, NotFound]
        assert await sessions.count(phase=Phase.OPEN) == 0


async def test_a_failing_job_saves_nothing_and_a_failing_save_fails_the_job(
    opened: Opener,
) -> None:
    """As in any scope."""
    failures = Failures()

    async def spoil(value: object) -> None:
        session = current_session()
        assert session is not None
        session.state["k"] = value
        if value == "raise":
            raise Oops

    async with opened() as sessions, Background(sessions, workers=1, on_error=failures) as jobs:
        await sessions.create(id="s1")
        await jobs.submit(spoil, "raise", session="s1")
        await jobs.submit(spoil, object(), session="s1")
        await jobs.join()
        assert failures.kinds == [Oops, Unserializable]
        assert dict((await sessions.require("s1")).state) == {}


async def test_a_callback_may_be_async_and_may_fail(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises is logged; the next job runs."""
    told: list[int] = []

    async def on_error(job: Job[Any], error: BaseException) -> None:
        await asyncio.sleep(0)
        told.append(job.number)
        raise RuntimeError("the callback is broken")

    async with opened() as sessions, Background(sessions, on_error=on_error) as jobs:
        for _ in range(3):
            await jobs.submit(fail)
        await jobs.join()
        assert await (await jobs.submit(ambient)) is None
    assert sorted(told) == [1, 2, 3]
    assert "the callback for failed background jobs failed" in caplog.text


async def test_what_is_not_async_or_cancels_itself_is_a_failure(opened: Opener) -> None:
    """A plain function is refused with the way out; a stray cancellation stops only its job."""
    failures = Failures()

    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    async with opened() as sessions, Background(sessions, workers=1, on_error=failures) as jobs:
        await jobs.submit(len, "abc")  # type: ignore[arg-type]  # what a caller without types may do
        await jobs.submit(cancel_itself)
        assert await (await jobs.submit(ambient)) is None
    assert failures.kinds == [InvalidQuery, asyncio.CancelledError]
    assert "run_in_scope" in str(failures[0][1])


async def test_giving_up_on_a_job_does_not_cancel_it(opened: Opener) -> None:
    """Whoever awaits it may be cancelled; it goes on, and others get its result."""
    go = asyncio.Event()

    async def work() -> str:
        await go.wait()
        return "done"

    async def wait_for(job: Job[str]) -> str:
        return await job

    async with opened() as sessions, Background(sessions) as jobs:
        job = await jobs.submit(work)
        waiting = asyncio.create_task(wait_for(job))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        assert await job == "done"
        assert await job == "done"


# ------------------------------------------------------------------------------------------ its end


async def test_stopping_lets_the_accepted_jobs_finish(opened: Opener) -> None:
    """Those that wait too; who waits outside, or comes later, is told that it is closed."""
    async with opened() as sessions:
        await sessions.create(id="s1", state={"n": 0})
        jobs = Background(sessions, workers=1, queue=3)
        go = asyncio.Event()

        async def work() -> None:
            await go.wait()
            await count_up()

        for _ in range(4):
            await jobs.submit(work, session="s1")
        outside = asyncio.create_task(jobs.submit(work, session="s1"))
        given_up = asyncio.create_task(jobs.submit(work, session="s1"))
        await asyncio.sleep(0)
        given_up.cancel()
        stopping = asyncio.create_task(jobs.stop())
        with pytest.raises(Closed):
            await outside
        with pytest.raises(asyncio.CancelledError):
            await given_up
        with pytest.raises(Closed):
            await jobs.submit(nothing)
        with pytest.raises(Closed):
            jobs.submit_nowait(nothing)
        assert not stopping.done()
        go.set()
        assert await stopping == []
        assert await jobs.stop() == []
        assert (await sessions.require("s1")).state["n"] == 4


@pytest.mark.parametrize("how", ["cancel", "drain", "body"])
async def test_what_is_cut_short_is_reported_and_saves_nothing(opened: Opener, how: str) -> None:
    """At once, after its time, or because the body raised: each job is told of, once, in order."""
    failures = Failures()
    async with opened() as sessions:
        await sessions.create(id="s1")
        jobs = Background(sessions, workers=1, drain=0.01, on_error=failures)
        begun = asyncio.Event()

        async def work() -> None:
            session = current_session()
            assert session is not None
            session.state["k"] = "half"
            begun.set()
            await asyncio.Event().wait()

        running = await jobs.submit(work, session="s1")
        waiting = await jobs.submit(nothing)
        await begun.wait()
        if how == "body":
            with pytest.raises(Oops):
                async with jobs:
                    raise Oops
        else:
            assert await jobs.stop(cancel=how == "cancel") == [running, waiting]
        assert sorted(failures.kinds, key=str) == [Closed, Closed]
        for job in (running, waiting):
            with pytest.raises(Closed):
                await job
        assert dict((await sessions.require("s1")).state) == {}
        assert sessions.scopes.live() == frozenset()
        assert await jobs.stop(cancel=True) == []
        assert (jobs.running, jobs.waiting) == (0, 0)


async def test_a_job_that_was_taken_and_not_begun_is_reported_once(opened: Opener) -> None:
    """Cancelled before its first step, its task says nothing: the runner does."""
    failures = Failures()
    async with opened() as sessions:
        jobs = Background(sessions, on_error=failures)
        job = jobs.submit_nowait(nothing)
        assert jobs.running == 1
        assert await jobs.stop(cancel=True) == [job]
        with pytest.raises(Closed):
            await job
        assert failures.kinds == [Closed]


async def test_a_stop_that_is_cancelled_cuts_short(opened: Opener) -> None:
    """It does not leave jobs running behind."""
    failures = Failures()
    async with opened() as sessions:
        jobs = Background(sessions, drain=None, on_error=failures)
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            await asyncio.Event().wait()

        await jobs.submit(work)
        await begun.wait()
        stopping = asyncio.create_task(jobs.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert jobs.running == 0
        assert failures.kinds == [Closed]


async def test_a_job_that_ignores_its_cancellation_does_not_hold_up_the_stop(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a bounded time it is logged and left behind."""
    monkeypatch.setattr(background, "STOP_SECONDS", 0.01)
    async with opened() as sessions:
        jobs = Background(sessions)
        begun, go = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:  # wrong of it
                    continue

        job = await jobs.submit(work)
        await begun.wait()
        assert await jobs.stop(cancel=True) == [job]
        assert "does not heed its cancellation" in caplog.text
        go.set()
        await job
        await jobs.join()


async def test_no_task_is_left_behind(opened: Opener) -> None:
    """When it is stopped, whatever happened before."""
    async with opened() as sessions:
        before = asyncio.all_tasks()
        async with Background(sessions, workers=3, queue=2) as jobs:
            for number in range(20):
                await jobs.submit(fail if number % 3 else nothing)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_jobs_of_many_sessions_run_side_by_side(opened: Opener) -> None:
    """Each in its own session; what they change is all there."""
    async with opened() as sessions:
        made: list[Session] = [await sessions.create(id=f"s{n}") for n in range(10)]
        async with Background(sessions, workers=4, queue=3) as jobs:
            for session in made * 3:
                job = await jobs.submit(count_up, session=session)
                if session is made[-1]:
                    await job
                    await jobs.join()
        found = [(await sessions.require(session.id)).state["n"] for session in made]
        assert found == [3] * 10

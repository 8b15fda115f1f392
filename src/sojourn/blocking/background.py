"""Background work of the sync face: jobs that block, each in a thread, in the session they join."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, TypeVarTuple
from weakref import WeakValueDictionary

from sojourn import background as async_face
from sojourn.background import DRAIN_SECONDS, QUEUE, WORKERS, name_of, waits_for_itself
from sojourn.blocking.deadline import late_or_not, leave
from sojourn.blocking.hooks import in_thread
from sojourn.blocking.manager import gateway_of
from sojourn.errors import Closed, InvalidQuery
from sojourn.exiting import called_in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from sojourn.blocking.gateway import Bridge
    from sojourn.blocking.manager import SessionManager
    from sojourn.session import Session

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OnError: TypeAlias = "Callable[[Job[Any], BaseException], object]"
"""What is told of a job that failed, in a thread. What it raises is logged."""


class Job(Generic[T]):
    """A job that was accepted. Ask for its `result()`, or do not: it runs all the same."""

    def __init__(self, home: _Home, job: async_face.Job[T]) -> None:
        """Made by `Background.submit`."""
        self.number = job.number
        """Counts the jobs of a runner, from 1."""
        self.name = job.name
        """The name of its function. Its arguments may be private and are not shown."""
        self._home = home
        self._job = job

    def __repr__(self) -> str:
        """Show what it is and whose session it joins."""
        return repr(self._job)

    def done(self) -> bool:
        """Whether it succeeded, failed, or was dropped."""
        return self._job.done()

    @property
    def error(self) -> BaseException | None:
        """Why it failed or was dropped; `None` if it was not, or not yet."""
        return self._job.error

    def result(self) -> T:
        """Return what its function returned, once it is done; giving up waiting does not stop it.

        Raises what the job raised, and `Closed` if its runner stopped before it was done.
        """
        if not self._job.done():
            self._home.run(self._job.settled)
        return self._job.outcome()


class Background:
    """Runs jobs one after the other, a few at a time, each in the session of whoever submitted it.

    Jobs are plain functions, each called in a thread, and may use the manager there. They begin in
    the order in which they were accepted. A job works on a copy of the session of its own, saved
    when it is done, and leaves the session without ending it. A job that fails is logged, reported
    to `on_error`, and stops nothing. Jobs are kept in memory: for work that must survive the
    process, put `carry()` into a task queue.

    A runner belongs to the process that made it: after a fork the child's raises `Closed`. A
    program that ends without stopping it, or closes its manager, cuts short what is not done.
    """

    def __init__(
        self,
        sessions: SessionManager,
        *,
        workers: int = WORKERS,
        queue: int = QUEUE,
        drain: float | None = DRAIN_SECONDS,
        on_error: OnError | None = None,
    ) -> None:
        """Run up to `workers` jobs at once and let up to `queue` more wait.

        When it stops, it gives the jobs `drain` seconds to finish; `None` is as long as it takes.
        Raises `InvalidQuery` for a number of jobs below 1, seconds below 0, and an `on_error` that
        cannot be called.
        """
        bridge = gateway_of(sessions).bridge()
        self._runner = _Runner(
            bridge.sessions,
            workers=workers,
            queue=queue,
            drain=drain,
            on_error=self._reporting(on_error) if callable(on_error) else on_error,
        )
        self._home = _Home(bridge, self._runner)
        self._reports = asyncio.Semaphore(workers)
        self._faces: WeakValueDictionary[int, Job[Any]] = WeakValueDictionary()
        self._threads: set[threading.Thread] = set()

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return self._runner.waiting

    @property
    def running(self) -> int:
        """How many jobs run."""
        return self._runner.running

    # --- taking jobs ---------------------------------------------------------------------------

    def submit(
        self, fn: Callable[[*Ts], T], /, *args: *Ts, session: Session | str | None = None
    ) -> Job[T]:
        """Have `fn(*args)` run in a session: this one, else the ambient one, else in none.

        Waits while the queue is full; whoever runs out of time meanwhile takes the job back. Raises
        `Closed` once the runner stops, `NotFound` for a session that was not saved yet, and
        `QueueFull` inside a job of this runner, which might wait for itself.
        """
        if self._is_asked_by_a_job():
            return self.submit_nowait(fn, *args, session=session)
        job = self._as_async(fn)

        async def submit() -> Job[T]:
            return self._face(await self._runner.submit(job, *args, session=session))

        return self._home.run(submit)

    def submit_nowait(
        self, fn: Callable[[*Ts], T], /, *args: *Ts, session: Session | str | None = None
    ) -> Job[T]:
        """Do what `submit` does, and raise `QueueFull` instead of waiting."""
        job = self._as_async(fn)

        async def submit() -> Job[T]:
            return self._face(self._runner.submit_nowait(job, *args, session=session))

        return self._home.run(submit)

    def _as_async(self, fn: Callable[[*Ts], T]) -> Callable[[*Ts], Awaitable[T]]:
        """Return a function as the async runner calls it, under its own name."""
        if not callable(fn):
            raise InvalidQuery("fn", f"give a function, not {type(fn).__name__}")

        async def job(*args: *Ts) -> T:
            return await called_in_thread(partial(self._work, fn, *args), "sojourn job")

        job.__qualname__ = name_of(fn)
        return job

    def _face(self, job: async_face.Job[T]) -> Job[T]:
        """Return the job as it is shown, one and the same each time; called in the loop."""
        face = self._faces.get(job.number)
        if face is None:
            face = self._faces[job.number] = Job(self._home, job)
        return face

    # --- in their threads ----------------------------------------------------------------------

    def _work(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call the function of a job, in its thread. Raises `InvalidQuery` for an async one."""
        try:
            made = self._marked(fn, *args)
        except Exception:
            raise
        except BaseException as error:
            raise _Raised(error) from error
        if inspect.isawaitable(made):
            if inspect.iscoroutine(made):
                made.close()  # else it complains that nobody awaited it
            raise InvalidQuery("fn", "give a plain function; sojourn.Background runs async ones")
        return made

    def _marked(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a function in a thread that works for this runner, and must not wait for it."""
        thread = threading.current_thread()
        self._threads.add(thread)
        try:
            return fn(*args)
        finally:
            self._threads.discard(thread)

    def _is_asked_by_a_job(self) -> bool:
        return threading.current_thread() in self._threads

    def _reporting(self, on_error: OnError) -> async_face.OnError:
        """Return what tells of a failure in a thread, in no more of them than there are workers."""
        told = in_thread(lambda job, error: self._marked(on_error, job, error))

        async def report(job: async_face.Job[Any], error: BaseException) -> None:
            async with self._reports:  # a runner that stops may drop all that waits, at once
                await told(self._face(job), error)

        return report

    # --- stopping ------------------------------------------------------------------------------

    def join(self) -> None:
        """Wait until all jobs that were accepted are done, and those accepted meanwhile too."""
        self._not_from_a_job("join")
        self._home.run(self._runner.join)

    def stop(self, *, cancel: bool = False) -> list[Job[Any]]:
        """Take no more jobs, let those that were accepted finish, and return those that did not.

        After `drain` seconds it waits no longer, nor with `cancel=True`, nor when it is interrupted
        or out of time itself (that raises `TimeoutError` once it is stopped). What did not begin by
        then never will. A thread cannot be stopped: a job that runs goes on by itself, what it
        changes in its session is not saved, and it keeps no program from ending. Either is reported
        as failed, with `Closed`. Twice is fine.
        """
        self._not_from_a_job("stop")

        async def stop() -> list[Job[Any]]:
            return [self._face(job) for job in await self._runner.stop(cancel=cancel)]

        if self._runner.is_over:
            return []
        return late_or_not(
            lambda: self._home.run(stop),
            lambda: self._home.run(partial(self._runner.stop, cancel=True)),
        )

    def _not_from_a_job(self, verb: str) -> None:
        if self._is_asked_by_a_job():
            raise waits_for_itself(verb)

    def __enter__(self) -> Self:
        """Take jobs until the body is done."""
        self._home.run(self._runner.__aenter__)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the accepted jobs finish; if the body raised, or no time is left, drop them."""
        leave(lambda: self.stop(cancel=error is not None), error)


class _Raised(Exception):
    """Around what a job raised that would end a loop: raised in a thread, it ends nothing."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class _Runner(async_face.Background):
    """The async runner that does the work, in the loop of a manager of the sync face."""

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, perhaps with its manager, and nothing of it is left."""
        return self._stopping and not self._waiting and not self._running

    async def _report(self, job: async_face.Job[Any], error: BaseException) -> None:
        await super()._report(job, error.error if isinstance(error, _Raised) else error)


class _Home:
    """The loop that a runner lives in. It stays with the process that made the runner."""

    def __init__(self, bridge: Bridge, runner: _Runner) -> None:
        self._bridge = bridge
        self._runner = runner
        self._process = os.getpid()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()` there and return its result. Raises what `Bridge.run` does."""
        if os.getpid() != self._process:
            reason = "of the process that this one was forked from; make it anew"
            raise Closed("background runner", reason)

        async def lodged(_sessions: object) -> T:
            self._bridge.lodgers.add(self._runner)
            return await work()

        return self._bridge.run(lodged)

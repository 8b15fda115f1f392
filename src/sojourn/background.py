"""Background work: a bounded runner of jobs that join a session, and a bounded parallel map."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from contextvars import ContextVar, copy_context
from operator import length_hint
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, TypeVarTuple

from sojourn.arguments import at_a_time, at_least_one, is_wait
from sojourn.context import completed
from sojourn.errors import Closed, InvalidQuery, OutOfScope, QueueFull
from sojourn.names import check_name
from sojourn.scopes import carry, current_scope, current_session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable
    from types import TracebackType

    from sojourn.manager import SessionManager
    from sojourn.scopes import Scope
    from sojourn.session import Session

Item = TypeVar("Item")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("sojourn")

WORKERS = 4
"""Jobs that run at the same time."""

QUEUE = 1_000
"""Jobs that may wait: each holds its arguments in memory."""

DRAIN_SECONDS = 60.0
"""How long a runner that stops lets its jobs finish, unless it is told otherwise."""

STOP_SECONDS = 5.0
"""Time for jobs to heed their cancellation when a runner stops, and for a report of a failure."""

PARALLEL = 8
"""Items that `parallel_map` works on at the same time."""

OnError: TypeAlias = "Callable[[Job[Any], BaseException], object]"
"""What is told of a job that failed; it may be async. What it raises is logged."""


_inside: ContextVar[tuple[Job[Any], ...]] = ContextVar("sojourn_jobs", default=())
"""The jobs that whoever looks is a part of, also by way of tasks and threads that they began."""


class Job(Generic[T]):
    """A job that was accepted. `await job` for its result, or do not: it runs all the same.

    Awaiting raises what the job raised, and `Closed` if its runner stopped before it was done.
    """

    def __init__(
        self,
        number: int,
        fn: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        carried: dict[str, str] | None,
    ) -> None:
        """Made by `Background.submit`."""
        self.number = number
        """Counts the jobs of a runner, from 1."""
        self.name: str = name_of(fn)
        """The name of its function. Its arguments may be private and are not shown."""
        self.carried = carried
        """The session that it joins, as `carry` wrote it; `None` without one."""
        self.context = copy_context()
        """The context variables of whoever submitted it."""
        self.begun = False
        """Whether a worker has taken it."""
        self._call = (fn, args)
        self._outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        """Show what it is and whose session it joins."""
        session = "" if self.carried is None else f" in session {self.carried['session']!r}"
        return f"<Job {self.number} {self.name}{session}>"

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for its result; giving up waiting does not cancel it."""
        return asyncio.shield(self._outcome).__await__()

    def done(self) -> bool:
        """Whether it succeeded, failed, or was dropped."""
        return self._outcome.done()

    @property
    def error(self) -> BaseException | None:
        """Why it failed or was dropped; `None` if it was not, or not yet."""
        return self._outcome.exception() if self._outcome.done() else None

    async def settled(self) -> None:
        """Wait until it is done, whatever came of it."""
        await asyncio.wait([self._outcome])

    def outcome(self) -> T:
        """Return its result once it is done, or raise why it has none; from any thread."""
        return self._outcome.result()

    async def run(self) -> T:
        """Call its function. Raises `InvalidQuery` for one that is not async."""
        fn, args = self._call
        made = fn(*args)
        if not inspect.isawaitable(made):
            raise InvalidQuery("fn", "give an async function; run_in_scope calls one that blocks")
        return await made

    def succeeded(self, result: T) -> None:
        """Note its result."""
        self._outcome.set_result(result)

    def failed(self, error: BaseException) -> None:
        """Note why it has no result."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # seen: it is reported whether anybody awaits the job or not


class Background:
    """Runs jobs one after the other, a few at a time, each in the session of whoever submitted it.

    Jobs begin in the order in which they were accepted. A job works on a copy of the session of
    its own, saved when it is done, and leaves the session without ending it. A job that fails is
    logged, reported to `on_error`, and stops nothing. Jobs are kept in memory: for work that must
    survive the process, put `carry()` into a task queue.
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
        if not callable(getattr(sessions, "resume", None)):
            raise InvalidQuery("sessions", f"give a SessionManager, not {sessions!r}")
        if on_error is not None and not callable(on_error):
            raise InvalidQuery("on_error", "give a function of a job and an error")
        if drain is not None and not (is_wait(drain) and drain >= 0):
            raise InvalidQuery("drain", "give seconds from 0, or None for as long as it takes")
        self._sessions = sessions
        self._workers = at_least_one("workers", workers)
        self._queue = at_least_one("queue", queue)
        self._drain = drain
        self._on_error = on_error
        self._accepted = 0
        self._waiting: deque[Job[Any]] = deque()
        self._outside: deque[tuple[Job[Any], asyncio.Future[None]]] = deque()
        self._running: dict[asyncio.Task[None], Job[Any]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._cutting = False

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    # --- taking jobs ---------------------------------------------------------------------------

    async def submit(
        self,
        fn: Callable[[*Ts], Awaitable[T]],
        /,
        *args: *Ts,
        session: Session | str | None = None,
    ) -> Job[T]:
        """Have `fn(*args)` run in a session: this one, else the ambient one, else in none.

        Waits while the queue is full; whoever is cancelled meanwhile takes the job back. Raises
        `Closed` once the runner stops, `NotFound` for a session that was not saved yet, and
        `QueueFull` inside a job of this runner, or a task that it began: it might wait for itself.
        """
        job = self._job(fn, args, session)
        if not self._is_full():
            self._accept(job)
            return job
        if self._is_inside():
            raise QueueFull(self._queue)
        admitted = asyncio.get_running_loop().create_future()
        self._outside.append((job, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            self._withdraw(job, admitted)
            raise
        return job

    def submit_nowait(
        self,
        fn: Callable[[*Ts], Awaitable[T]],
        /,
        *args: *Ts,
        session: Session | str | None = None,
    ) -> Job[T]:
        """Do what `submit` does, and raise `QueueFull` instead of waiting."""
        job = self._job(fn, args, session)
        if self._is_full():
            raise QueueFull(self._queue)
        self._accept(job)
        return job

    def _job(
        self,
        fn: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        session: Session | str | None,
    ) -> Job[T]:
        if self._stopping:
            raise Closed("background runner")
        if not callable(fn):
            raise InvalidQuery("fn", f"give an async function, not {type(fn).__name__}")
        self._accepted += 1
        return Job(self._accepted, fn, args, self._carried(session))

    def _carried(self, session: Session | str | None) -> dict[str, str] | None:
        if isinstance(session, str):
            return {"app": self._sessions.app, "session": check_name("session id", session)}
        session = current_session() if session is None else session
        if session is None:
            return None
        carried = carry(session)
        if carried["app"] != self._sessions.app:
            reason = f"it is of app {carried['app']!r}, and jobs here are of {self._sessions.app!r}"
            raise InvalidQuery("session", reason)
        return carried

    def _is_full(self) -> bool:
        """Return whether a job has to wait outside; while others do, it has."""
        return len(self._waiting) >= self._queue

    def _accept(self, job: Job[Any]) -> None:
        self._waiting.append(job)
        self._idle.clear()
        self._begin_next()

    def _withdraw(self, job: Job[Any], admitted: asyncio.Future[None]) -> None:
        """Take back a job whose submitter was cancelled, unless it has begun."""
        if (job, admitted) in self._outside:
            self._outside.remove((job, admitted))
        if job in self._waiting:
            self._waiting.remove(job)
        for task, taken in self._running.items():
            if taken is job and not job.begun:
                task.cancel()
        self._begin_next()

    # --- running them --------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Begin jobs while there are workers, and let those outside in while there is room."""
        while True:
            while self._waiting and len(self._running) < self._workers:
                job = self._waiting.popleft()
                loop = asyncio.get_running_loop()
                task = loop.create_task(self._run(job), context=job.context)
                self._running[task] = job
                task.add_done_callback(self._ended)
            if not self._outside or len(self._waiting) >= self._queue:
                break
            job, admitted = self._outside.popleft()
            if not admitted.done():  # else its submitter was cancelled just now
                admitted.set_result(None)
                self._waiting.append(job)
        if not self._waiting and not self._running:
            self._idle.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task)
        if not job.done():  # cut down by what stops the whole program, or before its first step
            job.failed(Closed("background runner", "stopped before this job was done"))
        self._begin_next()

    async def _run(self, job: Job[Any]) -> None:
        """Run a job to its end, whatever that is."""
        job.begun = True
        _inside.set((*(each for each in _inside.get() if not each.done()), job))
        try:
            if job.carried is None:
                result = await job.run()
            else:
                async with self._sessions.resume(job.carried):
                    result = await job.run()
        except asyncio.CancelledError as error:
            stopped = Closed("background runner", "stopped before this job was done")
            await self._report(job, stopped if self._cutting else error)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise  # they end the program, or at least the loop
        except BaseException as error:  # noqa: BLE001 - whatever it was, the other jobs go on
            await self._report(job, error)
        else:
            job.succeeded(result)

    async def _report(self, job: Job[Any], error: BaseException) -> None:
        """Note a failure, log it, and tell the callback."""
        job.failed(error)
        log.error("background job failed: %r", job, exc_info=error)
        if self._on_error is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                told = self._on_error(job, error)
                if inspect.isawaitable(told):
                    await told
        except Exception:
            log.exception("the callback for failed background jobs failed: %r", job)

    # --- stopping ------------------------------------------------------------------------------

    async def join(self) -> None:
        """Wait until all jobs that were accepted are done, and those accepted meanwhile too."""
        self._not_from_a_job("join")
        await self._idle.wait()

    async def stop(self, *, cancel: bool = False) -> list[Job[Any]]:
        """Take no more jobs, let those that were accepted finish, and return those that did not.

        What is not done after `drain` seconds is cancelled, as it is at once with `cancel=True` and
        when `stop` is itself cancelled. A job that was cancelled or never begun is reported as
        failed, with `Closed`. Twice is fine.
        """
        self._not_from_a_job("stop")
        self._stopping = True
        while self._outside:
            _, admitted = self._outside.popleft()
            if not admitted.done():
                admitted.set_exception(Closed("background runner"))
        try:
            if not cancel:
                async with asyncio.timeout(self._drain):
                    await self._idle.wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            await completed(self._cut(self._cancel_all()))
            raise
        return await completed(self._cut(self._cancel_all()))

    def _not_from_a_job(self, verb: str) -> None:
        if self._is_inside():
            raise waits_for_itself(verb)

    def _is_inside(self) -> bool:
        """Return whether a job of this runner, still under way, is what calls, or has begun it."""
        jobs = _inside.get()
        return bool(jobs) and any(job in jobs for job in self._running.values())

    def _cancel_all(self) -> list[Job[Any]]:
        """Cancel what runs, let nothing more begin, and return what will not report by itself."""
        self._cutting = True
        silent = list(self._waiting)
        self._waiting.clear()
        for task, job in self._running.items():
            task.cancel()
            if not job.begun:  # its task will never have run
                silent.append(job)
        return silent

    async def _cut(self, silent: list[Job[Any]]) -> list[Job[Any]]:
        """Report the silent jobs, wait for those that run, and return what was not done."""
        running = dict(self._running)
        stopped = Closed("background runner", "stopped before this job began")
        await asyncio.gather(*(self._report(job, stopped) for job in silent))
        if running:
            # Twice: a job may need its time, and then the report of it too.
            _, deaf = await asyncio.wait(running, timeout=2 * STOP_SECONDS)
            for task in deaf:
                log.error("background job does not heed its cancellation: %r", running[task])
        cut = dict.fromkeys([*running.values(), *silent])
        return [job for job in cut if job.error is not None or not job.done()]

    async def __aenter__(self) -> Self:
        """Take jobs until the body is done."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the accepted jobs finish; if the body raised, cancel them."""
        await self.stop(cancel=error is not None)


async def parallel_map(
    fn: Callable[[Item], Awaitable[T]],
    items: Iterable[Item],
    *,
    limit: int = PARALLEL,
    child: bool = False,
) -> list[T]:
    """Return `await fn(item)` for each item, in the order of the items, up to `limit` at a time.

    All work in the ambient session, on the same working copy; with `child=True` each on one of its
    own, in a child scope that saves it when the item is done. Items are taken as they are needed.
    The first error cancels the others, is raised once they are done, and what they had saved stays.
    Raises `OutOfScope` for child scopes where no session is ambient.
    """
    at_a_time(limit)
    scope = current_scope()
    if child and scope is None:
        raise OutOfScope("parallel_map(child=True)")
    numbered = enumerate(items)
    results: dict[int, T] = {}

    failed = False

    async def work() -> None:
        for number, item in numbered:
            results[number] = await _one(fn, item, scope if child else None)
            if failed:  # it did not heed its cancellation
                return

    count = min(limit, max(1, length_hint(items, limit)))
    workers = [asyncio.ensure_future(work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        failed = True
        for worker in workers:
            worker.cancel()
        await completed(asyncio.wait(workers))
        raise
    return [results[number] for number in range(len(results))]


async def _one(fn: Callable[[Item], Awaitable[T]], item: Item, scope: Scope | None) -> T:
    if scope is None:
        return await fn(item)
    async with scope.child():
        return await fn(item)


def name_of(fn: Callable[..., object]) -> str:
    """Return what a job is called: the name of its function."""
    name: str = getattr(fn, "__qualname__", type(fn).__name__)
    return name


def waits_for_itself(verb: str) -> InvalidQuery:
    """Return what is raised when a job calls a verb that waits for all jobs of its runner."""
    return InvalidQuery(verb, "a job of this runner would wait for itself")

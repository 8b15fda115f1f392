"""The ambient session in threads, executors and callbacks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    InvalidQuery,
    ScopedExecutor,
    SessionManager,
    current_session,
    in_scope,
    run_in_scope,
)
from sojourn.threads import _Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

other_variable: ContextVar[str] = ContextVar("other_variable", default="unset")


class Oops(Exception):
    """What a function raises."""


def ambient(*_given: object) -> str | None:
    """Return the id of the session that is ambient here."""
    session = current_session()
    return None if session is None else session.id


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Two threads."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


# ------------------------------------------------------------------------------------- run_in_scope


async def test_a_function_in_a_thread_works_in_the_scope(opened: Opener) -> None:
    """It runs elsewhere, sees the session, and what it changed is saved with the scope."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        def work(value: str, *, key: str) -> str:
            session = current_session()
            assert session is not None
            session.state[key] = value
            assert threading.current_thread() is not threading.main_thread()
            return other_variable.get()

        other_variable.set("carried")
        async with sessions.scope("s1"):
            assert await run_in_scope(work, "v", key="k") == "carried"
        assert (await sessions.require("s1")).state["k"] == "v"
        assert await run_in_scope(ambient) is None


async def test_threads_of_two_scopes_see_their_own_session(opened: Opener) -> None:
    """Both are in their functions at the same time."""
    party = threading.Barrier(2, timeout=30)
    async with opened() as sessions:

        def look() -> str | None:
            party.wait()
            return ambient()

        async def work(id: str) -> str | None:
            await sessions.create(id=id)
            async with sessions.scope(id):
                return await run_in_scope(look)

        assert list(await asyncio.gather(work("s1"), work("s2"))) == ["s1", "s2"]


@pytest.mark.parametrize("error", [Oops("why"), KeyError("k"), SystemError()])
async def test_what_a_function_raises_is_raised(error: Exception) -> None:
    """As it is."""

    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await run_in_scope(work)
    assert caught.value is error


async def test_an_exhausted_iterator_in_a_thread_does_not_hang() -> None:
    """A future can not hold a `StopIteration`: whoever awaits it would wait for ever."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await run_in_scope(next, iter(()))


@pytest.mark.parametrize("raising", [False, True])
async def test_a_scope_is_not_left_while_a_thread_works_in_it(
    opened: Opener, raising: bool
) -> None:
    """Cancelled, it waits for the function; cancelled again too; and says what it raised."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        begun, go = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(begun.set)
            assert go.wait(30)
            if raising:
                raise Oops("too late")

        async def request() -> None:
            async with sessions.scope("s1"):
                await run_in_scope(work)

        task = asyncio.create_task(request())
        await begun.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        assert sessions.scopes.live() == {"s1"}
        go.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "too late" in "".join(getattr(caught.value, "__notes__", ["too late"]))
        assert hasattr(caught.value, "__notes__") is raising
        assert sessions.scopes.live() == frozenset()


async def test_a_function_that_had_not_begun_never_runs_once_it_is_cancelled(
    pool: ThreadPoolExecutor,
) -> None:
    """All threads are busy; whoever is cancelled leaves at once."""
    asyncio.get_running_loop().set_default_executor(pool)
    go, ran = threading.Event(), list[str]()
    busy = [asyncio.create_task(run_in_scope(go.wait, 30)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(run_in_scope(ran.append, "ran"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    assert await asyncio.gather(*busy) == [True, True]
    assert await run_in_scope(len, ran) == 0


def test_a_call_begins_or_is_withdrawn_and_never_both() -> None:
    """Whoever comes first: the thread, or the one who gives up."""
    ran: list[int] = []
    call = _Run(lambda: ran.append(1))
    assert call.withdraw()
    with pytest.raises(asyncio.CancelledError):
        call()
    assert ran == []
    call = _Run(lambda: ran.append(2))
    call()
    assert not call.withdraw()
    assert ran == [2]


@pytest.mark.parametrize("fn", [None, 7, "work"])
async def test_what_can_not_be_called_is_refused(fn: Any, pool: ThreadPoolExecutor) -> None:
    """At once, naming it; an async function too, which needs no thread."""

    async def work() -> None: ...

    for wrong, reason in ((fn, "give a function"), (work, "it is async")):
        with pytest.raises(InvalidQuery, match=reason):
            await run_in_scope(wrong)
        with pytest.raises(InvalidQuery, match=reason):
            in_scope(wrong)
        with pytest.raises(InvalidQuery, match=reason):
            ScopedExecutor(pool).submit(wrong)


# ----------------------------------------------------------------------------- in_scope, executors


async def test_a_bound_function_carries_the_scope_into_any_thread(opened: Opener) -> None:
    """Many times and at the same time; and it keeps its name."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        party = threading.Barrier(3, timeout=30)
        seen: list[str | None] = []

        def look() -> None:
            party.wait()
            seen.append(ambient())

        async with sessions.scope("s1"):
            bound = in_scope(look)
            assert bound.__name__ == "look"
            threads = [threading.Thread(target=bound) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
        assert seen == ["s1"] * 3


async def test_a_bound_function_sees_no_session_once_the_scope_is_left(opened: Opener) -> None:
    """Called too late, it can not change a copy that nobody saves any more."""
    async with opened() as sessions:
        await sessions.create(id="outer")
        await sessions.create(id="s1")
        async with sessions.scope("outer"):
            async with sessions.scope("s1"):
                bound = in_scope(ambient)
                assert bound() == "s1"
            assert bound() == "outer"
        assert bound() is None


async def test_an_executor_runs_each_call_in_the_scope_it_was_submitted_in(
    opened: Opener, pool: ThreadPoolExecutor
) -> None:
    """`submit`, `map` and `run_in_executor`; a plain executor sees nothing."""
    scoped = ScopedExecutor(pool)
    loop = asyncio.get_running_loop()
    async with opened() as sessions:
        for id in ("s1", "s2"):
            await sessions.create(id=id)
            async with sessions.scope(id):
                assert await loop.run_in_executor(scoped, ambient) == id
                assert await asyncio.wrap_future(scoped.submit(ambient)) == id
                assert list(scoped.map(ambient, range(5))) == [id] * 5
                assert await loop.run_in_executor(pool, ambient) is None
        assert await loop.run_in_executor(scoped, ambient) is None


def test_shutting_it_down_shuts_down_what_it_wraps() -> None:
    """Like any executor: no more calls after that."""
    pool = ThreadPoolExecutor(1)
    with ScopedExecutor(pool) as scoped:
        assert scoped.submit(ambient).result() is None
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(ambient)


def test_an_executor_of_processes_is_refused() -> None:
    """Nothing ambient can go there: what can is `carry()`, and the message says so."""
    processes = ProcessPoolExecutor.__new__(ProcessPoolExecutor)  # none is started for this
    for wrong, reason in ((processes, r"carry\(\)"), ("pool", "give an Executor")):
        with pytest.raises(InvalidQuery, match=reason):
            ScopedExecutor(wrong)  # type: ignore[arg-type]  # what a caller without types may do
    assert isinstance(ScopedExecutor(ThreadPoolExecutor(1)), Executor)

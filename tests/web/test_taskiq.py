"""taskiq: tasks work in the session that they were sent from, in a worker that shares nothing."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Annotated, Any, Self

import pytest
from taskiq import AsyncBroker, BrokerMessage, InMemoryBroker, TaskiqDepends
from taskiq.brokers.inmemory_broker import InmemoryResultBackend
from taskiq.exceptions import SendTaskError
from taskiq.receiver import Receiver

from sojourn import (
    Closed,
    Ended,
    NotFound,
    OutOfScope,
    Session,
    SessionManager,
    Unavailable,
    carry,
    current_session,
    run_in_scope,
)
from sojourn.taskiq import LABEL, SessionCarrier, get_session
from sojourn.testing import FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Queue(AsyncBroker):
    """A broker whose messages wait as bytes until a worker takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[bytes] = []

    async def kick(self, message: BrokerMessage) -> None:
        self.waiting.append(message.message)

    async def listen(self) -> AsyncGenerator[bytes, None]:
        while self.waiting:
            yield self.waiting.pop(0)


def tasks_of(broker: AsyncBroker) -> dict[str, Any]:
    """Register the tasks of these tests; where a broker is a worker's, they are the same."""

    @broker.task("add")
    async def add(key: str) -> str:
        session = current_session()
        assert session is not None
        session.state[key] = True
        return session.id

    @broker.task("add_in_thread")
    def add_in_thread(key: str) -> None:
        session = current_session()
        assert session is not None
        session.state[key] = True

    @broker.task("fail")
    async def fail() -> None:
        session = current_session()
        assert session is not None
        session.state["never"] = True
        raise RuntimeError("a bug")

    @broker.task("look")
    async def look() -> str | None:
        session = current_session()
        return None if session is None else session.id

    @broker.task("needs")
    async def needs(session: Annotated[Session, TaskiqDepends(get_session)]) -> str:
        return session.id

    @broker.task("end")
    async def end() -> None:
        session = current_session()
        assert session is not None
        session.state["late"] = True
        await managers[0].end(session.id)

    found = {"add": add, "add_in_thread": add_in_thread, "fail": fail, "look": look}
    return found | {"needs": needs, "end": end}


managers: list[SessionManager] = []


class Side:
    """A sender and a worker of one queue, each with a manager of its own on one store."""

    def __init__(self, url: str) -> None:
        self.here, self.there = SessionManager.open(url), SessionManager.open(url)
        self.queue = Queue()
        self.queue.with_result_backend(InmemoryResultBackend())
        self.queue.add_middlewares(SessionCarrier(self.there))
        self.tasks = tasks_of(self.queue)
        self.receiver = Receiver(self.queue, run_startup=False, max_async_tasks=10)

    async def __aenter__(self) -> Self:
        await self.here.__aenter__()
        await self.there.__aenter__()
        managers[:] = [self.there]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.there.close()
        await self.here.close()

    async def work(self) -> None:
        """Take all messages, in a context that has nothing of the sender's."""
        async for message in self.queue.listen():
            working = self.receiver.callback(message)
            await asyncio.get_running_loop().create_task(working, context=Context())

    async def result(self, sent: Any) -> Any:
        """Return what a task returned, or raise what it raised."""
        await self.work()
        result = await self.queue.result_backend.get_result(sent.task_id)
        if result.error is not None:
            raise result.error
        return result.return_value


@pytest.fixture
def url(tmp_path: Any) -> str:
    """One store is enough: what stores do is tested with them."""
    return f"sqlite:///{tmp_path / 's.db'}"


async def test_a_task_works_in_the_session_it_was_sent_from(url: str) -> None:
    async with Side(url) as side:
        await side.here.create(id="s1", state={"own": 1})
        async with side.here.scope("s1"):
            sent = await side.tasks["add"].kiq("a")
            await side.tasks["add_in_thread"].kiq("b")
        assert b'"own"' not in b"".join(side.queue.waiting)
        assert await side.result(sent) == "s1"
        assert dict((await side.here.require("s1")).state) == {"own": 1, "a": True, "b": True}
        assert side.there.scopes.live() == frozenset()


async def test_outside_of_a_session_nothing_is_carried(url: str) -> None:
    async with Side(url) as side:
        assert await side.result(await side.tasks["look"].kiq()) is None
        with pytest.raises(OutOfScope):
            await side.result(await side.tasks["needs"].kiq())
        await side.here.create(id="s1")
        async with side.here.scope("s1"):
            sent = await side.tasks["needs"].kiq()
        assert await side.result(sent) == "s1"


async def test_a_task_that_fails_saves_nothing(url: str) -> None:
    async with Side(url) as side:
        await side.here.create(id="s1")
        async with side.here.scope("s1"):
            sent = await side.tasks["fail"].kiq()
        with pytest.raises(RuntimeError, match="a bug"):
            await side.result(sent)
        assert dict((await side.here.require("s1")).state) == {}
        assert side.there.scopes.live() == frozenset()


async def test_a_save_that_fails_is_the_result(url: str) -> None:
    async with Side(url) as side:
        await side.here.create(id="s1")
        async with side.here.scope("s1"):
            sent = await side.tasks["end"].kiq()
        with pytest.raises((Ended, NotFound)):
            await side.result(sent)


async def test_a_session_that_is_over_drops_no_task(url: str) -> None:
    async with Side(url) as side:
        await side.here.create(id="s1")
        async with side.here.scope("s1"):
            look, needs = await side.tasks["look"].kiq(), await side.tasks["needs"].kiq()
        await side.here.end("s1")
        assert await side.result(look) is None
        with pytest.raises(OutOfScope):
            await side.result(needs)


async def test_a_session_that_was_never_saved_is_told_to_the_sender(url: str) -> None:
    async with Side(url) as side:
        session = side.here.new()
        async with side.here.scope(session):
            session.state["a"] = 1
            with pytest.raises(NotFound, match="save it before"):
                await side.tasks["look"].kiq()
            await side.here.save(session)
            await side.tasks["look"].kiq()
        assert f'"{session.id}'.encode().replace(b'"', b"") in side.queue.waiting[0]


async def test_while_the_store_is_in_trouble_no_task_begins() -> None:
    async with SessionManager.open("memory://") as inner:
        store = FaultyStore(inner.store)
        sessions = SessionManager(store)
        broker = InMemoryBroker(await_inplace=True)
        broker.add_middlewares(SessionCarrier(sessions))
        ran = []

        @broker.task("note")
        async def note() -> None:
            ran.append(1)

        await sessions.create(id="s1")
        async with sessions.scope("s1"):
            store.fail("get", times=None)
            with pytest.raises(SendTaskError) as failed:
                await note.kiq()
            assert isinstance(failed.value.__cause__, Unavailable)
            store.heal()
        assert ran == []
        await broker.shutdown()


async def test_tasks_inside_of_each_other_leave_their_own_scopes() -> None:
    """As a broker that runs tasks in place nests them."""
    sessions = SessionManager.open("memory://nested")
    broker = InMemoryBroker(await_inplace=True)
    carrier = SessionCarrier("memory://nested")
    broker.add_middlewares(carrier)
    seen: list[str | None] = []

    def note() -> None:
        session = current_session()
        seen.append(None if session is None else session.id)

    @broker.task("inner")
    async def inner() -> None:
        await run_in_scope(note)

    @broker.task("outer")
    async def outer() -> None:
        note()
        await inner.kicker().with_labels(other="1").kiq()
        note()

    async with sessions:
        await sessions.create(id="s1")
        async with sessions.scope("s1"):
            expected = carry()
            await outer.kiq()
        assert seen == ["s1", "s1", "s1"]
        assert carrier.sessions.scopes.live() == frozenset()
        assert LABEL == "sojourn"
        assert set(expected) == {"app", "session", "epoch"}
        await broker.shutdown()
        with pytest.raises(Closed):
            await carrier.sessions.get("s1")

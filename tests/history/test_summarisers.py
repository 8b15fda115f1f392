"""How often a summariser is asked: once by many, not at once after a failure, never by itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.history.conversations import turns

from sojourn import (
    NotFound,
    RollingSummary,
    SessionManager,
    SummaryFailed,
    TooLarge,
    Unserializable,
    blocking,
    open_store,
)
from sojourn.limits import MAX_VALUE
from sojourn.testing import FaultyStore
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from tests.history.conversations import Opener

    from sojourn.history import Message

OWN = "its summariser asks for the summary that it makes"


class Model:
    """Has a method that summarises, as most services have."""

    def __init__(self) -> None:
        self.asked = 0

    async def summarise(self, _previous: str | None, _messages: list[Message]) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        return "a summary"


@dataclass
class Unhashable:
    """A summariser that is compared by what is in it, and so can not be hashed."""

    asked: list[int] = field(default_factory=list)

    async def __call__(self, _previous: str | None, _messages: list[Message]) -> str:
        self.asked.append(1)
        await asyncio.sleep(0)
        return "a summary"


async def test_a_method_is_asked_once_by_many(opened: Opener) -> None:
    """Each look at it makes a new object of it."""
    async with opened() as sessions:
        session = await sessions.create()
        await sessions.history(session.id).append(*turns(6))
        model = Model()
        loads = [
            sessions.history(session.id).load(RollingSummary(model.summarise, keep=2, limit=5))
            for _ in range(20)
        ]
        shown = await asyncio.gather(*loads)
        assert [len(messages) for messages in shown] == [3] * 20
        assert model.asked == 1


async def test_one_that_can_not_be_hashed_is_asked_once_by_many() -> None:
    async with SessionManager.open("memory://") as sessions:
        session = await sessions.create()
        await sessions.history(session.id).append(*turns(6))
        summarise = Unhashable()
        strategy = RollingSummary(summarise, keep=2, limit=5)
        await asyncio.gather(*(sessions.history(session.id).load(strategy) for _ in range(20)))
        assert len(summarise.asked) == 1


@pytest.mark.parametrize(
    ("text", "cause"), [("\ud800", Unserializable), ("x" * MAX_VALUE, TooLarge)]
)
async def test_a_summary_that_can_not_be_stored_is_a_failure(
    opened: Opener, text: str, cause: type[Exception]
) -> None:
    """And begins a pause: the next one would be no better."""
    async with opened() as sessions:
        history = sessions.history((await sessions.create()).id)
        await history.append(*turns(6))
        asked = 0

        async def summarise(_previous: str | None, _messages: list[Message]) -> str:
            nonlocal asked
            asked += 1
            return text

        strategy = RollingSummary(summarise, keep=2, limit=5)
        with pytest.raises(SummaryFailed, match="can not be stored") as caught:
            await history.compact(strategy)
        assert isinstance(caught.value.__cause__, cause)
        for _ in range(3):
            assert await history.load(strategy) == turns(6)
        assert asked == 1


async def test_nobody_is_asked_again_at_once_for_what_a_store_does_not_take(url: str) -> None:
    store = FaultyStore(open_store(url))
    await store.open()
    sessions = SessionManager(store)
    history = sessions.history((await sessions.create()).id)
    await history.append(*turns(6))
    model = Model()
    store.fail("commit", times=None)
    for _ in range(4):
        assert await history.load(RollingSummary(model.summarise, keep=2, limit=5)) == turns(6)
    assert model.asked == 1
    await sessions.close()
    await store.close()


async def test_a_summariser_that_loads_its_own_conversation_does_not_wait_for_itself(
    opened: Opener,
) -> None:
    """It sees the messages as they are; it can not insist on what it makes itself."""
    async with opened() as sessions:
        history = sessions.history((await sessions.create()).id)
        await history.append(*turns(6))

        async def summarise(_previous: str | None, _messages: list[Message]) -> str:
            assert await history.load(strategy) == turns(6)
            with pytest.raises(SummaryFailed, match=OWN):
                await history.compact(strategy)
            left.append(asyncio.ensure_future(afterwards()))
            return "a summary"

        async def afterwards() -> int:
            """Load once the summariser is done: this task has its context still."""
            await done.wait()
            return len(await history.load(RollingSummary(model.summarise, keep=2, limit=5)))

        done, model = asyncio.Event(), Model()
        left: list[asyncio.Future[int]] = []
        strategy = RollingSummary(summarise, keep=2, limit=5)
        assert len(await history.load(strategy)) == 3
        await history.append(*turns(6))
        done.set()
        assert [await each for each in left] == [3], "it is no part of the summariser any more"
        assert model.asked == 1


def test_nor_does_a_plain_one_in_its_thread() -> None:
    with blocking.SessionManager.open("memory://") as sessions:
        history = sessions.history(sessions.create().id)
        history.append(*turns(6))

        def summarise(_previous: str | None, _messages: list[Message]) -> str:
            assert history.load(strategy) == turns(6)
            return "a summary"

        strategy = RollingSummary(summarise, keep=2, limit=5)
        assert len(history.load(strategy)) == 3


async def test_a_later_session_with_the_same_id_has_no_part_in_a_pause() -> None:
    async with SessionManager.open("memory://", clock=FakeClock()) as sessions:
        history, model = sessions.history("s"), Model()

        async def fail(_previous: str | None, _messages: list[Message]) -> str:
            raise ConnectionError

        for summarise, shown in ((fail, 6), (model.summarise, 3)):
            await sessions.create(id="s")
            await history.append(*turns(6))
            assert len(await history.load(RollingSummary(summarise, keep=2, limit=5))) == shown
            await sessions.delete("s")
        assert model.asked == 1


async def test_the_history_of_a_copy_is_of_that_very_session(opened: Opener) -> None:
    """Whoever has the id now may be somebody else."""
    async with opened() as sessions:
        before = await sessions.create(id="s", user="alice")
        await sessions.delete("s")
        await sessions.create(id="s", user="bob")
        await sessions.history("s").append(*turns(3))
        history = sessions.history(before)
        for reading in (
            history.load(),
            history.load(last=2),
            history.load(expired=True),
            history.load(RollingSummary(Model().summarise, keep=1, limit=2)),
            history.summary(),
            history.compact(RollingSummary(Model().summarise, keep=1, limit=2)),
        ):
            with pytest.raises(NotFound, match="an earlier session"):
                await reading
        assert await sessions.history("s").load() == turns(3)

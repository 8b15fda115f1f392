"""Rolling summaries: stored before anything is hidden, and true of what is there."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.history.conversations import (
    assistant,
    calling,
    contents,
    result,
    system,
    turns,
    user,
)
from tests.manager.watched_store import watched

from sojourn import (
    Event,
    Expiry,
    InvalidQuery,
    LeaseLost,
    NotFound,
    RollingSummary,
    SessionManager,
    StorageFull,
    Summary,
    SummaryFailed,
    TokenBudget,
)
from sojourn.history import summaries
from sojourn.history.pauses import SESSIONS, Pauses
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.history.conversations import Opener
    from tests.manager.watched_store import WatchedStore

    from sojourn.history import History, Message

SECRET = "hunter2"


class Summariser:
    """Lists the contents that it was given, behind what it said before; notes each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, list[Message]]] = []

    async def __call__(self, previous: str | None, messages: list[Message]) -> str:
        self.calls.append((previous, messages))
        return " ".join([*([previous] if previous else []), *map(str, contents(messages))])


class Held:
    """A summariser that waits until it is let on, and says nothing of what was before."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, _previous: str | None, messages: list[Message]) -> str:
        self.asked.set()
        await self.go.wait()
        return " ".join(map(str, contents(messages)))


def summary_of(text: str) -> Message:
    return system(f"Summary of earlier conversation: {text}")


async def history_of(sessions: SessionManager, *messages: Message) -> History:
    history = sessions.history((await sessions.create()).id)
    if messages:
        await history.append(*messages)
    return history


async def kinds(sessions: SessionManager, history: History) -> list[str]:
    return [event.kind for event in await sessions.events(history._id)]


# -------------------------------------------------------------------------------------- when, what


@pytest.mark.behaviour(101)
async def test_a_summary_is_made_when_it_is_due(opened: Opener) -> None:
    """Not before; then one summary and the last so many; the next one includes the last one."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(4))
        ask = Summariser()
        strategy = RollingSummary(ask, keep=2)
        assert contents(await history.load(strategy)) == ["1", "2", "3", "4"]
        assert (ask.calls, await history.summary()) == ([], None)

        await history.append(user("5"))
        assert await history.load(strategy) == [summary_of("1 2 3"), *turns(5)[3:]]
        assert ask.calls == [(None, turns(3))]
        assert await history.load(strategy) == [summary_of("1 2 3"), *turns(5)[3:]]
        assert len(ask.calls) == 1

        await history.append(assistant("6"), user("7"), assistant("8"))
        assert contents(await history.load(strategy)) == [
            summary_of("1 2 3 4 5 6")["content"],
            *"78",
        ]
        assert ask.calls[1] == ("1 2 3", turns(6)[3:])


@pytest.mark.behaviour(105)
async def test_what_was_summarised_is_still_there(opened: Opener) -> None:
    """A summary is one more event, with the last number that it speaks for."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        assert await history.load() == turns(6)
        assert contents(await history.load(last=5)) == ["2", "3", "4", "5", "6"]
        assert await kinds(sessions, history) == ["message"] * 6 + ["summary"]
        summary = await history.summary()
        assert isinstance(summary, Summary)
        assert (summary.text, summary.covers, summary.seq) == ("1 2 3 4", 4, 7)
        assert summary.at == (await sessions.events(history._id, last=1))[0].at


async def test_a_summary_survives_reopening(opened: Opener) -> None:
    """Another process shows it without asking anybody."""
    async with opened():
        async with opened() as sessions:
            history = await history_of(sessions, *turns(6))
            await history.load(RollingSummary(Summariser(), keep=2))
        async with opened() as sessions:
            shown = await sessions.history(history._id).load(RollingSummary())
            assert shown == [summary_of("1 2 3 4"), *turns(6)[4:]]


async def test_without_a_summariser_nothing_is_written(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, *turns(60))
        assert await history.load(RollingSummary()) == turns(60)
        assert await history.summary() is None


@pytest.mark.behaviour(101)
@pytest.mark.behaviour(96)
async def test_clearing_removes_the_summary(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        await history.clear()
        assert (await history.load(RollingSummary()), await history.summary()) == ([], None)
        await history.append(user("new"))
        assert await history.load(RollingSummary()) == [user("new")]


async def test_the_start_of_the_talk_is_kept_and_not_summarised(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, system("be"), *turns(5))
        ask = Summariser()
        shown = await history.load(RollingSummary(ask, keep=1, limit=3))
        assert shown == [system("be"), summary_of("1 2 3 4"), user("5")]
        assert ask.calls == [(None, turns(4))]


async def test_what_to_count_and_how_to_show(opened: Opener) -> None:
    """`keep` and `limit` in what `count` counts; the newest message stays even if it is more."""
    async with opened() as sessions:
        history = await history_of(sessions, user("aaaa"), assistant("bb"), user("ccccc"))
        strategy = RollingSummary(
            Summariser(),
            keep=3,
            limit=10,
            count=lambda message: len(message["content"]),
            role="developer",
            heading="Before: ",
        )
        assert await history.load(strategy) == [
            {"role": "developer", "content": "Before: aaaa bb"},
            user("ccccc"),
        ]
        await history.append(assistant("d"), user("e"))
        assert len(await history.load(strategy)) == 4


async def test_a_summary_never_parts_calls_from_results(opened: Opener) -> None:
    """It speaks for both or for neither, nor for a call whose results are still to come."""
    talk = [user("q"), calling("a", "b"), result("a"), user("hm"), result("b"), user("r")]
    async with opened() as sessions:
        for keep in (2, 3, 4):
            history = await history_of(sessions, *talk)
            shown = await history.load(RollingSummary(Summariser(), keep=keep, limit=5))
            assert shown == [summary_of("q"), *talk[1:]]
        history = await history_of(sessions, *talk[:4], user("well?"))
        assert len(await history.load(RollingSummary(Summariser(), keep=1, limit=2))) == 5
        await history.append(result("b"), assistant("done"))
        shown = await history.load(RollingSummary(Summariser(), keep=1, limit=2))
        assert contents(shown)[1:] == ["done"]


async def test_a_result_that_comes_after_its_call_was_summarised(opened: Opener) -> None:
    """It is not shown alone; the next summariser is given it."""
    async with opened() as sessions:
        history = await history_of(sessions, calling("a"), user("hm"), assistant("sorry"))
        ask = Summariser()
        strategy = RollingSummary(ask, keep=1, limit=1)
        assert contents(await history.load(strategy))[1:] == ["sorry"]
        await history.append(result("a", "late"), user("so?"))
        assert contents(await history.load(RollingSummary()))[1:] == ["sorry", "so?"]
        assert contents(await history.load(strategy))[1:] == ["so?"]
        assert "late" in contents(ask.calls[-1][1])


async def test_a_long_backlog_takes_several(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A summariser gets so many at a time; what is not summarised yet is shown."""
    monkeypatch.setattr(summaries, "MESSAGES_AT_ONCE", 4)
    async with opened() as sessions:
        history = await history_of(sessions, *turns(13))
        ask = Summariser()
        strategy = RollingSummary(ask, keep=3)
        assert len(await history.load(strategy)) == 1 + 9
        found = [await history.compact(strategy) for _ in range(2)]
        assert [summary and summary.covers for summary in found] == [8, None]
        assert [len(messages) for _, messages in ask.calls] == [4, 4]
        assert contents(await history.load(RollingSummary())) == [
            summary_of("1 2 3 4 5 6 7 8")["content"],
            *("9", "10", "11", "12", "13"),
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"summarize": "no"},
        {"keep": 0},
        {"keep": 1.5},
        {"keep": 5, "limit": 4},
        {"count": 7},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": None},
        {"pause": -1},
        {"pause": float("nan")},
        {"role": ""},
        {"heading": None},
    ],
    ids=str,
)
def test_what_is_no_rolling_summary(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery):
        RollingSummary(**arguments)


# -------------------------------------------------------------------------------------- summarisers


async def plain(previous: str | None, messages: list[Message]) -> str:
    return f"{len(messages)}"


def in_a_thread(previous: str | None, messages: list[Message]) -> str:
    assert threading.current_thread() is not threading.main_thread()
    return f"{len(messages)}"


@pytest.mark.parametrize(
    "summarize",
    [plain, in_a_thread, functools.partial(plain), lambda _, said: plain(None, said), Summariser()],
    ids=["async", "sync", "partial", "lambda", "object"],
)
async def test_whatever_can_be_called(summarize: Any) -> None:
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, *turns(3))
        summary = await history.compact(RollingSummary(summarize, keep=1))
        assert summary is not None
        assert summary.text in {"2", "1 2"}


@pytest.mark.parametrize("seconds", [10**400, 1e300, 60])
async def test_any_time_that_is_finite(seconds: float) -> None:
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, *turns(3))
        assert await history.compact(RollingSummary(plain, keep=1, timeout=seconds)) is not None


async def cancels_itself(previous: str | None, messages: list[Message]) -> str:
    raise asyncio.CancelledError


async def raises(previous: str | None, messages: list[Message]) -> str:
    raise ConnectionError(f"{SECRET}: {messages}")


def raises_in_a_thread(previous: str | None, messages: list[Message]) -> str:
    raise ConnectionError(f"{SECRET}: {messages}")


async def never(previous: str | None, messages: list[Message]) -> str:
    await asyncio.Event().wait()
    return "never"


async def deaf(previous: str | None, messages: list[Message]) -> str:
    """Goes on when it is cancelled, once, and then raises."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    raise LookupError(SECRET)


def returning(value: Any) -> Any:
    async def summarize(previous: str | None, messages: list[Message]) -> Any:
        return value

    return summarize


failing = pytest.mark.parametrize(
    ("summarize", "reason"),
    [
        (raises, "raised ConnectionError"),
        (raises_in_a_thread, "raised ConnectionError"),
        (cancels_itself, "was cancelled"),
        (never, "took longer than 0.01 s"),
        (deaf, "took longer than 0.01 s"),
        (returning(None), "returned no text"),
        (returning(""), "returned no text"),
        (returning(" \n"), "returned no text"),
        (returning(7), "returned no text"),
        (returning({"text": "x"}), "returned no text"),
    ],
)


def patience(reason: str) -> float:
    """Return how long to wait: hardly, for what never comes; else as long as it takes."""
    return 0.01 if "longer" in reason else 60.0


@failing
async def test_a_summariser_that_fails_loses_nothing(
    caplog: pytest.LogCaptureFixture, summarize: Any, reason: str
) -> None:
    """The load answers, with what was summarised before and all that was not; it is logged."""
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, *turns(6))
        await history.load(RollingSummary(Summariser(), keep=2, limit=4))
        await history.append(*turns(4))
        strategy = RollingSummary(summarize, keep=2, limit=4, timeout=patience(reason), pause=0)
        with caplog.at_level(logging.WARNING, "sojourn"):
            shown = await history.load(strategy)
        assert contents(shown)[1:] == ["5", "6", "1", "2", "3", "4"]
        assert shown[0] == summary_of("1 2 3 4")
        (logged,) = caplog.messages
        assert reason in logged
        assert SECRET not in caplog.text
        assert (await kinds(sessions, history)).count("summary") == 1
        shown = await history.load(RollingSummary(Summariser(), keep=2, limit=4))
        assert shown == [summary_of("1 2 3 4 5 6 1 2"), *turns(4)[2:]]


@failing
async def test_asked_for_by_itself_a_failure_is_raised(summarize: Any, reason: str) -> None:
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, *turns(6))
        with pytest.raises(SummaryFailed, match=reason) as caught:
            await history.compact(RollingSummary(summarize, keep=2, timeout=patience(reason)))
        assert caught.value.id == history._id
        if "ConnectionError" in reason:
            assert isinstance(caught.value.__cause__, ConnectionError)
        assert SECRET not in str(caught.value)
        assert await history.summary() is None


async def test_compact_needs_a_summariser() -> None:
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, *turns(6))
        for wrong in (RollingSummary(), TokenBudget(1, len), None):
            with pytest.raises(InvalidQuery, match="strategy"):
                await history.compact(wrong)  # type: ignore[arg-type]  # that is the mistake


async def test_a_load_that_is_cancelled_takes_its_summariser_along(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        stopped = asyncio.Event()
        asked = asyncio.Event()

        async def summarize(previous: str | None, messages: list[Message]) -> str:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return ""

        task = asyncio.ensure_future(history.load(RollingSummary(summarize, keep=2)))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stopped.wait()
        assert await history.summary() is None
        assert await history.load() == turns(6)


async def test_what_a_summariser_does_to_its_messages_is_not_seen(opened: Opener) -> None:
    async def spoils(previous: str | None, messages: list[Message]) -> str:
        for message in messages:
            message.clear()
        messages.clear()
        return "spoilt"

    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        shown = await history.load(RollingSummary(spoils, keep=2))
        assert shown == [summary_of("spoilt"), *turns(6)[4:]]
        assert await history.load() == turns(6)


# ---------------------------------------------------------------------------- storing before hiding


async def test_nothing_is_hidden_before_the_summary_is_stored(url: str) -> None:
    """While it is being made and written, everybody else sees every message."""
    async with watched(url) as (sessions, store):
        history = await history_of(sessions, *turns(6))
        held = Held()
        task = asyncio.ensure_future(history.load(RollingSummary(held, keep=2)))
        await held.asked.wait()
        assert await history.load(RollingSummary()) == turns(6)
        gate = store.hold("commit", "before")
        held.go.set()
        await gate.arrived.wait()
        assert await history.load(RollingSummary()) == turns(6)
        gate.go()
        assert len(await task) == len(await history.load(RollingSummary())) == 3


async def test_a_summary_that_cannot_be_stored_hides_nothing(url: str) -> None:
    async with watched(url) as (sessions, store):
        history = await history_of(sessions, *turns(6))
        strategy = RollingSummary(Summariser(), keep=2, pause=0)
        store.fail("commit", StorageFull("db", "no space left"))
        assert await history.load(strategy) == turns(6)
        store.fail("commit", StorageFull("db", "no space left"))
        with pytest.raises(StorageFull):
            await history.compact(strategy)
        assert await history.summary() is None
        assert len(await history.load(strategy)) == 3


async def test_a_session_that_ends_is_still_read(opened: Opener) -> None:
    """It takes no summary any more, so nothing is hidden; expired ones are not summarised."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        ask = Summariser()
        strategy = RollingSummary(ask, keep=2)
        session = await sessions.create(expiry=Expiry(idle=60))
        history = sessions.history(session.id)
        await history.append(*turns(6))
        read: list[Any] = []

        @sessions.on_end
        async def archive(ended: Any, reason: str) -> None:
            read.append(await history.load(strategy, expired=True))
            read.append(await history.summary(expired=True))

        held = Held()
        task = asyncio.ensure_future(history.load(RollingSummary(held, keep=2)))
        await held.asked.wait()
        await sessions.end(session.id, retain=30)
        held.go.set()
        assert await task == turns(6)
        assert read == [turns(6), None]
        assert ask.calls == []
        assert await history.load(strategy) == turns(6)
        clock.advance(30)
        with pytest.raises(NotFound):
            await history.load(strategy)


async def test_a_copy_moves_on_with_its_own_summary(opened: Opener) -> None:
    """A strict save after a load that summarised does not conflict with itself."""
    async with opened() as sessions:
        session = await sessions.create()
        history = sessions.history(session)
        await history.append(*turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        session.state["turn"] = 1
        await sessions.save(session, conflict="fail")


async def test_a_fenced_summary(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        strategy = RollingSummary(Summariser(), keep=2)
        async with sessions.lease(history._id, renew=False) as lease:
            pass
        with pytest.raises(LeaseLost):
            await history.compact(strategy, lease=lease)
        async with sessions.lease(history._id, renew=False) as lease:
            assert await history.compact(strategy, lease=lease) is not None


# ------------------------------------------------------------------------------- two at a time


async def test_of_two_summaries_the_larger_one_counts(opened: Opener) -> None:
    """The slow one of less finds that there is one of more, and is not stored."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        held = Held()
        slow = asyncio.ensure_future(history.compact(RollingSummary(held, keep=4, limit=5)))
        await held.asked.wait()
        await history.append(user("7"))
        large = await history.compact(RollingSummary(Summariser(), keep=2))
        assert large is not None
        held.go.set()
        assert await slow is None
        assert await history.summary() == large


async def test_the_larger_one_counts_in_whatever_order_they_are_stored(url: str) -> None:
    """Even when the smaller one is written after the last look at what there is."""
    async with watched(url) as (sessions, store):
        history = await history_of(sessions, *turns(6))
        gate = store.hold("commit", "before")
        slow = asyncio.ensure_future(history.compact(RollingSummary(plain, keep=4, limit=5)))
        await gate.arrived.wait()
        large = await history.compact(RollingSummary(Summariser(), keep=2))
        assert large is not None
        gate.go()
        small = await slow
        assert small is not None
        assert small.seq > large.seq
        assert await history.summary() == large
        assert await history.load(RollingSummary()) == [summary_of("1 2 3 4"), *turns(6)[4:]]


async def test_the_larger_one_counts_behind_any_number_of_smaller_ones(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, *turns(30))
        ids = {event.seq: event.id for event in await sessions.events(history._id)}
        for covers in (20, 9, 5, 19, *range(8, 18), 3):
            body = {"text": f"{covers}", "covers": covers, "covers_id": ids[covers]}
            await sessions.append(history._id, Event(kind="summary", body=body))
        summary = await history.summary()
        assert summary is not None
        assert (summary.covers, summary.seq) == (20, 31)


async def test_many_loads_at_once_ask_one_summariser_once(opened: Opener) -> None:
    """Each call may cost money; the others wait for what comes of the first."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        asked = Summariser()
        strategy = RollingSummary(asked, keep=2, limit=5)
        shown = await asyncio.gather(
            *(sessions.history(history._id).load(strategy) for _ in range(10))
        )
        assert len(asked.calls) == 1
        assert shown == [[summary_of("1 2 3 4"), *turns(6)[4:]]] * 10
        assert not [turns_ for turns_ in summaries._turns.values() if turns_]


async def test_a_summariser_that_fails_leaves_the_turn_to_the_next(opened: Opener) -> None:
    """Also when it is cancelled: nobody waits for ever."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        held = Held()
        strategy = RollingSummary(held, keep=2, limit=5)
        first = asyncio.ensure_future(history.compact(strategy))
        second = asyncio.ensure_future(history.compact(strategy))
        await held.asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        held.go.set()
        assert await second is not None


class Failing:
    """Fails, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, _previous: str | None, _messages: list[Message]) -> str:
        self.asked += 1
        raise ConnectionError


async def test_a_summariser_that_fails_is_left_alone_for_a_while() -> None:
    """A service that is down would make every turn of the conversation wait for it."""
    clock = FakeClock()
    async with SessionManager.open("memory://", clock=clock) as sessions:
        history = await history_of(sessions, *turns(6))
        other = await history_of(sessions, *turns(6))
        failing, strategy = Failing(), RollingSummary(Summariser(), keep=2, limit=5)
        broken = RollingSummary(failing, keep=2, limit=5, pause=10)
        crowd = (sessions.history(history._id).load(broken) for _ in range(10))
        assert await asyncio.gather(*crowd) == [turns(6)] * 10
        assert failing.asked == 1, "who waited for it has seen it fail"
        clock.advance(9)
        assert await history.load(strategy) == turns(6)
        await other.load(broken)
        assert failing.asked == 2, "another session has a pause of its own"
        with pytest.raises(SummaryFailed):
            await history.compact(broken)
        assert failing.asked == 3, "who insists does not wait"
        clock.advance(9)
        await history.load(broken)
        assert failing.asked == 3, "and the pause begins anew"
        clock.advance(1)
        assert await history.load(strategy) == [summary_of("1 2 3 4"), *turns(6)[4:]]


@pytest.mark.parametrize("patience", [0.0, 3600.0])
async def test_who_is_cancelled_after_a_long_wait_has_seen_it_fail(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests have limits of their own, shorter than a summariser's."""
    monkeypatch.setattr(summaries, "GIVEN_UP_SECONDS", patience)
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, *turns(6))
        held, strategy = Held(), RollingSummary(Summariser(), keep=2, limit=5)
        load = asyncio.ensure_future(history.load(RollingSummary(held, keep=2, limit=5)))
        await held.asked.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        shown = await history.load(strategy)
        assert (shown == turns(6)) is (patience == 0)


async def test_a_summary_that_was_made_ends_the_pause() -> None:
    clock = FakeClock()
    async with SessionManager.open("memory://", clock=clock) as sessions:
        history = await history_of(sessions, *turns(6))
        failing, strategy = Failing(), RollingSummary(Summariser(), keep=2, limit=5)
        await history.load(RollingSummary(failing, keep=2, limit=5))
        assert await history.compact(strategy) is not None
        await history.append(*turns(4))
        assert (await history.load(strategy))[1:] == turns(4)[2:]


def test_only_so_many_failures_are_remembered() -> None:
    pauses = Pauses(lambda: 0)
    for number in range(SESSIONS + 1):
        pauses.begin(f"s{number}", 1)
    assert [pauses.holds(f"s{number}") for number in (0, 1, SESSIONS)] == [False, True, True]


async def test_many_summarisers_at_once(opened: Opener) -> None:
    """And appends beside them: no message is neither in the summary nor shown."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(20))

        async def speak(number: int) -> None:
            await history.append(user(f"new{number}"))
            await history.load(RollingSummary(Summariser(), keep=number % 5 + 1, limit=6))

        await asyncio.gather(*(speak(number) for number in range(20)))
        shown = await history.load(RollingSummary())
        text = shown[0]["content"].removeprefix("Summary of earlier conversation: ")
        everything = contents(await history.load())
        assert [*text.split(), *contents(shown[1:])] == everything
        assert len(everything) == 40


@pytest.mark.parametrize(
    "body",
    [
        None,
        "text",
        {"text": "x"},
        {"text": "x", "covers": 3},
        {"text": "x", "covers": True, "covers_id": "e"},
        {"text": "x", "covers": 99, "covers_id": "e"},
        {"text": "x", "covers": 0, "covers_id": "e"},
        {"text": 7, "covers": 3, "covers_id": "e"},
        {"text": "x", "covers": 3, "covers_id": "of another message"},
    ],
    ids=str,
)
async def test_events_that_only_look_like_summaries(body: Any) -> None:
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, *turns(4))
        await sessions.append(history._id, *[Event(kind="summary", body=body)] * 9)
        assert await history.summary() is None
        assert await history.load(RollingSummary()) == turns(4)


# ------------------------------------------------------------------------------------- cut, forked


@pytest.mark.parametrize(
    ("after", "summary", "shown"),
    [
        (8, "1 2 3 4", ["5", "6", "7"]),
        (7, "1 2 3 4", ["5", "6"]),
        (6, None, ["1", "2", "3", "4", "5", "6"]),
        (3, None, ["1", "2", "3"]),
        (0, None, []),
    ],
)
async def test_cutting_the_log_cuts_the_summary(
    opened: Opener, after: int, summary: str | None, shown: list[str]
) -> None:
    """A summary that is left speaks for messages that are all there."""
    async with opened() as sessions:
        session = await sessions.create()
        history = sessions.history(session)
        await history.append(*turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        await history.append(user("7"))
        fork = sessions.history((await sessions.fork(session.id, at=after)).id)
        await sessions.truncate(session, after=after)
        expected = ([summary_of(summary)["content"]] if summary else []) + shown
        for each in (history, fork):
            assert contents(await each.load(RollingSummary())) == expected
            await each.append(user("new"))
            assert contents(await each.load(RollingSummary())) == [*expected, "new"]


async def test_replacing_the_end_of_the_log(opened: Opener) -> None:
    async with opened() as sessions:
        session = await sessions.create()
        history = sessions.history(session)
        await history.append(*turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        edited = Event(kind="message", author="user", body=user("edited"))
        await sessions.replace_suffix(session, expected=[4, 5, 6, 7], events=[edited])
        assert contents(await history.load(RollingSummary())) == ["1", "2", "3", "edited"]
        shown = await history.load(RollingSummary(Summariser(), keep=1, limit=3))
        assert shown == [summary_of("1 2 3"), user("edited")]


async def test_a_fork_goes_its_own_way(opened: Opener) -> None:
    """Its summaries are not the other's."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        fork = sessions.history((await sessions.fork(history._id)).id)
        await fork.append(*turns(4))
        await fork.load(RollingSummary(Summariser(), keep=1, limit=5))
        mine, theirs = await history.summary(), await fork.summary()
        assert mine is not None
        assert theirs is not None
        assert (mine.covers, theirs.covers) == (4, 10)


async def stopped(stage: str, held: Held, store: WatchedStore) -> Callable[[], None]:
    """Wait until the summariser is asked, or its text is being written; return how to go on."""
    await held.asked.wait()
    if stage == "asked":
        return held.go.set
    gate = store.hold("commit", "before")
    held.go.set()
    await gate.arrived.wait()
    return gate.go


@pytest.mark.parametrize("stage", ["asked", "writing"])
async def test_a_log_that_is_cut_while_it_is_summarised(url: str, stage: str) -> None:
    """Whatever was summarised by then, nothing of it is shown of what is gone."""
    async with watched(url) as (sessions, store):
        session = await sessions.create()
        history = sessions.history(session.id)
        await history.append(*turns(6))
        held = Held()
        task = asyncio.ensure_future(history.load(RollingSummary(held, keep=2)))
        go_on = await stopped(stage, held, store)
        await sessions.truncate(session, after=2)
        await history.append(user("new"), assistant("newer"), user("newest"))
        go_on()
        assert contents(await task) == ["1", "2", "new", "newer", "newest"]
        assert await history.summary() is None
        # Known to be of no use, it is not even written.
        assert ("summary" in await kinds(sessions, history)) is (stage == "writing")
        shown = await history.load(RollingSummary(Summariser(), keep=2))
        assert shown == [summary_of("1 2 new"), assistant("newer"), user("newest")]


@pytest.mark.parametrize("stage", ["asked", "writing"])
async def test_a_session_that_is_made_anew_while_it_is_summarised(url: str, stage: str) -> None:
    """The new one knows nothing of the old one's conversation."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s-1")
        history = sessions.history("s-1")
        await history.append(*turns(6))
        held = Held()
        task = asyncio.ensure_future(history.load(RollingSummary(held, keep=2)))
        go_on = await stopped(stage, held, store)
        await sessions.delete("s-1")
        await sessions.create(id="s-1")
        fresh = [user(f"new{number}") for number in range(6)]
        await history.append(*fresh)
        go_on()
        assert await task == fresh
        assert await kinds(sessions, history) == ["message"] * 6
        assert session.epoch != (await sessions.require("s-1")).epoch


async def test_a_session_that_is_deleted_while_it_is_summarised(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, *turns(6))
        held = Held()
        task = asyncio.ensure_future(history.load(RollingSummary(held, keep=2)))
        await held.asked.wait()
        await sessions.delete(history._id)
        held.go.set()
        with pytest.raises(NotFound):
            await task


@pytest.mark.behaviour(19)
async def test_a_deleted_session_takes_its_summary_along(opened: Opener) -> None:
    async with opened() as sessions:
        session = await sessions.create(id="s-1")
        history = sessions.history(session.id)
        await history.append(*turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        await sessions.delete("s-1")
        await sessions.create(id="s-1")
        assert (await history.load(RollingSummary()), await history.summary()) == ([], None)


@pytest.mark.parametrize("how", ["cut", "anew"])
async def test_what_changes_between_the_reads_of_one_view(url: str, how: str) -> None:
    """Looked up, then cut away, then read: the summary of what is gone is not shown."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s-1")
        history = sessions.history("s-1")
        await history.append(*turns(6))
        await history.load(RollingSummary(Summariser(), keep=2))
        gate = store.hold("events", "before")
        task = asyncio.ensure_future(history.load(RollingSummary()))
        for _ in range(3):  # the preamble, the summaries, what the newest one speaks for
            await gate.arrived.wait()
            following = store.hold("events", "before")
            gate.go()
            gate = following
        await gate.arrived.wait()
        if how == "cut":
            await sessions.truncate(session, after=3)
            await history.append(user("new"))
        else:
            await sessions.delete("s-1")
            await sessions.create(id="s-1")
            await history.append(*turns(7))
        gate.go()
        expected = ["1", "2", "3", "new"] if how == "cut" else contents(turns(7))
        assert contents(await task) == expected


async def test_a_summarised_history_reads_what_it_shows(url: str) -> None:
    """However long the log was."""
    async with watched(url) as (sessions, store):
        history = await history_of(sessions, *turns(400))
        strategy = RollingSummary(plain, keep=5)
        while await history.compact(strategy):
            pass
        store.forget_calls()
        assert len(await history.load(strategy)) == 6
        windows = [arguments[3] for verb, arguments in store.calls if verb == "events"]
        assert len(windows) == 4
        assert all(
            (window.after_seq or 0) >= 394 or (window.last or window.first or 99) <= 4
            for window in windows
        )


async def test_plain_summarisers_that_hang_hold_up_nobody(url: str, tmp_path: Path) -> None:
    """Not the close of the store, nor the open of another, nor who uses the loop's threads."""
    never = threading.Event()

    def hang(_previous: str | None, _messages: list[Message]) -> str:
        never.wait()
        return "late"

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    try:
        async with SessionManager.open(url) as sessions:
            for _ in range(3):
                history = await history_of(sessions, *turns(3))
                with pytest.raises(SummaryFailed, match="took longer"):
                    await history.compact(RollingSummary(hang, keep=1, timeout=0.01))
            assert await asyncio.to_thread(str, 1) == "1"
        async with SessionManager.open(f"sqlite:///{tmp_path}/other.db") as sessions:
            await history_of(sessions, *turns(1))
    finally:
        never.set()


async def test_there_is_a_bound_to_plain_summarisers_that_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summaries, "PLAIN_CALLS", 1)
    never = threading.Event()

    def hang(_previous: str | None, _messages: list[Message]) -> str:
        never.wait()
        return "late"

    async with SessionManager.open("memory://") as sessions:
        first, second = [await history_of(sessions, *turns(3)) for _ in range(2)]
        with pytest.raises(SummaryFailed, match="took longer"):
            await first.compact(RollingSummary(hang, keep=1, timeout=0.01))
        with pytest.raises(SummaryFailed, match="took longer"):
            await second.compact(RollingSummary(in_a_thread, keep=1, timeout=0.01))
        waiting = asyncio.create_task(second.compact(RollingSummary(in_a_thread, keep=1)))
        never.set()
        assert await waiting is not None


def test_a_program_ends_beside_a_plain_summariser_that_hangs() -> None:
    code = """if True:
        import asyncio, threading
        from sojourn import RollingSummary, SessionManager, SummaryFailed

        def hang(previous, messages):
            threading.Event().wait()

        async def main():
            async with SessionManager.open("memory://") as sessions:
                history = sessions.history(await sessions.create())
                await history.append(*[{"role": "user", "content": str(n)} for n in range(6)])
                try:
                    await history.compact(RollingSummary(hang, keep=2, timeout=0.01))
                except SummaryFailed:
                    print("failed")

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "failed\n"

"""Whatever is done to a log: every message is shown, or summarised, or waits for its call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.history.conversations import calling, contents, result, system, user
from tests.history.oracle import IDS, call_of, drawn_messages, length
from tests.manager.watched_store import watched

from sojourn import RollingSummary, SessionManager
from sojourn.history import summaries, windows
from sojourn.history.messages import Numbered
from sojourn.history.summaries import Excerpt

if TYPE_CHECKING:
    from sojourn.history import History, Message

HEADING = RollingSummary().heading


async def listing(previous: str | None, messages: list[Message]) -> str:
    """Summarise by listing what was said: everything in it is told apart by a number."""
    return " ".join([*([previous] if previous else []), *contents(messages)])


async def failing(previous: str | None, messages: list[Message]) -> str:
    raise ConnectionError


def said(draft: Message, number: int) -> Message:
    return {**draft, "content": f"m{number}"}


drafts = st.one_of(
    st.just(user("")),
    st.just(system("")),
    st.builds(lambda ids: calling(*ids), st.lists(st.sampled_from(IDS), min_size=1, unique=True)),
    st.builds(result, st.sampled_from(IDS)),
)
steps = st.one_of(
    st.tuples(st.just("say"), st.lists(drafts, min_size=1, max_size=5)),
    st.tuples(st.just("summarise"), st.tuples(st.integers(1, 4), st.integers(0, 3))),
    st.tuples(st.just("fail"), st.tuples(st.integers(1, 4), st.integers(0, 3))),
    st.tuples(st.just("cut"), st.integers(0, 30)),
    st.tuples(st.just("fork"), st.integers(0, 30)),
)


class Conversation:
    """One that is followed through every step, into forks."""

    def __init__(self, sessions: SessionManager, id: str) -> None:
        self.sessions = sessions
        self.id = id
        self.number = 0

    @property
    def history(self) -> History:
        return self.sessions.history(self.id)

    async def say(self, drafted: list[Message]) -> None:
        messages = [said(draft, self.number + at) for at, draft in enumerate(drafted)]
        self.number += len(messages)
        await self.history.append(*messages)

    async def summarise(self, bounds: tuple[int, int]) -> None:
        keep, more = bounds
        before = await self.history.summary()
        await self.history.load(RollingSummary(listing, keep=keep, limit=keep + more))
        after = await self.history.summary()
        if after is not None and after != before:
            await self.check_pairs(after.covers, 0 if before is None else before.covers)

    async def fail(self, bounds: tuple[int, int]) -> None:
        keep, more = bounds
        before = await self.history.load(RollingSummary())
        shown = await self.history.load(RollingSummary(failing, keep=keep, limit=keep + more))
        assert shown == before

    async def cut(self, after: int) -> None:
        session = await self.sessions.require(self.id)
        await self.sessions.truncate(session, after=after)

    async def fork(self, at: int) -> None:
        self.id = (await self.sessions.fork(self.id, at=at)).id

    async def check_pairs(self, covers: int, before: int) -> None:
        """What was just summarised has the results of its calls, and the calls of its results."""
        events = await self.sessions.events(self.id, kind="message")
        messages = [event.body for event in events]
        for index, event in enumerate(events):
            call = call_of(messages, index)
            if call is not None and (event.seq or 0) > covers:
                assert not before < (events[call].seq or 0) <= covers

    async def check(self) -> None:
        """What a view shows and its summary says, together, is what is there."""
        view = contents(await self.history.load(RollingSummary()))
        raw = await self.history.load()
        text = [line for line in view if line.startswith(HEADING)]
        at = view.index(text[0]) if text else 0
        spoken = text[0].removeprefix(HEADING).split() if text else []
        together = [*view[:at], *spoken, *view[at + 1 :]] if text else view
        everything = contents(raw)
        left = set(everything) - set(together)
        assert together == [line for line in everything if line not in left]
        for line in left:  # only results, whose call is not shown
            index = everything.index(line)
            call = call_of(raw, index)
            assert "tool_call_id" in raw[index]
            assert call is None or everything[call] in {*spoken, *left}
        if raw:
            assert together[-1] == everything[-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=12))
def test_nothing_is_lost_and_nothing_comes_back(taken: list[tuple[str, Any]]) -> None:
    async def check() -> None:
        async with SessionManager.open("memory://") as sessions:
            conversation = Conversation(sessions, (await sessions.create()).id)
            for step, argument in taken:
                await getattr(conversation, step)(argument)
                await conversation.check()

    asyncio.run(check())


@settings(deadline=None, max_examples=400)
@given(st.lists(drawn_messages, max_size=24), st.integers(1, 6), st.integers(0, 6), st.booleans())
def test_the_first_messages_tell_what_all_would(
    messages: list[Message], keep: int, more: int, by_length: bool
) -> None:
    """Of a long backlog only the beginning is read, where that is enough to tell what is due."""
    since = [Numbered(seq, "", message) for seq, message in enumerate(messages, 1)]
    strategy = RollingSummary(
        listing, keep=keep, limit=keep + more, count=length if by_length else None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summaries, "MESSAGES_AT_ONCE", 4)
        patch.setattr(windows, "PAIR_REACH", 3)
        ahead = 4 + 2 * 3
        told = Excerpt([], None, since[:ahead], whole=len(since) < ahead).due(strategy)
        due = Excerpt([], None, since, whole=True).due(strategy)
    assert told in (None, due)
    assert told is not None or len(since) >= ahead


async def test_a_backlog_is_read_as_far_as_it_takes() -> None:
    """And not to its end, for each of the many summaries that it needs."""
    async with watched("memory://") as (sessions, store):
        history = sessions.history((await sessions.create()).id)
        for _ in range(10):
            await history.append(*[user("x")] * 500)
        store.forget_calls()
        assert await history.compact(RollingSummary(listing, keep=2))
        windows_read = [arguments[-1] for verb, arguments in store.calls if verb == "events"]
        upto = summaries.AHEAD + 500
        assert max(window.after_seq or 0 for window in windows_read) < upto
        assert all(window.first or window.last for window in windows_read)
        while await history.compact(RollingSummary(listing, keep=2)):
            pass
        assert len(await history.load(RollingSummary(keep=2))) <= 1 + 4

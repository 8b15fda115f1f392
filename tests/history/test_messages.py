"""Messages: appended as they are given, read as they were stored."""

from __future__ import annotations

import asyncio
import json
from collections import UserDict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    DELETE,
    Closed,
    Conflict,
    Ended,
    Event,
    History,
    InvalidId,
    InvalidQuery,
    LeaseLost,
    NotFound,
    SessionManager,
    TooLarge,
    Unavailable,
    Unserializable,
)
from sojourn.codec import same
from sojourn.expiry import Expiry
from sojourn.history.messages import call_answered, calls_of, event_of, messages_in, numbered
from sojourn.limits import MAX_EVENTS_PER_COMMIT, MAX_VALUE
from sojourn.model import Entry
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from tests.history.conversations import Opener

# ---------------------------------------------------------------------------------- what comes back

EVERYTHING: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "name": "Zoë 🦊", "content": "à\x00b\n"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Bergen"}'},
            },
            {"id": "call_2", "type": "custom", "custom": {"name": "sum", "input": "1 2"}},
        ],
        "refusal": None,
    },
    {"role": "tool", "tool_call_id": "call_2", "content": "3"},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
    {"role": "assistant", "tool_calls": None, "content": ""},
    {"role": "critic", "content": "custom roles too", "score": -0.0, "seen": 10**30, "tags": {}},
    {"role": "user"},
]


@pytest.mark.behaviour(98)
async def test_every_message_comes_back_as_it_was_given(opened: Opener, url: str) -> None:
    """Roles, names, calls, results, parts, unknown keys: equal in type and value, after reopening.

    In memory, the store is the same one as long as somebody has it open.
    """
    async with opened() as outer:
        async with opened() as sessions:
            session = await sessions.create()
            await sessions.history(session).append(*EVERYTHING)
        async with opened() as sessions:
            loaded = await sessions.history(session.id).load()
            assert same(loaded, EVERYTHING)
            assert [list(message) for message in loaded] == [list(m) for m in EVERYTHING]
        assert outer.app == "default"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
messages = st.builds(
    lambda rest, role, content: {**rest, "role": role, "content": content},
    st.dictionaries(
        st.sampled_from(["name_", "id", "metadata", "seq", "kind", "body", "covers", "", "ü"]),
        json_values,
        max_size=3,
    ),
    st.sampled_from(["user", "system", "assistant", "critic", "Ünal"]),
    st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
)


@settings(max_examples=40, deadline=None)  # each opens a store
@given(st.lists(messages, min_size=1, max_size=6))
def test_any_message_comes_back(given_messages: list[dict[str, Any]]) -> None:
    async def check() -> None:
        async with SessionManager.open("memory://") as sessions:
            history = sessions.history((await sessions.create()).id)
            await history.append(*given_messages)
            assert same(await history.load(), given_messages)

    asyncio.run(check())


async def test_nothing_is_shared_with_the_store(opened: Opener) -> None:
    """What was given and what was returned can be changed without a trace."""
    async with opened() as sessions:
        history = sessions.history((await sessions.create()).id)
        given_message = user([{"type": "text", "text": "hi"}])
        event = await history.append(given_message)
        given_message["content"][0]["text"] = "changed"
        event.body["content"].append("changed")
        loaded = await history.load()
        loaded[0]["content"].clear()
        loaded.clear()
        assert await history.load() == [user([{"type": "text", "text": "hi"}])]


@pytest.mark.parametrize("wrap", [UserDict, MappingProxyType], ids=["UserDict", "proxy"])
async def test_any_mapping_will_do(opened: Opener, wrap: Any) -> None:
    async with opened() as sessions:
        history = sessions.history((await sessions.create()).id)
        await history.append(wrap(user("hi")))
        assert await history.load() == [user("hi")]


async def test_messages_are_events(opened: Opener) -> None:
    """Of the kind `message`, by their role, among events of other kinds; the last is returned."""
    async with opened() as sessions:
        session = await sessions.create()
        history = sessions.history(session.id)
        await sessions.append(session, Event(kind="step", body=1))
        event = await history.append(user("a"), assistant("b"))
        await sessions.append(session, Event(kind="step", body=2))
        stored = await sessions.events(session.id)
        assert [(e.seq, e.kind, e.author) for e in stored] == [
            (1, "step", None),
            (2, "message", "user"),
            (3, "message", "assistant"),
            (4, "step", None),
        ]
        assert event == stored[2]
        assert await history.load() == await history.load(last=9) == [user("a"), assistant("b")]


async def test_messages_appended_by_other_means(opened: Opener) -> None:
    """An author stands in for a role that is missing; a body that is no mapping is the content."""
    async with opened() as sessions:
        session = await sessions.create()
        await sessions.append(
            session,
            Event(kind="message", author="user", body={"text": "hi"}),
            Event(kind="message", author="bot", body="plain"),
            Event(kind="message", body=None),
            Event(kind="message", author="user", body={"role": 7, "tool_calls": [{"id": 1}, 2]}),
        )
        expected = [
            {"role": "user", "text": "hi"},
            {"role": "bot", "content": "plain"},
            {"role": "user", "content": None},
            {"role": 7, "tool_calls": [{"id": 1}, 2]},
        ]
        history = sessions.history(session.id)
        assert await history.load() == await history.load(last=4) == expected


# ------------------------------------------------------------------------------------ one commit


async def test_state_is_part_of_the_commit(opened: Opener) -> None:
    """It is the last message's delta, and it reaches the copy that the history was asked of."""
    async with opened() as sessions:
        session = await sessions.create(user="u-1", state={"draft": "x"})
        history = sessions.history(session)
        before = session.revision
        await history.append(
            user("a"), assistant("b"), state={"turn": 1, "user:seen": True, "draft": DELETE}
        )
        assert session.revision == before + 1
        assert dict(session.state) == {"turn": 1, "user:seen": True}
        assert [event.seq for event in session.events] == [1, 2]
        again = await sessions.require(session.id, events=9)
        assert dict(again.state) == dict(session.state)
        assert [event.delta for event in again.events] == [
            {},
            {"turn": 1, "user:seen": True, "draft": DELETE},
        ]


async def test_one_bad_message_stops_them_all(opened: Opener) -> None:
    async with opened() as sessions:
        session = await sessions.create(state={"turn": 0})
        history = sessions.history(session)
        with pytest.raises(Unserializable, match=r"body\.content\[0\]\.image"):
            await history.append(user("a"), user([{"image": b"png"}]), state={"turn": 1})
        with pytest.raises(InvalidQuery):
            await history.append(user("a"), {"content": "no role"}, state={"turn": 1})
        with pytest.raises(TooLarge):
            await history.append(user("a"), user("x" * MAX_VALUE))
        with pytest.raises(TooLarge):
            await history.append(*[user("a")] * (MAX_EVENTS_PER_COMMIT + 1))
        assert (await history.load(), dict(session.state)) == ([], {"turn": 0})


class Completion:
    """An object of a client library: a mapping has to be made of it first."""


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (None, "message"),
        ("hi", "message"),
        ([("role", "user")], "message"),
        (Completion(), "message"),
        ({}, "message.role"),
        ({"role": None}, "message.role"),
        ({"role": ""}, "message.role"),
        ({"role": "a\nb"}, "message.role"),
        ({"role": 7}, "message.role"),
        ({"role": "user", "content": 7}, "message.content"),
        ({"role": "user", "content": {"text": "hi"}}, "message.content"),
        ({"role": "user", "content": b"hi"}, "message.content"),
        ({"role": "user", "content": ["fine", 7]}, "message.content[1]"),
        ({"role": "user", "name": 7}, "message.name"),
        ({"role": "assistant", "tool_calls": {"id": "a"}}, "message.tool_calls"),
        ({"role": "assistant", "tool_calls": ["a"]}, "message.tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}, {}]}, "message.tool_calls[1].id"),
        ({"role": "assistant", "tool_calls": [{"id": 7}]}, "message.tool_calls[0].id"),
        ({"role": "tool", "content": "3"}, "message.tool_call_id"),
        ({"role": "tool", "tool_call_id": 7}, "message.tool_call_id"),
    ],
)
async def test_what_is_no_message(message: Any, field: str) -> None:
    async with SessionManager.open("memory://") as sessions:
        history = sessions.history((await sessions.create()).id)
        with pytest.raises(InvalidQuery) as caught:
            await history.append(message)
        assert caught.value.field == field
        assert await history.load() == []


@pytest.mark.behaviour(97)
async def test_concurrent_appends_are_all_there(opened: Opener) -> None:
    """Each in one piece and in an order of the log, however many come at once."""
    async with opened() as sessions:
        history = sessions.history((await sessions.create()).id)
        await asyncio.gather(
            *(history.append(user(f"q{n}"), assistant(f"a{n}")) for n in range(50))
        )
        said = contents(await history.load())
        assert sorted(said) == sorted([f"{who}{n}" for n in range(50) for who in "qa"])
        assert all(said[i + 1] == "a" + said[i][1:] for i in range(0, 100, 2))


@pytest.mark.behaviour(103)
async def test_a_model_that_fails_leaves_no_half_turn(opened: Opener) -> None:
    """A turn is one commit, made once the answer is there."""

    async def model(messages: list[dict[str, Any]]) -> dict[str, Any]:
        if messages[-1]["content"] == "fail":
            raise ConnectionError
        return assistant(f"{len(messages)}")

    async with opened() as sessions:
        history = sessions.history((await sessions.create()).id)

        async def turn(question: dict[str, Any]) -> None:
            answer = await model([*await history.load(last=50), question])
            await history.append(question, answer)

        await turn(user("one"))
        with pytest.raises(ConnectionError):
            await turn(user("fail"))
        assert await history.load() == [user("one"), assistant("1")]
        with pytest.raises(TypeError):
            sessions.history()  # type: ignore[call-arg]  # there is no default to share by accident


async def test_strict_and_fenced_appends(opened: Opener) -> None:
    """`conflict="fail"` and `lease=` mean what they mean for events."""
    async with opened() as sessions:
        session = await sessions.create()
        await sessions.history(session.id).append(user("by another"))
        with pytest.raises(Conflict):
            await sessions.history(session).append(user("a"), conflict="fail")
        with pytest.raises(InvalidQuery):
            await sessions.history(session.id).append(user("a"), conflict="fail")
        async with sessions.lease(session.id, renew=False) as lease:
            await sessions.history(session.id).append(user("held"), lease=lease)
        with pytest.raises(LeaseLost):
            await sessions.history(session.id).append(user("late"), lease=lease)
        assert contents(await sessions.history(session.id).load()) == ["by another", "held"]


# ------------------------------------------------------------------------- missing, apart, cleared


@pytest.mark.behaviour(96)
async def test_an_unknown_session_has_no_history(opened: Opener) -> None:
    """Reading and writing both say `NotFound`, and nothing is made."""
    async with opened() as sessions:
        history = sessions.history("nobody")
        assert isinstance(history, History)
        with pytest.raises(NotFound):
            await history.append(user("a"))
        for last in (None, 0, 5):
            with pytest.raises(NotFound):
                await history.load(last=last)
        with pytest.raises(NotFound):
            await history.summary()
        with pytest.raises(NotFound):
            await history.clear()
        assert await sessions.get("nobody") is None
        with pytest.raises(NotFound):
            await sessions.history("\n").load()
        with pytest.raises(InvalidId):
            await sessions.history("\n").append(user("a"))
        with pytest.raises(InvalidQuery):
            sessions.history(7)  # type: ignore[arg-type]  # that is the mistake
        with pytest.raises(NotFound):
            await sessions.history(sessions.new()).append(user("a"))


@pytest.mark.behaviour(96)
async def test_clearing_removes_the_log_of_that_session_only(opened: Opener) -> None:
    async with opened() as sessions:
        mine = await sessions.create(state={"kept": 1})
        other = sessions.history((await sessions.create()).id)
        await other.append(user("other"))
        history = sessions.history(mine)
        await history.append(system("s"), user("a"))
        await sessions.append(mine, Event(kind="step"))
        await history.clear()
        assert (await history.load(), mine.events) == ([], [])
        assert await sessions.events(mine.id) == []
        assert dict((await sessions.require(mine.id)).state) == {"kept": 1}
        assert await other.load() == [user("other")]
        event = await sessions.history(mine.id).append(user("b"))
        assert (event.seq, await history.load()) == (4, [user("b")])
        await sessions.history(mine.id).clear()
        assert await history.load() == []
        with pytest.raises(Conflict):
            await history.clear(conflict="fail")
        with pytest.raises(InvalidQuery):
            await sessions.history(mine.id).clear(conflict="fail")


@pytest.mark.behaviour(19)
@pytest.mark.behaviour(21)
async def test_a_deleted_session_takes_its_history_along(opened: Opener) -> None:
    """The next one with the id starts empty; an old handle neither writes nor clears it."""
    async with opened() as sessions:
        session = await sessions.create(id="s-1")
        history = sessions.history(session)
        await history.append(user("old"))
        await sessions.delete("s-1")
        with pytest.raises(NotFound):
            await history.append(user("late"))
        with pytest.raises(NotFound):
            await history.load()
        again = await sessions.create(id="s-1")
        await sessions.history(again).append(user("new"))
        for attempt in (history.append(user("late")), history.clear()):
            with pytest.raises(NotFound):
                await attempt
        assert await sessions.history("s-1").load() == [user("new")]


async def test_expired_and_ending_sessions(opened: Opener) -> None:
    """At the deadline the history is missing, but for end hooks; while ending it can be read."""
    clock = FakeClock()
    archived: list[Any] = []
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def archive(session: Any, reason: str) -> None:
            history = sessions.history(session.id)
            archived.append(await history.load(expired=True))
            archived.append(await history.load(last=1, expired=True))
            with pytest.raises(Ended):
                await history.append(user("late"))

        session = await sessions.create(expiry=Expiry(idle=60))
        await sessions.history(session).append(user("a"), assistant("b"))
        clock.advance(60)
        with pytest.raises(NotFound):
            await sessions.history(session).load()
        with pytest.raises(Ended):
            await sessions.history(session).append(user("late"))
        await sessions.end(session.id)
        assert archived == [[user("a"), assistant("b")], [assistant("b")]]


async def test_trouble_is_not_absence(url: str) -> None:
    async with watched(url) as (sessions, store):
        history = sessions.history((await sessions.create()).id)
        store.fail("events", Unavailable("db", "away"))
        with pytest.raises(Unavailable):
            await history.load()
        store.fail("commit", Unavailable("db", "away"))
        with pytest.raises(Unavailable):
            await history.append(user("a"))
        await sessions.close()
        with pytest.raises(Closed):
            await history.load()
        with pytest.raises(Closed):
            await history.append(user("a"))


async def test_an_append_that_is_cancelled_is_whole_or_not_there(url: str) -> None:
    async with watched(url) as (sessions, store):
        session = await sessions.create()
        history = sessions.history(session)
        for when, there in (("before", 0), ("after", 2)):
            gate = store.hold("commit", when)  # type: ignore[arg-type]  # a literal of the two
            task = asyncio.ensure_future(history.append(*turns(2), state={"turn": 1}))
            await gate.arrived.wait()
            task.cancel()
            gate.go()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(await history.load()) == len(session.events) == there
            assert ("turn" in session.state) is (there > 0)


# ----------------------------------------------------------------------------------- calls, results


def test_what_is_a_call_and_what_a_result() -> None:
    assert calls_of(calling("a", "b")) == {"a", "b"}
    assert calls_of({**calling("a"), "tool_call_id": "x"}) == frozenset()
    assert calls_of({"tool_calls": [{"id": 1}, "a", {}]}) == calls_of({"tool_calls": 7}) == set()
    assert call_answered(result("a")) == "a"
    assert call_answered({"tool_call_id": 7}) is call_answered(user("a")) is None


def test_a_message_is_the_body_of_its_event() -> None:
    event = event_of(calling("a"))
    assert (event.kind, event.author, event.body) == ("message", "assistant", calling("a"))
    body = json.dumps(calling("a"))
    stored = Entry(seq=3, id="e", kind="message", author="x", at=0, body=body)
    assert numbered([stored], messages_in([stored])) == [(3, "e", calling("a"))]

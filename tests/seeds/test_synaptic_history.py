"""The usage examples of a session package with a memory interface, written for this one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    LastMessages,
    NotFound,
    RollingSummary,
    SessionManager,
    TokenBudget,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


def human(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def ai(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


async def test_memory_interface(opened: Opener) -> None:
    """Append messages and load the conversation of any session."""
    async with opened() as sessions:
        session = await sessions.create()
        memory = sessions.history(session.id)
        await memory.append(human("Hello"))
        await memory.append(ai("Hi there!"))
        messages = await memory.load()
        assert len(messages) == 2
        assert messages == [human("Hello"), ai("Hi there!")]


@pytest.mark.behaviour(19)
async def test_full_example(opened: Opener) -> None:
    """Create, talk, load, list, and delete with all that belongs to it."""
    async with opened() as sessions:
        session = await sessions.create()
        memory = sessions.history(session.id)
        await memory.append(human("What is Rust?"))
        await memory.append(ai("Rust is a systems programming language."))
        assert [message["role"] for message in await memory.load()] == ["user", "assistant"]
        assert [listed.id for listed in (await sessions.list()).items] == [session.id]
        await memory.load(RollingSummary(lambda _previous, _messages: "On Rust.", keep=1, limit=1))
        await sessions.delete(session.id)
        assert await sessions.count() == 0
        with pytest.raises(NotFound):
            await memory.load()
        with pytest.raises(NotFound):  # nothing comes back by writing to it
            await memory.append(human("Still there?"))
        await sessions.create(id=session.id)
        assert (await memory.load(), await memory.summary()) == ([], None)


async def test_a_file_for_persistence(tmp_path: Any) -> None:
    """Everything works the same, and is there after a restart."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with SessionManager.open(url) as sessions:
        session = await sessions.create()
        await sessions.history(session.id).append(human("Hello"))
    async with SessionManager.open(url) as sessions:
        assert await sessions.history(session.id).load() == [human("Hello")]


@pytest.mark.behaviour(96)
@pytest.mark.behaviour(97)
async def test_sessions_are_apart_and_appends_are_not_lost(opened: Opener) -> None:
    async with opened() as sessions:
        one = sessions.history((await sessions.create()).id)
        two = sessions.history((await sessions.create()).id)
        await asyncio.gather(*(one.append(human(f"{number}")) for number in range(50)))
        await two.append(human("mine"))
        assert sorted(int(message["content"]) for message in await one.load()) == [*range(50)]
        assert await two.load() == [human("mine")]
        await one.clear()
        assert (await one.load(), await two.load()) == ([], [human("mine")])


@pytest.mark.behaviour(98)
async def test_tool_calls_survive_the_round_trip(opened: Opener) -> None:
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "tc-1",
                "type": "function",
                "function": {"name": "search", "arguments": '{"q": "rust"}'},
            }
        ],
    }
    answer = {"role": "tool", "name": "search", "tool_call_id": "tc-1", "content": "found it"}
    async with opened() as sessions:
        memory = sessions.history((await sessions.create()).id)
        await memory.append(human("look"), call, answer)
        assert await memory.load() == [human("look"), call, answer]


@pytest.mark.behaviour(99)
async def test_window_strategy(opened: Opener) -> None:
    """The last n messages, while the store keeps all of them."""
    async with opened() as sessions:
        memory = sessions.history((await sessions.create()).id)
        await memory.append(*(human(f"message {number}") for number in range(10)))
        window = await memory.load(LastMessages(3))
        assert [message["content"] for message in window] == ["message 7", "message 8", "message 9"]
        assert len(await memory.load()) == 10


@pytest.mark.behaviour(100)
async def test_token_buffer_strategy(opened: Opener) -> None:
    """The oldest go first; a newest message that is too long by itself is kept all the same."""

    def estimate(message: dict[str, Any]) -> int:
        return len(message["content"].encode()) // 4 + 1

    async with opened() as sessions:
        memory = sessions.history((await sessions.create()).id)
        await memory.append(human("short"), ai("also short"), human("x" * 400))
        assert len(await memory.load(TokenBudget(200, estimate))) == 3
        assert await memory.load(TokenBudget(50, estimate)) == [human("x" * 400)]


@pytest.mark.behaviour(101)
async def test_summary_strategy(opened: Opener) -> None:
    """Beyond twice the buffer: one summary, then the last so many, also after a restart."""

    async def model(previous: str | None, messages: list[dict[str, Any]]) -> str:
        return f"[{previous or 'start'} + {len(messages)}]"

    async with opened():
        async with opened() as sessions:
            memory = sessions.history((await sessions.create()).id)
            await memory.append(*(human(f"{number}") for number in range(5)))
            loaded = await memory.load(RollingSummary(model, keep=2))
            assert loaded[0] == {
                "role": "system",
                "content": "Summary of earlier conversation: [start + 3]",
            }
            assert loaded[1:] == [human("3"), human("4")]
        async with opened() as sessions:  # both are there: the summary, and what it is of
            memory = sessions.history(memory._id)
            assert await memory.load(RollingSummary()) == loaded
            assert len(await memory.load()) == 5
            await memory.append(human("5"), human("6"), human("7"))
            loaded = await memory.load(RollingSummary(model, keep=2))
            assert loaded[0]["content"].endswith("[[start + 3] + 3]")
            await memory.clear()
            assert await memory.load(RollingSummary(model, keep=2)) == []

"""Short words for what the tests of histories do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import SessionManager
    from sojourn.history import Message

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def calling(*ids: str) -> Message:
    """An assistant's message that calls tools, once for each id."""
    calls = [
        {"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
        for id in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(id: str, content: str = "found") -> Message:
    return {"role": "tool", "tool_call_id": id, "content": content}


def turns(count: int) -> list[Message]:
    """User and assistant in turn, told apart by a number from 1."""
    return [(assistant if number % 2 == 0 else user)(str(number)) for number in range(1, count + 1)]


def contents(messages: list[Message]) -> list[Any]:
    return [message["content"] for message in messages]

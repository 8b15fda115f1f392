"""What everybody writes: events of about 1 KB, chat messages, checkpoints of about 6 KB."""

from __future__ import annotations

from typing import Any

APP = "bench"
STATE = {"turn": 0, "title": "a conversation about nothing much", "model": "small", "open": True}
"""The state that a session begins with."""

EVENT_TEXT = 1_000
MESSAGE_TEXT = 400
CHECKPOINT_MESSAGES = 8
CHECKPOINT_TEXT = 700

METADATA = {"source": "loop", "step": 1}


def text(number: int, length: int = EVENT_TEXT) -> str:
    """Return a text of its own for each number: nobody saves by keeping one text twice."""
    return f"{number:09} ".ljust(length, "x")


def change(number: int) -> dict[str, Any]:
    """Return the state that comes with an event: a key of the session's and one of the user's."""
    return {"turn": number, "user:last": number}


def turn(number: int) -> list[dict[str, Any]]:
    """Return what one turn adds to a chat: a question and its answer."""
    return [
        {"role": "user", "content": text(2 * number, MESSAGE_TEXT)},
        {"role": "assistant", "content": text(2 * number + 1, MESSAGE_TEXT)},
    ]


def checkpoint(number: int) -> dict[str, Any]:
    """Return what an agent keeps after a step: messages, counters, versions."""
    messages = [
        {"role": "assistant", "content": text(100 * number + each, CHECKPOINT_TEXT)}
        for each in range(CHECKPOINT_MESSAGES)
    ]
    return {
        "channel_values": {"messages": messages, "step": number, "done": False},
        "channel_versions": {"messages": number + 1, "step": number + 1, "done": 1},
        "versions_seen": {"agent": {"messages": number}, "tools": {"messages": number}},
    }

"""Windows worked out the slow way, from the whole list, to compare the real ones with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from tests.history.conversations import assistant, calling, result, user

if TYPE_CHECKING:
    from collections.abc import Callable

    from sojourn.history import Message

IDS = ["a", "b", "c"]

drawn_messages = st.one_of(
    st.builds(user, st.text("xyz", max_size=3)),
    st.builds(assistant, st.text("xyz", max_size=3)),
    st.builds(lambda ids: calling(*ids), st.lists(st.sampled_from(IDS), min_size=1, unique=True)),
    st.builds(result, st.sampled_from(IDS), st.text("xyz", max_size=3)),
)
"""Messages with few call ids, so that calls are answered, unanswered, and their ids used again."""


def length(message: Message) -> int:
    """Weigh a message by its text, so that some weigh nothing."""
    return len(message["content"] or "")


def call_of(messages: list[Message], index: int) -> int | None:
    """Return where the call of a result is: the nearest before it with that id."""
    id = messages[index].get("tool_call_id")
    for earlier in range(index - 1, -1, -1):
        calls = messages[earlier].get("tool_calls") or []
        if id in [call["id"] for call in calls]:
            return earlier
    return None


def best_window(
    messages: list[Message], room: int, weigh: Callable[[Message], int]
) -> list[Message]:
    """Return the longest view that fits: what is from some message on, less parted results."""
    if not messages:
        return []
    newest = len(messages) - 1
    calls = {i: call_of(messages, i) for i, m in enumerate(messages) if "tool_call_id" in m}
    plain = [index for index in range(len(messages)) if index not in calls]

    def view(start: int) -> list[Message]:
        owners = {index: calls.get(index, index) for index in range(len(messages))}
        kept = {index for index, owner in owners.items() if owner is not None and owner >= start}
        return [message for index, message in enumerate(messages) if index in kept | {newest}]

    if newest not in calls:
        latest = newest
    elif calls[newest] is not None:
        latest = calls[newest] or 0
    elif plain:
        latest = plain[-1]
    else:
        return [messages[newest]]
    for start in [index for index in plain if index <= latest]:
        if sum(map(weigh, view(start))) <= room:
            return view(start)
    return view(latest)

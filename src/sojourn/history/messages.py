"""Chat messages: what one may look like, how it becomes an event, and how it comes out again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sojourn import codec
from sojourn.errors import InvalidQuery
from sojourn.model import Event
from sojourn.names import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sojourn.model import Entry

Message = dict[str, Any]
"""A message as it is read: a mapping with a `role`, and whatever else was stored with it."""

MESSAGE = "message"
"""The kind of the events that messages are."""

ASSISTANT = "assistant"
TOOL = "tool"

PREAMBLE_ROLES = frozenset({"system", "developer"})
"""Who speaks in the messages that a conversation starts with and that every window keeps."""


class Numbered(NamedTuple):
    """A message in its place: the `seq` and the id of its event."""

    seq: int
    id: str
    message: Message


def event_of(message: Mapping[str, Any]) -> Event:
    """Return a message as an event: its body, with its role as the author.

    Raises `InvalidQuery`, naming the part, for something that no later reader could make sense of.
    Whether the values can be stored is checked when they are.
    """
    if not isinstance(message, Mapping):
        raise InvalidQuery("message", f"give a mapping with a role, not {type(message).__name__}")
    body = dict(message)
    role = body.get("role")
    if not is_name(role):
        raise InvalidQuery("message.role", f"give a name like 'user' or 'tool', not {role!r}")
    _check_content(body.get("content"))
    _check_text(body, "name")
    _check_calls(body.get("tool_calls"))
    _check_text(body, "tool_call_id")
    if role == TOOL and body.get("tool_call_id") is None:
        raise InvalidQuery("message.tool_call_id", "a tool's message names the call it answers")
    return Event(kind=MESSAGE, author=role, body=body)


def _check_content(content: object) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise InvalidQuery(
            "message.content", f"give text, None or a list of parts, not {type(content).__name__}"
        )
    for index, part in enumerate(content):
        if not isinstance(part, str | dict):
            raise InvalidQuery(
                f"message.content[{index}]", f"give a dict or text, not {type(part).__name__}"
            )


def _check_text(body: Message, key: str) -> None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidQuery(f"message.{key}", f"give text, not {type(value).__name__}")


def _check_calls(calls: object) -> None:
    if calls is None:
        return
    if not isinstance(calls, list):
        raise InvalidQuery("message.tool_calls", f"give a list, not {type(calls).__name__}")
    for index, call in enumerate(calls):
        where = f"message.tool_calls[{index}]"
        if not isinstance(call, dict):
            raise InvalidQuery(where, f"give a dict, not {type(call).__name__}")
        if not isinstance(call.get("id"), str):
            raise InvalidQuery(f"{where}.id", "give the text by which its result will name it")


def messages_in(entries: Sequence[Entry]) -> list[Message]:
    """Return the messages of events, as the store has them. Raises `Corrupt`, naming the event.

    One that was appended by other means is completed: its author stands in for a role that is
    missing, and a body that is no mapping is its content.
    """
    bodies = codec.decode_many(
        [entry.body for entry in entries], lambda index: f"event {entries[index].seq}"
    )
    for index, body in enumerate(bodies):
        if body.__class__ is not dict:
            bodies[index] = {"role": entries[index].author or "user", "content": body}
        elif "role" not in body:
            bodies[index] = {"role": entries[index].author or "user", **body}
    return bodies


def numbered(entries: Sequence[Entry], messages: Sequence[Message]) -> list[Numbered]:
    """Return the messages of events in their places."""
    return [
        Numbered(entry.seq, entry.id, message)
        for entry, message in zip(entries, messages, strict=True)
    ]


def calls_of(message: Message) -> frozenset[str]:
    """Return the ids of the tool calls in a message."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or call_answered(message) is not None:
        return frozenset()
    ids = (call.get("id") for call in calls if isinstance(call, dict))
    return frozenset(id for id in ids if isinstance(id, str))


def call_answered(message: Message) -> str | None:
    """Return the id of the tool call whose result a message is, `None` if it is no result."""
    id = message.get("tool_call_id")
    return id if isinstance(id, str) else None


def is_preamble(message: Message) -> bool:
    """Return whether a message at the start belongs to what every window keeps."""
    role = message.get("role")
    return isinstance(role, str) and role in PREAMBLE_ROLES and not calls_of(message)


def weight(count: Callable[[Message], int] | None, message: Message) -> int:
    """Return what a message weighs: what `count` says of it, or without one, 1.

    Raises `InvalidQuery` if `count` does not return a whole number from 0.
    """
    if count is None:
        return 1
    counted = count(message)
    if type(counted) is not int or counted < 0:
        raise InvalidQuery("count", f"it has to return a whole number from 0, not {counted!r}")
    return counted

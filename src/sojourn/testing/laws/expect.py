"""The assertions that laws are made of: each says what was expected and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sojourn.codec import same

if TYPE_CHECKING:
    from collections.abc import Awaitable

E = TypeVar("E", bound=Exception)

LONGEST = 300
"""Characters of a value in a message: a report is read by people."""


class Broken(AssertionError):
    """A store broke a law; the message says how."""


def shown(value: object) -> str:
    """Return a value as text, cut in the middle when it is long."""
    text = repr(value)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def holds(condition: object, what: str) -> None:
    """Raise `Broken` unless the condition is true; `what` says what should be so."""
    if not condition:
        raise Broken(what)


def equal(actual: object, expected: object, what: str) -> None:
    """Raise `Broken` unless both are equal; `what` names the thing compared."""
    if actual != expected:
        raise Broken(f"{what}: expected {shown(expected)}, got {shown(actual)}")


def exactly(actual: object, expected: object, what: str) -> None:
    """Raise `Broken` unless two JSON values are equal in type and value, all the way down."""
    if not same(actual, expected):
        raise Broken(f"{what}: expected exactly {shown(expected)}, got {shown(actual)}")


async def refused(call: Awaitable[object], error: type[E], what: str) -> E:
    """Return the error that a call is refused with; raise `Broken` when it is another, or none."""
    try:
        result = await call
    except error as caught:
        return caught
    except Exception as other:
        raise Broken(f"{what}: expected {error.__name__}, got {shown(other)}") from other
    raise Broken(f"{what}: expected {error.__name__}, but it returned {shown(result)}")

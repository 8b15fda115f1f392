"""Arguments: what is no mapping, no list, no number is refused by the name that the caller used."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sojourn.errors import InvalidQuery

if TYPE_CHECKING:
    from sojourn.store import Durability

T = TypeVar("T")


def is_number(value: object) -> bool:
    """Return whether a value is a number; `True` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_wait(value: object) -> bool:
    """Return whether a value is a number that a clock can be moved on by; infinity is one too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max or abs(value) == math.inf


def flag(name: str, value: object) -> bool:
    """Return a value if it is `True` or `False`. Raises `InvalidQuery`."""
    if type(value) is not bool:
        raise InvalidQuery(name, f"give True or False, not {_kind_of(value)}")
    return value


def level(value: Durability | None) -> Durability | None:
    """Return what a write waits for, `None` for what the store does by itself.

    Raises `InvalidQuery` for something else: a typo must not be a weaker promise.
    """
    if value not in (None, "durable", "relaxed"):
        raise InvalidQuery("durability", f"{value!r} is neither 'durable' nor 'relaxed'")
    return value


def at_least_one(name: str, number: object, most: int | None = None) -> int:
    """Return a number if it is a whole one from 1 up to `most`. Raises `InvalidQuery`."""
    if type(number) is not int or number < 1 or (most is not None and number > most):
        upto = "" if most is None else f" to {most}"
        raise InvalidQuery(name, f"give a whole number from 1{upto}, not {number!r}")
    return number


def at_a_time(limit: object) -> int:
    """Return how many may work at a time, if that is a number that Python can count items with.

    Raises `InvalidQuery`.
    """
    return at_least_one("limit", limit, sys.maxsize)


def mapping_of(name: str, given: Mapping[str, T]) -> Mapping[str, T]:
    """Return what was given if it is a mapping. Raises `InvalidQuery`."""
    if not isinstance(given, Mapping):
        raise InvalidQuery(name, f"give a mapping, such as a dict, not {_kind_of(given)}")
    return given


def several(name: str, given: Iterable[T], what: str) -> tuple[T, ...]:
    """Return the items of a list or the like, which is to be one of `what`.

    Raises `InvalidQuery` for one that is by itself, a text too.
    """
    value: object = given
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise InvalidQuery(name, f"give a list of {what}, not {_kind_of(given)}")
    return tuple(given)


def _kind_of(given: Any) -> str:
    """Return what a value is: its contents may be private."""
    return "None" if given is None else type(given).__name__

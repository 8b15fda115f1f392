"""Tiers of state: name a key's tier, split a delta by tier, merge the tiers, rewind to an event.

A key says its tier by prefix: `app:x` and `user:x` are shared, `temp:x` lives on one working copy,
anything else is the session's own. Inside a tier the prefix is dropped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar

from sojourn.errors import InvalidId, TooLarge
from sojourn.limits import MAX_STATE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sojourn.model import Encoded

Tier = Literal["session", "user", "app", "temp"]
Value = TypeVar("Value")

_PREFIXED = ("app:", "user:", "temp:")
"""The prefix of each tier but the session's own, which has none."""

_PREFIX_OF: dict[Tier, str] = {"session": "", "user": "user:", "app": "app:", "temp": "temp:"}


KEYS_REMEMBERED = 1_024
"""Keys whose tier is remembered: a program uses the same few all the time."""


@lru_cache(maxsize=KEYS_REMEMBERED)
def tier_of(key: str) -> tuple[Tier, str]:
    """Return the tier of a state key and its name inside that tier."""
    if key.startswith(_PREFIXED):
        tier, _, name = key.partition(":")
        return tier, name  # type: ignore[return-value]  # a prefix is its tier's name and a colon
    return "session", key


@lru_cache(maxsize=KEYS_REMEMBERED, typed=True)
def place(key: object) -> tuple[Tier, str]:
    """Return the tier and name of what should be a state key. Raises as `check_key` does."""
    return tier_of(check_key(key))


def key_of(tier: Tier, name: str) -> str:
    """Return the key of `name` in `tier`: the inverse of `tier_of`."""
    return _PREFIX_OF[tier] + name


def check_key(key: object) -> str:
    """Return `key` if it can be a state key.

    Raises `InvalidId` for something that is not a string, is empty, has nothing after its prefix,
    or cannot be written as UTF-8; `TooLarge` when it is over `MAX_STATE_KEY` characters.
    """
    if type(key) is str and key.isascii() and 0 < len(key) <= MAX_STATE_KEY and key[-1] != ":":
        return key
    if type(key) is not str:
        raise InvalidId("state key", f"a key is a string, not {type(key).__name__}")
    if not tier_of(key)[1]:
        raise InvalidId("state key", f"{key!r} has no name" + (" after its prefix" if key else ""))
    if len(key) > MAX_STATE_KEY:
        raise TooLarge("characters in a state key", len(key), MAX_STATE_KEY)
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InvalidId("state key", f"{key!r} holds a lone surrogate") from None
    return key


def split(delta: Mapping[str, Value]) -> dict[Tier, dict[str, Value]]:
    """Split a delta by tier. Tiers that it does not touch are left out."""
    tiers: dict[Tier, dict[str, Value]] = {}
    for key, value in delta.items():
        tier, name = tier_of(key)
        tiers.setdefault(tier, {})[name] = value
    return tiers


def merge(
    session: Mapping[str, Value], user: Mapping[str, Value], app: Mapping[str, Value]
) -> dict[str, Value]:
    """Return the tiers as one mapping with prefixed keys."""
    merged = dict(session)
    for name, value in user.items():
        merged[f"user:{name}"] = value
    for name, value in app.items():
        merged[f"app:{name}"] = value
    return merged


def rewind(
    state: Encoded, deltas: Iterable[tuple[int, Encoded, Iterable[str]]], at: int
) -> Encoded:
    """Return the session's own state as the log's deltas had left it at event `at`.

    `deltas` are (seq, keys set, keys removed) in ascending order. Every key whose last delta lies
    after `at` is set back to its last delta at or before it, or removed. Other keys stay as they
    are now. Only the session's tier is rewound: the others are shared.
    """
    before: Encoded = {}
    touched: set[str] = set()
    for seq, changed, removed in deltas:
        if seq > at:
            touched.update(changed, removed)
            continue
        before.update(changed)
        for key in removed:
            before.pop(key, None)
    rewound = {key: value for key, value in state.items() if key not in touched}
    for key in touched:
        if key in before and tier_of(key)[0] == "session":
            rewound[key] = before[key]
    return rewound

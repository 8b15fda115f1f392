"""The one validator of names: ids, users, apps, labels, collections, document keys."""

from __future__ import annotations

from functools import lru_cache

from sojourn.errors import InvalidId
from sojourn.limits import MAX_NAME

NAMES_REMEMBERED = 1_024
"""Names whose check is remembered: a program uses the same few kinds and authors all the time."""


def is_name(value: object) -> bool:
    """Return whether `value` can be a name: 1 to 255 printable characters, not only spaces."""
    return type(value) is str and len(value) <= MAX_NAME and _is_printable(value)


@lru_cache(maxsize=NAMES_REMEMBERED)
def _is_printable(value: str) -> bool:
    return value.isprintable() and value != "" and not value.isspace()


def check_name(what: str, value: object) -> str:
    """Return `value` if it can be a name. Raises `InvalidId`, saying what is wrong with it."""
    if type(value) is str and len(value) <= MAX_NAME and _is_printable(value):
        return value
    if type(value) is not str:
        raise InvalidId(what, f"give a string, not {type(value).__name__}")
    if not value or value.isspace():
        raise InvalidId(what, "it is empty" if not value else "it is only spaces")
    if len(value) > MAX_NAME:
        raise InvalidId(what, f"it has {len(value)} characters, the limit is {MAX_NAME}")
    bad = next(char for char in value if not char.isprintable())
    raise InvalidId(what, f"it holds {bad!r}, which is not a printable character")


def check_word(what: str, value: object) -> str:
    """Return what `check_name` does, for names of which a program has few: it is remembered."""
    try:
        return _checked(what, value)
    except TypeError:  # it can not be remembered, so it is no string
        return check_name(what, value)


_checked = lru_cache(maxsize=NAMES_REMEMBERED, typed=True)(check_name)

"""The one validator of names: ids, users, apps, labels, collections, document keys."""

from __future__ import annotations

from sojourn.errors import InvalidId
from sojourn.limits import MAX_NAME


def is_name(value: object) -> bool:
    """Return whether `value` can be a name: 1 to 255 printable characters, not only spaces."""
    return (
        type(value) is str
        and 0 < len(value) <= MAX_NAME
        and value.isprintable()
        and not value.isspace()
    )


def check_name(what: str, value: object) -> str:
    """Return `value` if it can be a name. Raises `InvalidId`, saying what is wrong with it."""
    if type(value) is str and is_name(value):
        return value
    if type(value) is not str:
        raise InvalidId(what, f"give a string, not {type(value).__name__}")
    if not value or value.isspace():
        raise InvalidId(what, "it is empty" if not value else "it is only spaces")
    if len(value) > MAX_NAME:
        raise InvalidId(what, f"it has {len(value)} characters, the limit is {MAX_NAME}")
    bad = next(char for char in value if not char.isprintable())
    raise InvalidId(what, f"it holds {bad!r}, which is not a printable character")

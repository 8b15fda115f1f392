"""Lines that prove themselves: a JSON object that begins with its number and ends with a checksum.

The checksum is of all bytes before it, so a line is checked before anything in it is believed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

import msgspec

from sojourn.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = 16
"""Hex digits of a checksum: against accidents, not against forgers, who can compute it too."""

_SUM = b',"sum":"'
_END = b'"}\n'
_encode = msgspec.json.Encoder().encode

T = TypeVar("T")


def sealed(record: msgspec.Struct, number: int) -> bytes:
    """Return a record as the line with this number."""
    text = _beginning(number) + _encode(record)[1:-1]
    return text + _SUM + _digest(text) + _END


def opened(line: bytes, number: int, decode: Callable[[bytes], T], name: str) -> T:
    """Return the record in a line. Raises `Corrupt` if it is not the line that was written there.

    `decode` makes a record of a JSON text, or raises `msgspec.MsgspecError`. `name` is the file's.
    """
    if not line.endswith(b"\n"):
        raise broken(name, number, "the file ends in the middle of it")
    text, found, rest = line.rpartition(_SUM)
    if not found or rest != _digest(text) + _END:
        raise broken(name, number, "it is not as it was written: its checksum is another")
    beginning = _beginning(number)
    if not text.startswith(beginning):
        raise broken(
            name, number, "it has another number: lines are missing, doubled or out of order"
        )
    try:
        return decode(b"{" + text[len(beginning) :] + b"}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise broken(name, number, str(error)) from error


def broken(name: str, number: int, reason: str) -> Corrupt:
    """Return the error that names a line of a file."""
    return Corrupt(f"{name}, line {number},", reason)


def _beginning(number: int) -> bytes:
    return b'{"line":%d,' % number


def _digest(text: bytes) -> bytes:
    return sha256(text).hexdigest()[:DIGITS].encode()

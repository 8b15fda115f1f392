"""Values to JSON text and back, exactly: what comes back is equal in type and value.

The encoder underneath is lenient (it would write NaN as null, bytes as base64, tuples as lists and
integer keys as strings), so every value is checked first, in one cheap walk. Decoding builds plain
JSON types only: nothing stored can name a type or run code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import Corrupt, TooLarge, Unserializable
from sojourn.limits import MAX_DEPTH, MAX_VALUE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sojourn.model import Encoded

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_names_decoder = msgspec.json.Decoder(list[str])

_SCALARS = frozenset({str, int, bool, type(None)})

_READABLE_DIGITS = 4_299
"""Digits that an integer can have, with any sign, to be read back by every decoder."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, TypeError)
"""What the decoders raise: `TypeError` where damage left something that is not even a text."""

parsed = _decoder.decode
"""Return the value of a JSON text, as `decode` does. Raises one of `UNREADABLE` for what is none:
for who says more of it than `decode` would, and takes values by the thousand."""

_ALL_DIGITS_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_DIGITS = b"0" * (_READABLE_DIGITS + 1)


def is_scalar(value: object) -> bool:
    """Return whether `value` is a JSON value without parts, which nobody can change."""
    kind = type(value)
    return kind in _SCALARS or kind is float


def encode(value: object, path: str, name: str | None = None) -> bytes:
    """Return the JSON text of `value`, which errors call `path`, or `name` in `path`.

    Raises `Unserializable`, naming the path, for anything that is not exactly `None`, `bool`,
    `int`, `float` (finite), `str`, `list` or `dict` with string keys, at most `MAX_DEPTH` deep;
    `TooLarge` when the text is over `MAX_VALUE` bytes.
    """
    kind = type(value)
    if kind not in _SCALARS and not (kind is dict and _is_plain(value)):  # type: ignore[arg-type]  # narrowed by `kind`
        _check(value, _joined(path, name), 0)
    return _encode_checked(value, path, name)


def _encode_checked(value: object, path: str, name: str | None = None) -> bytes:
    """Return the JSON text of a value that has been checked. Raises what `encode` does."""
    try:
        text = _encoder.encode(value)
    except UnicodeEncodeError:
        _find_bad_scalar(value, _joined(path, name))
        raise
    except ValueError as error:
        path = _joined(path, name)
        _find_huge_integer(value, path)
        raise Unserializable(path, str(error)) from error
    if len(text) <= _READABLE_DIGITS:
        return text
    path = _joined(path, name)
    if _DIGITS in text.translate(_ALL_DIGITS_ZERO):
        _find_huge_integer(value, path)
    if len(text) > MAX_VALUE:
        raise TooLarge(f"bytes of JSON in {path}", len(text), MAX_VALUE)
    return text


def encode_apart(value: Any, path: str) -> tuple[str, Any]:
    """Return the JSON text of `value`, and the value itself for somebody else.

    It shares nothing that can be changed with the one given. Raises what `encode` does.
    """
    if type(value) is dict and _is_plain(value):
        return _encode_checked(value, path).decode(), value.copy()
    text = encode(value, path).decode()
    return text, value if is_scalar(value) else decode(text, path)


def encode_plain(parts: Mapping[str, object]) -> bytes | None:
    """Return the JSON object of `parts` if they are few, plain and short, else `None`.

    Then `encode` gives the text of each, or says what is wrong: this is the same in a single call.
    """
    if type(parts) is not dict or not _is_plain(parts):
        return None
    try:
        text = _encoder.encode(parts)
    except ValueError:
        return None
    return text if len(text) <= _READABLE_DIGITS else None


def _joined(path: str, name: str | None) -> str:
    """Return a path, made only when it is needed: most values are plain texts and numbers."""
    return path if name is None else f"{path}.{name}"


def _check(value: object, path: str, depth: int) -> None:
    """Walk a value and raise `Unserializable` at the first part that is not a JSON value."""
    kind = type(value)
    if kind is dict:
        _check_depth(path, depth)
        for key, part in value.items():  # type: ignore[attr-defined] # narrowed by `kind`
            if type(key) is not str:
                reason = f"keys are strings, not {type(key).__name__}"
                raise Unserializable(f"{path}[{key!r}]", reason)
            if type(part) not in _SCALARS:
                _check(part, f"{path}.{key}", depth + 1)
    elif kind is list:
        _check_depth(path, depth)
        for index, part in enumerate(value):  # type: ignore[arg-type] # narrowed by `kind`
            if type(part) not in _SCALARS:
                _check(part, f"{path}[{index}]", depth + 1)
    elif kind is not float:
        raise Unserializable(path, f"{kind.__module__}.{kind.__qualname__} is not a JSON value")
    elif not math.isfinite(value):  # type: ignore[arg-type] # narrowed by `kind`
        raise Unserializable(path, f"{value!r} is not a JSON number")


def _is_plain(value: dict[Any, object]) -> bool:
    """Return whether a dict has names, and values without parts: as most have."""
    for name, part in value.items():
        if type(name) is not str or type(part) not in _SCALARS:
            return False
    return True


def _check_depth(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise Unserializable(path, f"nested more than {MAX_DEPTH} deep, or inside itself")


def _find_bad_scalar(value: object, path: str) -> None:
    """Raise `Unserializable` for the first text (value or key) that is not valid Unicode."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unserializable(path, "the text holds a lone surrogate") from None
    elif isinstance(value, dict):
        for key, part in value.items():
            _find_bad_scalar(key, f"{path}[{key!r}]")
            _find_bad_scalar(part, f"{path}.{key}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _find_bad_scalar(part, f"{path}[{index}]")


def _find_huge_integer(value: object, path: str) -> None:
    """Raise `Unserializable` for the first integer that could not be written out or read back."""
    if type(value) is int:
        try:
            _decoder.decode(_encoder.encode(value))
        except ValueError:
            raise Unserializable(path, "the integer has too many digits") from None
    elif isinstance(value, dict):
        for key, part in value.items():
            _find_huge_integer(part, f"{path}.{key}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _find_huge_integer(part, f"{path}[{index}]")


def decode(text: bytes | str | msgspec.Raw, key: str) -> Any:
    """Return the value of a JSON text. Raises `Corrupt`, naming `key`, when it is not one."""
    try:
        return _decoder.decode(text)
    except UNREADABLE as error:
        raise Corrupt(key, str(error)) from error


def is_text_of(value: Any, text: msgspec.Raw) -> bool:
    """Return whether a text is the one that a value would be stored as; `False` when in doubt."""
    try:
        return msgspec.Raw(_encoder.encode(value)) == text  # which copies nothing
    except (TypeError, ValueError, RecursionError):
        return False


def decode_many(texts: Sequence[str], keys: Callable[[int], str]) -> list[Any]:
    """Return the values of JSON texts. Raises `Corrupt`, naming `keys(index)` of the first bad."""
    try:
        return list(map(_decoder.decode, texts))
    except UNREADABLE:
        return [decode(text, keys(index)) for index, text in enumerate(texts)]


def encode_object(parts: Encoded) -> bytes:
    """Return a JSON object of values that are encoded already."""
    return _encoder.encode(parts)


def decode_object(text: bytes | str, key: str) -> Encoded:
    """Return a JSON object with its values left encoded. Raises `Corrupt`, naming `key`."""
    try:
        if isinstance(text, bytes):
            text = text.decode()  # what stays encoded is checked here, not when it is looked at
        return _object_decoder.decode(text)
    except UNREADABLE as error:
        raise Corrupt(key, str(error)) from error


def encode_names(names: list[str]) -> bytes:
    """Return a JSON list of strings."""
    return _encoder.encode(names)


def decode_names(text: bytes | str, key: str) -> list[str]:
    """Return a JSON list of strings. Raises `Corrupt`, naming `key`."""
    try:
        return _names_decoder.decode(text)
    except UNREADABLE as error:
        raise Corrupt(key, str(error)) from error


def same(left: object, right: object) -> bool:
    """Return whether two JSON values are equal in type and value (`1`, `1.0`, `True` differ)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right

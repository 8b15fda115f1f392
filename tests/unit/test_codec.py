"""The codec: every JSON value comes back exactly, everything else is refused by its path."""

from __future__ import annotations

import enum
import json
import math
import sys
from collections import OrderedDict, UserDict, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import Corrupt, TooLarge, Unserializable
from sojourn.codec import (
    decode,
    decode_names,
    decode_object,
    encode,
    encode_names,
    encode_object,
    same,
)
from sojourn.limits import MAX_DEPTH, MAX_VALUE

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20
)

EXACT: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64 - 1,
    2**64,
    10**30,
    -(10**30),
    10**1000,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1e16,
    1e22,
    1e300,
    5e-324,
    1.7976931348623157e308,
    2.0**53 + 2,
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1f\x7f",
    "\u2028\u2029",
    '"\\/',
    "\u00e9",
    "e\u0301",
    "\ufeff",
    "\uffff",
    "\U0001f600",
    "null",
    [],
    {},
    [[]],
    [{}],
    {"": {}},
    {"": None},
    {"\x00": "\x00"},
    [None, True, 1, 1.0, "1"],
    {"a": [1, {"b": [None, -0.0]}], "b": {}, "c": []},
    {"b": 1, "a": 2},
]


def identical(left: object, right: object) -> bool:
    """Tell whether two values are the same in type and value, by means of their own."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(identical(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(identical, left, right))
    return repr(left) == repr(right)


@pytest.mark.behaviour(44)
@pytest.mark.parametrize("value", EXACT, ids=lambda value: ascii(value)[:30])
def test_every_json_value_comes_back_exactly(value: Any) -> None:
    """Equal in type and value, and in the order of its keys."""
    assert identical(decode(encode(value, "v"), "v"), value)


@pytest.mark.behaviour(44)
@given(VALUES)
def test_any_json_value_comes_back_exactly(value: Any) -> None:
    """The same for values that nobody thought of."""
    assert identical(decode(encode(value, "v"), "v"), value)


@given(VALUES)
def test_the_text_is_json(value: Any) -> None:
    """Any other JSON reader sees the same value."""
    assert identical(json.loads(encode(value, "v")), value)


@pytest.mark.behaviour(40)
@given(VALUES.filter(lambda value: isinstance(value, list | dict)))
def test_what_comes_back_is_a_copy(value: Any) -> None:
    """Decoding twice gives two values, neither of them the one that was encoded."""
    text = encode(value, "v")
    first, second = decode(text, "v"), decode(text, "v")
    assert first is not value
    assert first is not second


class Text(str):
    """A string that is not exactly a string."""

    __slots__ = ()


class Number(int):
    """An integer that is not exactly one."""


class Real(float):
    """A float that is not exactly one."""


class Items(list[Any]):
    """A list that is not exactly one."""


class Colour(enum.StrEnum):
    """A string by inheritance."""

    RED = "red"


class Size(enum.IntEnum):
    """A number by inheritance."""

    SMALL = 1


class Pair(NamedTuple):
    """A tuple by inheritance."""

    left: int
    right: int


class Record(msgspec.Struct):
    """Something that the encoder underneath would write gladly."""

    field: int = 1


REFUSED: list[Any] = [
    (),
    (1, 2),
    b"bytes",
    bytearray(b"bytes"),
    memoryview(b"bytes"),
    math.nan,
    math.inf,
    -math.inf,
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=UTC).date(),
    {1, 2},
    frozenset({1}),
    1j,
    Decimal(1),
    UUID(int=1),
    Text("x"),
    Number(1),
    Real(1.0),
    Items([1]),
    Colour.RED,
    Size.SMALL,
    Pair(1, 2),
    Record(),
    OrderedDict(a=1),
    defaultdict(int, a=1),
    UserDict(a=1),
    range(3),
    object(),
    int,
    len,
    msgspec.Raw(b"1"),
    msgspec.UNSET,
    ...,
]


@pytest.mark.behaviour(44)
@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_anything_else_is_refused_by_path(value: Any) -> None:
    """What the encoder underneath would bend into JSON is refused wherever it sits, and named."""
    for wrapped, path in (
        (value, "state.k"),
        ([0, value], "state.k[1]"),
        ({"a": value}, "state.k.a"),
        ({"a": [{}, {"b": [value]}]}, "state.k.a[1].b[0]"),
    ):
        with pytest.raises(Unserializable) as caught:
            encode(wrapped, "state.k")
        assert caught.value.path == path
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("value", [Text("x"), (1,), b"x", Pair(1, 2), datetime.now(UTC)])
def test_the_refusal_names_the_type(value: Any) -> None:
    """Module and qualified name of the type are in the reason."""
    with pytest.raises(Unserializable) as caught:
        encode(value, "v")
    kind = type(value)
    assert f"{kind.__module__}.{kind.__qualname__}" in caught.value.reason


@pytest.mark.parametrize(
    "key", [1, 1.0, True, None, b"k", (1,), Text("k"), Colour.RED], ids=lambda k: type(k).__name__
)
def test_keys_are_exactly_strings(key: Any) -> None:
    """Any other key is refused, naming the mapping, the key and its type."""
    with pytest.raises(Unserializable) as caught:
        encode({"a": {key: 1}}, "v")
    assert caught.value.path == f"v.a[{key!r}]"
    assert type(key).__name__ in caught.value.reason


def test_a_boolean_is_not_a_number() -> None:
    """`True` comes back as `True` and 1 as 1, in one list."""
    back = decode(encode([True, 1, False, 0], "v"), "v")
    assert [type(item) for item in back] == [bool, int, bool, int]


def nested(depth: int, kind: type) -> Any:
    """Return so many lists or dicts inside each other."""
    value: Any = kind()
    for _ in range(depth - 1):
        value = [value] if kind is list else {"k": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_a_hundred_levels_fit_and_one_more_does_not(kind: type) -> None:
    """`MAX_DEPTH` containers inside each other come back; one more is refused."""
    deepest = nested(MAX_DEPTH, kind)
    assert decode(encode(deepest, "v"), "v") == deepest
    with pytest.raises(Unserializable, match=f"nested more than {MAX_DEPTH} deep") as caught:
        encode(nested(MAX_DEPTH + 1, kind), "v")
    step = "[0]" if kind is list else ".k"
    assert caught.value.path == "v" + step * MAX_DEPTH


def test_a_scalar_below_the_deepest_level_fits() -> None:
    """Depth counts containers: what the innermost one holds is no level of its own."""
    deepest: Any = [1]
    for _ in range(MAX_DEPTH - 1):
        deepest = [deepest]
    assert encode(deepest, "v")


def test_a_value_inside_itself_is_refused() -> None:
    """A list or dict that contains itself ends at the depth limit, not in the interpreter's."""
    items: list[Any] = []
    items.append(items)
    mapping: dict[str, Any] = {}
    mapping["self"] = mapping
    ring: dict[str, Any] = {"list": []}
    ring["list"].append(ring)
    for value in (items, mapping, ring):
        with pytest.raises(Unserializable, match="inside itself"):
            encode(value, "v")


def test_the_same_value_twice_is_not_inside_itself() -> None:
    """A part may appear in many places; each becomes its own."""
    part = [1]
    back = decode(encode([part, part], "v"), "v")
    assert back == [[1], [1]]
    assert back[0] is not back[1]


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_lone_surrogates_are_refused_by_path(text: str) -> None:
    """Text that is not Unicode is found, in values and in keys."""
    for value, path in (
        (text, "v"),
        (["fine", text], "v[1]"),
        ({"a": {"b": text}}, "v.a.b"),
        ({"a": {text: 1}}, f"v.a[{text!r}]"),
    ):
        with pytest.raises(Unserializable) as caught:
            encode(value, "v")
        assert caught.value.path == path
        assert "surrogate" in caught.value.reason


def test_a_pair_of_surrogates_made_of_two_characters_is_refused() -> None:
    """Two lone surrogates in a row are still not a character."""
    with pytest.raises(Unserializable):
        encode("\ud83d" + "\ude00", "v")


@pytest.mark.parametrize("digits", [20, 400, 4_299])
def test_huge_integers_come_back(digits: int) -> None:
    """Integers come back exactly up to thousands of digits, of either sign."""
    value = 10**digits - 1
    for number in (value, -value):
        assert decode(encode(number, "v"), "v") == number


@pytest.mark.parametrize("value", [1 - 10**4_300, 10**5_000, -(10**5_000)], ids=["4300", "+", "-"])
def test_an_integer_that_could_not_be_read_back_is_refused(value: int) -> None:
    """It is `Unserializable` by its path when it is written, not `Corrupt` when it is read."""
    with pytest.raises(Unserializable, match="too many digits") as caught:
        encode({"fine": 1, "n": [0, value]}, "v")
    assert caught.value.path == "v.n[1]"
    with pytest.raises(Unserializable):
        encode(value, "v")


def test_more_digits_than_the_interpreter_likes_are_refused_too() -> None:
    """An application that lifts Python's own limit on digits does not write what nobody reads."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(Unserializable, match="too many digits"):
            encode([10**5_000], "v")
    finally:
        sys.set_int_max_str_digits(limit)


def test_digits_in_text_are_no_integer() -> None:
    """A long run of digits inside a string is just text."""
    text = "9" * 10_000
    assert decode(encode({"t": text, "n": 1}, "v"), "v") == {"t": text, "n": 1}


def test_a_value_has_a_largest_size() -> None:
    """`MAX_VALUE` bytes of JSON fit exactly; one more is `TooLarge` with both numbers."""
    quotes = 2
    assert len(encode("x" * (MAX_VALUE - quotes), "v")) == MAX_VALUE
    with pytest.raises(TooLarge) as caught:
        encode("x" * (MAX_VALUE - quotes + 1), "state.big")
    assert (caught.value.size, caught.value.limit) == (MAX_VALUE + 1, MAX_VALUE)
    assert "state.big" in caught.value.what


def test_size_counts_bytes_of_the_text() -> None:
    """Two bytes a character make half as many characters fit."""
    with pytest.raises(TooLarge):
        encode("\u00e9" * (MAX_VALUE // 2), "v")


@pytest.mark.behaviour(27)
@pytest.mark.parametrize(
    "text", [b"", b"{", b"nul", b"NaN", b"[1,]", b"'a'", b"\xff", b'"\xff"', b"1 2", "{'a': 1}"]
)
def test_what_is_not_json_is_corrupt(text: bytes | str) -> None:
    """Stored text that cannot be read back is `Corrupt`, naming the record."""
    with pytest.raises(Corrupt) as caught:
        decode(text, "session 's'")
    assert caught.value.key == "session 's'"
    assert caught.value.reason


def test_an_object_keeps_its_values_encoded() -> None:
    """`decode_object` and `encode_object` undo each other and never look inside the values."""
    text = b'{"a":[1,2.0],"b":null,"c":{"d":""}}'
    parts = decode_object(text, "k")
    assert {key: bytes(value) for key, value in parts.items()} == {
        "a": b"[1,2.0]",
        "b": b"null",
        "c": b'{"d":""}',
    }
    assert encode_object(parts) == text


@pytest.mark.behaviour(27)
@pytest.mark.parametrize("text", ["", "[]", "null", "1", '"x"', '{"a"', '{"a":}', b"\xff\xfe"])
def test_an_object_that_is_none_is_corrupt(text: bytes | str) -> None:
    """Anything but a whole JSON object is `Corrupt`."""
    with pytest.raises(Corrupt):
        decode_object(text, "k")


def test_names_come_back() -> None:
    """A list of any keys survives."""
    names = ["a", "", "\x00", "\U0001f600", "a"]
    assert decode_names(encode_names(names), "k") == names


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[null]", '"a"', '["a"', b"\xff"])
def test_names_that_are_none_are_corrupt(text: bytes | str) -> None:
    """Anything but a list of strings is `Corrupt`."""
    with pytest.raises(Corrupt):
        decode_names(text, "k")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (0.0, -0.0),
        (None, False),
        ("1", 1),
        ([1], [1.0]),
        ([1, 2], [1]),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": [0.0]}, {"a": [-0.0]}),
        ([], {}),
    ],
)
def test_different_in_type_or_sign_is_not_the_same(left: object, right: object) -> None:
    """What Python calls equal is told apart when JSON would show a difference."""
    assert not same(left, right)
    assert not same(right, left)


@given(VALUES)
def test_a_value_is_the_same_as_its_copy(value: Any) -> None:
    """`same` holds for everything that went through the codec."""
    assert same(value, decode(encode(value, "v"), "v"))


def test_the_order_of_keys_is_no_difference() -> None:
    """A mapping is the same mapping in another order; a list is not the same list."""
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same([1, 2], [2, 1])

"""Names: the one validator of ids, users, apps, labels, collections and document keys."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import InvalidId
from sojourn.limits import MAX_NAME
from sojourn.names import check_name, is_name


class Text(str):
    """A string that is not exactly a string."""

    __slots__ = ()


GOOD = [
    "a",
    "0",
    "a b",
    " a",
    "a ",
    "a/b",
    "a:b",
    "a|b",
    "a.b",
    "..",
    "/",
    "'",
    '"',
    "%",
    "\\",
    "*",
    "{a}",
    "a;--",
    "\u00e9",
    "\u540d\u524d",
    "\U0001f600",
    "x" * MAX_NAME,
    "\U0001f600" * MAX_NAME,
]
BAD = [
    ("", "it is empty"),
    (" ", "it is only spaces"),
    ("   ", "it is only spaces"),
    ("\u3000", "it is only spaces"),
    ("\n", "it is only spaces"),
    ("x" * (MAX_NAME + 1), f"it has {MAX_NAME + 1} characters, the limit is {MAX_NAME}"),
    ("a\x00", "it holds '\\x00', which is not a printable character"),
    ("a\nb", "it holds '\\n', which is not a printable character"),
    ("a\tb", "it holds '\\t', which is not a printable character"),
    ("a\x7f", "it holds '\\x7f', which is not a printable character"),
    ("a\x85b", "it holds '\\x85', which is not a printable character"),
    ("a\xa0b", "it holds '\\xa0', which is not a printable character"),
    ("a\u200bb", "it holds '\\u200b', which is not a printable character"),
    ("a\u2028b", "it holds '\\u2028', which is not a printable character"),
    ("\ufeffa", "it holds '\\ufeff', which is not a printable character"),
    ("a\u202eb", "it holds '\\u202e', which is not a printable character"),
    ("a\ud800", "it holds '\\ud800', which is not a printable character"),
    (None, "give a string, not NoneType"),
    (1, "give a string, not int"),
    (True, "give a string, not bool"),
    (b"a", "give a string, not bytes"),
    (["a"], "give a string, not list"),
    (Text("a"), "give a string, not Text"),
]


@pytest.mark.behaviour(9)
@pytest.mark.parametrize("name", GOOD, ids=ascii)
def test_printable_text_is_a_name_as_it_is(name: str) -> None:
    """1 to 255 printable characters, separators and quotes too; nothing is trimmed or folded."""
    assert is_name(name)
    assert check_name("session id", name) is name


@pytest.mark.behaviour(2)
@pytest.mark.behaviour(10)
@pytest.mark.parametrize(("value", "reason"), BAD, ids=lambda value: ascii(value)[:24])
def test_anything_else_is_refused_with_the_reason(value: object, reason: str) -> None:
    """The error names what was wrong with which argument."""
    assert not is_name(value)
    with pytest.raises(InvalidId) as caught:
        check_name("user", value)
    assert (caught.value.what, caught.value.reason) == ("user", reason)
    assert str(caught.value) == f"invalid user: {reason}"


@given(st.text(st.characters(max_codepoint=sys.maxunicode), max_size=300))
def test_both_functions_agree(text: str) -> None:
    """`is_name` says exactly what `check_name` refuses."""
    try:
        check_name("x", text)
    except InvalidId:
        assert not is_name(text)
    else:
        assert is_name(text)


@given(st.text(min_size=1, max_size=20))
def test_a_name_holds_no_control_character(text: str) -> None:
    """Whatever passes can be written as UTF-8, and has no control or format character in it."""
    if is_name(text):
        assert text.encode()
        assert not {unicodedata.category(char) for char in text} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    else:
        assert not text.isprintable() or text.isspace()

"""What reaches a terminal is printable, fits, and in JSON reads back the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from sojourn.cli.columns import GAP, Column, Layout, fitted
from sojourn.cli.escaping import elided, json_text, printable

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SHOWN = TEXT.filter(str.isprintable)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(TEXT)
def test_shown_text_is_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"),
        ("\U000e0001", r"\U000e0001"),
        ("多 é", "多 é"),
    ],
)
def test_what_an_escape_looks_like(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(JSON)
def test_json_is_printable_and_reads_back(value: object) -> None:
    text = json_text(value)
    assert text.isprintable()
    assert json.loads(text) == value
    assert json.loads(json_text(value, indent=2)) == value
    plain = json_text(value, plain=True)
    assert plain.isascii()
    assert plain.isprintable()
    assert json.loads(plain) == value


@given(SHOWN, st.integers(0, 40), st.booleans())
def test_what_is_cut_fits(text: str, width: int, middle: bool) -> None:
    cut = elided(text, width, middle=middle)
    assert cell_len(cut) <= width
    assert cut == text or cell_len(text) > width


def test_both_ends_stay() -> None:
    assert elided("0123456789", 5, middle=True) == "01…89"
    assert elided("0123456789", 5) == "0123…"
    assert elided("0123456789", 2, mark="...") == ".."


COLUMNS = st.lists(
    st.builds(
        Column,
        title=st.just("TITLE"),
        least=st.integers(1, 40),
        spare=st.integers(0, 5),
        middle=st.booleans(),
        right=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50)
@given(COLUMNS, st.integers(20, 200), st.data())
def test_a_table_fits_its_room(columns: list[Column], room: int, data: st.DataObject) -> None:
    row = [data.draw(SHOWN) for _ in columns]
    layout = Layout(columns, [row], room, "…")
    assert layout.row(row).cell_len <= room
    assert layout.head().cell_len <= room
    unbounded = Layout(columns, [row], None, "…").row(row).plain
    assert all(cell in unbounded for cell in row)


def test_a_column_that_can_be_spared_goes_before_others_get_useless() -> None:
    columns = [
        Column("A", least=30),
        Column("B", least=10, spare=1),
        Column("C", least=10, spare=2),
    ]
    assert fitted(columns, [40, 20, 20], 84) == [40, 20, 20]
    assert fitted(columns, [40, 20, 20], 60) == [30, 13, 13]
    assert fitted(columns, [40, 20, 20], 50) == [30, 20 - GAP, 0]
    assert fitted(columns, [40, 20, 20], 35) == [35, 0, 0]
    assert fitted(columns, [40, 20, 20], 3) == [3, 0, 0]
    assert fitted([Column("A", least=9), Column("B", least=9)], [20, 20], 3) == [1, 1]


def test_one_very_long_value_costs_no_time() -> None:
    assert fitted([Column("A"), Column("B")], [10**12, 10], 80) == [68, 10]

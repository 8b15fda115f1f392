"""Cursors: given out for one query, redeemed for it only, and never trusted."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import InvalidCursor, InvalidQuery, Phase
from sojourn.cursors import issue, redeem
from sojourn.store import Query

QUERY = Query(app="app", now=1)

DIFFERENT: list[dict[str, Any]] = [
    {"app": "app2"},
    {"user": "u"},
    {"anonymous": True},
    {"phases": (Phase.OPEN,)},
    {"phases": ()},
    {"labels": {"a": "b"}},
    {"parent": "p"},
    {"order": "active"},
    {"order": "created"},
    {"expired": True},
]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cursor_gives_its_position_back(position: str) -> None:
    """Whatever text the store calls a position survives, and the cursor fits into a URL."""
    cursor = issue(QUERY, position)
    assert redeem(QUERY, cursor) == position
    assert cursor.isascii()
    assert not set(cursor) & set("+/=& ?#%")


@pytest.mark.parametrize("facts", DIFFERENT, ids=str)
def test_a_cursor_of_another_query_is_refused(facts: dict[str, Any]) -> None:
    """App, every filter and the order are part of what a cursor was given out for."""
    other = msgspec.structs.replace(QUERY, **facts)
    for mine, yours in ((QUERY, other), (other, QUERY)):
        with pytest.raises(InvalidCursor, match="another query"):
            redeem(yours, issue(mine, "7"))


def test_time_limit_and_position_are_no_part_of_it() -> None:
    """The next page may come later, be larger, and starts from a page itself."""
    later = msgspec.structs.replace(QUERY, now=99, limit=7, position="3")
    assert redeem(later, issue(QUERY, "7")) == "7"


def test_the_order_of_labels_is_no_part_of_it() -> None:
    """The same labels in another order are the same filter; no labels are like none."""
    one = msgspec.structs.replace(QUERY, labels={"a": "1", "b": "2"})
    two = msgspec.structs.replace(QUERY, labels={"b": "2", "a": "1"})
    assert redeem(two, issue(one, "7")) == "7"
    assert redeem(QUERY, issue(msgspec.structs.replace(QUERY, labels={}), "7")) == "7"


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "====",
        "!!!!",
        "a b c d",
        "caf\u00e9",
        "\ud800",
        "A" * 7,
        "AAAA\nAAAA",
        issue(QUERY, "7")[:4],
        issue(QUERY, "7") + "*",
        base64.urlsafe_b64encode(base64.urlsafe_b64decode(issue(QUERY, "")) + b"\xff").decode(),
    ],
    ids=ascii,
)
def test_a_malformed_cursor_is_refused(cursor: str) -> None:
    """Not base64, cut off, with something behind it, or not text inside: `InvalidCursor`."""
    with pytest.raises(InvalidCursor) as caught:
        redeem(QUERY, cursor)
    assert caught.value.field == "cursor"
    assert isinstance(caught.value, InvalidQuery)


@pytest.mark.parametrize("cursor", [None, 7, b"AAAAAAAAAAAA", ["x"]])
def test_a_cursor_is_text(cursor: object) -> None:
    """Another type is refused, and named."""
    with pytest.raises(InvalidCursor, match=type(cursor).__name__):
        redeem(QUERY, cursor)


@given(st.text(max_size=40))
def test_no_text_breaks_redeeming(cursor: str) -> None:
    """Whatever somebody sends in place of a cursor, the answer is `InvalidCursor`."""
    with pytest.raises(InvalidCursor):
        redeem(QUERY, cursor)

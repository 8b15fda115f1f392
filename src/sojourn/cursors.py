"""Cursors of lists: opaque to the caller, tied to the query that they were given out for."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

import msgspec

from sojourn.errors import InvalidCursor

if TYPE_CHECKING:
    from sojourn.store import Query

_MARK_BYTES = 6


def issue(query: Query, position: str) -> str:
    """Return the cursor for the page behind `position` of `query`."""
    return base64.urlsafe_b64encode(_mark(query) + position.encode()).decode().rstrip("=")


def redeem(query: Query, cursor: object) -> str:
    """Return the position that a cursor stands for.

    Raises `InvalidCursor` if it is malformed or was given out for another query.
    """
    if type(cursor) is not str:
        raise InvalidCursor(f"give the text that a page came with, not {type(cursor).__name__}")
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        mark, position = raw[:_MARK_BYTES], raw[_MARK_BYTES:].decode()
    except (binascii.Error, ValueError):
        raise InvalidCursor("it is malformed") from None
    if mark != _mark(query):
        raise InvalidCursor("it was given out for another query; start without a cursor")
    return position


def _mark(query: Query) -> bytes:
    """Return what tells queries apart: the app, the filters and the order, not time and limit."""
    facts = (
        query.app,
        query.user,
        query.anonymous,
        query.phases,
        sorted((query.labels or {}).items()),
        query.parent,
        query.order,
        query.expired,
    )
    return hashlib.blake2b(msgspec.json.encode(facts), digest_size=_MARK_BYTES).digest()

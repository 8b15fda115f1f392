"""Transports: what is read from a request is what its cookie says."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from sojourn.web import Cookie
from sojourn.web.transports import CookieTransport

if TYPE_CHECKING:
    from collections.abc import Iterable


class Quoted(Cookie):
    """A cookie whose value another server in front of this one has quoted."""

    def values(self, lines: Iterable[str]) -> list[str]:
        return [unquote(value) for value in super().values(lines)]


def test_a_cookie_may_be_read_in_another_way() -> None:
    headers = [(b"cookie", b"a=1; sid=x%2Ey"), (b"cookie", b'sid="z"')]
    assert CookieTransport(Quoted("sid", secure=False)).presented(headers) == ["x.y", "z"]
    assert CookieTransport(Cookie("sid", secure=False)).presented(headers) == ["x%2Ey", "z"]

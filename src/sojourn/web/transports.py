"""Transports: how a token travels between browser and server. Nothing else is ever looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sojourn.errors import InvalidSetting
from sojourn.web.cookies import MAX_PRESENTED, Cookie

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.web.admission import Reply

    Headers = Iterable[tuple[bytes, bytes]]


class Transport(Protocol):
    """One way for a token to travel, in terms of raw headers: lower-case names, bytes."""

    @property
    def vary(self) -> bytes:
        """The request header that a response depends on."""

    def presented(self, headers: Headers, /) -> list[str]:
        """Return what may be tokens; never raises."""

    def told(self, reply: Reply, /) -> list[tuple[bytes, bytes]]:
        """Return the response headers that tell the browser."""


class CookieTransport:
    """The token in a cookie: the way for browsers."""

    vary = b"Cookie"

    def __init__(self, cookie: Cookie) -> None:
        """Make and read that cookie."""
        self.cookie = cookie

    def presented(self, headers: Headers) -> list[str]:
        """Return the values of the cookie, from however many lines."""
        lines: list[str] = []
        for name, value in headers:
            if name == b"cookie":
                lines.append(value.decode("latin-1"))
        return self.cookie.values(lines) if lines else lines

    def told(self, reply: Reply) -> list[tuple[bytes, bytes]]:
        """Return a `Set-Cookie` header, or none."""
        if reply.token is not None:
            return [(b"set-cookie", self.cookie.set(reply.token, reply.max_age).encode())]
        if reply.erase:
            return [(b"set-cookie", self.cookie.erase().encode())]
        return []


@dataclass(frozen=True)
class Header:
    """The token in a header, for clients that are no browsers: an opt-in.

    `name` and `scheme` are what requests carry (`Authorization: Bearer …`), `reply` is the response
    header with a new token; it is empty after a logout.
    """

    name: str = "authorization"
    scheme: str = "Bearer"
    reply: str = "x-session-token"

    def __post_init__(self) -> None:
        for field in ("name", "reply"):
            text: str = getattr(self, field)
            if not text or not text.isascii() or not text.replace("-", "").isalnum():
                raise InvalidSetting(field, "Header", "give the name of a header")

    @property
    def vary(self) -> bytes:
        """The request header that a response depends on."""
        return self.name.encode()

    def presented(self, headers: Headers) -> list[str]:
        """Return what the header carries under the scheme."""
        wanted, scheme = self.name.lower().encode(), self.scheme.lower()
        found: list[str] = []
        for name, value in headers:
            if name == wanted and len(found) < MAX_PRESENTED:
                text = value.decode("latin-1").strip()
                if not scheme:
                    found.append(text)
                elif text[: len(scheme) + 1].lower() == scheme + " ":
                    found.append(text[len(scheme) + 1 :].strip())
        return found

    def told(self, reply: Reply) -> list[tuple[bytes, bytes]]:
        """Return the response header with a new token, empty to forget the old one."""
        if reply.token is None and not reply.erase:
            return []
        return [(self.reply.lower().encode(), (reply.token or "").encode())]

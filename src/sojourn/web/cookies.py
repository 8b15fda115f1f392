"""Cookies: how the session's cookie is set and erased, what is refused, what browsers send back."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sojourn.errors import InvalidSetting, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger("sojourn.web")

MAX_COOKIE_BYTES = 4_096
"""Most bytes of a cookie's name and value: browsers drop a larger one without a word."""

MAX_PRESENTED = 4
"""Most cookies of one name that are looked at in a request. A browser sends several when another
host of the domain has set one of that name; each may cost a read."""

SAME_SITE = {"lax": "Lax", "strict": "Strict", "none": "None"}

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]+")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "testserver"})


@dataclass(frozen=True)
class Cookie:
    """The session's cookie. The default is as strict as browsers allow without breaking links.

    `name` says nothing of what is behind it. A name with `__Host-` keeps the cookie to this very
    host, one with `__Secure-` goes with a `domain`. `secure=False` is for a machine without TLS and
    takes a plain name. The cookie ends with the browser, unless a login says `remember=True`.

    Raises `InvalidSetting`, naming what does not go together (RFC 6265bis, sections 4.1 and 5.7).
    """

    name: str = "__Host-sid"
    domain: str | None = None
    path: str = "/"
    secure: bool = True
    http_only: bool = True
    same_site: Literal["lax", "strict", "none"] = "lax"
    partitioned: bool = False

    def __post_init__(self) -> None:
        self._check_texts()
        self._check_prefix()
        if self.same_site == "none" and not self.secure:
            raise _refused("same_site", "'none' needs secure=True: browsers drop it otherwise")
        if self.partitioned and not self.secure:
            raise _refused("partitioned", "it needs secure=True: browsers drop it otherwise")

    def _check_texts(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise _refused("name", "give letters, digits and !#$%&'*+-.^_`|~")
        if self.same_site not in SAME_SITE:
            raise _refused("same_site", f"{self.same_site!r} is none of {', '.join(SAME_SITE)}")
        if not self.path.startswith("/") or not _ATTRIBUTE.fullmatch(self.path):
            raise _refused("path", "it begins with / and holds no semicolon")
        if self.domain is not None and not _ATTRIBUTE.fullmatch(self.domain):
            raise _refused("domain", "give the name of a host, or None for this host only")

    def _check_prefix(self) -> None:
        """Refuse what a browser would refuse without a word: it takes prefixes in any case."""
        name = self.name.lower()
        for prefix, needed in _PREFIXES.items():
            if name.startswith(prefix):
                for field in needed:
                    self._check_needed(field, self.name[: len(prefix)])
                return
        if self.secure:
            better = "__Secure-" if self.domain else "__Host-"
            raise _refused("name", f"a secure cookie has a name with a prefix: {better}{self.name}")

    def _check_needed(self, field: str, prefix: str) -> None:
        if field == "domain" and self.domain is not None:
            raise _refused("domain", f"a name with {prefix} takes none: use __Secure- or drop it")
        if field == "path" and self.path != "/":
            raise _refused("path", f"a name with {prefix} needs the path /")
        if field == "secure" and not self.secure:
            raise _refused("secure", f"a name with {prefix} needs secure=True, or drop the prefix")
        if field == "http_only" and not self.http_only:
            raise _refused("http_only", f"a name with {prefix} needs http_only=True")

    def set(self, value: str, max_age: int | None = None) -> str:
        """Return the `Set-Cookie` value; `max_age` (seconds) lets it outlive the browser.

        Raises `TooLarge` when name and value are over `MAX_COOKIE_BYTES`.
        """
        size = len(self.name) + len(value)
        if size > MAX_COOKIE_BYTES:
            raise TooLarge("bytes of a cookie's name and value", size, MAX_COOKIE_BYTES)
        age = "" if max_age is None else f"; Max-Age={max_age}"
        return f"{self.name}={value}{age}{self._attributes()}"

    def erase(self) -> str:
        """Return the `Set-Cookie` value that removes it: with the same attributes, or it stays."""
        past = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        return f"{self.name}={past}{self._attributes()}"

    def _attributes(self) -> str:
        parts = [f"; Path={self.path}"]
        if self.domain is not None:
            parts.append(f"; Domain={self.domain}")
        if self.secure:
            parts.append("; Secure")
        if self.http_only:
            parts.append("; HttpOnly")
        parts.append(f"; SameSite={SAME_SITE[self.same_site]}")
        if self.partitioned:
            parts.append("; Partitioned")
        return "".join(parts)

    def values(self, lines: Iterable[str]) -> list[str]:
        """Return the values under this name in `Cookie` lines: `MAX_PRESENTED` at most.

        There may be several lines (HTTP/2 splits them) and several values. Nothing is refused:
        what is no token is sorted out later.
        """
        return presented(self.name, lines)


def presented(name: str, lines: Iterable[str]) -> list[str]:
    """Return the values of the cookies called `name` in `Cookie` lines; see `Cookie.values`."""
    found: list[str] = []
    wanted = name + "="
    for line in lines:
        for pair in line.split(";"):
            before, is_there, value = pair.partition(wanted)
            if is_there and not before.strip() and len(found) < MAX_PRESENTED:
                found.append(value.rstrip().strip('"'))
    return found


_PREFIXES: dict[str, tuple[str, ...]] = {
    "__host-http-": ("secure", "domain", "path", "http_only"),
    "__http-": ("secure", "http_only"),
    "__host-": ("secure", "domain", "path"),
    "__secure-": ("secure",),
}
"""What browsers ask of a name with such a prefix."""


class PlainWarning:
    """Warns, once, when a cookie without `Secure` goes to another machine."""

    def __init__(self, cookie: Cookie | None) -> None:
        """`None` for no cookie at all."""
        self.due = cookie is not None and not cookie.secure
        """Whether to look at the host that a request names."""

    def look(self, host: str) -> None:
        """Warn if `host`, from the request's header, is not this machine."""
        if self.due and host and not is_local(host):
            self.due = False
            log.warning(
                "session cookies go without Secure to %s: anybody on the way reads them", host
            )


def is_local(host: str) -> bool:
    """Return whether a `Host` header names this machine, where a cookie without TLS is fine."""
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() in _LOCAL or name.lower().endswith(".localhost")


def _refused(field: str, reason: str) -> InvalidSetting:
    return InvalidSetting(field, "Cookie", reason)

"""Facts: what the web keeps of a session in its state, under keys that applications do not see."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from sojourn.web import tokens

if TYPE_CHECKING:
    from sojourn.session import State
    from sojourn.web.tokens import Token

RESERVED = "~"
"""What a state key of the web begins with. Applications can not use such keys."""

TOKEN = "~token"  # noqa: S105 - the name of a key, not a token
AUTH = "~auth"
DEVICE = "~device"
FLASH = "~flash."
"""What the key of a flash message begins with: each has its own, so that none replaces another."""

PLACE = "session"
"""The name of a session where an application has only one."""

MAX_AGENT = 256
"""Characters of a user agent that are kept: it is a hint for people."""


class TokenFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of the token of a session. Instants are microseconds.

    `hash` is of its secret; `before` that of the one it replaced, honoured until `until`.
    `remember` lets the cookie outlive the browser. `place` is the name of the session in its
    application: a token of one is none of another's.
    """

    hash: str
    at: int
    before: str | None = None
    until: int = 0
    remember: bool = False
    place: str = PLACE

    def accepts(self, token: Token, now: int) -> bool:
        """Return whether a token is the one in use, or the one before it, in its time of grace."""
        given = tokens.digest(token.secret)
        return hmac.compare_digest(given, self.hash) or self._is_before(given, now)

    def is_current(self, token: Token) -> bool:
        """Return whether a token is the one in use."""
        return hmac.compare_digest(tokens.digest(token.secret), self.hash)

    def is_graced(self, token: Token, now: int) -> bool:
        """Return whether a token is the one before the one in use, and still honoured."""
        return self.before is not None and self._is_before(tokens.digest(token.secret), now)

    def _is_before(self, given: str, now: int) -> bool:
        before = self.before
        return before is not None and now < self.until and hmac.compare_digest(given, before)


class Auth(msgspec.Struct, frozen=True, omit_defaults=True):
    """When (microseconds) and how somebody logged in: `methods` such as `pwd`, `otp`; a level.

    `place` is the login's among all of its user where that is later than `at`, by whose clock some
    of those are still to come.
    """

    at: int
    methods: tuple[str, ...] = ()
    level: int = 0
    place: int = 0


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a session was begun or logged in from, as a hint: user agent and address."""

    agent: str = ""
    address: str = ""


class Flash(msgspec.Struct, frozen=True, array_like=True):
    """A message for the next page."""

    text: str
    category: str = "info"


Fact = TypeVar("Fact")


_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (TokenFacts, Auth, Device, Flash)
}


def read(state: State, key: str, kind: type[Fact]) -> Fact | None:
    """Return a fact, `None` if it is not there or is not one: it was not written by us then."""
    text = state.peek(key)
    if text is None:
        return None
    try:
        fact: Fact = _DECODERS[kind].decode(text)
    except msgspec.DecodeError:
        return None
    return fact


def write(state: State, key: str, fact: object) -> None:
    """Set a fact, to be stored with the next save."""
    state[key] = msgspec.json.decode(msgspec.json.encode(fact))

"""Tokens: what a browser holds to prove that a session is its own, and what is kept of it.

A token is `<id>.<secret>`: the id finds the record in one read, the store keeps only a hash of the
secret. With a key ring there is a third part, a signature, so that what was never issued here is
refused without a look into the store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

ID_BYTES = 16
"""Random bytes of a session id that is part of a token: nobody meets the same one twice."""

SECRET_BYTES = 32
"""Random bytes of a secret: twice what ASVS 5.0 (7.2.3) asks for, so its plain hash can be kept."""

KEY_BYTES = 32
"""Fewest bytes of a key that signs tokens."""

MAX_KEYS = 8
"""Most keys of a ring: each may be tried for every token that comes in."""

_FORM = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})(?:\.([A-Za-z0-9_-]{43}))?")
"""What a token looks like: ASCII, fixed lengths, no character that a cookie or URL must quote."""


_URLSAFE = bytes.maketrans(b"+/", b"-_")


class Token(msgspec.Struct, frozen=True, gc=False):
    """A session id and the secret that goes with it. Its `repr` shows neither."""

    id: str
    secret: str

    def __repr__(self) -> str:
        """Show nothing: whoever reads a token has the session."""
        return "<Token>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show nothing in rich tracebacks either."""
        return []


class Tokens:
    """Makes tokens and reads them back."""

    def __init__(self, keys: Sequence[str | bytes] = ()) -> None:
        """`keys` sign tokens: the first one new ones, all of them count for old ones.

        Each has `KEY_BYTES` or more, random. Without keys tokens are not signed, and no less safe:
        the store is asked for more of them. Raises `InvalidQuery`, showing no key.
        """
        if isinstance(keys, str | bytes):
            raise InvalidQuery("keys", "give a list of keys, the newest first, not one of them")
        if len(keys) > MAX_KEYS:
            raise InvalidQuery("keys", f"give at most {MAX_KEYS} keys, not {len(keys)}")
        ring = [key.encode() if isinstance(key, str) else bytes(key) for key in keys]
        if any(len(key) < KEY_BYTES for key in ring):
            raise InvalidQuery("keys", f"a key has at least {KEY_BYTES} bytes, and is random")
        self._ring = tuple(ring)

    def __repr__(self) -> str:
        """Show how many keys there are, and none of them."""
        return f"<Tokens signed by {len(self._ring)} keys>"

    def issue(self, id: str | None = None) -> Token:
        """Return a new token for a session, or for one that is still to be made."""
        return Token(id or secrets.token_urlsafe(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES))

    def write(self, token: Token) -> str:
        """Return the text that a browser is given."""
        text = f"{token.id}.{token.secret}"
        return f"{text}.{_signature(self._ring[0], text)}" if self._ring else text

    def read(self, text: str) -> Token | None:
        """Return the token that a text is, `None` for anything that was not issued here."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        id, secret, signature = found.groups()
        if self._ring:
            signed = f"{id}.{secret}"
            if signature is None or not any(
                hmac.compare_digest(_signature(key, signed), signature) for key in self._ring
            ):
                return None
        return Token(id, secret)


def digest(secret: str) -> str:
    """Return what is kept of a secret: its SHA-256. It is random, so it needs no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def derived(kept: str, purpose: str) -> str:
    """Return a value that changes with the secret, and that nobody without it can tell."""
    return _text(hmac.digest(kept.encode(), purpose.encode(), "sha256"))


def _signature(key: bytes, text: str) -> str:
    return _text(hmac.digest(key, text.encode(), "sha256"))


def _text(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_URLSAFE, b"=").decode("ascii")

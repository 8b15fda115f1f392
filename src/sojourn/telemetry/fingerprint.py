"""Fingerprints: what stands for a session's id where the id itself must not be seen."""

from __future__ import annotations

import os
from hashlib import blake2b

from sojourn.errors import InvalidQuery

FINGERPRINT_BYTES = 8
"""Bytes of a fingerprint: two of a million sessions share one with a chance of 1 in 37 million."""

KEY_BYTES_LEAST = 16
"""Bytes that a key needs: with a shorter one, whoever sees a fingerprint can try them all."""

KEY_BYTES_MOST = 64
"""Bytes that a key may have: what BLAKE2b takes."""

_PROCESS_KEY = os.urandom(32)
"""The key where none is given. A forked child has its parent's, so their fingerprints agree."""


class Fingerprint:
    """Turns a session's app and id into 16 hex characters that only the key can confirm.

    Without a key, one is drawn at random for the process: the same session has the same
    fingerprint as long as the process lives. Give the same key everywhere to follow a session
    from process to process.
    """

    def __init__(self, key: bytes | None = None) -> None:
        """Raises `InvalidQuery` for a key that is not 16 to 64 bytes."""
        least, most = KEY_BYTES_LEAST, KEY_BYTES_MOST
        if key is not None and not (type(key) is bytes and least <= len(key) <= most):
            raise InvalidQuery("fingerprint key", f"give {least} to {most} bytes, or None")
        self._keyed = blake2b(
            key=_PROCESS_KEY if key is None else key, digest_size=FINGERPRINT_BYTES
        )

    def of(self, app: str, id: str) -> str:
        """Return the fingerprint of a session, 16 lowercase hex characters."""
        keyed = self._keyed.copy()
        # No name holds a NUL, so no two pairs of names are the same text.
        keyed.update(f"{app}\0{id}".encode("utf-8", "surrogatepass"))
        return keyed.hexdigest()

    def __repr__(self) -> str:
        """Show no key."""
        return "<Fingerprint>"

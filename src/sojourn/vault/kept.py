"""State as a vault keeps it: the JSON text that it came as until it is changed, then its values.

Most sessions that are kept are only kept, and a text is the smallest. One that is written to is
written to again, and then nothing is decoded or encoded but what changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sojourn import codec
from sojourn.errors import TooLarge
from sojourn.limits import MAX_STATE
from sojourn.model import Encoded

if TYPE_CHECKING:
    from sojourn.store import TierDelta

_ESCAPED = 6
"""Bytes that a character of a key has in JSON at the most, as in `\\u0000`."""

_AROUND = 4
"""Bytes of JSON around a key and its value: two quotes, a colon and a comma."""


_SHARED = 4_096
"""Bytes of a text that its values may hold on to: they lie in it until they are copied out."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A tier's state. It never changes: `merged` returns another one.

    `held` is its text or its values, still encoded. `most` is what its text can have in bytes: as
    long as that is within a limit, nobody has to count.
    """

    held: bytes | Encoded
    most: int

    @property
    def text(self) -> bytes:
        """Its JSON text."""
        held = self.held
        return held if type(held) is bytes else codec.encode_object(held)  # type: ignore[arg-type]  # narrowed by `type`

    def values(self, key: str) -> Encoded:
        """Return its values in a dict of the caller's own. Raises `Corrupt`, naming `key`."""
        held = self.held
        return codec.decode_object(held, key) if type(held) is bytes else held.copy()  # type: ignore[union-attr]  # narrowed by `type`

    def merged(
        self, delta: TierDelta | None, *, clear: bool, key: str, limit: int = MAX_STATE
    ) -> Kept:
        """Return it with a delta applied. Raises `TooLarge` over `limit` bytes of text."""
        held, most = self.held, self.most
        if clear:
            values, most = {}, len(_NOTHING)
        else:
            values = held.copy() if type(held) is dict else self._decoded(key)
        if delta is not None:
            values.update(delta.set)
            most += _size(delta.set) if delta.size is None else delta.size
            for name in delta.drop:
                values.pop(name, None)
        if most > limit:
            most = len(codec.encode_object(values))
            if most > limit:
                raise TooLarge("bytes of state in one tier", most, limit)
        return Kept(values, most)

    def _decoded(self, key: str) -> Encoded:
        """Return the values of its text to be kept: they must not keep all of a large one alive."""
        values = self.values(key)
        return values if self.most <= _SHARED else {k: raw.copy() for k, raw in values.items()}


def _size(parts: Encoded) -> int:
    """Return what values take as JSON at the most, in bytes."""
    return sum(_AROUND + _ESCAPED * len(name) + len(bytes(raw)) for name, raw in parts.items())


def kept(text: bytes) -> Kept:
    """Return state that came as JSON text."""
    return Kept(text, len(text))


_NOTHING = b"{}"
EMPTY = kept(_NOTHING)
"""No state."""

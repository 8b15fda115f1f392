"""Errands: what a write in one route of a cluster has still to do in others.

They are written to an outbox with the write itself. Those about tiers stay there for a while after
they were done, for readers that come in between; those about notes, which name sessions, do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from sojourn.stores.redis.routes import Route

About: TypeAlias = Literal["tiers", "notes"]
"""What the errands of an outbox are about."""

ABOUTS: tuple[About, ...] = ("tiers", "notes")
"""All of them."""

KEPT = 64
"""Errands about tiers that stay in an outbox after they were done."""

_encode = msgspec.json.Encoder().encode


class Box(NamedTuple):
    """An outbox."""

    route: Route
    app: str
    about: About

    @property
    def keep(self) -> int:
        """How many errands stay after they were done."""
        return KEPT if self.about == "tiers" else 0


class Draft:
    """An errand in the making: commands for another route."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.commands: list[list[str]] = []

    def do(self, name: str, key: str, *arguments: str | bytes | int) -> None:
        """Note a command on one key."""
        texts = (part.decode() if isinstance(part, bytes) else str(part) for part in arguments)
        self.commands.append([name, key, *texts])

    def text(self) -> bytes:
        """Return it as JSON, but for its number, which stands before it."""
        return b'"to":%d,"do":%b}' % (self.route, _encode(self.commands))


class Errand(msgspec.Struct, gc=False):
    """An errand as it stands in an outbox. `n` is its number, `to` the route it is for."""

    n: int
    to: int
    do: list[list[str]]


_decoder = msgspec.json.Decoder(Errand)


def to_errand(text: bytes) -> Errand:
    """Return an errand from its JSON."""
    return _decoder.decode(text)

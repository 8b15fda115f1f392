"""Notices: what befell sessions of the web, for logs and alarms; no token and no id in them."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import Counter, OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from sojourn.errors import Closed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sojourn.errors import SojournError


Listener: TypeAlias = "Callable[[Notice], None]"
"""Who is told: called at once, in the loop, so it hands on what takes long."""

log = logging.getLogger("sojourn.web")

Kind = Literal[
    "created",
    "renewed",
    "login",
    "logout",
    "ended",
    "expired",
    "refused",
    "moved",
    "lost",
    "failed",
]
"""What a notice is of; each is explained at `Notice`."""

MAX_SOURCES = 10_000
"""Most addresses whose refusals are counted: the ones that came last. An attacker has many."""


class Source(msgspec.Struct, frozen=True):
    """Where a request comes from, as far as the server knows: address and user agent."""

    address: str = ""
    agent: str = ""


NOWHERE = Source()
"""For what no request asked for."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that befell a session.

    `kind` is one of: `created`, `renewed` (a new token), `login`, `logout`, `ended` (by somebody
    else, see `reason`), `expired`, `refused` (a token that is not, or no longer, valid), `moved`
    (another user agent than it was begun with), `lost` (a late write to a session that was ended),
    `failed` (the store could not be asked). `session` is a keyed hash of its id.
    """

    kind: Kind
    at: datetime
    session: str | None = None
    user: str | None = None
    source: Source = NOWHERE
    reason: str = ""


def said_of(error: SojournError) -> str:
    """Return what a log says of an error: no more than its kind where it may name a session."""
    return str(error) if isinstance(error, Unavailable | Closed) else type(error).__name__


class Notices:
    """Tells listeners and the log, and counts refusals by address."""

    def __init__(self, listeners: Sequence[Listener] = (), key: bytes | None = None) -> None:
        """`key` makes the hashes: the same key in all processes gives a session the same hash."""
        self._listeners = tuple(listeners)
        self._key = secrets.token_bytes(32) if key is None else key
        self.counts: Counter[str] = Counter()
        """How often each kind of notice was given."""
        self._refused: OrderedDict[str, int] = OrderedDict()

    def hashed(self, id: str) -> str:
        """Return what stands for a session id in notices and logs."""
        return hmac.digest(self._key, id.encode(), "sha256").hex()[:16]

    def give(self, notice: Notice) -> None:
        """Tell everybody. A listener that fails is logged, and stops nothing."""
        self.counts[notice.kind] += 1
        if notice.kind == "refused":
            self._count(notice.source.address)
        if log.isEnabledFor(logging.INFO):
            log.info(
                "session %s %s%s",
                notice.session or "-",
                notice.kind,
                f": {notice.reason}" if notice.reason else "",
            )
        for listener in self._listeners:
            try:
                listener(notice)
            except Exception:
                log.exception("a listener to notices failed")

    def refusals(self, address: str) -> int:
        """Return how many tokens from an address were refused lately: guessing shows here."""
        return self._refused.get(address, 0)

    def _count(self, address: str) -> None:
        self._refused[address] = self._refused.get(address, 0) + 1
        self._refused.move_to_end(address)
        if len(self._refused) > MAX_SOURCES:
            self._refused.popitem(last=False)

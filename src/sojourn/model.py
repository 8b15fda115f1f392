"""The records: what a session, an event and a document are, at rest and in a caller's hands.

Frozen structs throughout. Records on the store's side (`Header`, `Record`, `Entry`, `Draft`,
`StoredDocument`) hold encoded values and instants in microseconds, so that nothing a store returns
can alias what it keeps. `Event`, `Document` and `Page` are what a caller reads. Records hold JSON
values and never themselves, so the garbage collector need not follow them (`gc=False`).
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec

from sojourn.errors import Corrupt
from sojourn.lifecycle import LIVE, Phase

Item = TypeVar("Item")

Encoded = dict[str, msgspec.Raw]
"""State as a store keeps it: key to the JSON text of its value."""


class Deletion(enum.Enum):
    """The type of `DELETE`."""

    DELETE = "DELETE"

    def __repr__(self) -> str:
        return "DELETE"


DELETE: Final = Deletion.DELETE
"""In a delta: remove this key. `None` is a value, not a deletion."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An entry of a session's log.

    `kind` and `author` are words of yours. `body` is any JSON value. `delta` maps state keys
    (prefixed with their tier) to new values or `DELETE`. `id` is generated if not given; given, it
    makes appending the same event again harmless. `at` is an aware datetime, the manager's clock if
    not given; it is data, not order: order is `seq`, which the store assigns, from 1. An event with
    `partial=True` is accepted and not stored.
    """

    kind: str
    author: str | None = None
    body: Any = None
    delta: dict[str, Any] = {}
    id: str | None = None
    at: datetime | None = None
    partial: bool = False
    seq: int | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Named bytes attached to a session or an app. `body` is `None` in listings.

    `size` is in bytes, `seq` the log's last number when it was put (0 for an app's). Times are
    aware, in UTC; `expires_at` is `None` for never.
    """

    collection: str
    key: str
    content_type: str
    size: int
    seq: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    body: bytes | None = None


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One page of a list and the cursor of the next, which is `None` on the last page.

    `corrupt` are the records of this page that could not be read back.
    """

    items: list[Item]
    cursor: str | None = None
    corrupt: tuple[Corrupt, ...] = ()


class Header(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session without its contents: identity, lifecycle, counters, deadlines.

    Instants and durations are microseconds. `seq` is the last sequence number given out, `due_at`
    the instant at which the reaper has to look at the session, `fence` the newest lease token,
    `remembered` the last operations (see `commit.recall`).
    """

    app: str
    id: str
    epoch: str
    user: str | None = None
    lifecycle: str = "open"
    phase: Phase = Phase.OPEN
    reason: str | None = None
    revision: int = 1
    seq: int = 0
    created_at: int
    active_at: int
    idle: int | None = None
    absolute_at: int | None = None
    expires_at: int | None = None
    due_at: int | None = None
    retain: int | None = None
    attempts: int = 0
    parent: str | None = None
    forked_from: str | None = None
    labels: dict[str, str] = {}
    exclusive: tuple[str, ...] = ()
    fence: int = 0
    holder: str | None = None
    leased_until: int = 0
    remembered: bytes = b""

    @property
    def live(self) -> bool:
        """Whether the phase takes writes. A deadline may have passed all the same."""
        return self.phase in LIVE


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event on its way into a log: encoded, without a sequence number.

    `changes` is the JSON object of the keys it set and `deleted` the JSON list of those it removed.
    `fresh` says that the id was generated for it and cannot be in the log yet; `stamped` that the
    caller gave the time, so that it is part of what makes two events equal.
    """

    id: str
    kind: str
    author: str | None
    at: int
    body: str
    changes: str | None = None
    deleted: str | None = None
    fresh: bool = False
    stamped: bool = False


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event as a store returns it: encoded, in its place in the log."""

    seq: int
    id: str
    kind: str
    author: str | None
    at: int
    body: str
    changes: str | None = None
    deleted: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session as a store returns it: the header, the state of all tiers, a window of its log."""

    header: Header
    state: Encoded
    user_state: Encoded
    app_state: Encoded
    entries: tuple[Entry, ...] = ()


class StoredDocument(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A document as a store keeps it. `seq` is the log's last number when it was put.

    `number` is its place among the documents of its owner: each new one has a higher number than
    those that are there, in the order of the commits. One that is replaced keeps its number.
    """

    collection: str
    key: str
    content_type: str
    size: int
    seq: int
    created_at: int
    updated_at: int
    expires_at: int | None = None
    number: int = 0
    body: bytes | None = None

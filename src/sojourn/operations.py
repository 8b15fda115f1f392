"""What can be asked of the writer, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sojourn import restoring
from sojourn.store import (
    Acquire,
    Change,
    Create,
    Delete,
    Due,
    Fork,
    Put,
    Renew,
    Restore,
    RestoreShared,
    Touch,
)

if TYPE_CHECKING:
    from sojourn.store import Durability


class Forget(NamedTuple):
    """Remove everything of a user."""

    app: str
    user: str


class FindDue(NamedTuple):
    """Look up what is due; a write, because it puts the index of due sessions right."""

    due: Due


class Reap(NamedTuple):
    """Remove what is due."""

    due: Due


Operation: TypeAlias = (
    Change
    | Create
    | Fork
    | Touch
    | Delete
    | Acquire
    | Renew
    | Forget
    | FindDue
    | Reap
    | Restore
    | RestoreShared
)
Outcome: TypeAlias = Any
"""The result of an operation's verb, or the exception that refuses it."""

_UNASKED: dict[type, Durability] = {
    # What is lost of these with the power is done again, or was only a deadline.
    Touch: "relaxed",
    FindDue: "relaxed",
    Reap: "relaxed",
    Renew: "relaxed",
}


def durability_of(operation: Operation, default: Durability) -> Durability:
    """Return what an operation has to reach before it is acknowledged."""
    asked: Durability | None = getattr(operation, "durability", None)
    return asked or _UNASKED.get(type(operation), default)


def app_of(operation: Operation) -> str:
    """Return the app that an operation is about; there is exactly one."""
    if isinstance(operation, Create | Fork):
        return operation.header.app
    if isinstance(operation, FindDue | Reap):
        return operation.due.app
    if isinstance(operation, Restore):
        return operation.snapshot.header.app
    return operation.app


def weight(operation: Operation) -> int:
    """Return about how many bytes of payload an operation carries."""
    kind = type(operation)
    if kind is Change or kind is Create:
        return _payload(operation)  # type: ignore[arg-type]  # narrowed by `kind`
    if isinstance(operation, Restore):
        return restoring.weight(operation.snapshot)
    if isinstance(operation, RestoreShared):
        return sum(map(restoring.item_weight, operation.items))
    return 64


def _payload(operation: Change | Create) -> int:
    """Return about how many bytes a write to a session carries."""
    size = 64
    for draft in operation.events:
        size += len(draft.body) + len(draft.changes or "")
    if isinstance(operation, Change) and operation.documents:
        size += sum(len(part.body) for part in operation.documents if isinstance(part, Put))
    if not operation.events:  # else the state is counted with the events that it came with
        tiers = (operation.session, operation.user_tier, operation.app_tier)
        size += sum(len(bytes(value)) for tier in tiers if tier for value in tier.set.values())
    return size

"""What can be decided by a plan, what it weighs in a batch, and what it has to reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from sojourn.store import Acquire, Change, Create, Delete, Fork, Put, Renew, Touch

if TYPE_CHECKING:
    from sojourn.store import Durability

Operation: TypeAlias = Change | Create | Fork | Touch | Acquire | Renew | Delete

_UNASKED: dict[type, Durability] = {
    # What is lost of these is done again, or was only a deadline.
    Touch: "relaxed",
    Renew: "relaxed",
}

_WITH_PAYLOAD = (Change, Create)

OVERHEAD = 64
"""About how many bytes an operation takes beside its payload."""


def durability_of(operation: object, default: Durability) -> Durability:
    """Return what an operation has to reach before it is acknowledged."""
    asked: Durability | None = getattr(operation, "durability", None)
    return asked or _UNASKED.get(type(operation), default)


def weight(operation: object) -> int:
    """Return about how many bytes of payload an operation carries."""
    if not isinstance(operation, _WITH_PAYLOAD):
        return OVERHEAD
    size = OVERHEAD
    for draft in operation.events:
        size += len(draft.body) + len(draft.changes or "")
    if isinstance(operation, Change) and operation.documents:
        size += sum(len(part.body) for part in operation.documents if isinstance(part, Put))
    if not operation.events:  # else the state is counted with the events that it came with
        tiers = (operation.session, operation.user_tier, operation.app_tier)
        size += sum(len(memoryview(v)) for tier in tiers if tier for v in tier.set.values())
    return size

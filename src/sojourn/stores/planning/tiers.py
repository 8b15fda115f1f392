"""Shared tiers in the course of one plan: what is written to them, and that they stay in bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import TooLarge
from sojourn.limits import MAX_STATE
from sojourn.stores.planning.known import MissingError, Owner
from sojourn.stores.planning.unit import TierChange
from sojourn.stores.weighing import key_size

if TYPE_CHECKING:
    from sojourn.store import TierDelta
    from sojourn.stores.planning.known import Known, Reads
    from sojourn.stores.weighing import Weighing


class Tiers:
    """What a plan does to the tiers of users and apps."""

    def __init__(self, known: Known, reads: Reads, weighing: Weighing) -> None:
        """`reads` is where it is noted which sizes are missing, `weighing` what was written."""
        self._known = known
        self._weighing = weighing
        self._reads = reads
        self._order = 0
        self._noted: list[TierChange] = []

    def changes(
        self, app: str, user: str | None, ours: TierDelta | None, everyones: TierDelta | None
    ) -> tuple[TierChange, ...]:
        """Return the changes of a user's tier and the app's; nothing is noted yet.

        Raises `TooLarge` if one would make a tier larger than `MAX_STATE`.
        """
        if ours is None and everyones is None:
            return ()
        order = self._order + 1
        changes: tuple[TierChange, ...] = ()
        if ours is not None:
            changes = (TierChange(app, user, ours.set, ours.drop, order),)
            self._check(changes[0], ours.size)
        if everyones is not None:
            changes += (TierChange(app, None, everyones.set, everyones.drop, order),)
            self._check(changes[-1], everyones.size)
        return changes

    def _check(self, change: TierChange, most: int | None) -> None:
        """Raise `TooLarge` for a change that may not be; `most` is its size at the most.

        The tier is added up once so much was written to it: small writes may pass by a little.
        """
        if not change.set:
            return
        owner = Owner(change.app, change.user)
        if not self._weighing.is_due(owner, sum(_sizes(change).values()) if most is None else most):
            return
        known = self._known.sizes.get(owner)
        if known is None:
            self._reads.sizes.add(owner)
            raise MissingError
        sizes = dict(known)
        for one in (*self._noted, change):
            if (one.app, one.user) != owner:
                continue
            sizes.update(_sizes(one))
        total = 1 + sum(sizes.values())
        if total > MAX_STATE:
            raise TooLarge("bytes of state in one tier", total, MAX_STATE)
        self._weighing.done(owner)

    def note(self, changes: tuple[TierChange, ...]) -> None:
        """Count on with the changes of an operation that nothing refuses."""
        if changes:
            self._order = changes[-1].order
            self._noted += changes


def _sizes(change: TierChange) -> dict[str, int]:
    """Return how many bytes each key will be, 0 for one that is removed."""
    sizes = dict.fromkeys(change.drop, 0)
    for name, value in change.set.items():
        sizes[name] = key_size(name, len(memoryview(value)))
    return sizes

"""Which sessions belong together: those of a user, those without one, those with a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from sojourn.vault.slot import Slot


class Members:
    """Sessions by what they have in common. Most groups are of one, which needs no set."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[Hashable, Slot | set[Slot]] = {}

    def of(self, group: Hashable) -> Collection[Slot]:
        """Return the sessions of a group, in no order. They are not to be changed."""
        found = self._found.get(group, ())
        return found if isinstance(found, set | tuple) else (found,)

    def join(self, group: Hashable, slot: Slot) -> None:
        """Note that a session is one of a group."""
        others = self._found.get(group)
        if others is None:
            self._found[group] = slot
        elif isinstance(others, set):
            others.add(slot)
        else:
            self._found[group] = {others, slot}

    def leave(self, group: Hashable, slot: Slot) -> None:
        """Note that a session is no longer one of a group that it is in."""
        others = self._found[group]
        if isinstance(others, set):
            others.discard(slot)
        if not isinstance(others, set) or not others:
            del self._found[group]

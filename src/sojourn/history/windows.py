"""Windows: which of the newest messages fit, with no tool call cut off from its results. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sojourn.history.messages import (
    ASSISTANT,
    Message,
    Numbered,
    call_answered,
    calls_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAIR_REACH = 256
"""How many messages a reader goes back to find the call of a result, and how far apart the two may
be for a summary not to part them: results follow their calls closely, and a search has to stop."""


class _Weighed(msgspec.Struct, frozen=True):
    item: Numbered
    weight: int


class _Unit(msgspec.Struct):
    """What is shown together or not at all: a message, with the results if it calls tools."""

    items: list[Numbered]
    weight: int


class Window:
    """Takes messages from the newest back, and keeps those that fit.

    It keeps whole units, the newest whatever it weighs: if the newest message is a result, back to
    its call. A result whose call is not met is left out. As the newest message it is kept all the
    same, together with what stands before it, so that it does not come first.
    """

    def __init__(
        self, room: int | None, weigh: Callable[[Message], int], *, least: int = 0
    ) -> None:
        """`room` is what all together may weigh, `None` for no bound; each weighs `least`."""
        self._room = room
        self._weigh = weigh
        self._least = least
        self._taken: list[_Weighed] = []
        self._start()

    def _start(self) -> None:
        self._units: list[_Unit] = []
        self._weight = 0
        self._waiting: dict[str, list[_Weighed]] = {}
        self._owed: str | None = None
        self._orphan: _Weighed | None = None
        self._barren = 0
        self.full = False

    def add(self, item: Numbered) -> None:
        """Take the message before those taken so far. Once the window is `full`, take no more."""
        weighed = _Weighed(item, self._weigh(item.message))
        self._taken.append(weighed)
        self._place(weighed)
        if self._owed is not None and len(self._taken) > PAIR_REACH:
            self._give_up()

    def shown(self) -> list[Numbered]:
        """Return what fits, oldest first. Nothing is added after this."""
        if self._owed is not None:
            self._give_up()
        items = [item for unit in self._units for item in unit.items]
        if self._orphan is not None:
            items.append(self._orphan.item)
        return sorted(items)

    def _place(self, weighed: _Weighed) -> None:
        """Keep a message if it fits; a result waits for its call."""
        answered = call_answered(weighed.item.message)
        if answered is not None:
            if len(self._taken) == 1:
                self._owed = answered
            self._waiting.setdefault(answered, []).append(weighed)
            self._barren += 1
            self.full = self.full or self._barren > PAIR_REACH
            return
        self._barren = 0
        calls = calls_of(weighed.item.message)
        unit = self._unit(weighed, calls)
        if self._units and self._owed is None and not self._fits(unit.weight):
            self.full = True
            return
        if self._owed in calls:
            self._owed = None
        self._units.append(unit)
        self._weight += unit.weight
        self.full = self._owed is None and not self._fits(self._least)

    def _unit(self, weighed: _Weighed, calls: frozenset[str]) -> _Unit:
        """Return a message with the results that waited for it."""
        if not calls and self._orphan is None:  # most are alone
            return _Unit([weighed.item], weighed.weight)
        parts = [weighed]
        for id in calls:
            parts += self._waiting.pop(id, ())
        if self._orphan is not None:  # it stands behind the first message that can stand first
            parts.append(self._orphan)
            self._orphan = None
        return _Unit([part.item for part in parts], sum(part.weight for part in parts))

    def _fits(self, weight: int) -> bool:
        return self._room is None or self._weight + weight <= self._room

    def _give_up(self) -> None:
        """Start over, now that the newest message is known to be a result without a call."""
        newest, *older = self._taken
        self._start()
        self._orphan = newest
        for weighed in older:
            if self.full:
                break
            self._place(weighed)


def clean_cut(items: Sequence[Numbered], cut: int) -> int:
    """Return the largest number up to `cut` of oldest messages that part no call from its results.

    The results of the newest call are still to come as long as the assistant has not spoken again.
    """
    spans = [span for span in _spans(items) if span[1] - span[0] <= PAIR_REACH]
    while True:
        earlier = min((first for first, last in spans if first < cut <= last), default=cut)
        if earlier == cut:
            return cut
        cut = earlier


def _spans(items: Sequence[Numbered]) -> list[tuple[int, int]]:
    """Return (index of a call, index of its last result); one still open reaches past the end."""
    last_of: dict[int, int] = {}
    caller: dict[str, int] = {}
    unanswered: set[str] = set()
    for index, item in enumerate(items):
        answered = call_answered(item.message)
        if answered is not None:
            unanswered.discard(answered)
            if answered in caller:
                last_of[caller[answered]] = index
            continue
        calls = calls_of(item.message)
        if calls or item.message.get("role") == ASSISTANT:
            unanswered = set(calls)
            caller.update(dict.fromkeys(calls, index))
    for id in unanswered:
        last_of[caller[id]] = len(items)
    return list(last_of.items())

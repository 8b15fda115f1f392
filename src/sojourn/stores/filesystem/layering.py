"""A layer above a vault: what is decided upon sessions that stay as they are until it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sojourn import commit
from sojourn.stores.filesystem.log import PlacedLog
from sojourn.vault.index import Index
from sojourn.vault.log import Log
from sojourn.vault.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sojourn.model import Draft, Entry, Header
    from sojourn.store import Due

Key = TypeVar("Key")
Value = TypeVar("Value")


class Layer(dict[Key, Value]):
    """A dict above another one, which it never changes; `None` stands for what is gone."""

    def __init__(
        self, below: dict[Key, Value], adopt: Callable[[Value], Value] | None = None
    ) -> None:
        """`adopt` makes of a value below the one that may be changed here."""
        super().__init__()
        self._below = below
        self._adopt = adopt

    def __bool__(self) -> bool:
        """Return whether there is anything, here or below."""
        return bool(self.items())

    def get(self, key: Key, default: Any = None) -> Any:
        """Return what is here, else what is below."""
        if key in self:
            found = super().get(key)
        else:
            found = self._below.get(key)
            if found is not None and self._adopt is not None:
                found = self[key] = self._adopt(found)
        return default if found is None else found

    def __missing__(self, key: Key) -> Value:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found  # type: ignore[no-any-return]  # it is a value of below

    def __delitem__(self, key: Key) -> None:
        self[key] = None  # type: ignore[assignment]  # what is gone

    def pop(self, key: Key, *default: Any) -> Any:
        """Note that something is gone, and return it."""
        found = self.get(key, *default)
        del self[key]
        return found

    def items(self) -> Any:
        """Return what is here and below."""
        merged = {**self._below, **dict(super().items())}
        return [(key, value) for key, value in merged.items() if value is not None]


class WorkingSlot(Slot):
    """A session while changes to it are decided.

    Its children are copied when one is added; documents are looked at when one is put.
    """

    __slots__ = ("papers",)

    def __init__(self, kept: Slot) -> None:
        """Look through to what is kept for what is not changed here."""
        super().__init__(kept.row, kept.header, kept.kept)
        self.log = WorkingLog(kept.log) if kept.log is not None else None
        self.papers = kept.documents
        self.children = kept.children

    def adopt(self, id: str) -> None:
        """Note a child."""
        self.children = {*(self.children or ()), id}

    def disown(self, id: str) -> None:
        """Forget a child."""
        self.children = {*(self.children or ())} - {id}


class WorkingLog(Log):
    """A log while changes to it are decided: what is below up to `_cut`, and what is new.

    What is new is put in order when somebody looks: most batches look at no log.
    """

    __slots__ = ("_below", "_cut", "_drafts", "_new")

    def __init__(self, below: Log) -> None:
        """Look through to `below`, which stays."""
        assert isinstance(below, PlacedLog)
        self._below = below
        self._cut: int | None = None
        self._drafts: list[tuple[Draft, int]] = []
        self._new = Log()

    def later(self, draft: Draft, seq: int) -> None:
        """Append an event."""
        self._drafts.append((draft, seq))

    def _in_order(self) -> Log:
        """Return what is new."""
        for draft, seq in self._drafts:
            self._new.add(commit.numbered(draft, seq))
        self._drafts.clear()
        return self._new

    def repeated(self, draft: Draft) -> Entry | None:
        """Return the entry that `draft` is again, if there is one."""
        found = self._below.repeated(draft)
        if found is not None and (self._cut is None or found.seq <= self._cut):
            return found
        return self._in_order().repeated(draft)

    def truncate(self, after: int) -> None:
        """Hide the entries with a `seq` above `after`."""
        self._in_order().truncate(after)
        self._cut = after if self._cut is None else min(after, self._cut)

    def tail(self, count: int) -> tuple[int, ...]:
        """Return the last `count` sequence numbers, ascending."""
        new = self._in_order().tail(count)
        below = self._below.tail(count - len(new), self._cut) if len(new) < count else ()
        return (*below, *new)

    def changing(self) -> list[Entry]:
        """Return the entries that have a delta."""
        return self._below.changing()  # a fork is decided alone: there is nothing new


class Looking(Index):
    """The index of the vault below. What is decided here changes nothing in it."""

    def __init__(self, below: Index, slots: Layer[tuple[str, str], Slot]) -> None:
        super().__init__()
        self._looked_at = below
        self._slots = slots

    def add(self, slot: Slot) -> None:
        """Nothing: what is written is noted when it is kept."""

    def remove(self, slot: Slot) -> None:
        """Nothing."""

    def replaced(self, slot: Slot, old: Header) -> None:
        """Nothing."""

    def of_user(self, app: str, user: str) -> list[Slot]:
        """Return a user's sessions; right as long as nothing else is decided with it."""
        return self._ours(self._looked_at.of_user(app, user))

    def due(self, due: Due) -> list[Slot]:
        """Return what is due; right as long as nothing else is decided with it."""
        return self._ours(self._looked_at.due(due))

    def _ours(self, kept: Iterable[Slot]) -> list[Slot]:
        return [self._slots[slot.header.app, slot.header.id] for slot in kept]

"""One session in memory: its header, its own state, and what it owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.vault.kept import Kept, kept

if TYPE_CHECKING:
    from sojourn.model import Entry, Header
    from sojourn.store import EventQuery
    from sojourn.vault.documents import Documents
    from sojourn.vault.log import Log


class Slot:
    """One session: its header, its own state, and what it owns."""

    __slots__ = ("children", "documents", "header", "kept", "log", "row")

    def __init__(self, row: int, header: Header, state: Kept) -> None:
        self.row = row
        self.header = header
        self.kept = state
        """Its own state."""
        self.log: Log | None = None
        self.documents: Documents | None = None
        self.children: set[str] | None = None

    @property
    def state(self) -> bytes:
        """Its own state as JSON text."""
        return self.kept.text

    @state.setter
    def state(self, text: bytes) -> None:
        self.kept = kept(text)

    def adopt(self, id: str) -> None:
        """Note a child."""
        if self.children is None:
            self.children = set()
        self.children.add(id)

    def disown(self, id: str) -> None:
        """Forget a child."""
        if self.children is not None:
            self.children.discard(id)

    def entries(self, window: EventQuery) -> list[Entry]:
        """Return a window of the log."""
        return [] if self.log is None else self.log.window(window)

    def tail(self, count: int) -> tuple[int, ...]:
        """Return the last `count` sequence numbers."""
        return () if self.log is None else self.log.tail(count)

"""A session in the course of one plan: as it was read, and as the operations so far leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn import commit
from sojourn.stores.planning.unit import Unit

if TYPE_CHECKING:
    from sojourn.model import Draft, Entry, Header
    from sojourn.stores.planning.known import Key, Loaded


class Work(Unit, eq=False, gc=False):
    """A unit in the making. It comes to nothing unless it is `dirty` in the end.

    Its version is drawn then, with those of its neighbours.
    """

    if TYPE_CHECKING:
        key: Key  # it always belongs to a session

    base_peak: int = 0
    """The log's peak at the last event of what was read and is left."""
    dirty: bool = False

    @classmethod
    def on(cls, key: Key, old: Loaded) -> Work:
        """Begin with a session that was read."""
        peak = old.peak
        return cls(key, key[0], old, old.header, 0, peak=peak, base_peak=peak)

    @classmethod
    def anew(cls, key: Key, header: Header | None) -> Work:
        """Begin with nothing and the first header of a new session."""
        return cls(key, key[0], None, header, 0)

    def replace(self, header: Header | None, now: int) -> None:
        """Take over a new header, to be written; `None` removes the session."""
        self.header = header
        self.dirty = True
        if now > self.now:  # noqa: PLR1730 - max() costs a call for each commit
            self.now = now

    def tail(self, base: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Return the log's last `count` numbers, given those of what was read and is left."""
        added = tuple(entry.seq for entry in self.entries)
        return (base + added)[-count:] if count > 0 else ()

    def repeated(self, draft: Draft, stored: tuple[Entry, ...]) -> Entry | None:
        """Return the entry that `draft` is again, in what was read or what was added since."""
        cut = self.truncate_after
        left = (entry for entry in stored if cut is None or entry.seq <= cut)
        added = (entry for entry in self.entries if entry.id == draft.id)
        for entries in (left, added):
            for entry in entries:
                if commit.is_repeat(draft, entry):
                    return entry
        return None

    def append(self, drafts: tuple[Draft, ...], seqs: tuple[int, ...], top: int) -> None:
        """Add the events whose number is above `top`."""
        for draft, seq in zip(drafts, seqs, strict=True):
            if seq > top:
                top = seq
                if draft.at > self.peak:  # noqa: PLR1730 - max() costs a call for each event
                    self.peak = draft.at
                self.entries.append(commit.numbered(draft, seq))
                self.peaks.append(self.peak)

    def truncate(self, after: int, peak: int) -> None:
        """Remove the events behind `after`; `peak` is that of what was read and is left."""
        while self.entries and self.entries[-1].seq > after:
            self.entries.pop()
            self.peaks.pop()
        if self.old is not None and after < self.old.header.seq:
            cut = self.truncate_after
            self.truncate_after = after if cut is None else min(cut, after)
            self.base_peak = peak
        self.peak = self.peaks[-1] if self.peaks else self.base_peak

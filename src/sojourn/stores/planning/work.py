"""A session in the course of one plan: as it was read, and as the operations so far leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn import commit
from sojourn.stores.planning.unit import Unit

if TYPE_CHECKING:
    from sojourn.model import Draft, Entry, Header
    from sojourn.stores.planning.known import Claim, Key, Loaded
    from sojourn.stores.planning.unit import Copy, DocumentChange, Guard, TierChange


class Work:
    """One session, and what is to be written to it."""

    __slots__ = (
        "base",
        "base_peak",
        "below",
        "claim_freed",
        "claim_taken",
        "copy",
        "cut",
        "dirty",
        "documents",
        "entries",
        "guards",
        "header",
        "key",
        "now",
        "operations",
        "peak",
        "peaks",
        "state",
        "tiers",
    )

    def __init__(self, key: Key, base: Loaded | None, header: Header | None) -> None:
        """Begin with what was read, or with nothing and the first header of a new session."""
        self.key = key
        self.base = base
        self.header = header
        self.state = base.state if base else b"{}"
        self.base_peak = self.peak = base.peak if base else 0
        self.cut: int | None = None
        """Behind this event, nothing of the log that was read is left."""
        self.entries: list[Entry] = []
        self.peaks: list[int] = []
        self.documents: list[DocumentChange] = []
        self.tiers: list[TierChange] = []
        self.guards: list[Guard] = []
        self.copy: Copy | None = None
        self.below: list[tuple[Key, Loaded | None]] = []
        self.claim_taken: Claim | None = None
        self.claim_freed: Claim | None = None
        self.dirty = False
        self.now = 0
        self.operations: list[int] = []

    def replace(self, header: Header | None, now: int) -> None:
        """Take over a new header, to be written; `None` removes the session."""
        self.header = header
        self.dirty = True
        self.now = max(self.now, now)

    def tail(self, base: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Return the log's last `count` numbers, given those of what was read and is left."""
        added = tuple(entry.seq for entry in self.entries)
        return (base + added)[-count:] if count > 0 else ()

    def repeated(self, draft: Draft, stored: tuple[Entry, ...]) -> Entry | None:
        """Return the entry that `draft` is again, in what was read or what was added since."""
        left = (entry for entry in stored if self.cut is None or entry.seq <= self.cut)
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
                self.peak = max(self.peak, draft.at)
                self.entries.append(commit.numbered(draft, seq))
                self.peaks.append(self.peak)

    def truncate(self, after: int, peak: int) -> None:
        """Remove the events behind `after`; `peak` is that of what was read and is left."""
        while self.entries and self.entries[-1].seq > after:
            self.entries.pop()
            self.peaks.pop()
        if self.base is not None and after < self.base.header.seq:
            self.cut = after if self.cut is None else min(self.cut, after)
            self.base_peak = peak
        self.peak = self.peaks[-1] if self.peaks else self.base_peak

    def unit(self) -> Unit:
        """Return what is to be written."""
        changed = self.base is None or self.state is not self.base.state
        return Unit(
            key=self.key,
            app=self.key[0],
            old=self.base,
            header=self.header,
            now=self.now,
            state=self.state if changed else None,
            peak=self.peak,
            entries=self.entries,
            peaks=self.peaks,
            truncate_after=self.cut,
            copy=self.copy,
            documents=self.documents,
            tiers=self.tiers,
            guards=self.guards,
            below=self.below,
            claim_taken=self.claim_taken,
            claim_freed=self.claim_freed,
            operations=self.operations,
        )

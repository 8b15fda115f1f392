"""Builds the files that a power loss could leave, from a trace of ``recording_vfs``.

The model, per crash point (``trace.ops[:point]`` happened, nothing after it):

* What a file's last completed sync covered is on the disk, whole and in order.
* Each later write of the file is, independently of every other: kept, dropped, cut to a prefix
  of any length, or torn (each aligned 512-byte sector kept or dropped).  So any subset may
  survive, in any order relative to other files; holes left by dropped writes read as zeros.
* Each later truncate is kept or dropped.
* Creations and deletions of a name since the last directory sync: a prefix of that name's
  changes survives, independently of other names.  A created file may be missing although its
  content was synced (POSIX; ext4 is kinder), a deleted one may be back with its old content.
* A failed sync decides the fate of the writes before it for ever: a later successful sync does
  not save them.  A failed write may have happened in part.
* Bytes outside a write's range are never harmed (SQLite's powersafe-overwrite assumption, the
  default of its unix VFS), and no content is invented: a write's bytes or what was there before.

Not modelled: reordering across a sync of the same file, disks that lie about a sync, bit rot,
a file whose size grew by other means than write and truncate (``SQLITE_FCNTL_CHUNK_SIZE``), and
files that do not go through the VFS.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.crash.recording_vfs import Kind, Op, Trace

if TYPE_CHECKING:
    import os
    import random
    from collections.abc import Iterator

SECTOR = 512
_KEEP_ODDS = (0.0, 0.1, 0.5, 0.9, 1.0)


class _Pending(NamedTuple):
    """A change not yet durable: a write (data) or a truncate (None), and its trace index."""

    at: int
    offset: int
    data: bytes | None


class _File:
    """One inode: its durable bytes and the changes that no sync has covered."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.pending: list[_Pending] = []

    def settle(self, covered: int, fate: _Fate | None = None) -> None:
        """Apply the pending changes before an index: all of them, or as fate has it."""
        keep: list[_Pending] = []
        for change in self.pending:
            if change.at >= covered:
                keep.append(change)
                continue
            for part in (change,) if fate is None else fate.of(change):
                self._apply(part)
        self.pending = keep

    def _apply(self, change: _Pending) -> None:
        """Change the bytes, filling a hole with zeros."""
        size, offset = len(self.content), change.offset
        if change.data is None:
            del self.content[offset:]
            end = offset
        else:
            end = offset if change.data else 0
        if end > size:
            self.content.extend(bytes(end - size))
        if change.data is not None:
            self.content[offset : offset + len(change.data)] = change.data


class _Fate:
    """Seeded decisions about unsynced changes; how lucky an image is varies between images."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.odds = rng.choice(_KEEP_ODDS)

    def of(self, change: _Pending) -> Iterator[_Pending]:
        """Yield what is left of one change."""
        rng = self.rng
        if rng.random() < self.odds:
            yield change
        elif change.data is not None:
            how = rng.randrange(4)
            if how == 2:
                cut = rng.randrange(len(change.data) + 1)
                yield change._replace(data=change.data[:cut])
            elif how == 3:
                yield from self._torn(change, change.data)

    def _torn(self, change: _Pending, data: bytes) -> Iterator[_Pending]:
        """Yield a random subset of a write's sectors, aligned as on the disk."""
        start, end = change.offset, change.offset + len(data)
        while start < end:
            stop = min(end, (start // SECTOR + 1) * SECTOR)
            if self.rng.random() < 0.5:
                part = data[start - change.offset : stop - change.offset]
                yield change._replace(offset=start, data=part)
            start = stop


class _Disk:
    """The state of the directory: inodes, durable names and pending name changes."""

    def __init__(self, trace: Trace, fate: _Fate) -> None:
        self.fate = fate
        self.files = {inode: _File(content) for inode, content in trace.baseline.values()}
        self.names = {name: inode for name, (inode, _) in trace.baseline.items()}
        self.changes: list[tuple[int, str, int | None]] = []

    def play(self, index: int, op: Op) -> None:
        """Advance by one operation."""
        kind = op.kind
        if kind is Kind.WRITE:
            self.files[op.inode].pending.append(_Pending(index, op.offset, op.data))
        elif kind is Kind.SYNC:
            self.files[op.inode].settle(op.offset)
        elif kind is Kind.TRUNCATE:
            self.files[op.inode].pending.append(_Pending(index, op.offset, None))
        elif kind is Kind.CREATE:
            self.files[op.inode] = _File()
            self.changes.append((index, op.name, op.inode))
        elif kind is Kind.DELETE:
            self.changes.append((index, op.name, None))
        elif kind is Kind.DIRSYNC:
            self._sync_names(op.offset)
        elif kind is Kind.SYNC_FAILED:
            self.files[op.inode].settle(op.offset, self.fate)
        elif kind is Kind.WRITE_FAILED:
            maybe = self.fate.of(_Pending(index, op.offset, op.data))
            self.files[op.inode].pending.extend(maybe)

    def _sync_names(self, covered: int) -> None:
        """Make the name changes before an index durable."""
        for index, name, inode in self.changes:
            if index < covered:
                self._rename(name, inode)
        self.changes = [change for change in self.changes if change[0] >= covered]

    def _rename(self, name: str, inode: int | None) -> None:
        """Point a name at an inode, or at nothing."""
        if inode is None:
            self.names.pop(name, None)
        else:
            self.names[name] = inode

    def crash(self) -> dict[str, bytearray]:
        """Let fate decide about everything pending and return the surviving files."""
        by_name: dict[str, list[int | None]] = {}
        for _, name, inode in self.changes:
            by_name.setdefault(name, []).append(inode)
        for name, inodes in by_name.items():
            survivors = self.fate.rng.randrange(len(inodes) + 1)
            for inode in inodes[:survivors]:
                self._rename(name, inode)
        survivors_by_name = {}
        for name, inode in sorted(self.names.items()):
            file = self.files[inode]
            file.settle(file.pending[-1].at + 1 if file.pending else 0, self.fate)
            survivors_by_name[name] = file.content
        return survivors_by_name


def crash_image(
    trace: Trace, point: int, rng: random.Random, target: str | os.PathLike[str]
) -> list[object]:
    """Write the files of one possible power loss and return the marks made before it.

    The target is a directory of its own: made if need be, and every file in it is removed first.
    The same trace, point and seed give the same image.
    """
    directory = Path(target)
    if directory.resolve() == Path(trace.directory):
        raise ValueError("the target of a crash image must not be the traced directory")
    directory.mkdir(parents=True, exist_ok=True)
    disk = _Disk(trace, _Fate(rng))
    ops = trace.ops[:point]
    for index, op in enumerate(ops):
        disk.play(index, op)
    for old in directory.iterdir():
        if old.is_file():
            old.unlink()
    for name, content in disk.crash().items():
        (directory / name).write_bytes(content)
    return [op.value for op in ops if op.kind is Kind.MARK]


def crash_point(trace: Trace, rng: random.Random, start: int = 0) -> int:
    """Pick a crash point from ``start`` on: anywhere, or just after a mark, half and half.

    Just after a mark is where a premature acknowledgement shows.
    """
    if rng.random() < 0.5:
        place = rng.randrange(start, len(trace) + 1)
        for index in range(place, len(trace)):
            if trace.ops[index].kind is Kind.MARK:
                return index + 1
    return rng.randint(start, len(trace))

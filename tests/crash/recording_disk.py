"""A disk for the store in plain files that records every call, and images of a power loss.

The model, per crash point, is that of ``power_loss`` with folders and renames:

* What a file's last completed sync covered is on the disk; each later write or truncate of it is,
  independently of every other, kept, dropped, cut short or torn by sectors.
* A name that was made, moved or removed is on the disk once its folder was synced. Of the later
  changes in a folder any may be missing, but of each name a prefix of its changes survives, and a
  rename happens wholly or not at all.
"""

from __future__ import annotations

import os
import shutil
import threading
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from tests.crash.power_loss import _Fate, _File, _Pending

from sojourn.stores.filesystem.disk import Disk

if TYPE_CHECKING:
    import random
    from pathlib import Path


class Kind(Enum):
    """What a call did."""

    CREATE = "create"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    FOLDER = "folder"
    NAME = "name"
    SYNC_FOLDER = "sync_folder"
    MARK = "mark"


class Op(NamedTuple):
    """One call. ``number`` is of a file or folder; ``names`` are (folder, name, what it is now).

    ``offset`` is the place of a write, the new size of a truncate, and for a sync the length of the
    trace when it began: it covers only what is before that.
    """

    kind: Kind
    number: int = -1
    offset: int = 0
    data: bytes = b""
    names: tuple[tuple[int, str, int | None], ...] = ()
    value: object = None


ROOT = 0


class RecordingDisk(Disk):
    """Passes every call on and records it, for files below one folder that is empty at first."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Record what happens below this folder."""
        self.root = os.path.realpath(root)
        self.ops: list[Op] = []
        self._lock = threading.Lock()
        self._next = ROOT + 1
        self._tree: dict[int, dict[str, int]] = {ROOT: {}}
        self._open: dict[int, int] = {}

    def mark(self, value: object) -> None:
        """Put an event of the application into the trace, at this moment."""
        with self._lock:
            self.ops.append(Op(Kind.MARK, value=value))

    def _place(self, path: str) -> tuple[int, str]:
        """Return the folder that a path is in, and its name there."""
        *folders, name = os.path.relpath(path, self.root).split("/")
        number = ROOT
        for folder in folders:
            number = self._tree[number][folder]
        return number, name

    def _number(self, path: str) -> int:
        if os.path.relpath(path, self.root) == ".":
            return ROOT
        folder, name = self._place(path)
        return self._tree[folder][name]

    def _new(self) -> int:
        self._next += 1
        return self._next

    def _named(self, *names: tuple[int, str, int | None]) -> None:
        for folder, name, number in names:
            if number is None:
                self._tree[folder].pop(name, None)
            else:
                self._tree[folder][name] = number
        self.ops.append(Op(Kind.NAME, names=names))

    def open(self, path: str, *, create: bool = False) -> int:
        with self._lock:
            file = super().open(path, create=create)
            folder, name = self._place(path)
            number = self._tree[folder].get(name)
            if number is None:
                number = self._new()
                self.ops.append(Op(Kind.CREATE, number))
                self._named((folder, name, number))
            elif create:
                self.ops.append(Op(Kind.TRUNCATE, number))
            self._open[file] = number
            return file

    def write(self, file: int, data: bytes, offset: int) -> None:
        super().write(file, data, offset)
        with self._lock:
            self.ops.append(Op(Kind.WRITE, self._open[file], offset, bytes(data)))

    def sync(self, file: int) -> None:
        covered = len(self.ops)
        super().sync(file)
        with self._lock:
            self.ops.append(Op(Kind.SYNC, self._open[file], covered))

    def truncate(self, file: int, size: int) -> None:
        super().truncate(file, size)
        with self._lock:
            self.ops.append(Op(Kind.TRUNCATE, self._open[file], size))

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            super().rename(old, new)
            left, arrived = self._place(old), self._place(new)
            number = self._tree[left[0]][left[1]]
            self._named((*arrived, number), (*left, None))

    def remove(self, path: str) -> None:
        with self._lock:
            super().remove(path)
            self._named((*self._place(path), None))

    def make_folder(self, path: str) -> None:
        with self._lock:
            super().make_folder(path)
            number = self._new()
            self._tree[number] = {}
            self.ops.append(Op(Kind.FOLDER, number))
            self._named((*self._place(path), number))

    def remove_folder(self, path: str) -> None:
        with self._lock:
            super().remove_folder(path)
            self._named((*self._place(path), None))

    def sync_folder(self, path: str) -> None:
        covered = len(self.ops)
        super().sync_folder(path)
        with self._lock:
            self.ops.append(Op(Kind.SYNC_FOLDER, self._number(path), covered))


class UnsyncedDisk(RecordingDisk):
    """Syncs nothing: what a store would lose on it shows that syncs matter."""

    def sync(self, file: int) -> None:
        """Nothing."""

    def sync_folder(self, path: str) -> None:
        """Nothing."""


class _Image:
    """What is on the disk at some point of a trace."""

    def __init__(self, fate: _Fate) -> None:
        self._fate = fate
        self._files: dict[int, _File] = {}
        self._folders: dict[int, dict[str, int]] = {ROOT: {}}
        self._changes: list[tuple[int, tuple[tuple[int, str, int | None], ...]]] = []

    def play(self, index: int, op: Op) -> None:
        """Advance by one call."""
        if op.kind is Kind.CREATE:
            self._files[op.number] = _File()
        elif op.kind is Kind.FOLDER:
            self._folders[op.number] = {}
        elif op.kind is Kind.WRITE:
            self._files[op.number].pending.append(_Pending(index, op.offset, op.data))
        elif op.kind is Kind.TRUNCATE:
            self._files[op.number].pending.append(_Pending(index, op.offset, None))
        elif op.kind is Kind.SYNC:
            self._files[op.number].settle(op.offset)
        elif op.kind is Kind.NAME:
            self._changes.append((index, op.names))
        elif op.kind is Kind.SYNC_FOLDER:
            self._sync_names(op.number, op.offset)

    def _sync_names(self, folder: int, covered: int) -> None:
        """Make the changes in one folder before an index durable."""
        left = []
        for index, names in self._changes:
            if index < covered and any(where == folder for where, _, _ in names):
                self._rename(names)
            else:
                left.append((index, names))
        self._changes = left

    def _rename(self, names: tuple[tuple[int, str, int | None], ...]) -> None:
        for folder, name, number in names:
            if number is None:
                self._folders[folder].pop(name, None)
            else:
                self._folders[folder][name] = number

    def crash(self) -> None:
        """Let fate decide about everything that is pending."""
        blocked: set[tuple[int, str]] = set()
        for _, names in self._changes:
            touched = {(folder, name) for folder, name, _ in names}
            if touched & blocked or self._fate.rng.random() > self._fate.odds:
                blocked |= touched
            else:
                self._rename(names)
        for file in self._files.values():
            file.settle(file.pending[-1].at + 1 if file.pending else 0, self._fate)

    def write(self, target: Path, folder: int = ROOT) -> None:
        """Write what is left into a folder."""
        target.mkdir()
        for name, number in self._folders[folder].items():
            if number in self._folders:
                self.write(target / name, number)
            else:
                (target / name).write_bytes(self._files[number].content)


def crash_image(ops: list[Op], point: int, rng: random.Random, target: Path) -> list[object]:
    """Write the files of one possible power loss and return the marks made before it."""
    image = _Image(_Fate(rng))
    for index, op in enumerate(ops[:point]):
        image.play(index, op)
    image.crash()
    shutil.rmtree(target, ignore_errors=True)
    image.write(target)
    return [op.value for op in ops[:point] if op.kind is Kind.MARK]


def crash_point(ops: list[Op], rng: random.Random) -> int:
    """Pick a crash point: anywhere, or just after a mark, where a premature one shows."""
    place = rng.randrange(len(ops) + 1)
    if rng.random() < 0.5:
        for index in range(place, len(ops)):
            if ops[index].kind is Kind.MARK:
                return index + 1
    return place

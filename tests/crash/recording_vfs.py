"""An apsw VFS that records what SQLite asks of the disk, for power-loss images.

Every write, truncate, sync, creation and deletion of a file of one directory is passed on to
the inherited VFS and then appended to ``RecordingVFS.trace``; ``mark`` adds application-level
events such as "commit 17 acknowledged".  ``power_loss.crash_image`` turns the trace into files.

The order of the trace is what makes the images honest.  A write is recorded after it returned
and a sync records how long the trace was *before* it began, so a sync never claims a write that
another thread made while it ran.  A write or sync that raised is recorded too: the write may
have reached the disk in part, and after a failed sync the kernel may have dropped dirty pages.

WAL mode works: apsw passes the shared-memory methods straight to the base VFS, so the -shm file
never appears here (it is memory, power loss destroys it anyway).  apsw's shim has no xFetch, so
``PRAGMA mmap_size`` stays 0 under this VFS.  Files that existed before they were first opened
become the trace's baseline and count as durable.
"""

from __future__ import annotations

import itertools
import os
import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import apsw

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NAMES = itertools.count()
_DIRSYNC_TYPES = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_DIRSYNC_TYPES |= apsw.SQLITE_OPEN_WAL


class Kind(Enum):
    """What an operation of the trace did."""

    WRITE = "write"
    WRITE_FAILED = "write_failed"
    TRUNCATE = "truncate"
    SYNC = "sync"
    SYNC_FAILED = "sync_failed"
    CREATE = "create"
    DELETE = "delete"
    DIRSYNC = "dirsync"
    MARK = "mark"


class Op(NamedTuple):
    """One operation; ``inode`` tells a file from a later one of the same name.

    ``offset`` is the place of a write, the new size of a truncate, and for a sync the length
    of the trace when it began: it covers only the operations before that.
    """

    kind: Kind
    inode: int = -1
    offset: int = 0
    data: bytes = b""
    name: str = ""
    value: object = None


@dataclass
class Trace:
    """The ordered operations on one directory, and the files that were there before."""

    directory: str
    ops: list[Op] = field(default_factory=list)
    baseline: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of operations, which is also the last crash point."""
        return len(self.ops)

    def marks(self, point: int | None = None) -> list[object]:
        """Return the values marked before the crash point (all of them without one)."""
        return [op.value for op in self.ops[:point] if op.kind is Kind.MARK]


class RecordingVFS(apsw.VFS):
    """A registered VFS; open connections with ``vfs=recorder.name`` and keep it referenced.

    Make it before the first connection to the directory.  ``base`` names the VFS to inherit
    from, empty for the default one; a ``FailingVFS`` may stand there.
    """

    def __init__(
        self, directory: str | os.PathLike[str], name: str | None = None, *, base: str = ""
    ) -> None:
        """Register the VFS for the files directly inside the given directory."""
        self.name = name or f"recording-{next(_NAMES)}"
        self.base = base
        self.trace = Trace(os.path.realpath(directory))
        self.lock = threading.Lock()
        self._inodes: dict[str, int] = {}
        self._next_inode = itertools.count()
        super().__init__(self.name, base)

    def mark(self, value: object) -> None:
        """Put an application-level event into the trace, at this moment."""
        self.append(Op(Kind.MARK, value=value))

    def append(self, op: Op) -> None:
        """Add one operation to the trace."""
        with self.lock:
            self.trace.ops.append(op)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open a file, recorded when it is one of the directory."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        short = self._short(path)
        if path is None or short is None:
            return apsw.VFSFile(self.base, name, flags)
        with self.lock:
            existed = Path(path).exists()
            wanted = flags[0]
            file = RecordingFile(self, name, flags)
            file.syncs_directory = bool(
                wanted & apsw.SQLITE_OPEN_CREATE and wanted & _DIRSYNC_TYPES
            )
            file.inode = self._inode(short, file if existed else None)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete a file, and record the directory sync when SQLite asked for one."""
        short = self._short(filename)
        if short is None:
            super().xDelete(filename, syncdir)
            return
        with self.lock:
            if short not in self._inodes and Path(filename).exists():
                self._adopt(short, Path(filename).read_bytes())
            super().xDelete(filename, syncdir)
            inode = self._inodes.pop(short)
            ops = self.trace.ops
            ops.append(Op(Kind.DELETE, inode, name=short))
            if syncdir:
                ops.append(Op(Kind.DIRSYNC, offset=len(ops)))

    def close(self) -> None:
        """Unregister the VFS; connections already open keep working."""
        self.unregister()

    def _short(self, path: str | None) -> str | None:
        """Return the name inside the directory, None for every other file."""
        if path is None:
            return None
        parent, short = os.path.split(path)
        return short if parent == self.trace.directory else None

    def _inode(self, short: str, existing: apsw.VFSFile | None) -> int:
        """Return the number of the file behind a name, adopting or creating it."""
        if existing is None:
            inode = self._inodes[short] = next(self._next_inode)
            self.trace.ops.append(Op(Kind.CREATE, inode, name=short))
        elif short not in self._inodes:
            # Read through SQLite's own handle: closing another descriptor of the file would
            # drop this process's POSIX locks on it.
            size = existing.xFileSize()
            self._adopt(short, existing.xRead(size, 0) if size else b"")
        return self._inodes[short]

    def _adopt(self, short: str, content: bytes) -> None:
        """Take a file that was there before into the baseline."""
        inode = self._inodes[short] = next(self._next_inode)
        self.trace.baseline[short] = (inode, content)


class RecordingFile(apsw.VFSFile):
    """One open file handle that records into its VFS's trace."""

    def __init__(
        self, vfs: RecordingVFS, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        """Open the file in the base VFS; ``xOpen`` sets the inode."""
        self.recorder = vfs
        self.inode = -1
        self.syncs_directory = False
        super().__init__(vfs.base, name, flags)

    def xWrite(self, data: Buffer, offset: int) -> None:
        """Write and record."""
        kind = Kind.WRITE_FAILED
        try:
            super().xWrite(data, offset)
            kind = Kind.WRITE
        finally:
            self.recorder.append(Op(kind, self.inode, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        """Truncate and record."""
        super().xTruncate(newsize)
        self.recorder.append(Op(Kind.TRUNCATE, self.inode, newsize))

    def xSync(self, flags: int) -> None:
        """Sync and record, with the directory sync that the unix VFS adds.

        The unix VFS syncs the directory at the first sync of each journal or WAL handle that
        was opened with the create flag (seen with strace: fdatasync of the directory).
        """
        covered = len(self.recorder.trace.ops)
        try:
            super().xSync(flags)
        except BaseException:
            self.recorder.append(Op(Kind.SYNC_FAILED, self.inode, covered))
            raise
        self.recorder.append(Op(Kind.SYNC, self.inode, covered))
        if self.syncs_directory:
            self.syncs_directory = False
            self.recorder.append(Op(Kind.DIRSYNC, offset=covered))

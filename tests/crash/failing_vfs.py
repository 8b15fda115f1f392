"""An apsw VFS that fails exactly the N-th call of a kind, to walk through every I/O error.

``arm`` says what fails; calls are counted from then on, so a test runs its work once with an
``nth`` of 0, reads ``count``, and repeats it with the fault at 1, 2, ... count.  The failing
call does not reach the disk, unless ``partial`` asks for a write whose first half does.

One difference to a real error of the operating system: apsw raises what a VFS method raised even
where SQLite itself ignores the error, notably in the automatic checkpoint after a commit.  The
caller then sees an error although the transaction is durable, never the other way round.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import apsw

if TYPE_CHECKING:
    from typing_extensions import Buffer

FaultKind = Literal["write", "sync", "truncate", "read", "open", "delete"]
FaultError = Literal["IOERR", "FULL"]

_NAMES = itertools.count()
_IOERR: dict[FaultKind, int] = {
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "read": apsw.SQLITE_IOERR_READ,
    "open": apsw.SQLITE_CANTOPEN,
    "delete": apsw.SQLITE_IOERR_DELETE,
}


@dataclass(frozen=True)
class Fault:
    """The ``nth`` call (from 1) of a kind on files whose path ends in ``suffix`` fails.

    ``forever`` fails every later one too.  An ``nth`` of 0 fails none and only counts.
    ``partial`` lets the first half of a failing write reach the file.
    """

    kind: FaultKind
    nth: int = 0
    suffix: str = ""
    error: FaultError = "IOERR"
    forever: bool = False
    partial: bool = False


class FailingVFS(apsw.VFS):
    """A registered VFS with at most one armed fault; thread-safe.

    ``count`` is the number of calls of the armed kind and suffix, ``hits`` how many failed.
    """

    def __init__(self, name: str | None = None, *, base: str = "") -> None:
        """Register the VFS over the named base, empty for the default one."""
        self.name = name or f"failing-{next(_NAMES)}"
        self.base = base
        self.count = 0
        self.hits = 0
        self._fault: Fault | None = None
        self._lock = threading.Lock()
        super().__init__(self.name, base)

    def arm(self, fault: Fault) -> None:
        """Count from zero and fail as the fault says."""
        with self._lock:
            self._fault = fault
            self.count = self.hits = 0

    def disarm(self) -> None:
        """Let everything pass again; the counters stay readable."""
        with self._lock:
            self._fault = None

    def due(self, kind: FaultKind, path: str) -> Fault | None:
        """Count a call and return the fault when this one must fail."""
        fault = self._fault
        if fault is None or fault.kind != kind or not path.endswith(fault.suffix):
            return None
        with self._lock:
            if fault is not self._fault:
                return None
            self.count += 1
            hit = self.count == fault.nth or (fault.forever and 0 < fault.nth <= self.count)
            self.hits += hit
        return fault if hit else None

    def check(self, kind: FaultKind, path: str) -> None:
        """Count a call and raise when this one must fail."""
        fault = self.due(kind, path)
        if fault is not None:
            raise failure(fault)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open a file whose calls are counted; temporary files have the path ''."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self.check("open", path)
        return FailingFile(self, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete a file or fail."""
        self.check("delete", filename)
        super().xDelete(filename, syncdir)

    def close(self) -> None:
        """Unregister the VFS; connections already open keep working."""
        self.unregister()


def failure(fault: Fault) -> Exception:
    """Return the exception SQLite translates into the fault's error code."""
    code = apsw.SQLITE_FULL if fault.error == "FULL" else _IOERR[fault.kind]
    return apsw.exception_for(code)


class FailingFile(apsw.VFSFile):
    """One open file handle that asks its VFS before every call."""

    def __init__(
        self, vfs: FailingVFS, path: str, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        """Open the file in the base VFS."""
        self.vfs = vfs
        self.path = path
        super().__init__(vfs.base, name, flags)

    def xWrite(self, data: Buffer, offset: int) -> None:
        """Write, fail, or write the first half and fail."""
        fault = self.vfs.due("write", self.path)
        if fault is None:
            super().xWrite(data, offset)
            return
        if fault.partial:
            content = bytes(data)
            super().xWrite(content[: len(content) // 2], offset)
        raise failure(fault)

    def xRead(self, amount: int, offset: int) -> bytes:
        """Read or fail."""
        self.vfs.check("read", self.path)
        return super().xRead(amount, offset)

    def xSync(self, flags: int) -> None:
        """Sync or fail."""
        self.vfs.check("sync", self.path)
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        """Truncate or fail."""
        self.vfs.check("truncate", self.path)
        super().xTruncate(newsize)

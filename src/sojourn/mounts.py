"""Where a file is, whether it is still there, and where it may sit: on a disk of this machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sojourn.errors import InvalidQuery, UnsupportedFilesystem

if TYPE_CHECKING:
    from collections.abc import Iterable

NETWORK_FILESYSTEMS = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph-fuse",
        "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
        "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb2", "smb3", "smbfs",
        "virtiofs",
    }
)  # fmt: skip
"""Where locks or shared memory fail across machines: two writers would damage what is kept."""

LOST = "it was removed, moved or replaced while it was open; close the store and open it again"
"""What is wrong with a file that nobody else would find: a write to it would be stored nowhere."""

_MOUNTS = Path("/proc/self/mountinfo")


class Whereabouts:
    """Which file a path leads to, to see when it leads there no more.

    An open file has its number to itself, also once it was removed: no other one is taken for it.
    """

    __slots__ = ("_found", "_path")

    def __init__(self, path: str, file: int | None = None) -> None:
        """Note which file it is: the open one, or the one that is there.

        Where none is, somebody keeps it in another way than in files, and it is never lost.
        """
        self._path = path
        self._found: tuple[int, int] | None = None
        with contextlib.suppress(FileNotFoundError):
            self._found = _number_of(path if file is None else file)

    def is_lost(self) -> bool:
        """Return whether another file is there by now, or none; `False` where nobody can say."""
        try:
            return self._found is not None and _number_of(self._path) not in (None, self._found)
        except FileNotFoundError:
            return True


def _number_of(file: str | int) -> tuple[int, int] | None:
    """Return what tells a file from all others, `None` if the system does not say.

    Raises `FileNotFoundError` where no file is.
    """
    try:
        found = os.stat(file)  # noqa: PTH116 - for an open file, too
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    except FileNotFoundError:
        raise
    except OSError:
        return None
    return found.st_dev, found.st_ino


def whole_path(path: str) -> str:
    """Return a path that goes on meaning the same place when the program changes its folder.

    Links and `..` are left as they are. Raises `InvalidQuery` for a relative one if the program is
    in a folder that is gone.
    """
    if Path(path).is_absolute():
        return path
    try:
        return os.fspath(Path.cwd() / path)
    except OSError as error:
        reason = "the folder that the program is in is gone; give the whole path"
        raise InvalidQuery("path", reason) from error


def refuse_unsafe_place(path: str, mounts: str | None = None) -> None:
    """Raise `UnsupportedFilesystem` if the file would sit on a network file system.

    `mounts` is text in the form of /proc/self/mountinfo; where there is none, nothing is refused.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text()
        except OSError:
            return
    found = _filesystem_of(os.path.realpath(path), mounts.splitlines())
    if found in NETWORK_FILESYSTEMS:
        raise UnsupportedFilesystem(
            path, f"it is on a network file system ({found}); use a local disk, or PostgreSQL"
        )


def _filesystem_of(path: str, mounts: Iterable[str]) -> str | None:
    """Return the type of the file system with the longest mount point above `path`."""
    best, kind = -1, None
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:  # noqa: PLR2004 - the mount point is the fifth field
            continue
        point = fields[4].encode().decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind

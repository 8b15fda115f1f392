"""Where a file is, and where it may sit: on a disk of this machine, as locks do not hold across."""

from __future__ import annotations

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

_MOUNTS = Path("/proc/self/mountinfo")


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

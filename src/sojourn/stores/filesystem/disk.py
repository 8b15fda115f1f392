"""The few calls that touch the disk: the one place where tests let them fail or the power go."""

from __future__ import annotations

import errno
import os

from sojourn.errors import ReadOnly, SojournError, StorageFull, Unavailable

MODE = 0o666
"""The permissions of new files, of which the umask takes away."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when there is no space left, for all, for this user or in this file."""

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class Disk:
    """Files by descriptor and folders by path. Every method may raise `OSError`."""

    def open(self, path: str, *, create: bool = False) -> int:
        """Open a file for reading and writing; with `create`, make it anew and empty."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return os.open(path, flags, MODE)

    def read(self, file: int, size: int, offset: int) -> bytes:
        """Return up to `size` bytes; fewer only at the end of the file."""
        found = os.pread(file, size, offset)
        if len(found) == size or not found:
            return found
        parts = [found]
        while found and (missing := size - sum(map(len, parts))):
            found = os.pread(file, missing, offset + size - missing)
            parts.append(found)
        return b"".join(parts)

    def write(self, file: int, data: bytes, offset: int) -> None:
        """Write all of it."""
        done = os.pwrite(file, data, offset)
        while done < len(data):
            done += os.pwrite(file, memoryview(data)[done:], offset + done)

    def sync(self, file: int) -> None:
        """Return once everything in the file is on the disk, its length too."""
        os.fdatasync(file)

    def truncate(self, file: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(file, size)

    def size(self, file: int) -> int:
        """Return how long a file is."""
        return os.fstat(file).st_size

    def rename(self, old: str, new: str) -> None:
        """Give a file or folder another name, in the place of what is there."""
        os.rename(old, new)

    def remove(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        """Make a folder."""
        os.mkdir(path)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, ascending."""
        return sorted(os.listdir(path))

    def sync_folder(self, path: str) -> None:
        """Return once the names in a folder are on the disk."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def mapped(error: OSError, name: str) -> SojournError:
    """Return what an error of the system means to a caller; the error is kept as its cause."""
    reason = error.strerror or str(error)
    found: Unavailable
    if error.errno in FULL:
        found = StorageFull(name, f"the disk is full ({reason}); nothing was written")
    elif error.errno in _REFUSED:
        found = ReadOnly(name, f"the folder can not be written ({reason})")
    else:
        found = Unavailable(name, f"the disk failed ({reason})")
    found.__cause__ = error
    return found

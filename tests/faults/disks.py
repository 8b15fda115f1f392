"""Disks that get full: a small file system where one may be mounted, a failing VFS elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Protocol

from tests.crash.failing_vfs import FailingVFS, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Disk(Protocol):
    """A folder for files, on a disk that can be filled up."""

    @property
    def folder(self) -> Path:
        """Where the files go."""

    @property
    def vfs(self) -> str | None:
        """The VFS to open them with."""

    def fill(self, *, leave: int = 0) -> None:
        """Use up all space, but for so many bytes."""

    def free(self) -> None:
        """Give the space back."""


class SmallDisk:
    """A file system of its own in memory, with a file that takes the space."""

    vfs: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, *, leave: int = 0) -> None:
        self.free()
        space = os.statvfs(self.folder)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - leave))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


class FailingDisk:
    """A folder behind a VFS whose every write fails for want of space."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._vfs = FailingVFS()
        self.vfs: str | None = self._vfs.name

    def fill(self, *, leave: int = 0) -> None:
        first = 1 + leave // 4096 * 2  # the log takes two writes for a page
        self._vfs.arm(Fault("write", first, error="FULL", forever=True))

    def free(self) -> None:
        self._vfs.disarm()

    def close(self) -> None:
        self._vfs.close()


def done(command: str, *arguments: str) -> bool:
    """Run a command, if there is one of this name, and return whether it worked."""
    found = shutil.which(command)
    if found is None:
        return False
    return subprocess.run([found, *arguments], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """Give a disk of so many bytes; where none may be mounted, one that only says it is full."""
    folder.mkdir()
    if done("mount", "-t", "tmpfs", "-o", f"size={size}", "sojourn-test", os.fspath(folder)):
        try:
            yield SmallDisk(folder)
        finally:
            assert done("umount", "-l", os.fspath(folder))
    else:
        with contextlib.closing(FailingDisk(folder)) as disk:
            yield disk

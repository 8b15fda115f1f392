"""The store in plain files keeps every law."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.stores.filesystem import FilesystemStore
from sojourn.testing.plugin import StoreLaws

if TYPE_CHECKING:
    from pathlib import Path


class TestFilesystemStore(StoreLaws):
    """One test for each law, on a folder."""

    def make_store(self, folder: Path) -> FilesystemStore:
        return FilesystemStore(folder / "laws")

    def reopen_store(self, folder: Path) -> FilesystemStore:
        return FilesystemStore(folder / "laws")

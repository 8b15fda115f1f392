"""The SQLite store keeps every law."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.stores.sqlite import SqliteStore
from sojourn.testing.plugin import StoreLaws

if TYPE_CHECKING:
    from pathlib import Path


class TestSqliteStore(StoreLaws):
    """One test for each law, on a file."""

    def make_store(self, folder: Path) -> SqliteStore:
        return SqliteStore(folder / "laws.db")

    def reopen_store(self, folder: Path) -> SqliteStore:
        return SqliteStore(folder / "laws.db")

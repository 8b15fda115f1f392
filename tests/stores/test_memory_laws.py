"""The memory store keeps every law."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sojourn.store import SupportsBackup
from sojourn.stores.memory import MemoryStore
from sojourn.testing.plugin import StoreLaws

if TYPE_CHECKING:
    from pathlib import Path


class TestMemoryStore(StoreLaws):
    """One test for each law; this store makes no backups and outlives nothing."""

    without: ClassVar[tuple[type[Any], ...]] = (SupportsBackup,)

    def make_store(self, folder: Path) -> MemoryStore:  # noqa: ARG002 - it needs no folder
        return MemoryStore()

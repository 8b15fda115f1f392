"""The observed store is a store: every law holds of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tests.telemetry.recorder import Recorder

from sojourn.store import SupportsBackup
from sojourn.stores.memory import MemoryStore
from sojourn.telemetry import LoggingObserver, ObservedStore
from sojourn.testing.plugin import StoreLaws

if TYPE_CHECKING:
    from pathlib import Path


class TestObservedStore(StoreLaws):
    """One test for each law; what the store inside has no ability for, it has none for either."""

    without: ClassVar[tuple[type[Any], ...]] = (SupportsBackup,)

    def make_store(self, folder: Path) -> ObservedStore:  # noqa: ARG002 - it needs no folder
        return ObservedStore(MemoryStore(), [Recorder(), LoggingObserver()])

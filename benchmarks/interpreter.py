"""What the first import costs. Imports nothing of the package itself."""

from __future__ import annotations

import asyncio  # noqa: F401 - imported before the clock starts, and not by us
import importlib
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.sample import Sample


def start_up() -> Sample:
    """Import the package into an interpreter that has asyncio already."""
    start = perf_counter()
    importlib.import_module("sojourn")
    return {"seconds": perf_counter() - start, "operations": 1}

"""What the first import costs. Imports nothing of the package itself."""

from __future__ import annotations

import asyncio  # noqa: F401 - imported before the clock starts, and not by us
import importlib
from time import perf_counter, process_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.sample import Sample


def start_up() -> Sample:
    """Import the package into an interpreter that has asyncio already."""
    cpu, start = process_time(), perf_counter()
    importlib.import_module("sojourn")
    seconds = perf_counter() - start
    return {"seconds": seconds, "cpu": process_time() - cpu, "operations": 1}

"""What the first import costs. Imports nothing of the package itself."""

from __future__ import annotations

import asyncio
import importlib
from time import perf_counter

from benchmarks.sample import Sample


def start_up() -> Sample:
    """Import the package into an interpreter that has asyncio already."""
    assert asyncio  # imported before the clock starts
    start = perf_counter()
    importlib.import_module("sojourn")
    return {"seconds": perf_counter() - start, "operations": 1}

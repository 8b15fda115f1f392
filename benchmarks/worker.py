"""One measurement in a process of its own: `python -m benchmarks.worker ours.append_one '{…}'`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys


def main() -> None:
    """Run what the first argument names with the second as keywords; print what it measured."""
    side, _, name = sys.argv[1].rpartition(".")
    found = getattr(importlib.import_module(f"benchmarks.{side}"), name)(**json.loads(sys.argv[2]))
    print(json.dumps(asyncio.run(found) if inspect.iscoroutine(found) else found))


if __name__ == "__main__":
    main()

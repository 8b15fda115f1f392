"""How a worker speaks with the test that started it: JSON lines out, words in."""

from __future__ import annotations

import json
import os
import sys


def say(value: object) -> None:
    """Write one JSON line, at once and in one piece."""
    os.write(1, json.dumps(value).encode() + b"\n")


def hear() -> str:
    """Wait for a word of the test; empty when it has hung up."""
    return sys.stdin.readline().strip()

"""Short counts for `make test`, long ones with progress and figures for `make soak`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SOAK = os.environ.get("SOJOURN_SOAK") == "1"
"""Whether this is the long run."""

FIGURES = Path(__file__).resolve().parents[2] / "build" / "figures"

Test = TypeVar("Test", bound="Callable[..., Any]")


def scaled(test: Test) -> Test:
    """Mark a test that runs in both forms: short as it is, in the long run as a soak test."""
    return pytest.mark.soak(test) if SOAK else test


def count(short: int, long: int) -> int:
    """Return how many of something this run does."""
    return long if SOAK else short


class Progress:
    """Lines on standard output about how far a long test is; silent in the short form."""

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.started = time.monotonic()
        self._said = self.started

    def at(self, done: int, **facts: object) -> None:
        """Say how far it is, at most every few seconds."""
        now = time.monotonic()
        if SOAK and (now - self._said > 5 or done == self.total):
            self._said = now
            more = "".join(f", {name} {value}" for name, value in facts.items())
            seconds = now - self.started
            sys.stdout.write(f"\n  {self.what}: {done}/{self.total} in {seconds:.0f} s{more}")
            sys.stdout.flush()

    def figure(self, name: str, **facts: object) -> None:
        """Keep the figures of a long run for the documentation, as one line of JSON."""
        if SOAK:
            FIGURES.mkdir(parents=True, exist_ok=True)
            seconds = round(time.monotonic() - self.started, 1)
            line = json.dumps({"figure": name, **facts, "seconds": seconds})
            (FIGURES / f"{name}.json").write_text(line + "\n", encoding="utf-8")
            sys.stdout.write(f"\n  {line}\n")

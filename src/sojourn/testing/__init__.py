"""For those who test with Sojourn, or write a store: fakes, faults, laws, conformance, a simulator.

Everything is imported when it is asked for: `import sojourn.testing` costs next to nothing, needs
no pytest, and loads no backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sojourn.testing.conformance import Outcome, Report, check_store
    from sojourn.testing.fakes import FakeClock, SequenceIds
    from sojourn.testing.faults import Call, Fault, RandomFaults
    from sojourn.testing.faulty import Armed, FaultyStore
    from sojourn.testing.laws import LAWS, law_names
    from sojourn.testing.simulator import (
        Run,
        SimulatedLoop,
        Stuck,
        Violation,
        rehearse,
        simulate,
    )

__all__ = [
    "LAWS",
    "Armed",
    "Call",
    "FakeClock",
    "Fault",
    "FaultyStore",
    "Outcome",
    "RandomFaults",
    "Report",
    "Run",
    "SequenceIds",
    "SimulatedLoop",
    "Stuck",
    "Violation",
    "check_store",
    "law_names",
    "rehearse",
    "simulate",
]

_HOME = {
    "LAWS": "sojourn.testing.laws",
    "Armed": "sojourn.testing.faulty",
    "Call": "sojourn.testing.faults",
    "FakeClock": "sojourn.testing.fakes",
    "Fault": "sojourn.testing.faults",
    "FaultyStore": "sojourn.testing.faulty",
    "Outcome": "sojourn.testing.conformance",
    "RandomFaults": "sojourn.testing.faults",
    "Report": "sojourn.testing.conformance",
    "Run": "sojourn.testing.simulator",
    "SequenceIds": "sojourn.testing.fakes",
    "SimulatedLoop": "sojourn.testing.simulator",
    "Stuck": "sojourn.testing.simulator",
    "Violation": "sojourn.testing.simulator",
    "check_store": "sojourn.testing.conformance",
    "law_names": "sojourn.testing.laws",
    "rehearse": "sojourn.testing.simulator",
    "simulate": "sojourn.testing.simulator",
}
"""Which module each public name lives in."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)

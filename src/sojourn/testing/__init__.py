"""For those who test with Sojourn, and for those who write a store: fakes, laws, conformance.

Everything is imported when it is asked for: `import sojourn.testing` costs next to nothing, needs
no pytest, and loads no backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sojourn.testing.conformance import Outcome, Report, check_store
    from sojourn.testing.fakes import FakeClock, SequenceIds
    from sojourn.testing.laws import LAWS, law_names

__all__ = [
    "LAWS",
    "FakeClock",
    "Outcome",
    "Report",
    "SequenceIds",
    "check_store",
    "law_names",
]

_HOME = {
    "LAWS": "sojourn.testing.laws",
    "FakeClock": "sojourn.testing.fakes",
    "Outcome": "sojourn.testing.conformance",
    "Report": "sojourn.testing.conformance",
    "SequenceIds": "sojourn.testing.fakes",
    "check_store": "sojourn.testing.conformance",
    "law_names": "sojourn.testing.laws",
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

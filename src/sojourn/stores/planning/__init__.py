"""Deciding operations over a store that lives elsewhere: pure, on what was read, without I/O.

A backend that can not run Python inside its transaction reads what a batch needs (`Known`), has it
decided here by the rules of `sojourn.commit` (`plan`), and applies what comes out (`Unit`) where
the data is, comparing and setting: a unit whose session has moved on is not applied. It is read
again and decided again. An operation that had been applied (its reply was lost) is found in the
session's header then, and not applied twice.
"""

from sojourn.stores.planning.facets import counted, facets_of, kept_facet, label_facet, user_facet
from sojourn.stores.planning.known import (
    WHOLE_LOG,
    Claim,
    Key,
    Known,
    Loaded,
    Named,
    Owner,
    Place,
    Reads,
    Tail,
)
from sojourn.stores.planning.operations import Operation, durability_of, weight
from sojourn.stores.planning.planner import Reached, plan
from sojourn.stores.planning.recent import Recent
from sojourn.stores.planning.unit import (
    Copy,
    DocumentChange,
    Guard,
    Outcome,
    Plan,
    TierChange,
    Unit,
)

__all__ = [
    "WHOLE_LOG",
    "Claim",
    "Copy",
    "DocumentChange",
    "Guard",
    "Key",
    "Known",
    "Loaded",
    "Named",
    "Operation",
    "Outcome",
    "Owner",
    "Place",
    "Plan",
    "Reached",
    "Reads",
    "Recent",
    "Tail",
    "TierChange",
    "Unit",
    "counted",
    "durability_of",
    "facets_of",
    "kept_facet",
    "label_facet",
    "plan",
    "user_facet",
    "weight",
]

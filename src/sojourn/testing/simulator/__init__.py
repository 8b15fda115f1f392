"""A simulator: several managers over one store, in virtual time, with faults, all from one seed.

`simulate(seed)` runs clients that create, write, read, lease, fork, end and delete the same few
sessions at the same time, over connections that are late, break, lose replies and repeat what was
sent, with clocks that differ, nodes that crash, and tasks that are cancelled. Then it checks what
was acknowledged and what was read against what could have happened.
"""

from __future__ import annotations

from sojourn.testing.simulator.checker import Violation, check
from sojourn.testing.simulator.ledger import History
from sojourn.testing.simulator.loop import SimulatedLoop, Stuck
from sojourn.testing.simulator.run import Run, rehearse, simulate

__all__ = ["History", "Run", "SimulatedLoop", "Stuck", "Violation", "check", "rehearse", "simulate"]

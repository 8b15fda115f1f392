"""What one process measured."""

from __future__ import annotations

from time import perf_counter, process_time

Sample = dict[str, float]
"""`operations` and what they took: `seconds`, `cpu` seconds, `p50` of one, or `bytes` of one."""


def sample(start: float, cpu: float, operations: int) -> Sample:
    """Return what was measured since `start` (wall clock) and `cpu` (of this process)."""
    return {
        "seconds": perf_counter() - start,
        "cpu": process_time() - cpu,
        "operations": operations,
    }

"""The program: every comparison, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import comparisons, on_servers

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Comparison, Sizes


def all_of(sizes: Sizes) -> list[Comparison]:
    """Return every comparison, in the order of the page."""
    return [
        comparisons.append(sizes),
        comparisons.callers(sizes),
        comparisons.tail(sizes),
        comparisons.memory(sizes),
        comparisons.chat(sizes),
        comparisons.chats(sizes),
        comparisons.checkpoints(sizes),
        comparisons.checkpoints_in_memory(sizes),
        comparisons.visits(sizes),
        comparisons.visits_durable(sizes),
        comparisons.visits_redis(sizes),
        comparisons.visits_redis_alone(sizes),
        on_servers.postgres_append(sizes),
        on_servers.postgres_callers(sizes),
        on_servers.postgres_tail(sizes),
        on_servers.postgres_checkpoints(sizes),
        on_servers.redis_callers(sizes),
        on_servers.redis_log(sizes),
        on_servers.redis_tail(sizes),
    ]

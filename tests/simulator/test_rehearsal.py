"""The same clients, faults and promises in real time, on the stores that a simulation can not have.

What is drawn from a seed is what clients do and what goes wrong; who comes first is up to threads,
sockets and servers, so a seed that fails may have to be tried more than once.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from tests.faults.soak import Progress, count, scaled
from tests.servers.postgres import PostgresServer, emptied
from tests.servers.redis import Cluster
from tests.simulator import planted

from sojourn import InvalidQuery, open_store
from sojourn.stores.memory import MemoryStore
from sojourn.testing import rehearse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.redis import Server as RedisServer

    from sojourn.model import Record
    from sojourn.store import Get

SEEDS = count(1, 150)
"""Each takes some seconds."""

AT_ONCE = 100.0
"""How many times faster the clock is where a store answers at once."""

KINDS = ("sqlite", "file", "postgres", "redis", "cluster")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster(replicas=0, node_timeout=15_000)  # a busy machine is no lost master
    try:
        yield made
    finally:
        made.stop()


def empty(request: pytest.FixtureRequest, kind: str, folder: Path, seed: int) -> str:
    """Return the URL of an empty store."""
    if kind == "sqlite":
        return f"sqlite:///{folder / f'{seed}.db'}"
    if kind == "file":
        return f"file://{folder / str(seed)}"
    if kind == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.url(schema="rehearsal", timeout=300)
        asyncio.run(emptied(url))
        return url
    found: RedisServer | Cluster
    found = request.getfixturevalue("redis_server" if kind == "redis" else "cluster")
    return f"{found.url}?prefix=rehearsal-{seed}&timeout=300"


@scaled
@pytest.mark.xdist_group("redis")
@pytest.mark.parametrize("kind", KINDS)
def test_every_promise_is_kept_in_real_time(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> None:
    """Each node has a store of its own, as processes have."""
    first = int.from_bytes(os.urandom(4))
    progress = Progress(f"rehearsals on {kind}", SEEDS)
    operations = 0
    for done in range(1, SEEDS + 1):
        url = empty(request, kind, tmp_path, first + done)
        run = rehearse(first + done, lambda url=url: open_store(url))  # type: ignore[misc]  # it is bound
        operations += run.operations
        assert run.ok, "\n".join([str(run), *run.trace])
        progress.at(done, operations=operations)
    progress.figure(f"rehearsed_{kind}", seeds=SEEDS, operations=operations, violations=0)


@pytest.mark.parametrize(
    ("bug", "rule"),
    [
        (planted.UpsertsOnCommit, "not_resurrected"),
        (planted.ChecksNoRevision, "strict_saves_exclude_each_other"),
        (planted.ForgetsOperations, "commits_count_once"),
    ],
)
def test_a_planted_bug_is_found_in_real_time(bug: type[MemoryStore], rule: str) -> None:
    """By the promise that it breaks, in one seed of not so many."""
    for seed in range(200):
        store = bug()
        run = rehearse(seed, lambda store=store: store, speed=AT_ONCE)  # type: ignore[misc]  # it is bound
        if any(violation.rule == rule for violation in run.violations):
            return
    pytest.fail(f"{bug.__name__} was not found")


def test_a_store_that_never_answers_is_found_in_real_time() -> None:
    """It takes longer than anybody has patience."""

    class Silent(MemoryStore):
        async def get(self, get: Get, /) -> Record | None:
            del get
            await asyncio.Event().wait()
            raise AssertionError

    store = Silent()
    run = rehearse(0, lambda: store, speed=AT_ONCE, patience=0.5)
    assert [violation.rule for violation in run.violations][:1] == ["stuck"]


def test_a_task_that_a_store_leaves_behind_is_found() -> None:
    tasks: list[asyncio.Task[object]] = []

    class Untidy(MemoryStore):
        async def close(self) -> None:
            tasks.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))
            await super().close()

    store = Untidy()
    run = rehearse(0, lambda: store, speed=AT_ONCE)
    assert {violation.rule for violation in run.violations} == {"leaked"}


@pytest.mark.parametrize("seed", ["7", 7.0, None, True])
def test_a_rehearsals_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(InvalidQuery, match="give a whole number"):
        rehearse(seed, MemoryStore)  # type: ignore[arg-type]  # what it refuses is the point

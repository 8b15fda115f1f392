"""One simulation from its seed to its verdict: `simulate(seed)`."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import InvalidQuery
from sojourn.manager import SessionManager
from sojourn.reaper import Reaper
from sojourn.session import session_from
from sojourn.store import EventQuery, Get, Query
from sojourn.testing.fakes import SequenceIds
from sojourn.testing.simulator.checker import Violation, check
from sojourn.testing.simulator.draw import Draw
from sojourn.testing.simulator.loop import SimulatedLoop, Stuck
from sojourn.testing.simulator.workload import Client, drawn_actions
from sojourn.testing.simulator.world import APP, START, SkewedClock, World, seen_in
from sojourn.timestamps import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sojourn.store import Store
    from sojourn.testing.simulator.ledger import History, Seen

LATER = 7 * 86_400
"""Seconds after which, at the latest, everything that can be due is due."""

SWEEPS = 20
"""Sweeps until all that was begun has to be finished; failed ends are tried again in between."""


class Run(NamedTuple):
    """What came of one seed.

    `trace` is what happened, line by line; `digest` tells two traces apart. `violations` are the
    promises that were broken, `operations` how many things clients did.
    """

    seed: int
    trace: tuple[str, ...]
    digest: str
    violations: tuple[Violation, ...]
    operations: int

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def __str__(self) -> str:
        """Return one line, and one more for each violation."""
        verdict = "ok" if self.ok else f"{len(self.violations)} violations"
        counts = f"{self.operations} operations, {len(self.trace)} lines"
        first = f"seed {self.seed}: {verdict}, {counts}, {self.digest[:16]}"
        return "\n".join([first, *(f"  {violation}" for violation in self.violations)])


def simulate(seed: int, make_store: Callable[[], Store] | None = None) -> Run:
    """Run several managers over one store with faults, in virtual time, and check what they say.

    The same seed is the same run, line by line. `make_store` makes the store, the one in memory by
    default; it must not use threads or sockets, nor a clock, nor chance of its own. Nothing that
    goes wrong is raised: it is in `violations`. Raises `InvalidQuery` for a seed that is no whole
    number, and inside of an event loop.
    """
    _check(seed)
    loop = SimulatedLoop(seed)
    loop.set_exception_handler(lambda _loop, _context: None)  # what matters is in the ledger
    world = World(seed, _store_in_memory() if make_store is None else make_store(), loop)
    violations: list[Violation] = []
    with _quiet(), closing(loop):
        try:
            violations += check(loop.run_until_complete(_story(world, seed)))
            violations += [Violation("leaked", _name(task)) for task in loop.unfinished]
        except Stuck as error:
            violations.append(Violation("stuck", str(error)))
        _wind_up(loop)
    violations += [Violation("surprise", surprise) for surprise in world.surprises]
    for violation in violations:
        world.trace.note("check", str(violation))
    lines = tuple(world.trace.lines)
    digest = sha256("\n".join(lines).encode()).hexdigest()
    return Run(seed, lines, digest, tuple(violations), len(world.operations))


def _name(task: asyncio.Task[Any]) -> str:
    return f"{getattr(task.get_coro(), '__qualname__', 'a task')} was left behind"


def _wind_up(loop: SimulatedLoop) -> None:
    """Cancel what is left, and what that begins, as far as it comes to an end."""
    with suppress(Stuck):
        while tasks := loop.unfinished:
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())


def _store_in_memory() -> Store:
    return SessionManager.open("memory://").store


def _check(seed: object) -> None:
    """Refuse what can not be run, before anything else happens."""
    if type(seed) is not int:
        raise InvalidQuery("seed", f"give a whole number, not {seed!r}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    why = "a simulation runs one of its own: call it where none runs, or in asyncio.to_thread"
    raise InvalidQuery("event loop", why)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what is meant to fail here, in this thread, out of the log."""
    here = threading.get_ident()

    def is_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    log = logging.getLogger("sojourn")
    log.addFilter(is_elsewhere)
    try:
        yield
    finally:
        log.removeFilter(is_elsewhere)


async def _story(world: World, seed: int) -> History:
    """Let the clients do their work, wait for what they began, and look what there is."""
    draw = Draw(seed, "story")
    await world.store.open()
    actions = drawn_actions(draw)
    clients = [
        Client(world, str(number), actions).run(draw.randrange(6, 15))
        for number in range(draw.randrange(3, 6))
    ]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
    world.weather.calm()
    await asyncio.wait(world.acts)  # who raced may have been left behind
    for node in world.nodes:
        for sessions in (*node.crashed, node.sessions):
            await sessions.close()
    final = await _contents(world)
    await _sweep_all(world)
    left = await _contents(world)
    await world.store.close()
    await asyncio.sleep(1)  # what was told to stop has stopped by now
    return world.history(final, left)


async def _sweep_all(world: World) -> None:
    """Finish, with a manager of its own, whatever was begun or is due."""
    weather, world.weather.hook_fails = world.weather, 0.0
    for number in range(1, SWEEPS + 1):
        clock = SkewedClock(world.loop, number * LATER * MICROSECONDS)
        ids = SequenceIds(f"last.{number}")
        async with SessionManager(world.store, app=APP, clock=clock, ids=ids) as sessions:
            if weather.hooks:
                sessions.on_end(world.hook)
            if not await Reaper(sessions).sweep():
                return


async def _contents(world: World) -> list[Seen]:
    """Return every session that the store holds, expired ones too."""
    now = START + int(world.loop.time() * MICROSECONDS)
    query: dict[str, Any] = {"app": APP, "now": now, "order": "created", "limit": 1_000}
    listed = await world.store.list(Query(expired=True, **query))
    found: list[Seen] = []
    for record in listed.records:
        window = EventQuery(after_seq=0)
        get = Get(app=APP, id=record.header.id, now=now, window=window, expired=True)
        whole = await world.store.get(get)
        if whole is not None:
            found.append(seen_in(session_from(whole), log=True))
    return found

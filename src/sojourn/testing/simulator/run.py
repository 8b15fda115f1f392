"""One simulation from its seed to its verdict: `simulate(seed)`, and `rehearse` on real stores."""

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
from sojourn.testing.simulator.loop import HurriedLoop, SimulatedLoop, Stuck
from sojourn.testing.simulator.workload import Client, drawn_actions
from sojourn.testing.simulator.world import APP, START, SkewedClock, World, seen_in
from sojourn.timestamps import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from sojourn.store import Store
    from sojourn.testing.simulator.ledger import History, Seen

LATER = 7 * 86_400
"""Seconds after which, at the latest, everything that can be due is due."""

SPEED = 10.0
"""How many times faster a rehearsal's clock is: what is a minute of waiting takes seconds, and what
is a second of patience with a server is still a tenth of one."""

PATIENCE = 120.0
"""Seconds of the clock after which a rehearsal does not come to an end."""

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
    world = World(seed, make_store or _store_in_memory, loop)
    return _played(world, loop, lambda: loop.unfinished)


def rehearse(
    seed: int, make_store: Callable[[], Store], *, speed: float = SPEED, patience: float = PATIENCE
) -> Run:
    """Do what `simulate` does in real time, on a store that has threads, sockets or a server.

    What clients do and what goes wrong is drawn from the seed; who comes first is not, so that the
    same seed can be a run again and again, and is never quite the same. `make_store` is called once
    for each node, as if they were processes: every call returns a new way to the same place, which
    is empty before. Each second is `speed` times shorter than the clock's; a run that takes more
    than `patience` seconds of the clock is stuck. Raises what `simulate` raises.
    """
    _check(seed)
    loop = HurriedLoop(speed)
    world = World(seed, make_store, loop, apart=True)

    async def bounded(story: Coroutine[Any, Any, History]) -> History:
        try:
            async with asyncio.timeout(patience * speed):
                return await story
        except TimeoutError as error:
            raise Stuck(f"it goes on after {patience:g} s") from error

    return _played(world, loop, lambda: list(asyncio.all_tasks(loop)), bounded)


def _played(
    world: World,
    loop: SimulatedLoop | HurriedLoop,
    unfinished: Callable[[], list[asyncio.Task[Any]]],
    bounded: Callable[[Coroutine[Any, Any, History]], Coroutine[Any, Any, History]] | None = None,
) -> Run:
    """Run the story of a world, and check what came of it."""
    loop.set_exception_handler(lambda _loop, _context: None)  # what matters is in the ledger
    violations: list[Violation] = []
    story = _story(world, world.seed)
    with _quiet(), closing(loop):
        try:
            history = loop.run_until_complete(story if bounded is None else bounded(story))
            violations += check(history)
            violations += [Violation("leaked", _name(task)) for task in unfinished()]
        except Stuck as error:
            violations.append(Violation("stuck", str(error)))
        _wind_up(loop, unfinished)
    violations += [Violation("surprise", surprise) for surprise in world.surprises]
    for violation in violations:
        world.trace.note("check", str(violation))
    lines = tuple(world.trace.lines)
    digest = sha256("\n".join(lines).encode()).hexdigest()
    return Run(world.seed, lines, digest, tuple(violations), len(world.operations))


def _name(task: asyncio.Task[Any]) -> str:
    return f"{getattr(task.get_coro(), '__qualname__', 'a task')} was left behind"


def _wind_up(
    loop: SimulatedLoop | HurriedLoop, unfinished: Callable[[], list[asyncio.Task[Any]]]
) -> None:
    """Cancel what is left, and what that begins, as far as it comes to an end."""
    with suppress(Stuck):
        while tasks := unfinished():
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
    await world.open()
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
    await world.close()
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

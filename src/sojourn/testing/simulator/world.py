"""The world of a simulation: nodes with clocks of their own, connections that break, one store.

A node stands for a process. Its manager reaches the store through a connection that is late and
fails as the weather says; its clock is off by a little, or by a lot. A node that crashes never
reaches the store again, and another takes its place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from sojourn.errors import EndFailed, SojournError, Unavailable
from sojourn.manager import SessionManager
from sojourn.testing.fakes import NEW_YEAR, SequenceIds
from sojourn.testing.faults import Cut, Delay, Fail, Lose, Repeat
from sojourn.testing.faulty import FaultyStore
from sojourn.testing.simulator.draw import Draw
from sojourn.testing.simulator.ledger import Entry, History, Operation, Seen
from sojourn.timestamps import MICROSECONDS, from_datetime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sojourn.session import Session
    from sojourn.store import Store
    from sojourn.testing.faults import Call, Fault
    from sojourn.testing.simulator.loop import Timed

Reply = TypeVar("Reply")

APP = "simulated"
START = from_datetime(NEW_YEAR)

_DOUBTFUL = (EndFailed, Unavailable)
"""Refusals that do not say that nothing was changed."""


class Trace:
    """What happened, line by line: virtual time, step, who, what."""

    def __init__(self, loop: Timed) -> None:
        """Write down what happens in `loop`."""
        self.lines: list[str] = []
        self._loop = loop

    def note(self, who: str, what: str) -> None:
        """Add a line."""
        loop = self._loop
        self.lines.append(f"{loop.time():12.6f} {loop.steps:>6} {who:<6} {what}")


class Weather:
    """How bad it is in one simulation: drawn once, then asked at every call of a connection."""

    def __init__(self, draw: Draw) -> None:
        """Draw how often calls are late, fail, are cancelled, and what else happens."""
        self._draw = draw
        self.late = draw.choice((0.0, 0.0, 0.2, 0.5, 0.8))
        self.trouble = draw.choice((0.0, 0.02, 0.08, 0.2))
        self.cancels = draw.choice((0.0, 0.0, 0.1, 0.3))
        self.hooks = draw.likely(0.5)
        self.hook_fails = draw.choice((0.0, 0.2))

    def calm(self) -> None:
        """Let calls be late, but nothing fail any more."""
        self.trouble = self.hook_fails = 0.0

    def __call__(self, call: Call) -> Sequence[Fault]:
        """Return what happens to a call: the plan of every connection."""
        faults: list[Fault] = []
        if self._draw.likely(self.late):
            faults.append(Delay(self.pause, applied=self._draw.likely(0.4)))
        if self._draw.likely(self.trouble):
            fault = self._draw.choice(_TROUBLE)
            if fault.may_meet(call):
                faults.append(fault)
        return faults

    async def pause(self) -> None:
        """Wait: mostly a turn or three, else milliseconds, or longer than anybody would like."""
        if self._draw.likely(0.8):
            for _ in range(self._draw.randrange(1, 4)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self._draw.uniform(0, 8 if self._draw.likely(0.15) else 0.05))


_TROUBLE: tuple[Fault, ...] = (Fail(), Cut(), Lose(), Lose(), Repeat())
"""What may happen to a call; a lost reply is what is hardest to get right."""


class Connection(FaultyStore):
    """One node's way to the store; every call is written down."""

    who = ""
    trace: Trace

    async def _call(
        self, verb: str, send: Callable[..., Awaitable[Reply]], *arguments: Any
    ) -> Reply:
        answered = 0

        async def counted(*asked: Any) -> Reply:
            nonlocal answered
            reply = await send(*asked)
            answered += 1
            return reply

        asked = arguments[0] if arguments else ""
        about = getattr(asked, "id", None) or getattr(getattr(asked, "header", ""), "id", "")
        self.trace.note(self.who, f"  {verb} {about} ...")
        try:
            reply = await super()._call(verb, counted, *arguments)
        except BaseException as error:
            self.trace.note(self.who, f"  {verb} {about} !! {type(error).__name__}")
            if answered and isinstance(error, SojournError) and not isinstance(error, Unavailable):
                # It was sent twice, and somebody came in between: that is no refusal of the first.
                raise Unavailable(self.name, f"done, then refused: {error}") from error
            raise
        self.trace.note(self.who, f"  {verb} {about} -> {_told(reply)}")
        return reply


class SkewedClock:
    """Virtual time, off by a constant number of microseconds."""

    def __init__(self, loop: Timed, skew: int) -> None:
        """Follow `loop`."""
        self._loop = loop
        self._skew = skew

    def now(self) -> int:
        """Return the instant in microseconds since the epoch."""
        return START + self._skew + int(self._loop.time() * MICROSECONDS)


class Node:
    """A process: a manager, its connection, its clock."""

    def __init__(self, world: World, name: str, skew: int, store: Store) -> None:
        """Come up, with a way to the store that may be shared with others."""
        self.name = name
        self.store = store
        self._world = world
        self._skew = skew
        self._lives = 0
        self.crashed: list[SessionManager] = []
        self.start()

    def start(self) -> None:
        """Come up, or come up again: a new manager, and a new connection."""
        self._lives += 1
        self.connection = Connection(self.store)
        self.connection.who = self.name
        self.connection.trace = self._world.trace
        self.connection.follow(self._world.weather)
        self.sessions = SessionManager(
            self.connection,
            app=APP,
            clock=SkewedClock(self._world.loop, self._skew),
            ids=SequenceIds(f"{self.name}.{self._lives}"),
        )
        if self._world.weather.hooks:
            self.sessions.on_end(self._world.hook)

    def crash(self) -> None:
        """Never reach the store again, in the middle of whatever it is; another comes up."""
        self.connection.heal()
        self.connection.fail(times=None)
        self.crashed.append(self.sessions)
        self.start()


class World:
    """Everything of one simulation that is not a client."""

    def __init__(
        self, seed: int, make_store: Callable[[], Store], loop: Timed, *, apart: bool = False
    ) -> None:
        """Draw the weather and bring the nodes up; `apart` gives each a store of its own to open.

        `make_store` returns the same place each time then, as it would in several processes.
        """
        self.seed = seed
        self.store = make_store()
        self.loop = loop
        self._draw = Draw(seed, "world")
        self.trace = Trace(loop)
        self.weather = Weather(Draw(seed, "weather"))
        self.operations: list[Operation] = []
        self.surprises: list[str] = []
        self.acts: list[asyncio.Task[None]] = []
        self.ids = ["a", "b", "c"]
        self._hooked: set[str] = set()
        self._ticks = 0
        count = self._draw.randrange(2, 4)
        self.nodes = [
            Node(self, f"n{number}", self._skew(), make_store() if apart else self.store)
            for number in range(1, count + 1)
        ]

    async def open(self) -> None:
        """Open the store, and those of nodes that have one of their own."""
        for store in self._stores():
            await store.open()

    async def close(self) -> None:
        """Close what was opened."""
        for store in self._stores():
            await store.close()

    def _stores(self) -> list[Store]:
        return list({id(one): one for one in (self.store, *(n.store for n in self.nodes))}.values())

    def _skew(self) -> int:
        seconds = self._draw.choice((0.0, 0.5, 3.0, 30.0))
        return int(self._draw.uniform(-seconds, seconds) * MICROSECONDS)

    def tick(self) -> int:
        """Return a number that is higher than any before: what the ledger tells time by."""
        self._ticks += 1
        return self._ticks

    def begin(self, node: Node, verb: str, id: str) -> Operation:
        """Return a new operation of a node, written down."""
        number = len(self.operations) + 1
        operation = Operation(number, node.name, verb, id, self.tick(), node.sessions.now())
        self.operations.append(operation)
        self.trace.note(node.name, f"#{number} {verb} {id}")
        return operation

    def end(self, node: Node, operation: Operation, error: BaseException | None) -> None:
        """Write down what came of an operation."""
        operation.ended, operation.after = self.tick(), node.sessions.now()
        operation.outcome = outcome_of(error)
        operation.answer = "" if error is None else f"{type(error).__name__}: {error}"
        self.trace.note(
            node.name, f"#{operation.number} {operation.outcome} {operation.answer}".rstrip()
        )

    async def hook(self, session: Session, reason: str) -> None:
        """Take a while, and fail now and then: the end hook of every manager."""
        del reason
        await self.weather.pause()
        if self._draw.likely(self.weather.hook_fails):
            message = "the hook failed"
            raise ConnectionError(message)
        self._hooked.add(session.epoch)
        self.trace.note("hook", session.id)

    def history(self, final: list[Seen], left: list[Seen]) -> History:
        """Return what the checker gets to know."""
        hooks = self._hooked if self.weather.hooks else None
        return History(self.operations, final, hooks, left)


def outcome_of(error: BaseException | None) -> Any:
    """Return what an answer says about the store: done, refused, or nobody knows."""
    if error is None:
        return "done"
    refused = isinstance(error, SojournError) and not isinstance(error, _DOUBTFUL)
    return "refused" if refused else "unknown"


def seen_in(session: Session, *, log: bool) -> Seen:
    """Return a working copy that was just loaded, as something that was seen."""
    entries = tuple(
        Entry(event.seq or 0, event.body["op"], event.body["token"]) for event in session.events
    )
    return Seen(
        id=session.id,
        epoch=session.epoch,
        revision=session.revision,
        phase=session.phase,
        user=session.user,
        parent=session.parent,
        forked_from=session.forked_from,
        state=dict(session.state),
        log=entries if log else None,
    )


def _told(reply: object) -> str:
    """Return a store's reply in a few words, the same in every run."""
    header = getattr(reply, "header", None)
    if header is not None:
        revision = getattr(reply, "revision", header.revision)
        again = ", repeated" if getattr(reply, "repeated", False) else ""
        return f"{header.epoch} {header.phase} revision {revision} seq {header.seq}{again}"
    if reply is None or isinstance(reply, bool | int):
        return str(reply)
    return type(reply).__name__ if not isinstance(reply, list) else f"{len(reply)} found"

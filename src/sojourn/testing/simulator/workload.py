"""What the clients of a simulation do: every verb, in random order, on few sessions, on old copies.

A client is one task on one node. It notes what it asks before it asks and what it was told after.
What it writes is the number of the operation that writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from sojourn.errors import SojournError
from sojourn.expiry import Expiry
from sojourn.model import Event
from sojourn.reaper import Reaper
from sojourn.store import EventQuery
from sojourn.testing.simulator.draw import Draw
from sojourn.testing.simulator.world import seen_in
from sojourn.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sojourn.lease import Lease
    from sojourn.manager import SessionManager
    from sojourn.session import Session
    from sojourn.testing.simulator.ledger import Operation
    from sojourn.testing.simulator.world import World

    Act = Callable[[str], Awaitable[None]]

WHOLE_LOG = EventQuery(after_seq=0)
KEYS = ("k0", "k1", "app:a", "user:u")
USER = "u"

WEIGHTS = {
    "append": 14,
    "append_by_id": 6,
    "child": 3,
    "clear": 2,
    "crash": 1,
    "create": 7,
    "delete": 3,
    "end": 3,
    "fork": 3,
    "get_or_create": 5,
    "lease": 5,
    "look": 12,
    "new": 2,
    "race": 12,
    "save": 14,
    "save_strictly": 14,
    "scope": 3,
    "sweep": 4,
    "touch": 4,
    "watch": 3,
}
"""How often a client does what."""

RACES = {
    "append": 3,
    "append_by_id": 1,
    "clear": 1,
    "delete": 1,
    "end": 1,
    "get_or_create": 1,
    "lease": 2,
    "save": 5,
    "save_strictly": 6,
}
"""What is done to one session by several at once."""

ALWAYS = {"create", "look"}
"""What no run does without; of the rest, each run leaves some out, to do the others more often."""

NEED_ONE = {"append_by_id", "child", "fork", "lease", "scope", "watch"}
"""What is refused where there is no session, so that a client mostly sees to it that there is."""

LEFT_OUT = 0.25
"""The part of the actions that a run leaves out."""


class Copy:
    """A working copy that a client holds, and what it has set and not saved."""

    def __init__(self, session: Session) -> None:
        """Hold a session."""
        self.session = session
        self.pending: dict[str, Any] = {}


class Client:
    """One task that works with sessions through one node."""

    def __init__(self, world: World, name: str, actions: dict[str, int]) -> None:
        """Draw on which node; `name` decides, with the seed, what it does."""
        self._world = world
        self._name = name
        self._draw = Draw(world.seed, f"client {name}")
        self._node = self._draw.choice(world.nodes)
        self._actions = actions
        self._copies: dict[str, Copy] = {}

    @property
    def _sessions(self) -> SessionManager:
        return self._node.sessions

    async def run(self, actions: int) -> None:
        """Do so many things, one after the other, with pauses."""
        names, weights = list(self._actions), list(self._actions.values())
        for _ in range(actions):
            await self._think()
            (name,) = self._draw.choices(names, weights)
            await self._maybe_cancelled(name, self._some_id())

    async def _act(self, name: str, id: str) -> None:
        if name in NEED_ONE and id not in self._copies and self._draw.likely(0.8):
            await self._copy(id)
        act: Act = getattr(self, f"_{name}")
        await act(id)

    async def _think(self) -> None:
        """Wait: mostly clients are busy at once, and sometimes they go for a coffee."""
        if self._draw.likely(0.7):
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(self._draw.uniform(0, 12 if self._draw.likely(0.25) else 0.3))

    async def _maybe_cancelled(self, name: str, id: str) -> None:
        """Do something in a task of its own, and sometimes cancel it in the middle."""
        task = asyncio.ensure_future(self._act(name, id))
        self._world.acts.append(task)
        if self._draw.random() < self._world.weather.cancels:
            turns = self._draw.randrange(12)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SojournError):  # those are in the ledger
            self._world.surprises.append(repr(error))

    def _some_id(self) -> str:
        ids = self._world.ids
        return self._draw.choice(ids[:3] if self._draw.likely(0.7) else ids[-6:])

    @contextmanager
    def _operation(self, verb: str, id: str) -> Iterator[Operation]:
        """Note an operation before and after."""
        node = self._node
        operation = self._world.begin(node, verb, id)
        error: BaseException | None = None
        try:
            yield operation
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._world.end(node, operation, error)

    def _note_seen(self, operation: Operation, began: int, session: Session, *, log: bool) -> None:
        seen = seen_in(session, log=log)
        operation.seen.append((began, self._world.tick(), seen))

    # --- making --------------------------------------------------------------------------------

    def _drawn_expiry(self, operation: Operation) -> Expiry:
        """Draw when a session expires, mostly never, and note it."""
        idle = self._draw.uniform(2, 20) if self._draw.likely(0.3) else None
        absolute = self._draw.uniform(5, 40) if self._draw.likely(0.2) else None
        operation.idle = None if idle is None else from_seconds(idle)
        operation.absolute = None if absolute is None else from_seconds(absolute)
        return Expiry(idle=idle, absolute=absolute)

    def _facts(self, operation: Operation) -> dict[str, Any]:
        operation.makes, number = True, operation.number
        operation.writes = {"k0": number, "k1": number}
        return {
            "user": self._draw.choice((USER, None)),
            "state": {"born": number, "count": 0, **operation.writes},
            "expiry": self._drawn_expiry(operation),
        }

    async def _create(self, id: str) -> None:
        with self._operation("create", id) as operation:
            session = await self._sessions.create(id=id, **self._facts(operation))
            self._made(operation, session)

    def _made(self, operation: Operation, session: Session) -> None:
        operation.epoch, operation.user = session.epoch, session.user
        self._copies[session.id] = Copy(session)
        if session.id not in self._world.ids:
            self._world.ids.append(session.id)

    async def _new(self, id: str) -> None:
        with self._operation("new", id) as operation:
            session = self._sessions.new(id=id, **self._facts(operation))
            await self._sessions.save(session)
            self._made(operation, session)

    async def _child(self, id: str) -> None:
        name = f"{id}.{len(self._world.operations)}"[-40:]
        with self._operation("child", name) as operation:
            operation.parent = id
            facts = self._facts(operation)
            self._made(operation, await self._sessions.create(id=name, parent=id, **facts))

    async def _get_or_create(self, id: str) -> None:
        with self._operation("get_or_create", id) as operation:
            began = self._world.tick()
            facts = self._facts(operation)
            del facts["user"]  # another's session would be refused
            session = await self._sessions.get_or_create(id, **facts)
            if session.state.get("born") == operation.number:
                self._made(operation, session)
            else:
                operation.makes, operation.writes = False, {}
                self._note_seen(operation, began, session, log=False)
                self._copies[id] = Copy(session)

    async def _fork(self, id: str) -> None:
        name = f"{id}~{len(self._world.operations)}"[-40:]
        copy = self._copies.get(id)
        last = copy.session.header.seq if copy else 0
        at = self._draw.choice((None, self._draw.randint(0, last)))
        with self._operation("fork", name) as operation:
            operation.makes = True
            began = self._world.tick()
            session = await self._sessions.fork(id, at=at, new_id=name)
            self._note_seen(operation, began, session, log=False)
            self._made(operation, session)

    # --- reading -------------------------------------------------------------------------------

    async def _look(self, id: str) -> None:
        with self._operation("look", id) as operation:
            began = self._world.tick()
            found = await self._sessions.get(id, events=WHOLE_LOG)
            if found is None:
                operation.missing = True
                self._copies.pop(id, None)
                return
            self._note_seen(operation, began, found, log=True)
            self._copies[id] = Copy(found)

    async def _touch(self, id: str) -> None:
        copy = await self._copy(id)
        with self._operation("touch", id) as operation:
            operation.epoch = copy.session.epoch
            await self._sessions.touch(copy.session)

    async def _watch(self, id: str) -> None:
        seconds = self._draw.uniform(0.01, 20)
        with self._operation("watch", id) as operation:
            stream = self._sessions.watch(id)
            with contextlib.suppress(TimeoutError):
                async with aclosing(stream), asyncio.timeout(seconds):
                    async for event in stream:
                        operation.watched.append((event.seq or 0, event.body["op"]))

    async def _copy(self, id: str) -> Copy:
        """Return the copy that the client holds, however old, or a fresh one."""
        if id not in self._copies:
            await self._look(id)
        if id not in self._copies:
            await self._get_or_create(id)
        return self._copies[id]

    # --- writing -------------------------------------------------------------------------------

    def _events(self, operation: Operation, token: int = 0) -> list[Event]:
        count = self._draw.choice((1, 1, 1, 2, 3))
        operation.markers = tuple(f"{operation.number}.{part}" for part in range(count))
        operation.token, operation.commits = token, True
        return [
            Event(kind="note", body={"op": marker, "token": token}) for marker in operation.markers
        ]

    async def _append(self, id: str, lease: Lease | None = None) -> None:
        """Append events and, in the same commit, note in the state which was the last."""
        copy = await self._copy(id)
        with self._operation("append", id) as operation:
            operation.epoch = copy.session.epoch
            first, *more = self._events(operation, 0 if lease is None else lease.token)
            state = {"turn": operation.markers[-1]}
            last = await self._sessions.append(copy.session, first, *more, state=state, lease=lease)
            self._numbered(operation, last)

    def _numbered(self, operation: Operation, last: Event) -> None:
        seq, count = last.seq or 0, len(operation.markers)
        operation.seqs = tuple(range(seq - count + 1, seq + 1))

    async def _append_by_id(self, id: str) -> None:
        with self._operation("append by id", id) as operation:
            first, *more = self._events(operation)
            state = {"turn": operation.markers[-1]}
            self._numbered(operation, await self._sessions.append(id, first, *more, state=state))

    async def _save(self, id: str) -> None:
        copy = await self._copy(id)
        with self._operation("save", id) as operation:
            operation.epoch, operation.user = copy.session.epoch, copy.session.user
            for key in self._draw.sample(KEYS, self._draw.choice((1, 1, 2))):
                if copy.session.user is not None or not key.startswith("user:"):
                    copy.session.state[key] = copy.pending[key] = operation.number
            operation.writes, operation.commits = dict(copy.pending), bool(copy.pending)
            await self._sessions.save(copy.session)
            copy.pending.clear()

    async def _save_strictly(self, id: str) -> None:
        """Count one on from what was read, unless somebody was faster."""
        copy = self._copies.pop(id, None) or await self._copy(id)
        self._copies.pop(id, None)
        with self._operation("strict save", id) as operation:
            session = copy.session
            operation.epoch, operation.user = session.epoch, session.user
            operation.writes = {**copy.pending, "count": session.state["count"] + 1}
            operation.strict = operation.commits = True
            session.state["count"] += 1
            await self._sessions.save(session, conflict="fail")
        copy.pending.clear()
        self._copies[id] = copy

    async def _scope(self, id: str) -> None:
        """Set a key inside a scope, which saves it when it is left."""
        with self._operation("scope", id) as operation:
            began = self._world.tick()
            async with self._sessions.scope(id) as session:
                self._note_seen(operation, began, session, log=False)
                operation.epoch, operation.user = session.epoch, session.user
                await self._think()
                session.state["k0"] = operation.number
                operation.writes, operation.commits = {"k0": operation.number}, True

    async def _lease(self, id: str) -> None:
        """Append a few times as the one worker that may."""
        ttl = self._draw.uniform(0.1, 4)
        wait = self._draw.choice((0.0, 0.5, 3.0))
        renew = self._draw.likely(0.5)
        with self._operation("lease", id) as operation:
            async with self._sessions.lease(id, ttl=ttl, wait=wait, renew=renew) as lease:
                operation.epoch, operation.token = lease.epoch, lease.token
                operation.granted = self._world.tick()
                for _ in range(self._draw.randrange(1, 4)):
                    await self._think()
                    if self._draw.likely(0.4):
                        await asyncio.sleep(self._draw.uniform(0, 2 * ttl))
                    self._copies.pop(id, None)
                    await self._append(id, lease)

    async def _race(self, id: str) -> None:
        """Have several look at one session and then do something to it, all at once."""
        number = len(self._world.operations)
        racers = [
            Client(self._world, f"{self._name} {number} {racer}", self._actions)
            for racer in range(self._draw.randrange(2, 5))
        ]
        await asyncio.gather(
            *(racer._maybe_cancelled("look", id) for racer in racers)  # noqa: SLF001 - they are of its kind
        )
        (name,) = self._draw.choices(*zip(*RACES.items(), strict=True))
        names = [name, *self._draw.choices(list(RACES), list(RACES.values()), k=len(racers) - 1)]
        if self._draw.likely(0.5):
            names = [name] * len(racers)
        works = zip(racers, names, strict=True)
        await asyncio.gather(
            *(racer._maybe_cancelled(name, id) for racer, name in works)  # noqa: SLF001 - they are of its kind
        )

    # --- removing ------------------------------------------------------------------------------

    async def _end(self, id: str) -> None:
        with self._operation("end", id) as operation:
            operation.removes = await self._sessions.end(id, reason="asked for")

    async def _delete(self, id: str) -> None:
        with self._operation("delete", id) as operation:
            operation.removes = True
            await self._sessions.delete(id)

    async def _clear(self, id: str) -> None:
        """Clear a session and save it, which deletes it."""
        copy = await self._copy(id)
        self._copies.pop(id, None)
        if copy.pending:
            return
        with self._operation("clear", id) as operation:
            operation.epoch, operation.removes = copy.session.epoch, True
            copy.session.state.clear()
            await self._sessions.save(copy.session)

    async def _sweep(self, id: str) -> None:
        del id
        with self._operation("sweep", "*"):
            await Reaper(self._sessions, batch=self._draw.choice((1, 64))).sweep()

    async def _crash(self, id: str) -> None:
        del id
        with self._operation("crash", "*"):
            self._node.crash()
            self._copies.clear()


def drawn_actions(draw: Draw) -> dict[str, int]:
    """Return what the clients of one run do, and how often: some of it all, not always the same."""
    return {
        name: weight
        for name, weight in WEIGHTS.items()
        if name in ALWAYS or not draw.likely(LEFT_OUT)
    }

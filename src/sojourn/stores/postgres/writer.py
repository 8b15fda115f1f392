"""The writer: batches of operations, planned here and applied there, one after the other.

While one batch is under way the next one is planned, on what the first one will have written. What
another process wrote meanwhile is found by the server: those units are read and planned again.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from sojourn.errors import SojournError, Unavailable
from sojourn.store import Create, Fork
from sojourn.stores.planning import Known, Recent, durability_of, plan
from sojourn.stores.postgres.applying import Arguments
from sojourn.stores.postgres.fetching import Fetcher
from sojourn.stores.postgres.lone import is_lone, statement_of, values_of
from sojourn.stores.postgres.pool import SETTINGS, Pool
from sojourn.stores.postgres.schema import sql
from sojourn.stores.postgres.trouble import mapped, passes
from sojourn.stores.postgres.writing import CALL, LAST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sojourn.store import Durability
    from sojourn.stores.planning import Key, Operation, Outcome, Plan, Reached, Unit
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection

HOPEFUL_ROUNDS = 3
"""Plans of a batch that trust in nobody writing to its sessions meanwhile. After these, its
sessions are locked before they are read."""

ROUNDS = 16
"""Plans of a batch in all. With its sessions locked, only new ones and claims can still move."""

READS = 8
"""Reads of one plan: sessions first, then what shows to be missing once they are known."""

SLOTS = 16
"""Parts of the count of all sessions of an app, so that its writers do not queue for it."""


ROWS_BY_INDEX = """SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"""
"""Plan each statement once: planning costs more than running it. Few rows are meant, by index: a
plan that was made while a table was empty would read all of it later."""


class _Applied(NamedTuple):
    """What came of one call: units that had moved, numbers of new rows."""

    moved: set[int]
    rows: list[int]


class Writer:
    """Writes batches on a connection of its own."""

    def __init__(
        self,
        address: Address,
        *,
        changed: Callable[[set[Key]], None],
    ) -> None:
        """`changed` is told which sessions were changed or removed."""
        self._address = address
        self._pool = Pool(address, 1, settings=f"{SETTINGS}; {ROWS_BY_INDEX}")
        self._changed = changed
        self._fetcher = Fetcher(address)
        self._call = sql(CALL, address)
        self._lone: dict[str, str] = {}
        self._last = sql(LAST, address)
        self._recent = Recent()
        self._name = b""
        self._slot = 0
        self._batch = 0
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Take a name that no other writer has, those of forked processes included.

        So it is drawn when the store is opened: it may have been made before the fork.
        """
        self._name = secrets.token_bytes(16)
        self._slot = secrets.randbelow(SLOTS)

    def write(
        self, operations: Sequence[Operation], done: Callable[[Sequence[Outcome]], None]
    ) -> None:
        """Start a batch; `done` is called in the loop with the outcomes."""
        has_begun = False

        async def write() -> None:
            nonlocal has_begun
            has_begun = True
            await self._write(operations, done)

        def written(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not has_begun:  # the loop is being stopped, and those who wait would hold it up
                reason = "it was stopped before it was sent; nothing was written"
                done([Unavailable(self._address.shown, reason)] * len(operations))

        task = asyncio.get_running_loop().create_task(write())
        self._tasks.add(task)
        task.add_done_callback(written)

    async def close(self) -> None:
        """Let go of the connection, once the batches under way are written."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._pool.close()

    def forget(self, keys: Sequence[Key]) -> None:
        """Forget sessions that were removed or put by other ways."""
        for key in keys:
            self._recent.drop(key)

    async def _write(
        self, operations: Sequence[Operation], done: Callable[[Sequence[Outcome]], None]
    ) -> None:
        until = asyncio.get_running_loop().time() + self._address.timeout
        outcomes: list[Outcome] = [None] * len(operations)
        try:
            await self._settle(operations, outcomes, until)
        except BaseException as error:
            reason = self._reason(error)
            outcomes = [reason if outcome is None else outcome for outcome in outcomes]
            if not isinstance(error, Exception):
                raise
        finally:
            done([None if outcome is _NONE else outcome for outcome in outcomes])

    def _reason(self, error: BaseException) -> SojournError:
        reason = mapped(error, self._address.shown)
        if reason is not error:
            reason.__cause__ = error
        return reason

    async def _settle(
        self, operations: Sequence[Operation], outcomes: list[Outcome], until: float
    ) -> None:
        """Fill in the outcomes, in as many rounds as it takes."""
        waiting = list(range(len(operations)))
        for number in range(ROUNDS):
            some = [operations[at] for at in waiting]
            if number < HOPEFUL_ROUNDS:
                made, again = await self._hopefully(some, until)
            else:
                async with self._turn:
                    made, again = await self._surely(some, until)
            for place, at in enumerate(waiting):
                if place not in again:
                    outcome = made.outcomes[place]
                    outcomes[at] = _NONE if outcome is None else outcome
            waiting = [at for place, at in enumerate(waiting) if place in again]
            if not waiting:
                return
        reason = f"others wrote to the same sessions {ROUNDS} times in a row; try again later"
        raise Unavailable(self._address.shown, reason)

    # --- one round -----------------------------------------------------------------------------

    async def _hopefully(
        self, operations: Sequence[Operation], until: float
    ) -> tuple[Plan, set[int]]:
        """Plan on what is remembered and apply; return what must be planned again."""
        known = Known()
        self._recent.recall(_keys(operations), known)
        relaxed = self._is_relaxed(operations)
        made = self._plan(operations, known, relaxed=relaxed)
        if made.reads:
            async with self._turn:  # what is read has to be behind what is being written
                made = await self._pool.run(
                    lambda db: self._read_and_plan(db, operations, known, relaxed=relaxed),
                    until=until,
                )
                self._expect(made)
                return made, await self._apply(made, until, relaxed=relaxed)
        self._expect(made)
        async with self._turn:
            return made, await self._apply(made, until, relaxed=relaxed)

    def _plan(self, operations: Sequence[Operation], known: Known, *, relaxed: bool) -> Plan:
        reached: Reached = "relaxed" if relaxed else "durable"
        return plan(operations, known, self._recent.weighing, durability=reached)

    async def _read_and_plan(
        self,
        db: Connection,
        operations: Sequence[Operation],
        known: Known,
        *,
        relaxed: bool,
        locked: bool = False,
    ) -> Plan:
        for _ in range(READS):
            made = self._plan(operations, known, relaxed=relaxed)
            if not made.reads:
                return made
            await self._fetcher.fetch(db, made.reads, known, locked=locked)
        raise Unavailable(self._address.shown, "a batch asked for more and more reads")

    async def _surely(self, operations: Sequence[Operation], until: float) -> tuple[Plan, set[int]]:
        """Read with the sessions locked, plan and apply, in one transaction.

        Made again after its connection was lost, it first asks what became of the plans before.
        """
        relaxed = self._is_relaxed(operations)
        tried: dict[int, tuple[Plan, Sequence[Unit]]] = {}

        async def work(db: Connection) -> tuple[Plan, Sequence[Unit], _Applied]:
            async with db.transaction():
                if tried:
                    batch, moved, rows, _ = await db.fetchrow(self._last, self._name)
                    if batch in tried:
                        return *tried[batch], _Applied(set(moved), rows)
                made = await self._read_and_plan(
                    db, operations, Known(), relaxed=relaxed, locked=True
                )
                arguments = Arguments(made.units)
                self._batch += 1
                tried[self._batch] = made, arguments.created
                values = self._laid_out(arguments, relaxed=relaxed)
                return made, arguments.created, await self._called(db, values)

        made, created, applied = await self._pool.run(work, until=until)
        self._expect(made)
        return made, set(made.later) | self._took(made.units, created, applied)

    async def _apply(self, made: Plan, until: float, *, relaxed: bool) -> set[int]:
        """Write the units of a plan; return the operations that must be planned again."""
        again = set(made.later)
        if not made.units:
            return again
        try:
            return again | await self._call_with(made.units, until, relaxed=relaxed)
        except SojournError as error:
            if len(made.units) == 1 or not _is_refusal(error.__cause__):
                raise
        # The server choked on one of them. Alone, each fails only its own operations.
        for unit in made.units:
            try:
                again |= await self._call_with([unit], until, relaxed=relaxed)
            except SojournError as error:
                for number in unit.operations:
                    made.outcomes[number] = error
        return again

    async def _call_with(self, units: Sequence[Unit], until: float, *, relaxed: bool) -> set[int]:
        """Write units in one call; return the operations of those that had moved."""
        self._batch += 1
        created: Sequence[Unit] = ()
        try:
            if len(units) == 1 and is_lone(units[0]) and not self._address.pooler:
                applied = await self._call_lone(units[0], until, relaxed=relaxed)
            else:
                arguments = Arguments(units)
                created = arguments.created
                values = self._laid_out(arguments, relaxed=relaxed)
                applied = await self._pool.run(lambda db: self._called(db, values), until=until)
        except BaseException:
            for unit in units:
                self._drop(unit)
            raise
        return self._took(units, created, applied)

    def _laid_out(self, arguments: Arguments, *, relaxed: bool) -> list[Any]:
        """Return what a call takes. Raises `Unavailable` for what can not be given."""
        try:
            return arguments.values(self._name, self._batch, self._slot, relaxed=relaxed)
        except ValueError as error:
            raise self._reason(error) from error

    async def _call_lone(self, unit: Unit, until: float, *, relaxed: bool) -> _Applied:
        """Write a unit in a statement of its own."""
        number, tried = self._batch, False
        text = statement_of(unit)
        statement = self._lone.get(text)
        if statement is None:
            statement = self._lone[text] = sql(text, self._address)
        values = values_of(unit, self._name, number, relaxed=relaxed)

        async def work(db: Connection) -> bool:
            nonlocal tried
            again, tried = tried, True
            if await db.fetchval(statement, *values) is not None:
                return True
            return again and await db.fetchval(self._last, self._name) == number

        return _Applied(set() if await self._pool.run(work, until=until) else {0}, [])

    async def _called(self, db: Connection, values: list[Any]) -> _Applied:
        moved, numbers, stale = await db.fetchrow(self._call, *values)
        if stale:
            raise Unavailable(self._address.shown, "a later batch overtook this one")
        return _Applied(set(moved), numbers)

    def _took(self, units: Sequence[Unit], created: Sequence[Unit], applied: _Applied) -> set[int]:
        """Remember what was made, forget what had moved; return what to plan again."""
        again: set[int] = set()
        changed: set[Key] = set()
        for place, unit in enumerate(units):
            if place in applied.moved:
                self._drop(unit)
                again.update(unit.operations)
            elif unit.key is not None:
                changed.add(unit.key)
        for unit, row in zip(created, applied.rows, strict=True):
            loaded = unit.written(row)
            # Nobody can have planned on it before it had its number.
            if unit.key in changed and loaded is not None:
                self._recent.keep(unit.key, loaded)
        if changed:
            self._changed(changed)
        return again

    def _expect(self, made: Plan) -> None:
        """Remember what is about to be written, so that the next batch can be planned on it."""
        for unit in made.units:
            if unit.key is not None and unit.old is not None:
                loaded = unit.written(unit.old.row)
                if loaded is not None:
                    self._recent.keep(unit.key, loaded)

    def _drop(self, unit: Unit) -> None:
        if unit.key is not None:
            self._recent.drop(unit.key)
        for guard in unit.guards:
            self._recent.drop(guard.key)

    def _is_relaxed(self, operations: Sequence[Operation]) -> bool:
        default: Durability = "relaxed" if self._address.durability == "relaxed" else "durable"
        return all(durability_of(operation, default) == "relaxed" for operation in operations)


_NONE = object()
"""Stands for an outcome that is `None`, while `None` stands for none yet."""


def _is_refusal(error: BaseException | None) -> bool:
    """Return whether the server, or the driver, does not take what it was given.

    The server does not if that takes too long for it.
    """
    if isinstance(error, asyncpg.QueryCanceledError):
        return True
    return isinstance(error, asyncpg.PostgresError | ValueError) and not passes(error)


def _keys(operations: Sequence[Operation]) -> list[Key]:
    """Return the sessions that operations are about."""
    keys: list[Key] = []
    for operation in operations:
        if isinstance(operation, Create | Fork):
            header = operation.header
            others = [header.parent, operation.source if isinstance(operation, Fork) else None]
            keys += [(header.app, id) for id in (header.id, *others) if id is not None]
        else:
            keys.append((operation.app, operation.id or ""))
    return keys

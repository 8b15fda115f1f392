"""What Sojourn's rows cost a server without Sojourn: its own calls, made again in a bare loop.

The work is done once by the library, untimed, while its writing calls are noted down with what they
were given. Then they are made again on a schema that is as empty as it was: by prepared statements,
one after the other, with nothing before, between or after them. So the difference to Sojourn itself
is what it does in Python, and the one to the raw floor is what it keeps besides.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from benchmarks.peers import ours
from benchmarks.peers.timing import awaited_in_turn
from sojourn import open_store
from sojourn.stores.postgres.pool import SETTINGS
from sojourn.stores.postgres.writer import ROWS_BY_INDEX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from benchmarks.sample import Sample

    Call = tuple[str, Sequence[Any]]

_WRITER_BYTES = 16
"""Length of the writer's name, with which the arguments of each writing call begin."""

_UNITS = 4
"""Where a call of the function says which sessions it updates."""


async def append(path: str, *, count: int, warm: int) -> Sample:
    """Append to one session: a call each."""
    with _noted() as calls:
        await ours.append(path, count=count, warm=warm)
    appends = calls[-(warm + count) :]
    async with _emptied(path, calls[: -len(appends)]) as make:

        async def step(number: int) -> None:
            await make(appends[number])

        return await awaited_in_turn(step, count=count, warm=warm)


async def callers(path: str, *, callers: int, each: int, warm: int) -> Sample:
    """Append from many callers at once: calls for as many as came together then."""
    with _noted() as calls:
        await ours.callers(path, callers=callers, each=each, warm=warm)
    first = len(calls)
    timed = 0
    while timed < callers * each:
        first -= 1
        timed += _updates(calls[first])
    async with _emptied(path, calls[:first]) as make:

        async def step(number: int) -> None:
            await make(calls[first + number])

        measured = await awaited_in_turn(step, count=len(calls) - first, warm=0)
        return {**measured, "operations": timed}


def _updates(call: Call) -> int:
    """Return how many sessions a call updates."""
    _, values = call
    return len(values[_UNITS].split(",")) if isinstance(values[_UNITS], str) else 1


@contextmanager
def _noted() -> Iterator[list[Call]]:
    """Yield what the writing calls are that are made in the block."""
    calls: list[Call] = []
    plain = {name: getattr(asyncpg.Connection, name) for name in ("fetchval", "fetchrow")}

    def noting(name: str) -> Callable[..., Any]:
        async def fetch(self: Any, query: str, *values: Any) -> Any:
            if values and isinstance(values[0], bytes) and len(values[0]) == _WRITER_BYTES:
                calls.append((query, values))
            return await plain[name](self, query, *values)

        return fetch

    try:
        for name in plain:
            setattr(asyncpg.Connection, name, noting(name))
        yield calls
    finally:
        for name, method in plain.items():
            setattr(asyncpg.Connection, name, method)


@asynccontextmanager
async def _emptied(path: str, before: Sequence[Call]) -> AsyncIterator[Callable[[Call], Any]]:
    """Yield what makes a call, on a schema that is made anew and in which `before` was done."""
    db: Any = await asyncpg.connect(path)
    try:
        await db.execute("DROP SCHEMA sojourn CASCADE")
        store = open_store(path)
        await store.open()
        await store.close()
        await db.execute(f"{SETTINGS}; {ROWS_BY_INDEX}")
        prepared: dict[str, Any] = {}

        async def make(call: Call) -> None:
            query, values = call
            if query not in prepared:
                prepared[query] = await db.prepare(query)
            row = await prepared[query].fetchrow(*values)
            assert row is not None, "the commit is written"
            assert not row[0] or not isinstance(row[0], list), "no session had moved"

        for call in before:
            await make(call)
        yield make
    finally:
        await db.close()

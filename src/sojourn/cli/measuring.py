"""How fast is this kind of store here: `bench`, on a throw-away store; and `demo`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from sojourn.cli.call import Call
from sojourn.cli.columns import Column
from sojourn.cli.options import Json, StoreUrl, Url
from sojourn.cli.places import throwaway
from sojourn.manager import SessionManager
from sojourn.model import Event
from sojourn.settings import masked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn.session import Session

SECONDS = 1.0
"""How long each operation is measured: percentiles settle, and nobody waits long."""

CALLERS = 64
"""Callers at once in the second half: enough for commits to share a sync."""

WARM_UP = 5
"""Operations before the clock runs: first ones open connections and fill caches."""

SESSIONS = 64
"""Sessions that the operations work on, one for each caller."""

EVENTS = 50
"""Events in each of them: the windows that are read are filled."""

COLUMNS = (
    Column("OPERATION", least=22),
    Column("CALLERS", right=True),
    Column("OPS/S", least=8, right=True),
    Column("P50 MS", least=8, right=True),
    Column("P99 MS", least=8, right=True),
)


class Figure(NamedTuple):
    """What one operation costs. Times are milliseconds."""

    operation: str
    callers: int
    per_second: float
    p50: float
    p99: float


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.command("bench")(bench)
    program.command("demo")(demo)


def bench(
    context: typer.Context,
    store: StoreUrl = None,
    *,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=60.0, help="How long to measure each operation.")
    ] = SECONDS,
    json: Json = False,
    url: Url = None,
) -> None:
    """Measure a new, empty store of this kind, on the disk or server of the one that is named.

    The store that is named is not opened, and need not be there.
    """
    call = Call(context, url=url if store is None else store, json=json)
    call.run(_bench(call, seconds))


async def _bench(call: Call, seconds: float) -> None:
    async with (
        throwaway(call.url) as make,
        SessionManager.open(make(), app="bench") as sessions,
    ):
        figures = await _figures(call, sessions, seconds)
    if call.output.json:
        operations = [
            {
                "operation": one.operation,
                "callers": one.callers,
                "per_second": round(one.per_second, 1),
                "p50_ms": round(one.p50, 4),
                "p99_ms": round(one.p99, 4),
            }
            for one in figures
        ]
        document = {"store": masked(call.url), "seconds": seconds, "operations": operations}
        call.output.document(document)
        return
    call.output.table(COLUMNS, [_row(one) for one in figures])


def _row(one: Figure) -> tuple[str, ...]:
    rate = f"{one.per_second:,.0f}"
    return (one.operation, str(one.callers), rate, f"{one.p50:.3f}", f"{one.p99:.3f}")


async def _figures(call: Call, sessions: SessionManager, seconds: float) -> list[Figure]:
    copies = [await _filled(sessions, number) for number in range(SESSIONS)]
    work = _operations(sessions, copies)
    figures = []
    with call.output.progress("measuring", 2 * len(work)) as advance:
        for name, operation in work.items():
            for callers in (1, CALLERS):
                figures.append(await _measured(name, operation, callers, seconds))
                advance(1)
    return figures


async def _filled(sessions: SessionManager, number: int) -> Session:
    events = [Event(kind="message", author="user", body={"text": "hi"}) for _ in range(EVENTS)]
    return await sessions.create(id=f"s-{number}", state={"turn": 0}, events=events)


def _operations(
    sessions: SessionManager, copies: list[Session]
) -> dict[str, Callable[[int], Awaitable[object]]]:
    """Return what is measured; each is told the number of its caller."""

    async def append(caller: int) -> None:
        await sessions.append(copies[caller], Event(kind="message", body={"text": "hello"}))

    async def save(caller: int) -> None:
        copies[caller].state["turn"] += 1
        await sessions.save(copies[caller])

    return {
        "create": lambda _caller: sessions.create(state={"turn": 0}),
        "append": append,
        "save": save,
        "get": lambda caller: sessions.get(copies[caller].id),
        "last 20 events": lambda caller: sessions.events(copies[caller].id, last=20),
        "list 20": lambda _caller: sessions.list(limit=20),
    }


async def _measured(
    name: str, operation: Callable[[int], Awaitable[object]], callers: int, seconds: float
) -> Figure:
    for _ in range(WARM_UP):
        await operation(0)
    spent: list[float] = []
    start = time.perf_counter()
    last = start + seconds

    async def call(caller: int) -> None:
        while True:
            begin = time.perf_counter()
            await operation(caller)
            end = time.perf_counter()
            spent.append(end - begin)
            if end >= last:
                return
            await asyncio.sleep(0)  # a read that never waits must let the others have their turn

    await asyncio.gather(*(call(caller) for caller in range(callers)))
    total = time.perf_counter() - start
    spent.sort()
    return Figure(
        name, callers, len(spent) / total, 1000 * _at(spent, 0.5), 1000 * _at(spent, 0.99)
    )


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def demo(
    folder: Annotated[Path, typer.Option(help="Where the file goes.")] = Path("demo-run"),
    *,
    messages: Annotated[int, typer.Option(min=1, help="What each one says.")] = 100,
    quick: Annotated[bool, typer.Option("--quick", help="A few messages only.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only check what an earlier run left.")
    ] = False,
) -> None:
    """Show what is guaranteed, on a real file, with processes that are killed on the way."""
    from sojourn.demo.__main__ import main

    arguments = [f"--folder={folder}", f"--messages={messages}"]
    arguments += ["--quick"] * quick + ["--check"] * check
    raise typer.Exit(main(arguments))

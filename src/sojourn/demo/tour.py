"""The story that the demo tells, chapter by chapter."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from sojourn import Conflict, Event, Expiry, LeaseLost, Reaper, SessionManager
from sojourn.demo.client import said_key
from sojourn.demo.ledger import Acknowledged, Check, Ledger, Seen, compare, database_url
from sojourn.demo.processes import Worker
from sojourn.demo.verify import ARCHIVE, there
from sojourn.demo.watcher import LAST_WORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sojourn import Session
    from sojourn.demo.report import Report

PEOPLE = ("anna", "ben", "cleo", "dora")
INTERRUPTED = "dora"
ENDLESS = 1_000_000
"""What the interrupted one sets out to say: it never gets to the end of it by itself."""

HOUR = 3600
SECONDS = 120.0
"""The whole demo takes seconds; longer than this, something hangs and it says so."""

Line = TypeVar("Line")


class LaterClock:
    """A clock that is an hour ahead: it saves the demo an hour of waiting."""

    def now(self) -> int:
        """Return the instant in microseconds since the epoch."""
        return time.time_ns() // 1000 + HOUR * 1_000_000


async def run(folder: Path, ledger: Ledger, messages: int, report: Report) -> None:
    """Tell the whole story on an empty database; what happened is in the ledger then."""
    url = database_url(folder)
    try:
        async with (
            asyncio.timeout(SECONDS),
            SessionManager.open(url, app="chat") as sessions,
        ):
            await chat(sessions, url, ledger, messages, report)
            await fork(sessions, ledger, report)
            await conflict(sessions, ledger, report)
            await fence(sessions, url, ledger, report)
            await expire(sessions, url, ledger, report)
    finally:
        ledger.save(folder)


@asynccontextmanager
async def started(module: str, *arguments: str, kind: type[Line]) -> AsyncIterator[Worker[Line]]:
    """Run a worker; it does not outlive the body."""
    worker = await Worker.start(module, *arguments, kind=kind)
    try:
        yield worker
    finally:
        await worker.abandon()


async def chat(
    sessions: SessionManager, url: str, ledger: Ledger, messages: int, report: Report
) -> None:
    """Let several processes write to one session, and others watch; kill one, stop another."""
    report.chapter(f"{len(PEOPLE)} processes write to one session; one more reads along")
    room = await sessions.create(labels={"topic": "tea"})
    ledger.room, ledger.interrupted = room.id, INTERRUPTED
    report.say(f"session {room.id} is made")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            started("watcher", url, room.id, "0", kind=Seen),
        )
        report.say(f"watcher (pid {first.pid}) reads from the start")
        clients: list[Worker[Acknowledged]] = []
        for name in PEOPLE:
            more = ENDLESS if name == INTERRUPTED else messages
            client = await stack.enter_async_context(
                started("client", url, room.id, name, str(more), kind=Acknowledged)
            )
            report.say(f"{name} (pid {client.pid}) writes")
            clients.append(client)
        cursor = await stop_watching(first, ledger, messages, report)
        last = await interrupt(clients.pop(), ledger, messages, report)
        await sessions.append(room, Event(kind="note", body="nobody reads along just now"))
        second = await stack.enter_async_context(
            started("watcher", url, room.id, str(cursor), kind=Seen),
        )
        report.say(f"another watcher (pid {second.pid}) goes on behind event {cursor}")
        again = await stack.enter_async_context(
            started("client", url, room.id, INTERRUPTED, str(messages), kind=Acknowledged)
        )
        report.say(f"{INTERRUPTED} (pid {again.pid}) is back in the same session and goes on")
        await finish([*clients, again], ledger, report)
        closing = await sessions.append(room, Event(kind=LAST_WORD))
        await second.finished()
        ledger.watched.append(second.lines)
    went_on = again.lines[0].number
    what = f"the number with which {INTERRUPTED} went on"
    ledger.checks.append(
        Check(what, f"{last + 1} or {last + 2}", str(went_on), went_on - last in (1, 2))
    )
    report.say(f"the log has {closing.seq} events; the watcher was given the last one")


async def stop_watching(
    watcher: Worker[Seen], ledger: Ledger, messages: int, report: Report
) -> int:
    """Stop the watcher in the middle and return its cursor: the number of its last event."""
    await watcher.reported(max(1, messages // 2))
    await watcher.stop()
    ledger.watched.append(watcher.lines)
    cursor = watcher.lines[-1].seq
    report.say(f"the watcher is stopped; it has been given {cursor} events")
    return cursor


async def interrupt(
    client: Worker[Acknowledged], ledger: Ledger, messages: int, report: Report
) -> int:
    """Kill a client while it writes, and return the number of its last acknowledged message."""
    await client.reported(max(2, messages // 2))
    code = await client.kill()
    ledger.acknowledged += client.lines
    last = max(line.number for line in client.lines if line.what == "message")
    report.say(f"{INTERRUPTED} is killed while it writes: SIGKILL, {last} messages acknowledged")
    ledger.checks.append(compare("exit code of the killed process", -9, code))
    return last


async def finish(clients: list[Worker[Acknowledged]], ledger: Ledger, report: Report) -> None:
    """Wait for the clients that are left and note what they were told."""
    for client in clients:
        await client.finished()
        ledger.acknowledged += client.lines
    messages = sum(line.what == "message" for line in ledger.acknowledged)
    cards = len(ledger.acknowledged) - messages
    report.say(f"all are done: {messages} messages and {cards} saves were acknowledged")


async def fork(sessions: SessionManager, ledger: Ledger, report: Report) -> None:
    """Fork the room in its middle and let the copy go another way."""
    report.chapter("A fork goes its own way")
    log = await sessions.events(ledger.room)
    ledger.forked_at = len(log) // 2
    copy = await sessions.fork(ledger.room, at=ledger.forked_at)
    ledger.fork = copy.id
    await sessions.append(copy, Event(kind="note", body="what if?"), state={"mood": "curious"})
    source = await sessions.require(ledger.room)
    report.say(f"session {copy.id} is the room as of event {ledger.forked_at}, and one note more")
    at_fork = [event for event in log if (event.seq or 0) <= ledger.forked_at]
    counts = {name: sum(event.author == name for event in at_fork) for name in PEOPLE}
    ledger.checks += [
        compare(
            "the fork's mood, looked up in its source", "none", source.state.get("mood", "none")
        ),
        compare(
            "counts in the fork's state: as of the event",
            [counts[name] for name in PEOPLE],
            [copy.state.get(said_key(name), 0) for name in PEOPLE],
        ),
    ]


async def conflict(sessions: SessionManager, ledger: Ledger, report: Report) -> None:
    """Let two copies of one session change the same key: a strict save is refused."""
    report.chapter("A strict save does not overwrite what it has not seen")
    plan = await sessions.create(state={"seats": 4})
    mine, yours = await sessions.require(plan.id), await sessions.require(plan.id)
    yours.state["seats"] -= 1
    await sessions.save(yours, conflict="fail")
    mine.state["seats"] -= 1
    outcome = "saved"
    try:
        await sessions.save(mine, conflict="fail")
    except Conflict as error:
        outcome = "refused"
        report.say(f"refused: {error}")
    await sessions.refresh(mine)
    mine.state["seats"] -= 1
    await sessions.save(mine, conflict="fail")
    report.say("after a refresh it is saved")
    seats = (await sessions.require(plan.id)).state["seats"]
    ledger.checks += [
        compare("the second of two strict saves", "refused", outcome),
        compare("seats left of 4 after two bookings", 2, seats),
    ]


async def fence(sessions: SessionManager, url: str, ledger: Ledger, report: Report) -> None:
    """Let a worker sleep past the end of its lease: what it writes afterwards is refused."""
    report.chapter("A worker that lost its lease can not write")
    job = await sessions.create()
    outcome = "written"
    async with (
        SessionManager.open(url, app="chat", clock=LaterClock()) as later,
        sessions.lease(job.id, ttl=30, renew=False) as slow,
        later.lease(job.id, ttl=30) as quick,
    ):
        report.say(f"the slow worker had token {slow.token}, the next one has {quick.token}")
        await later.append(job.id, Event(kind="result", body="the next one's"), lease=quick)
        try:
            await sessions.append(job.id, Event(kind="result", body="too late"), lease=slow)
        except LeaseLost as error:
            outcome = "refused"
            report.say(f"refused: {error}")
    results = [event.body for event in await sessions.events(job.id)]
    ledger.checks += [
        compare("the late write of the slow worker", "refused", outcome),
        compare("results in the log", ["the next one's"], results),
    ]


async def expire(sessions: SessionManager, url: str, ledger: Ledger, report: Report) -> None:
    """Let an idle session expire: it is missing at its deadline, and ends through its hook."""
    report.chapter("An idle session expires, through its end hook")
    visitor = await sessions.create(state={"basket": "tea"}, expiry=Expiry(idle=HOUR / 2))
    ledger.visitor = visitor.id
    report.say(f"session {visitor.id} may be idle for half an hour; the clock goes on by an hour")
    calls: list[str] = []
    async with SessionManager.open(url, app="chat", clock=LaterClock()) as later:

        async def archive(session: Session, reason: str) -> None:
            calls.append(reason)
            body = f"basket: {session.state['basket']}".encode()
            await later.documents().put(ARCHIVE, session.id, body, content_type="text/plain")
            report.say(f"end hook: reason {reason!r}, state {dict(session.state)}")

        later.on_end(archive)
        before = await later.get(visitor.id)
        report.say("it is missing already, before anything has swept")
        ended = await Reaper(later).sweep()
        report.say(f"the reaper has ended {ended}")
    ledger.checks += [
        compare("the idle session at its deadline, before the reaper", "missing", there(before)),
        compare("runs of its end hook", ["expired"], calls),
    ]

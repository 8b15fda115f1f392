"""A Redis Cluster that loses masters and moves slots under load.

The shards lose theirs in turn: a replica that stood in an election may not stand again for four
node timeouts, whatever it has, so the servers promise nothing to one that loses two within that.

What asynchronous replication loses is counted; with replicas that confirm, nothing is lost. Nothing
is ever there twice.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.faults.soak import SOAK, Progress, count, scaled
from tests.faults.test_redis_faults import leaves_nothing
from tests.servers.redis import Cluster, id_of, values_in

from sojourn import Conflict, Event, SessionManager, Unavailable
from sojourn.stores.redis.routes import TAGS, of_id, of_user, slot_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.redis import Server

pytestmark = pytest.mark.xdist_group("redis")

ROUNDS = count(1, 20)
WRITERS = 24
NODE_TIMEOUT = 2.0
SHARD_SLOTS = [16_384 * part // 3 for part in range(3)]
"""A slot of each shard, whoever its master is."""

OUTAGE = NODE_TIMEOUT + 4.0
"""Seconds without a write that a lost master may cost; looked at in the long form only, for the
short one shares its machine with other tests."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three masters, each with one replica."""
    made = Cluster(node_timeout=round(NODE_TIMEOUT * 1000))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def safe_cluster() -> Iterator[Cluster]:
    """Three masters, each with two replicas: one may go, and the other still confirms."""
    made = Cluster(replicas=2, node_timeout=round(NODE_TIMEOUT * 1000))
    try:
        yield made
    finally:
        made.stop()


class Writer:
    """Appends numbered events to a session of its own, and remembers which were acknowledged.

    Each append is strict: when an acknowledged one was lost, the next one conflicts, and the writer
    sees which are gone.
    """

    def __init__(self, number: int, news: asyncio.Event) -> None:
        self.news = news
        self.id = f"s{number}"
        self.user = f"u{number}"
        self.acknowledged: list[int] = []
        self.lost: set[int] = set()
        self.begun = 0
        self.outage = 0.0

    async def write(self, sessions: SessionManager, until: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        session = await sessions.require(self.id)
        last = loop.time()
        while not until.is_set():
            self.begun += 1
            number = self.begun
            delta = {"n": number, "user:n": number, f"app:{self.id}": number}
            event = Event(kind="note", body=number)
            try:
                await sessions.append(session, event, state=delta, conflict="fail")
            except Conflict:
                await sessions.refresh(session)
                gone = {n for n in self.acknowledged if n > session.state.get("n", 0)} - self.lost
                assert gone, f"{self.id}: a conflict with nobody"
                self.lost |= gone
                continue
            self.acknowledged.append(number)
            self.news.set()
            self.outage = max(self.outage, loop.time() - last)
            last = loop.time()

    async def judge(self, sessions: SessionManager) -> int:
        """Return how many acknowledged events are lost: those it knows of. None is there twice."""
        events = await sessions.events(self.id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        found = [event.body for event in events]
        assert len(found) == len(set(found)), f"{self.id}: events are there twice"
        assert found == sorted(found), f"{self.id}: events are out of order"
        assert set(self.acknowledged) - set(found) == self.lost, f"{self.id}: lost unnoticed"
        session = await sessions.require(self.id)
        assert session.state["n"] == session.state["user:n"] == found[-1], "half of a commit"
        assert session.state[f"app:{self.id}"] == found[-1], "an errand was not run"
        assert session.revision == 1 + len(found)
        return len(self.lost)


async def survive(cluster: Cluster, url: str, how: str, what: str) -> Figures:
    """Lose a master in each round, under load, and see what came of it."""
    news = asyncio.Event()
    progress = Progress(what, ROUNDS)
    writers = [Writer(number, news) for number in range(WRITERS)]
    outage = 0.0
    place = url if "replicas" in url else f"{url}&replicas=1"
    async with SessionManager.open(place) as sessions:
        for one in writers:  # these are on the replicas when it begins
            await sessions.create(id=one.id, user=one.user)
    async with SessionManager.open(url) as sessions, asyncio.timeout(3600):
        for number in range(1, ROUNDS + 1):
            done = asyncio.Event()
            tasks = [asyncio.ensure_future(one.write(sessions, done)) for one in writers]
            await _all_write(writers, tasks, 20)
            victim = master_of(cluster, SHARD_SLOTS[number % len(SHARD_SLOTS)])
            victim.kill() if how == "kill" else victim.freeze()
            await _all_write(writers, tasks, 5)
            cluster.revive()
            await asyncio.to_thread(cluster.wait)
            await _all_write(writers, tasks, 5)
            done.set()
            await asyncio.gather(*tasks)
            outage = max(outage, *(one.outage for one in writers))
            progress.at(number, outage=round(outage, 1))
        lost = sum([await one.judge(sessions) for one in writers])
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can
    assert outage <= OUTAGE or not SOAK, f"no writes for {outage:.1f} s"
    acknowledged = sum(len(one.acknowledged) for one in writers)
    return Figures(progress, acknowledged, lost, round(outage, 1))


class Figures(NamedTuple):
    """What came of losing masters: events, and the longest time without one in seconds."""

    progress: Progress
    acknowledged: int
    lost: int
    outage: float

    def keep(self, name: str) -> None:
        """Keep them for the documentation."""
        facts = {"acknowledged": self.acknowledged, "lost": self.lost, "outage": self.outage}
        self.progress.figure(name, rounds=ROUNDS, doubled=0, **facts)


async def _all_write(writers: list[Writer], tasks: list[asyncio.Task[None]], more: int) -> None:
    """Return once every writer has had so many more acknowledged."""
    marks = [len(one.acknowledged) + more for one in writers]
    while any(len(one.acknowledged) < mark for one, mark in zip(writers, marks, strict=True)):
        news = writers[0].news
        news.clear()
        heard = asyncio.ensure_future(news.wait())
        done, _ = await asyncio.wait((heard, *tasks), return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        for task in done - {heard}:
            task.result()


@scaled
@pytest.mark.parametrize("how", ["kill", "freeze"] if SOAK else ["kill"])
async def test_a_lost_master_doubles_nothing(cluster: Cluster, how: str) -> None:
    """No caller sees an error but the one that says what asynchronous replication has lost."""
    url = f"{cluster.url}?prefix={how}&timeout=30"
    figures = await survive(cluster, url, how, f"masters lost: {how}")
    assert figures.lost <= figures.acknowledged // 20, "more than what was on its way"
    figures.keep(f"redis_{how}")


@scaled
@pytest.mark.parametrize("how", ["kill", "freeze"] if SOAK else ["freeze"])
async def test_a_lost_master_loses_nothing_that_a_replica_confirmed(
    safe_cluster: Cluster, how: str
) -> None:
    url = f"{safe_cluster.url}?prefix={how}&timeout=30&replicas=1"
    try:
        figures = await survive(safe_cluster, url, how, f"masters lost, replicas confirm: {how}")
        assert figures.lost == 0
    except BaseException:
        for server in safe_cluster.servers:  # who was elected, and what it had
            sys.stderr.write(f"--- {server.port}\n{server.said()}")
        raise
    figures.keep(f"redis_{how}_confirmed")


async def test_a_master_that_is_away_delays_nobody_but_its_own() -> None:
    """While it is frozen, sessions elsewhere are written as ever; its own once it is back."""
    cluster = Cluster(replicas=0, node_timeout=60_000)
    try:
        async with SessionManager.open(f"{cluster.url}?timeout=60") as sessions:
            by_port = await sessions_by_port(sessions)
            victim = cluster.servers[0]
            slow, cancelled, *_ = by_port.pop(victim.port)
            others = [id for ids in by_port.values() for id in ids]
            victim.freeze()
            try:
                late = [
                    asyncio.ensure_future(sessions.append(id, Event(kind="note")))
                    for id in (slow, cancelled)
                ]
                for number in range(20):
                    if number == 10:
                        late[1].cancel()
                    writes = (sessions.append(id, Event(kind="note")) for id in others)
                    await asyncio.gather(*writes)
                assert not any(task.done() for task in late), "they are not final yet"
            finally:
                victim.thaw()
            await late[0]
            with pytest.raises(asyncio.CancelledError):
                await late[1]
            for id in (slow, cancelled):
                assert len(await sessions.events(id)) == 1, "what was begun is there"
            for id in others:
                assert len(await sessions.events(id)) == 20
    finally:
        cluster.stop()


async def test_a_master_that_never_answers_ends_every_call_and_the_closing() -> None:
    """What was sent to it, what waits behind that, and what is cancelled; then the store."""
    cluster = Cluster(replicas=0, node_timeout=60_000)
    try:
        sessions = SessionManager.open(f"{cluster.url}?timeout=1")
        async with sessions:
            by_port = await sessions_by_port(sessions)
            victim = cluster.servers[0]
            slow = by_port.pop(victim.port)
            other = next(iter(by_port.values()))[0]
            victim.freeze()
            sent = [asyncio.ensure_future(sessions.append(id, Event(kind="note"))) for id in slow]
            await sessions.append(other, Event(kind="note"))
            behind = [asyncio.ensure_future(sessions.append(id, Event(kind="note"))) for id in slow]
            await sessions.append(other, Event(kind="note"))
            behind[0].cancel()
            outcomes = await asyncio.gather(*sent, *behind, return_exceptions=True)
            cancelled = outcomes.pop(len(sent))
            assert isinstance(cancelled, asyncio.CancelledError)
            assert {type(outcome) for outcome in outcomes} == {Unavailable}
            last = [asyncio.ensure_future(sessions.append(id, Event(kind="note"))) for id in slow]
            await sessions.append(other, Event(kind="note"))
        assert all(task.done() for task in last), "a store that is closed owes nobody an answer"
        assert {type(task.exception()) for task in last} == {Unavailable}
    finally:
        cluster.stop()


async def sessions_by_port(sessions: SessionManager) -> dict[int, list[str]]:
    """Make sessions on every master, and return their ids by its port."""
    topology = sessions.store._client.topology  # type: ignore[attr-defined]  # it is Redis's
    found: dict[int, list[str]] = {}
    for number in range(24):
        user = f"u{number}"
        _, port = topology.master_of(of_user("default", user))
        await sessions.create(id=f"s{number}", user=user)
        found.setdefault(port, []).append(f"s{number}")
    return found


@scaled
async def test_slots_that_move_are_no_error_to_anybody(cluster: Cluster) -> None:
    """While routes are moved from one master to another and back, key by key, under load."""
    moves = count(6, 200)
    progress = Progress("slots moved", moves)
    news = asyncio.Event()
    writers = [Writer(number, news) for number in range(WRITERS)]
    async with SessionManager.open(f"{cluster.url}?prefix=moved&timeout=30") as sessions:
        for one in writers:
            await sessions.create(id=one.id, user=one.user)
        done = asyncio.Event()
        tasks = [asyncio.ensure_future(one.write(sessions, done)) for one in writers]
        choice = random.Random(5)
        for number in range(1, moves + 1):
            await asyncio.to_thread(move_slot, cluster, slot_of(choice.choice(TAGS)), choice)
            await _all_write(writers, tasks, 2)
            progress.at(number)
        done.set()
        await asyncio.gather(*tasks)
        assert sum([await one.judge(sessions) for one in writers]) == 0
        assert await sessions.count() == WRITERS
    progress.figure("redis_moved", slots=moves, errors=0)


@pytest.mark.parametrize("kept", [0, 2, 28])
async def test_a_log_is_cut_while_its_slot_moves(cluster: Cluster, kept: int) -> None:
    """Before its keys leave, and when all have come: no key can be made that was not there."""
    async with SessionManager.open(f"{cluster.url}?prefix=cutting&timeout=30") as sessions:
        session = await sessions.create(id=f"s{kept}")
        slot = slot_of(TAGS[of_id("default", session.id)])
        source = master_of(cluster, slot)
        target = next(server for server in cluster.masters() if server is not source)
        await sessions.append(session, *[Event(kind="k", id=f"e{n}") for n in range(30)])
        begin_to_move(slot, source, target)
        session = await sessions.truncate(session, after=kept + 1)
        move_keys(slot, source, target)
        session = await sessions.truncate(session, after=kept)
        for server in (target, source, *cluster.masters()):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", id_of(target))
        found = [event.id for event in await sessions.events(session.id, last=50)]
        assert found == [f"e{n}" for n in range(kept)]
        (ids,) = [
            text
            for text in values_in([target])
            if text.startswith(b"cutting:") and f":ids:default:{session.id}\n".encode() in text
        ]
        assert sorted(ids.split(b"\n")[1::2]) == sorted([b"", *(str(id).encode() for id in found)])


def move_slot(cluster: Cluster, slot: int, choice: random.Random) -> None:
    """Move a slot from the master that has it to another, as resharding does."""
    masters, source = cluster.masters(), master_of(cluster, slot)
    target = choice.choice([server for server in masters if server is not source])
    begin_to_move(slot, source, target)
    move_keys(slot, source, target)
    for server in (target, source, *masters):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", id_of(target))


def begin_to_move(slot: int, source: Server, target: Server) -> None:
    """Have two masters know that a slot goes from one to the other."""
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))


def move_keys(slot: int, source: Server, target: Server) -> None:
    """Move what is in a slot that goes from one master to another."""
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 3):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)


def master_of(cluster: Cluster, slot: int) -> Server:
    """Return the master that serves a slot."""
    return next(server for server in cluster.masters() if owns(server, slot))


def owns(server: Server, slot: int) -> bool:
    """Return whether a master serves a slot."""
    me = id_of(server).encode()
    for first, last, (_, _, id_, *_), *_ in server.raw("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return bool(id_ == me)
    return False


@pytest.mark.parametrize("remove", ["delete", "forget", "end", "reap"])
async def test_nothing_is_left_of_what_was_removed(cluster: Cluster, remove: str) -> None:
    await leaves_nothing(f"{cluster.url}?prefix={remove}", cluster.masters(), remove)

"""Writers are killed at random moments: what was acknowledged is there, whole and once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from typing import Any

import pytest
from tests.faults.processes import ROOT
from tests.faults.soak import Progress, count, scaled

from sojourn import SessionManager

WRITERS = 4
KILLS = count(20, 320)
LOOK = count(10, 20)
"""Kills between two looks at the file."""

LONGEST_LIFE = 0.4
"""Seconds until the next kill, at most; at least one acknowledgement comes first."""


class Acknowledged:
    """What writers said was done: by session and slot, every number, in the order it was said."""

    def __init__(self) -> None:
        self.numbers: defaultdict[tuple[str, str], list[int]] = defaultdict(list)

    def add(self, line: bytes) -> None:
        """Take one line of a writer, unless it was cut short by the kill."""
        if line.endswith(b"\n"):
            id, slot, number = json.loads(line)
            self.numbers[id, slot].append(number)

    def __len__(self) -> int:
        return sum(map(len, self.numbers.values()))


class Writer:
    """One writing process, and what came out of it that is not a whole line yet."""

    def __init__(self, url: str, name: str, first: int, ids: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.workers.killed", url, name, str(first), *ids],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout
        os.set_blocking(self.pipe.fileno(), False)
        self.rest = b""
        self.spoke = False

    def read(self, acknowledged: Acknowledged) -> None:
        """Take what it has said so far."""
        while chunk := self._chunk():
            self.spoke = True
            *lines, self.rest = (self.rest + chunk).splitlines(keepends=True)
            if self.rest.endswith(b"\n"):
                lines, self.rest = [*lines, self.rest], b""
            for line in lines:
                acknowledged.add(line)

    def _chunk(self) -> bytes:
        try:
            return os.read(self.pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return b""

    def kill(self, acknowledged: Acknowledged) -> None:
        """Kill it with SIGKILL, which has to be what ends it, and hear its last words."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL, "a writer ended before it was killed"
        self.read(acknowledged)
        self.pipe.close()


class Loop:
    """Four writers on one file, killed and replaced at random."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.random = random.Random(seed)
        self.kills = 0
        self.acknowledged = Acknowledged()
        self.ids: list[str] = []
        self._next = 1

    def run(self, kills: int) -> None:
        """Kill so many writers one by one, then all that are left."""
        writers = [self._start(f"w{number}-") for number in range(WRITERS)]
        try:
            for _ in range(kills - WRITERS):
                victim = self.random.randrange(WRITERS)
                self._listen(writers, writers[victim])
                writers[victim].kill(self.acknowledged)
                writers[victim] = self._start(writers[victim].name)
            for writer in writers:
                self._listen(writers, writer)
                writer.kill(self.acknowledged)
            self.kills += kills
        finally:
            for writer in writers:
                writer.process.kill()
                writer.process.wait()

    def _start(self, name: str) -> Writer:
        self._next += 1_000_000
        return Writer(self.url, name, self._next, self.ids)

    def _listen(self, writers: list[Writer], victim: Writer) -> None:
        """Listen to all until the victim has spoken and a random moment after that has come."""
        alive = [writer for writer in writers if writer.process.returncode is None]
        with selectors.DefaultSelector() as selector:
            for writer in alive:
                selector.register(writer.pipe, selectors.EVENT_READ, writer)
            until = time.monotonic() + self.random.random() * LONGEST_LIFE
            while not victim.spoke or time.monotonic() < until:
                for key, _ in selector.select(max(0.0, until - time.monotonic()) or 0.01):
                    key.data.read(self.acknowledged)
                for writer in alive:
                    assert writer.process.poll() is None, "a writer ended before it was killed"


async def create(url: str, ids: list[str]) -> None:
    async with SessionManager.open(url) as sessions:
        for id in ids:
            await sessions.create(id=id, user=f"user of {id}")


async def verify(url: str, ids: list[str], acknowledged: Acknowledged) -> tuple[int, Counter[str]]:
    """Return how many events there are, and how often what is wrong with the file was found."""
    wrong: Counter[str] = Counter()
    total = 0
    async with SessionManager.open(url) as sessions:
        store: Any = sessions.store
        wrong["broken"] = len(await store.check())
        for id in ids:
            session = await sessions.require(id)
            events = await sessions.events(id)
            total += len(events)
            wrong["gaps"] += [event.seq for event in events] != list(range(1, len(events) + 1))
            log: defaultdict[str, list[int]] = defaultdict(list)
            for event in events:
                slot = str(event.author)
                log[slot].append(event.body)
                wrong["half"] += event.delta != {slot: event.body, f"user:{slot}": event.body}
            wrong += judge(id, dict(session.state), log, acknowledged)
        for id in ids:
            await sessions.delete(id)
    return total, +wrong


def judge(
    id: str, state: dict[str, Any], log: dict[str, list[int]], acknowledged: Acknowledged
) -> Counter[str]:
    """Compare one session with what was acknowledged, and its log with its state."""
    wrong: Counter[str] = Counter()
    for slot, numbers in log.items():
        wrong["doubled"] += len(numbers) - len(set(numbers))
        wrong["half"] += state.get(slot) != numbers[-1]
    for key, value in state.items():
        if not key.startswith("user:"):
            wrong["half"] += state.get(f"user:{key}") != value
            wrong["half"] += not key.endswith(" saved") and key not in log
        else:
            wrong["half"] += key.removeprefix("user:") not in state
    for (owner, slot), numbers in acknowledged.numbers.items():
        if owner != id:
            continue
        if slot.endswith(" saved"):
            wrong["lost"] += state.get(slot, 0) < numbers[-1]
        else:
            wrong["lost"] += len(set(numbers) - set(log.get(slot, ())))
    return wrong


@scaled
@pytest.mark.xdist_group("processes")
@pytest.mark.behaviour(64)
@pytest.mark.behaviour(65)
def test_killed_writers_lose_double_and_halve_nothing(shared_url: str) -> None:
    """Nothing acknowledged is lost or doubled, no event without its delta and none the reverse."""
    loop = Loop(shared_url, seed=1)
    progress = Progress("kill loop", KILLS)
    wrong: Counter[str] = Counter()
    acknowledged = events = 0
    while loop.kills < KILLS:
        loop.ids = [f"s{loop.kills}-{number}" for number in range(3)]
        loop.acknowledged = Acknowledged()
        asyncio.run(create(shared_url, loop.ids))
        loop.run(LOOK)
        found, more = asyncio.run(verify(shared_url, loop.ids, loop.acknowledged))
        acknowledged += len(loop.acknowledged)
        events += found
        wrong += more
        progress.at(loop.kills, acknowledged=acknowledged, wrong=dict(wrong))
    kinds = ("lost", "doubled", "half", "gaps", "broken")
    progress.figure(
        f"kill_loop_{shared_url.partition(':')[0]}",
        kills=loop.kills,
        acknowledged=acknowledged,
        events=events,
        **{kind: wrong[kind] for kind in kinds},
    )
    assert acknowledged > KILLS, "the writers hardly wrote"
    assert not wrong

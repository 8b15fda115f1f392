"""Actors that write step by step and know what each step leaves behind, to judge a file later.

Each actor has a part of the store to itself (its keys in a shared session, or sessions of its own).
What it left there has to be what some step left, whole: not older than the last step that was
acknowledged, not newer than the last one that was begun.
"""

from __future__ import annotations

import asyncio
import copy
import random
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sojourn import Event, SessionManager
from sojourn.stores.filesystem import FilesystemStore
from sojourn.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from sojourn.store import Durability

SHARED = "shared"
Verdict = Literal["ok", "lost", "torn"]


class Actor(Protocol):
    """Does one step after another; `left[n]` is what `observe` must find after `n` steps."""

    name: str
    left: list[Any]

    async def step(self, sessions: SessionManager) -> None:
        """Note what the next step will leave, then do it."""

    async def observe(self, sessions: SessionManager) -> Any:
        """Return what is in this actor's part of the store."""


def judge(actor: Actor, found: Any, acknowledged: int) -> Verdict:
    """Say whether what was found is what a step left that is new enough."""
    if found in actor.left[acknowledged:]:
        return "ok"
    return "lost" if found in actor.left[:acknowledged] else "torn"


def content(number: int, size: int = 3_000) -> bytes:
    """Return bytes that belong to a number, so that mixed ones show."""
    return random.Random(number).randbytes(size)


class Appender:
    """Appends to a session that others append to, with deltas in three tiers and documents."""

    def __init__(self, name: str, durability: Durability | None = None) -> None:
        self.name = name
        self.left: list[Any] = [((), None, None, None, None)]
        self._durability = durability

    async def step(self, sessions: SessionManager) -> None:
        number = len(self.left)
        bodies, *_, document = self.left[-1]
        if number % 4 == 0:
            body = content(number)
            self.left.append((*self.left[-1][:-1], body))
            documents = sessions.documents(SHARED)
            await documents.put("blobs", self.name, body, durability=self._durability)
            return
        text = content(number, 40 * number % 1500).hex()
        self.left.append(((*bodies, text), number, number, number, document))
        delta = {self.name: number, f"user:{self.name}": number, f"app:{self.name}": number}
        event = Event(kind="op", author=self.name, body=text)
        await sessions.append(SHARED, event, state=delta, durability=self._durability)

    async def observe(self, sessions: SessionManager) -> Any:
        session = await sessions.get(SHARED, events=10_000)
        if session is None:
            return self.left[0]
        seqs = [event.seq for event in session.events]
        if seqs != list(range(1, len(seqs) + 1)):
            return f"gaps: {seqs}"
        mine = [event for event in session.events if event.author == self.name]
        document = await sessions.documents(SHARED).get("blobs", self.name)
        return (
            tuple(event.body for event in mine),
            session.state.get(self.name),
            session.state.get(f"user:{self.name}"),
            session.state.get(f"app:{self.name}"),
            None if document is None else document.body,
        )


class Trimmer:
    """Appends to a session of its own, replaces the end of its log and truncates it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left: list[Any] = [None]

    async def step(self, sessions: SessionManager) -> None:
        number = len(self.left)
        if self.left[-1] is None:
            self.left.append({"log": [], "top": 0, "turn": None})
            await sessions.create(id=self.name, user=self.name)
            return
        after = copy.deepcopy(self.left[-1])
        self.left.append(after)
        log: list[tuple[int, str]] = after["log"]
        event = Event(kind="op", body=content(number, 200).hex(), delta={"turn": number})
        session = await sessions.require(self.name)
        if number % 5 == 0 and len(log) > 2:
            del log[-2:]
            await sessions.truncate(session, after=log[-1][0] if log else 0)
            return
        after["top"] += 1
        after["turn"] = number
        if number % 5 == 3 and log:
            replaced, _ = log.pop()
            log.append((after["top"], event.body))
            await sessions.replace_suffix(session, expected=[replaced], events=[event])
            return
        log.append((after["top"], event.body))
        await sessions.append(session, event)

    async def observe(self, sessions: SessionManager) -> Any:
        session = await sessions.get(self.name, events=10_000)
        if session is None:
            return None
        log = [(event.seq, event.body) for event in session.events]
        return {"log": log, "top": session.header.seq, "turn": session.state.get("turn")}


class Maker:
    """Creates sessions with events and labels, gives them documents and deletes them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left: list[Any] = [{}]

    async def step(self, sessions: SessionManager) -> None:
        number = len(self.left)
        after = copy.deepcopy(self.left[-1])
        self.left.append(after)
        id = f"{self.name}-{number // 3}"
        if number % 3 == 0 or id not in after:
            bodies = [content(number + n, 100).hex() for n in range(3)]
            after[id] = [bodies, {"made": number, "end": 2}, None]
            events = [Event(kind="op", body=b, delta={"end": n}) for n, b in enumerate(bodies)]
            labels = {"maker": self.name, "number": str(number)}
            await sessions.create(id=id, labels=labels, state={"made": number}, events=events)
        elif number % 3 == 1:
            after[id][2] = content(number, 9_000)
            await sessions.documents(id).put("blobs", "one", after[id][2])
        else:
            del after[id]
            await sessions.delete(id)

    async def observe(self, sessions: SessionManager) -> Any:
        page = await sessions.list(labels={"maker": self.name})
        if page.corrupt or await sessions.count(labels={"maker": self.name}) != len(page.items):
            return "corrupt, or counted wrong"
        found = {}
        for session in page.items:
            bodies = [event.body for event in await sessions.events(session.id)]
            document = await sessions.documents(session.id).get("blobs", "one")
            body = None if document is None else document.body
            state = {k: v for k, v in session.state.items() if not k.startswith("app:")}
            found[session.id] = [bodies, state, body]
        return found


class Founder:
    """Creates the session that the others share."""

    name = "founder"

    def __init__(self) -> None:
        self.left: list[Any] = [False]

    async def step(self, sessions: SessionManager) -> None:
        self.left.append(True)
        await sessions.create(id=SHARED, user="u")

    async def observe(self, sessions: SessionManager) -> Any:
        return await sessions.get(SHARED) is not None


Note = "Callable[[str, Actor, int], None]"


async def run(
    sessions: SessionManager, actors: Sequence[Actor], steps: int, note: Callable[..., None]
) -> None:
    """Let all actors do their steps side by side; `note` hears of each one begun and done.

    They start their steps some turns of the loop apart, so that not all share every batch.
    """

    async def act(actor: Actor) -> None:
        turns = random.Random(f"{actor.name} {len(actor.left)}")
        for _ in range(steps):
            for _ in range(turns.randrange(4)):
                await asyncio.sleep(0)
            note("begun", actor, len(actor.left))
            await actor.step(sessions)
            note("done", actor, len(actor.left) - 1)

    await asyncio.gather(*map(act, actors))


async def opened_files(path: str | os.PathLike[str], **options: Any) -> SessionManager:
    """Return a manager over an open store in plain files; close its store, not it."""
    store = FilesystemStore(path, **options)
    await store.open()
    return SessionManager(store)


async def opened(path: str | os.PathLike[str], **options: Any) -> SessionManager:
    """Return a manager over an open SQLite store; close its store, not it."""
    store = SqliteStore(path, **options)
    await store.open()
    return SessionManager(store)

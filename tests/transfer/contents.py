"""What a store holds, all of it, in a form that is equal for equal stores; and how to fill one."""

from __future__ import annotations

import random
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sojourn import Event, Expiry, SessionManager, Trigger, codec
from sojourn.model import StoredDocument
from sojourn.store import Walk
from sojourn.stores import open_store
from sojourn.testing import FakeClock
from sojourn.transfer.walking import OWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.model import Header
    from sojourn.store import Snapshot
    from sojourn.transfer.walking import TransferStore

CLOCK = FakeClock()
FOREVER = Expiry(idle=10**9)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[TransferStore]:
    """Open a store, and close it in the end."""
    store = open_store(url)
    await store.open()
    try:
        yield cast("TransferStore", store)
    finally:
        await store.close()


async def contents(store: TransferStore, *apps: str, now: int | None = None) -> dict[str, Any]:
    """Return everything that a store holds, by app, but for what a move does not move."""
    now = CLOCK.now() if now is None else now
    found: dict[str, Any] = {}
    for app in apps or await store.apps("", 1000):
        sessions = [session async for session in sessions_of(store, app, now)]
        found[app] = {"sessions": sessions, "shared": await shared_of(store, app, now)}
    return found


async def ids_of(store: TransferStore, app: str) -> list[str]:
    """Return the ids of all sessions, in the order of their creation."""
    return [header.id for header in await headers_of(store, app)]


async def headers_of(store: TransferStore, app: str) -> list[Header]:
    """Return the headers of all sessions, in the order of their creation."""
    found: list[Header] = []
    position: str | None = None
    while True:
        page = await store.headers(Walk(app=app, now=0, position=position))
        assert not page.corrupt
        found += page.headers
        if (position := page.position) is None:
            return found


async def sessions_of(store: TransferStore, app: str, now: int) -> AsyncIterator[tuple[Any, ...]]:
    """Yield every session: its header but for its lease, its state, its log, its documents."""
    position: str | None = None
    while True:
        page = await store.dump(Walk(app=app, now=now, position=position))
        assert not page.corrupt
        for snapshot in page.snapshots:
            parts = [snapshot]
            if not snapshot.last:
                async with aclosing(store.parts(app, snapshot.header.id, now)) as reading:
                    parts = [part async for part in reading]
            yield _whole(parts)
        if (position := page.position) is None:
            return


def _whole(parts: list[Snapshot]) -> tuple[Any, ...]:
    header = msgspec.structs.replace(parts[0].header, holder=None, leased_until=0)
    state = {key: codec.decode(value, key) for key, value in parts[0].state.items()}
    entries = [_entry(entry) for part in parts for entry in part.entries]
    documents = [_document(item) for part in parts for item in part.documents]
    return header, exact(state), entries, documents


def _entry(entry: Any) -> tuple[Any, ...]:
    facts = msgspec.structs.astuple(entry)
    values = [None if text is None else exact(codec.decode(text, "event")) for text in facts[5:]]
    return (*facts[:5], *values)


def _document(document: StoredDocument) -> StoredDocument:
    return msgspec.structs.replace(document, number=0)


def exact(value: Any) -> str:
    """Return a value as text that differs when type or value does."""
    return msgspec.json.encode(value, order="deterministic").decode()


async def shared_of(store: TransferStore, app: str, now: int) -> list[Any]:
    """Return the tiers and documents of an app, without the notes of a copy."""
    found: list[Any] = []
    position: str | None = None
    while True:
        page = await store.shared(app, now, position)
        for item in page.items:
            if isinstance(item, StoredDocument):
                if not item.collection.startswith(OWN):
                    found.append(_document(item))
            else:
                state = {key: codec.decode(value, key) for key, value in item.state.items()}
                found.append((item.user or "", exact(state)))
        if (position := page.position) is None:
            return found


async def fill(
    store: TransferStore, app: str = "shop", *, sessions: int = 12, seed: int = 0
) -> None:
    """Put sessions of all sorts into an app, and things that they share."""
    dice = random.Random(seed)
    manager = SessionManager(store, app=app, clock=CLOCK)
    parent: str | None = None
    for number in range(sessions):
        s = await manager.create(
            id=f"{app}-{number:03}",
            user=dice.choice([None, "u-1", "多"]),
            state={"n": number, "deep": {"\x00\x1b": [-0.0, 2**80, None, "", "\u2028"]}},
            labels={"kind": dice.choice("ab")},
            parent=parent if number % 3 == 1 else None,
            expiry=FOREVER,
        )
        for turn in range(dice.randrange(4)):
            event = Event(kind="message", author="é", body={"turn": turn, "text": "a\nb"})
            await manager.append(s, event, state={"turn": turn})
        if s.user is not None:
            s.state["user:seen"] = number
        s.state["app:last"] = number
        await manager.save(s)
        if number % 4 == 2:
            await manager.documents(s.id).put("notes", "text", "né\r\n\t".encode())
            await manager.documents(s.id).put("notes", "bytes", bytes(range(256)))
        parent = s.id
    await _special(manager, app)
    before = SessionManager(store, app=app, clock=FakeClock(datetime(2025, 1, 1, tzinfo=UTC)))
    await before.create(id=f"{app}-expired", expiry=Expiry(absolute=60))


async def _special(manager: SessionManager, app: str) -> None:
    """Add sessions that are over, gapped, forked, exclusive; and documents of the app."""
    gapped = await manager.create(id=f"{app}-gapped", events=[Event(kind="k")] * 3, expiry=FOREVER)
    await manager.truncate(gapped, after=1)
    await manager.append(gapped, Event(kind="k", body=[]))
    await manager.fork(gapped.id, new_id=f"{app}-fork")
    agent = await manager.create(
        id=f"{app}-agent", lifecycle="agent", labels={"role": "x"}, exclusive=("role",)
    )
    await manager.apply(agent.id, Trigger.SPAWN)
    ended = await manager.create(id=f"{app}-ended", state={"n": 1})
    await manager.end(ended.id, reason="done", retain=10**9)
    await manager.documents(None).put("assets", "logo", b"\x89PNG")
    await manager.documents(None).put("assets", "empty", b"")

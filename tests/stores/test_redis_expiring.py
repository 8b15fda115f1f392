"""Sweeping an owner of many documents on Redis: some at a time, whatever others do in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from sojourn import SessionManager
from sojourn.store import Due
from sojourn.stores.redis import RedisStore, scripts
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.servers.redis import Server

    from sojourn.stores.redis.client import Call

pytestmark = pytest.mark.xdist_group("redis")

FEW = 10
"""Documents that are looked at together here."""

ENDING = {3: 60, 20: 60, 39: 60, 30: 120}
"""Which documents expire, and after how many seconds."""

HEAL = 600
"""Seconds after which a sweep that was not gone on with begins anew."""


class Shelf:
    """Forty documents of a session, and sweeps that somebody comes in between."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self.clock = FakeClock()
        self._begin = self.clock.now()
        url = f"{server.url}?prefix={prefix}"
        self.sessions = SessionManager.open(url, clock=self.clock)
        self.docs = self.sessions.documents("s")
        self.parts: list[int] = []

    async def __aenter__(self) -> None:
        """Open the store and put the documents."""
        await self.sessions.__aenter__()
        await self.sessions.create(id="s")
        for number in range(40):
            await self.docs.put("files", f"k{number:02}", b"x", ttl=ENDING.get(number))

    async def __aexit__(self, *_: object) -> None:
        """Close the store."""
        await self.sessions.__aexit__(None, None, None)

    async def sweep(self, between: Callable[[], Awaitable[object]] | None = None) -> None:
        """Sweep once, and do something after the second look."""
        store = self.sessions.store
        assert isinstance(store, RedisStore)
        run, self.parts = store._client.run, []

        async def observed(calls: Sequence[Call], *given: Any, **named: Any) -> Any:
            replies = await run(calls, *given, **named)
            looks = sum(call.command[1] == scripts.EXPIRE.sha for call in calls)
            self.parts += [looks] if looks else []
            if looks and between is not None and len(self.parts) == 2:
                await between()
            return replies

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sojourn.stores.redis.removal.LOOKED_AT", FEW)
            patch.setattr(store._client, "run", observed)
            await store.reap(Due(app="default", now=self.clock.now(), limit=10))

    def gone(self, id: str = "s") -> set[int]:
        """Return which of a session's documents the server has no more."""
        with redis.Redis(port=self._server.port, protocol=2) as client:
            (key,) = client.scan_iter(f"{self._prefix}:*:docs:default:{id}")
            names = client.hkeys(key)
        return {number for number in range(40) if b"files:k%02d" % number not in names}

    def owners(self) -> dict[bytes, float]:
        """Return who is listed for documents that expire, and after how many seconds."""
        with redis.Redis(port=self._server.port, protocol=2) as client:
            found = [
                entry
                for key in client.scan_iter(f"{self._prefix}:*:docdue:default")
                for entry in client.zrange(key, 0, -1, withscores=True)
            ]
        return {name: (when - self._begin) / 1_000_000 for name, when in found}


@pytest.fixture
def shelf(redis_server: Server, tmp_path: Path) -> Shelf:
    return Shelf(redis_server, tmp_path.name)


async def test_many_documents_are_looked_at_in_parts(shelf: Shelf) -> None:
    """Ten at a time, until there are no more; and the next deadline is noted."""
    async with shelf:
        shelf.clock.advance(60)
        await shelf.sweep()
        assert (shelf.parts, shelf.gone()) == ([1] * 5, {3, 20, 39})
        assert shelf.owners() == {b"s": 120}
        await shelf.sweep()
        assert shelf.parts == []
        shelf.clock.advance(60)
        await shelf.sweep()
        assert (shelf.gone(), shelf.owners()) == ({3, 20, 30, 39}, {})


@pytest.mark.parametrize(("number", "ttl"), [(5, 30), (5, 90), (35, 30), (5, 9_000)])
async def test_a_document_that_is_put_meanwhile_is_not_forgotten(
    shelf: Shelf, number: int, ttl: int
) -> None:
    """Whether the looks have passed it or not, and whether it is the next one to expire or not."""
    async with shelf:
        shelf.clock.advance(60)
        await shelf.sweep(lambda: shelf.docs.put("files", f"k{number:02}", b"y", ttl=ttl))
        assert shelf.owners() == {b"s": min(60 + ttl, 120)}
        shelf.clock.advance(60)
        await shelf.sweep()
        assert shelf.gone() == {3, 20, 30, 39} | ({number} if ttl <= 60 else set())
        assert shelf.owners() == ({} if ttl <= 60 else {b"s": 60 + ttl})
        shelf.clock.advance(9_000)
        await shelf.sweep()
        assert (shelf.gone(), shelf.owners()) == ({3, 20, 30, 39, number}, {})


async def test_a_document_is_put_meanwhile_where_no_other_expires(shelf: Shelf) -> None:
    async with shelf:
        shelf.clock.advance(120)
        await shelf.sweep(lambda: shelf.docs.put("files", "k05", b"y", ttl=700))
        assert (shelf.gone(), shelf.owners()) == (set(ENDING), {b"s": 820})


async def test_a_sweep_that_died_half_way_is_begun_anew(shelf: Shelf) -> None:
    """By whoever sweeps next, after some time."""
    async with shelf:

        async def die() -> None:
            raise RuntimeError

        shelf.clock.advance(60)
        with pytest.raises(RuntimeError):
            await shelf.sweep(die)
        assert shelf.gone() == {3}
        shelf.clock.advance(HEAL - 1)
        await shelf.sweep()
        assert shelf.parts == []
        shelf.clock.advance(1)
        await shelf.sweep()
        assert (shelf.gone(), shelf.owners()) == (set(ENDING), {})


async def test_two_sweeps_at_once_leave_what_one_does(shelf: Shelf) -> None:
    async with shelf:
        shelf.clock.advance(60)

        async def meanwhile() -> None:
            await shelf.docs.put("files", "k05", b"y", ttl=1)
            shelf.clock.advance(1)
            store = shelf.sessions.store
            await store.reap(Due(app="default", now=shelf.clock.now(), limit=10))

        await shelf.sweep(meanwhile)
        assert (shelf.gone(), shelf.owners()) == ({3, 5, 20, 39}, {b"s": 120})


async def test_nothing_is_left_of_a_session_that_is_removed_meanwhile(shelf: Shelf) -> None:
    async with shelf:
        shelf.clock.advance(60)
        await shelf.sweep(lambda: shelf.sessions.delete("s"))
        assert shelf.owners() == {}


async def test_what_a_fork_took_along_is_removed_as_well(shelf: Shelf) -> None:
    async with shelf:
        await shelf.sessions.fork("s", new_id="copy")
        assert shelf.owners() == {b"s": 60, b"copy": 60}
        shelf.clock.advance(60)
        await shelf.sweep()
        assert shelf.gone("copy") == shelf.gone() == {3, 20, 39}
        assert shelf.owners() == {b"s": 120, b"copy": 120}

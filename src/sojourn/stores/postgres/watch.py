"""Wake-ups: at once for commits of this process, by LISTEN for those of others, by a poll as a net.

A process that watches says so in a table, for a while. Only then do writers announce what they
change, because announcements make commits wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

from sojourn.errors import SojournError
from sojourn.stores.postgres.pool import connect_calmly
from sojourn.stores.postgres.schema import channel, sql
from sojourn.stores.postgres.trouble import DRIVER_ERRORS
from sojourn.wakeups import Lookout, Wakeup, Wakeups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.stores.planning import Key
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection, Pool

POLL_SECONDS = 1.0
"""How often the store is asked about watched sessions, in case an announcement was lost."""

POLL_ALONE_SECONDS = 0.1
"""The same where there are no announcements: behind a transaction pooler."""

POLL_SHARE = 20
"""Rest this many times as long as the last look took."""

LISTENING_SECONDS = 30
"""For so long others announce their changes; said again at a third of it."""

_LISTENING = """INSERT INTO {s}.listeners(listener, until)
    VALUES ($1, clock_timestamp() + make_interval(secs => $2))
    ON CONFLICT (listener) DO UPDATE SET until = excluded.until"""
_VERSIONS = """SELECT s.app, s.id, s.row, s.version
    FROM unnest($1::text[], $2::text[]) AS k(app, id)
    JOIN {s}.sessions AS s ON s.app = k.app AND s.id = k.id"""


class Watchers:
    """Who waits for which session, and the tasks that find out what others changed."""

    def __init__(self, address: Address, pool: Pool) -> None:
        """`pool` is where the poll reads."""
        self._address = address
        self._pool = pool
        self._name = b""
        self._waiting = Wakeups()
        self._by_digest: dict[str, Key] = {}
        self._known: dict[Key, tuple[Any, ...] | None] = {}
        self._lookout = Lookout()

    def begin(self) -> None:
        """Take a name of its own, when the store is opened: see `Writer.begin`."""
        self._name = secrets.token_bytes(16)

    def subscribe(self, key: Key) -> Wakeup:
        """Return a subscription to a session."""
        wakeup = Wakeup(key, self.leave)
        self._waiting.add(wakeup)
        self._by_digest[_digest(key)] = key
        if self._address.pooler:
            self._lookout.begin(self._poll)
        else:
            self._lookout.begin(self._poll, self._listen)
        return wakeup

    def leave(self, wakeup: Wakeup) -> None:
        """Forget a subscription; the last one stops the tasks."""
        if self._waiting.discard(wakeup):
            self._by_digest.pop(_digest(wakeup.key), None)
            self._known.pop(wakeup.key, None)
        if not self._waiting:
            self._lookout.end()

    def wake(self, keys: Iterable[Key]) -> None:
        """Wake whoever watches these sessions."""
        self._waiting.wake(keys)

    def wake_all(self) -> None:
        """Wake whoever watches anything."""
        self._waiting.wake_all()

    async def close(self) -> None:
        """Stop the tasks and wake everybody, to find the store closed."""
        await self._lookout.close()
        self.wake_all()

    # --- what others changed -------------------------------------------------------------------

    async def _poll(self) -> None:
        """Look for sessions that changed, as long as anybody watches."""
        rest = POLL_ALONE_SECONDS if self._address.pooler else POLL_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            keys = self._waiting.sessions()
            try:
                found = await self._pool.run(lambda db: self._versions(db, keys))  # noqa: B023 - run at once
            except SojournError:  # the watchers read by themselves, and meet it
                self.wake(keys)
            else:
                moved = [key for key in keys if self._known.get(key) != found.get(key)]
                self._known.update({key: found.get(key) for key in keys if key in self._waiting})
                self.wake(moved)
            await asyncio.sleep(max(rest, (loop.time() - started) * POLL_SHARE))

    async def _versions(self, db: Connection, keys: list[Key]) -> dict[Key, tuple[Any, ...]]:
        apps, ids = [app for app, _ in keys], [id for _, id in keys]
        found = await db.fetch(sql(_VERSIONS, self._address), apps, ids)
        return {(app, id): (row, version) for app, id, row, version in found}

    async def _listen(self) -> None:
        """Keep a connection that hears announcements, as long as anybody watches."""
        while True:
            with contextlib.suppress(*DRIVER_ERRORS, SojournError):
                await self._hear()
            await asyncio.sleep(POLL_SECONDS)  # the poll sees what happens meanwhile

    async def _hear(self) -> None:
        connection = await connect_calmly(self._address)
        try:
            await connection.add_listener(channel(self._address), self._heard)
            while True:
                statement = sql(_LISTENING, self._address)
                await connection.execute(
                    statement, self._name, LISTENING_SECONDS, timeout=self._address.timeout
                )
                self.wake_all()  # nobody spoke before there was a listener
                await asyncio.sleep(LISTENING_SECONDS / 3)
        finally:
            connection.terminate()  # at once; the others soon see that nobody listens

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self.wake(
            [self._by_digest[digest] for digest in payload.split() if digest in self._by_digest]
        )


def _digest(key: Key) -> str:
    """Return what an announcement calls a session; see the server's `notify_1`."""
    text = "\x1f".join(key).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest()[:16]

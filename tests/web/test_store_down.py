"""The store goes away under load and comes back: strangers see pages, nobody is logged out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.soak import Progress, count, scaled
from tests.servers.postgres import PostgresServer
from tests.servers.redis import Servers
from tests.web.browser import Browser, Site

from sojourn import SessionManager, open_store
from sojourn.testing import FaultyStore
from sojourn.web import SessionMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

ROUNDS = count(1, 20)
USERS = 8
AT_LEAST = 5
"""Requests of each browser in each state of the store, before it changes."""


class Crowd:
    """Browsers that ask without a pause; each counts what it was answered."""

    def __init__(self, app: SessionMiddleware) -> None:
        self.app = app
        self.answers = 0
        self.refused = 0
        self._moved = asyncio.Event()
        self._over = False

    async def stranger(self) -> None:
        """Ask for pages without a cookie: they do not need the store."""
        while not self._over:
            answer = await Browser(self.app).get("/read")
            assert (answer.status, answer.json) == (200, {"user": None})
            assert not answer.all("set-cookie")
            self._count()
            await asyncio.sleep(0)  # what needs no store waits for nobody

    async def user(self, browser: Browser) -> None:
        """Read and write, and be told at worst that it can not be said now."""
        token, written = browser.token, 0
        while not self._over:
            path = "/write" if self.answers % 5 == 0 else "/read"
            answer = await browser.get(path)
            assert not answer.all("set-cookie"), "a browser is never told to forget its token"
            assert browser.token == token
            if answer.status == 200:
                if path == "/read":
                    assert answer.json["user"] == "ada"
                    assert answer.json.get("n", 0) >= written, "an acknowledged write is lost"
                    written = answer.json.get("n", 0)
                else:
                    written = max(written, answer.json)
                self._count()
            else:
                assert answer.status == 503
                self.refused += 1
                self._moved.set()
            await asyncio.sleep(0)

    def _count(self) -> None:
        self.answers += 1
        self._moved.set()

    async def goes_on(self, *, refused: bool) -> None:
        """Return once there were more answers, and refusals if they are to be."""
        answers, refusals = self.answers, self.refused
        while self.answers < answers + AT_LEAST * USERS or (refused and self.refused == refusals):
            self._moved.clear()
            await self._moved.wait()

    def stop(self) -> None:
        """Let everybody go home after this request."""
        self._over = True


async def live_through(
    sessions: SessionManager,
    down: Callable[[], Awaitable[object]],
    up: Callable[[], Awaitable[object]],
    name: str,
) -> None:
    """Take the store down and up again under load."""
    app = SessionMiddleware(Site(), sessions=sessions, timeout=1.0)
    browsers = [Browser(app) for _ in range(USERS)]
    for browser in browsers:
        await browser.get("/login")
        assert (await browser.get("/write")).json == 1
    crowd = Crowd(app)
    progress = Progress(f"{name} down and up", ROUNDS)
    async with asyncio.TaskGroup() as group:
        group.create_task(crowd.stranger())
        for browser in browsers:
            group.create_task(crowd.user(browser))
        for number in range(ROUNDS):
            await crowd.goes_on(refused=False)
            await down()
            await crowd.goes_on(refused=True)
            await up()
            await crowd.goes_on(refused=False)
            progress.at(number + 1, answers=crowd.answers, refused=crowd.refused)
        crowd.stop()
    for browser in browsers:
        answer = await browser.get("/read")
        assert (answer.status, answer.json["user"]) == (200, "ada")
    progress.figure(f"web_{name}_down", rounds=ROUNDS, answers=crowd.answers, refused=crowd.refused)


@scaled
@pytest.mark.parametrize("kind", ["sqlite", "file"])
async def test_a_file_that_fails(tmp_path: Path, kind: str) -> None:
    store = FaultyStore(open_store(f"{kind}:///{tmp_path}/kept"))
    await store.open()

    async def down() -> None:
        for verb in ("get", "commit", "touch", "create"):
            store.fail(verb, times=None)

    async def up() -> None:
        store.heal()

    await live_through(SessionManager(store), down, up, kind)
    await store.close()


@pytest.fixture
def frail_postgres() -> Iterator[PostgresServer]:
    """A server that will be killed."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@scaled
async def test_postgresql_killed_and_started_again(frail_postgres: PostgresServer) -> None:
    server = frail_postgres

    async def down() -> None:
        server.kill()

    async def up() -> None:
        server.launch()
        await asyncio.to_thread(server.wait_until_ready)

    async with SessionManager.open(server.url()) as sessions:
        await live_through(sessions, down, up, "postgres")


@scaled
async def test_redis_killed_and_started_again() -> None:
    servers = Servers()
    try:
        server: Any = servers.add("--appendonly", "yes", "--appendfsync", "always")

        async def down() -> None:
            server.kill()

        async def up() -> None:
            server.launch()

        async with SessionManager.open(server.url) as sessions:
            await live_through(sessions, down, up, "redis")
    finally:
        servers.stop()


async def test_a_request_after_the_manager_is_closed_is_refused() -> None:
    """A server that stops may let one in after that: it is answered, not failed."""
    async with SessionManager.open("memory://") as sessions:
        browser = Browser(SessionMiddleware(Site(), sessions=sessions))
        await browser.get("/write")
    assert (await browser.get("/read")).status == 503

"""What all tests share: coroutine tests, each kind of store, a clock that stands still."""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from tests.servers.postgres import PostgresServer, emptied
from tests.servers.redis import Server as RedisServer
from tests.servers.redis import Servers as RedisServers

from sojourn import SessionManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

# Nothing is judged by the time it takes: not by hypothesis either, on a machine that does more.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

TEST_SECONDS = 7_200.0 if os.environ.get("SOJOURN_SOAK") == "1" else 60.0
"""A coroutine test that takes longer hangs, and says so instead; the long forms take long."""

Opener = "Callable[..., AbstractAsyncContextManager[SessionManager]]"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def bounded() -> None:
        async with asyncio.timeout(TEST_SECONDS):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run's own, or of one of its workers."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server of this run's own, or of one of its workers."""
    servers = RedisServers()
    try:
        yield servers.add()
    finally:
        servers.stop()


BY_THE_LAWS = [pytest.param(name, marks=pytest.mark.soak) for name in ("file", "postgres", "redis")]


@pytest.fixture(params=["memory", "sqlite", *BY_THE_LAWS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of each kind; opened twice, it is the same store.

    Some only in the long run: in the short one the laws cover them, and their own tests.
    """
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    if request.param == "file":
        return f"file://{tmp_path / 'sessions'}"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        asyncio.run(emptied(server.url(schema="url")))
        return server.url(schema="url")
    if request.param == "redis":
        found: RedisServer = request.getfixturevalue("redis_server")
        return f"{found.url}?prefix={tmp_path.name}"
    return f"sqlite:///{tmp_path / 'sessions.db'}"


@pytest.fixture(params=["sqlite", "file"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of each kind that several processes can share."""
    if request.param == "file":
        return f"file://{tmp_path / 'shared'}"
    return f"sqlite:///{tmp_path / 'shared.db'}"


@pytest.fixture
def opened(url: str) -> Callable[..., AbstractAsyncContextManager[SessionManager]]:
    """How to open a manager on the store, closed again at the end of an `async with`."""

    def open_manager(**collaborators: Any) -> AbstractAsyncContextManager[SessionManager]:
        return SessionManager.open(url, **collaborators)

    return open_manager

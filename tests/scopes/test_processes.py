"""Several processes on one file: who comes first, who reaps, and work that was carried over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import Expiry, SessionManager, current_session
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
PROCESSES = 3


class Child:
    """A script beside this file, in a process of its own, that answers line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> str:
        """Return its next line; it may not end instead."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the child ended instead of answering"
        return line.decode().strip()

    def say(self, text: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())

    async def ask(self, text: str) -> str:
        """Send it a line and return the answer."""
        self.say(text)
        return await self.hear()


@asynccontextmanager
async def child(script: str, *arguments: str) -> AsyncIterator[Child]:
    """Start a script, wait until it is ready, and end it with the body."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.scopes.{script}",
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        one = Child(process)
        assert await one.hear() == "ready"
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.xdist_group("processes")
@pytest.mark.behaviour(128)
async def test_of_the_first_requests_in_several_processes_one_makes_it(tmp_path: Path) -> None:
    """Ten calls at once in each of them, round after round: one session a round, for all."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with contextlib.AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(child("first_comer", url)) for _ in range(PROCESSES)
        ]
        for number in range(ROUNDS):
            by = {"user": f"u-{number}"} if number % 2 else {"key": f"order-{number}"}
            for one in children:
                one.say(json.dumps(by))
            found = [json.loads(await one.hear()) for one in children]
            assert len({epoch for epochs in found for epoch in epochs}) == 1
    async with SessionManager.open(url) as sessions:
        assert await sessions.count() == ROUNDS


@pytest.mark.xdist_group("processes")
@pytest.mark.behaviour(55)
async def test_a_scope_keeps_its_session_from_the_reaper_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lives for three times the idle time, and touches often enough all along."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    clock, idle = FakeClock(), 0.03  # it looks every 10 ms whether a touch is due
    touched: asyncio.Queue[Any] = asyncio.Queue()
    async with (
        SessionManager.open(url, clock=clock) as sessions,
        child("other_reaper", url) as other,
    ):

        async def sweep() -> int:
            return int(await other.ask(repr(clock.now() / 1_000_000)))

        touch = sessions.store.touch

        async def noting(asked: Any, /) -> Any:
            header = await touch(asked)
            touched.put_nowait(header)
            return header

        monkeypatch.setattr(sessions.store, "touch", noting)
        await sessions.create(id="s1", expiry=Expiry(idle=idle))
        async with sessions.scope("s1"):
            for _ in range(4):
                clock.advance(idle * 0.9)
                await touched.get()
                assert await sweep() == 0
        clock.advance(idle)
        assert await sweep() == 1
        assert await sessions.get("s1", expired=True) is None
        assert current_session() is None

"""Child processes that report one line of JSON at a time, and the parent's side of their pipes."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self

Line = TypeVar("Line")

STOPPING_SECONDS = 20.0
"""Time for a process to end after it was asked to; it has nothing to finish."""


class Worker(Generic[Line]):
    """A module run in a process of its own. What it reports is read as it comes."""

    def __init__(
        self, process: asyncio.subprocess.Process, kind: type[Line], lines: list[Line]
    ) -> None:
        """Made by `start`."""
        self.lines = lines
        self._process = process
        self._decoder = msgspec.json.Decoder(kind)
        self._grown = asyncio.Condition()
        self._over = False
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, module: str, *arguments: str, kind: type[Line]) -> Self:
        """Start `python -m sojourn.demo.<module>`, whose lines are of this kind."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"sojourn.demo.{module}",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process, kind, [])

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def _read(self) -> None:
        async for line in self._whole_lines():
            async with self._grown:
                self.lines.append(line)
                self._grown.notify_all()
        async with self._grown:
            self._over = True
            self._grown.notify_all()

    async def _whole_lines(self) -> AsyncIterator[Line]:
        """Yield what was reported. A killed process may leave half a line: it reported nothing."""
        assert self._process.stdout is not None  # it was started with a pipe
        async for text in self._process.stdout:
            if text.endswith(b"\n"):
                yield self._decoder.decode(text)

    async def reported(self, count: int) -> None:
        """Return once it has reported so many lines. `RuntimeError` if it ended before."""
        async with self._grown:
            await self._grown.wait_for(lambda: len(self.lines) >= count or self._over)
        if len(self.lines) < count:
            raise RuntimeError(f"process {self.pid} ended after {len(self.lines)} reports")

    async def kill(self) -> int:
        """End it with SIGKILL, read what is left in the pipe, and return its exit code."""
        self._process.kill()
        return await self.ended()

    async def stop(self) -> int:
        """Ask it to stop (SIGTERM), read what is left in the pipe, and return its exit code.

        One that does not stop in time is ended: what handles the signal may itself be stuck.
        """
        self._process.terminate()
        try:
            async with asyncio.timeout(STOPPING_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end and return its exit code."""
        await self._reader
        return await self._process.wait()

    async def finished(self) -> None:
        """Wait for its end. `RuntimeError` if it failed."""
        code = await self.ended()
        if code:
            raise RuntimeError(f"process {self.pid} failed with exit code {code}")

    async def abandon(self) -> None:
        """End it if it still runs: the demo leaves nothing behind, whatever happens."""
        if self._process.returncode is None:
            await self.kill()

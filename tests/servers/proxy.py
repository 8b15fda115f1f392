"""A TCP proxy that stands between a client and its server, and fails in chosen ways."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, Self

Trouble = Literal["cut request", "cut after request", "drop reply", "cut reply"]
"""What becomes of the next request: half of it arrives; all of it, and then the line is cut; all of
it, and the line is cut once there is a reply; half of the reply arrives."""

TROUBLES: tuple[Trouble, ...] = ("cut request", "cut after request", "drop reply", "cut reply")

CHUNK = 65_536
"""Bytes passed on at a time."""


class Proxy:
    """Passes on what comes, until it is told to fail."""

    def __init__(self, port: int) -> None:
        """`port` is the server's."""
        self._target = port
        self._server: asyncio.Server | None = None
        self._trouble: Trouble | None = None
        self._holding = b""
        self._lines: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed = 0
        """How many times it has failed as it was told to."""
        self.refusing = False
        """Whether new lines are cut at once, as if nobody listened."""
        self.accepted = self.refused = 0
        """How many lines have come, and how many of them were cut at once."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def port(self) -> int:
        """Where clients connect."""
        assert self._server is not None, "it was started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def fail(self, trouble: Trouble, holding: bytes = b"") -> None:
        """Fail once, with the next request that comes on any line and holds this."""
        self._trouble = trouble
        self._holding = holding

    def lead_to(self, port: int) -> None:
        """Have lines that are made from now on end at another server; those that are there stay."""
        self._target = port

    def cut(self) -> None:
        """Cut every line."""
        for line in self._lines:
            line.transport.abort()
        self._lines.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a task serves"
        self.accepted += 1
        if self.refusing:
            self.refused += 1
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._pass(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pass(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, forth = await asyncio.open_connection("127.0.0.1", self._target)
        self._lines |= {back, forth}
        line = _Line()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(line, client, forth))
                both.create_task(self._replies(line, server, back))
        except ExceptionGroup:
            pass  # the line is cut
        finally:
            self._lines -= {back, forth}
            forth.transport.abort()

    async def _requests(
        self, line: _Line, client: asyncio.StreamReader, forth: asyncio.StreamWriter
    ) -> None:
        while chunk := await client.read(CHUNK):
            trouble = self._trouble
            if trouble is None or self._holding not in chunk:
                forth.write(chunk)
                await forth.drain()
                continue
            self._trouble = None
            self.failed += 1
            forth.write(chunk[: len(chunk) // 2] if trouble == "cut request" else chunk)
            await forth.drain()
            if trouble in ("cut request", "cut after request"):
                break
            line.trouble = trouble
        raise ConnectionError

    async def _replies(
        self, line: _Line, server: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        while chunk := await server.read(CHUNK):
            if line.trouble is not None:
                if line.trouble == "cut reply":
                    back.write(chunk[: len(chunk) // 2])
                    await back.drain()
                break
            back.write(chunk)
            await back.drain()
        raise ConnectionError


class _Line:
    """One connection: what is to become of its next reply."""

    trouble: Trouble | None = None

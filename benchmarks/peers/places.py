"""Where a run keeps what it writes: an empty file, database or server, or nothing but memory."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import asyncpg
from tests.servers.postgres import PostgresServer, folder_of_programs
from tests.servers.redis import Servers, installed

if TYPE_CHECKING:
    from pathlib import Path

Place: TypeAlias = Literal["memory", "file", "postgres", "redis"]

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "2GB"}
"""Of the server: so little would be no server that anybody runs, and its log be cut all the time.
All else is the server's default, but for fewer connections; every commit waits for the disk."""


class Places:
    """Empties a place for each run. A server is started for the first run that needs it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where files are."""
        self._folder = folder
        self._server: PostgresServer | None = None
        self._redis: Servers | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._server, self._redis):
            if server is not None:
                server.stop()

    def fresh(self, place: Place) -> dict[str, Any]:
        """Return the keyword that says where to write: `path`, a file or the URL of a database."""
        if place == "file":
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            return {"path": str(self._folder / "work.db")}
        if place == "postgres":
            return {"path": self._database()}
        if place == "redis":
            return {"path": self._emptied_redis()}
        return {}

    def _emptied_redis(self) -> str:
        """Return the URL of a server that holds nothing."""
        if self._redis is None:
            if installed() is None:
                raise SystemExit("no redis-server is installed: apt-get install redis-server")
            self._redis = Servers()
            self._redis.add()
        (server,) = self._redis.servers
        server.ask("FLUSHALL")
        return server.url

    def _database(self) -> str:
        """Return the URL of an empty database."""
        if self._server is None:
            self._server = PostgresServer(settings=SETTINGS, programs=folder_of_programs())
            self._server.start()
        url = self._server.url()
        asyncio.run(_emptied(url))
        return url.removesuffix("/postgres") + "/bench"


async def _emptied(url: str) -> None:
    """Make the database anew, and have the server write out now what it still has to."""
    db = await asyncpg.connect(url)
    try:
        await db.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        await db.execute("CREATE DATABASE bench TEMPLATE template0")
        await db.execute("CHECKPOINT")
    finally:
        await db.close()

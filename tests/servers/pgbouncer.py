"""A PgBouncer for tests: between clients and a server, private, on a free port of the loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import pytest
from tests.servers.postgres import NOBODY, as_somebody, free_port

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

READY_SECONDS = 20.0
"""Longest wait until it listens."""

LOOK_SECONDS = 0.02
"""Time between two looks at whether it does."""

SERVER_CONNECTIONS = 3
"""Connections to the server: fewer than clients have, so that they have to share them."""


def require_program() -> str:
    """Return where the program is; without it, skip, or with CI set fail."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found is None and os.environ.get("CI"):
        pytest.fail("PgBouncer is not installed: apt-get install pgbouncer")
    if found is None:
        pytest.skip("PgBouncer is not installed")
    return found


class PgBouncer:
    """A pooler in front of a server, while the block runs."""

    def __init__(self, server: PostgresServer, mode: Literal["session", "transaction"]) -> None:
        """Write what it is told."""
        self._program = require_program()
        self._server = server
        self._folder = Path(tempfile.mkdtemp(prefix="sojourn-pgbouncer-"))
        self.port = free_port()
        users, told = self._folder / "users", self._folder / "told.ini"
        users.write_text(f'"tester" "{server.password}"\n')
        told.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = md5\nauth_file = {users}\npool_mode = {mode}\n"
            f"default_pool_size = {SERVER_CONNECTIONS if mode == 'transaction' else 40}\n"
            "max_client_conn = 200\n"
        )
        if os.geteuid() == 0:
            for path in (self._folder, users, told):
                shutil.chown(path, NOBODY, NOBODY)
        self._told = told
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it listens."""
        with (self._folder / "log").open("ab") as log:
            command = [*as_somebody(), self._program, str(self._told)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        until = time.monotonic() + READY_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
                raise AssertionError((self._folder / "log").read_text()[-2000:])
            assert time.monotonic() < until, "the pooler does not get ready"

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, **options: object) -> str:
        """Return the URL of a store behind the pooler."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{self._server.url_at(self.port)}?{query}"

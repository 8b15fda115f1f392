"""A PostgreSQL server for tests and benchmarks: private, thrown away, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import asyncpg
from tests.servers.freezing import freeze_process

from sojourn import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES = Path("/usr/lib/postgresql")
"""Where Debian keeps a folder for each version that is installed."""

READY_SECONDS = 60.0
"""Longest wait for a server to be ready: it may have to recover after a crash."""

LOOK_SECONDS = 0.05
"""Time between two looks at whether it is."""

NOBODY = "postgres"
"""Who runs the server where the tests run as root, which it refuses."""


def folder_of_programs() -> Path | None:
    """Return where the newest installed server's programs are, `None` if there is none."""
    found = sorted(PLACES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return None if program is None else Path(program).resolve().parent


def require_programs() -> Path:
    """Return where the programs are; without them, skip, or with CI set fail."""
    import pytest  # benchmarks have none, and look for the programs themselves

    found = folder_of_programs()
    if found is None and os.environ.get("CI"):
        pytest.fail("PostgreSQL's server is not installed: apt-get install postgresql")
    if found is None:
        pytest.skip("PostgreSQL's server is not installed")
    return found


def as_somebody() -> list[str]:
    """Return what stands before a command of the server's: root it refuses.

    Whatever becomes of the tests, the kernel ends what they started.
    """
    death = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
    if os.geteuid() != 0:
        return death
    return [*(death or ["setpriv"]), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PostgresServer:
    """One server with a cluster of its own."""

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
        inside: Path | None = None,
    ) -> None:
        """Make the cluster, in a folder or among temporary files; `start` starts the server.

        It has these settings beside its own.
        """
        self.programs = require_programs() if programs is None else programs
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-postgres-", dir=inside))
        self._settings = settings or {}
        self.password = secrets.token_hex(8)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, NOBODY, NOBODY)
        secret = self.folder / "password"
        secret.write_text(self.password)
        if os.geteuid() == 0:
            shutil.chown(secret, NOBODY, NOBODY)
        try:
            subprocess.run(
                [
                    *as_somebody(),
                    str(self.programs / "initdb"),
                    f"--pgdata={self.folder / 'data'}",
                    "--username=tester",
                    f"--pwfile={secret}",
                    "--auth=md5",  # the tests connect often, and its price is less
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-sync",
                    "--no-instructions",
                ],
                check=True,
                capture_output=True,
                cwd="/",
            )
        except subprocess.CalledProcessError as error:
            self.remove()
            raise AssertionError(error.stderr.decode()) from error

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the server. Call it in the main thread: with its thread, the server ends too."""
        self._log = (self.folder / "log").open("ab")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "fsync": "on",
            "max_wal_size": "256MB",
            "log_min_messages": "warning",
            **self._settings,
        }
        self._process = subprocess.Popen(
            [
                *as_somebody(),
                str(self.programs / "postgres"),
                "-D",
                str(self.folder / "data"),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            stdout=self._log,
            stderr=self._log,
            cwd="/",
        )

    def wait_until_ready(self) -> None:
        """Return once the server answers."""
        until = time.monotonic() + READY_SECONDS
        command = [
            str(self.programs / "pg_isready"),
            "--host=127.0.0.1",
            f"--port={self.port}",
            "--quiet",
        ]
        while subprocess.run(command, check=False).returncode != 0:
            assert self._process is not None, "it was launched"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
                raise AssertionError((self.folder / "log").read_text()[-2000:])
            if time.monotonic() > until:
                raise AssertionError("the server does not get ready")

    def url(self, **options: object) -> str:
        """Return the URL of a store on this server."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return self.url_at(self.port) + (f"?{query}" if query else "")

    def url_at(self, port: int) -> str:
        """Return the URL of the database behind another port, such as a proxy's."""
        return f"postgresql://tester:{self.password}@127.0.0.1:{port}/postgres"

    def processes(self) -> list[int]:
        """Return the server's processes, its parent first."""
        if self._process is None:
            return []
        found = [self._process.pid]
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError, ValueError):
                facts = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(facts[1]) == self._process.pid:
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """Kill every process of the server at once, as a crash of the machine would."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait()

    def freeze(self) -> None:
        """Stop every process of the server: it does not answer, and does not hang up."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                freeze_process(pid)

    def thaw(self) -> None:
        """Let them go on."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop the server at once and remove the cluster."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGQUIT)
            self._wait()
        self.remove()

    def remove(self) -> None:
        """Remove the cluster."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(READY_SECONDS)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


async def emptied(url: str) -> None:
    """Remove all rows of the store of a URL, if it has tables; much faster than to make them anew.

    Its tables stay, and with them its version.
    """
    address = open_store(url)._address  # type: ignore[attr-defined]  # it is PostgreSQL's
    db = await asyncpg.connect(**address.arguments())
    try:
        tables = await db.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename <> $2",
            address.schema,
            "schema_version",
        )
        names = [f'"{address.schema}"."{table}"' for (table,) in tables]
        for name in names:
            await db.execute(f"DELETE FROM {name}")  # noqa: S608 - the names are our own
    finally:
        await db.close()

"""Redis servers of the tests' own: one, or a real cluster, on free ports, gone when the tests are.

They are started from the installed binary, keep their files in a folder of their own, and die with
the process that started them. With `CI` in the environment a missing binary is a failure.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from tests.servers.freezing import freeze_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BINARIES = ("redis-server", "valkey-server")
"""What a server may be called; the first one that is installed is used."""

START_SECONDS = 30.0
"""Longest wait for a server, or a cluster, to be ready."""

BUS = 10_000
"""How far a cluster node's second port is from its first."""

LOOK_SECONDS = 0.02
"""Time between two looks at a server: it has no way to call us."""

MASTERS = 3

_never = threading.Event()


def installed() -> str | None:
    """Return the server's binary, `None` if there is none."""
    return next(filter(None, map(shutil.which, BINARIES)), None)


def binary() -> str:
    """Return the server's binary; skip the test, or fail it in CI, where there is none."""
    found = installed()
    if found is None:
        import pytest  # benchmarks have none, and look for the binary themselves

        reason = "no redis-server is installed: apt-get install redis-server"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def dying_with_us() -> list[str]:
    """Return what stands before a command, so that the kernel ends it when we are gone."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL"] if program else []


def free_port() -> int:
    """Return a port that is free, and whose neighbour for a cluster's bus is free too."""
    while True:
        port = random.randrange(20_000, 50_000)
        try:
            for each in (port, port + BUS):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


def eventually(what: str, holds: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Return once something holds. Asks again and again; fails when it takes too long."""
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (redis.RedisError, OSError):
            pass
        if time.monotonic() > end:
            raise AssertionError(f"{what} took longer than {seconds:.0f} s")
        _never.wait(LOOK_SECONDS)


class Server:
    """One server process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """`arguments` are options of its command line."""
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir()
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a store finds it."""
        return f"redis://127.0.0.1:{self.port}/"

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def start(self) -> Server:
        """Start it, with what it kept if it was started before; return once it answers."""
        self.launch()
        eventually(f"starting a server on port {self.port}", lambda: bool(self.ask("PING")))
        return self

    def launch(self) -> None:
        """Start it. It dies with the thread that calls this."""
        command = [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.folder), "--repl-diskless-sync-delay", "0"]
        command += self._arguments
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*dying_with_us(), *command],
                stdout=log,
                stderr=log,
                restore_signals=False,  # a file that may grow no more is an error, not its end
            )

    def ask(self, *command: Any) -> Any:
        """Return what it answers to a command."""
        with redis.Redis(port=self.port, protocol=2, socket_timeout=5) as client:
            return client.execute_command(*command)

    def raw(self, *command: Any) -> Any:
        """Return an answer as it came, whatever the driver would make of it."""
        with redis.Redis(port=self.port, protocol=2, socket_timeout=5) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        """Return facts about it."""
        found: dict[str, Any] = self.ask("INFO", section)
        return found

    def freeze(self) -> None:
        """Stop its process in its tracks; connections stay, nothing is answered."""
        freeze_process(self.pid)

    def thaw(self) -> None:
        """Let it go on where it was."""
        os.kill(self.pid, signal.SIGCONT)

    def let_files_grow(self, *, to: int = resource.RLIM_INFINITY) -> None:
        """Have it fail to write more than so many bytes to a file, as on a disk that is full."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (to, resource.RLIM_INFINITY))

    def said(self) -> str:
        """Return what it logged."""
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None


class Servers:
    """Servers with a folder, all stopped and removed at the end."""

    def __init__(self) -> None:
        """Begin with none."""
        memory = Path("/dev/shm")  # noqa: S108 - where files are quick; the folder has a random name
        parent = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-redis-", dir=parent))
        self.servers: list[Server] = []

    def add(self, *arguments: str) -> Server:
        """Start one more."""
        server = Server(self.folder, *arguments)
        self.servers.append(server)
        return server.start()

    def stop(self) -> None:
        """Kill all of them and remove what they kept."""
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Cluster(Servers):
    """Masters with a replica each, or more."""

    def __init__(self, *, replicas: int = 1, node_timeout: int = 2_000) -> None:
        """`replicas` is how many each master has, `node_timeout` is in milliseconds."""
        super().__init__()
        try:
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout))
            for _ in range(MASTERS * (1 + replicas)):
                self.add(*options, "--repl-ping-replica-period", "1")
            self._join()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where a store finds it."""
        places = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:MASTERS])
        return f"redis+cluster://{places}/"

    def _join(self) -> None:
        """Make one cluster of the servers."""
        masters, replicas = self.servers[:MASTERS], self.servers[MASTERS:]
        for number, master in enumerate(masters):
            bounds = [16_384 * part // MASTERS for part in (number, number + 1)]
            master.ask("CLUSTER", "ADDSLOTS", *range(*bounds))
        for number, server in enumerate(self.servers):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            server.ask("CLUSTER", "MEET", "127.0.0.1", masters[0].port)
        everyone = len(self.servers)
        eventually("meeting", lambda: all(len(nodes_of(s)) == everyone for s in self.servers))
        for number, replica in enumerate(replicas):
            master = masters[number % MASTERS]
            replica.ask("CLUSTER", "REPLICATE", id_of(master))
        eventually("joining", self.is_well)

    def is_well(self) -> bool:
        """Return whether every node sees a whole cluster, and every replica is attached."""
        for server in self.servers:
            if b"cluster_state:ok" not in server.raw("CLUSTER", "INFO"):
                return False
            facts = server.info("replication")
            if facts["role"] == "slave" and facts["master_link_status"] != "up":
                return False
        roles = [server.info("replication") for server in self.servers]
        found = [fact for facts in roles for fact in facts.values() if isinstance(fact, dict)]
        # Before it has said once what it has, a replica is sent nothing.
        attached = [fact for fact in found if fact.get("state") == "online" and fact["offset"] > 0]
        return len(attached) == len(self.servers) - MASTERS

    def revive(self) -> None:
        """Start and thaw whoever is not there."""
        for server in self.servers:
            if server.is_running:
                server.thaw()
            else:
                server.launch()

    def wait(self) -> None:
        """Return once the cluster is whole again, and every replica has what was there by then.

        One that is attached may still be sent nothing, until it has said a second time what it has.
        """
        eventually("recovering", self.is_well)
        written = {server: self._written(server) for server in self.masters()}
        eventually("following", lambda: all(map(self._has_all, written, written.values())))

    def _written(self, master: Server) -> int:
        """Return how far the log of a master is."""
        return int(master.info("replication")["master_repl_offset"])

    def _has_all(self, master: Server, offset: int) -> bool:
        """Return whether every replica of a master says that it has its log as far as this."""
        facts = master.info("replication").values()
        return all(fact["offset"] >= offset for fact in facts if isinstance(fact, dict))

    def masters(self) -> list[Server]:
        """Return the servers that are masters now."""
        return [s for s in self.servers if s.info("replication")["role"] == "master"]


def nodes_of(server: Server) -> list[bytes]:
    """Return the lines of what a node knows of its cluster."""
    found: bytes = server.raw("CLUSTER", "NODES")
    return found.splitlines()


def id_of(server: Server) -> str:
    """Return a node's id."""
    found: bytes = server.raw("CLUSTER", "MYID")
    return found.decode()


_READERS = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", 0, -1),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1, "WITHSCORES"),
}


def values_in(servers: Iterable[Server]) -> list[bytes]:
    """Return every key of some servers, with all that it holds behind it."""
    found: list[bytes] = []
    for server in servers:
        with redis.Redis(port=server.port, protocol=2) as client:
            client.response_callbacks.clear()
            for key in client.execute_command("KEYS", "*"):
                kind = client.execute_command("TYPE", key)
                if kind == b"none":  # its time was up meanwhile
                    continue
                command, *arguments = _READERS[kind]
                held = client.execute_command(command, key, *arguments)
                parts = held if isinstance(held, list) else [held or b""]
                found.append(b"\n".join([key, *parts]))
    return found

"""What a URL says about a Redis store, and what the environment adds to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from sojourn.errors import InvalidQuery
from sojourn.stores.places import on_servers

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT = 6379
"""The port of a server whose URL names none."""

PREFIX = "sojourn"
"""What keys begin with, unless the URL says something else."""

TIMEOUT = 10.0
"""Seconds for a call with all its attempts: longer than a cluster takes to replace a master."""

ATTEMPTS = 5
"""Attempts that fit into a call: each gets its share of the time, and then its connection goes."""

LONGEST_ATTEMPT = 2.0
"""Seconds of silence after which a server counts as gone for now, however long a call may take: a
cluster has begun to replace it by then."""

MAX_REPLICAS = 16
"""More replicas than this to wait for is a typing error."""

MAX_TIMEOUT = 3600.0
"""Longer than this is no limit."""

PASSWORD = "SOJOURN_REDIS_PASSWORD"  # noqa: S105 - the name of a variable, no password
"""The variable of the environment that holds the password, unless the URL has one."""

USERNAME = "SOJOURN_REDIS_USERNAME"
"""The variable of the environment that holds the user name, unless the URL has one."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the servers, and what a write waits for."""

    servers: tuple[tuple[str, int], ...]
    cluster: bool = False
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    replicas: int = 0
    timeout: float = TIMEOUT
    prefix: str = PREFIX
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def attempt(self) -> float:
        """Seconds for one attempt."""
        return min(self.timeout / ATTEMPTS, LONGEST_ATTEMPT)

    @property
    def name(self) -> str:
        """What errors call the store: where it is, without any secret."""
        scheme = "redis+cluster" if self.cluster else "rediss" if self.tls else "redis"
        places = ",".join(_shown(host, port) for host, port in self.servers)
        shown = f"{scheme}://{places}" + (f"/{self.database}" if self.database else "")
        if self.prefix == PREFIX:
            return shown
        return f"{shown}{'' if self.database else '/'}?prefix={quote(self.prefix, safe='')}"

    @property
    def place(self) -> str:
        """Which keys of which servers these are, in whichever order the servers were given."""
        scheme = "redis+cluster" if self.cluster else "redis"
        return on_servers(scheme, self.servers, f"{self.database}/{self.prefix}")

    def __repr__(self) -> str:
        return f"<Options of {self.name}>"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what pretty-printed tracebacks show: msgspec's own would show the password."""
        return [("name", self.name)]


def parse(scheme: str, netloc: str, path: str, given: Mapping[str, str]) -> Options:
    """Return what a URL says. Raises `InvalidQuery`, which never shows the user or the password."""
    userinfo, _, places = netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    cluster = scheme == "redis+cluster"
    servers = tuple(_server(place) for place in places.split(","))
    if len(servers) > 1 and not cluster:
        raise _unfit("several servers are a cluster: write redis+cluster://host:port,host:port")
    if len(servers) > 1 and any(not place.partition(":")[0] for place in places.split(",")):
        raise _unfit("a server between two commas has no name: write host:port,host:port")
    return Options(
        servers=servers,
        cluster=cluster,
        tls=scheme == "rediss" or _flag(given, "tls"),
        username=unquote(username) or os.environ.get(USERNAME) or None,
        password=unquote(password) or os.environ.get(PASSWORD) or None,
        database=_database(path, cluster=cluster),
        replicas=int(_number(given, "replicas", 0, MAX_REPLICAS)),
        timeout=_number(given, "timeout", TIMEOUT, MAX_TIMEOUT, whole=False),
        prefix=_prefix(given.get("prefix", PREFIX)),
        ca=given.get("ca"),
        certificate=given.get("certificate"),
        key=given.get("key"),
    )


def _unfit(reason: str) -> InvalidQuery:
    return InvalidQuery("store URL", reason)


def _server(place: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `[address]:port`."""
    host, bracket, rest = place.partition("]")
    if bracket:
        host, colon, port = host.removeprefix("["), *rest.partition(":")[1:]
    else:
        host, colon, port = place.partition(":")
    if "/" in unquote(host):
        raise _unfit("sockets of one machine are not spoken through: write redis://localhost:port")
    if not colon:
        return host or "localhost", PORT
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise _unfit("a port is a number from 1 to 65535")
    return host or "localhost", int(port)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _database(path: str, *, cluster: bool) -> int:
    number = path.strip("/")
    if not number:
        return 0
    if cluster:
        raise _unfit("a cluster has no numbered databases: leave out what follows the servers")
    if not number.isascii() or not number.isdigit():
        raise _unfit("what follows the server is the number of a database, for example /0")
    return int(number)


def _number(
    given: Mapping[str, str], name: str, default: float, most: float, *, whole: bool = True
) -> float:
    text = given.get(name)
    if text is None:
        return default
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = -1
    least = 0 if whole else 0.1
    if not least <= number <= most:  # which is false for what is not a number, too
        kind = "a whole number" if whole else "a number of seconds"
        raise _unfit(f"{name} is {kind} from {least} to {most:g}")
    return number


def _flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "0")
    if text not in ("0", "1"):
        raise _unfit(f"{name} is 0 or 1")
    return text == "1"


def _prefix(text: str) -> str:
    if not text or not text.isprintable() or any(char in "{}" for char in text):
        raise _unfit("prefix is printable text without braces")
    return text

"""Where a PostgreSQL store is: what its URL says, its options, and what may be shown of it."""

from __future__ import annotations

import getpass
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

import msgspec

from sojourn.errors import InvalidQuery
from sojourn.stores.places import on_servers
from sojourn.stores.postgres.hosts import Found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sojourn.stores.postgres.hosts import Place

SCHEMA = "sojourn"
"""The schema that holds the tables, unless another one is named."""

TIMEOUT = 10.0
"""Seconds for one call: long enough for a failover, short enough for a request to fail decently."""

MAX_TIMEOUT = 3600.0
"""Longest time limit: a caller who waits an hour for one call is not served but forgotten."""

POOL_SIZE = 4
"""Connections for reads. One more writes, and one listens while somebody watches."""

MAX_POOL_SIZE = 100
"""Most connections for reads: a server's default is to allow a hundred in all."""

PORT = 5432
"""Where a server listens if nothing else is said."""

_SOCKET = re.compile(r"(/.*):([0-9]+)")
"""A folder with a server's socket, and the port that is in the socket's name."""

_TLS = ("sslcert", "sslkey", "sslmode", "sslrootcert")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A place and how to go there. `shown` holds no secret; neither does the repr."""

    shown: str
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    user: str | None = None
    password: str | None = None
    database: str | None = None
    schema: str = SCHEMA
    pooler: bool = False
    durability: str = "durable"
    timeout: float = TIMEOUT
    pool_size: int = POOL_SIZE
    application_name: str = "sojourn"
    tls: str = ""
    found: Found = msgspec.field(default_factory=Found)

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what pretty-printed tracebacks show: msgspec's own would show the password."""
        return [("shown", self.shown)]

    @property
    def place(self) -> str:
        """Which schema of which database this is, with what the environment adds to the address."""
        known = os.environ.get
        servers: list[tuple[str, int | str]] = list(zip(self.hosts, self.ports, strict=False))
        port = self.ports[0] if self.ports else known("PGPORT") or PORT
        servers = servers or [(known("PGHOST") or "localhost", port)]
        user = self.user or known("PGUSER") or getpass.getuser()  # whose name the database has
        database = self.database or known("PGDATABASE") or user
        service = f" of {name}" if (name := known("PGSERVICE")) else ""
        return on_servers("postgresql", servers, f"{database}/{self.schema}{service}")

    def places(self) -> Sequence[Place | None]:
        """Return the hosts with their ports; `None` alone leaves them to the driver."""
        return list(zip(self.hosts, self.ports, strict=False)) or [None]

    def arguments(self, place: Place | None = None) -> dict[str, Any]:
        """Return what `asyncpg.connect` takes; what is left out it finds in the environment.

        `place` is the one host to go to; without it, all of them are named.
        """
        hosts, ports = (self.hosts, self.ports) if place is None else ((place[0],), (place[1],))
        found: dict[str, Any] = {
            "dsn": f"postgresql://?{self.tls}" if self.tls else None,
            "host": list(hosts) or None,
            "port": list(ports) or None,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "server_settings": {"application_name": self.application_name},
        }
        # A revision must never be read from a replica, which may lag behind.
        if self.pooler:  # it is asked for, see `pool.connect`
            found["statement_cache_size"] = 0
        else:
            found["target_session_attrs"] = "primary"
        return {name: value for name, value in found.items() if value is not None}


def parse(netloc: str, path: str, options: Mapping[str, str]) -> Address:
    """Return the address in the parts of a URL. Raises `InvalidQuery` for what makes no sense."""
    login, _, places = netloc.rpartition("@")
    user, _, password = login.partition(":")
    hosts, ports = _places(_named(unquote(places), options), options.get("port", ""))
    schema = options.get("schema", SCHEMA)
    if not _NAME.fullmatch(schema):
        raise _refused("schema", "letters, digits and underscores, at most 48, no digit first")
    database = path.removeprefix("/") or None
    where = [_shown(host, port) for host, port in zip(hosts or ("",), ports, strict=False)]
    shown = f"postgresql://{','.join(where)}/{database or ''}"
    return Address(
        shown=shown if schema == SCHEMA else f"{shown}?schema={schema}",
        hosts=hosts,
        ports=ports,
        user=unquote(user) or None,
        password=unquote(password) or None,
        database=database,
        schema=schema,
        pooler=_pooler(options.get("pooler", "session")),
        durability=_choice("durability", options.get("durability"), ("durable", "relaxed")),
        timeout=_timeout(options.get("timeout")),
        pool_size=_pool_size(options.get("pool_size")),
        application_name=options.get("application_name", "sojourn"),
        tls=urlencode({name: options[name] for name in _TLS if name in options}),
    )


def _named(places: str, options: Mapping[str, str]) -> str:
    """Return the hosts that are named; one in the environment is left to the driver."""
    if "host" in options:
        return options["host"] or ","  # which is refused
    usual = os.environ.get("PGHOST", "")
    return places or (usual if "," in usual else "")  # to ask several is ours, see `hosts`


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("/") else f"{host}:{port}"


def _places(named: str, ports: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return hosts and ports of a list like `a:1,[::1]:2`, and of the option `port`.

    As in the server's own clients: the option goes before what is written at a host, `PGPORT` is
    for a host without one. Without any host, those that the driver finds take the option's.
    """
    hosts = [_host(place) for place in named.split(",")] if named else []
    if not hosts:
        return (), tuple(int(port) for port in _ports("the option 'port'", ports, 1) if port)
    said = _ports("the option 'port'", ports, len(hosts))
    written = [port for _, port in hosts]
    found = [first or second for first, second in zip(said, written, strict=True)]
    if not all(found):
        usual = _ports("the variable PGPORT", os.environ.get("PGPORT", ""), len(hosts))
        found = [first or second or str(PORT) for first, second in zip(found, usual, strict=True)]
    return tuple(host for host, _ in hosts), tuple(map(int, found))


def _host(place: str) -> tuple[str, str]:
    """Return a host and the port that is written at it; a path is a folder with a socket."""
    if place.startswith("/"):
        path = _SOCKET.fullmatch(place)
        host, port = path.groups("") if path else (place, "")
    elif place.startswith("["):
        host, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = place.partition(":")
    if not host or not _is_port(port):
        raise _refused("host", "write host, host:port or [address]:port, with commas between")
    return host, port


def _ports(what: str, text: str, hosts: int) -> list[str]:
    """Return one port for each host, given one for all or one for each; empty is none."""
    ports = text.split(",")
    ports = ports * hosts if len(ports) == 1 else ports
    if len(ports) != hosts or not all(map(_is_port, ports)):
        wanted = "takes a port from 1 to 65535, or one for each host with commas between"
        raise InvalidQuery("store URL", f"{what} {wanted}")
    return ports


def _is_port(text: str) -> bool:
    """Return whether a text is a port, or empty."""
    return not text or (text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65_536)  # noqa: PLR2004 - the ports that there are


def _pooler(text: str) -> bool:
    return _choice("pooler", text, ("session", "transaction")) == "transaction"


def _choice(option: str, text: str | None, allowed: tuple[str, ...]) -> str:
    if text is None:
        return allowed[0]
    if text not in allowed:
        raise _refused(option, " or ".join(map(repr, allowed)))
    return text


def _timeout(text: str | None) -> float:
    try:
        seconds = TIMEOUT if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise _refused("timeout", f"seconds above 0, at most {MAX_TIMEOUT:g}")
    return seconds


def _pool_size(text: str | None) -> int:
    if text is None:
        return POOL_SIZE
    if not text.isdecimal() or not 1 <= int(text) <= MAX_POOL_SIZE:
        raise _refused("pool_size", f"a number from 1 to {MAX_POOL_SIZE}")
    return int(text)


def _refused(option: str, wanted: str) -> InvalidQuery:
    return InvalidQuery("store URL", f"the option {option!r} takes {wanted}")

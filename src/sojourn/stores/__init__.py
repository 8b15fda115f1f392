"""The backends, and `open_store(url)`, which picks one by the scheme of a URL.

A backend is imported only when its scheme is asked for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from sojourn.errors import InvalidQuery, MissingExtra
from sojourn.spelling import known_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sojourn.store import Durability, Store


def open_store(url: str) -> Store:
    """Return the store that a URL names; `await store.open()` it, or hand it to a manager.

    `memory://` is a store of its own each time, `memory://name` is shared in the process;
    `sqlite:///relative.db` and `sqlite:////absolute.db` are files; `file:///absolute/folder` and
    `file://relative/folder` are folders of plain files; `postgresql://host/database`,
    `redis://host`, `rediss://host` (through TLS) and `redis+cluster://host,host` are servers.
    Raises `InvalidQuery` for an unknown scheme or option, naming the known ones.
    """
    if not isinstance(url, str):
        raise InvalidQuery("store URL", f"give text, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
    except ValueError:  # whose message may hold a password
        reason = "it is malformed: a bracket or a character that no host has"
        raise InvalidQuery("store URL", reason) from None
    make = SCHEMES.get(parts.scheme)
    if make is None:
        known = known_names(f"{parts.scheme}://", [f"{scheme}://" for scheme in SCHEMES])
        raise InvalidQuery("store URL", f"unknown scheme {parts.scheme!r}; {known}")
    if parts.fragment:
        raise InvalidQuery("store URL", "write %23 for a # in a file's name")
    if "timeout" in OPTIONS[parts.scheme] and ("@" in parts.path or "@" in parts.query):
        # A server's: in postgresql://me:pa/ss@host the password ends the host, and would be shown.
        reason = "write %40 for an @, %2F for a / and %3F for a ? in a password or an option"
        raise InvalidQuery("store URL", reason)
    return make(parts.netloc, unquote(parts.path), _options(parts.scheme, parts.query))


def _options(scheme: str, query: str) -> dict[str, str]:
    """Return the options of a URL's query; unknown ones and repeated ones are refused."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS[scheme]:
            known = known_names(name, OPTIONS[scheme])
            raise InvalidQuery("store URL", f"unknown option {name!r}; {known}")
        if name in options:
            raise InvalidQuery("store URL", f"the option {name!r} is there twice")
        options[name] = value
    return options


def _memory(host: str, path: str, _options: Mapping[str, str]) -> Store:
    from sojourn.stores.memory import MemoryStore

    return MemoryStore((host + path).strip("/") or None, ready=False)


def _postgres(host: str, path: str, options: Mapping[str, str]) -> Store:
    try:
        from sojourn.stores.postgres import PostgresStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise MissingExtra("PostgreSQL", "postgres") from error
    from sojourn.stores.postgres.address import parse

    return PostgresStore(parse(host, path, options))


def _sqlite(host: str, path: str, options: Mapping[str, str]) -> Store:
    from sojourn.stores.sqlite import SqliteStore

    if host:
        raise InvalidQuery(
            "store URL",
            "write sqlite:///relative.db or sqlite:////absolute.db (three slashes first)",
        )
    durability = cast("Durability", options.get("durability", "durable"))  # the store checks it
    return SqliteStore(path.removeprefix("/"), durability=durability)


def _filesystem(host: str, path: str, options: Mapping[str, str]) -> Store:
    from sojourn.stores.filesystem import FilesystemStore

    if not host and not path.strip("/"):
        raise InvalidQuery("store URL", "write file:///absolute/folder or file://relative/folder")
    if host == "localhost" or "@" in host:  # a host to some, a folder to others
        raise InvalidQuery("store URL", "write file:///absolute/folder, without a host")
    durability = cast("Durability", options.get("durability", "durable"))  # the store checks it
    return FilesystemStore(unquote(host) + path, durability=durability)


def _redis(scheme: str, host: str, path: str, options: Mapping[str, str]) -> Store:
    try:
        from sojourn.stores.redis import RedisStore
    except ModuleNotFoundError as error:
        if error.name not in ("hiredis", "redis"):
            raise
        raise MissingExtra("Redis", "redis") from error
    from sojourn.stores.redis.options import parse

    return RedisStore(parse(scheme, host, path, options))


SCHEMES: dict[str, Callable[[str, str, Mapping[str, str]], Store]] = {
    "memory": _memory,
    "postgres": _postgres,
    "postgresql": _postgres,
    "redis": partial(_redis, "redis"),
    "rediss": partial(_redis, "rediss"),
    "redis+cluster": partial(_redis, "redis+cluster"),
    "sqlite": _sqlite,
    "file": _filesystem,
}
"""What makes a store, by URL scheme."""

_POSTGRES = (
    "application_name",
    "durability",
    "host",
    "pool_size",
    "pooler",
    "port",
    "schema",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "timeout",
)

_REDIS = ("prefix", "replicas", "timeout")
_TLS = ("ca", "certificate", "key")

OPTIONS: dict[str, tuple[str, ...]] = {
    "memory": (),
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "redis": _REDIS,
    "rediss": (*_REDIS, *_TLS),
    "redis+cluster": (*_REDIS, *_TLS, "tls"),
    "sqlite": ("durability",),
    "file": ("durability",),
}
"""The options that a URL of each scheme may have behind its question mark."""

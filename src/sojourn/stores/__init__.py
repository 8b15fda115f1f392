"""The backends, and `open_store(url)`, which picks one by the scheme of a URL.

A backend is imported only when its scheme is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from sojourn.errors import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sojourn.store import Durability, Store


def open_store(url: str) -> Store:
    """Return the store that a URL names; `await store.open()` it, or hand it to a manager.

    `memory://` is a store of its own each time, `memory://name` is shared in the process;
    `sqlite:///relative.db` and `sqlite:////absolute.db` are files. Raises `InvalidQuery` for an
    unknown scheme or option, naming the known ones.
    """
    parts = urlsplit(url)
    make = SCHEMES.get(parts.scheme)
    if make is None:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InvalidQuery("store URL", f"unknown scheme {parts.scheme!r}; known are {known}")
    if parts.fragment:
        raise InvalidQuery("store URL", "write %23 for a # in a file's name")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    return make(parts.netloc, unquote(parts.path), options)


def _memory(host: str, path: str, options: Mapping[str, str]) -> Store:
    from sojourn.stores.memory import MemoryStore

    _refuse_unknown(options, ())
    return MemoryStore((host + path).strip("/") or None)


def _sqlite(host: str, path: str, options: Mapping[str, str]) -> Store:
    from sojourn.stores.sqlite import SqliteStore

    if host:
        raise InvalidQuery(
            "store URL",
            "write sqlite:///relative.db or sqlite:////absolute.db (three slashes first)",
        )
    _refuse_unknown(options, ("durability",))
    durability = cast("Durability", options.get("durability", "durable"))  # the store checks it
    return SqliteStore(path.removeprefix("/"), durability=durability)


def _refuse_unknown(options: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidQuery("store URL", f"unknown option {name!r}; known are: {listed}")


SCHEMES: dict[str, Callable[[str, str, Mapping[str, str]], Store]] = {
    "memory": _memory,
    "sqlite": _sqlite,
}
"""What makes a store, by URL scheme."""

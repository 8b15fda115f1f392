"""Who serves which route: one server for all, or the masters of a cluster as last seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.stores.redis.routes import ROUTES, SLOTS, TAGS, slot_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Address, Reply

_SLOT_OF = [slot_of(tag) for tag in TAGS]


class Topology:
    """Routes to servers. What it says may be old; whoever is asked in vain says who to ask."""

    def __init__(self, servers: Iterable[Address]) -> None:
        """Begin with the servers that are known by name."""
        self._named = tuple(servers)
        self._seen: set[Address] = set(self._named)
        self._masters: list[Address | None] = [None] * ROUTES

    @property
    def servers(self) -> tuple[Address, ...]:
        """Every server that is known, masters and replicas."""
        return tuple(self._seen)

    @property
    def masters(self) -> tuple[Address, ...]:
        """The servers that have routes."""
        return tuple(dict.fromkeys(master for master in self._masters if master is not None))

    def master_of(self, route: Route) -> Address | None:
        """Return who serves a route, `None` while nobody does."""
        return self._masters[route]

    def serve_all(self, address: Address) -> None:
        """Note that one server serves everything."""
        self._masters = [address] * ROUTES

    def moved(self, route: Route, address: Address) -> None:
        """Note that a route is served by somebody else now."""
        self._masters[route] = address
        self._seen.add(address)

    def replace(self, slots: Reply, asked: Address) -> None:
        """Take over what `CLUSTER SLOTS` says; `asked` is who said it."""
        by_slot: list[Address | None] = [None] * SLOTS
        seen: set[Address] = set(self._named)
        for first, last, *nodes in slots:
            addresses = [(_host(node[0], asked[0]), int(node[1])) for node in nodes]
            seen.update(addresses)
            by_slot[first : last + 1] = [addresses[0]] * (last + 1 - first)
        self._seen = seen
        self._masters = [by_slot[slot] for slot in _SLOT_OF]


def _host(given: bytes | None, asked: str) -> str:
    """Return a node's host; a node that does not know its own is where it was asked."""
    host = (given or b"").decode()
    return asked if host in ("", "?") else host

"""Looking at the servers: what they are, how they are set, and whether what is kept agrees."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import Unavailable
from sojourn.stores.planning import Loaded
from sojourn.stores.redis import routes, rows
from sojourn.stores.redis.client import Call
from sojourn.stores.redis.keys import escaped, unescaped
from sojourn.stores.redis.routes import ROUTES, TAGS
from sojourn.stores.redis.spots import due_at, overdue_at, positions
from sojourn.stores.summary import AppSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Reply

SCANNED = 1_000
"""Keys that a server looks at before it answers other calls."""

LOOKED_AT = 500
"""Sessions that are compared at a time: what they hold is read with them."""

OWNED = ("log", "ids", "kinds", "docs", "dockeys", "docplaces", "bodies", "children")
"""Kinds of keys that go with their session."""

ORDERS = ("list", "due", "overdue")
"""Kinds of keys that hold sessions by place and id."""

_SPECIAL = re.compile(r"([*?\[\]\\^-])")

_ROUTE_OF = {tag: route for route, tag in enumerate(TAGS)}

Version = tuple[int, int]
"""A version of a server, by which its releases are counted."""


class Fault(NamedTuple):
    """A fault that servers are known for: what it is called, what it lets happen, where it is not.

    `repaired` says by program and version in which release it was; versions between these were
    given up with it. `since` is the first version that has it.
    """

    name: str
    what: str
    since: Version
    repaired: dict[str, dict[Version, int]]


FAULTS = (
    Fault(
        "CVE-2025-49844",
        "scripts of strangers can take over the server",
        (0, 0),
        {
            "Redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
            "Valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
        },
    ),
    Fault(
        "CVE-2026-23631",
        "strangers can take over a replica that runs a slow script",
        (7, 0),
        {
            "Redis": {(7, 2): 14, (7, 4): 9, (8, 2): 6, (8, 4): 3, (8, 6): 3},
            "Valkey": {(7, 2): 13, (8, 0): 8, (8, 1): 7, (9, 0): 4},
        },
    ),
)
"""What a doctor warns of. Distributions repair it without changing the number."""


class Facts(NamedTuple):
    """What is known of a server or a cluster.

    `replicas` is how many the master with the fewest has, `wanted` how many have to confirm a
    durable write, `on_disk` whether each write is synced before it is acknowledged, `eviction` what
    is thrown away when memory is full (`noeviction` is nothing, empty is not known).
    """

    release: str
    masters: int
    replicas: int
    on_disk: bool
    wanted: int
    eviction: str
    faults: tuple[str, ...]


class Inspector:
    """Looks at servers, and at all that is kept."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def _where(self) -> list[Route]:
        """Return one route of each server."""
        found: dict[object, Route] = {}
        for route in range(ROUTES):
            found.setdefault(self._client.topology.master_of(route), route)
        return list(found.values())

    async def facts(self) -> Facts:
        """Return what the servers are and how they are set."""
        deadline = self._client.deadline()
        where = self._where()
        texts = await self._client.ask([Call(route, ("INFO",)) for route in where], deadline)
        infos: list[dict[str, str]] = [
            dict(line.partition(":")[::2] for line in text.decode().splitlines()) for text in texts
        ]
        policies = await self._client.run(
            [Call(route, ("CONFIG", "GET", "maxmemory-policy")) for route in where], deadline
        )
        found = {reply[1].decode() for reply in policies if not isinstance(reply, Unavailable)}
        name = "Valkey" if "valkey_version" in infos[0] else "Redis"
        release = infos[0].get("valkey_version") or infos[0].get("redis_version", "?")
        return Facts(
            release=f"{name} {release}",
            masters=len(infos),
            replicas=min(int(info.get("connected_slaves", 0)) for info in infos),
            on_disk=self._client.on_disk,
            wanted=self._client.options.replicas,
            eviction=", ".join(sorted(found - {"noeviction"} or found)),
            faults=faults_of(name, release),
        )

    async def summaries(self, apps: Sequence[str], now: int) -> list[AppSummary]:
        """Return what is kept of some apps; no session is read for that."""
        calls = [Call(route, ("SMEMBERS", self._keys.apps(route))) for route in range(ROUTES)]
        there = await self._client.ask(calls, self._client.deadline())
        return [
            await self._summary(app, [r for r in range(ROUTES) if app.encode() in there[r]], now)
            for app in apps
        ]

    async def _summary(self, app: str, where: Sequence[Route], now: int) -> AppSummary:
        calls: list[Call] = []
        for route in where:
            due = self._keys.due(route, app)
            calls += (
                Call(route, ("HGETALL", self._keys.tally(route, app, "all"))),
                Call(route, ("ZCOUNT", due, "-inf", now)),
                Call(route, ("ZRANGEBYSCORE", due, "-inf", now, "WITHSCORES", "LIMIT", 0, 1)),
            )
        replies = await self._client.ask(calls, self._client.deadline())
        phases: Counter[str] = Counter()
        for flat in replies[::3]:
            for phase, number in zip(flat[::2], flat[1::2], strict=True):
                phases[phase.decode()] += int(number)
        since = [int(float(first[1])) for first in replies[2::3] if first]
        kept = {phase: number for phase, number in sorted(phases.items()) if number}
        return AppSummary(app, kept, sum(replies[1::3]), min(since, default=None))

    async def check(self) -> list[str]:
        """Return what is wrong, in words; nothing that was only on its way between two looks."""
        found = await self._look()
        return sorted(found & await self._look()) if found else []

    async def drop(self) -> None:
        """Remove every key."""
        for route in self._where():
            for where, inside in (await self._names(route)).items():
                for at in range(0, len(inside), SCANNED):
                    names = [self._keys.head(where) + name for name in inside[at : at + SCANNED]]
                    await self._client.ask(
                        [Call(where, ("UNLINK", *names))], self._client.deadline()
                    )

    async def _look(self) -> set[str]:
        problems: set[str] = set()
        for route in self._where():
            names = await self._names(route)
            for where, inside in names.items():
                problems |= await self._examine(where, inside)
        return problems

    async def _names(self, route: Route) -> dict[Route, list[str]]:
        """Return our keys on a server by route, without what every key of a route begins with."""
        prefix = f"{self._keys.prefix}:{{"
        pattern = _SPECIAL.sub(r"\\\1", prefix) + "*"
        found: dict[Route, set[str]] = {}
        cursor: bytes | int = 0
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
            ((cursor, names),) = await self._client.ask(
                [Call(route, command)], self._client.deadline()
            )
            for name in names:
                where, rest = self._place_of(name)
                if where is not None:
                    found.setdefault(where, set()).add(rest)
            if int(cursor) == 0:
                return {where: sorted(inside) for where, inside in found.items()}

    def _place_of(self, name: bytes) -> tuple[Route | None, str]:
        """Return the route of a key and the rest of its name; no route if it is somebody else's."""
        try:
            tag, end, rest = name.decode().removeprefix(f"{self._keys.prefix}:{{").partition("}:")
        except UnicodeDecodeError:
            return None, ""
        return _ROUTE_OF.get(tag) if end else None, rest

    async def _examine(self, route: Route, names: Sequence[str]) -> set[str]:
        """Return what is wrong with the keys of one route."""
        head = self._keys.head(route)
        sessions = [name for name in names if name.startswith("session:")]
        expected: dict[str, set[str]] = {}
        problems: set[str] = set()
        for at in range(0, len(sessions), LOOKED_AT):
            problems |= await self._compare(route, sessions[at : at + LOOKED_AT], expected)
        there = {name.partition(":")[2] for name in sessions}
        for name in names:
            kind, _, rest = name.partition(":")
            if kind in OWNED and rest not in there and not rest.endswith(":"):
                problems.add(f"{head}{name} is there without its session")
        actual = await self._orders(route, names)
        for name in expected.keys() | actual.keys():
            lost = expected.get(name, set()) - actual.get(name, set())
            extra = actual.get(name, set()) - expected.get(name, set())
            problems |= {f"{head}{name} misses {member}" for member in lost}
            problems |= {f"{head}{name} has {member} that is not so" for member in extra}
        return problems

    async def _compare(
        self, route: Route, sessions: Sequence[str], expected: dict[str, set[str]]
    ) -> set[str]:
        """Note where some sessions of a route have to be listed; return what else is wrong."""
        head, deadline = self._keys.head(route), self._client.deadline()
        calls = [Call(route, ("HMGET", head + n, *rows.FIELDS.split(","))) for n in sessions]
        replies = await self._client.ask(calls, deadline, lane="bulk")
        problems: set[str] = set()
        away: list[Loaded] = []
        for name, fields in zip(sessions, replies, strict=True):
            item = rows.to_loaded(unescaped(name.rpartition(":")[2]), route, fields)
            if isinstance(item, Loaded):
                self._expect(item, expected)
                away += [item] if item.row.note else []
            elif item is not None:
                problems.add(str(item))
        keys = [(item.header.app, item.header.id) for item in away]
        homes = [routes.of_id(*key) for key in keys]
        calls = [Call(h, ("GET", self._keys.note(h, *k))) for h, k in zip(homes, keys, strict=True)]
        notes = await self._client.ask(calls, deadline)
        for item, note in zip(away, notes, strict=True):
            if note != item.row.note.encode():
                problems.add(f"session {item.header.id!r} is not noted at its home")
        return problems

    def _expect(self, item: Loaded, expected: dict[str, set[str]]) -> None:
        """Note the orders that a session has to be in, and that it is counted there."""
        header, place = item.header, item.row.place
        app, member = escaped(header.app), place + header.id
        for facet, phase in positions(header):
            tally = f"list:{app}:{facet}"
            for order, score in (("created", int(place, 16)), ("active", header.active_at)):
                entry = f"{member} at {float(score):.17g}"
                expected.setdefault(f"{tally}:{phase}:{order}", set()).add(entry)
            counted = expected.setdefault(tally, set())
            count = next((int(c.split()[1]) for c in counted if c.startswith(f"{phase} ")), 0)
            counted.discard(f"{phase} {count}")
            counted.add(f"{phase} {count + 1}")
        for kind, when in (("due", due_at(header)), ("overdue", overdue_at(header))):
            if when is not None:
                expected.setdefault(f"{kind}:{app}", set()).add(f"{member} at {float(when):.17g}")

    async def _orders(self, route: Route, names: Sequence[str]) -> dict[str, set[str]]:
        """Return what orders and tallies hold, in words."""
        head = self._keys.head(route)
        chosen = [name for name in names if name.partition(":")[0] in ORDERS]
        calls = []
        for name in chosen:
            is_tally = name.startswith("list:") and not name.endswith((":created", ":active"))
            order = ("ZRANGE", head + name, 0, -1, "WITHSCORES")
            calls.append(Call(route, ("HGETALL", head + name) if is_tally else order))
        replies = await self._client.run(calls, self._client.deadline(), lane="bulk")
        return {name: _entries(name, reply) for name, reply in zip(chosen, replies, strict=True)}


def _entries(name: str, reply: Reply) -> set[str]:
    """Return the entries of an order or a tally, in words."""
    if isinstance(reply, Unavailable):
        return {f"something that can not be read: {reply}"}
    pairs = [
        (left.decode(), right.decode()) for left, right in zip(*[iter(reply)] * 2, strict=True)
    ]
    if name.startswith("list:") and not name.endswith((":created", ":active")):
        return {f"{phase} {count}" for phase, count in pairs}
    return {f"{member} at {float(score):.17g}" for member, score in pairs}


def faults_of(name: str, release: str) -> tuple[str, ...]:
    """Return the faults that a release of `Redis` or `Valkey` is known for, in words."""
    major, minor, patch, *_ = [*map(int, re.findall(r"\d+", release)), 0, 0, 0]
    version = (major, minor)
    found: list[str] = []
    for fault in FAULTS:
        repaired = fault.repaired[name]
        if version < fault.since or version > max(repaired):
            continue
        first = repaired.get(version)
        if first is None:
            found.append(f"{fault.name} ({fault.what}), not repaired in {major}.{minor}")
        elif patch < first:
            found.append(f"{fault.name} ({fault.what}), repaired in {major}.{minor}.{first}")
    return tuple(found)

"""Lists and counts: orders of every route merged into one, a page at a time, by keyset.

A route keeps, for each facet and phase, its sessions by activity and by creation. A list merges the
beginnings of those that match; a route that has more to give is asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sojourn.errors import Corrupt, InvalidCursor
from sojourn.expiry import is_past
from sojourn.model import Record
from sojourn.store import Listed
from sojourn.stores.planning import Loaded
from sojourn.stores.redis import routes, rows, scripts
from sojourn.stores.redis.client import Call
from sojourn.stores.redis.keys import label_facet, user_facet
from sojourn.stores.redis.routes import ROUTES
from sojourn.stores.redis.spots import PLACE_DIGITS, Spot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from sojourn.model import Encoded, Header
    from sojourn.store import Query
    from sojourn.stores.planning import Key
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.finding import Finder
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.rows import Unreadable
    from sojourn.stores.redis.wire import Command

SPARE = 2
"""Entries asked of each route beyond its share of a page: most pages then need one look."""

GROWTH = 4
"""An order that has more to give is asked for so many times more."""

WALKED = 500
"""Sessions looked at at a time where filters have to be checked one by one."""


class Entry(NamedTuple):
    """A session in an order: its score, then its member, which is its place and its id."""

    score: int
    member: str
    route: Route

    @property
    def id(self) -> str:
        """The session's id."""
        return self.member[PLACE_DIGITS:]


class Source(NamedTuple):
    """Orders that are merged: those of a facet in one route, all that are wanted or one phase's."""

    route: Route
    key: str
    phase: str = ""


class Lister:
    """Answers lists and counts."""

    def __init__(self, client: Client, keys: Keys, finder: Finder) -> None:
        self._client = client
        self._keys = keys
        self._finder = finder

    # --- lists ---------------------------------------------------------------------------------

    async def listed(self, query: Query) -> Listed:
        """Return a page of sessions; see `Store.list`."""
        found, position = await self.page(query)
        loaded = [item for item in found if isinstance(item, Loaded)]
        corrupt = tuple(item for item in found if isinstance(item, Corrupt))
        records = await self._records(query.app, loaded, self._client.deadline())
        return Listed(records, position, corrupt)

    async def page(self, query: Query) -> tuple[list[Loaded | Corrupt], str | None]:
        """Return the sessions of a page, and the position behind it unless it is the last one."""
        deadline = self._client.deadline()
        position = _parse_position(query.position)
        found: list[tuple[Entry, Loaded | Corrupt]] = []
        async for entry, item in self._matching(query, position, query.limit + 1, deadline):
            found.append((entry, item))
            if len(found) > query.limit:
                break
        more = len(found) > query.limit
        found = found[: query.limit]
        return [item for _, item in found], _position_of(found[-1][0]) if more else None

    async def _matching(
        self, query: Query, position: Entry | None, wanted: int, deadline: float
    ) -> AsyncIterator[tuple[Entry, Loaded | Corrupt]]:
        """Yield the sessions that match, in order, behind a position.

        What comes first is read whole: most lists want nothing else. If that does not do, states
        are left out until it is known which sessions are wanted.
        """
        walk = await self._walk(query, position, deadline)
        page = most = min(max(wanted, 1), WALKED)
        chosen = entries = await walk.next(page, deadline)
        while entries:
            for at in range(0, len(chosen), page):
                for pair in await self._whole(query, chosen[at : at + page], deadline):
                    yield pair
            most = min(GROWTH * most, WALKED)
            entries = await walk.next(most, deadline)
            chosen = [entry for entry, _ in await self._outlined(query, entries, deadline)]

    async def _walk(self, query: Query, position: Entry | None, deadline: float) -> _Fixed:
        """Return a walk through all sessions that may match."""
        if query.parent is not None:
            return await self._among_children(query, position, deadline)
        return _Walk(self._client, await self.sources(query, deadline), position, query)

    async def _whole(
        self, query: Query, entries: Sequence[Entry], deadline: float
    ) -> list[tuple[Entry, Loaded | Corrupt]]:
        """Return those of some sessions that match."""
        places = [(Spot(entry.route, None), (query.app, entry.id)) for entry in entries]
        calls = [self._finder.row_call(spot, key) for spot, key in places]
        replies = await self._client.ask(calls, deadline)
        items = [
            self._finder.taken(spot, key, reply)
            for (spot, key), reply in zip(places, replies, strict=True)
        ]
        return _chosen(query, entries, items)

    async def _outlined(
        self, query: Query, entries: Sequence[Entry], deadline: float
    ) -> list[tuple[Entry, Loaded | Corrupt]]:
        """Return those of some sessions that match, without their states."""
        places = [(Spot(entry.route, None), (query.app, entry.id)) for entry in entries]
        return _chosen(query, entries, await self._finder.outlines(places, deadline))

    async def sources(self, query: Query, deadline: float) -> list[Source]:
        """Return the orders that hold what a query is about, of the narrowest facet it names."""
        facet = "all"
        where: Iterable[Route] = range(ROUTES)
        if query.user is not None or query.anonymous:
            facet = user_facet(query.user)
            if query.user is not None:
                where = await self.routes_of(query.app, query.user, deadline)
        elif query.labels:
            facet = label_facet(*next(iter(query.labels.items())))
        return [Source(route, self._keys.tally(route, query.app, facet)) for route in where]

    async def routes_of(self, app: str, user: str, deadline: float) -> list[Route]:
        """Return the routes that may have sessions of a user, home first."""
        home = routes.of_user(app, user)
        call = Call(home, ("SMEMBERS", self._keys.routes(home, app, user)))
        (others,) = await self._client.ask([call], deadline)
        return [home, *sorted(int(other) for other in others)]

    async def _among_children(
        self, query: Query, position: Entry | None, deadline: float
    ) -> _Fixed:
        """Return a walk through the children of a session."""
        assert query.parent is not None, "only then are there children to look at"
        parent = (query.app, query.parent)
        loaded = (await self._finder.load([parent], deadline))[parent]
        if loaded is None:
            return _Fixed([])
        route = loaded.route if isinstance(loaded, rows.Unreadable) else loaded.row.route
        key = self._keys.children(route, *parent)
        (flat,) = await self._client.ask(
            [Call(route, ("ZRANGE", key, 0, -1, "WITHSCORES"))], deadline
        )
        entries: list[Entry] = []
        for at in range(0, len(flat), 2):
            place = int(float(flat[at + 1]))
            member = f"{place:0{PLACE_DIGITS}x}{flat[at].decode()}"
            entries.append(Entry(place, member, route))
        if query.order.endswith("active"):
            entries = await self._by_activity(query.app, entries, deadline)
        up = not query.order.startswith("-")
        entries.sort(key=_sort_key, reverse=not up)
        if position is not None:
            entries = [entry for entry in entries if _is_behind(entry, position, up=up)]
        return _Fixed(entries)

    async def _by_activity(
        self, app: str, entries: Sequence[Entry], deadline: float
    ) -> list[Entry]:
        places = [(Spot(entry.route, None), (app, entry.id)) for entry in entries]
        found: list[Entry] = []
        for entry, item in zip(entries, await self._finder.outlines(places, deadline), strict=True):
            if isinstance(item, Loaded):
                found.append(Entry(item.header.active_at, entry.member, entry.route))
        return found

    async def _records(self, app: str, loaded: Sequence[Loaded], deadline: float) -> list[Record]:
        """Return records of sessions, with the tiers that their users see."""
        if not loaded:
            return []
        users = dict.fromkeys(item.header.user for item in loaded if item.header.user is not None)
        owners: list[str | None] = [None, *users]
        calls = []
        for user in owners:
            route = routes.of_app(app) if user is None else routes.of_user(app, user)
            calls.append(Call(route, ("HGETALL", self._keys.tier(route, app, user))))
        flats = await self._client.ask(calls, deadline)
        tiers: dict[str | None, Encoded] = {}
        for owner, flat in zip(owners, flats, strict=True):
            tiers[owner] = rows.to_tier(flat, f"tier of {app}")
        return [
            Record(
                header=item.header,
                state=rows.to_state(item.header.id, item.state),
                user_state={} if item.header.user is None else tiers[item.header.user],
                app_state=tiers[None],
            )
            for item in loaded
        ]

    # --- counts --------------------------------------------------------------------------------

    async def count(self, query: Query) -> int:
        """Return how many sessions match; see `Store.count`."""
        deadline = self._client.deadline()
        query = msgspec.structs.replace(query, expired=False, position=None, order="created")
        by_user = query.user is not None or query.anonymous
        if query.parent is not None or len(query.labels or {}) + by_user > 1:
            return await self._count_each(query, deadline)
        sources = await self.sources(query, deadline)
        calls = []
        for group in grouped(sources, cluster=self._client.cluster):
            keys = [source.key for source in group]
            command: Command = (
                "EVALSHA",
                scripts.COUNT.sha,
                len(keys),
                *keys,
                wanted_phases(query),
            )
            calls.append(Call(group[0].route, command))
        kept = sum(await self._client.ask(calls, deadline))
        if not kept:
            return 0
        where = list(dict.fromkeys(source.route for source in sources))
        return kept - await self._expired_in(query, where, deadline)

    async def _count_each(self, query: Query, deadline: float) -> int:
        """Return how many sessions match of which no tally is kept."""
        walk = await self._walk(query, None, deadline)
        count = 0
        while entries := await walk.next(WALKED, deadline):
            found = await self._outlined(query, entries, deadline)
            count += sum(isinstance(item, Loaded) for _, item in found)
        return count

    async def _expired_in(self, query: Query, where: Sequence[Route], deadline: float) -> int:
        """Return how many sessions of a count are past their deadline but not swept yet."""
        past: dict[Key, Spot] = {}
        ends = [
            Source(route, key)
            for route in where
            for key in (self._keys.due(route, query.app), self._keys.overdue(route, query.app))
        ]
        groups = grouped(ends, cluster=self._client.cluster)
        calls = []
        for group in groups:
            keys = [source.key for source in group]
            command: Command = ("EVALSHA", scripts.PAST.sha, len(keys), *keys, query.now)
            calls.append(Call(group[0].route, command))
        for group, reply in zip(groups, await self._client.ask(calls, deadline), strict=True):
            for number, members in reply:
                spot = Spot(group[number - 1].route, None)
                for member in members:
                    past[query.app, member[PLACE_DIGITS:].decode()] = spot
        places = [(spot, key) for key, spot in past.items()]
        return sum(
            is_past(item.header.expires_at, query.now) and fits(item.header, query)
            for item in await self._finder.outlines(places, deadline)
            if isinstance(item, Loaded)
        )


class _Fixed:
    """A walk through entries that are known already."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    async def next(self, wanted: int, _deadline: float) -> list[Entry]:
        """Return the next so many."""
        found, self._entries = self._entries[:wanted], self._entries[wanted:]
        return found


class _Walk(_Fixed):
    """A walk through orders of many routes, merged."""

    def __init__(
        self, client: Client, sources: Sequence[Source], position: Entry | None, query: Query
    ) -> None:
        super().__init__([])
        self._client = client
        self._sources = sources
        self._position = position
        self._order = query.order.removeprefix("-")
        self._up = query.order == self._order
        self._phases = wanted_phases(query)

    async def next(self, wanted: int, deadline: float) -> list[Entry]:
        """Return the next so many entries, fewer only at the end."""
        most = SPARE + -(-2 * wanted // max(1, len(self._sources)))
        found: list[Entry] = []
        asked: dict[Source, Entry | None] = dict.fromkeys(self._sources, self._position)
        while asked:
            full = await self._ask(asked, most, found, deadline)
            found.sort(key=_sort_key, reverse=not self._up)
            last = found[wanted - 1] if len(found) >= wanted else None
            asked = {
                source: end
                for source, end in full.items()
                if last is None or not _is_behind(end, last, up=self._up)
            }
            most *= GROWTH
        found = found[:wanted]
        if found:
            self._position = found[-1]
        return found

    async def _ask(
        self, asked: Mapping[Source, Entry | None], most: int, found: list[Entry], deadline: float
    ) -> dict[Source, Entry]:
        """Add the next entries of each source; return those that may have more, and their last."""
        groups = grouped(asked, cluster=self._client.cluster)
        calls = []
        for group in groups:
            positions: list[str | int] = []
            for source in group:
                behind = asked[source]
                where = ("", "") if behind is None else (behind.score, behind.member)
                positions += (source.phase, *where)
            keys = [source.key for source in group]
            direction = "up" if self._up else "down"
            arguments = (self._order, direction, most, self._phases, *positions)
            command: Command = ("EVALSHA", scripts.PAGE.sha, len(keys), *keys, *arguments)
            calls.append(Call(group[0].route, command))
        full: dict[Source, Entry] = {}
        for group, reply in zip(groups, await self._client.ask(calls, deadline), strict=True):
            for number, phase, flat in reply:
                source = group[number - 1]._replace(phase=phase.decode())
                entries = [
                    Entry(int(float(flat[at + 1])), flat[at].decode(), source.route)
                    for at in range(0, len(flat), 2)
                ]
                found += entries
                if len(entries) == most:
                    full[source] = entries[-1]
        return full


def wanted_phases(query: Query) -> str:
    """Return the phases that a query is about, each with a comma behind it; all of them are none.

    None of them at all is what no phase is called.
    """
    if query.phases is None:
        return ""
    return "".join(f"{phase.value}," for phase in dict.fromkeys(query.phases)) or ","


def grouped(sources: Iterable[Source], *, cluster: bool) -> list[list[Source]]:
    """Return sources by what can be asked at once: all of them on one server, else by route."""
    groups: dict[Route, list[Source]] = {}
    for source in sources:
        groups.setdefault(source.route if cluster else 0, []).append(source)
    return list(groups.values())


def _sort_key(entry: Entry) -> tuple[int, bytes]:
    return entry.score, entry.member.encode()


def _is_behind(entry: Entry, position: Entry, *, up: bool) -> bool:
    """Return whether an entry comes behind a position."""
    here, there = _sort_key(entry), _sort_key(position)
    return here > there if up else here < there


def fits(header: Header, query: Query) -> bool:
    """Return whether a session matches the filters, expired or not."""
    if (query.user is not None or query.anonymous) and header.user != query.user:
        return False
    if query.phases is not None and header.phase not in query.phases:
        return False
    if query.parent is not None and header.parent != query.parent:
        return False
    wanted = query.labels or {}
    return all(header.labels.get(name) == value for name, value in wanted.items())


def matches(header: Header, query: Query) -> bool:
    """Return whether a session belongs in a list."""
    return fits(header, query) and (query.expired or not is_past(header.expires_at, query.now))


def _chosen(
    query: Query, entries: Sequence[Entry], items: Sequence[Loaded | Unreadable | None]
) -> list[tuple[Entry, Loaded | Corrupt]]:
    """Return the entries whose sessions match, as they were found; what can not be read does."""
    return [
        (entry, item)
        for entry, item in zip(entries, items, strict=True)
        if isinstance(item, Corrupt)
        or (
            item is not None
            and item.row.place == entry.member[:PLACE_DIGITS]
            and matches(item.header, query)
        )
    ]


def _position_of(entry: Entry) -> str:
    return f"{entry.score}.{entry.member}"


def position_by_creation(item: Loaded) -> str:
    """Return the position behind a session where they are listed as they were created."""
    place = item.row.place
    return _position_of(Entry(int(place, 16), place + item.header.id, item.row.route))


def _parse_position(position: str | None) -> Entry | None:
    if position is None:
        return None
    try:
        score, member = position.split(".", 1)
        int(member[:PLACE_DIGITS], 16)
        entry = Entry(int(score), member, 0)
    except ValueError:
        raise InvalidCursor("its position is not one of this store's") from None
    if len(member) <= PLACE_DIGITS or abs(entry.score) > 1 << 63:
        raise InvalidCursor("its position is not one of this store's")
    return entry

"""Reads of one session: each answers from one moment, by one script or one transaction.

In a cluster the app's tier, and the tier of a user whose home is elsewhere, are read beside the
session. What the session's route has written for them and they do not show yet is in its outbox,
which was read with the session, so that the whole is as of the session's moment all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from sojourn.expiry import is_past
from sojourn.model import Record
from sojourn.store import Ends, Tiers
from sojourn.stores.redis import routes, rows, scripts
from sojourn.stores.redis.client import Call, transaction
from sojourn.stores.redis.errands import Box, to_errand
from sojourn.stores.redis.keys import NAMES_REMEMBERED
from sojourn.stores.redis.spots import Spot, spot_in

if TYPE_CHECKING:
    from sojourn.model import Encoded, Entry
    from sojourn.store import EventQuery, Get
    from sojourn.stores.planning import Key, Loaded
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.finding import Finder
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Command, Packed, Reply

LOOKS = 8
"""Looks at a session and the tiers it shares until they are of one moment; then what there is."""


Asked: TypeAlias = "tuple[str | bytes | int, ...]"
"""A script that reads, and its arguments."""

_FIELDS = tuple(rows.FIELDS.split(","))
_NO_WINDOW: Asked = (scripts.LATEST.sha, 0, *_FIELDS)
_NO_BOUNDS = (None, None, None, None, None, 0)


class Away(NamedTuple):
    """A tier in another route than the session: its key, and whose it is."""

    route: Route
    key: str


class _Plain(NamedTuple):
    """Plain commands that read what the script `latest` does, and whose tiers are among it.

    A server runs them, in a transaction, in less time than it takes to begin a script.
    """

    reads: Packed
    ours: bool
    everyones: bool
    lines: bool

    def reply(self, found: list[Reply] | None) -> Reply:
        """Return what was found as the script would; `None` for nothing."""
        if found is None:
            return None
        lines = found.pop() if self.lines else []
        everyones = found.pop() if self.everyones else []
        return found[0], found[1] if self.ours else [], everyones, [], [], lines


@dataclass(slots=True)
class Seen:
    """A session as it was read, with what its route has still to do elsewhere."""

    loaded: Loaded
    user_tier: list[bytes]
    app_tier: list[bytes]
    outbox: list[bytes]
    last: int
    floors: dict[Route, int]
    lines: list[bytes] = field(default_factory=list)


class Reader:
    """Answers reads of single sessions and of tiers."""

    def __init__(self, client: Client, keys: Keys, finder: Finder) -> None:
        self._client = client
        self._keys = keys
        self._finder = finder
        self._names = lru_cache(maxsize=NAMES_REMEMBERED)(self._names_of)
        self._plain = lru_cache(maxsize=NAMES_REMEMBERED)(self._plain_of)

    # --- one session ---------------------------------------------------------------------------

    async def get(self, get: Get) -> Record | None:
        """Return a session; see `Store.get`."""
        deadline = self._client.deadline()
        key = (get.app, get.id)
        window = _asked(get.window)
        if self._client.cluster:
            seen, mine, everyones = await self._look(key, window, deadline)
        else:  # one server has all of it, and it is read at once
            seen = await self._find(key, window, deadline)
            mine, everyones = ([], []) if seen is None else (seen.user_tier, seen.app_tier)
        if seen is None or (not get.expired and is_past(seen.loaded.header.expires_at, get.now)):
            return None
        return Record(
            header=seen.loaded.header,
            state=rows.to_state(get.id, seen.loaded.state),
            user_state=_tier_of(mine, get.app),
            app_state=_tier_of(everyones, get.app),
            entries=tuple(rows.to_entries(seen.lines, get.id)) if seen.lines else (),
        )

    async def events(self, app: str, id: str, now: int, window: EventQuery) -> list[Entry] | None:
        """Return a window of a log; see `Store.events`."""
        deadline = self._client.deadline()
        seen = await self._find((app, id), _asked(window), deadline, tiers=False)
        if seen is None or is_past(seen.loaded.header.expires_at, now):
            return None
        return rows.to_entries(seen.lines, id)

    async def _find(
        self, key: Key, window: Asked, deadline: float, *, tiers: bool = True
    ) -> Seen | None:
        """Return a session from where it was seen last, or from home, or where a note says."""
        spot = self._finder.spots.get(key)
        if spot is not None:
            reply = None
            if window[0] is scripts.LATEST.sha and not self._client.cluster:
                plain = self._plain(spot, key, tiers, window[1])
                reply = plain.reply(await self._client.ask_at_once(spot.route, plain.reads))
            if reply is None:
                reply = await self._client.ask_one(self._call(spot, key, window, tiers), deadline)
            seen = self._seen(spot, key, reply)
            if seen is not None and _is_of(seen, spot):
                return seen
        home = routes.of_id(*key)
        seen = None
        for _ in range(LOOKS):
            spot = self._finder.spots.get(key) or Spot(home, None)
            calls = [
                Call(home, ("GET", self._keys.note(home, *key))),
                self._call(spot, key, window, tiers),
            ]
            note, reply = await self._client.ask(calls, deadline)
            seen = self._seen(spot, key, reply)
            if seen is not None and _is_of(seen, spot):
                return seen
            if seen is None:
                if note is None or spot_in(note) == spot:
                    return None
                self._finder.spots.keep(key, spot_in(note))
        return seen

    def _call(self, spot: Spot, key: Key, window: Asked, tiers: bool) -> Call:  # noqa: FBT001 - it says what is read
        """Return the call that reads a session, and what tiers are in reach."""
        names = self._names(spot, key, tiers)
        sha, *arguments = window
        return Call(spot.route, ("EVALSHA", sha, len(names), *names, *arguments))

    def _names_of(self, spot: Spot, key: Key, tiers: bool) -> tuple[str, ...]:  # noqa: FBT001 - it says what is read
        """Return the keys of that call."""
        app = key[0]
        session = self._keys.session(spot.route, *key)
        log, kinds = self._keys.log(spot.route, *key), self._keys.kinds(spot.route, *key)
        user_tier = app_tier = outbox = sent = session
        if tiers and spot.user is not None:
            home = routes.of_user(app, spot.user)
            if home == spot.route or not self._client.cluster:
                user_tier = self._keys.tier(home, app, spot.user)
        if tiers and not self._client.cluster:
            app_tier = self._keys.tier(routes.of_app(app), app, None)
        if tiers and self._client.cluster:
            outbox, sent = self._keys.outbox(Box(spot.route, app, "tiers"))
            if routes.of_app(app) == spot.route:
                app_tier = self._keys.tier(spot.route, app, None)
        return (session, log, kinds, user_tier, app_tier, outbox, sent)

    def _plain_of(self, spot: Spot, key: Key, tiers: bool, last: int) -> _Plain:  # noqa: FBT001 - it says what is read
        """Return the commands that read the same, the last so many events with it."""
        session, log, _, ours, everyones, _, _ = self._names(spot, key, tiers)
        shared = [tier for tier in (ours, everyones) if tier is not session]
        reads: list[Command] = [("HMGET", session, *_FIELDS)]
        reads += [("HGETALL", tier) for tier in shared]
        if last:
            reads.append(("LRANGE", log, -last, -1))
        return _Plain(transaction(reads), ours is not session, everyones is not session, bool(last))

    def _seen(self, spot: Spot, key: Key, reply: Reply) -> Seen | None:
        """Return what a reply says; remember where the session is."""
        fields, user_tier, app_tier, outbox, sent, lines = reply
        loaded = rows.to_loaded(key[1], spot.route, fields)
        if loaded is None:
            self._finder.spots.drop(key)
            return None
        if isinstance(loaded, rows.Unreadable):
            raise loaded
        user = loaded.header.user
        if user != spot.user or self._finder.spots.get(key) is not spot:
            self._finder.spots.keep(key, Spot(spot.route, user))
        if not sent:
            return Seen(loaded, user_tier, app_tier, outbox, 0, {}, lines)
        numbers = dict(zip(sent[::2], sent[1::2], strict=True))
        last = int(numbers.pop(b"last", 0))
        floors = {
            int(name.partition(b":")[2]): int(number)
            for name, number in numbers.items()
            if name.startswith(b"floor:")
        }
        return Seen(loaded, user_tier, app_tier, outbox, last, floors, lines)

    # --- tiers beside it -----------------------------------------------------------------------

    async def _look(
        self, key: Key, window: Asked, deadline: float
    ) -> tuple[Seen | None, list[bytes], list[bytes]]:
        """Return a session of a cluster, and its user's tier and the app's as of that moment."""
        seen = await self._find(key, window, deadline)
        if seen is None:
            return None, [], []
        user = seen.loaded.header.user
        user_away, app_away = self._away(key[0], user, seen.loaded.row.route)
        away = [place for place in (user_away, app_away) if place is not None]
        flats = await self._read_away(key, seen, away, deadline) if away else {}
        for _ in range(LOOKS if away else 0):
            late = [place for place in away if not _agrees(seen, place, flats[place][1])]
            if not late:
                break
            if any(flats[place][1] > seen.last for place in late):
                again = await self._find(key, window, deadline)
                if again is None:
                    return None, [], []
                seen = again
            else:
                found = await self._read_away(key, seen, late, deadline)
                if all(found[place] == flats[place] for place in late):
                    break  # a master was lost that had done more
                flats |= found
        app = seen.app_tier if app_away is None else _overlaid(seen, app_away, flats[app_away])
        mine = seen.user_tier if user_away is None else _overlaid(seen, user_away, flats[user_away])
        return seen, mine, app

    def _away(self, app: str, user: str | None, route: Route) -> tuple[Away | None, Away | None]:
        """Return where the tiers of a user and an app are, if not with the session."""
        mine = None if user is None else self._tier_away(app, user, route)
        return mine, self._tier_away(app, None, route)

    def _tier_away(self, app: str, user: str | None, route: Route) -> Away | None:
        home = routes.of_app(app) if user is None else routes.of_user(app, user)
        if home == route or not self._client.cluster:
            return None
        return Away(home, self._keys.tier(home, app, user))

    async def _read_away(
        self, key: Key, seen: Seen, away: list[Away], deadline: float
    ) -> dict[Away, tuple[list[bytes], int]]:
        """Return tiers that are elsewhere, and up to which number our errands were done there."""
        mark = self._keys.mark(Box(seen.loaded.row.route, key[0], "tiers"))
        calls = []
        for place in away:
            marks = self._keys.marks(place.route)
            command = ("EVALSHA", scripts.TIER.sha, 2, place.key, marks, mark)
            calls.append(Call(place.route, command))
        replies = await self._client.ask(calls, deadline)
        return {
            place: (flat, int(done or 0)) for place, (flat, done) in zip(away, replies, strict=True)
        }

    async def tiers(self, app: str, user: str | None) -> Tiers:
        """Return shared state; see `Store.tiers`."""
        places: list[tuple[Route, str | None]] = [(routes.of_app(app), None)]
        if user is not None:
            places.append((routes.of_user(app, user), user))
        calls = [
            Call(route, ("HGETALL", self._keys.tier(route, app, whose))) for route, whose in places
        ]
        found = await self._client.ask(calls, self._client.deadline())
        mine: Encoded = _tier_of(found[1], app) if user is not None else {}
        return Tiers(mine, _tier_of(found[0], app))


def _tier_of(flat: list[bytes], app: str) -> Encoded:
    """Return a tier of an app from its names and values."""
    return rows.to_tier(flat, f"tier of {app}") if flat else {}


def _is_of(seen: Seen, spot: Spot) -> bool:
    """Return whether a session was read with its own user's tier."""
    return seen.loaded.header.user == spot.user


def _agrees(seen: Seen, place: Away, done: int) -> bool:
    """Return whether a tier can be brought to the session's moment with what is in its outbox."""
    return seen.floors.get(place.route, 0) <= done <= seen.last or done == 0


def _overlaid(seen: Seen, place: Away, tier: tuple[list[bytes], int]) -> list[bytes]:
    """Return a tier with what the session's route has written for it and it does not show yet."""
    flat, done = tier
    values = dict(zip(flat[::2], flat[1::2], strict=True))
    for errand in map(to_errand, seen.outbox):
        if errand.to != place.route or errand.n <= done:
            continue
        for name, key, *arguments in errand.do:
            texts = [argument.encode() for argument in arguments]
            if key == place.key and name == "HSET":
                values.update(zip(texts[::2], texts[1::2], strict=True))
            elif key == place.key and name == "HDEL":
                for text in texts:
                    values.pop(text, None)
    return [part for pair in values.items() for part in pair]


def _asked(window: EventQuery | None) -> Asked:
    """Return the script that reads a window, and the window as it takes it."""
    if window is None:
        return _NO_WINDOW
    bounds = (window.after_seq, window.before_seq, window.since_instant)
    opening = window.opening if type(window) is Ends else 0
    if (window.first, window.kinds, *bounds, opening) == _NO_BOUNDS and window.last is not None:
        return (scripts.LATEST.sha, window.last, *_FIELDS)
    mode, limit = "all", window.last
    if window.first is not None:
        mode, limit = "first", window.first
    elif window.last is not None:
        mode = "last"
    arguments = [scripts.READ.sha, rows.FIELDS, mode, "" if limit is None else limit]
    arguments += ["" if bound is None else bound for bound in bounds]
    arguments.append(opening if mode == "last" else 0)
    if window.kinds is None:
        return (*arguments, "")
    return (*arguments, len(window.kinds) or "0", *window.kinds)

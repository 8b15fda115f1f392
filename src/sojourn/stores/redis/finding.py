"""Finding sessions by app and id: at the home of the id, or where a note there says.

An id alone leads to its home. A session of a user is with its user, so that one script can change
both: then its home has a note. Nobody sees such a session half there: the note comes first, and a
note without a session is no session. Where sessions were found is remembered; who looks in vain at
a remembered place looks at the home before it says that there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.stores.redis import routes, rows
from sojourn.stores.redis.client import Call
from sojourn.stores.redis.rows import Unreadable
from sojourn.stores.redis.spots import Spot, spot_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sojourn.stores.planning import Key, Loaded
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.wire import Reply

SPOTS = 65_536
"""Sessions whose place is remembered: some hundred bytes each, and a round trip saved."""

OUTLINED = 500
"""Sessions whose outlines are read at a time: the time of one attempt is enough for them."""

_OUTLINE = tuple(rows.OUTLINE.split(","))


class Spots:
    """Where sessions were seen last, the oldest first, within a bound."""

    def __init__(self) -> None:
        self._spots: dict[Key, Spot] = {}

    def get(self, key: Key) -> Spot | None:
        """Return where a session was seen last."""
        return self._spots.get(key)

    def keep(self, key: Key, spot: Spot) -> None:
        """Remember where a session is."""
        if self._spots.get(key) == spot:
            return
        self._spots.pop(key, None)
        self._spots[key] = spot
        if len(self._spots) > SPOTS:
            del self._spots[next(iter(self._spots))]

    def drop(self, key: Key) -> None:
        """Forget where a session was."""
        self._spots.pop(key, None)


class Finder:
    """Reads sessions by app and id, many in two round trips at most where they are not known."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self.spots = Spots()

    def row_call(self, spot: Spot, key: Key) -> Call:
        """Return the call that reads a session at a place."""
        session = self._keys.session(spot.route, *key)
        return Call(spot.route, ("HMGET", session, *rows.FIELDS.split(",")))

    def taken(self, spot: Spot, key: Key, reply: Reply) -> Loaded | Unreadable | None:
        """Return the session that a reply holds, and remember where it is."""
        found = rows.to_loaded(key[1], spot.route, reply)
        if found is None:
            self.spots.drop(key)
        elif not isinstance(found, Unreadable):
            self.spots.keep(key, Spot(spot.route, found.header.user))
        return found

    async def load(
        self, keys: Iterable[Key], deadline: float
    ) -> dict[Key, Loaded | Unreadable | None]:
        """Return sessions as they are; `None` for those that are missing."""
        found: dict[Key, Loaded | Unreadable | None] = {}
        unknown: list[Key] = []
        seen: list[tuple[Key, Spot]] = []
        for key in keys:
            spot = self.spots.get(key)
            if spot is None:
                unknown.append(key)
            else:
                seen.append((key, spot))
        calls = [self.row_call(spot, key) for key, spot in seen]
        calls += self._home_calls(unknown)
        replies = await self._client.ask(calls, deadline)
        for (key, spot), reply in zip(seen, replies, strict=False):
            found[key] = self.taken(spot, key, reply)
        noted = self._at_home(unknown, replies[len(seen) :], found)
        missed = [key for key, _ in seen if found[key] is None]
        if missed:  # remembered in vain: once more, from home
            replies = await self._client.ask(self._home_calls(missed), deadline)
            noted += self._at_home(missed, replies, found)
        replies = await self._client.ask([self.row_call(s, k) for k, s in noted], deadline)
        for (key, spot), reply in zip(noted, replies, strict=True):
            found[key] = self.taken(spot, key, reply)
        return found

    async def outlines(
        self, places: Sequence[tuple[Spot, Key]], deadline: float
    ) -> list[Loaded | Unreadable | None]:
        """Return sessions without their states, as they are at places, however many there are."""
        found: list[Loaded | Unreadable | None] = []
        for at in range(0, len(places), OUTLINED):
            some = places[at : at + OUTLINED]
            calls = [
                Call(spot.route, ("HMGET", self._keys.session(spot.route, *key), *_OUTLINE))
                for spot, key in some
            ]
            for (spot, key), fields in zip(
                some, await self._client.ask(calls, deadline), strict=True
            ):
                found.append(rows.to_outline(key[1], spot.route, fields))
        return found

    def _home_calls(self, keys: Iterable[Key]) -> list[Call]:
        """Return two calls for each session: the note at its home, and the session there."""
        calls: list[Call] = []
        for key in keys:
            home = routes.of_id(*key)
            calls.append(Call(home, ("GET", self._keys.note(home, *key))))
            calls.append(self.row_call(Spot(home, None), key))
        return calls

    def _at_home(
        self,
        keys: list[Key],
        replies: list[Reply],
        found: dict[Key, Loaded | Unreadable | None],
    ) -> list[tuple[Key, Spot]]:
        """Take what was found at home; return the sessions that notes name, and where they are."""
        noted: list[tuple[Key, Spot]] = []
        for number, key in enumerate(keys):
            note, fields = replies[2 * number : 2 * number + 2]
            home = Spot(routes.of_id(*key), None)
            found[key] = self.taken(home, key, fields)
            if found[key] is None and note is not None:
                noted.append((key, spot_in(note)))
        return noted

"""Removing many: what is due, with what else a sweep sees to, and all that belongs to a user."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import Corrupt, SojournError, Unavailable
from sojourn.lifecycle import ENDING, Phase
from sojourn.store import Delete
from sojourn.stores.planning import Known, Loaded
from sojourn.stores.redis import routes, scripts
from sojourn.stores.redis.batch import Batch
from sojourn.stores.redis.client import Call
from sojourn.stores.redis.errands import ABOUTS, Box
from sojourn.stores.redis.keys import RETURNING, user_facet
from sojourn.stores.redis.request import Request
from sojourn.stores.redis.routes import ROUTES
from sojourn.stores.redis.spots import PLACE_DIGITS, Spot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Header
    from sojourn.store import Due
    from sojourn.stores.planning import Key
    from sojourn.stores.redis.batch import Tools
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.listing import Lister
    from sojourn.stores.redis.restoring import Restorer
    from sojourn.stores.redis.routes import Route

log = logging.getLogger("sojourn")

SWEPT = 1_000
"""Owners of expired documents, and abandoned restores, that one sweep of a route looks at."""

LOOKED_AT = 1_000
"""Documents of an owner that a server looks at before it answers others: some milliseconds."""

GONE_ON_MICROSECONDS = 600_000_000
"""After how long all documents of an owner are looked at anew if nobody has gone on with it."""

FORGOTTEN = 200
"""Sessions of a user that are removed at a time."""


class _Look(NamedTuple):
    """Whose documents are looked at next, behind which one, and the first deadline before that."""

    route: Route
    owner: str
    last: bytes = b""
    soonest: bytes = b""


class Remover:
    """Sweeps, and forgets users."""

    def __init__(self, tools: Tools, keys: Keys, lister: Lister, restorer: Restorer) -> None:
        self._tools = tools
        self._keys = keys
        self._lister = lister
        self._restorer = restorer

    async def due(self, due: Due) -> list[Header]:
        """Return due sessions, the longest due first; see `Store.due`."""
        found: list[Header] = []
        for item in await self._due(due):
            if isinstance(item, Corrupt):  # it must not keep the others from being ended
                log.error("a session that is due can not be read: %s", item)
            else:
                found.append(item.header)
        return found

    async def reap(self, due: Due) -> list[str]:
        """Remove due sessions, as they were found; see `Store.reap`."""
        found = [item for item in await self._due(due) if isinstance(item, Loaded)]
        known = Known()
        for item in found:
            known.read((due.app, item.header.id), item)
        operations = [Delete(app=due.app, id=item.header.id, now=due.now) for item in found]
        removed = await self._remove(operations, known)
        return [item.header.id for item in found if (due.app, item.header.id) in removed]

    async def _remove(self, operations: Sequence[Delete], known: Known | None = None) -> set[Key]:
        """Remove sessions; return all that were removed, those below them too."""
        if not operations:
            return set()
        batch = Batch(self._tools, operations, known)
        for outcome in await batch.run():
            if isinstance(outcome, Unavailable):
                raise outcome
        return batch.removed

    # --- what is due ---------------------------------------------------------------------------

    async def _due(self, due: Due) -> list[Loaded | Corrupt]:
        """Return due sessions, the longest due first; see to what else is due."""
        deadline = self._tools.client.deadline()
        most = due.limit
        while True:
            replies = await self._tools.client.ask(
                [self._sweep_call(route, due, most) for route in range(ROUTES)], deadline
            )
            deadline = await self._see_to_the_rest(due, replies, deadline)
            entries: list[tuple[int, bytes, Route]] = []
            for route, (flat, *_) in enumerate(replies):
                pairs = zip(flat[::2], flat[1::2], strict=True)
                entries += [(int(float(when)), member, route) for member, when in pairs]
            entries.sort()
            found = await self._load(due, entries, deadline)
            full = any(len(flat) == 2 * most for flat, *_ in replies)
            if len(found) >= due.limit or not full or due.limit <= 0:
                return found[: max(due.limit, 0)]
            most *= 2  # of those that came first, somebody is at work on some

    def _sweep_call(self, route: Route, due: Due, most: int) -> Call:
        _, abandoned = self._keys.staging(route, due.app)
        names = (
            self._keys.due(route, due.app),
            self._keys.docdue(route, due.app),
            abandoned,
            *self._keys.outbox(Box(route, due.app, "tiers")),
            *self._keys.outbox(Box(route, due.app, "notes")),
        )
        return Call(
            route, ("EVALSHA", scripts.SWEEP.sha, len(names), *names, due.now, max(most, 0))
        )

    async def _load(
        self, due: Due, entries: Sequence[tuple[int, bytes, Route]], deadline: float
    ) -> list[Loaded | Corrupt]:
        finder = self._tools.gatherer.finder
        where = [
            (Spot(route, None), (due.app, member[PLACE_DIGITS:].decode()))
            for _, member, route in entries
        ]
        calls = [finder.row_call(spot, key) for spot, key in where]
        found: list[Loaded | Corrupt] = []
        for (spot, key), fields in zip(
            where, await self._tools.client.ask(calls, deadline), strict=True
        ):
            item = finder.taken(spot, key, fields)
            if isinstance(item, Corrupt) or (item is not None and _is_due(item.header, due)):
                found.append(item)
        return found

    async def _see_to_the_rest(
        self, due: Due, replies: Sequence[Sequence[object]], deadline: float
    ) -> float:
        """Remove expired documents and abandoned restores, and run errands that were left.

        Returns a later deadline if the documents are many.
        """
        calls: list[Call] = []
        looks: list[_Look] = []
        boxes: list[Box] = []
        for route, (_, owners, abandoned, *waits) in enumerate(replies):
            assert isinstance(owners, list), "the script returns lists"
            assert isinstance(abandoned, list), "the script returns lists"
            names = dict.fromkeys(owner.decode().removeprefix(RETURNING) for owner in owners)
            looks += [_Look(route, owner) for owner in names]
            for id in abandoned:
                calls += self._restorer.drop_calls(route, due.app, id.decode())
            boxes += [
                Box(route, due.app, about) for about, one in zip(ABOUTS, waits, strict=True) if one
            ]
        try:
            await self._tools.client.run(calls, deadline, lane="write")
            deadline = await self._expire(due, looks, deadline)
            await self._tools.crossing.run_errands(boxes, deadline)
        except SojournError as error:  # none of it keeps sessions from being ended
            log.warning("a sweep could not see to everything: %s", error)
        return deadline

    async def _expire(self, due: Due, looks: Sequence[_Look], deadline: float) -> float:
        """Remove the expired documents of owners: of each some at a time, until all were seen.

        Returns the deadline, which is put off as long as servers answer.
        """
        while looks:
            calls = [self._expire_call(due, look) for look in looks]
            replies = await self._tools.client.run(calls, deadline, lane="write")
            looks = [
                _Look(look.route, look.owner, *reply)
                for look, reply in zip(looks, replies, strict=True)
                if reply and not isinstance(reply, Unavailable)
            ]
            if looks:
                deadline = self._tools.client.deadline()
        return deadline

    def _expire_call(self, due: Due, look: _Look) -> Call:
        route, owner, last, soonest = look
        owned = self._keys.owned(route, due.app, owner)
        docdue = self._keys.docdue(route, due.app)
        keys = (owned.docs, owned.dockeys, owned.docplaces, owned.bodies, docdue)
        again = due.now + GONE_ON_MICROSECONDS
        arguments = (owner, due.now, LOOKED_AT, last, soonest, again)
        return Call(route, ("EVALSHA", scripts.EXPIRE.sha, len(keys), *keys, *arguments))

    # --- everything of a user ------------------------------------------------------------------

    async def forget(self, app: str, user: str) -> int:
        """Remove a user's sessions and tier; see `Store.forget`."""
        forgotten: set[Key] = set()
        deadline = self._tools.client.deadline()
        where = await self._lister.routes_of(app, user, deadline)
        while ids := await self._ids_of(app, user, where, deadline):
            removed = await self._remove([Delete(app=app, id=id, now=0) for id in ids])
            forgotten |= removed & {(app, id) for id in ids}
            deadline = self._tools.client.deadline()
            where = await self._lister.routes_of(app, user, deadline)
        await self._restorer.forget(app, user, deadline)
        # What sessions have still to write to the tier comes first, or it would bring it back.
        boxes = [Box(route, app, "tiers") for route in (*where, routes.of_app(app))]
        await self._tools.crossing.run_errands(boxes, deadline, wholly=True)
        await self._drop_tier(app, user, deadline)
        return len(forgotten)

    async def _ids_of(
        self, app: str, user: str, where: Sequence[Route], deadline: float
    ) -> list[str]:
        """Return some ids of a user's sessions."""
        facet = user_facet(user)
        calls = []
        for route in where:
            for phase in Phase:
                key = self._keys.listed(route, app, facet, phase.value, "created")
                calls.append(Call(route, ("ZRANGE", key, 0, FORGOTTEN - 1)))
        replies = await self._tools.client.ask(calls, deadline)
        return [member[PLACE_DIGITS:].decode() for members in replies for member in members]

    async def _drop_tier(self, app: str, user: str, deadline: float) -> None:
        home = routes.of_user(app, user)
        request = Request(home)
        request.do("UNLINK", self._keys.tier(home, app, user))
        request.do("UNLINK", self._keys.routes(home, app, user))
        request.do("ZREM", self._keys.users(home, app), user)
        for reply in await self._tools.client.run([request.call()], deadline, lane="write"):
            if isinstance(reply, Unavailable):
                raise reply


def _is_due(header: Header, due: Due) -> bool:
    """Return whether a session is due: not while somebody is at work on its end."""
    if header.due_at is None or header.due_at > due.now:
        return False
    held = header.holder is not None and header.leased_until > due.now
    return not (header.phase in ENDING and held)

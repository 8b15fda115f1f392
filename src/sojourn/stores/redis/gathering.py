"""What a plan has to know: sessions, what is in their logs, tiers, claims, children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.lifecycle import OVER
from sojourn.stores.planning import Loaded
from sojourn.stores.redis import routes, rows, scripts
from sojourn.stores.redis.client import Call
from sojourn.stores.weighing import AROUND

if TYPE_CHECKING:
    from sojourn.stores.planning import Claim, Key, Known, Reads
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.finding import Finder
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Reply

MARK_MILLISECONDS = 1_000
"""How long a key stays that was only written to have something to confirm."""

LOOKED_THROUGH = 5_000
"""Events of a log that a server looks through before it answers others: some ten milliseconds."""

Question = tuple[str, "str | int", "str | int"]
"""A question to a log, as `ask` takes it."""


class Gatherer:
    """Reads what plans ask for."""

    def __init__(self, client: Client, keys: Keys, finder: Finder) -> None:
        self._client = client
        self._keys = keys
        self.finder = finder

    def mark_call(self, route: Route) -> Call:
        """Return a write that replicas can confirm, and with it all before it."""
        return Call(
            route, ("SET", f"{self._keys.head(route)}confirmed", "", "PX", MARK_MILLISECONDS)
        )

    async def fetch(self, reads: Reads, known: Known, deadline: float) -> None:
        """Add to what is known all that is asked for."""
        wanted = {*reads.sessions}
        logs: dict[Key, list[Question]] = {}
        for named in reads.events:
            logs.setdefault(named[:2], []).append(("named", named.event, "-"))
        for tail in reads.tails:
            logs.setdefault(tail[:2], []).append(("tail", tail.most, tail.upto))
        for place in reads.peaks:
            logs.setdefault(place[:2], []).append(("tail", 1, place.upto))
        for key in reads.deltas:
            logs.setdefault(key, []).append(_deltas_from(0))
        wanted |= {key for key in (*logs, *reads.children) if key not in known.sessions}
        for key, loaded in (await self.finder.load(wanted, deadline)).items():
            known.read(key, loaded)
        await self._fetch_logs(reads, known, logs, deadline)
        await self._fetch_rest(reads, known, deadline)

    def _route(self, known: Known, key: Key) -> Route | None:
        found = known.sessions.get(key)
        if isinstance(found, rows.Unreadable):
            return found.route
        return found.row.route if isinstance(found, Loaded) else None

    async def _fetch_logs(
        self,
        reads: Reads,
        known: Known,
        logs: dict[Key, list[Question]],
        deadline: float,
    ) -> None:
        asked = [(key, self._route(known, key)) for key in logs]
        calls = [self._ask(route, key, logs[key]) for key, route in asked if route is not None]
        replies = iter(await self._client.ask(calls, deadline))
        answers: dict[tuple[Key, Question], list[Any]] = {}
        for key, route in asked:
            found = [[] for _ in logs[key]] if route is None else next(replies)
            for question, answer in zip(logs[key], found, strict=True):
                answers[key, question] = answer
        for named in reads.events:
            texts = answers[named[:2], ("named", named.event, "-")]
            known.events[named] = tuple(rows.to_entry(text, named.id) for text in texts)
        for tail in reads.tails:
            texts = answers[tail[:2], ("tail", tail.most, tail.upto)]
            known.tails[tail] = tuple(rows.to_entry(text, tail.id).seq for text in texts)
        for place in reads.peaks:
            texts = answers[place[:2], ("tail", 1, place.upto)]
            known.peaks[place] = rows.peak_in(texts[0], place.id) if texts else 0
        for key in reads.deltas:
            first = answers[key, _deltas_from(0)]
            texts = await self._deltas(key, self._route(known, key), first, deadline)
            known.deltas[key] = tuple(rows.to_entry(text, key[1]) for text in texts)

    async def _deltas(
        self, key: Key, route: Route | None, first: list[Any], deadline: float
    ) -> list[bytes]:
        """Return the events of a log that have a delta, from the first answer on.

        What changes meanwhile does no harm: the session's version is another one then, and what was
        decided on this is not written.
        """
        if route is None:
            return []
        count, *found = first
        for low in range(LOOKED_THROUGH, count, LOOKED_THROUGH):
            call = self._ask(route, key, [_deltas_from(low)])
            (((_, *more),),) = await self._client.ask([call], deadline)
            found += more
        return found

    def _ask(self, route: Route, key: Key, questions: list[Question]) -> Call:
        owned = self._keys.owned(route, *key)
        arguments = [part for question in questions for part in question]
        keys = (owned.log, owned.ids, owned.log)
        return Call(route, ("EVALSHA", scripts.ASK.sha, 3, *keys, *arguments))

    async def _fetch_rest(self, reads: Reads, known: Known, deadline: float) -> None:
        """Add sizes of tiers, holders of claims, and children."""
        sizes, holders, children = list(reads.sizes), list(reads.holders), list(reads.children)
        calls = [self._sizes_call(app, user) for app, user in sizes]
        for app, claim in holders:
            route = routes.of_claim(app, claim)
            calls.append(Call(route, ("GET", self._keys.claim(route, app, claim))))
        for key in children:
            route = self._route(known, key) or 0
            calls.append(Call(route, ("ZRANGE", self._keys.children(route, *key), 0, -1)))
        replies = iter(await self._client.ask(calls, deadline))
        for owner in sizes:
            (flat,) = next(replies)
            pairs = zip(flat[::2], flat[1::2], strict=True)
            known.sizes[owner] = {name.decode(): len(name) + size + AROUND for name, size in pairs}
        texts = {place: next(replies) for place in holders}
        for key in children:
            known.children[key] = tuple(id.decode() for id in next(replies))
        await self._fetch_holders(texts, known, deadline)

    def _sizes_call(self, app: str, user: str | None) -> Call:
        route = routes.of_app(app) if user is None else routes.of_user(app, user)
        tier = self._keys.tier(route, app, user)
        return Call(route, ("EVALSHA", scripts.ASK.sha, 3, tier, tier, tier, "sizes", "-", "-"))

    async def _fetch_holders(
        self, texts: dict[tuple[str, Claim], Reply], known: Known, deadline: float
    ) -> None:
        """Add who holds claims: only a session that is there and not over does."""
        noted = {place: rows.to_holder(text) for place, text in texts.items() if text is not None}
        calls = [
            Call(route, ("HMGET", self._keys.session(route, place[0], id), "epoch", "phase"))
            for place, (id, _, route) in noted.items()
        ]
        replies = await self._client.ask(calls, deadline)
        over = {phase.value.encode() for phase in OVER}
        known.holders.update(dict.fromkeys(texts))
        for (place, (id, epoch, _)), (there, phase) in zip(noted.items(), replies, strict=True):
            if there == epoch.encode() and phase not in over:
                known.holders[place] = id


def _deltas_from(low: int) -> Question:
    """Return the question for the deltas in the part of a log that begins at an index."""
    return "deltas", low, low + LOOKED_THROUGH

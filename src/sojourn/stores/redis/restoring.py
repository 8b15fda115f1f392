"""Putting sessions into the store exactly as they were elsewhere, large ones part by part.

What is put goes to keys aside first, part by part; the last part's call, which the session appears
with, gives them their names. So a session is there whole or not at all, however many parts it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from sojourn import codec, commit, restoring
from sojourn.errors import NotFound, RoleTaken, TooLarge, Unavailable
from sojourn.limits import MAX_STATE
from sojourn.store import Tier
from sojourn.stores.planning import Guard, Known, Loaded, Unit
from sojourn.stores.planning.known import Reads
from sojourn.stores.redis import routes, rows
from sojourn.stores.redis.batch import write
from sojourn.stores.redis.client import FIRST_REST, Call, check
from sojourn.stores.redis.request import Request
from sojourn.stores.redis.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.model import Header, StoredDocument
    from sojourn.store import Restore, RestoreShared, Snapshot
    from sojourn.stores.planning import Claim, Key
    from sojourn.stores.redis.batch import Tools
    from sojourn.stores.redis.jobs import Job
    from sojourn.stores.redis.keys import Keys, Owned
    from sojourn.stores.redis.routes import Route

Outcome = Literal["restored", "unchanged", "partial"]

_CROWDED = TimeoutError("others kept changing what was to be restored")


class _Staged(msgspec.Struct):
    """A restore in progress: what its next part has to fit."""

    op: str
    next: int
    last: int
    peak: int
    kinds: tuple[str, ...]
    user: str | None
    expires: tuple[int, ...] = ()
    """The deadlines of its documents, the first of those that were put together."""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_Staged)


@dataclass(slots=True)
class _Attempt:
    """One try at a restore: what was read, and what is to be written."""

    restore: Restore
    known: Known
    there: Loaded | None
    route: Route
    record: bytes
    state: bytes
    staged: _Staged | None


class Restorer:
    """Puts sessions and what they share."""

    def __init__(self, tools: Tools, keys: Keys) -> None:
        self._tools = tools
        self._client = tools.client
        self._keys = keys

    async def restore(self, restore: Restore) -> Outcome:
        """Put a session; see `SupportsTransfer.restore`."""
        deadline = self._client.deadline()
        rest = FIRST_REST
        while True:
            outcome = await self._try(restore, deadline)
            if outcome is not None:
                return outcome
            rest = await self._client.rest(rest, deadline, _CROWDED)

    async def _try(self, restore: Restore, deadline: float) -> Outcome | None:
        """Return what a restore led to, `None` if something changed meanwhile."""
        restoring.check(restore.snapshot)
        header = restore.snapshot.header
        key = (header.app, header.id)
        known = Known()
        reads = Reads(sessions={key})
        claim = commit.claim_of(header) if restoring.claims(header) else None
        if claim is not None:
            reads.holders.add((header.app, claim))
        if header.parent is not None:
            reads.sessions.add((header.app, header.parent))
        await self._tools.gatherer.fetch(reads, known, deadline)
        there = self._found(known, key)
        verdict = restoring.verdict(there.header if there else None, restore)
        if verdict == "keep":
            assert there is not None, "there is something to keep"
            return await self._keep(restore, known, there, deadline)
        self._admit(header, there, known, claim)
        attempt = await self._prepare(restore, known, there, deadline)
        wanted = self._stage(attempt)
        if not restore.snapshot.last:
            done = not wanted or await self._put_part(attempt, deadline)
            return "partial" if done else None
        return "restored" if await self._put(attempt, claim, deadline) else None

    @staticmethod
    def _found(known: Known, key: Key) -> Loaded | None:
        found = known.sessions[key]
        if found is not None and not isinstance(found, Loaded):
            raise found
        return found

    async def _keep(
        self, restore: Restore, known: Known, there: Loaded, deadline: float
    ) -> Outcome | None:
        """Let activity and deadline of a session that is the same catch up."""
        header = restoring.caught_up(there.header, restore.snapshot.header)
        await self.forget_parts(header.app, header.id)
        if header == there.header:
            return "unchanged"
        key = (header.app, header.id)
        unit = Unit(
            key=key,
            app=header.app,
            old=there,
            header=header,
            peak=there.peak,
        )
        (job,) = self._tools.foreman.jobs([unit], known)
        return "unchanged" if await self._run(job, deadline) else None

    @staticmethod
    def _admit(header: Header, there: Loaded | None, known: Known, claim: Claim | None) -> None:
        """Raise `RoleTaken` for a claim that another has, `NotFound` for a missing parent."""
        holder = None if claim is None else known.holders[header.app, claim]
        if claim is not None and holder is not None and holder != header.id:
            raise RoleTaken(dict(claim), holder)
        parent = None if there is not None else header.parent
        if parent is not None and known.sessions[header.app, parent] is None:
            raise NotFound(parent, "no such parent session; restore it first")

    # --- parts ---------------------------------------------------------------------------------

    async def _prepare(
        self, restore: Restore, known: Known, there: Loaded | None, deadline: float
    ) -> _Attempt:
        """Read what was put so far of the session that is being restored."""
        header = restore.snapshot.header
        unit = self._unit(restore.snapshot, known, there)
        route = self._tools.foreman.route_of(unit, known)
        staging, _ = self._keys.staging(route, header.app)
        call = Call(route, ("HMGET", staging, header.id, f"{header.id}\0"))
        ((record, state),) = await self._client.ask([call], deadline)
        staged = _decoder.decode(record) if record else None
        if restore.snapshot.part == 0:
            state = codec.encode_object(restore.snapshot.state)
            if record is not None:  # of a restore that was begun before
                calls = self.drop_calls(route, header.app, header.id)
                check(await self._client.run(calls, deadline, lane="write"))
            record = staged = None
        return _Attempt(restore, known, there, route, record or b"", state or b"{}", staged)

    def _stage(self, attempt: _Attempt) -> bool:
        """Take one part more into account; return whether it is not there yet."""
        restore, staged = attempt.restore, attempt.staged
        snapshot = restore.snapshot
        if snapshot.part == 0:
            staged = _Staged(restore.op.hex(), 0, 0, 0, (), snapshot.header.user)
        op, expected, last = (staged.op, staged.next, staged.last) if staged else (None, 0, 0)
        wanted = restoring.check_part(op, expected, last, restore)
        assert staged is not None, "else its part was refused"
        attempt.staged = staged
        if wanted:
            entries = snapshot.entries
            staged.next += 1
            staged.last = entries[-1].seq if entries else last
            ends = [item.expires_at for item in snapshot.documents if item.expires_at is not None]
            staged.expires += (min(ends),) if ends else ()
        return wanted

    def _write_part(self, request: Request, attempt: _Attempt, owned: Owned) -> None:
        """Add what puts the items of a part to the keys aside."""
        staged, snapshot = attempt.staged, attempt.restore.snapshot
        assert staged is not None, "the part was taken into account"
        if snapshot.entries:
            staged.kinds = rows.kinds_after(staged.kinds, snapshot.entries)
            lines: list[bytes] = []
            names: list[str | int] = []
            for entry in snapshot.entries:
                staged.peak = max(staged.peak, entry.at)
                lines.append(rows.line(entry, staged.peak))
                names += (entry.id, entry.seq)
            request.do_in_pieces("RPUSH", owned.log, lines)
            request.do_in_pieces("ids", owned.ids, names, 2)
            request.do("APPEND", owned.kinds, rows.kind_bytes(staged.kinds, snapshot.entries))
        put_documents(request, snapshot.documents, owned, "whole")

    async def _put_part(self, attempt: _Attempt, deadline: float) -> bool:
        """Put a part aside; return whether nobody else was at it meanwhile."""
        header, route = attempt.restore.snapshot.header, attempt.route
        home = routes.of_id(header.app, header.id)
        note = Call(home, ("SET", self._keys.parts(home, header.app, header.id), route))
        check(await self._client.run([note], deadline, lane="write"))
        request = Request(route)
        staging, abandoned = self._keys.staging(route, header.app)
        request.check("field", staging, header.id, attempt.record)
        self._write_part(request, attempt, self._keys.staged(route, header.app, header.id))
        fields: list[str | bytes] = [header.id, _encode(attempt.staged)]
        if attempt.restore.snapshot.part == 0:
            fields += (f"{header.id}\0", attempt.state)
        request.do("HSET", staging, *fields)
        request.do("ZADD", abandoned, attempt.restore.abandoned_at, header.id)
        (reply,) = await self._client.run([request.call()], deadline, lane="write")
        check([reply])
        return bool(reply == 0)

    # --- the session ---------------------------------------------------------------------------

    def _unit(
        self, snapshot: Snapshot, known: Known, there: Loaded | None, claim: Claim | None = None
    ) -> Unit:
        """Return a session that is put as a unit, without what it owns."""
        header = snapshot.header
        key = (header.app, header.id)
        unit = Unit(
            key=key,
            app=header.app,
            old=there,
            header=restoring.unleased(header, there.header.fence if there else 0),
        )
        had = commit.claim_of(there.header) if there and restoring.claims(there.header) else None
        if claim != had:
            unit.claim_taken, unit.claim_freed = claim, had
        if there is None and header.parent is not None:
            parent = known.sessions[header.app, header.parent]
            if isinstance(parent, Loaded):
                guard = Guard((header.app, header.parent), parent.header.epoch, row=parent.row)
                unit.guards += (guard,)
        return unit

    async def _put(self, attempt: _Attempt, claim: Claim | None, deadline: float) -> bool:
        """Put the last part, and with it the session; return whether nothing changed meanwhile."""
        snapshot, staged = attempt.restore.snapshot, attempt.staged
        assert staged is not None, "the part was taken into account"
        header = snapshot.header
        unit = self._unit(snapshot, attempt.known, attempt.there, claim)
        unit.state, unit.peak = attempt.state, staged.peak
        job, request = self._tools.foreman.begun(unit, attempt.known)
        staging, abandoned = self._keys.staging(attempt.route, header.app)
        aside = self._keys.staged(attempt.route, header.app, header.id)
        request.check("field", staging, header.id, attempt.record)
        self._write_part(request, attempt, aside)
        session = self._keys.session(attempt.route, header.app, header.id)
        request.do("HSET", session, "peak", staged.peak, "kinds", rows.kinds_text(staged.kinds))
        request.do_on("adopt", (*aside, *self._keys.owned(attempt.route, header.app, header.id)))
        request.do("HDEL", staging, header.id, f"{header.id}\0")
        request.do("ZREM", abandoned, header.id)
        if staged.expires:
            docdue = self._keys.docdue(attempt.route, header.app)
            request.do("ZADD", docdue, min(staged.expires), header.id)
        job.call = request.call()
        if not await self._run(job, deadline):
            return False
        await self._drop_note(header.app, header.id, deadline)
        return True

    async def _run(self, job: Job, deadline: float) -> bool:
        """Write a job; return whether nothing it expects has changed."""
        key = job.unit.key
        assert key is not None, "what is put is a session"
        self._tools.recent.drop(key)
        (written,) = await write(self._tools, [job], deadline, self._tools.replicas)
        if isinstance(written, Unavailable):
            raise written
        self._tools.changed([key])
        return written

    # --- throwing parts away -------------------------------------------------------------------

    def drop_calls(self, route: Route, app: str, id: str) -> list[Call]:
        """Return the calls that throw away what was put of a session so far."""
        staging, abandoned = self._keys.staging(route, app)
        request = Request(route)
        request.do("HDEL", staging, id, f"{id}\0")
        request.do("ZREM", abandoned, id)
        for key in self._keys.staged(route, app, id):
            request.do("UNLINK", key)
        home = routes.of_id(app, id)
        return [request.call(), Call(home, ("UNLINK", self._keys.parts(home, app, id)))]

    async def forget_parts(self, app: str, id: str) -> None:
        """Throw away what was put of a session so far, if there is anything."""
        deadline = self._client.deadline()
        home = routes.of_id(app, id)
        (route,) = await self._client.ask(
            [Call(home, ("GET", self._keys.parts(home, app, id)))], deadline
        )
        if route is not None:
            calls = self.drop_calls(int(route), app, id)
            check(await self._client.run(calls, deadline, lane="write"))

    async def _drop_note(self, app: str, id: str, deadline: float) -> None:
        home = routes.of_id(app, id)
        call = Call(home, ("UNLINK", self._keys.parts(home, app, id)))
        check(await self._client.run([call], deadline, lane="write"))

    async def forget(self, app: str, user: str, deadline: float) -> None:
        """Throw away what was put of a user's sessions so far."""
        calls = [
            Call(route, ("HGETALL", self._keys.staging(route, app)[0])) for route in range(ROUTES)
        ]
        dropping: list[Call] = []
        for route, flat in enumerate(await self._client.ask(calls, deadline)):
            for id, record in zip(flat[::2], flat[1::2], strict=True):
                if not id.endswith(b"\0") and _decoder.decode(record).user == user:
                    dropping += self.drop_calls(route, app, id.decode())
        check(await self._client.run(dropping, deadline, lane="write"))

    # --- what sessions share -------------------------------------------------------------------

    async def restore_shared(self, restore: RestoreShared) -> None:
        """Put tiers and documents; see `SupportsTransfer.restore_shared`.

        On one server all or nothing. In a cluster what belongs to each user is all or nothing, and
        what is refused is refused before anything is put.
        """
        deadline = self._client.deadline()
        tiers = [item for item in restore.items if isinstance(item, Tier)]
        calls = []
        for tier in tiers:
            route, key = self._tier(restore.app, tier.user)
            calls.append(Call(route, ("HGETALL", key)))
        flats = await self._client.ask(calls, deadline)
        requests: dict[Route, Request] = {}
        for tier, flat in zip(tiers, flats, strict=True):
            there = {} if restore.replace else rows.to_tier(flat, f"tier of {restore.app}")
            size = len(codec.encode_object({**tier.state, **there}))
            if size > MAX_STATE:
                raise TooLarge("bytes of state in one tier", size, MAX_STATE)
            self._put_tier(requests, restore, tier)
        documents = [item for item in restore.items if not isinstance(item, Tier)]
        if documents:
            home = routes.of_app(restore.app)
            request = self._at(requests, home)
            owned = self._keys.owned(home, restore.app, "")
            put_documents(request, documents, owned, "whole" if restore.replace else "new")
            self._note_deadlines(request, home, restore.app, documents)
            request.do("SADD", self._keys.apps(home), restore.app)
        calls = [request.call() for request in requests.values()]
        check(await self._client.run(calls, deadline, lane="write", replicas=self._tools.replicas))

    def _tier(self, app: str, user: str | None) -> tuple[Route, str]:
        route = routes.of_app(app) if user is None else routes.of_user(app, user)
        return route, self._keys.tier(route, app, user)

    def _at(self, requests: dict[Route, Request], route: Route) -> Request:
        """Return the request that is about a route: one for all on one server."""
        return requests.setdefault(route if self._client.cluster else 0, Request(route))

    def _put_tier(self, requests: dict[Route, Request], restore: RestoreShared, tier: Tier) -> None:
        route, key = self._tier(restore.app, tier.user)
        request = self._at(requests, route)
        if restore.replace:
            pairs: list[str | bytes] = []
            for name, value in tier.state.items():
                pairs += (name, bytes(value))
            request.do("exactly", key, *pairs)
        else:
            for name, value in tier.state.items():
                request.do("HSETNX", key, name, bytes(value))
        if tier.state and tier.user is not None:
            request.do("ZADD", self._keys.users(route, restore.app), 0, tier.user)
        if tier.state:
            request.do("SADD", self._keys.apps(route), restore.app)

    def _note_deadlines(
        self, request: Request, route: Route, app: str, documents: Iterable[StoredDocument]
    ) -> None:
        ends = [item.expires_at for item in documents if item.expires_at is not None]
        if ends:
            request.do("ZADD", self._keys.docdue(route, app), "LT", min(ends), "")


def put_documents(
    request: Request, documents: Iterable[StoredDocument], owned: Owned, how: str
) -> None:
    """Add what puts documents exactly as they are: `new` ones only, or in the place of others."""
    keys = (owned.docs, owned.dockeys, owned.docplaces, owned.bodies)
    for item in documents:
        prefix = rows.collection_prefix(item.collection)
        facts = rows.facts_text(item.seq, item.size, item.content_type)
        expires = "null" if item.expires_at is None else item.expires_at
        times = (item.created_at, item.updated_at, expires)
        body = rows.parts_of(item.body or b"")
        request.size += item.size
        request.do_on("put", keys, prefix, item.key, facts, *times, how, *body)

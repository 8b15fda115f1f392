"""Taking sessions out of the store whole: pages of them, large ones part by part."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from sojourn import restoring
from sojourn.errors import Corrupt, InvalidCursor
from sojourn.expiry import is_past
from sojourn.limits import DUMP_BYTES, MAX_SEQ, PART_BYTES
from sojourn.store import Dumped, Headers, Query, Shared, Snapshot, Tier
from sojourn.stores.planning import Loaded
from sojourn.stores.redis import routes, rows, scripts
from sojourn.stores.redis.client import Call
from sojourn.stores.redis.keys import unescaped
from sojourn.stores.redis.listing import Lister, position_by_creation
from sojourn.stores.redis.request import Request
from sojourn.stores.redis.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from sojourn.model import Encoded, StoredDocument
    from sojourn.store import Walk
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.finding import Finder
    from sojourn.stores.redis.keys import Keys, Owned
    from sojourn.stores.redis.routes import Route

AT_ONCE = 8
"""Sessions that are dumped in one round trip: a part's size each, at most."""

USERS_AT_ONCE = 64
"""Users of each route that are looked at in one round trip while tiers are dumped."""

COPY_MILLISECONDS = 600_000
"""How long the copy of a large session stays when nobody reads it on."""


class _Piece(NamedTuple):
    """What a dump of keys has brought."""

    loaded: Loaded | rows.Unreadable | None
    lines: list[bytes]
    documents: list[StoredDocument]
    complete: bool
    places: int
    """How many documents were looked at, expired ones too."""


class Dumper:
    """Answers what takes sessions out."""

    def __init__(self, client: Client, keys: Keys, finder: Finder, lister: Lister) -> None:
        self._client = client
        self._keys = keys
        self._finder = finder
        self._lister = lister

    # --- apps ----------------------------------------------------------------------------------

    async def apps(self, after: str, limit: int) -> list[str]:
        """Return the apps that have anything; see `SupportsTransfer.apps`."""
        deadline = self._client.deadline()
        calls = [Call(route, ("SMEMBERS", self._keys.apps(route))) for route in range(ROUTES)]
        where: dict[str, list[Route]] = {}
        for route, members in enumerate(await self._client.ask(calls, deadline)):
            for member in members:
                where.setdefault(member.decode(), []).append(route)
        found: list[str] = []
        for app in sorted(app for app in where if app > after):
            if len(found) == limit:
                break
            if await self._has_anything(app, where[app], deadline):
                found.append(app)
        return found

    async def _has_anything(self, app: str, where: Sequence[Route], deadline: float) -> bool:
        home = routes.of_app(app)
        calls = [Call(route, ("EXISTS", self._keys.tally(route, app, "all"))) for route in where]
        calls.append(Call(home, ("HGETALL", self._keys.tier(home, app, None))))
        calls.append(Call(home, ("ZRANGE", self._keys.owned(home, app, "").dockeys, 1, 1)))
        *sessions, tier, documents = await self._client.ask(calls, deadline)
        if any(sessions) or rows.to_tier(tier, app) or documents:
            return True
        async for _ in self._user_tiers(app, "", deadline):
            return True
        return False

    # --- sessions ------------------------------------------------------------------------------

    async def headers(self, walk: Walk) -> Headers:
        """Return a page of headers; see `SupportsTransfer.headers`."""
        found, position = await self._walk(walk, walk.position, walk.limit)
        corrupt = tuple(item for item in found if isinstance(item, Corrupt))
        headers = [item.header for item in found if isinstance(item, Loaded)]
        return Headers(headers, position, corrupt)

    async def _walk(
        self, walk: Walk, position: str | None, limit: int
    ) -> tuple[list[Loaded | Corrupt], str | None]:
        """Return the next sessions of a walk, and the position behind them unless it is its end."""
        if walk.ids is not None:
            return await self._chosen(walk, walk.ids, position, limit)
        query = Query(
            app=walk.app,
            now=walk.now,
            order="created",
            position=position,
            limit=limit,
            expired=True,
        )
        return await self._lister.page(query)

    async def _chosen(
        self, walk: Walk, ids: tuple[str, ...], position: str | None, limit: int
    ) -> tuple[list[Loaded | Corrupt], str | None]:
        at = _number(position)
        found: list[Loaded | Corrupt] = []
        while at < len(ids) and len(found) < limit:
            some = ids[at : at + limit - len(found)]
            keys = [(walk.app, id) for id in some]
            loaded = await self._finder.load(dict.fromkeys(keys), self._client.deadline())
            found += [item for key in keys if (item := loaded[key]) is not None]
            at += len(some)
        return found, str(at) if at < len(ids) else None

    async def dump(self, walk: Walk) -> Dumped:
        """Return a page of sessions; see `SupportsTransfer.dump`."""
        snapshots: list[Snapshot] = []
        corrupt: list[Corrupt] = []
        size = 0
        position = walk.position
        while len(snapshots) + len(corrupt) < walk.limit and size < DUMP_BYTES:
            most = min(AT_ONCE, walk.limit - len(snapshots) - len(corrupt))
            before = position
            found, position = await self._walk(walk, before, most)
            dumped = await self._dumped(found, walk)
            for number, item in enumerate(dumped, start=1):
                if isinstance(item, Corrupt):
                    corrupt.append(item)
                elif item is not None:
                    snapshots.append(item)
                    size += restoring.weight(item)
                    if size >= DUMP_BYTES and number < len(dumped):  # the rest is for the next page
                        position = _behind(walk, before, found[number - 1])
                        break
            if position is None:
                break
        return Dumped(snapshots, position, tuple(corrupt))

    async def _dumped(
        self, found: Sequence[Loaded | Corrupt], walk: Walk
    ) -> list[Snapshot | Corrupt | None]:
        """Return sessions whole; `None` for one that has gone since it was found."""
        calls = []
        for item in found:
            if isinstance(item, Loaded):
                route, key = item.row.route, (walk.app, item.header.id)
                session = self._keys.session(route, *key)
                calls.append(self._call(route, session, self._keys.owned(route, *key), "whole"))
        replies = iter(await self._client.ask(calls, self._client.deadline(), lane="bulk"))
        dumped: list[Snapshot | Corrupt | None] = []
        for item in found:
            if isinstance(item, Corrupt):
                dumped.append(item)
                continue
            id = item.header.id
            try:
                dumped.append(
                    _snapshot(id, self._piece(id, item.row.route, next(replies), walk.now))
                )
            except Corrupt as error:
                dumped.append(error)
        return dumped

    def _call(
        self,
        route: Route,
        session: str,
        owned: Owned,
        how: str,
        behind: tuple[int, int] = (0, 0),
    ) -> Call:
        names = (session, owned.log, owned.docs, owned.docplaces, owned.bodies)
        arguments = (rows.FIELDS, PART_BYTES, *behind, how)
        command = ("EVALSHA", scripts.DUMP.sha, len(names), *names, *arguments)
        return Call(route, command, PART_BYTES)

    def _piece(self, id: str, route: Route, reply: Sequence[list[bytes]], now: int) -> _Piece:
        fields, lines, flat, complete = reply
        documents = [
            _document(flat[at], flat[at + 1], flat[at + 2]) for at in range(0, len(flat), 3)
        ]
        there = [item for item in documents if not is_past(item.expires_at, now)]
        loaded = rows.to_loaded(id, route, fields)
        return _Piece(loaded, lines, there, bool(complete), len(documents))

    # --- large ones ----------------------------------------------------------------------------

    async def parts(self, app: str, id: str, now: int) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part, from a copy that was made in one moment."""
        key = (app, id)
        loaded = (await self._finder.load([key], self._client.deadline()))[key]
        if loaded is None:
            return
        if isinstance(loaded, rows.Unreadable):
            raise loaded
        route = loaded.row.route
        token = secrets.token_hex(8)
        session, owned = self._keys.scratch_session(route, token), self._keys.scratch(route, token)
        await self._write(self._copying(key, route, session, owned))
        try:
            part, events, documents, last = 0, 0, 1, False
            while not last:
                call = self._call(route, session, owned, "piece", (events, documents))
                (reply,) = await self._client.ask([call], self._client.deadline(), lane="bulk")
                piece = self._piece(id, route, reply, now)
                if piece.loaded is None:  # it was deleted before it was copied, or read too slowly
                    return
                last = piece.complete
                events, documents = events + len(piece.lines), documents + piece.places
                snapshot = _snapshot(id, piece, part)
                assert snapshot is not None, "it was there"
                yield snapshot
                part += 1
                await self._write(self._keeping(route, session, owned))
        finally:
            request = Request(route)
            for name in (session, *owned):
                request.do("UNLINK", name)
            await self._write(request)

    def _copying(self, key: tuple[str, str], route: Route, session: str, owned: Owned) -> Request:
        request = Request(route)
        request.do_on("twin", (self._keys.session(route, *key), session))
        request.do_on("copy", (*self._keys.owned(route, *key), *owned), MAX_SEQ)
        self._expire(request, session, owned)
        return request

    def _keeping(self, route: Route, session: str, owned: Owned) -> Request:
        request = Request(route)
        self._expire(request, session, owned)
        return request

    @staticmethod
    def _expire(request: Request, session: str, owned: Owned) -> None:
        for name in (session, *owned):
            request.do("PEXPIRE", name, COPY_MILLISECONDS)

    async def _write(self, request: Request) -> None:
        deadline = self._client.deadline()
        (reply,) = await self._client.run([request.call()], deadline, lane="write")
        if isinstance(reply, Exception):
            raise reply

    # --- what sessions share -------------------------------------------------------------------

    async def shared(self, app: str, now: int, position: str | None) -> Shared:
        """Return a page of what sessions share; see `SupportsTransfer.shared`."""
        kind, _, rest = (position or "t:").partition(":")
        if kind not in ("t", "d"):
            raise _nowhere()
        items: list[Tier | StoredDocument] = []
        size = 0
        if kind == "t":
            async for where, tier in self._tiers(app, rest if position else None):
                items.append(tier)
                size += restoring.item_weight(tier)
                if size > DUMP_BYTES:
                    return Shared(items, f"t:{where}")
            rest = "1"
        at = _number(rest)
        while True:
            piece = await self._app_documents(app, at, now)
            items += piece.documents
            size += sum(map(restoring.item_weight, piece.documents))
            at += piece.places
            if piece.complete:
                return Shared(items, None)
            if size > DUMP_BYTES:
                return Shared(items, f"d:{at}")

    async def _tiers(self, app: str, after: str | None) -> AsyncIterator[tuple[str, Tier]]:
        """Yield (user, tier), the app's as that of no user first; those behind a user."""
        deadline = self._client.deadline()
        if after is None:
            home = routes.of_app(app)
            call = Call(home, ("HGETALL", self._keys.tier(home, app, None)))
            (flat,) = await self._client.ask([call], deadline)
            state = rows.to_tier(flat, f"tier of {app}")
            if state:
                yield "", Tier(user=None, state=state)
        async for user, state in self._user_tiers(app, after or "", deadline):
            yield user, Tier(user=user, state=state)

    async def _user_tiers(
        self, app: str, after: str, deadline: float
    ) -> AsyncIterator[tuple[str, Encoded]]:
        """Yield users that have a tier, ascending, and their tiers."""
        more = True
        while more:
            bound = f"({after}" if after else "-"
            limit = ("LIMIT", 0, USERS_AT_ONCE)
            calls = [
                Call(route, ("ZRANGEBYLEX", self._keys.users(route, app), bound, "+", *limit))
                for route in range(ROUTES)
            ]
            replies = await self._client.ask(calls, deadline)
            ends = [members[-1] for members in replies if len(members) == USERS_AT_ONCE]
            users = sorted(user for members in replies for user in members)
            if ends:
                users = [user for user in users if user <= min(ends)]
            more = bool(ends)
            names = [user.decode() for user in users]
            calls = []
            for name in names:
                home = routes.of_user(app, name)
                calls.append(Call(home, ("HGETALL", self._keys.tier(home, app, name))))
            flats = await self._client.ask(calls, deadline)
            for name, flat in zip(names, flats, strict=True):
                after = name
                state = rows.to_tier(flat, f"tier of {app}")
                if state:
                    yield name, state

    async def _app_documents(self, app: str, at: int, now: int) -> _Piece:
        """Return the app's documents from one on, as many as one part holds."""
        home = routes.of_app(app)
        owned = self._keys.owned(home, app, "")
        call = self._call(home, owned.docs, owned, "piece", (0, at))
        (reply,) = await self._client.ask([call], self._client.deadline(), lane="bulk")
        return self._piece("", home, reply, now)


def _document(place: bytes, facts: bytes, body: bytes) -> StoredDocument:
    collection, _, key = place.decode().split(":", 2)
    return rows.to_document(unescaped(collection), key, facts, body)


def _snapshot(id: str, piece: _Piece, part: int = 0) -> Snapshot | None:
    """Return a session, or a part of one, as it travels."""
    loaded = piece.loaded
    if loaded is None:
        return None
    if isinstance(loaded, rows.Unreadable):
        raise loaded
    whole = bool(piece.lines or piece.documents or piece.complete)
    return Snapshot(
        header=loaded.header,
        state=rows.to_state(id, loaded.state) if part == 0 and whole else {},
        entries=tuple(rows.to_entries(piece.lines, id)),
        documents=tuple(piece.documents),
        part=part,
        last=piece.complete,
    )


def _behind(walk: Walk, before: str | None, item: Loaded | Corrupt) -> str:
    """Return the position behind a session that was found behind another position."""
    assert isinstance(item, Loaded), "it was dumped"
    if walk.ids is None:
        return position_by_creation(item)
    return str(walk.ids.index(item.header.id, _number(before)) + 1)


def _number(position: str | None) -> int:
    try:
        return int(position or 0)
    except ValueError:
        raise _nowhere() from None


def _nowhere() -> InvalidCursor:
    return InvalidCursor("its position is not one of this store's")

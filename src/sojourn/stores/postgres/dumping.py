"""Taking sessions out of the schema whole: pages of them, large ones part by part."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from sojourn import codec
from sojourn.errors import Corrupt, InvalidCursor
from sojourn.limits import DUMP_BYTES, PART_BYTES
from sojourn.store import Dumped, Headers, Snapshot
from sojourn.stores.postgres import rows
from sojourn.stores.postgres.pool import connect_calmly, one_moment, say_goodbye
from sojourn.stores.postgres.trouble import DRIVER_ERRORS, mapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sojourn.model import Encoded, Entry, Header, StoredDocument
    from sojourn.store import Walk
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection
    from sojourn.stores.postgres.reader import Reader

ITEMS_AT_ONCE = 1_000
"""Events or documents that are looked at for one part; most parts hold fewer."""

_FIRST_NAME = " "
"""The least character of a name: apps before it are the store's own and nobody's sessions."""

_NEXT_APP = """SELECT min(app) FROM (
    (SELECT min(app) AS app FROM {s}.sessions WHERE app > $1)
    UNION ALL (SELECT min(app) FROM {s}.tiers WHERE app > $1)
    UNION ALL (SELECT min(a.app) FROM {s}.apps AS a WHERE a.app > $1
        AND EXISTS (SELECT FROM {s}.documents AS d WHERE d.session = a.row))) AS a"""
_WALK = """SELECT s.row FROM unnest($1::text[]) AS p(phase), LATERAL (
        SELECT s.row FROM {s}.sessions AS s WHERE s.app = $2 AND s.phase = p.phase AND s.row > $3
        ORDER BY s.row LIMIT $4) AS s
    ORDER BY s.row LIMIT $4"""
_PHASES = """WITH RECURSIVE p(phase) AS (
    (SELECT min(phase) FROM {s}.sessions WHERE app = $1)
    UNION ALL SELECT (SELECT min(s.phase) FROM {s}.sessions AS s
        WHERE s.app = $1 AND s.phase > p.phase) FROM p WHERE p.phase IS NOT NULL)
    SELECT phase FROM p WHERE phase IS NOT NULL"""
_CHOSEN = """SELECT s.row FROM unnest($1::text[]) WITH ORDINALITY AS k(id, place)
    JOIN {s}.sessions AS s ON s.app = $2 AND s.id = k.id ORDER BY k.place"""
_SESSIONS = f"SELECT {rows.of('s')} FROM {{s}}.sessions AS s WHERE s.row = ANY($1)"
_HEADERS = _SESSIONS.replace(", s.state", "")
_WEIGHTS = """SELECT k.row,
    (SELECT coalesce(sum(128 + octet_length(e.body) + coalesce(octet_length(e.changes), 0)), 0)
        FROM {s}.events AS e WHERE e.session = k.row)
    + (SELECT coalesce(sum(256 + d.size), 0) FROM {s}.documents AS d WHERE d.session = k.row
        AND (d.expires_at IS NULL OR d.expires_at > $2))
    FROM unnest($1::bigint[]) AS k(row)"""
_COLUMNS = ", ".join(f"e.{column}" for column in rows.EVENT)
_EVENTS = f"""SELECT e.session, {_COLUMNS} FROM {{s}}.events AS e WHERE e.session = ANY($1)
    ORDER BY e.session, e.seq"""
_FACTS = rows.of("d", rows.DOCUMENT)
_DOCUMENTS = f"""SELECT d.session, {_FACTS}, d.body FROM {{s}}.documents AS d
    WHERE d.session = ANY($1) AND (d.expires_at IS NULL OR d.expires_at > $2)
    ORDER BY d.session, d.collection, d.row"""
_SOME_EVENTS = f"""SELECT {_COLUMNS} FROM (
        SELECT o.*, sum(128 + octet_length(o.body)) OVER (ORDER BY o.seq)
            - octet_length(o.body) AS before
        FROM {{s}}.events AS o WHERE o.session = $1 AND o.seq > $2 ORDER BY o.seq LIMIT $3) AS e
    WHERE e.before <= $4 ORDER BY e.seq"""
_SOME_DOCUMENTS = f"""SELECT {_FACTS}, d.body FROM (
        SELECT o.*, sum(256 + o.size) OVER (ORDER BY o.collection, o.row) - o.size AS before
        FROM {{s}}.documents AS o WHERE o.session = $1 AND (o.collection, o.row) > ($2, $3)
            AND (o.expires_at IS NULL OR o.expires_at > $4)
        ORDER BY o.collection, o.row LIMIT $5) AS d
    WHERE d.before <= $6 ORDER BY d.collection, d.row"""


class _Whole(NamedTuple):
    """A session of a page, and what it owns if that is not too much."""

    header: Header
    state: Encoded
    weight: int


class Dumper:
    """Reads sessions whole, from one store."""

    def __init__(self, address: Address, reader: Reader) -> None:
        """`reader` knows the names of the tables."""
        self._address = address
        self._reader = reader

    async def apps(self, db: Connection, after: str, limit: int) -> list[str]:
        """Return the apps that have anything; see `SupportsTransfer.apps`."""
        found: list[str] = []
        last: str | None = max(after, _FIRST_NAME)
        while len(found) < limit:
            last = await db.fetchval(self._reader.sql(_NEXT_APP), last)
            if last is None:
                break
            found.append(last)
        return found

    async def headers(self, db: Connection, walk: Walk) -> Headers:
        """Return a page of headers; see `SupportsTransfer.headers`."""
        async with one_moment(db):
            position, numbers = await self._numbers(db, walk)
            read = await db.fetch(self._reader.sql(_HEADERS), numbers)
        by_number = {row["row"]: row for row in read}
        found: list[Header] = []
        corrupt: list[Corrupt] = []
        for number in numbers:
            try:
                found.append(rows.to_header(by_number[number]))
            except Corrupt as error:
                corrupt.append(error)
        return Headers(found, position, tuple(corrupt))

    async def dump(self, db: Connection, walk: Walk) -> Dumped:
        """Return a page of sessions; see `SupportsTransfer.dump`."""
        async with one_moment(db):
            position, numbers = await self._numbers(db, walk)
            wholes, corrupt = await self._wholes(db, walk, numbers)
            kept: dict[int, _Whole] = {}
            size = 0
            for number in numbers:
                whole = wholes.get(number)
                if whole is None:
                    continue
                kept[number] = whole
                size += whole.weight if whole.weight <= PART_BYTES else 0
                if size > DUMP_BYTES and number != numbers[-1]:
                    position = await self._position_behind(db, walk, number)
                    corrupt = {at: error for at, error in corrupt.items() if at <= number}
                    break
            small = [number for number, whole in kept.items() if whole.weight <= PART_BYTES]
            entries, documents = await self._contents(db, small, walk.now)
        snapshots = [
            Snapshot(header=whole.header, last=False)
            if whole.weight > PART_BYTES
            else Snapshot(
                header=whole.header,
                state=whole.state,
                entries=tuple(entries.get(number, ())),
                documents=tuple(documents.get(number, ())),
            )
            for number, whole in kept.items()
        ]
        return Dumped(snapshots, position, tuple(corrupt.values()))

    async def _wholes(
        self, db: Connection, walk: Walk, numbers: Sequence[int]
    ) -> tuple[dict[int, _Whole], dict[int, Corrupt]]:
        """Return the sessions of a page by row, and those that can not be read."""
        statement = self._reader.sql(_WEIGHTS)
        weights = dict(await db.fetch(statement, numbers, walk.now))
        wholes: dict[int, _Whole] = {}
        corrupt: dict[int, Corrupt] = {}
        for row in await db.fetch(self._reader.sql(_SESSIONS), numbers):
            number = row[rows.ROW]
            try:
                header = rows.to_header(row)
                state = codec.decode_object(row[rows.STATE], f"session {header.id!r}")
            except Corrupt as error:
                corrupt[number] = error
                continue
            wholes[number] = _Whole(header, state, int(weights.get(number, 0)))
        return wholes, corrupt

    async def _contents(
        self, db: Connection, numbers: Sequence[int], now: int
    ) -> tuple[dict[int, list[Entry]], dict[int, list[StoredDocument]]]:
        """Return the events and documents of sessions by row."""
        entries: dict[int, list[Entry]] = {}
        documents: dict[int, list[StoredDocument]] = {}
        for number, *columns in await db.fetch(self._reader.sql(_EVENTS), numbers):
            entries.setdefault(number, []).extend(rows.to_entries([[at] for at in columns]))
        for number, *columns in await db.fetch(self._reader.sql(_DOCUMENTS), numbers, now):
            documents.setdefault(number, []).append(rows.to_document(columns))
        return entries, documents

    # --- which sessions ------------------------------------------------------------------------

    async def _numbers(self, db: Connection, walk: Walk) -> tuple[str | None, list[int]]:
        """Return the row numbers of a page, and the position behind it."""
        start = _number(walk.position)
        if walk.ids is not None:
            end = start + walk.limit
            statement = self._reader.sql(_CHOSEN)
            found = await db.fetch(statement, list(walk.ids[start:end]), walk.app)
            return (str(end) if end < len(walk.ids) else None), [row for (row,) in found]
        phases = [row for (row,) in await db.fetch(self._reader.sql(_PHASES), walk.app)]
        bindings = (phases, walk.app, start, walk.limit)
        found = await db.fetch(self._reader.sql(_WALK), *bindings)
        numbers = [row for (row,) in found]
        return (str(numbers[-1]) if len(numbers) == walk.limit else None), numbers

    async def _position_behind(self, db: Connection, walk: Walk, row: int) -> str:
        """Return the position behind a session in the middle of a page."""
        if walk.ids is None:
            return str(row)
        sql = self._reader.sql("SELECT id FROM {s}.sessions WHERE row = $1")
        return str(walk.ids.index(await db.fetchval(sql, row)) + 1)

    # --- a large session -----------------------------------------------------------------------

    async def parts(self, app: str, id: str, now: int) -> AsyncGenerator[Snapshot, None]:
        """Yield a session part by part, as of one moment; see `SupportsTransfer.parts`.

        On a connection of its own, which keeps that moment for as long as it takes.
        """
        try:
            async with asyncio.timeout(self._address.timeout):
                db = await connect_calmly(self._address)
            try:
                async with one_moment(db):
                    async for part in self._parts(db, app, id, now):
                        yield part
            finally:
                await asyncio.shield(say_goodbye(db))
        except DRIVER_ERRORS as error:
            raise mapped(error, self._address.shown) from error

    async def _parts(
        self, db: Connection, app: str, id: str, now: int
    ) -> AsyncGenerator[Snapshot, None]:
        where = "SELECT s.row FROM {s}.sessions AS s WHERE s.app = $1 AND s.id = $2"
        statement = self._reader.sql(_SESSIONS.replace("ANY($1)", f"({where})"))
        found = await self._fetch(db, statement, app, id)
        if not found:
            return
        header = rows.to_header(found[0])
        state = codec.decode_object(found[0][rows.STATE], f"session {id!r}")
        number = 0
        waiting: tuple[tuple[Entry, ...], tuple[StoredDocument, ...]] = ((), ())
        async for part in self._pieces(db, found[0][rows.ROW], now):
            if waiting != ((), ()):
                yield _part(header, state, waiting, number, last=False)
                number += 1
            waiting = part
        yield _part(header, state, waiting, number, last=True)

    async def _pieces(
        self, db: Connection, row: int, now: int
    ) -> AsyncGenerator[tuple[tuple[Entry, ...], tuple[StoredDocument, ...]], None]:
        """Yield what a session owns, about `PART_BYTES` at a time: events, then documents."""
        seq = 0
        sql = self._reader.sql
        while found := await self._fetch(
            db, sql(_SOME_EVENTS), row, seq, ITEMS_AT_ONCE, PART_BYTES
        ):
            entries = rows.to_entries(list(zip(*found, strict=True)))
            seq = entries[-1].seq
            yield entries, ()
        place = ("", 0)
        while found := await self._fetch(
            db, sql(_SOME_DOCUMENTS), row, *place, now, ITEMS_AT_ONCE, PART_BYTES
        ):
            documents = tuple(map(rows.to_document, found))
            place = (documents[-1].collection, documents[-1].number)
            yield (), documents

    async def _fetch(self, db: Connection, statement: str, *values: Any) -> list[Any]:
        found: list[Any] = await db.fetch(statement, *values, timeout=self._address.timeout)
        return found


def _part(
    header: Header,
    state: Encoded,
    contents: tuple[tuple[Entry, ...], tuple[StoredDocument, ...]],
    number: int,
    *,
    last: bool,
) -> Snapshot:
    entries, documents = contents
    return Snapshot(
        header=header,
        state={} if number else state,
        entries=entries,
        documents=documents,
        part=number,
        last=last,
    )


def _number(position: str | None) -> int:
    try:
        return int(position or 0)
    except ValueError:
        raise InvalidCursor("its position is not one of this store's") from None

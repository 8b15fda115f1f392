"""Reads: each answers from one statement, and so from one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sojourn import codec
from sojourn.expiry import is_past
from sojourn.limits import MAX_SEQ
from sojourn.model import Record
from sojourn.restoring import MAX_INTEGER
from sojourn.store import Ends, Tiers
from sojourn.stores.postgres import rows
from sojourn.stores.postgres.schema import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Encoded, Entry, StoredDocument
    from sojourn.store import DocumentQuery, EventQuery, Get
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection

_USER_TIER = """LEFT JOIN LATERAL (
    SELECT array_agg(t.name) AS names, array_agg(t.value) AS texts FROM {s}.tiers AS t
    WHERE t.app = s.app AND t.owner = s.user_id) AS ours ON true"""
_APP_TIER = _USER_TIER.replace("s.user_id", "''").replace("ours", "everyones")
_TIERS_READ = "ours.names, ours.texts, everyones.names, everyones.texts"
_FOUND = "WHERE s.app = $1 AND s.id = $2"
_AGGREGATES = ", ".join(f"array_agg(e.{column}) AS {column}" for column in rows.EVENT)
"""In the order of the rows below it, which come sorted: eight aggregates would sort eight times."""

_COLUMNS = ", ".join(f"e.{column}" for column in rows.EVENT)
_TIERS = (
    "SELECT t.owner, t.name, t.value FROM {s}.tiers AS t WHERE t.app = $1 AND t.owner = ANY($2)"
)
_OWNED = """FROM {s}.documents AS d WHERE d.session = CASE WHEN $2::text IS NULL
        THEN (SELECT a.row FROM {s}.apps AS a WHERE a.app = $1)
        ELSE (SELECT s.row FROM {s}.sessions AS s WHERE s.app = $1 AND s.id = $2
            AND ($5 OR s.expires_at IS NULL OR s.expires_at > $4)) END
    AND d.collection = $3 AND (d.expires_at IS NULL OR d.expires_at > $4)"""
_FACTS = rows.of("d", rows.DOCUMENT)
_DOCUMENT = f"SELECT {_FACTS}, d.body {_OWNED} AND d.key = $6"
_BY_KEY = f"{_OWNED} AND d.key > $6 ORDER BY d.key LIMIT $7"
_BY_PLACE = f"{_OWNED} AND d.row < $6 ORDER BY d.row DESC LIMIT $7"
_LEAD = ", substr(d.body, 1, $8)"


class Reader:
    """Reads of one store, given a connection."""

    def __init__(self, address: Address) -> None:
        """Remember where the tables are."""
        self._address = address
        self._texts: dict[str, str] = {}
        self._gets: dict[_Shape | None, str] = {}

    def sql(self, text: str) -> str:
        """Return a statement with the names of this place filled in."""
        found = self._texts.get(text)
        if found is None:
            found = self._texts[text] = sql(text, self._address)
        return found

    async def get(self, db: Connection, get: Get) -> Record | None:
        """Return a session; see `Store.get`."""
        shape, bindings = _window(get.window)
        statement = self._gets.get(shape)
        if statement is None:
            arrays, join = _log(shape, 3)
            columns = f"{rows.of('s')}, {_TIERS_READ}{arrays}"
            tables = f"{{s}}.sessions AS s {_USER_TIER} {_APP_TIER} {join}"
            found = sql(f"SELECT {columns} FROM {tables} {_FOUND}", self._address)
            statement = self._gets[shape] = found
        row = await db.fetchrow(statement, get.app, get.id, *bindings)
        if row is None:
            return None
        header = rows.to_header(row)
        if is_past(header.expires_at, get.now) and not get.expired:
            return None
        names, texts, app_names, app_texts, *logged = row[rows.STATE + 1 :]
        return Record(
            header=header,
            state=codec.decode_object(row[rows.STATE], f"session {header.id!r}"),
            user_state=rows.to_tier(names, texts),
            app_state=rows.to_tier(app_names, app_texts),
            entries=_entries(shape, logged),
        )

    async def events(
        self, db: Connection, app: str, id: str, now: int, window: EventQuery
    ) -> tuple[Entry, ...] | None:
        """Return a window of a log; see `Store.events`."""
        shape, bindings = _window(window)
        arrays, join = _log(shape, 3)
        columns = f"s.expires_at{arrays}"
        statement = self.sql(f"SELECT {columns} FROM {{s}}.sessions AS s {join} {_FOUND}")
        row = await db.fetchrow(statement, app, id, *bindings)
        if row is None or is_past(row[0], now):
            return None
        return _entries(shape, row[1:])

    async def tiers(self, db: Connection, app: str, user: str | None) -> Tiers:
        """Return shared state; see `Store.tiers`."""
        found = await self.tiers_of(db, app, [""] if user is None else ["", user])
        return Tiers({} if user is None else found.get(user, {}), found.get("", {}))

    async def tiers_of(self, db: Connection, app: str, owners: list[str]) -> dict[str, Encoded]:
        """Return the tiers of some owners, those that have one."""
        read: dict[str, tuple[list[str], list[str]]] = {}
        for owner, name, value in await db.fetch(self.sql(_TIERS), app, owners):
            names, texts = read.setdefault(owner, ([], []))
            names.append(name)
            texts.append(value)
        return {owner: rows.to_tier(*columns) for owner, columns in read.items()}

    async def document(self, db: Connection, query: DocumentQuery) -> StoredDocument | None:
        """Return one document; see `Store.document`."""
        found = await db.fetchrow(self.sql(_DOCUMENT), *_place(query), query.key)
        return None if found is None else rows.to_document(found)

    async def documents(self, db: Connection, query: DocumentQuery) -> list[StoredDocument]:
        """Return documents; see `Store.documents`."""
        lead = (min(query.lead, 1 << 30),) if query.lead > 0 else ()
        columns = _FACTS + (_LEAD if lead else "")
        start: Any = query.after or ""
        if query.newest:
            start = MAX_INTEGER if query.before is None else min(query.before, MAX_INTEGER)
        statement = f"SELECT {columns} {_BY_PLACE if query.newest else _BY_KEY}"
        bindings = (*_place(query), start, query.limit, *lead)
        return [rows.to_document(row) for row in await db.fetch(self.sql(statement), *bindings)]


def _place(query: DocumentQuery) -> tuple[Any, ...]:
    return (query.app, query.id, query.collection, query.now, query.expired)


class _Shape(NamedTuple):
    """What the statement for a window of a log depends on."""

    limited: bool
    """Only so many events: the first ones, or, `backwards`, the last ones."""
    backwards: bool
    since: bool
    kinds: int
    opening: bool
    """Of those that come before the last ones, the first ones as well."""


def _window(window: EventQuery | None) -> tuple[_Shape | None, tuple[Any, ...]]:
    """Return the shape of a window and its bindings, `None` for one without any event."""
    limit = None if window is None else window.last if window.first is None else window.first
    if window is None or limit == 0 or window.kinds == ():
        return None, ()
    low = 0 if window.after_seq is None else min(max(window.after_seq, 0), MAX_SEQ)
    high = MAX_SEQ + 1 if window.before_seq is None else min(max(window.before_seq, 0), MAX_SEQ + 1)
    bindings: list[Any] = [low, high]
    if limit is not None:
        bindings.append(limit)
    since = window.since_instant
    if since is not None:
        bindings.append(since)
    kinds = tuple(dict.fromkeys(window.kinds)) if window.kinds else ()
    bindings += kinds
    backwards = limit is not None and window.first is None
    opening = window.opening if backwards and isinstance(window, Ends) else 0
    if opening > 0:
        bindings.append(opening)
    limited, is_since = limit is not None, since is not None
    return _Shape(limited, backwards, is_since, len(kinds), opening > 0), tuple(bindings)


def _log(shape: _Shape | None, first: int) -> tuple[str, str]:
    """Return the columns of a window of a log, and the joins that gather them.

    Its bindings are from `$first` on. Each kind of window is a statement of its own, so that each
    uses the index that fits.
    """
    if shape is None:
        return "", ""
    limit = first + 2
    columns, joins = _arrays("logged"), _join(shape, first, limit, "logged")
    if shape.opening:
        limit += 1 + shape.since + shape.kinds
        columns += _arrays("begun")
        joins += " " + _join(shape._replace(backwards=False), first, limit, "begun")
    return columns, joins


def _arrays(name: str) -> str:
    return "".join(f", {name}.{column}" for column in rows.EVENT)


def _join(shape: _Shape, first: int, limit: int, name: str) -> str:
    """Return the join that gathers a window; how many it takes at most is `$limit`."""
    where = f"e.session = s.row AND e.seq > ${first} AND e.seq < ${first + 1}"
    order = f"ORDER BY e.seq {'DESC' if shape.backwards else 'ASC'}"
    place = first + 2
    if shape.limited:
        order += f" LIMIT ${limit}"
        place += 1
    if shape.since:
        # Peaks never fall, so going back, nothing matches behind the first one before `since`.
        where += f""" AND e.at >= ${place} AND e.seq > coalesce((SELECT p.seq FROM {{s}}.events AS p
            WHERE p.session = s.row AND p.seq > ${first} AND p.seq < ${first + 1}
            AND p.peak < ${place} ORDER BY p.seq DESC LIMIT 1), 0)"""
        place += 1
    kinds = [f"{where} AND e.kind = ${place + number}" for number in range(shape.kinds)]
    selects = [
        f"(SELECT {_COLUMNS} FROM {{s}}.events AS e WHERE {part} {order})"
        for part in kinds or [where]
    ]
    inner = " UNION ALL ".join(selects)
    merged = order if len(selects) > 1 else ""
    source = f"(SELECT * FROM ({inner}) AS e {merged}) AS e"
    return f"LEFT JOIN LATERAL (SELECT {_AGGREGATES} FROM {source}) AS {name} ON true"


def _entries(shape: _Shape | None, columns: Sequence[Sequence[Any] | None]) -> tuple[Entry, ...]:
    """Return what was gathered of a log, ascending."""
    entries = rows.to_entries(columns[: len(rows.EVENT)])
    if shape is None or not shape.backwards:
        return entries
    entries = entries[::-1]
    if not shape.opening or not entries:
        return entries
    begun = rows.to_entries(columns[len(rows.EVENT) :])
    return (*(entry for entry in begun if entry.seq < entries[0].seq), *entries)

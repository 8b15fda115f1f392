"""Pages of sessions and counts: a keyset and never an offset, an index for every filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sojourn import codec
from sojourn.errors import Corrupt, InvalidCursor
from sojourn.lifecycle import ENDING, Phase
from sojourn.model import Record
from sojourn.restoring import MAX_INTEGER
from sojourn.store import Listed
from sojourn.stores.planning import kept_facet, label_facet
from sojourn.stores.postgres import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sojourn.model import Encoded
    from sojourn.store import Query
    from sojourn.stores.postgres.pool import Connection
    from sojourn.stores.postgres.reader import Reader

_KEPT = """SELECT coalesce(sum(k.sessions), 0) FROM {s}.counts AS k
    WHERE k.digest = $1 AND k.phase = ANY($2)"""


class _Filters:
    """The conditions of a query and their bindings."""

    def __init__(self, query: Query) -> None:
        self.bindings: list[Any] = []
        self._query = query
        self._places: dict[str, str] = {}
        self.where: list[str] = []
        self._owner: str | None = None
        self.labels = [
            self.bind(rows.digest(query.app, label_facet(name, value)))
            for name, value in (query.labels or {}).items()
        ]
        if query.user is not None or query.anonymous:
            self._owner = self.bind(rows.owner_of(query.user))
        if query.parent is not None:
            self.where.append(
                "s.parent_row = (SELECT p.row FROM {s}.sessions AS p "
                f"WHERE p.app = {self.app} AND p.id = {self.bind(query.parent)})"
            )

    def of_user(self, table: str) -> list[str]:
        """Return the condition on the user, as a column of a table; none if any will do."""
        return [] if self._owner is None else [f"coalesce({table}.user_id, '') = {self._owner}"]

    def bind(self, value: Any) -> str:
        """Return the place of a value in the statement."""
        self.bindings.append(value)
        return f"${len(self.bindings)}"

    def _once(self, name: str) -> str:
        """Return the place of a field of the query. Only what is used may be bound."""
        if name not in self._places:
            self._places[name] = self.bind(getattr(self._query, name))
        return self._places[name]

    @property
    def app(self) -> str:
        """The place of the query's app."""
        return self._once("app")

    @property
    def now(self) -> str:
        """The place of the query's instant."""
        return self._once("now")

    def of_labels(self, first: int) -> list[str]:
        """Return the conditions on labels, those from the given one on."""
        return [
            f"EXISTS (SELECT FROM {{s}}.labels AS m WHERE m.row = s.row AND m.digest = {place})"
            for place in self.labels[first:]
        ]


async def page(reader: Reader, db: Connection, query: Query) -> Listed:
    """Return a page of sessions; see `Store.list`."""
    statement, bindings = _page_sql(query)
    if statement is None:
        return Listed([], None)
    found = await db.fetch(reader.sql(statement), *bindings)
    position = None
    if len(found) > query.limit:
        found = found[: query.limit]
        position = _position_of(found[-1], query)
    return await _listed(reader, db, query.app, found, position)


async def _listed(
    reader: Reader, db: Connection, app: str, found: Sequence[Any], position: str | None
) -> Listed:
    """Return rows as records, each with the tiers of its app and user."""
    read: list[tuple[Any, Encoded]] = []
    corrupt: list[Corrupt] = []
    for row in found:
        try:
            header = rows.to_header(row)
            read.append((header, codec.decode_object(row[rows.STATE], f"session {header.id!r}")))
        except Corrupt as error:
            corrupt.append(error)
    owners = {""} | {header.user for header, _ in read if header.user is not None}
    tiers = await reader.tiers_of(db, app, sorted(owners)) if read else {}
    records = [
        Record(
            header=header,
            state=state,
            user_state=tiers.get(header.user, {}) if header.user is not None else {},
            app_state=tiers.get("", {}),
        )
        for header, state in read
    ]
    return Listed(records, position, tuple(corrupt))


def _page_sql(query: Query) -> tuple[str | None, list[Any]]:
    """Return the statement of a page and one row more, `None` if nothing can match.

    The indexes hold sessions by phase; one page of each, merged, is the page of them all.
    """
    filters = _Filters(query)
    by_activity = query.order.endswith("active")
    source, lead, joined = _source(query, filters, by_activity=by_activity)
    where = [*joined, *filters.where]
    if not query.expired:
        where.append(f"(s.expires_at IS NULL OR s.expires_at > {filters.now})")
    direction, compare = ("DESC", "<") if query.order.startswith("-") else ("ASC", ">")
    keys = [f"{lead}.active_at", f"{lead}.row"] if by_activity else [f"{lead}.row"]
    if query.position is not None:
        place = _parse_position(query.position)[0 if by_activity else 1 :]
        values = ", ".join(f"{filters.bind(value)}::bigint" for value in place)
        where.append(f"({', '.join(keys)}) {compare} ({values})")
    limit = filters.bind(query.limit + 1)
    order = ", ".join(f"{key} {direction}" for key in keys)
    rest = f"{' AND '.join(where)} ORDER BY {order} LIMIT {limit}"
    parts = []
    for phase in dict.fromkeys(_phases_of(query)):
        where_phase = f"{lead}.phase = {filters.bind(phase.value)}"
        parts.append(f"(SELECT {lead}.row FROM {source} WHERE {where_phase} AND {rest})")
    if not parts:
        return None, []
    last = order.replace(f"{lead}.", "s.")
    chosen = f"s.row = ANY(ARRAY({' UNION ALL '.join(parts)}))"
    statement = f"SELECT {rows.of('s')} FROM {{s}}.sessions AS s WHERE {chosen}"
    return f"{statement} ORDER BY {last} LIMIT {limit}", filters.bindings


def _source(query: Query, filters: _Filters, *, by_activity: bool) -> tuple[str, str, list[str]]:
    """Return the tables of a page, the one that leads through its index, and its conditions."""
    owned = query.user is not None or query.anonymous
    if query.parent is not None or (not by_activity and (owned or not filters.labels)):
        joined = [f"s.app = {filters.app}", *filters.of_user("s"), *filters.of_labels(0)]
        return "{s}.sessions AS s", "s", joined
    if filters.labels and not owned:
        joined = [f"l.digest = {filters.labels[0]}", *filters.of_labels(1)]
        return "{s}.labels AS l JOIN {s}.sessions AS s ON s.row = l.row", "l", joined
    joined = [f"a.app = {filters.app}", *filters.of_user("a"), *filters.of_labels(0)]
    return "{s}.activity AS a JOIN {s}.sessions AS s ON s.row = a.row", "a", joined


def _phases_of(query: Query) -> Iterable[Phase]:
    return Phase if query.phases is None else query.phases


async def count(reader: Reader, db: Connection, query: Query) -> int:
    """Return how many sessions match; see `Store.count`.

    What is kept, less those past their deadline that nobody has ended yet.
    """
    query = msgspec.structs.replace(query, expired=False)
    facet = kept_facet(query)
    phases = [phase.value for phase in _phases_of(query)]
    filters = _Filters(query)
    where = [f"s.app = {filters.app}", *filters.where, *filters.of_user("s")]
    where += filters.of_labels(0)
    where.append(f"s.phase = ANY({filters.bind(phases)})")
    if facet is None:
        where.append(f"(s.expires_at IS NULL OR s.expires_at > {filters.now})")
        statement = f"SELECT count(*) FROM {{s}}.sessions AS s WHERE {' AND '.join(where)}"
        return int(await db.fetchval(reader.sql(statement), *filters.bindings))
    digest = filters.bind(rows.digest(query.app, facet))
    kept = _KEPT.replace("$1", digest).replace("$2", filters.bind(phases))
    ending = filters.bind([phase.value for phase in ENDING])
    where.append(f"s.expires_at <= {filters.now}")
    late = " AND ".join(where)
    # Those that are being ended are looked up apart: the reaper waits for their end.
    statement = (
        f"SELECT ({kept}) - (SELECT count(*) FROM {{s}}.sessions AS s "
        f"WHERE s.wake_at <= {filters.now} AND {late}) - (SELECT count(*) FROM {{s}}.sessions AS s "
        f"WHERE s.phase = ANY({ending}) AND (s.wake_at IS NULL OR s.wake_at > {filters.now}) "
        f"AND {late})"
    )
    return int(await db.fetchval(reader.sql(statement), *filters.bindings))


def _position_of(row: Any, query: Query) -> str:
    """Return the position behind a row of a page."""
    active_at = row["active_at"] if query.order.endswith("active") else 0
    return f"{active_at}.{row['row']}"


def _parse_position(position: str) -> tuple[int, int]:
    try:
        active_at, row = map(int, position.split("."))
    except ValueError:
        raise InvalidCursor("its position is not one of this store's") from None
    if max(abs(active_at), abs(row)) > MAX_INTEGER:
        raise InvalidCursor("its position is not one of this store's")
    return active_at, row

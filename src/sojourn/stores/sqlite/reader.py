"""Reads: each answers from one snapshot of the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn import codec
from sojourn.errors import Corrupt, InvalidCursor
from sojourn.expiry import is_past
from sojourn.lifecycle import ENDING, Phase
from sojourn.model import Record
from sojourn.store import Listed, Tiers
from sojourn.stores.sqlite import rows, windows
from sojourn.stores.sqlite.tails import Log, Tails
from sojourn.stores.sqlite.windows import TooLong

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import apsw

    from sojourn.model import Encoded, Entry, Header, StoredDocument
    from sojourn.store import DocumentQuery, EventQuery, Get, Query

SHORT_BYTES = 64 * 1024
"""Bytes of events that may be read on the event loop's thread; more is a reader thread's work."""

MAX_INTEGER = (1 << 63) - 1
"""The largest integer in SQLite."""

_WIDTH = rows.COLUMNS
_PAD = ", ".join(["NULL"] * (_WIDTH - 4))
_GET = f"""SELECT 0, {rows.SESSION} FROM sessions WHERE app = ?1 AND id = ?2
    UNION ALL SELECT 1, owner, name, value, NULL, {_PAD} FROM tiers WHERE app = ?1 AND owner = ''
    UNION ALL SELECT 2, owner, name, value, NULL, {_PAD} FROM tiers WHERE app = ?1 AND owner =
        (SELECT user FROM sessions WHERE app = ?1 AND id = ?2)"""
_HEAD = "SELECT expires_at, row, epoch, remembered, seq FROM sessions WHERE app = ? AND id = ?"
_TIER = "SELECT name, value FROM tiers WHERE app = ? AND owner = ?"
_OWNED = """FROM documents WHERE session = iif(:id IS NULL, 0, (
        SELECT row FROM sessions WHERE app = :app AND id = :id
        AND (:expired OR expires_at IS NULL OR expires_at > :now)))
    AND app = :app AND collection = :collection AND (expires_at IS NULL OR expires_at > :now)"""
_DOCUMENT = f"SELECT {rows.DOCUMENT}, iif(size > :most, NULL, body) {_OWNED} AND key = :key"
_LEAD = ", coalesce(substr(body, 1, :lead), x'')"
_BY_KEY = f"{_OWNED} AND key > :after ORDER BY key LIMIT :limit"
_BY_PLACE = f"{_OWNED} AND row < :before ORDER BY row DESC LIMIT :limit"
_DOCUMENTS = {
    (newest, lead): f"SELECT {rows.DOCUMENT}{_LEAD if lead else ''} {order}"
    for newest, order in ((False, _BY_KEY), (True, _BY_PLACE))
    for lead in (False, True)
}
"""Listings of documents, by whether they are newest first and whether bodies come along."""


class Reader:
    """Answers reads on one connection, used by one thread at a time."""

    def __init__(self, db: apsw.Connection, *, short: bool) -> None:
        """`short` readers raise `TooLong` rather than read more than `SHORT_BYTES` of events."""
        self._db = db
        self._short = short
        self._tails = Tails(db, SHORT_BYTES) if short else None

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def forget(self) -> None:
        """Keep nothing of what was read."""
        if self._tails is not None:
            self._tails.clear()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    # --- one session ---------------------------------------------------------------------------

    def get(self, get: Get) -> Record | None:
        """Return a session; see `Store.get`."""
        if get.window is None:
            return self._get(get, None)
        with self._snapshot():
            return self._get(get, get.window)

    def _get(self, get: Get, window: EventQuery | None) -> Record | None:
        found = self._db.execute(_GET, (get.app, get.id)).fetchall()
        if not found or found[0][0] != 0:
            return None
        row: tuple[Any, ...] = found[0][1:]
        header = rows.to_header(row)
        if is_past(header.expires_at, get.now) and not get.expired:
            return None
        app_state, user_state = _tiers_in(found)
        entries = () if window is None else tuple(self._window(_log_of(row, header), window))
        return Record(
            header=header,
            state=_state_in(row),
            user_state=user_state if header.user is not None else {},
            app_state=app_state,
            entries=entries,
        )

    def events(self, app: str, id: str, now: int, window: EventQuery) -> list[Entry] | None:
        """Return a window of a log; see `Store.events`."""
        execute = self._db.execute
        execute("BEGIN")  # not `_snapshot`: this is the read that there are most of
        try:
            row = execute(_HEAD, (app, id)).fetchone()
            if row is None or is_past(row[0], now):
                return None
            return self._window(Log(*row[1:]), window)
        finally:
            execute("COMMIT")

    def _window(self, log: Log, window: EventQuery) -> list[Entry]:
        if self._tails is None:
            return windows.entries(self._db, log.row, log.top, window, MAX_INTEGER)
        return self._tails.entries(log, window)

    def revisions(self, keys: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Return (epoch, revision) of those sessions that exist."""
        found = self._db.execute(
            "SELECT s.app, s.id, s.epoch, s.revision FROM json_each(?) AS k "
            "JOIN sessions AS s ON s.app = k.value ->> 0 AND s.id = k.value ->> 1",
            (rows.to_json(keys),),
        )
        return {(app, id): (epoch, revision) for app, id, epoch, revision in found}

    def data_version(self) -> int:
        """Return a number that changes when another connection has committed."""
        return int(self._db.execute("PRAGMA data_version").get)

    # --- tiers and documents -------------------------------------------------------------------

    def tiers(self, app: str, user: str | None) -> Tiers:
        """Return shared state; see `Store.tiers`."""
        with self._snapshot():
            user_state = {} if user is None else self._tier(app, rows.tier_owner(user))
            return Tiers(user_state, self._tier(app, ""))

    def _tier(self, app: str, owner: str) -> Encoded:
        return {name: msgspec.Raw(value) for name, value in self._db.execute(_TIER, (app, owner))}

    def document(self, query: DocumentQuery) -> StoredDocument | None:
        """Return one document; see `Store.document`."""
        most = SHORT_BYTES if self._short else MAX_INTEGER
        bindings = {**_document_bindings(query), "key": query.key, "most": most}
        found = self._db.execute(_DOCUMENT, bindings).fetchone()
        if found is None:
            return None
        document = rows.to_document(found)
        if document.size > most:
            raise TooLong
        return document

    def documents(self, query: DocumentQuery) -> list[StoredDocument]:
        """Return documents without bodies; see `Store.documents`."""
        bindings = {
            **_document_bindings(query),
            "after": query.after or "",
            "before": MAX_INTEGER if query.before is None else query.before,
            "lead": query.lead,
            "limit": query.limit,
        }
        found = self._db.execute(_DOCUMENTS[query.newest, query.lead > 0], bindings)
        return [rows.to_document(row) for row in found]

    # --- lists and counts ----------------------------------------------------------------------

    def list(self, query: Query) -> Listed:
        """Return a page of sessions; see `Store.list`."""
        with self._snapshot():
            sql, bindings = _list_sql(query)
            found = self._db.execute(sql, bindings).fetchall()
            position = None
            if len(found) > query.limit:
                found = found[: query.limit]
                position = _position_of(found[-1], query)
            return self._listed(query.app, found, position)

    def _listed(self, app: str, found: Sequence[Any], position: str | None) -> Listed:
        app_state = self._tier(app, "")
        user_states: dict[str | None, Encoded] = {None: {}}
        records: list[Record] = []
        corrupt: list[Corrupt] = []
        for row in found:
            try:
                header, state = rows.to_header(row), _state_in(row)
            except Corrupt as error:
                corrupt.append(error)
                continue
            if header.user not in user_states:
                user_states[header.user] = self._tier(app, rows.tier_owner(header.user))
            records.append(
                Record(
                    header=header,
                    state=state,
                    user_state=user_states[header.user],
                    app_state=app_state,
                )
            )
        return Listed(records, position, tuple(corrupt))

    def count(self, query: Query) -> int:
        """Return how many sessions match; see `Store.count`."""
        query = msgspec.structs.replace(query, expired=False)
        with self._snapshot():
            facet = _kept_facet(query)
            if facet is None:
                where, bindings = _filters(query)
                return int(
                    self._db.execute(
                        f"SELECT count(*) FROM {_source(query)} WHERE {where}",
                        bindings,
                    ).get
                )
            phases = [phase.value for phase in _phases_of(query)]
            kept = self._db.execute(
                "SELECT coalesce(sum(sessions), 0) FROM counts "
                "WHERE app = ? AND facet = ? AND phase IN (SELECT value FROM json_each(?))",
                (query.app, facet, rows.to_json(phases)),
            ).get
            return int(kept - self._expired_in(query))

    def _expired_in(self, query: Query) -> int:
        """Return how many sessions of a count are past their deadline but not swept yet.

        Those that are being ended are looked up apart: the reaper waits for their end, not for
        their deadline.
        """
        where, bindings = _filters(query, expired=True)
        bindings["ending"] = rows.to_json([phase.value for phase in ENDING])
        return int(
            self._db.execute(
                f"SELECT (SELECT count(*) FROM sessions AS s INDEXED BY session_by_wake "
                f"WHERE s.wake_at <= :now AND {where}) "
                f"+ (SELECT count(*) FROM sessions AS s INDEXED BY session_by_creation "
                f"WHERE s.phase IN (SELECT value FROM json_each(:ending)) "
                f"AND (s.wake_at IS NULL OR s.wake_at > :now) AND {where})",
                bindings,
            ).get
        )


def _log_of(row: Sequence[Any], header: Header) -> Log:
    return Log(row[rows.ROW], header.epoch, header.remembered, header.seq)


def _document_bindings(query: DocumentQuery) -> dict[str, Any]:
    return {
        "app": query.app,
        "id": query.id,
        "collection": query.collection,
        "now": query.now,
        "expired": query.expired,
    }


def _state_in(row: Any) -> Encoded:
    return codec.decode_object(row[rows.STATE], f"session {row[1]!r}")


def _tiers_in(found: list[Any]) -> tuple[Encoded, Encoded]:
    """Return the app's and the user's tier from the rows of `_GET`."""
    tiers: tuple[Encoded, Encoded] = ({}, {})
    for row in found[1:]:
        tiers[row[0] - 1][row[2]] = msgspec.Raw(row[3])
    return tiers


def _phases_of(query: Query) -> Iterable[Phase]:
    return Phase if query.phases is None else query.phases


def _kept_facet(query: Query) -> str | None:
    """Return the facet whose count is kept for exactly these filters, `None` if none is."""
    by_user = query.user is not None or query.anonymous
    labels = query.labels or {}
    if query.parent is not None or len(labels) + by_user > 1:
        return None
    if by_user:
        return rows.user_facet(query.user)
    for name, value in labels.items():
        return rows.label_facet(name, value)
    return "all"


def _filters(query: Query, *, expired: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the conditions of a query and their bindings, the order of a page aside."""
    where = "s.app = :app"
    if expired:
        where += " AND s.expires_at <= :now"
    elif not query.expired:
        where += " AND (s.expires_at IS NULL OR s.expires_at > :now)"
    bindings: dict[str, Any] = {"app": query.app, "now": query.now}
    if query.user is not None:
        where += " AND s.user = :user"
        bindings["user"] = query.user
    elif query.anonymous:
        where += " AND s.user IS NULL"
    if query.phases is not None:
        where += " AND s.phase IN (SELECT value FROM json_each(:phases))"
        bindings["phases"] = rows.to_json([phase.value for phase in query.phases])
    if query.parent is not None:
        where += (
            " AND s.parent_row = "
            "(SELECT p.row FROM sessions AS p WHERE p.app = :app AND p.id = :parent)"
        )
        bindings["parent"] = query.parent
    for number, (name, value) in enumerate((query.labels or {}).items()):
        bindings[f"name{number}"], bindings[f"value{number}"] = name, value
        where += (
            f" AND EXISTS (SELECT 1 FROM labels AS l{number} WHERE l{number}.app = :app "
            f"AND l{number}.name = :name{number} AND l{number}.value = :value{number} "
            f"AND l{number}.session = s.row)"
        )
    return where, bindings


def _source(query: Query) -> str:
    """Return the tables of a query: sessions, led by the first label if there is no better lead."""
    if query.labels and query.user is None and not query.anonymous and query.parent is None:
        return (
            "labels AS l CROSS JOIN sessions AS s ON s.row = l.session "
            "AND l.app = :app AND l.name = :name0 AND l.value = :value0"
        )
    return "sessions AS s"


def _list_sql(query: Query) -> tuple[str, dict[str, Any]]:
    """Return the statement of a page and one row more: a keyset, never an offset."""
    where, bindings = _filters(query)
    bindings["limit"] = query.limit + 1
    descending = query.order.startswith("-")
    direction, compare = ("DESC", "<") if descending else ("ASC", ">")
    by_activity = query.order.endswith("active")
    led_by_label = _source(query) != "sessions AS s"
    lead = "l" if led_by_label else "s"
    row = "l.session" if led_by_label else "s.row"
    keys = f"{lead}.active_at, {row}" if by_activity else row
    if query.position is not None:
        active_at, number = _parse_position(query.position)
        bindings["active_at"], bindings["row"] = active_at, number
        where += f" AND ({keys}) {compare} " + ("(:active_at, :row)" if by_activity else "(:row)")
    order = ", ".join(f"{key} {direction}" for key in keys.split(", "))
    columns = ", ".join(f"s.{column}" for column in rows.SESSION.split(", "))
    # As bytes, so that text which is not UTF-8 damages its own session and not the page.
    columns = columns.replace("s.state", "CAST(s.state AS BLOB) AS state")
    if led_by_label or query.parent is not None:
        sql = f"SELECT {columns} FROM {_source(query)} WHERE {where} ORDER BY {order} LIMIT :limit"
        return sql, bindings
    parts = []
    for number, phase in enumerate(dict.fromkeys(_phases_of(query))):
        # The indexes hold sessions by phase; one page of each, merged, is the page of them all.
        bindings[f"phase{number}"] = phase.value
        parts.append(
            f"SELECT * FROM (SELECT {columns} FROM sessions AS s WHERE s.phase = :phase{number} "
            f"AND {where} ORDER BY {order} LIMIT :limit)"
        )
    if not parts:
        return f"SELECT {columns} FROM sessions AS s WHERE 0", {}
    merged = order.replace("s.", "")
    return " UNION ALL ".join(parts) + f" ORDER BY {merged} LIMIT :limit", bindings


def _position_of(row: Any, query: Query) -> str:
    """Return the position behind a row of a page."""
    active_at = row[10] if query.order.endswith("active") else 0
    return f"{active_at}.{row[rows.ROW]}"


def _parse_position(position: str) -> tuple[int, int]:
    try:
        active_at, row = map(int, position.split("."))
    except ValueError:
        raise InvalidCursor("its position is not one of this store's") from None
    if max(abs(active_at), abs(row)) > MAX_INTEGER:
        raise InvalidCursor("its position is not one of this store's")
    return active_at, row

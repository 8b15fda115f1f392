"""Putting sessions into the schema exactly as they were elsewhere, large ones part by part.

The parts of a large one gather in a session of an app that nobody can name. The last part turns
that row into the session's own, in one transaction.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, cast

import asyncpg
import msgspec

from sojourn import codec, commit, restoring
from sojourn.errors import NotFound, RoleTaken
from sojourn.stores.planning import counted
from sojourn.stores.postgres import rows

if TYPE_CHECKING:
    from sojourn.model import Encoded, Header
    from sojourn.store import Restore, Snapshot
    from sojourn.stores.planning import Loaded
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection, Pool
    from sojourn.stores.postgres.reader import Reader

Verdict = Literal["restored", "unchanged", "partial"]

STAGING = "\x1frestoring "
"""Stands before the app of a session of which not all parts are here: no name begins with it."""

ATTEMPTS = 5
"""Tries at putting a session while others make and remove one of the same name."""

NUMBERS_AT_ONCE = 256
"""Row numbers taken together: about as many sessions are put at the same time."""

NUMBERS_SECONDS = 5.0
"""How long they are good for: later ones would stand before what was made meanwhile."""

_NUMBERS = "SELECT nextval('{s}.row_numbers') FROM generate_series(1, $1)"
_BEGIN = "SELECT fresh, result FROM {s}.begin_once_1($1, $2)"
_END = "SELECT {s}.end_once_1($1, $2)"
_THERE = f"""SELECT {rows.of("s")} FROM {{s}}.sessions AS s WHERE (s.app = $1 AND s.id = $2)
    OR (s.app = $1 AND s.id = $3) OR (s.app = $4 AND s.id = $2)
    ORDER BY s.row FOR NO KEY UPDATE"""
_HOLDER = """SELECT s.row, s.id FROM {s}.claims AS c JOIN {s}.sessions AS s ON s.row = c.row
    WHERE c.digest = $1"""
_COLUMNS = rows.HEADER.replace("attempts, ", "attempts, parent_row, ")
_INSERT = f"""INSERT INTO {{s}}.sessions(row, version, peak, state, wake_at, {_COLUMNS})
    SELECT $3, 1, 0, $2, h.due_at, {rows.of("h", _COLUMNS)}
    FROM json_populate_record(NULL::{{s}}.sessions, $1) AS h"""
_NEW = ", ".join(f"{column} = h.{column}" for column in rows.HEADER.split(", "))
_REPLACE = f"""UPDATE {{s}}.sessions AS s SET version = s.version + 1, wake_at = h.due_at, {_NEW}
    FROM json_populate_record(NULL::{{s}}.sessions, $2) AS h WHERE s.row = $1"""
_ACTIVE = """INSERT INTO {s}.activity(row, app, user_id, phase, active_at)
    SELECT s.row, s.app, s.user_id, s.phase, s.active_at FROM {s}.sessions AS s WHERE s.row = $1
    ON CONFLICT (row) DO UPDATE SET app = excluded.app, user_id = excluded.user_id,
        phase = excluded.phase, active_at = excluded.active_at"""
_LABELS = """INSERT INTO {s}.labels(row, digest, name, value, phase, active_at)
    SELECT $1, l.digest, l.name, l.value, $5, $6
    FROM unnest($2::bytea[], $3::text[], $4::text[]) AS l(digest, name, value)"""
_COUNTS = """INSERT INTO {s}.counts AS k (digest, phase, slot, app, facet, sessions)
    SELECT c.digest, c.phase, 0, $1, c.facet, c.by
    FROM unnest($2::bytea[], $3::text[], $4::text[], $5::bigint[]) AS c(digest, phase, facet, by)
    ORDER BY c.digest, c.phase COLLATE "C"
    ON CONFLICT ON CONSTRAINT counts_pkey DO UPDATE SET sessions = k.sessions + excluded.sessions"""
_UNCOUNT = "DELETE FROM {s}.counts WHERE digest = ANY($1) AND sessions = 0 AND facet <> 'all'"
_EVENTS = """INSERT INTO {s}.events(session, seq, id, kind, author, at, body, changes, deleted,
        peak)
    SELECT $1, e.* FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[],
        $7::text[], $8::text[], $9::text[], $10::bigint[]) AS e"""
_PEAK = "UPDATE {s}.sessions SET peak = $2 WHERE row = $1"
_PUT = """INSERT INTO {s}.documents(row, session, app, collection, key, content_type, size, seq,
        created_at, updated_at, expires_at, body)
    VALUES (nextval('{s}.row_numbers'), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"""
REPLACE_DOCUMENT = f"""{_PUT} ON CONFLICT (session, collection, key) DO UPDATE SET
    content_type = excluded.content_type, size = excluded.size, seq = excluded.seq,
    created_at = excluded.created_at, updated_at = excluded.updated_at,
    expires_at = excluded.expires_at, body = excluded.body"""
KEEP_DOCUMENT = f"{_PUT} ON CONFLICT DO NOTHING"
_PARTS = "UPDATE {s}.sessions SET attempts = $2 WHERE row = $1"
_LAST = "SELECT coalesce(max(seq), 0) FROM {s}.events WHERE session = $1"
_ADOPT = """UPDATE {s}.sessions AS s SET peak = t.peak, state = t.state
    FROM {s}.sessions AS t WHERE s.row = $1 AND t.row = $2"""


class Restoring:
    """Restores into one store."""

    def __init__(self, address: Address, pool: Pool, reader: Reader) -> None:
        """`pool` is where they are made."""
        self._pool = pool
        self._reader = reader
        self._relaxed = address.durability == "relaxed"
        self._taking = asyncio.Lock()
        self._numbers: deque[int] = deque()
        self._taken_at = 0.0

    async def _number(self) -> int:
        """Return the row number of the next session: who comes first stands first in lists."""
        async with self._taking:
            now = asyncio.get_running_loop().time()
            if not self._numbers or now - self._taken_at > NUMBERS_SECONDS:
                statement = self._reader.sql(_NUMBERS)
                found = await self._pool.run(lambda db: db.fetch(statement, NUMBERS_AT_ONCE))
                self._numbers = deque(number for (number,) in found)
                self._taken_at = now
            return self._numbers.popleft()

    async def restore(self, restore: Restore) -> Verdict:
        """Put a session; see `SupportsTransfer.restore`."""
        named, number = secrets.token_bytes(16), await self._number()
        relaxed = self._relaxed if restore.durability is None else restore.durability == "relaxed"
        for attempt in range(ATTEMPTS):
            try:
                return await self._pool.run(
                    lambda db: self._once(
                        _Put(db, self._reader, number), restore, named, relaxed=relaxed
                    )
                )
            except asyncpg.UniqueViolationError:
                if attempt + 1 == ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, put: _Put, restore: Restore, named: bytes, *, relaxed: bool) -> Verdict:
        async with put.db.transaction():
            fresh, result = await put.row(_BEGIN, named, relaxed)
            if not fresh:
                return cast("Verdict", result)
            verdict = await put.restore(restore)
            await put.do(_END, named, verdict)
            return verdict


class _Put:
    """One restore inside a transaction."""

    def __init__(self, db: Connection, reader: Reader, number: int) -> None:
        self.db = db
        self._number = number
        self._reader = reader

    async def do(self, statement: str, *values: Any) -> None:
        await self.db.execute(self._reader.sql(statement), *values)

    async def row(self, statement: str, *values: Any) -> Any:
        return await self.db.fetchrow(self._reader.sql(statement), *values)

    async def restore(self, restore: Restore) -> Verdict:
        """Put a session; see `SupportsTransfer.restore`."""
        snapshot, header = restore.snapshot, restore.snapshot.header
        there, parent, staged = await self._there(header)
        if restoring.verdict(there.header if there else None, restore) == "keep":
            assert there is not None  # there is something to keep
            await self._drop(staged)
            await self._catch_up(there, header)
            return "unchanged"
        await self._check_claim(header, there)
        if header.parent is not None and parent is None:
            raise NotFound(header.parent, "no such parent session; restore it first")
        above = parent.row if parent else None
        if not snapshot.part and snapshot.last:
            await self._drop(staged)
            await self._whole(snapshot, there, above)
            return "restored"
        staged = await self._stage(restore, staged)
        if not snapshot.last:
            return "partial"
        await self._finish(staged, header, there, above)
        return "restored"

    async def _there(self, header: Header) -> tuple[Loaded | None, Loaded | None, Loaded | None]:
        """Return the session that is there, its parent, and what was restored of it so far."""
        staging = STAGING + header.app
        keys = (header.app, header.id, header.parent or "", staging)
        found = {
            (row[0], row[1]): rows.to_loaded(row)
            for row in await self.db.fetch(self._reader.sql(_THERE), *keys)
        }
        return (
            found.get((header.app, header.id)),
            found.get((header.app, header.parent or "")),
            found.get((staging, header.id)),
        )

    async def _check_claim(self, header: Header, there: Loaded | None) -> None:
        """Raise `RoleTaken` for a claim of another session."""
        claim = commit.claim_of(header)
        if claim is None or not restoring.claims(header):
            return
        digest = rows.digest(header.app, rows.claim_text(claim))
        holder = await self.row(_HOLDER, digest)
        if holder is not None and (there is None or holder[0] != there.row):
            raise RoleTaken(dict(claim), holder[1])

    async def _catch_up(self, there: Loaded, header: Header) -> None:
        ahead = restoring.caught_up(there.header, header)
        if ahead != there.header:
            await self.do(_REPLACE, there.row, rows.to_json(rows.from_header(ahead)))
            await self.do(_ACTIVE, there.row)
            sql = "UPDATE {s}.labels SET active_at = $2 WHERE row = $1"
            await self.do(sql, there.row, ahead.active_at)

    async def _drop(self, staged: Loaded | None) -> None:
        if staged is not None:
            await self.do("SELECT {s}.remove_1($1)", [staged.row])

    # --- putting -------------------------------------------------------------------------------

    async def _whole(self, snapshot: Snapshot, there: Loaded | None, above: int | None) -> None:
        """Put all of a session at once."""
        header, state = snapshot.header, _text(snapshot.state)
        if there is None:
            row = await self._insert(restoring.unleased(header), state, above)
        else:
            row = there.row
            await self._empty(row)
            await self.do("UPDATE {s}.sessions SET state = $2, peak = 0 WHERE row = $1", row, state)
        await self._append(row, snapshot, 0)
        await self._settle(row, header, there.header if there else None)

    async def _insert(self, header: Header, state: str, above: int | None) -> int:
        columns = {**rows.from_header(header), "parent_row": above}
        await self.do(_INSERT, rows.to_json(columns), state, self._number)
        return self._number

    async def _empty(self, row: int) -> None:
        """Remove the log and the documents of a session, to be put again."""
        await self.do("DELETE FROM {s}.events WHERE session = $1", row)
        await self.do("DELETE FROM {s}.documents WHERE session = $1", row)

    async def _append(self, row: int, snapshot: Snapshot, peak: int) -> None:
        """Put the events and documents of a part behind those that are there."""
        if snapshot.entries:
            events = []
            for entry in snapshot.entries:
                peak = max(peak, entry.at)
                events.append((*msgspec.structs.astuple(entry), peak))
            await self.do(_EVENTS, row, *map(list, zip(*events, strict=True)))
            await self.do(_PEAK, row, peak)
        for document in snapshot.documents:
            await self.do(REPLACE_DOCUMENT, *document_values(row, snapshot.header.app, document))

    async def _settle(self, row: int, header: Header, old: Header | None) -> None:
        """Write the header, and what is looked up by it: activity, labels, the claim, counts."""
        header = restoring.unleased(header, old.fence if old else 0)
        await self.do(_REPLACE, row, rows.to_json(rows.from_header(header)))
        await self.do(_ACTIVE, row)
        await self.do("DELETE FROM {s}.labels WHERE row = $1", row)
        labels = rows.labels_of(header)
        if labels:
            columns = map(list, zip(*labels, strict=True))
            await self.do(_LABELS, row, *columns, header.phase.value, header.active_at)
        await self.do("DELETE FROM {s}.claims WHERE row = $1", row)
        claim = commit.claim_of(header)
        if claim is not None and restoring.claims(header):
            text = rows.claim_text(claim)
            sql = "INSERT INTO {s}.claims(digest, row, claim) VALUES ($1, $2, $3)"
            await self.do(sql, rows.digest(header.app, text), row, text)
        await self._count(header.app, counted(old, header))

    async def _count(self, app: str, changes: dict[tuple[str, str], int]) -> None:
        counts = [
            (rows.digest(app, facet), phase, facet, by) for (facet, phase), by in changes.items()
        ]
        if counts:
            digests, phases, facets, numbers = map(list, zip(*counts, strict=True))
            await self.do(_COUNTS, app, digests, phases, facets, numbers)
            await self.do(_UNCOUNT, digests)

    # --- part by part --------------------------------------------------------------------------

    async def _stage(self, restore: Restore, staged: Loaded | None) -> Loaded:
        """Keep a part where nobody sees it; return what is there of the session now."""
        snapshot = restore.snapshot
        if snapshot.part == 0:
            await self._drop(staged)
            staged = await self._begin(restore)
        op, expected = (staged.header.holder, staged.header.attempts) if staged else (None, 0)
        last = 0
        if staged is not None and expected:
            (last,) = await self.row(_LAST, staged.row)
        wanted = restoring.check_part(op, expected, last, restore)
        assert staged is not None  # else its part was refused
        if wanted:
            await self._append(staged.row, snapshot, staged.peak)
            await self.do(_PARTS, staged.row, snapshot.part + 1)
        return staged

    async def _begin(self, restore: Restore) -> Loaded:
        """Make the row in which the parts gather. It counts its parts as attempts."""
        header = msgspec.structs.replace(
            restore.snapshot.header,
            app=STAGING + restore.snapshot.header.app,
            parent=None,
            labels={},
            exclusive=(),
            expires_at=None,
            due_at=restore.abandoned_at,
            attempts=0,
            holder=restore.op.hex(),
            leased_until=0,
        )
        row = await self._insert(header, _text(restore.snapshot.state), None)
        await self.do(_ACTIVE, row)
        await self._count(header.app, counted(None, header))
        found = await self.row(f"SELECT {rows.SESSION} FROM {{s}}.sessions WHERE row = $1", row)
        return rows.to_loaded(found)

    async def _finish(
        self, staged: Loaded, header: Header, there: Loaded | None, above: int | None
    ) -> None:
        """Turn the row of the parts into the session's own.

        A session that is here keeps its row, and with it its children and its place in lists.
        """
        row = staged.row
        await self._count(staged.header.app, counted(staged.header, None))
        if there is None:
            await self.do("UPDATE {s}.sessions SET parent_row = $2 WHERE row = $1", row, above)
        else:
            row = there.row
            await self._empty(row)
            await self.do(_ADOPT, row, staged.row)
            for table in ("events", "documents"):
                sql = f"UPDATE {{s}}.{table} SET session = $1 WHERE session = $2"
                await self.do(sql, row, staged.row)
            await self.do("DELETE FROM {s}.activity WHERE row = $1", staged.row)
            await self.do("DELETE FROM {s}.sessions WHERE row = $1", staged.row)
        await self._settle(row, header, there.header if there else None)


def _text(state: Encoded) -> str:
    return codec.encode_object(state).decode()


def document_values(row: int, app: str, document: Any) -> tuple[Any, ...]:
    """Return the values of a document's row, in the order of the statements that put one."""
    return (
        row,
        app,
        document.collection,
        document.key,
        document.content_type,
        len(document.body or b""),
        document.seq,
        document.created_at,
        document.updated_at,
        document.expires_at,
        document.body or b"",
    )

"""Reading what a plan asks for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sojourn.errors import Corrupt
from sojourn.stores.postgres import rows
from sojourn.stores.postgres.schema import sql
from sojourn.stores.weighing import key_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.planning import Key, Known, Loaded, Owner, Reads
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection

_SESSIONS = f"""SELECT {rows.of("s")} FROM unnest($1::text[], $2::text[]) AS k(app, id)
    JOIN {{s}}.sessions AS s ON s.app = k.app AND s.id = k.id"""
_LOCKED = f"{_SESSIONS} ORDER BY s.row FOR NO KEY UPDATE OF s"
_OF = "(SELECT s.row FROM {s}.sessions AS s WHERE s.app = k.app AND s.id = k.id)"
_COLUMNS = ", ".join(f"e.{column}" for column in rows.EVENT)
_EVENTS = f"""SELECT k.place, {_COLUMNS}
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k(app, id, event, place)
    JOIN {{s}}.events AS e ON e.session = {_OF} AND e.id = k.event ORDER BY e.seq"""
_TAILS = f"""SELECT k.place, ARRAY(SELECT e.seq FROM {{s}}.events AS e WHERE e.session = {_OF}
        AND e.seq <= k.upto ORDER BY e.seq DESC LIMIT k.most)
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
        AS k(app, id, upto, most, place)"""
_PEAKS = f"""SELECT k.place, (SELECT e.peak FROM {{s}}.events AS e WHERE e.session = {_OF}
        AND e.seq <= k.upto ORDER BY e.seq DESC LIMIT 1)
    FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS k(app, id, upto, place)"""
_DELTAS = f"""SELECT k.place, {_COLUMNS.replace("e.body", "''")}
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k(app, id, place)
    JOIN {{s}}.events AS e ON e.session = {_OF}
        AND (e.changes IS NOT NULL OR e.deleted IS NOT NULL) ORDER BY e.seq"""
_SIZES = """SELECT k.place, t.name, octet_length(t.value) AS size
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k(app, owner, place)
    JOIN {s}.tiers AS t ON t.app = k.app AND t.owner = k.owner"""
_HOLDERS = """SELECT k.place, s.id FROM unnest($1::bytea[]) WITH ORDINALITY AS k(digest, place)
    JOIN {s}.claims AS c ON c.digest = k.digest JOIN {s}.sessions AS s ON s.row = c.row"""


class Fetcher:
    """Reads for the planner, each kind in one statement."""

    def __init__(self, address: Address) -> None:
        """Prepare the statements for this place."""
        self._sql = {
            text: sql(text, address)
            for text in (
                _SESSIONS,
                _LOCKED,
                _EVENTS,
                _TAILS,
                _PEAKS,
                _DELTAS,
                _SIZES,
                _HOLDERS,
            )
        }

    async def fetch(
        self, db: Connection, reads: Reads, known: Known, *, locked: bool = False
    ) -> None:
        """Read what is asked for; `locked` keeps the sessions from being changed meanwhile."""
        if reads.sessions:
            await self._sessions(db, list(reads.sessions), known, locked=locked)
        if reads.events:
            await self._events(db, reads, known)
        if reads.tails or reads.peaks:
            await self._places(db, reads, known)
        if reads.deltas:
            await self._deltas(db, list(reads.deltas), known)
        if reads.sizes:
            await self._sizes(db, list(reads.sizes), known)
        if reads.holders:
            await self._holders(db, reads, known)

    async def _sessions(
        self, db: Connection, keys: Sequence[Key], known: Known, *, locked: bool
    ) -> None:
        statement = self._sql[_LOCKED if locked else _SESSIONS]
        found: dict[Key, Loaded | Corrupt] = {}
        for row in await db.fetch(statement, *map(list, zip(*keys, strict=True))):
            try:
                found[row[0], row[1]] = rows.to_loaded(row)
            except Corrupt as error:
                found[row[0], row[1]] = error
        for key in keys:
            known.read(key, found.get(key))

    async def _events(self, db: Connection, reads: Reads, known: Known) -> None:
        wanted = list(reads.events)
        known.events.update(dict.fromkeys(wanted, ()))
        found = await db.fetch(self._sql[_EVENTS], *map(list, zip(*wanted, strict=True)))
        for place, *columns in found:
            known.events[wanted[place - 1]] += rows.to_entries([[column] for column in columns])

    async def _places(self, db: Connection, reads: Reads, known: Known) -> None:
        if reads.tails:
            tails = list(reads.tails)
            for place, seqs in await db.fetch(
                self._sql[_TAILS], *map(list, zip(*tails, strict=True))
            ):
                known.tails[tails[place - 1]] = tuple(reversed(seqs))
        if reads.peaks:
            peaks = list(reads.peaks)
            for place, peak in await db.fetch(
                self._sql[_PEAKS], *map(list, zip(*peaks, strict=True))
            ):
                known.peaks[peaks[place - 1]] = peak or 0

    async def _deltas(self, db: Connection, keys: Sequence[Key], known: Known) -> None:
        found = await db.fetch(self._sql[_DELTAS], *map(list, zip(*keys, strict=True)))
        entries: dict[Key, list[list[object]]] = {key: [] for key in keys}
        for number, (place, *columns) in enumerate(found):
            entries[keys[place - 1]].append(columns)
            if number % 1_000 == 0:
                await asyncio.sleep(0)  # a long log must not keep everybody else waiting
        for key, read in entries.items():
            columns = list(zip(*read, strict=True))
            known.deltas[key] = rows.to_entries(columns)

    async def _sizes(self, db: Connection, owners: Sequence[Owner], known: Known) -> None:
        known.sizes.update({owner: {} for owner in owners})
        apps = [owner.app for owner in owners]
        users = [rows.owner_of(owner.user) for owner in owners]
        for place, name, size in await db.fetch(self._sql[_SIZES], apps, users):
            plain = rows.unescaped(name)
            known.sizes[owners[place - 1]][plain] = key_size(plain, size)

    async def _holders(self, db: Connection, reads: Reads, known: Known) -> None:
        wanted = list(reads.holders)
        known.holders.update(dict.fromkeys(wanted))
        digests = [rows.digest(app, rows.claim_text(claim)) for app, claim in wanted]
        for place, id in await db.fetch(self._sql[_HOLDERS], digests):
            known.holders[wanted[place - 1]] = id

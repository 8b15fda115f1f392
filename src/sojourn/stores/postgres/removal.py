"""Removing sessions and finding the ones that are due: calls of the server's functions.

Each call has a name of its own, under which the server keeps its result: made again after a reply
was lost, it gets the same one.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.errors import Corrupt
from sojourn.stores.postgres import rows
from sojourn.stores.postgres.restoring import STAGING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Header
    from sojourn.store import Delete, Due
    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Pool
    from sojourn.stores.postgres.reader import Reader

log = logging.getLogger("sojourn")

FORGOTTEN_AT_ONCE = 1_000
"""Sessions of a user that are removed in one transaction: it has to end within its time."""

_DELETE = "SELECT {s}.delete_1($1, $2, $3, $4, $5, $6, $7, $8)"
_FORGET = "SELECT {s}.forget_1($1, $2, $3, $4, $5, $6)"
_REAP = "SELECT {s}.reap_1($1, $2, $3, $4, $5)"
_FORGET_RESULT = "DELETE FROM {s}.operations WHERE op = $1"
_DUE = f"SELECT {rows.SESSION} FROM {{s}}.due_1($1, $2, $3, $4)"

_ids = msgspec.json.Decoder(list[str])


class Removal:
    """Removals from one store."""

    def __init__(self, address: Address, pool: Pool, reader: Reader) -> None:
        """`pool` is where the calls are made."""
        self._pool = pool
        self._reader = reader
        self._relaxed = address.durability == "relaxed"

    async def delete(self, delete: Delete) -> bool:
        """Remove a session; see `Store.delete`."""
        expected = (delete.epoch, delete.revision, delete.fence)
        answer = await self._once(_DELETE, self._relaxed, STAGING, delete.app, delete.id, *expected)
        return answer == "yes"

    async def forget(self, app: str, user: str) -> int:
        """Remove a user's sessions and tier; see `Store.forget`."""
        total = 0
        while True:
            found = int(
                await self._once(_FORGET, self._relaxed, STAGING, app, user, FORGOTTEN_AT_ONCE)
            )
            total += found
            if found < FORGOTTEN_AT_ONCE:
                return total

    async def reap(self, due: Due) -> Sequence[str]:
        """Remove due sessions; see `Store.reap`."""
        named = secrets.token_bytes(16)
        values = (due.app, STAGING, due.now, due.limit)
        ids = _ids.decode(await self._once(_REAP, *values, named=named))
        if ids:
            # What was removed is named in the result, and nothing must be left of it.
            await self._pool.run(lambda db: db.execute(self._reader.sql(_FORGET_RESULT), named))
        return ids

    async def due(self, due: Due) -> list[Header]:
        """Return due sessions; see `Store.due`."""
        values = (due.app, STAGING, due.now, due.limit)
        read = await self._pool.run(lambda db: db.fetch(self._reader.sql(_DUE), *values))
        found: list[Header] = []
        for row in read:
            try:
                found.append(rows.to_header(row))
            except Corrupt:  # it must not keep the others from being ended
                log.exception("a session that is due can not be read")
        return found

    async def _once(self, statement: str, *values: Any, named: bytes | None = None) -> str:
        """Return the result of a call that must be made only once."""
        named = secrets.token_bytes(16) if named is None else named
        text: str = await self._pool.run(
            lambda db: db.fetchval(self._reader.sql(statement), named, *values)
        )
        return text

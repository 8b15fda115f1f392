"""The schema's versions, and how an older one becomes a newer one while others use it.

Functions carry the number of the version that they came with. A later version adds its own and
leaves those of the one before, so that processes of both can run side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from sojourn.errors import Corrupt, ForeignFile, NewerSchema, Unavailable
from sojourn.stores.postgres.pool import SEARCH_PATH
from sojourn.stores.postgres.removing import FUNCTIONS
from sojourn.stores.postgres.tables import TABLES
from sojourn.stores.postgres.writing import NOTIFY, WRITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.postgres.address import Address
    from sojourn.stores.postgres.pool import Connection

MIGRATIONS: Sequence[str] = (TABLES + NOTIFY + WRITE + FUNCTIONS,)
"""Scripts in order: number n turns a schema of version n into one of version n + 1."""

LOCK = 0x534A524E
"""'SJRN': the advisory lock that is held while a schema is made or brought up to date."""

OLDEST = 130_000
"""The oldest server that this was made for: PostgreSQL 13."""

_VERSION_TABLE = """CREATE TABLE {s}.schema_version(
    one boolean PRIMARY KEY DEFAULT true CHECK (one), number integer NOT NULL)"""
_TABLES = """SELECT count(*), count(*) FILTER (WHERE c.relname = 'schema_version')
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1"""


def channel(address: Address) -> str:
    """Return the channel on which changes are announced."""
    return f"sojourn:{address.schema}"


def sql(text: str, address: Address) -> str:
    """Return a statement with the names of this place filled in."""
    named = text.replace("{s}", f'"{address.schema}"').replace("{channel}", channel(address))
    return named.replace("{path}", SEARCH_PATH)


async def migrate(db: Connection, address: Address, migrations: Sequence[str] = MIGRATIONS) -> int:
    """Bring the schema to the newest version, or make it; return how many steps that took.

    All in one transaction, by one process at a time. Raises `NewerSchema` for one of a later
    version, `ForeignFile` for one that is not Sojourn's; neither is changed.
    """
    await check_server(db, address)
    if await version_of(db, address, migrations) == len(migrations):
        return 0
    async with db.transaction():
        await db.execute(SEARCH_PATH.replace("SET", "SET LOCAL"))  # not said behind a pooler
        await db.execute(f"SELECT pg_advisory_xact_lock({LOCK}, hashtext($1))", address.schema)
        version = await version_of(db, address, migrations)
        if version == 0:
            await _begin(db, address)
        for number in range(version, len(migrations)):
            await db.execute(sql(migrations[number], address))
        await db.execute(sql("UPDATE {s}.schema_version SET number = $1", address), len(migrations))
    return len(migrations) - version


async def _begin(db: Connection, address: Address) -> None:
    exists = await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", address.schema
    )
    if not exists:
        try:
            await db.execute(sql("CREATE SCHEMA {s}", address))
        except asyncpg.InsufficientPrivilegeError as error:
            reason = f"may not make the schema {address.schema!r}; have its owner do it"
            raise Unavailable(address.shown, reason) from error
    await db.execute(sql(_VERSION_TABLE, address))
    await db.execute(sql("INSERT INTO {s}.schema_version(number) VALUES (0)", address))


async def version_of(
    db: Connection, address: Address, migrations: Sequence[str] = MIGRATIONS
) -> int:
    """Return the version of the schema, 0 if there is nothing. Raises as `migrate` does."""
    tables, ours = await db.fetchrow(_TABLES, address.schema)
    if not tables:
        return 0
    if not ours:
        reason = f"the schema {address.schema!r} has tables, and not Sojourn's; name another"
        raise ForeignFile(address.shown, reason)
    version = await db.fetchval(sql("SELECT number FROM {s}.schema_version", address))
    if version is None or version < 1:
        raise Corrupt(address.shown, f"its schema has version {version}, which no Sojourn wrote")
    if version > len(migrations):
        reason = (
            f"its schema has version {version}, this Sojourn knows up to {len(migrations)}; "
            "upgrade Sojourn to open it"
        )
        raise NewerSchema(address.shown, reason)
    return int(version)


async def check_server(db: Connection, address: Address) -> None:
    """Raise `Unavailable` for a server that can not keep what is given to it."""
    encoding = await db.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        reason = f"its database is encoded in {encoding}; make one with ENCODING 'UTF8'"
        raise Unavailable(address.shown, reason)
    number = int(await db.fetchval("SHOW server_version_num"))
    if number < OLDEST:
        reason = f"PostgreSQL {number // 10_000} is too old; 13 is the oldest that works"
        raise Unavailable(address.shown, reason)


async def drop(db: Connection, address: Address) -> None:
    """Remove the schema, with all that is in it."""
    await db.execute(sql("DROP SCHEMA IF EXISTS {s} CASCADE", address))

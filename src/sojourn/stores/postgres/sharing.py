"""Taking out and putting back what sessions share: tiers of users and apps, documents of apps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn import restoring
from sojourn.errors import InvalidCursor, TooLarge
from sojourn.limits import DUMP_BYTES, MAX_STATE
from sojourn.store import Shared, Tier
from sojourn.stores.postgres import rows
from sojourn.stores.postgres.durability import chosen
from sojourn.stores.postgres.restoring import KEEP_DOCUMENT, REPLACE_DOCUMENT, document_values

if TYPE_CHECKING:
    from sojourn.model import StoredDocument
    from sojourn.store import RestoreShared
    from sojourn.stores.postgres.pool import Connection
    from sojourn.stores.postgres.reader import Reader

OWNERS_AT_ONCE = 256
"""Tiers that are read together: each may be large."""

DOCUMENTS_AT_ONCE = 1_000
"""Documents in one page."""

OVERHEAD = 256
"""About how many bytes a document takes beside its body; see `restoring.item_weight`."""

_OWNERS = """SELECT DISTINCT t.owner FROM {s}.tiers AS t WHERE t.app = $1 AND t.owner > $2
    ORDER BY t.owner LIMIT $3"""
_FIRST = _OWNERS.replace("t.owner > $2", "t.owner >= $2")
_DOCUMENTS = f"""SELECT {rows.of("d", rows.DOCUMENT)}, d.body FROM (
        SELECT o.*, sum(o.size + {OVERHEAD}) OVER (ORDER BY o.collection, o.row) - o.size AS before
        FROM {{s}}.documents AS o WHERE o.session = (SELECT a.row FROM {{s}}.apps AS a
            WHERE a.app = $1)
        AND (o.collection, o.row) > ($2, $3) AND (o.expires_at IS NULL OR o.expires_at > $4)
        ORDER BY o.collection, o.row LIMIT $5) AS d
    WHERE d.before <= $6 ORDER BY d.collection, d.row"""
_LOCK = f"""INSERT INTO {{s}}.apps(app, row) VALUES ($1, nextval('{{s}}.row_numbers'))
    ON CONFLICT (app) DO UPDATE SET row = apps.row RETURNING row, {chosen("$2")}"""
_TIER = """INSERT INTO {s}.tiers(app, owner, digest, name, value)
    SELECT $1, $2, t.* FROM unnest($3::bytea[], $4::text[], $5::text[]) AS t ORDER BY 3
    ON CONFLICT DO NOTHING"""
_SIZES = (
    "SELECT t.name, octet_length(t.value) FROM {s}.tiers AS t WHERE t.app = $1 AND t.owner = $2"
)
_CLEAR = "DELETE FROM {s}.tiers WHERE app = $1 AND owner = $2"


async def page(reader: Reader, db: Connection, app: str, now: int, position: str | None) -> Shared:
    """Return a page of what sessions share; see `SupportsTransfer.shared`."""
    kind, _, rest = (position or "t:").partition(":")
    if kind not in ("t", "d"):
        raise _nowhere()
    tiers: list[Tier] = []
    size = 0
    if kind == "t":
        statement = _FIRST if position is None else _OWNERS
        read = await db.fetch(reader.sql(statement), app, rest, OWNERS_AT_ONCE)
        owners = [owner for (owner,) in read]
        found = await reader.tiers_of(db, app, owners)
        for owner in owners:
            state = found.get(owner, {})
            tiers.append(Tier(user=owner or None, state=state))
            size += restoring.tier_weight(state)
            if size > DUMP_BYTES:
                return Shared([*tiers], f"t:{owner}")
        if len(owners) == OWNERS_AT_ONCE:
            return Shared([*tiers], f"t:{owners[-1]}")
        rest = "0:"
    documents, where = await _documents(reader, db, (app, now), rest, DUMP_BYTES - size)
    return Shared([*tiers, *documents], where)


async def _documents(
    reader: Reader, db: Connection, of: tuple[str, int], rest: str, room: int
) -> tuple[list[StoredDocument], str | None]:
    """Return an app's documents, about so many bytes, and where they go on if they do."""
    number, _, collection = rest.partition(":")
    if not number.isdecimal():
        raise _nowhere()
    app, now = of
    bindings = (app, collection, int(number), now, DOCUMENTS_AT_ONCE, max(room, OVERHEAD))
    found = await db.fetch(reader.sql(_DOCUMENTS), *bindings)
    documents = [rows.to_document(row) for row in found]
    size = sum(document.size + OVERHEAD for document in documents)
    if size + OVERHEAD <= room and len(documents) < DOCUMENTS_AT_ONCE:
        return documents, None
    if not documents:
        return [], None
    return documents, f"d:{documents[-1].number}:{documents[-1].collection}"


async def restore(reader: Reader, db: Connection, given: RestoreShared, *, relaxed: bool) -> None:
    """Put tiers and documents; see `SupportsTransfer.restore_shared`.

    `relaxed` is what holds where nothing is asked for.
    """
    if given.durability is not None:
        relaxed = given.durability == "relaxed"
    async with db.transaction():
        owner_row, _ = await db.fetchrow(reader.sql(_LOCK), given.app, relaxed)
        for item in given.items:
            if isinstance(item, Tier):
                await _restore_tier(reader, db, given, item)
                continue
            statement = REPLACE_DOCUMENT if given.replace else KEEP_DOCUMENT
            values = document_values(owner_row, given.app, item)
            await db.execute(reader.sql(statement), *values)


async def _restore_tier(reader: Reader, db: Connection, given: RestoreShared, tier: Tier) -> None:
    """Put a tier. Raises `TooLarge` if it would be larger than `MAX_STATE`."""
    owner = rows.owner_of(tier.user)
    if given.replace:
        await db.execute(reader.sql(_CLEAR), given.app, owner)
    there = await db.fetch(reader.sql(_SIZES), given.app, owner)
    sizes = {rows.unescaped(name): len(name) + size for name, size in there}
    added = {name: value for name, value in tier.state.items() if name not in sizes}
    total = sum(sizes.values()) + restoring.tier_weight(added)
    if total > MAX_STATE:
        raise TooLarge("bytes of state in one tier", total, MAX_STATE)
    keys: list[tuple[Any, ...]] = []
    for name, value in added.items():
        plain = rows.escaped(name)
        keys.append((rows.digest(plain), plain, bytes(value).decode()))
    if keys:
        columns = map(list, zip(*keys, strict=True))
        await db.execute(reader.sql(_TIER), given.app, owner, *columns)


def _nowhere() -> InvalidCursor:
    return InvalidCursor("its position is not one of this store's")

"""A PostgreSQL store keeps what it promises, whatever its database or its role has as default."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from tests.servers.pgbouncer import PgBouncer

from sojourn import Event, Reaper, SessionManager, Unavailable, open_store
from sojourn.stores.postgres.schema import LOCK, sql
from sojourn.stores.postgres.writing import LAST
from sojourn.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.postgres import PostgresServer

DATABASE = "defaults"


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Callable[[str, str], None]]:
    """An empty database; called, it gives it a default for those who connect from now on."""

    async def told(*statements: str) -> None:
        db = await asyncpg.connect(postgres.url())
        for statement in statements:
            await db.execute(statement)
        await db.close()

    drop = f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"
    asyncio.run(told(drop, f"CREATE DATABASE {DATABASE}"))
    yield lambda name, value: asyncio.run(told(f"ALTER DATABASE {DATABASE} SET {name} = '{value}'"))
    asyncio.run(told(drop))


def url_of(server: PostgresServer | PgBouncer, **options: object) -> str:
    """Return the URL of a store in the database with the defaults."""
    return server.url(**options).replace("/postgres", f"/{DATABASE}")


async def connected(postgres: PostgresServer) -> Any:
    """Return a plain connection to that database."""
    return await asyncpg.connect(postgres.url().replace("/postgres", f"/{DATABASE}"))


async def until_some_wait(db: Any, number: int) -> None:
    """Return once so many connections wait for an advisory lock."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(60):
        while await db.fetchval(query) < number:
            pass


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("pooler", [False, True])
def test_many_that_start_at_once_make_the_schema_once(
    postgres: PostgresServer, database: Callable[[str, str], None], level: str, *, pooler: bool
) -> None:
    """Those that wait for the one that makes it have to see it once they go on."""
    database("default_transaction_isolation", level)
    if not pooler:
        asyncio.run(start_together(postgres, url_of(postgres, schema="made", timeout=60)))
        return
    with PgBouncer(postgres, "transaction") as bouncer:
        url = url_of(bouncer, schema="made", timeout=60, pooler="transaction")
        asyncio.run(start_together(postgres, url))


async def start_together(postgres: PostgresServer, url: str) -> None:
    db = await connected(postgres)
    stores = [open_store(url) for _ in range(3)]
    async with db.transaction():
        await db.execute(f"SELECT pg_advisory_xact_lock({LOCK}, hashtext('made'))")
        opening = [asyncio.ensure_future(store.open()) for store in stores]
        await until_some_wait(db, len(stores))
    await asyncio.gather(*opening)
    await db.close()
    await write_together(url)
    for store in stores:
        await store.close()


async def write_together(url: str) -> None:
    """Many who write the same session get through, as they do under the usual default."""
    async with SessionManager.open(url) as here, SessionManager.open(url) as there:
        await here.create(id="s")
        several = [each.append("s", Event(kind="n")) for each in (here, there) for _ in range(10)]
        await asyncio.gather(*several)
        assert [event.seq for event in await here.events("s")] == list(range(1, 21))


# --- durable, and relaxed -----------------------------------------------------------------------

SPY = """
CREATE TABLE public.told(named text, setting text);
CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN
    INSERT INTO public.told VALUES (TG_TABLE_NAME, current_setting('synchronous_commit'));
    RETURN NULL;
END $body$;
"""
"""Notes what each transaction is committed with."""

WATCHED = ("apps", "documents", "events", "operations", "sessions", "tiers", "writers")


@pytest.mark.parametrize("durability", ["durable", "relaxed"])
@pytest.mark.parametrize("default", ["off", "local", "remote_write", "on", "remote_apply"])
def test_every_write_is_acknowledged_as_it_was_asked_for(
    postgres: PostgresServer, database: Callable[[str, str], None], default: str, durability: str
) -> None:
    database("synchronous_commit", default)
    url = url_of(postgres, durability=durability)
    found = asyncio.run(committed_with(postgres, url))
    wanted = "off" if durability == "relaxed" else "on"
    if (default, wanted) == ("remote_apply", "on"):
        wanted = "remote_apply"  # which is more than is asked for
    assert {name for name, _ in found} == set(WATCHED)
    assert {setting for _, setting in found} == {wanted}, found


async def committed_with(postgres: PostgresServer, url: str) -> set[tuple[str, str]]:
    """Make all kinds of writes; return what each table was committed with."""
    async with SessionManager.open(url) as sessions:
        db = await connected(postgres)
        await db.execute(SPY)
        for table in WATCHED:
            await db.execute(
                f"""CREATE CONSTRAINT TRIGGER tell AFTER INSERT OR UPDATE ON sojourn.{table}
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.tell()"""
            )
        session = await sessions.create(id="s", user="u", state={"user:x": 1, "app:y": 1})
        session.state["n"] = 1
        await sessions.save(session)  # alone
        await asyncio.gather(*(sessions.append("s", Event(kind="n")) for _ in range(9)))
        await sessions.documents("s").put("c", "k", b"x")
        await put_elsewhere(url)
        await sessions.delete("s")
        await sessions.forget("u")
        if "relaxed" not in url:  # what was written is told only once that is durable
            await db.fetch(sql(LAST, open_store(url)._address), b"somebody")  # type: ignore[attr-defined]  # its own
        found = {(name, value) for name, value in await db.fetch("SELECT * FROM public.told")}
        await db.close()
    return found


async def put_elsewhere(url: str) -> None:
    """Put sessions and what they share from another store."""
    source, target = open_store("memory://"), open_store(url)
    for store in (source, target):
        await store.open()
    sessions = SessionManager(source, app="other")
    await sessions.create(id="s", user="u", state={"user:x": 1, "app:y": 1})
    await sessions.documents().put("c", "k", b"x")
    copied = await copy(source, target)
    assert copied.put == 1
    for store in (source, target):
        await store.close()


# --- functions of somebody else -----------------------------------------------------------------

TRAPS = """
CREATE FUNCTION public.trap() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN
    RAISE EXCEPTION 'trapped';
END $body$;
CREATE FUNCTION public.cardinality(int[]) RETURNS int LANGUAGE sql AS 'SELECT public.trap()';
CREATE FUNCTION public.coalesce_of(bigint[], bigint[]) RETURNS bigint[]
    LANGUAGE sql AS 'SELECT ARRAY[public.trap()::bigint]';
CREATE OPERATOR public.|| (
    LEFTARG = bigint[], RIGHTARG = bigint[], FUNCTION = public.coalesce_of);
CREATE FUNCTION public.unnest(bigint[]) RETURNS SETOF bigint
    LANGUAGE sql AS 'SELECT public.trap()::bigint';
CREATE FUNCTION public.array_position(text[], text) RETURNS int
    LANGUAGE sql AS 'SELECT public.trap()';
CREATE FUNCTION public.to_timestamp(numeric) RETURNS timestamptz
    LANGUAGE sql AS 'SELECT now() + make_interval(public.trap())';
CREATE FUNCTION public.step(text[], text) RETURNS text[]
    LANGUAGE sql AS 'SELECT ARRAY[public.trap()::text]';
CREATE AGGREGATE public.array_agg(text) (SFUNC = public.step, STYPE = text[]);
"""
"""Each fits better than the server's own, which takes arrays of any type."""

READS_TRAPPED = """
DROP AGGREGATE public.array_agg(text);
DROP FUNCTION public.unnest(bigint[]);
"""
"""Ends those that statements outside of functions meet."""


@pytest.mark.parametrize("pooler", [False, True])
def test_functions_of_somebody_else_are_never_called(
    postgres: PostgresServer, database: Callable[[str, str], None], *, pooler: bool
) -> None:
    """Behind a transaction pooler that holds for what runs in functions."""

    async def trap(*more: str) -> None:
        db = await connected(postgres)
        for statements in more:
            await db.execute(statements)
        await db.close()

    asyncio.run(trap(TRAPS))
    if not pooler:
        database("search_path", "public, pg_catalog")
        asyncio.run(exercised(url_of(postgres)))
    else:
        asyncio.run(trap("DROP AGGREGATE public.array_agg(text)", "DROP FUNCTION unnest(bigint[])"))
        with PgBouncer(postgres, "transaction") as bouncer:
            asyncio.run(exercised(url_of(bouncer, pooler="transaction")))
    asyncio.run(look(postgres))


async def exercised(url: str) -> None:
    """Make all kinds of calls."""
    async with SessionManager.open(url) as sessions:
        for id in ("s", "t"):
            await sessions.create(
                id=id, user="u", labels={"l": id}, exclusive=("l",), state={"user:x": 1}
            )
        several = [sessions.append(id, Event(kind="n")) for id in ("s", "t") for _ in range(5)]
        await asyncio.gather(*several)
        await sessions.share({"user:x": None, "user:y": 2}, user="u")
        await sessions.fork("s", new_id="copy")
        assert len((await sessions.require("s", events=3)).events) == 3
        assert len((await sessions.list(user="u", labels={"l": "s"})).items) == 2
        await put_elsewhere(url)
        assert await Reaper(sessions).sweep() == 0
        assert await sessions.end("t")
        assert await sessions.delete("s")
        await sessions.forget("u")
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can


async def look(postgres: PostgresServer) -> None:
    """Look into the views, and at what the functions say."""
    db = await connected(postgres)
    await db.fetch("SELECT * FROM sojourn.session_overview, sojourn.event_overview")
    settings = await db.fetch(
        """SELECT p.proname, p.proconfig FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'sojourn'"""
    )
    assert len(settings) > 5
    for name, said in settings:
        assert "search_path=pg_catalog, pg_temp" in (said or ()), name
    await db.close()


async def test_what_takes_the_server_too_long_fails_alone(
    postgres: PostgresServer, database: Callable[[str, str], None]
) -> None:
    """By a `statement_timeout`: it is tried once more, and then no longer in others' way."""
    async with SessionManager.open(url_of(postgres)) as sessions:
        for id in ("a", "b", "c"):
            await sessions.create(id=id)
    await asyncio.to_thread(database, "statement_timeout", "200ms")
    db = await connected(postgres)
    async with SessionManager.open(url_of(postgres)) as sessions, db.transaction():
        await db.execute("SELECT FROM sojourn.sessions WHERE id = 'b' FOR UPDATE")
        appends = (sessions.append(id, Event(kind="n")) for id in ("a", "b", "c"))
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert [isinstance(one, Unavailable) for one in outcomes] == [False, True, False]
        assert "statement timeout" in str(outcomes[1])
        assert [len(await sessions.events(id)) for id in ("a", "b", "c")] == [1, 0, 1]
    await db.close()


async def test_a_check_that_takes_the_server_too_long_is_not_made_for_ever(
    postgres: PostgresServer, database: Callable[[str, str], None]
) -> None:
    async with SessionManager.open(url_of(postgres)) as sessions:
        await sessions.create()
    await asyncio.to_thread(database, "statement_timeout", "200ms")
    db = await connected(postgres)
    async with SessionManager.open(url_of(postgres)) as sessions, db.transaction():
        await db.execute("LOCK TABLE sojourn.counts IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="statement timeout"):
            await sessions.store.check()  # type: ignore[attr-defined]  # it can
    await db.close()

"""The PostgreSQL store: its URL, its schema, its secrets, who hears of what, what may go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from tests.servers.ending import end_amid_a_write
from tests.servers.postgres import emptied

from sojourn import (
    Event,
    ForeignFile,
    InvalidQuery,
    NewerSchema,
    SessionManager,
    Unavailable,
    open_store,
)
from sojourn.model import Draft
from sojourn.store import (
    Acquire,
    Change,
    Query,
    Renew,
    SupportsLease,
    SupportsTransfer,
    SupportsWatch,
)
from sojourn.stores import OPTIONS
from sojourn.stores.postgres import listing, schema
from sojourn.stores.postgres.address import parse
from sojourn.stores.postgres.writing import ABSENT, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers.postgres import PostgresServer


PAGE = Path(__file__).resolve().parents[2] / "docs" / "postgres.md"


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """The URL of an empty store."""
    asyncio.run(emptied(postgres.url(schema="tests")))
    return postgres.url(schema="tests")


async def connected(url: str) -> Any:
    """Return a plain connection to the server of a URL."""
    return await asyncpg.connect(**open_store(url)._address.arguments())  # type: ignore[attr-defined]  # its own


# --- the URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("scheme=x", "unknown option 'scheme'"),
        ("timeout=0", "seconds above 0"),
        ("timeout=nan", "seconds above 0"),
        ("timeout=soon", "seconds above 0"),
        ("pool_size=0", "from 1 to 100"),
        ("pool_size=-1", "from 1 to 100"),
        ("durability=perhaps", "'durable' or 'relaxed'"),
        ("pooler=statement", "'session' or 'transaction'"),
        ("schema=a;b", "letters, digits"),
        ("schema=1a", "letters, digits"),
        ("host=", "write host"),
        ("host=a:b", "write host"),
        ("schema=a&schema=b", "twice"),
    ],
)
def test_options_that_make_no_sense_are_refused(query: str, reason: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        open_store(f"postgresql://u:hush@host/db?{query}")
    assert reason in str(caught.value)
    assert "hush" not in str(caught.value)


def test_the_known_options_are_listed() -> None:
    with pytest.raises(InvalidQuery, match="pool_size"):
        open_store("postgresql://host/db?size=3")


def test_both_schemes_and_all_parts_are_understood() -> None:
    for scheme in ("postgres", "postgresql"):
        url = f"{scheme}://ann%40x:p%3Aw@one:1,[::1]:2/my%20db?timeout=3&pool_size=7&schema=s"
        address = open_store(url)._address  # type: ignore[attr-defined]  # its own
        assert (address.user, address.password) == ("ann@x", "p:w")
        assert (address.hosts, address.ports) == (("one", "::1"), (1, 2))
        assert (address.database, address.timeout) == ("my db", 3.0)
        assert (address.pool_size, address.schema) == (7, "s")
    assert parse("", "/db", {"host": "/run/pg"}).hosts == ("/run/pg",)
    assert parse("", "", {}).arguments().keys() == {"server_settings", "target_session_attrs"}


async def test_the_password_may_come_from_the_environment(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = postgres.url(schema="tests").replace(f":{postgres.password}@", "@")
    store = open_store(bare)
    with pytest.raises(Unavailable):
        await store.open()
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    store = open_store(bare)
    await store.open()
    await store.close()


async def test_no_secret_is_shown(postgres: PostgresServer) -> None:
    wrong = postgres.url(schema="tests").replace(postgres.password, "s3cret-pass")
    store = open_store(wrong)
    with pytest.raises(Unavailable) as caught:
        await store.open()
    address = store._address  # type: ignore[attr-defined]  # its own
    shown = [str(caught.value), repr(caught.value), repr(store), repr(address), store.name]
    assert not [text for text in shown if "s3cret" in text]
    assert caught.value.__cause__ is not None


async def test_nobody_there_is_told_at_once(postgres: PostgresServer) -> None:
    store = open_store("postgresql://u@127.0.0.1:1/db?timeout=60")
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable) as caught:
            await store.open()
    assert isinstance(caught.value.__cause__, OSError)


def test_it_has_the_abilities() -> None:
    store = open_store("postgresql://host/db")
    for ability in (SupportsWatch, SupportsLease, SupportsTransfer):
        assert isinstance(store, ability)


# --- the schema ---------------------------------------------------------------------------------


async def drop(url: str) -> None:
    db = await connected(url)
    address = open_store(url)._address  # type: ignore[attr-defined]  # its own
    await db.execute(f'DROP SCHEMA IF EXISTS "{address.schema}" CASCADE')
    await db.close()


async def test_many_open_a_new_place_at_once(postgres: PostgresServer) -> None:
    url = postgres.url(schema="crowd")
    await drop(url)
    stores = [open_store(url) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await stores[0].count(Query(app="a", now=0)) == 0
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_newer_schema_is_refused_and_left_alone(postgres: PostgresServer) -> None:
    url = postgres.url(schema="newer")
    await drop(url)
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s")
    db = await connected(url)
    await db.execute("UPDATE newer.schema_version SET number = number + 1")
    with pytest.raises(NewerSchema, match="upgrade Sojourn"):
        await open_store(url).open()
    assert await db.fetchval("SELECT count(*) FROM newer.sessions") == 1
    await db.close()


async def test_a_schema_of_others_is_refused_and_left_alone(postgres: PostgresServer) -> None:
    url = postgres.url(schema="foreign_one")
    await drop(url)
    db = await connected(url)
    await db.execute("CREATE SCHEMA foreign_one CREATE TABLE t(a int)")
    with pytest.raises(ForeignFile):
        await open_store(url).open()
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'foreign_one'"
    assert await db.fetchval(tables) == 1
    await db.close()


async def test_old_and_new_processes_work_side_by_side(postgres: PostgresServer) -> None:
    """A later version adds; a process of this one that is running goes on."""
    url = postgres.url(schema="growing")
    await drop(url)
    async with SessionManager.open(url) as sessions:
        session = await sessions.create(id="s")
        later = [*schema.MIGRATIONS, "ALTER TABLE {s}.sessions ADD COLUMN mood text"]
        address = sessions.store._address  # type: ignore[attr-defined]  # its own
        db = await connected(url)
        writing = asyncio.gather(
            *(sessions.append(session, Event(kind="n", body=number)) for number in range(50))
        )
        steps = await asyncio.gather(
            schema.migrate(db, address, later),
            schema.migrate(other := await connected(url), address, later),
        )
        assert sorted(steps) == [0, 1]
        await writing
        await sessions.create(id="another")
        assert len(await sessions.events("s")) == 50
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can
        await db.close()
        await other.close()


async def test_a_step_that_fails_leaves_the_version_before_it(postgres: PostgresServer) -> None:
    url = postgres.url(schema="failing")
    await drop(url)
    async with SessionManager.open(url) as sessions:
        address = sessions.store._address  # type: ignore[attr-defined]  # its own
        db = await connected(url)
        with pytest.raises(asyncpg.PostgresError):
            await schema.migrate(db, address, [*schema.MIGRATIONS, "CREATE TABLE {s}.x(); oops"])
        assert await schema.version_of(db, address) == len(schema.MIGRATIONS)
        await db.close()
        await sessions.create()


async def test_what_is_kept_can_be_read_by_people(url: str) -> None:
    async with SessionManager.open(url) as sessions:
        session = await sessions.create(id="s", state={"cart": ["tea"]})
        await sessions.append(session, Event(kind="note", body={"text": "hi"}))
        db = await connected(url)
        row = await db.fetchrow("SELECT * FROM tests.session_overview")
        assert (row["id"], row["state"]) == ("s", '{"cart":["tea"]}')
        row = await db.fetchrow("SELECT * FROM tests.event_overview")
        assert (row["session"], row["body"]) == ("s", '{"text":"hi"}')
        await db.close()


# --- who hears of what --------------------------------------------------------------------------


@pytest.mark.parametrize("pooler", ["session", "transaction"])
async def test_what_another_store_writes_wakes_a_watcher(url: str, pooler: str) -> None:
    async with (
        SessionManager.open(f"{url}&pooler={pooler}") as here,
        SessionManager.open(url) as there,
    ):
        session = await there.create(id="s")
        seen: asyncio.Queue[Any] = asyncio.Queue()

        async def watch() -> None:
            async for event in here.watch("s"):
                seen.put_nowait(event.body)

        task = asyncio.ensure_future(watch())
        for number in range(20):
            await there.append(session, Event(kind="n", body=number))
            assert await seen.get() == number
        await there.delete("s")
        await task


async def test_announcements_come_before_the_poll(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the poll out of the way, LISTEN alone wakes the watcher."""
    monkeypatch.setattr("sojourn.stores.postgres.watch.POLL_SECONDS", 3600.0)
    monkeypatch.setattr("sojourn.stores.postgres.watch.LISTENING_SECONDS", 3600)
    async with SessionManager.open(url) as here, SessionManager.open(url) as there:
        session = await there.create(id="s")
        subscription = here.store.subscribe("default", "s")  # type: ignore[attr-defined]  # it can
        db = await connected(url)
        while not await db.fetchval("SELECT count(*) FROM tests.listeners"):  # noqa: ASYNC110 - another process's table
            await asyncio.sleep(0)
        await db.close()
        await subscription.wait(60)  # said once by whoever begins to listen
        await there.append(session, Event(kind="n"))
        async with asyncio.timeout(30):
            await subscription.wait(60)
        subscription.close()


async def test_nobody_announces_while_nobody_watches(url: str) -> None:
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s")
        db = await connected(url)
        heard: list[Any] = []
        await db.add_listener("sojourn:tests", lambda *call: heard.append(call))
        await sessions.append(await sessions.require("s"), Event(kind="n"))
        await db.fetchval("SELECT 1")
        assert not heard
        await db.close()


# --- behind a transaction pooler ----------------------------------------------------------------


async def test_behind_a_pooler_every_statement_is_in_a_transaction(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside: list[str] = []
    plain = asyncpg.Connection._do_execute  # type: ignore[attr-defined]  # what all calls go through

    async def watched(self: Any, query: str, *rest: Any, **more: Any) -> Any:
        if not self.is_in_transaction():
            outside.append(query)
        return await plain(self, query, *rest, **more)

    monkeypatch.setattr(asyncpg.Connection, "_do_execute", watched)
    async with SessionManager.open(f"{url}&pooler=transaction") as sessions:
        session = await sessions.create(id="s", user="u", state={"a": 1, "user:b": 2})
        await sessions.append(session, Event(kind="n"))
        assert (await sessions.require("s", user="u")).state["user:b"] == 2
        assert [item.id for item in (await sessions.list(user="u")).items] == ["s"]
        assert await sessions.count() == 1
        await sessions.forget("u")
    assert outside == []


# --- writes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["a\x00b", f"a{SEPARATOR}b", ABSENT])
async def test_what_the_server_does_not_take_fails_alone(url: str, bad: str) -> None:
    """A value that PostgreSQL can not hold fails its own commit, and none of its batch.

    One that no list of a batch can hold (no manager lets it through) is written alone.
    """
    refused = "\x00" in bad
    async with SessionManager.open(url) as sessions:
        for id in ("a", "b", "c"):
            await sessions.create(id=id)
        changes = [
            Change(
                app="default",
                id=id,
                op=bytes([number]) * 8,
                now=1,
                events=(
                    Draft(id=f"e{number}", kind=kind, author=None, at=1, body="1", fresh=True),
                ),
            )
            for number, (id, kind) in enumerate((("a", "ok"), ("b", bad), ("c", "ok")))
        ]
        outcomes = await asyncio.gather(
            *map(sessions.store.commit, changes), return_exceptions=True
        )
        assert [isinstance(one, Unavailable) for one in outcomes] == [False, refused, False]
        kinds = [[event.kind for event in await sessions.events(id)] for id in ("a", "b", "c")]
        assert kinds == [["ok"], [] if refused else [bad], ["ok"]]


class Lost:
    """Loses the connection of a pool's next call, before it was committed or after.

    After it, `between` happens before the call is made again.
    """

    def __init__(self, pool: Any, when: str, between: Callable[[], Awaitable[None]]) -> None:
        self.calls = 2
        self._when = when
        self._between = between
        self._plain = pool._work

    def next(self) -> None:
        """Lose the next call."""
        self.calls = 0

    async def work(self, connection: Any, work: Any) -> Any:
        self.calls += 1
        if self.calls > 1:
            return await self._plain(connection, work)
        if self._when == "after":
            await self._plain(connection, work)
            await self._between()
        else:
            async with connection.transaction():
                await self._plain(connection, work)
                connection.terminate()
        raise ConnectionResetError


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", ["lone", "batch", "locked"])
async def test_a_call_that_is_made_again_is_applied_once(
    url: str, monkeypatch: pytest.MonkeyPatch, way: str, when: str
) -> None:
    """However many others wrote between the two: the server knows the call by its number."""
    if way == "locked":
        monkeypatch.setattr("sojourn.stores.postgres.writer.HOPEFUL_ROUNDS", 0)
    async with SessionManager.open(url) as sessions, SessionManager.open(url) as others:

        async def crowd() -> None:
            for number in range(33):  # more than a session remembers
                await others.append("s", Event(kind="other", body=number))

        session = await sessions.create(id="s", user="u", labels={"x": "y"})
        pool = sessions.store._writer._pool  # type: ignore[attr-defined]  # its own
        lost = Lost(pool, when, crowd)
        monkeypatch.setattr(pool, "_work", lost.work)
        new = [Event(kind="n", body=number) for number in range(2 if way == "batch" else 1)]
        lost.next()
        await sessions.append(session, *new, state={"user:k": 1})
        assert lost.calls == 2
        assert len(await sessions.events("s", kind="n")) == len(new)
        store = sessions.store
        assert isinstance(store, SupportsLease)
        lost.next()
        acquire = Acquire(app="default", id="s", holder="me", now=1, until=1 << 60)
        token = await store.acquire(acquire)
        lost.next()
        await store.renew(Renew(app="default", id="s", holder="me", now=1, until=None, token=token))
        assert lost.calls == 2
        assert await store.check() == []  # type: ignore[attr-defined]  # it can


@pytest.mark.parametrize("events", [1, 2])
async def test_a_call_that_was_given_up_and_comes_late_writes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    """Its caller was told that it may have been done, and has gone on: to something else."""
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s")
        await sessions.create(id="t")
        pool = sessions.store._writer._pool  # type: ignore[attr-defined]  # its own
        plain, held = pool._work, []

        async def hold(_connection: Any, work: Any) -> Any:
            held.append(work)
            raise Unavailable("the server", "it did not answer in time")

        monkeypatch.setattr(pool, "_work", hold)
        with pytest.raises(Unavailable):
            await sessions.append("s", *(Event(kind="n") for _ in range(events)))
        monkeypatch.setattr(pool, "_work", plain)
        await sessions.append("t", Event(kind="n"))
        db = await connected(url)
        with contextlib.suppress(Unavailable):
            await held[0](db)
        await db.close()
        assert await sessions.events("s") == []
        assert (await sessions.require("s")).revision == 1


async def test_synchronous_commit_follows_the_durability_asked_for(url: str) -> None:
    async with SessionManager.open(url) as sessions:
        session = await sessions.create(id="s")
        db = await connected(url)
        await db.execute(
            "CREATE TABLE IF NOT EXISTS tests.said(level text); CREATE OR REPLACE FUNCTION "
            "tests.say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO tests.said "
            "VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$; "
            "CREATE OR REPLACE TRIGGER say AFTER INSERT ON tests.events "
            "EXECUTE FUNCTION tests.say()"
        )
        try:
            await sessions.append(session, Event(kind="n"))
            await sessions.append(session, Event(kind="n"), durability="relaxed")
            await sessions.append(session, Event(kind="n"))
            said = [level for (level,) in await db.fetch("SELECT level FROM tests.said")]
            assert said == ["on", "off", "on"]
        finally:
            await db.execute("DROP TRIGGER say ON tests.events; DROP TABLE tests.said")
            await db.close()


async def test_a_busy_pool_says_so(url: str) -> None:
    async with SessionManager.open(f"{url}&pool_size=1&timeout=0.5") as sessions:
        db = await connected(url)
        async with db.transaction():
            await db.execute("LOCK TABLE tests.sessions IN ACCESS EXCLUSIVE MODE")
            outcomes = await asyncio.gather(
                *(sessions.get("s") for _ in range(3)), return_exceptions=True
            )
        assert all(isinstance(one, Unavailable) for one in outcomes)
        assert any("pool_size" in str(one) for one in outcomes)
        await db.close()
        assert await sessions.get("s") is None


async def test_cancelled_calls_leave_no_connection_behind(url: str) -> None:
    async with SessionManager.open(f"{url}&pool_size=3&timeout=30") as sessions:
        session = await sessions.create(id="s")
        for number in range(60):
            calls = [
                asyncio.ensure_future(sessions.get("s", events=5)),
                asyncio.ensure_future(sessions.list()),
                asyncio.ensure_future(sessions.append(session, Event(kind="n", body=number))),
            ]
            for _ in range(number % 7):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        found = await sessions.require("s")
        events = await sessions.events("s")
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert found.revision == len(events) + 1
        db = await connected(url)
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sojourn' "
            "AND query LIKE '%tests%'"
        )
        assert await db.fetchval(statement) <= 3 + 1 + 1
        await db.close()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(app="a", now=1), "activity_by_time"),
        (Query(app="a", now=1, order="created"), "session_by_creation"),
        (Query(app="a", now=1, user="u"), "activity_of_user"),
        (Query(app="a", now=1, anonymous=True), "activity_of_user"),
        (Query(app="a", now=1, user="u", order="-created"), "session_of_user"),
        (Query(app="a", now=1, labels={"x": "y"}), "label_by_activity"),
        (Query(app="a", now=1, labels={"x": "y"}, order="created"), "label_by_creation"),
        (Query(app="a", now=1, parent="p"), "session_by_parent"),
    ],
)
async def test_there_is_an_index_for_every_filter(url: str, query: Query, index: str) -> None:
    async with SessionManager.open(url) as sessions:
        reader = sessions.store._reader  # type: ignore[attr-defined]  # its own
        statement, bindings = listing._page_sql(query)
        assert statement is not None
        db = await connected(url)
        await db.execute("SET enable_seqscan = off; SET enable_sort = off")
        plan = await db.fetch(f"EXPLAIN {reader.sql(statement)}", *bindings)
        await db.close()
        assert any(index in line for (line,) in plan), "\n".join(line for (line,) in plan)


# --- what the documentation says ----------------------------------------------------------------


def documented(section: str) -> set[str]:
    """Return the names in the first column of a table of the page on PostgreSQL."""
    text = PAGE.read_text(encoding="utf-8")
    table = text.split(f"<!-- {section} -->")[1].split(f"<!-- /{section} -->")[0]
    rows = [line.split("|")[1] for line in table.strip().splitlines()[2:]]
    return {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}


def test_every_option_is_explained() -> None:
    assert documented("options") == set(OPTIONS["postgresql"])
    assert OPTIONS["postgres"] == OPTIONS["postgresql"]


async def test_every_table_is_explained(url: str) -> None:
    await (store := open_store(url)).open()
    await store.close()
    db = await connected(url)
    there = await db.fetch(
        "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace "
        "WHERE nspname = 'tests' AND relkind IN ('r', 'v')"
    )
    await db.close()
    assert documented("tables") == {name for (name,) in there}


async def test_the_statements_for_looking_into_it_work(url: str) -> None:
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s", user="u-1", state={"cart": ["tea"]})
    db = await connected(url)
    (block,) = re.findall(r"```postgresql\n(SELECT.*?)```", PAGE.read_text(), re.DOTALL)
    for statement in block.replace("sojourn.", "tests.").strip().split(";\n"):
        found = await db.fetch(statement.rstrip(";"))
        assert "event_overview" in statement or [row["id"] for row in found] == ["s"]
    await db.close()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_program_that_ends_amid_a_write_is_not_held_up(url: str, turns: int) -> None:
    """Whoever writes waits for the batch, and the batch was stopped before."""
    end_amid_a_write(url, turns)

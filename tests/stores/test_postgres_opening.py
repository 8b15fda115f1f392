"""`open_store("postgresql://…")`: what it takes, what it does when the server is not well."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import socket
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from traceback import TracebackException
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback
from tests.servers.postgres import PostgresServer, emptied, free_port
from tests.servers.proxy import Proxy

from sojourn import Event, Expiry, InvalidQuery, SessionManager, Unavailable, open_store
from sojourn.cli.program import run
from sojourn.stores import OPTIONS
from sojourn.stores.postgres import inspection
from sojourn.stores.postgres.pool import FIRST_PAUSE, LAST_PAUSE
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sojourn.stores.postgres.address import Address

SCHEMA = "opening"
SECRET = "s3cret-pass"


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """The URL of an empty store."""
    asyncio.run(emptied(postgres.url(schema=SCHEMA)))
    return postgres.url(schema=SCHEMA)


# --- what a URL says ----------------------------------------------------------------------------


def test_every_option_is_taken_and_used() -> None:
    given = {
        "application_name": "shop",
        "durability": "relaxed",
        "host": "/run/pg",
        "pool_size": "7",
        "pooler": "transaction",
        "port": "6000",
        "schema": "s",
        "sslmode": "require",
        "timeout": "2.5",
    }
    assert given.keys() | {"sslcert", "sslkey", "sslrootcert"} == set(OPTIONS["postgresql"])
    query = "&".join(f"{name}={value}" for name, value in given.items())
    address = open_store(f"postgresql:///db?{query}")._address  # type: ignore[attr-defined]  # its own
    assert (address.durability, address.pool_size, address.pooler) == ("relaxed", 7, True)
    assert (address.schema, address.timeout, address.hosts) == ("s", 2.5, ("/run/pg",))
    assert address.ports == (6000,)
    arguments = address.arguments()
    assert arguments["server_settings"] == {"application_name": "shop"}
    assert arguments["dsn"] == "postgresql://?sslmode=require"


@pytest.mark.parametrize("name", ["password", "user", "passfile", "sslpassword"])
def test_a_secret_is_no_option_and_is_not_repeated(name: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        open_store(f"postgresql://host/db?{name}=hush-hush")
    assert "known are: application_name, durability" in str(caught.value)
    assert "hush" not in repr(caught.value)


@pytest.mark.parametrize(
    ("rest", "variable", "wanted"),
    [
        ("one,two:2/db", "", [("one", 5432), ("two", 2)]),
        ("one,two:2/db", "7", [("one", 7), ("two", 2)]),
        ("one,two:2/db", "7,8", [("one", 7), ("two", 2)]),
        ("one,two:2/db?port=9", "7", [("one", 9), ("two", 9)]),
        ("one,two:2/db?port=,9", "", [("one", 5432), ("two", 9)]),
        ("one:1,two:2/db", "7,8,9", [("one", 1), ("two", 2)]),
        ("%2Fs:3,[::1]:4/db", "", [("/s", 3), ("::1", 4)]),
        ("/db?host=/s:3,/run", "7", [("/s", 3), ("/run", 7)]),
        ("/db?host=/a:b/c", "", [("/a:b/c", 5432)]),
        ("/db", "7", [None]),
    ],
)
def test_a_port_is_that_of_the_option_of_the_host_or_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, rest: str, variable: str, wanted: list[Any]
) -> None:
    monkeypatch.setenv("PGPORT", variable)
    monkeypatch.delenv("PGHOST", raising=False)
    assert address_of(f"postgresql://{rest}").places() == wanted


@pytest.mark.parametrize(
    ("rest", "variable", "reason"),
    [
        ("one,two/db?port=1,2,3", "", "the option 'port' takes a port from 1"),
        ("one/db?port=0", "", "the option 'port' takes a port from 1"),
        ("/db?port=x", "", "the option 'port' takes a port from 1"),
        ("one/db", "70000", "the variable PGPORT takes a port from 1"),
        ("one,two/db", "1,2,3", "the variable PGPORT takes a port from 1"),
        ("/db?host=/tmp:70000", "", "write host, host:port"),
        ("one:x/db", "", "write host, host:port"),
    ],
)
def test_what_is_no_port_is_refused(
    monkeypatch: pytest.MonkeyPatch, rest: str, variable: str, reason: str
) -> None:
    monkeypatch.setenv("PGPORT", variable)
    with pytest.raises(InvalidQuery, match=reason):
        open_store(f"postgresql://{rest}")


def test_hosts_of_the_environment_are_asked_one_by_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "one,/s")
    monkeypatch.setenv("PGPORT", "1,2")
    assert address_of("postgresql:///db").places() == [("one", 1), ("/s", 2)]
    assert open_store("postgresql://[::1]:4,[::2]/db?port=5").name == (
        "postgresql://[::1]:5,[::2]:5/db"
    )


def address_of(url: str) -> Address:
    """Return the place that a URL names."""
    return open_store(url)._address  # type: ignore[attr-defined,no-any-return]  # its own


@pytest.fixture
def socketed() -> Iterator[PostgresServer]:
    """A server with a socket, in a folder that everybody may look into."""
    folder = Path(tempfile.mkdtemp(prefix="sojourn-socket-"))
    folder.chmod(0o777)
    server = PostgresServer(settings={"unix_socket_directories": str(folder)})
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


async def test_a_socket_with_a_port_of_its_own_is_found(
    socketed: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, port = socketed._settings["unix_socket_directories"], socketed.port
    login = f"postgresql://tester:{socketed.password}@"
    for url in (
        f"{login}/postgres?host={folder}:{port}",
        f"{login}/postgres?host={folder}&port={port}",
        f"{login}{folder.replace('/', '%2F')}:{port}/postgres",
    ):
        await opened(url)
    monkeypatch.setenv("PGPORT", str(port))
    await opened(f"{login}/postgres?host={folder}")
    await opened(f"{login}127.0.0.1/postgres")
    monkeypatch.delenv("PGPORT")
    monkeypatch.setenv("PGHOST", folder)
    await opened(f"{login}/postgres?port={port}")


async def test_all_of_the_place_may_come_from_the_environment(
    postgres: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGUSER": "tester",
        "PGPASSWORD": postgres.password,
        "PGDATABASE": "postgres",
    }.items():
        monkeypatch.setenv(name, value)
    async with SessionManager.open(f"postgresql://?schema={SCHEMA}") as sessions:
        assert await sessions.count() == 0
        assert postgres.password not in f"{sessions.store!r} {sessions.store.name}"


@pytest.mark.parametrize("trouble", ["refused", "nobody", "silent", "nonsense"])
async def test_no_secret_is_in_a_traceback_with_locals(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Not as the standard library shows them, nor as rich does."""
    if trouble == "nonsense":
        monkeypatch.setenv("PGSSLMINPROTOCOLVERSION", "nonsense")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"nobody": free_port(), "silent": silent.getsockname()[1]}
        port = ports.get(trouble, postgres.port)
        store = open_store(f"postgresql://tester:{SECRET}@127.0.0.1:{port}/postgres?timeout=0.5")
        assert SECRET not in pretty_repr(store._address)  # type: ignore[attr-defined]  # its own
        with pytest.raises(Unavailable) as caught:
            await store.open()
    error = caught.value
    told = "".join(TracebackException.from_exception(error, capture_locals=True).format())
    pretty = Console(file=io.StringIO(), width=200)
    found = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    pretty.print(found)
    for text in (told, pretty.file.getvalue()):  # type: ignore[attr-defined]  # it is the buffer
        assert "self = " in text
        assert SECRET not in text


# --- a server that is not well ------------------------------------------------------------------


async def test_a_probe_says_what_is_wrong_and_that_it_is_well_again(
    postgres: PostgresServer, url: str
) -> None:
    """One read of an id that no session has: what the documentation calls a probe."""
    async with Proxy(postgres.port) as proxy:
        through = f"{postgres.url_at(proxy.port)}?schema={SCHEMA}&timeout=1"
        async with SessionManager.open(through) as sessions:
            assert await sessions.get("probe") is None
            proxy.refusing = True
            proxy.cut()
            with pytest.raises(Unavailable) as caught:
                await sessions.get("probe")
            assert isinstance(caught.value.__cause__, OSError | asyncpg.PostgresError)
            proxy.refusing = False
            assert await sessions.get("probe") is None


async def test_it_reconnects_with_pauses_that_grow_up_to_a_bound(
    postgres: PostgresServer, url: str
) -> None:
    """However long the server is away, it is knocked at about once a second."""
    seconds = 3.0
    async with Proxy(postgres.port) as proxy:
        through = f"{postgres.url_at(proxy.port)}?schema={SCHEMA}&timeout={seconds}"
        async with SessionManager.open(through) as sessions:
            await sessions.create(id="s")
            proxy.refusing = True
            proxy.cut()
            before = proxy.accepted
            with pytest.raises(Unavailable):
                await sessions.get("s")
            # Each pause is at least half of the one that doubling leads to.
            attempts, pause, waited = 1, FIRST_PAUSE, 0.0
            while waited < seconds:
                pause = min(2 * pause, LAST_PAUSE)
                waited += pause / 2
                attempts += 1
            assert 3 <= proxy.accepted - before <= attempts


async def test_calls_of_a_time_of_need_are_all_answered(postgres: PostgresServer, url: str) -> None:
    """The server is cut off under load, and comes back within the limit: nobody notices."""
    async with Proxy(postgres.port) as proxy:
        through = f"{postgres.url_at(proxy.port)}?schema={SCHEMA}&timeout=30"
        async with SessionManager.open(through) as sessions:
            session = await sessions.create(id="s")
            calls: list[asyncio.Future[Any]] = [
                asyncio.ensure_future(sessions.append(session, Event(kind="n", body=number)))
                for number in range(40)
            ]
            calls += [asyncio.ensure_future(sessions.get("s", events=3)) for _ in range(40)]
            proxy.refusing = True
            proxy.cut()
            while proxy.refused < 3:  # noqa: ASYNC110 - another task counts
                await asyncio.sleep(0)
            proxy.refusing = False
            await asyncio.gather(*calls)
            events = await sessions.events("s")
            assert [event.seq for event in events] == list(range(1, 41))
            assert sorted(event.body for event in events) == list(range(40))


async def test_a_server_without_connections_left_says_so(
    postgres: PostgresServer, url: str
) -> None:
    """Who has a connection goes on with it; who has none is told why, and served once there is."""
    async with SessionManager.open(f"{url}&timeout=30") as sessions:
        session = await sessions.create(id="s")
        await sessions.get("s")
        taken: list[Any] = []
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(postgres.url()))
        try:
            with pytest.raises(Unavailable, match="too many clients") as caught:
                await open_store(url).open()
            assert isinstance(caught.value.__cause__, asyncpg.TooManyConnectionsError)
            await asyncio.gather(*(sessions.get("s") for _ in range(20)))
            await sessions.append(session, Event(kind="n"))
        finally:
            for connection in taken:
                await connection.close()
        store = open_store(f"{url}&timeout=30")
        await store.open()
        await store.close()


# --- the doctor ---------------------------------------------------------------------------------


def facts(number: int) -> inspection.Facts:
    """Return the facts of a server that is well, but for its version."""
    return inspection.Facts(
        number=number,
        release="x",
        fsync=True,
        full_page_writes=True,
        encoding="UTF8",
        most_connections=100,
        connections=1,
        version=1,
    )


@pytest.mark.parametrize(
    ("number", "today", "words"),
    [
        (140_003, date(2026, 1, 1), "REINDEX CONCURRENTLY"),
        (140_004, date(2026, 1, 1), ""),
        (120_022, date(2026, 1, 1), "too old"),
        (130_023, date(2025, 11, 13), ""),
        (130_023, date(2025, 11, 14), "not fixed any more since 2025-11-13"),
        (180_001, date(2026, 1, 1), ""),
        (990_000, date(2026, 1, 1), ""),
    ],
)
def test_what_is_known_against_a_version_is_told(number: int, today: date, words: str) -> None:
    found = facts(number).faults(today)
    assert bool(found) == bool(words)
    assert words in "; ".join(found)


def examined(url: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """Return what the doctor says, by check."""
    run(["doctor", url, "--json", *more])
    checks = json.loads(capsys.readouterr().out)["checks"]
    return {check["check"]: check for check in checks}


def test_the_doctor_says_what_to_do_about_a_faulty_version(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(opened(url))
    monkeypatch.setattr(inspection, "FAULTS", ((0, 1_000_000, "it forgets"),))
    found = examined(url, capsys)["server"]
    assert (found["verdict"], found["try"]) == ("warning", "upgrade the server")
    assert "it forgets" in found["found"]


async def opened(url: str) -> None:
    """Make the store, if it is not there."""
    store = open_store(url)
    await store.open()
    await store.close()


@pytest.mark.parametrize(
    "wrong",
    ["postgresql://tester@127.0.0.1:1/postgres?timeout=2", "{url}&schema=missing_one"],
)
def test_the_doctor_says_what_to_do_where_nothing_is(
    postgres: PostgresServer, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = examined(wrong.format(url=postgres.url(timeout=5)), capsys)["schema"]
    assert found["verdict"] == "wrong"
    assert "check the URL" in found["try"]


def test_the_doctor_tells_of_all_apps_and_changes_nothing(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fill() -> None:
        clock = FakeClock(datetime(2020, 1, 1, tzinfo=UTC))
        for app in ("one", "two"):
            async with SessionManager.open(url, app=app, clock=clock) as sessions:
                await sessions.create(id="s")
                await sessions.create(id="old", expiry=Expiry(absolute=60))
                await sessions.documents("s").put("c", "k", b"x", ttl=60)

    asyncio.run(fill())
    before = asyncio.run(everything(url))
    found = examined(url, capsys)
    assert found["app one"]["found"] == found["app two"]["found"] == "2 OPEN"
    assert "1 sessions wait" in found["due in two"]["found"]
    assert asyncio.run(everything(url)) == before


async def everything(url: str) -> list[Any]:
    """Return every row of every table."""
    db = await asyncpg.connect(**open_store(url)._address.arguments())  # type: ignore[attr-defined]  # its own
    try:
        tables = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
        return [
            sorted(str(row) for row in await db.fetch(f'SELECT * FROM {SCHEMA}."{table}"'))  # noqa: S608 - our own names
            for (table,) in sorted(tables)
        ]
    finally:
        await db.close()

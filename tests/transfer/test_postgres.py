"""Copies to and from PostgreSQL, and what the command line says of such a store."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from tests.servers.postgres import emptied

from sojourn import Event, SessionManager, open_store
from sojourn.cli.program import run
from sojourn.transfer import copy, export_sessions, import_sessions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.postgres import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """The URL of an empty store, whichever test is the first here."""
    url = postgres.url(schema="transfer")
    asyncio.run(made(url))
    asyncio.run(emptied(url))
    return url


async def made(url: str) -> None:
    """Make the tables of a store."""
    async with SessionManager.open(url):
        pass


async def fill(url: str) -> None:
    """Put a little of everything into a store, one session larger than a part."""
    async with SessionManager.open(url, app="shop") as sessions:
        for number in range(40):
            session = await sessions.create(
                id=f"s-{number}",
                user=f"u-{number % 3}",
                labels={"n": str(number % 2)},
                state={"a": number, "user:b": [number], "app:c": "\x00", "deep": {"x": -0.0}},
            )
            await sessions.append(session, Event(kind="note", body={"n": number}))
            await sessions.documents(session.id).put("files", "one", bytes([number]) * 10)
        large = await sessions.create(id="large")
        for _ in range(4):
            await sessions.append(large, Event(kind="note", body="x" * 700_000))
        await sessions.documents("large").put("files", "two", b"y" * 2_000_000)
        await sessions.create(id="child", parent="large")


async def contents(url: str) -> list[Any]:
    """Return what a store shows of everything."""
    async with SessionManager.open(url, app="shop") as sessions:
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = await sessions.list(limit=7, order="created", cursor=cursor)
            for item in page.items:
                events = [(e.seq, e.id, e.body) for e in await sessions.events(item.id)]
                document = await sessions.documents(item.id).get("files", "one")
                body = None if document is None else document.body
                found.append((item.id, item.revision, item.epoch, dict(item.state), events, body))
            if (cursor := page.cursor) is None:
                return found


async def copied(source: str, target: str) -> None:
    stores = open_store(source), open_store(target)
    for store in stores:
        await store.open()
    try:
        await copy(*stores)
    finally:
        for store in stores:
            await store.close()


async def test_a_copy_to_postgres_and_back_keeps_everything(url: str, tmp_path: Path) -> None:
    first, last = (f"sqlite:///{tmp_path / name}.db" for name in ("first", "last"))
    await fill(first)
    await copied(first, url)
    assert await contents(url) == await contents(first)
    await copied(url, last)
    assert await contents(last) == await contents(first)
    async with SessionManager.open(url, app="shop") as sessions:
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # it can
        session = await sessions.require("s-1")
        await sessions.append(session, Event(kind="note"))
    await copied(url, last)
    assert await contents(last) == await contents(url)


async def test_an_export_of_postgres_can_be_imported_again(url: str, tmp_path: Path) -> None:
    await fill(url)
    before = await contents(url)
    store = open_store(url)
    await store.open()
    await export_sessions(store, tmp_path / "all.jsonl.gz")
    await store.close()
    await emptied(url)
    store = open_store(url)
    await store.open()
    await import_sessions(store, tmp_path / "all.jsonl.gz")
    await store.close()
    assert await contents(url) == before


def sojourn(*arguments: str) -> int:
    """Run a command and return its exit code."""
    return run(list(arguments))


def test_the_doctor_examines_a_server(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(fill(url))
    assert sojourn("doctor", url, "--app", "shop", "--json") == 0
    out = capsys.readouterr().out
    found = {one["check"]: one["verdict"] for one in json.loads(out)["checks"]}
    assert {"server", "durability", "connections", "schema", "integrity"} <= found.keys()
    assert set(found.values()) == {"ok"}
    assert "tester:***" in out or "tester" not in out


def test_the_doctor_makes_no_store(
    postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sojourn("doctor", postgres.url(schema="nowhere"), "--json") == 1
    assert "there is no store" in capsys.readouterr().out
    assert asyncio.run(schemas(postgres, "nowhere")) == 0


async def schemas(postgres: PostgresServer, name: str) -> Any:
    """Return how many schemas have this name."""
    address = open_store(postgres.url())._address  # type: ignore[attr-defined]  # its own
    db = await asyncpg.connect(**address.arguments())
    try:
        return await db.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", name)
    finally:
        await db.close()


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "show s-1",
        "tail s-1",
        "end s-1 --yes",
        "delete s-1 --yes",
        "forget u-1 --yes",
        "reap",
        "fork s-1",
        "export -",
        "export there.jsonl",
    ],
)
def test_no_command_makes_a_store_of_a_mistyped_url(
    postgres: PostgresServer, command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = postgres.url(schema="mistyped")
    words = command.replace("there", str(tmp_path / "there")).split()
    assert sojourn(*words, "--url", wrong) == 5
    shown = capsys.readouterr().err
    assert "there is no store at postgresql://127.0.0.1" in shown
    assert "try: check the URL" in shown
    assert postgres.password not in shown
    assert asyncio.run(schemas(postgres, "mistyped")) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_copy_makes_its_target_and_never_its_source(
    postgres: PostgresServer, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = postgres.url(schema="mistyped")
    assert sojourn("copy", wrong, postgres.url(schema="fresh")) == 5
    assert asyncio.run(schemas(postgres, "mistyped")) == 0
    assert asyncio.run(schemas(postgres, "fresh")) == 0
    assert sojourn("copy", url, f"{url}&timeout=9") == 2
    assert "is the store to copy from" in capsys.readouterr().err


def test_a_look_leaves_an_older_schema_as_it_is(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sojourn.stores.postgres.inspection.NEWEST_VERSION", 2)
    assert sojourn("ls", "--url", url) == 5
    assert "would make it 2" in capsys.readouterr().err


def test_the_doctor_finds_what_does_not_agree(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(fill(url))

    async def damage() -> None:
        address = open_store(url)._address  # type: ignore[attr-defined]  # its own
        db = await asyncpg.connect(**address.arguments())
        await db.execute("DELETE FROM transfer.activity WHERE row = (SELECT min(row) FROM "
                         "transfer.activity)")  # fmt: skip
        await db.execute("UPDATE transfer.counts SET sessions = sessions + 1")
        await db.execute("DELETE FROM transfer.sessions WHERE id = 'large'")
        await db.close()

    asyncio.run(damage())
    assert sojourn("doctor", url, "--app", "shop") == 1
    out = capsys.readouterr().out
    for words in ("listed by activity", "counts are not", "belong to no session", "lost their"):
        assert words in out.replace("\n", " "), out


def test_the_command_copies(url: str, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path / 'app.db'}"
    asyncio.run(fill(source))
    assert sojourn("copy", source, url) == 0
    assert asyncio.run(contents(url)) == asyncio.run(contents(source))

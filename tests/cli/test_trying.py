"""`conform`, `bench` and `demo`: on throw-away stores, never on the one that is named."""

from __future__ import annotations

import asyncio
import json
import tempfile
from typing import TYPE_CHECKING, Any

import apsw
import asyncpg
import pytest
import redis

from sojourn import SessionManager, Unavailable, open_store, stores
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import schema
from sojourn.testing import LAWS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Runner

    from sojourn.store import Delete

DURABLE = next(name for name, law in LAWS.items() if law.noun == "durability")
DELETION = next(name for name, law in LAWS.items() if law.noun == "delete")


class Keeps(MemoryStore):
    """A store that says it deleted, and did not."""

    async def delete(self, delete: Delete, /) -> bool:  # noqa: ARG002 - it forgets to
        return True


def test_conform_names_the_laws(sojourn: Runner) -> None:
    assert sojourn("conform", "--list").out.splitlines() == list(LAWS)
    assert json.loads(sojourn("conform", "--list", "--json").out) == list(LAWS)


def test_conform_leaves_nothing_behind(tmp_path: Path, sojourn: Runner) -> None:
    laws = ("--law", DURABLE, "--law", DELETION, "--law", DELETION)
    done = sojourn("conform", "sqlite:///none.db", "--json", *laws)
    assert done.code == 0
    document = json.loads(done.out)
    assert document["ok"] is True
    assert [law["law"] for law in document["laws"]] == [DURABLE, DELETION]
    assert {law["verdict"] for law in document["laws"]} == {"kept"}
    assert not list(tmp_path.iterdir())


def test_conform_where_nothing_outlives_the_store(sojourn: Runner) -> None:
    done = sojourn("conform", "memory://", "--law", DURABLE, "--law", DELETION)
    assert done.code == 0
    assert f"  -       {DURABLE}" in done.out
    assert "1 kept, 0 broken, 1 not applicable" in done.out


def test_conform_refuses_a_store_with_data(database: Path, sojourn: Runner) -> None:
    before = database.read_bytes()
    done = sojourn("conform", "sqlite:///app.db", "--law", DELETION)
    assert done.code == 1
    assert "there are data in app.db" in done.err
    assert database.read_bytes() == before
    assert list(database.parent.iterdir()) == [database]


def test_conform_beside_an_empty_store(tmp_path: Path, sojourn: Runner) -> None:
    with apsw.Connection(str(tmp_path / "empty.db")) as db:
        schema.migrate(db, "empty")
    assert sojourn("conform", "sqlite:///empty.db", "--law", DELETION).code == 0


def test_a_broken_law_is_told_and_fails(sojourn: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stores.SCHEMES, "memory", lambda *_: Keeps())
    done = sojourn("conform", "memory://", "--law", DELETION)
    assert done.code == 1
    assert f"  BROKEN  {DELETION}" in done.out
    assert "1 of 1 laws are broken" in done.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("conform", "memory://", "--law", "no_such_law"), 2),
        (("conform", "sqlite:///none/x.db"), 5),
        (("bench", "sqlite:///none/x.db"), 5),
        (("bench", "memory://", "--seconds", "0"), 2),
        (("demo", "--messages", "0"), 2),
    ],
)
def test_what_can_not_be_tried_is_refused(
    tmp_path: Path, sojourn: Runner, arguments: tuple[str, ...], code: int
) -> None:
    assert sojourn(*arguments).code == code
    assert not list(tmp_path.iterdir())


def test_a_folder_in_which_nothing_can_be_made_is_unavailable(
    sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    done = sojourn("bench", "sqlite:///none.db")
    assert done.code == 5
    assert "Permission denied" in done.err


def test_a_kind_without_throw_away_stores_is_refused(
    sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stores.SCHEMES, "other", lambda *_: MemoryStore())
    monkeypatch.setitem(stores.OPTIONS, "other", ())
    done = sojourn("bench", "other://me:s3cret@host/x")
    assert done.code == 2
    assert "no throw-away store can be made of other://me:***@host/x" in done.err


@pytest.fixture(params=["postgres", "redis"])
def served(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store on a server."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres").url(schema="trying")
        return url
    return f"{request.getfixturevalue('redis_server').url}?prefix=trying"


def left_of_tries(url: str) -> list[str]:
    """Return what is left on a server of stores that were made to be tried."""

    async def schemas() -> list[str]:
        db = await asyncpg.connect(**open_store(url)._address.arguments())  # type: ignore[attr-defined]  # its own
        try:
            query = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'sojourn_try%'"
            return [name for (name,) in await db.fetch(query)]
        finally:
            await db.close()

    if url.startswith("postgresql"):
        return asyncio.run(schemas())
    with redis.Redis.from_url(url.partition("?")[0]) as client:
        return [key.decode() for key in client.scan_iter("sojourn_try*")]


def test_servers_are_tried_in_places_of_their_own(served: str, sojourn: Runner) -> None:
    """Laws that need to open a store again are checked there, too."""
    done = sojourn("conform", served, "--law", DELETION, "--law", "everything_outlives_the_store")
    assert (done.code, done.err) == (0, ""), done.out
    assert "2 kept, 0 broken, 0 not applicable" in done.out
    assert sojourn("bench", served, "--seconds", "0.01").code == 0
    assert left_of_tries(served) == []


def test_one_that_can_not_be_removed_does_not_keep_the_others(
    served: str, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = type(open_store(served))
    drop, dropped = kind.drop, []

    async def drop_and_fail(store: Any) -> None:
        await drop(store)
        dropped.append(store)
        raise Unavailable(store.name, "it was in use")

    monkeypatch.setattr(kind, "drop", drop_and_fail)
    done = sojourn("conform", served, "--law", DELETION, "--law", "everything_outlives_the_store")
    assert done.code == 5
    assert "it was in use" in done.err
    assert len(dropped) == 2
    assert left_of_tries(served) == []


def test_conform_refuses_a_server_with_data(served: str, sojourn: Runner) -> None:
    async def fill() -> None:
        async with SessionManager.open(served) as sessions:
            await sessions.create()

    async def empty() -> None:
        store = open_store(served)
        await store.drop()  # type: ignore[attr-defined]  # all of servers can
        await store.close()

    asyncio.run(fill())
    try:
        done = sojourn("conform", served, "--law", DELETION)
        assert done.code == 1
        assert "there are data in" in done.err
    finally:
        asyncio.run(empty())


def test_bench_measures_beside_the_store_that_is_named(database: Path, sojourn: Runner) -> None:
    before = database.read_bytes()
    done = sojourn("bench", "sqlite:///app.db", "--seconds", "0.01", "--json")
    assert done.code == 0
    operations = json.loads(done.out)["operations"]
    assert [(one["operation"], one["callers"]) for one in operations[2:4]] == [
        ("append", 1),
        ("append", 64),
    ]
    assert all(0 < one["p50_ms"] <= one["p99_ms"] for one in operations)
    assert all(one["per_second"] > 0 for one in operations)
    assert database.read_bytes() == before
    assert list(database.parent.iterdir()) == [database]


@pytest.mark.soak
@pytest.mark.parametrize("url", ["memory://", "sqlite:///none.db"])
def test_every_law_is_kept(sojourn: Runner, url: str) -> None:
    assert sojourn("conform", url).code == 0

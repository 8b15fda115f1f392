"""Copies know their source by its place: two never mix, another spelling is the same one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.transfer.contents import CLOCK, ids_of, opened

from sojourn import SessionManager, open_store
from sojourn.errors import InvalidQuery
from sojourn.store import place_of
from sojourn.stores.memory import MemoryStore
from sojourn.telemetry.observed import ObservedStore
from sojourn.testing.faulty import FaultyStore
from sojourn.transfer import copy

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn.store import Store
    from sojourn.transfer import Copied

HERE = socket.gethostname()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


async def fill(store: Any, *ids: str) -> None:
    """Put sessions into a store, and what they share, all named after the first one."""
    sessions = SessionManager(store, app="shop", clock=CLOCK)
    for id in ids:
        await sessions.create(id=id, user=f"u-{id}", state={"user:n": id, f"app:{ids[0]}": 1})
    await sessions.documents(None).put("c", ids[0], b"1")


async def copied(source: Any, target: Any) -> Copied:
    return await copy(source, target, clock=CLOCK)


async def two_sources(first: str, second: str, target: Any, folders: list[Path]) -> None:
    """Copy from both in turns, each in its own folder; check that neither takes from the other."""
    monkeypatch = pytest.MonkeyPatch()
    names = set()
    try:
        for number, (url, folder) in enumerate(zip((first, second), folders, strict=True)):
            monkeypatch.chdir(folder)
            async with opened(url) as source:
                names.add(source.name)
                await fill(source, f"{number}-a", f"{number}-b")
                outcome = await copied(source, target)
                assert (outcome.removed, outcome.complete) == (0, True)
        assert len(names) == 1 or first != second
        assert sorted(await ids_of(target, "shop")) == ["0-a", "0-b", "1-a", "1-b"]
        for number, (url, folder) in enumerate(zip((first, second), folders, strict=True)):
            monkeypatch.chdir(folder)
            async with opened(url) as source:
                sessions = SessionManager(source, app="shop", clock=CLOCK)
                await sessions.delete(f"{number}-a")
                assert (await copied(source, target)).removed == 1
        assert sorted(await ids_of(target, "shop")) == ["0-b", "1-b"]
    finally:
        monkeypatch.undo()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders."""
    made = [tmp_path / "a", tmp_path / "b"]
    for folder in made:
        folder.mkdir()
    return made


@pytest.mark.parametrize("url", ["sqlite:///app.db", "file://data"])
async def test_paths_of_one_spelling_in_two_folders_are_two_sources(
    url: str, folders: list[Path]
) -> None:
    async with opened("memory://") as target:
        await two_sources(url, url, target, folders)


async def test_two_prefixes_of_one_redis_are_two_sources(
    redis_server: Any, folders: list[Path]
) -> None:
    first, second = (f"{redis_server.url}?prefix={folders[0].parent.name}{n}" for n in (1, 2))
    async with opened("memory://") as target:
        await two_sources(first, second, target, folders)


async def test_two_schemas_of_one_database_are_two_sources(
    postgres: Any, folders: list[Path]
) -> None:
    first, second = (postgres.url(schema=f"places{n}") for n in (1, 2))
    async with opened("memory://") as target:
        await two_sources(first, second, target, folders)


async def test_two_stores_in_memory_are_two_sources() -> None:
    target = MemoryStore()
    for id in ("a", "b"):
        source = MemoryStore()
        await fill(source, id)
        assert (await copied(source, target)).removed == 0
    assert sorted(await ids_of(target, "shop")) == ["a", "b"]


@pytest.mark.parametrize("scheme", ["sqlite:///", "file://"])
async def test_another_spelling_of_a_path_is_the_same_source(
    scheme: str, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = folders
    (second / "link").symlink_to(first)
    spellings = [
        (first, "data"),
        (first, f"{first}/data"),
        (second, "../a/./data"),
        (second, "link/data"),
    ]
    async with opened("memory://") as target:
        for turn, (folder, path) in enumerate(spellings):
            monkeypatch.chdir(folder)
            async with opened(scheme + path) as source:
                if not turn:
                    await fill(source, *(str(number) for number in range(5)))
                sessions = SessionManager(source, app="shop", clock=CLOCK)
                outcome = await copied(source, target)
                assert (outcome.removed, outcome.complete) == (min(turn, 1), True)
                await sessions.delete(str(turn))
        assert sorted(await ids_of(target, "shop")) == ["3", "4"]


async def test_a_wrapped_store_is_the_same_source() -> None:
    source, target = MemoryStore(), MemoryStore()
    await fill(source, "a", "b", "c")
    sessions = SessionManager(source, app="shop", clock=CLOCK)
    await copied(source, target)
    around: list[Store] = [FaultyStore(source), ObservedStore(source, [])]
    for removed, wrapped in enumerate(around, 1):
        assert place_of(wrapped) == place_of(source)
        await sessions.delete("ab"[removed - 1])
        assert (await copied(wrapped, target)).removed == 1
    assert await ids_of(target, "shop") == ["c"]


async def test_two_stores_of_one_place_are_not_copied_onto_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    async with opened(url) as one, opened(url) as other:
        with pytest.raises(InvalidQuery, match="two stores"):
            await copied(one, other)


async def test_a_store_that_has_only_a_name_is_known_by_it() -> None:
    class Named:
        name = "plain://"

    assert place_of(Named()) == "plain://"  # type: ignore[arg-type]  # that is the point


def test_a_name_in_memory_means_the_same_while_it_lives() -> None:
    one, other = open_store("memory://places"), open_store("memory://places")
    assert place_of(one) == place_of(other)
    assert place_of(one) != place_of(open_store("memory://places2"))
    assert place_of(MemoryStore()) != place_of(MemoryStore())


PLACES = {
    "redis://": f"redis://{HERE}|localhost:6379/0/sojourn",
    "rediss://me:secret@Example.org/3?prefix=p": "redis://example.org:6379/3/p",
    "redis+cluster://b:2,a:1?prefix=p": "redis+cluster://a:1,b:2/0/p",
    "postgresql://me:secret@b,a:1/shop": "postgresql://a:1,b:5432/shop/sojourn",
    "postgresql://me@db.example?schema=s": "postgresql://db.example:5432/me/s",
    "postgresql:///shop?host=/run/pg": f"postgresql://{HERE}|/run/pg:5432/shop/sojourn",
}


@pytest.mark.parametrize("url", list(PLACES))
def test_the_place_of_a_server_holds_no_secret(url: str) -> None:
    assert place_of(open_store(url)) == PLACES[url]


def test_what_the_environment_adds_to_an_address_is_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("HOST", "h"), ("PORT", "7"), ("DATABASE", "d"), ("SERVICE", "s")):
        monkeypatch.setenv(f"PG{name}", value)
    assert place_of(open_store("postgresql://")) == "postgresql://h:7/d/sojourn of s"


@pytest.mark.parametrize("scheme", ["sqlite:///", "file://"])
def test_a_path_is_one_of_its_machine(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that are set up alike copy from equal paths to one target."""
    store = open_store(f"{scheme}{tmp_path}/data")
    here = place_of(store)
    assert here.endswith(f"://{HERE}{tmp_path}/data")
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert place_of(store) != here


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://h", "redis://h:6379"),
        ("redis://h/?prefix=sojourn", "redis://h:6379"),
        ("redis://me:pw@h/?prefix=p", "redis://h:6379/?prefix=p"),
        ("redis://h/2?prefix=a%26b", "redis://h:6379/2?prefix=a%26b"),
    ],
)
def test_a_prefix_is_in_the_name_of_a_redis_store(url: str, name: str) -> None:
    store = open_store(url)
    assert store.name == name
    assert open_store(name).name == name

"""A store that is named by a relative path stays where it was when it was named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sojourn import SessionManager, open_store
from sojourn.errors import InvalidQuery, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

URLS = ("sqlite:///one.db", "sqlite:///./one.db", "file://one", "file://one/two")


@pytest.mark.parametrize("url", URLS)
async def test_a_program_that_changes_its_folder_keeps_its_store(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "one").mkdir(parents=True)
    if not url.startswith("file"):
        for folder in (first, second):
            (folder / "one").rmdir()
    monkeypatch.chdir(second)
    async with SessionManager.open(url, app="app") as there:
        await there.create(id="theirs")
    monkeypatch.chdir(first)
    async with SessionManager.open(url, app="app") as here:
        store: Any = here.store
        assert store.name == url  # as it was given
        monkeypatch.chdir(second)
        large = b"x" * 300_000
        await here.documents((await here.create(id="ours")).id).put("c", "k", large)
        other = SessionManager(store, app="other")
        await other.create(id="of another app")
        assert [session.id for session in (await here.list()).items] == ["ours"]
        found = await here.documents("ours").get("c", "k")
        assert found is not None
        assert found.body == large
        assert await store.check() == []
    monkeypatch.chdir(first)
    async with SessionManager.open(url, app="other") as again:
        assert await again.get("of another app") is not None


@pytest.mark.parametrize("url", URLS)
def test_a_relative_path_in_a_folder_that_is_gone_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InvalidQuery, match="give the whole path"):
        open_store(url)
    monkeypatch.chdir(tmp_path)


async def test_a_check_of_a_file_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    async with SessionManager.open(f"sqlite:///{path}", app="app") as sessions:
        await sessions.create()
        path.rename(tmp_path / "two.db")
        store: Any = sessions.store
        with pytest.raises(Unavailable, match="can not be opened"):
            await store.check()
        with pytest.raises(Unavailable, match="can not be opened"):
            await store.backup(str(tmp_path / "copy.db"))

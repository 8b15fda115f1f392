"""What is no list of apps, no flag, no durability is refused, not taken for something else."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from tests.transfer.contents import contents, fill, opened

from sojourn import InvalidQuery
from sojourn.transfer import copy, export_sessions, import_sessions

if TYPE_CHECKING:
    from pathlib import Path

APPS = [("apps", wrong) for wrong in ("shop", b"shop", 1)]
"""A text is none: it would name an app by each of its letters."""

LEVELS = [("durability", wrong) for wrong in ("relxed", True, ["durable"])]


@pytest.mark.parametrize(("name", "wrong"), APPS)
async def test_an_export_is_refused(name: str, wrong: Any) -> None:
    stream = io.BytesIO()
    async with opened("memory://") as store:
        await fill(store, "shop", sessions=1)
        with pytest.raises(InvalidQuery, match=f"^invalid {name}: "):
            await export_sessions(store, stream, **{name: wrong})
    assert not stream.getvalue()


@pytest.mark.parametrize(("name", "wrong"), [*APPS, *LEVELS, ("final", "no"), ("final", 1)])
async def test_a_copy_is_refused(name: str, wrong: Any) -> None:
    async with opened("memory://") as source, opened("memory://") as target:
        await fill(source, "shop", sessions=1)
        with pytest.raises(InvalidQuery, match=f"^invalid {name}: "):
            await copy(source, target, **{name: wrong})
        assert await contents(target) == {}


@pytest.mark.parametrize(("name", "wrong"), [*APPS, *LEVELS, ("replace", "no"), ("replace", 1)])
async def test_an_import_is_refused(name: str, wrong: Any) -> None:
    stream = io.BytesIO()
    async with opened("memory://") as source, opened("memory://") as target:
        await fill(source, "shop", sessions=1)
        await export_sessions(source, stream)
        stream.seek(0)
        with pytest.raises(InvalidQuery, match=f"^invalid {name}: "):
            await import_sessions(target, stream, **{name: wrong})
        assert await contents(target) == {}


async def test_apps_that_are_named_twice_are_exported_once(tmp_path: Path) -> None:
    async with opened("memory://") as store:
        await fill(store, "shop", sessions=1)
        once = await export_sessions(store, tmp_path / "1", apps=iter(["shop"]))
        twice = await export_sessions(store, tmp_path / "2", apps=("shop", "shop"))
    assert once.sessions == twice.sessions > 0

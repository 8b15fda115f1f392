"""A store with a little of everything, and a command line to look at it."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.cli.terminals import Done

from sojourn import Event, Expiry, SessionManager, Trigger
from sojourn.cli.program import run
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Runner = Callable[..., Done]

HOSTILE = "\x1b]0;pwned\x07\x1b[2J \x9b31m [bold]x[/bold] :smile: \u202etxt.exe\r\n\x7f"
"""Text that would command a terminal, or be read as markup."""

LONG = "s-" + "long" * 60
OLD = datetime(2020, 1, 1, tzinfo=UTC)


async def fill(url: str) -> None:
    """Put sessions of all sorts into a store, some of them expired long ago."""
    async with SessionManager.open(url, app="shop") as sessions:
        state = {
            "cart": ["tea", {"price": 10**30}],
            "note": HOSTILE,
            "user:theme": "dark",
            "app:motd": "hi",
        }
        first = await sessions.create(
            id="s-1",
            user="u-1",
            state=state,
            labels={"channel": "web", "place": "[red]"},
            expiry=Expiry(idle=10**9),
        )
        for turn in range(12):
            event = Event(kind="message", author="user", body={"text": f"line {turn} {HOSTILE}"})
            await sessions.append(first, event, state={"turn": turn})
        agent = await sessions.create(id="agent-1", lifecycle="agent", parent="s-1")
        await sessions.apply(agent.id, Trigger.SPAWN)
        await sessions.apply(agent.id, Trigger.ACTIVATE)
        await sessions.create(id=LONG, user="多" * 30)
        for _ in range(3):
            await sessions.create(labels={"channel": "app"})
        await sessions.documents("s-1").put("notes", "one", b"text", content_type="text/plain")
    async with SessionManager.open(url, app="shop", clock=FakeClock(OLD)) as sessions:
        for number in range(5):
            await sessions.create(id=f"old-{number}", expiry=Expiry(absolute=60))


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a filled store; do not change it."""
    path = tmp_path_factory.mktemp("filled") / "app.db"
    asyncio.run(fill(f"sqlite:///{path}"))
    path.chmod(0o600)
    return path


@pytest.fixture
def database(filled: Path, tmp_path: Path) -> Path:
    """A filled store of one's own, in an otherwise empty folder."""
    path = tmp_path / "app.db"
    shutil.copy(filled, path)
    return path


@pytest.fixture
def sojourn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Runner:
    """Run a command here, as if its streams were pipes."""
    monkeypatch.chdir(tmp_path)
    for name in ("SOJOURN_URL", "SOJOURN_APP", "SOJOURN_SETTINGS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Done:
        capfd.readouterr()
        code = run(arguments)
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return call

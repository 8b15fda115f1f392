"""What a user's type checker sees: these lines are run, and checked by `mypy --strict`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any, assert_type

import flask
from prometheus_client import CollectorRegistry

from sojourn import Document, Event, SessionManager
from sojourn.session import State
from sojourn.store import SupportsBackup
from sojourn.stores.filesystem import FilesystemStore
from sojourn.telemetry import (
    LoggingObserver,
    Observer,
    OpenTelemetryObserver,
    PrometheusObserver,
)
from sojourn.web.devices import DeviceSession
from sojourn.web.flask import SojournSessions, session

SRC = Path(__file__).resolve().parents[2] / "src"


async def test_observers_of_several_kinds_are_one_list() -> None:
    two = [LoggingObserver(slow=0.1), PrometheusObserver(CollectorRegistry())]
    assert_type(two, list[Observer])
    three = [*two, OpenTelemetryObserver()]
    assert_type(three, list[Observer])
    async with SessionManager.open("memory://", observers=three) as sessions:
        await sessions.create()


async def test_what_only_some_stores_have_is_known_once_it_was_asked_for(tmp_path: Path) -> None:
    async with SessionManager.open(f"sqlite:///{tmp_path}/app.db") as sessions:
        assert isinstance(sessions.store, SupportsBackup)
        await sessions.store.backup(str(tmp_path / "copy.db"))
        assert not await sessions.store.check()
    async with SessionManager.open(f"file://{tmp_path}/data", app="shop") as sessions:
        await sessions.create(id="a")
        assert isinstance(sessions.store, FilesystemStore)
        assert_type(await sessions.store.export_session("shop", "a", str(tmp_path / "a")), int)


async def test_a_watch_can_be_closed() -> None:
    async with SessionManager.open("memory://") as sessions:
        s = await sessions.create(id="s", events=[Event(kind="note")])
        async with aclosing(sessions.watch("s")) as events:
            async for event in events:
                assert_type(event, Event)
                break
        saved = await sessions.checkpoints(s).save(b"1")
        async with aclosing(sessions.checkpoints(s).stream(saved)) as pieces:
            assert [piece async for piece in pieces] == [b"1"]


async def test_a_copy_is_taken_where_its_id_is() -> None:
    async with SessionManager.open("memory://") as sessions:
        s = await sessions.create()
        s.state |= {"a": 1}
        s.state |= [("b", 2)]
        assert_type(s.state, State)
        assert_type(await sessions.documents(s).get("c", "k"), Document | None)


def test_flasks_session_has_the_verbs_of_a_login() -> None:
    app = flask.Flask("shop")
    sessions = SojournSessions("memory://")
    sessions.init_app(app)

    @app.get("/")
    def home() -> dict[str, Any]:
        session["cart"] = ["tea"]
        session.login("u-1", auth="pwd")
        assert_type(session.devices(), list[DeviceSession])
        return {"user": assert_type(session.user, str | None)}

    assert session is flask.session
    assert app.test_client().get("/").json == {"user": "u-1"}
    sessions.close()


def test_mypy_has_no_complaint(tmp_path: Path) -> None:
    """Strictly, and without this project's configuration."""
    options = ["--strict", "--config-file", os.devnull, "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, __file__],
        env={**os.environ, "MYPYPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr

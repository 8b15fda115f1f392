"""The composition root: settings become a manager, its store and its observers."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client import REGISTRY
from tests.telemetry.recorder import Recorder

from sojourn import Closed, Expiry, InvalidQuery, InvalidSetting, MissingExtra
from sojourn.app import OBSERVERS, open_blocking_sessions, open_sessions, store_url
from sojourn.settings import OBSERVERS as NAMES
from sojourn.settings import load_settings
from sojourn.stores.sqlite import SqliteStore
from sojourn.telemetry import Fingerprint, ObservedStore
from sojourn.testing import FakeClock, SequenceIds

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into an empty folder, and at no variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {})


async def test_the_manager_is_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sojourn.toml").write_text('idle = "30m"\nurl = "sqlite:///first.db"\n')
    monkeypatch.setattr("os.environ", {"SOJOURN_APP": "shop"})
    clock = FakeClock()
    async with open_sessions(absolute="12h", clock=clock, ids=SequenceIds()) as sessions:
        s = await sessions.create(state={"user": None})
        assert sessions.app == "shop"
        assert s.expires_at is not None
        assert (s.expires_at - s.created_at).total_seconds() == 1800
        clock.advance(1800)
        assert await sessions.get(s.id) is None
    assert (tmp_path / "first.db").exists()
    with pytest.raises(Closed):
        await sessions.get(s.id)


def test_the_blocking_manager_is_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sojourn.toml").write_text('idle = "30m"\nurl = "sqlite:///first.db"\n')
    monkeypatch.setattr("os.environ", {"SOJOURN_APP": "shop"})
    clock, recorder = FakeClock(), Recorder()
    with open_blocking_sessions(clock=clock, ids=SequenceIds(), observers=[recorder]) as sessions:
        session = sessions.create(state={"n": 1})
        assert sessions.app == "shop"
        assert session.expires_at is not None
        clock.advance(1800)
        assert sessions.get(session.id) is None
    assert (tmp_path / "first.db").exists()
    assert recorder.of("create")
    with pytest.raises(Closed):
        sessions.get(session.id)
    with pytest.raises(InvalidSetting):
        open_blocking_sessions(durabilty="relaxed")
    with open_blocking_sessions(load_settings(app="other"), url="memory://") as sessions:
        assert sessions.app == "other"


async def test_settings_that_were_looked_up_can_be_overridden(tmp_path: Path) -> None:
    settings = load_settings(url="sqlite:///first.db", app="shop")
    async with open_sessions(settings, url="sqlite:///second.db") as sessions:
        await sessions.create()
        assert sessions.app == "shop"
    assert not (tmp_path / "first.db").exists()
    assert (tmp_path / "second.db").exists()


async def test_without_anything_it_is_a_file_in_this_folder(tmp_path: Path) -> None:
    async with open_sessions() as sessions:
        await sessions.create()
        assert type(sessions.store) is SqliteStore
    assert (tmp_path / "sojourn.db").exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///a.db", "sqlite:///a.db?durability=durable"),
        ("sqlite:///a.db?durability=relaxed", "sqlite:///a.db?durability=relaxed"),
        ("memory://a", "memory://a"),
        ("x://h?ssl=on", "x://h?ssl=on"),
    ],
)
def test_the_store_is_told_what_it_takes(url: str, expected: str) -> None:
    assert store_url(load_settings(url=url)) == expected


async def test_a_promise_is_the_stores_and_the_managers() -> None:
    """What a commit says nothing of, a removal for example, is the store's to decide."""
    for durability in ("durable", "relaxed"):
        recorder = Recorder()
        async with open_sessions(
            url=f"sqlite:///{durability}.db?durability={durability}", observers=[recorder]
        ) as sessions:
            await sessions.create()
            inside: Any = cast("ObservedStore", sessions.store).wrapped
        assert recorder.last("create").outcome.durability == durability
        assert inside._durability == durability


async def test_observers_are_made_from_their_names(caplog: pytest.LogCaptureFixture) -> None:
    assert set(OBSERVERS) == set(NAMES)
    caplog.set_level(logging.DEBUG, "sojourn.telemetry")
    recorder, key = Recorder(), "k" * 32
    labels = {"verb": "create", "result": "ok"}
    before = REGISTRY.get_sample_value("sojourn_operations_total", labels) or 0
    async with open_sessions(
        url="memory://",
        telemetry=["logging", "opentelemetry", "prometheus"],
        telemetry_slow="1ms",
        telemetry_key=key,
        observers=[recorder],
    ) as sessions:
        s = await sessions.create()
    assert "create ok" in caplog.text
    assert REGISTRY.get_sample_value("sojourn_operations_total", labels) == before + 1
    fingerprint = Fingerprint(key.encode()).of("default", s.id)
    assert recorder.last("create").call.session == fingerprint
    assert fingerprint in caplog.text


async def test_without_observers_nothing_stands_in_between() -> None:
    async with open_sessions(url="memory://", telemetry_key="k" * 32) as sessions:
        assert not isinstance(sessions.store, ObservedStore)


def test_what_is_wrong_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="did you mean 'durability'"):
        open_sessions(durabilty="relaxed")
    with pytest.raises(InvalidSetting, match="known are"):
        open_sessions(expiry=Expiry(idle=5))
    with pytest.raises(InvalidQuery, match="unknown scheme"):
        open_sessions(url="other://me:pw@db/x")
    assert list(tmp_path.iterdir()) == []


def test_an_observer_without_its_packages_says_so() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from sojourn.app import open_sessions\n"
        "try:\n"
        "    open_sessions(url='memory://', telemetry='prometheus')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        f"{MissingExtra.__name__} PrometheusObserver needs more packages: "
        'pip install "sojourn[prometheus]"\n'
    ), done.stderr

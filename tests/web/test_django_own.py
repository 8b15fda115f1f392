"""Django's own tests of sessions pass with our engine, on SQLite, PostgreSQL and Redis.

They are not in this repository: the source distribution of the Django that is installed is fetched
once, by pip, into `build/`. Without a network the tests are skipped, but with `CI` set they fail.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import django
import pytest
from tests.servers.postgres import emptied
from tests.servers.redis import Servers
from tests.web.django_own_tests import DESELECTED

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 300
"""A run that takes longer hangs."""

pytestmark = pytest.mark.xdist_group("django's own")


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of Django's tests."""
    version = django.get_version()
    wanted = ROOT / "build" / f"django-{version}"
    if not wanted.exists():
        wanted.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wanted.parent) as temporary:
            fetched = _fetched(version, Path(temporary))
            with tarfile.open(fetched) as archive:
                archive.extractall(temporary, filter="data")
            (Path(temporary) / f"django-{version}").rename(wanted)
    return wanted / "tests"


def _fetched(version: str, into: Path) -> Path:
    """Return the source distribution; skip, or with `CI` fail, where it can not be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", "django", "--dest", str(into), f"django=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    found = list(into.glob("[dD]jango-*.tar.gz"))
    if done.returncode == 0 and found:
        return found[0]
    reason = f"the source distribution of Django {version} can not be fetched: {done.stderr}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(folder: Path, url: str) -> None:
    """Run them in a process of their own."""
    command = [sys.executable, "-m", "tests.web.django_own_tests", str(folder), url]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_on_sqlite(folder: Path, tmp_path: Path) -> None:
    run(folder, f"sqlite:///{tmp_path / 'sessions.db'}")


def test_on_postgres(folder: Path, postgres: PostgresServer) -> None:
    url = postgres.url(schema="django")
    asyncio.run(emptied(url))
    run(folder, url)


def test_on_redis(folder: Path) -> None:
    servers = Servers()
    try:
        durable = ("--appendonly", "yes", "--appendfsync", "always")
        run(folder, f"{servers.add(*durable).url}?timeout=30")
    finally:
        servers.stop()


def test_nothing_is_left_out_but_what_is_about_djangos_own_rows(folder: Path) -> None:
    """Each test that is not run is there, and in the tests of the middleware, not the mixin."""
    text = (folder / "sessions_tests" / "tests.py").read_text(encoding="utf-8")
    mixin = text[text.index("class SessionTestsMixin") : text.index("class DatabaseSessionTests")]
    for name in DESELECTED:
        assert f"def {name}(" in text
        assert f"def {name}(" not in mixin

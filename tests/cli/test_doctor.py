"""`doctor`: what it finds wrong, and that it makes and changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import apsw
import pytest

from sojourn import Expiry, SessionManager, Trigger, Unavailable
from sojourn import mounts as mounting
from sojourn.cli import findings
from sojourn.errors import Corrupt, ReadOnly
from sojourn.stores.sqlite import SqliteStore, inspection, schema
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Runner
    from tests.cli.terminals import Done
    from tests.servers.redis import Server

URL = "sqlite:///app.db"


def verdicts(done: Done) -> dict[str, str]:
    """Return what came of each check."""
    return {check["check"]: check["verdict"] for check in json.loads(done.out)["checks"]}


def test_a_well_store(database: Path, sojourn: Runner) -> None:
    sojourn("reap", "-u", URL, "--app", "shop")
    done = sojourn("doctor", URL, "--json")
    assert done.code == 0
    assert set(verdicts(done).values()) == {"ok"}
    document = json.loads(done.out)
    assert document["ok"] is True
    assert document["apps"] == [
        {"app": "shop", "sessions": 6, "phases": {"ACTIVE": 1, "OPEN": 5}, "due": 0}
    ]


def test_what_nobody_sweeps_is_found(database: Path, sojourn: Runner) -> None:
    done = sojourn("doctor", URL, "--json")
    assert verdicts(done)["due in shop"] == "warning"
    assert done.code == 0


def test_one_app_can_be_named(database: Path, sojourn: Runner) -> None:
    """The others are left out then; one that has nothing is told, too."""
    done = sojourn("doctor", URL, "--app", "shop", "--json")
    assert [one["app"] for one in json.loads(done.out)["apps"]] == ["shop"]
    done = sojourn("--app", "other", "doctor", URL, "--json")
    assert json.loads(done.out)["apps"] == [{"app": "other", "sessions": 0, "phases": {}, "due": 0}]


@pytest.mark.xdist_group("redis")
def test_all_apps_of_a_server_are_told(redis_server: Server, sojourn: Runner) -> None:
    """Without naming them; what is due with them, and since when."""
    url = f"{redis_server.url}?prefix=doctor"

    async def fill() -> None:
        async with SessionManager.open(url, app="shop") as sessions:
            for number in range(60):
                await sessions.create(user=f"u-{number}")
            agent = await sessions.create(lifecycle="agent")
            await sessions.apply(agent.id, Trigger.SPAWN)
        clock = FakeClock(datetime.now(UTC) - timedelta(seconds=60))
        async with SessionManager.open(url, app="other", clock=clock) as sessions:
            await sessions.create(expiry=Expiry(absolute=30))
            await sessions.create(expiry=Expiry(absolute=20))

    asyncio.run(fill())
    shop = {"app": "shop", "sessions": 61, "phases": {"OPEN": 60, "SPAWNING": 1}, "due": 0}
    other = {"app": "other", "sessions": 2, "phases": {"OPEN": 2}, "due": 2}
    for named, apps in (((), [other, shop]), (("--app", "shop"), [shop])):
        done = sojourn("doctor", url, "--json", *named)
        assert done.code == 0
        assert json.loads(done.out)["apps"] == apps
        checks = [check["check"] for check in json.loads(done.out)["checks"]]
        assert [check for check in checks if check.startswith("app ")] == [
            f"app {one['app']}" for one in apps
        ]
    assert "2 sessions wait for the reaper, the first one for" in sojourn("doctor", url).out
    done = sojourn("doctor", url, "--json", "--app", "none")
    assert json.loads(done.out)["apps"] == [{"app": "none", "sessions": 0, "phases": {}, "due": 0}]


def test_what_has_just_become_due_is_well(tmp_path: Path, sojourn: Runner) -> None:
    async def fill() -> None:
        url = f"sqlite:///{tmp_path / 'app.db'}"
        clock = FakeClock(datetime.now(UTC) - timedelta(seconds=60))
        async with SessionManager.open(url, clock=clock) as sessions:
            await sessions.create(expiry=Expiry(absolute=30))

    asyncio.run(fill())
    assert "1 sessions wait for the reaper" in sojourn("doctor", URL).out
    assert verdicts(sojourn("doctor", URL, "--json"))["due in default"] == "ok"


def test_damage_is_found(database: Path, sojourn: Runner) -> None:
    with apsw.Connection(str(database)) as db:
        db.execute("DELETE FROM counts")
    done = sojourn("doctor", URL, "--json")
    assert done.code == 1
    assert verdicts(done)["integrity"] == "wrong"
    assert "checks: wrong. try: keep a copy, restore a backup" in done.err
    assert verdicts(sojourn("doctor", URL, "--json", "--quick")).get("integrity") is None


def test_a_torn_file_is_found(database: Path, sojourn: Runner) -> None:
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))
    done = sojourn("doctor", URL, "--json")
    assert done.code == 1
    assert "wrong" in verdicts(done).values()
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: path.write_text("hello, this is not a database"), "not a SQLite database"),
        (lambda path: path.mkdir(), "it is a directory"),
        (lambda path: _versioned(path, 99), "upgrade Sojourn"),
        (lambda path: _versioned(path, 0), "no Sojourn wrote"),
    ],
)
def test_a_file_that_can_not_be_opened_is_left_alone(
    tmp_path: Path, sojourn: Runner, prepare: Any, reason: str
) -> None:
    path = tmp_path / "app.db"
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    done = sojourn("doctor", URL)
    assert done.code == 1
    assert reason in done.out
    assert "opening" not in done.out
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert sojourn("ls", "-u", URL).code in {1, 5}


def _versioned(path: Path, version: int) -> None:
    with apsw.Connection(str(path)) as db:
        schema.migrate(db, "a file")
        db.execute(f"PRAGMA user_version = {version}")


def test_a_doctor_sends_nobody_to_the_doctor(tmp_path: Path, sojourn: Runner) -> None:
    """What it says to try is something else than what was just done."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "short").write_bytes(b"SQLite format 3\0")
    (tmp_path / "other").write_text("hello, this is not a database")
    for name in ("folder", "short", "other", "none", "other/none"):
        done = sojourn("doctor", f"sqlite:///{name}")
        assert done.code in {1, 5}
        assert "sojourn doctor" not in done.out + done.err
    for error in (Corrupt("s", "torn"), ReadOnly("s", "no"), Unavailable("s", "no")):
        found = findings.troubled("opening", error)
        assert (found.verdict, "doctor" in found.step) == ("wrong", False)


def test_a_path_is_quoted_for_the_shell(database: Path, sojourn: Runner) -> None:
    path = database.rename(database.with_name("a pp ü.db"))
    path.chmod(0o666)
    done = sojourn("doctor", "sqlite:///a%20pp%20ü.db")
    assert "  try: chmod o-rw 'a pp ü.db'\n" in done.out
    (found, *_) = findings.permissions(path)
    assert shlex.split(found.step) == ["chmod", "o-rw", str(path)]


def test_a_file_that_everybody_can_change_is_wrong(database: Path, sojourn: Runner) -> None:
    database.chmod(0o666)
    done = sojourn("doctor", URL, "--json")
    assert done.code == 1
    assert verdicts(done)["permissions"] == "wrong"
    assert "try: chmod o-rw app.db" in done.err


def test_a_file_that_everybody_can_read_is_worth_a_look(database: Path, sojourn: Runner) -> None:
    database.chmod(0o644)
    database.parent.chmod(0o777)
    found = verdicts(sojourn("doctor", URL, "--json"))
    assert (found["permissions"], found["folder"]) == ("warning", "warning")
    database.parent.chmod(0o700)
    found = verdicts(sojourn("doctor", URL, "--json"))
    assert (found["permissions"], found["folder"]) == ("ok", "ok")


def test_what_this_user_may_not_do_is_wrong(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    found = list(findings.permissions(database))
    assert [one.verdict for one in found] == ["wrong", "wrong"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a store, closed to others with all that is in it, where others can get."""
    path = tmp_path / "a pp"

    async def fill() -> None:
        async with SessionManager.open(f"file://{quote(str(path))}") as sessions:
            await sessions.create(id="s")

    asyncio.run(fill())
    for each in (path, *path.rglob("*")):
        each.chmod(0o700 if each.is_dir() else 0o600)
    tmp_path.chmod(0o755)
    return path


def folder_finding(folder: Path) -> findings.Finding:
    """Return what is said of a folder; the other finding is of the one around it."""
    found, around = findings.folder_permissions(folder)
    assert (found.check, around.check, around.verdict) == ("permissions", "folder", "ok")
    return found


@pytest.mark.parametrize("mode", [0o704, 0o705, 0o751])
def test_a_folder_that_lets_others_in_is_worth_a_look(folder: Path, mode: int) -> None:
    """Also one that they can only pass through: they may know what is called how inside."""
    assert folder_finding(folder).verdict == "ok"
    folder.chmod(mode)
    found = folder_finding(folder)
    assert found.verdict == "warning"
    assert shlex.split(found.step) == ["chmod", "-R", "o-rwx", str(folder)]
    folder.parent.chmod(0o700)
    assert folder_finding(folder).verdict == "ok"


def test_what_is_open_inside_a_folder_is_found(folder: Path) -> None:
    """However deep, unless a folder above it is closed; what can be changed is the worst."""
    shard = next((folder / "apps").iterdir())
    file = min(each for each in shard.iterdir() if each.is_file())
    folder.chmod(0o701)
    (folder / "apps").chmod(0o701)
    for path, mode in ((shard, 0o701), (file, 0o606)):
        assert (
            folder_finding(folder).found == "drwx-----x: everybody on this machine can get into it"
        )
        path.chmod(mode)
    found = folder_finding(folder)
    inside = file.relative_to(folder)
    assert (found.verdict, found.found) == (
        "wrong",
        f"drwx-----x: everybody on this machine can change {inside} inside",
    )
    file.chmod(0o604)
    found = folder_finding(folder)
    assert found.verdict == "warning"
    assert found.found.endswith(f"can get into it, and read {inside} inside")
    shard.chmod(0o707)
    assert folder_finding(folder).verdict == "wrong"
    folder.chmod(0o700)
    assert folder_finding(folder).verdict == "ok"


def test_a_folder_that_everybody_can_change_is_wrong(folder: Path, sojourn: Runner) -> None:
    folder.chmod(0o703)
    done = sojourn("doctor", f"file://{quote(str(folder))}", "--json")
    assert (done.code, verdicts(done)["permissions"]) == (1, "wrong")
    assert f"try: chmod -R o-rwx '{folder}'" in done.err


def test_a_folder_is_not_looked_through_without_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link says nothing, and what is not looked at does not turn a warning into an all-clear."""
    folder.chmod(0o755)
    (folder / "a").symlink_to("nowhere")
    for name in ("b", "c", "d"):
        (folder / name).touch()
        (folder / name).chmod(0o644)
    found = folder_finding(folder)
    assert found.found.endswith("can read it, and read b and 2 more inside")
    monkeypatch.setattr(findings, "INSIDE_MOST", 2)
    found = folder_finding(folder)
    assert found.verdict == "warning"
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert next(findings.folder_permissions(folder)).verdict == "wrong"
    assert next(findings.folder_permissions(folder / "none")).verdict == "wrong"


def test_a_file_beside_of_another_user_is_found(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    gate = database.with_name("app.db-gate")
    gate.touch()
    assert [one.check for one in findings.permissions(database)] == ["permissions", "folder"]
    os.chown(gate, 12345, 12345)
    *_, found = findings.permissions(database)
    assert (found.check, found.verdict) == ("owner", "warning")
    assert found.step == f"chown {os.geteuid()} {gate}"


def test_a_full_disk_is_worth_a_look(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(findings.SPACE_LEAST - 1))
    assert findings.space(database).verdict == "warning"
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(findings.SPACE_LEAST))
    assert findings.space(database).verdict == "ok"


def test_a_log_that_only_grows_is_worth_a_look(database: Path) -> None:
    assert findings.log_size(database).found == "everything is in the file"
    log = database.with_name("app.db-wal")
    log.touch()
    os.truncate(log, findings.LOG_MOST)
    assert findings.log_size(database).verdict == "ok"
    os.truncate(log, findings.LOG_MOST + 1)
    assert findings.log_size(database).verdict == "warning"


def test_a_library_that_damages_files_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings.sqlite_library().verdict == "ok"
    monkeypatch.setattr(inspection, "sqlite_version", lambda: (3, 51, 2))
    assert findings.sqlite_library().verdict == "wrong"


def test_a_network_file_system_is_wrong(
    database: Path, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = database.with_name("mounts")
    mounts.write_text(f"1 0 0:1 / {database.parent} rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(mounting, "_MOUNTS", mounts)
    done = sojourn("doctor", URL)
    assert done.code == 1
    assert "network file system (nfs4)" in done.out


def test_a_folder_that_is_gone_is_a_finding(tmp_path: Path) -> None:
    (found,) = findings.permissions(tmp_path / "none" / "app.db")
    assert found.verdict == "wrong"


def test_trouble_on_the_way_is_a_finding(
    database: Path, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_store: object) -> None:
        raise Unavailable("the store", "the disk failed")

    monkeypatch.setattr(SqliteStore, "check", fail)
    done = sojourn("doctor", URL, "--json")
    assert (done.code, verdicts(done)["integrity"]) == (1, "wrong")
    monkeypatch.setattr(SqliteStore, "open", fail)
    done = sojourn("doctor", URL, "--json")
    assert (done.code, verdicts(done)["opening"]) == (1, "wrong")


def test_a_store_in_memory_is_well(sojourn: Runner) -> None:
    done = sojourn("doctor", "memory://")
    assert done.code == 0
    assert "no sessions; 0 wait for the reaper" in done.out


def test_it_makes_nothing(tmp_path: Path, sojourn: Runner) -> None:
    assert sojourn("doctor", URL).code == 5
    assert sojourn("doctor", URL, "--upgrade").code == 5
    assert not list(tmp_path.iterdir())


def test_a_folder_of_plain_files(tmp_path: Path, sojourn: Runner) -> None:
    """A well one, one that something else has written to, and none: nothing is made or changed."""
    url = f"file://{tmp_path / 'sessions'}"

    async def fill() -> None:
        async with SessionManager.open(url, app="shop") as sessions:
            await sessions.create(id="s", state={"a": 1})

    asyncio.run(fill())
    done = sojourn("doctor", url, "--json")
    assert (done.code, set(verdicts(done).values())) == (0, {"ok"})
    assert json.loads(done.out)["apps"] == [
        {"app": "shop", "sessions": 1, "phases": {"OPEN": 1}, "due": 0}
    ]
    foreign = tmp_path / "other"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    done = sojourn("doctor", f"file://{foreign}", "--json")
    assert done.code != 0
    assert [entry.name for entry in foreign.iterdir()] == ["letter.txt"]
    done = sojourn("doctor", f"file://{tmp_path / 'nowhere'}")
    assert done.code != 0
    assert not (tmp_path / "nowhere").exists()

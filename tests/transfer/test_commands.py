"""`export`, `import` and `copy` on the command line: what they say, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import sojourn
from tests.cli.terminals import in_terminals, piped
from tests.transfer.contents import fill, opened

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Runner
    from tests.servers.redis import Server as RedisServer

__all__ = ["sojourn"]

FROM = ("--url", "sqlite:///from.db")
TO = ("--url", "sqlite:///to.db")
SESSIONS = 17


@pytest.fixture
def source(tmp_path: Path) -> None:
    """A store with two apps, in the folder where the commands run."""

    async def made() -> None:
        async with opened(f"sqlite:///{tmp_path}/from.db") as store:
            await fill(store, "shop")
            await fill(store, "other")

    asyncio.run(made())


def test_an_export_is_imported(sojourn: Runner, source: None, tmp_path: Path) -> None:
    done = sojourn("export", "all.gz", *FROM, "--json")
    assert done.code == 0
    assert done.err == ""
    facts = json.loads(done.out)
    assert facts["sessions"] == 2 * SESSIONS
    assert facts["corrupt"] == 0
    done = sojourn("import", "all.gz", *TO)
    assert done.code == 0
    assert f"restored   {2 * SESSIONS}\n" in done.out
    done = sojourn("import", "all.gz", *TO, "--json")
    assert json.loads(done.out)["unchanged"] == 2 * SESSIONS


def test_apps_are_chosen_before_or_behind_the_command(
    sojourn: Runner, source: None, tmp_path: Path
) -> None:
    for number, given in enumerate((("--app", "shop", "export"), ("export", "--app", "shop"))):
        done = sojourn(*given, f"{number}", *FROM, "--json")
        assert json.loads(done.out)["sessions"] == SESSIONS
    done = sojourn("import", "0", *TO, "--app", "other", "--json")
    assert json.loads(done.out)["restored"] == 0


def test_the_url_chooses_an_app_too(sojourn: Runner, source: None) -> None:
    """That of the store to read from, or to import into; `--app` comes first."""
    remark = "sojourn: only app 'shop', as the URL says\n"
    url = "sqlite:///from.db?app=shop"
    done = sojourn("export", "file", "--url", url, "--json")
    assert (json.loads(done.out)["sessions"], done.err) == (SESSIONS, remark)
    done = sojourn("copy", url, "sqlite:///copied.db", "--json")
    assert (json.loads(done.out)["verified"], done.err) == (SESSIONS, remark)
    assert sojourn("export", "all", *FROM).code == 0
    done = sojourn("import", "all", "--url", "sqlite:///to.db?app=shop", "--json")
    assert (json.loads(done.out)["restored"], done.err) == (SESSIONS, remark)
    both = ("--app", "shop", "--app", "other")
    done = sojourn("export", "both", "--url", url, *both, "--json")
    assert (json.loads(done.out)["sessions"], done.err) == (2 * SESSIONS, "")


def test_an_app_that_is_set_for_other_commands_leaves_no_other_out(
    sojourn: Runner, source: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A backup without them would be missed when it is needed; it is said."""
    monkeypatch.setenv("SOJOURN_APP", "shop")
    done = sojourn("export", "a", *FROM, "--json")
    assert json.loads(done.out)["sessions"] == 2 * SESSIONS
    assert done.err == (
        "sojourn: all apps, not only 'shop' of environment SOJOURN_APP. try: --app shop\n"
    )
    done = sojourn("export", "b", *FROM, "--app", "shop", "--json")
    assert (json.loads(done.out)["sessions"], done.err) == (SESSIONS, "")
    monkeypatch.delenv("SOJOURN_APP")
    (tmp_path / "sojourn.toml").write_text('app = "shop"')
    done = sojourn("copy", "sqlite:///from.db", "sqlite:///to.db", "--json")
    assert json.loads(done.out)["verified"] == 2 * SESSIONS
    assert "all apps, not only 'shop' of " in done.err


def test_an_app_without_sessions_is_noted(sojourn: Runner, source: None) -> None:
    typed = ("--app", "shop", "--app", "typo")
    for arguments in (("export", "file", *FROM), ("copy", "sqlite:///from.db", "sqlite:///to.db")):
        done = sojourn(*arguments, *typed)
        assert (done.code, done.err) == (0, "sojourn: no sessions in app 'typo'\n")
    done = sojourn("import", "file", *TO, "--app", "typo", "--app", "x")
    assert (done.code, done.err) == (0, "sojourn: no sessions of 'typo', 'x' in the file\n")


def test_streams_stand_for_files(source: None, tmp_path: Path) -> None:
    done = piped(tmp_path, "export", "-", *FROM)
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) > 2 * SESSIONS
    done = piped(tmp_path, "import", "-", *TO, "--json", typed=done.out)
    assert json.loads(done.out)["restored"] == 2 * SESSIONS


def test_nobody_reads_the_export(source: None, tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.cli.terminals import surroundings

    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sojourn", "export", "-", *FROM]
    done = subprocess.run(
        command, stdout=write, cwd=tmp_path, env=surroundings(), check=False, capture_output=False
    )
    os.close(write)
    assert done.returncode == 141


def test_an_export_overwrites_nothing(sojourn: Runner, source: None, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("precious")
    done = sojourn("export", "taken", *FROM)
    assert done.code == 4
    assert done.err.startswith("sojourn: taken: there is a file already")
    assert (tmp_path / "taken").read_text() == "precious"


def test_what_is_not_there_is_not_made(sojourn: Runner, tmp_path: Path) -> None:
    for arguments, code in (
        (("export", "file", *FROM), 5),
        (("copy", "sqlite:///from.db", "sqlite:///to.db"), 5),
        (("import", "file", *TO), 2),
    ):
        done = sojourn(*arguments)
        assert done.code == code
        assert "there is no" in done.err
        assert not list(tmp_path.iterdir())


def test_json_and_the_stream_do_not_go_together(sojourn: Runner, source: None) -> None:
    assert sojourn("export", "-", "--json", *FROM).code == 2


def test_a_damaged_file_is_named_with_its_line(
    sojourn: Runner, source: None, tmp_path: Path
) -> None:
    sojourn("export", "file", *FROM)
    path = tmp_path / "file"
    path.write_bytes(path.read_bytes().replace(b"shop-003", b"shop-00X", 1))
    done = sojourn("import", "file", *TO)
    assert done.code == 1
    assert done.err.startswith("sojourn: file, line ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("words", b"root:x:0:0:root:/root:/bin/bash\n", 5),
        ("empty", b"", 5),
        ("later", b'{"line":1,"record":"export","version":99}\n', 5),
        ("cut", b'{"line":1,"record":"export","version":1', 5),
        ("bad.gz", b"\x1f\x8b\x08\x00 no gzip", 1),
        ("plain.gz", b"not compressed", 1),
        (".", b"", 5),
    ],
)
def test_what_is_no_export_makes_no_store(
    sojourn: Runner, tmp_path: Path, name: str, content: bytes, code: int
) -> None:
    if name != ".":
        (tmp_path / name).write_bytes(content)
    for url in (TO, ("--url", f"file://{tmp_path}/to")):
        done = sojourn("import", name, *url)
        assert (done.code, done.err.count("\n")) == (code, 1)
        assert "doctor" not in done.err
        assert [path.name for path in tmp_path.iterdir()] == [name] * (name != ".")
    done = piped(tmp_path, "import", "-", *TO, typed=content.decode("latin-1"))
    assert done.code == 5
    assert len(list(tmp_path.iterdir())) == (name != ".")


def test_an_app_that_can_not_be_makes_no_store(
    sojourn: Runner, source: None, tmp_path: Path
) -> None:
    sojourn("export", "file", *FROM)
    assert sojourn("import", "file", "--app", "\x00", *TO).code == 2
    assert not (tmp_path / "to.db").exists()


def test_trouble_with_the_file_is_not_the_stores(
    sojourn: Runner, source: None, tmp_path: Path
) -> None:
    """The store is well: no doctor is sent to it."""
    done = sojourn("export", "nowhere/file", *FROM)
    reason = "No such file or directory"
    assert (done.code, done.err) == (5, f"sojourn: nowhere/file: {reason}. try: check the path\n")
    done = sojourn("import", ".", *TO)
    assert (done.code, done.err) == (5, "sojourn: .: Is a directory. try: check the path\n")


def test_refusals_are_said_one_by_one(sojourn: Runner, source: None, tmp_path: Path) -> None:
    sojourn("export", "file", *FROM)
    sojourn("import", "file", *TO)
    end = ("end", "--begin", "--yes", "--app", "shop", *TO)
    for id in ("shop-000", "shop-fork"):
        assert sojourn(*end, id).code == 0
    done = sojourn("import", "file", *TO)
    assert done.code == 4
    *notes, last = done.err.splitlines()
    assert [note.partition("session ")[2][:9] for note in notes] == ["'shop-000", "'shop-for"]
    assert all("line " in note for note in notes)
    assert last.startswith("sojourn: 2 sessions were not imported. try: --replace")


def test_a_copy_is_compared(sojourn: Runner, source: None, tmp_path: Path) -> None:
    done = sojourn("copy", "sqlite:///from.db", "sqlite:///to.db")
    assert done.code == 0
    assert f"verified   {2 * SESSIONS}\n" in done.out
    done = sojourn("copy", "sqlite:///from.db", "sqlite:///to.db", "--final", "--json")
    assert json.loads(done.out)["verified"] == 2 * SESSIONS


def test_a_copy_that_can_not_be_the_same_says_so(
    sojourn: Runner, source: None, tmp_path: Path
) -> None:
    async def spoiled() -> None:
        from sojourn import SessionManager

        async with SessionManager.open(f"sqlite:///{tmp_path}/to.db", app="shop") as sessions:
            await sessions.create(id="shop-000")

    asyncio.run(spoiled())
    done = sojourn("copy", "sqlite:///from.db", "sqlite:///to.db")
    assert done.code == 4
    assert "different  1\n" in done.out
    assert "session 'shop-000'" in done.err


def test_a_store_is_not_copied_onto_itself(sojourn: Runner, source: None, tmp_path: Path) -> None:
    done = sojourn("copy", "sqlite:///from.db", f"sqlite:///{tmp_path}/from.db")
    assert done.code == 2


def test_two_prefixes_of_one_redis_are_two_stores(
    sojourn: Runner, source: None, redis_server: RedisServer, tmp_path: Path
) -> None:
    first, second = (f"{redis_server.url}?prefix={tmp_path.name}-{n}" for n in (1, 2))
    assert sojourn("copy", "sqlite:///from.db", first).code == 0
    done = sojourn("copy", first, second)
    assert (done.code, done.err) == (0, "")
    assert f"put        {2 * SESSIONS}\n" in done.out
    assert f"?prefix={tmp_path.name}-1" in sojourn("doctor", "--url", first).out
    assert sojourn("copy", first, f"{first}&timeout=5").code == 2


def test_a_damaged_store_ends_the_export_with_one(
    sojourn: Runner, source: None, tmp_path: Path
) -> None:
    import apsw

    with apsw.Connection(str(tmp_path / "from.db")) as db:
        db.execute("UPDATE sessions SET state = '{' WHERE id = 'shop-001'")
    done = sojourn("export", "file", *FROM)
    assert done.code == 1
    assert "session 'shop-001'" in done.err
    assert "1 sessions or things that they share can not be read" in done.err


def test_a_damaged_tier_ends_the_copy_with_four(
    sojourn: Runner, source: None, tmp_path: Path
) -> None:
    import apsw

    with apsw.Connection(str(tmp_path / "from.db")) as db:
        db.execute("UPDATE tiers SET value = '1e999' WHERE app = 'shop' AND owner LIKE '%u-1'")
    done = sojourn("copy", "sqlite:///from.db", "sqlite:///to.db")
    assert done.code == 4
    assert "different  1\n" in done.out
    assert "app 'shop': the tier of 'u-1' is corrupt" in done.err
    assert "1 sessions or things that they share are not the same" in done.err


def test_progress_is_shown_on_a_terminal(source: None, tmp_path: Path) -> None:
    shown = in_terminals(tmp_path, "export", "{columns}.gz", *FROM)
    for columns, done in shown.items():
        assert done.code == 0
        assert done.screen.wrapped == 0
        assert "exporting" in done.screen.text
        assert f"{2 * SESSIONS}/" in done.screen.text
        assert (tmp_path / f"{columns}.gz").exists()
    shown = in_terminals(tmp_path, "copy", "sqlite:///from.db", "sqlite:///{columns}.db")
    for done in shown.values():
        assert done.code == 0
        assert "copying" in done.screen.text
        assert "verifying" in done.screen.text

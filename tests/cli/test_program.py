"""How the program is called and how it ends: options, exit codes, errors, completion."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.terminals import PROGRAM, SECONDS, Done, piped, surroundings
from tests.docs.pages import ROOT

from sojourn import __main__, errors
from sojourn.cli import looking
from sojourn.cli.failures import ANSWERS, MEANINGS, ExitCode, answer, told
from sojourn.cli.program import build

if TYPE_CHECKING:
    from tests.cli.conftest import Runner

HERE = ("-u", "sqlite:///app.db", "--app", "shop")


# --- exit codes -----------------------------------------------------------------------------------


def test_the_codes_are_what_they_have_always_been() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "CONFLICT": 4,
        "UNAVAILABLE": 5,
        "INTERRUPTED": 130,
        "UNHEARD": 141,
        "TERMINATED": 143,
    }
    assert set(MEANINGS) == set(ExitCode)


def test_no_answer_is_hidden_by_one_before_it() -> None:
    for place, (kind, _, _) in enumerate(ANSWERS):
        assert not any(issubclass(kind, earlier) for earlier, _, _ in ANSWERS[:place]), kind


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("s"), 3),
        (errors.NotOwner("s"), 3),
        (errors.Ended("s", "ENDED", "over"), 3),
        (errors.AlreadyExists("s"), 4),
        (errors.Conflict("s", ("e", 1), ("e", 2)), 4),
        (errors.InvalidTransition("OPEN", "SPAWN", "no"), 4),
        (errors.LeaseHeld("s", 0), 4),
        (errors.InvalidId("user", "empty"), 2),
        (errors.InvalidCursor("other query"), 2),
        (errors.InvalidSetting("idle", "environment", "no"), 2),
        (errors.MissingExtra("telemetry", "otel"), 2),
        (errors.Unavailable("s", "locked"), 5),
        (errors.StorageFull("s", "full"), 5),
        (errors.Closed("s"), 5),
        (errors.Corrupt("s", "no JSON"), 1),
        (errors.EndFailed("s", ()), 1),
        (ZeroDivisionError(), 1),
    ],
    ids=lambda given: type(given).__name__,
)
def test_each_error_has_its_code_and_a_next_step(error: Exception, code: int) -> None:
    found, step = answer(error)
    assert found == code
    assert step
    assert told(error)


# --- errors are one line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ls", "--no-such-option"), 2),
        (("no-such-command",), 2),
        (("show",), 2),
        (("ls", "--limit", "0", *HERE), 2),
        (("ls", "--limit", "1001", *HERE), 2),
        (("ls", "--phase", "nowhere", *HERE), 2),
        (("ls", "--order", "random", *HERE), 2),
        (("ls", "--label", "channel", *HERE), 2),
        (("ls", "--label", "a=1", "--label", "a=2", *HERE), 2),
        (("ls", "--user", "\x1b[31m", *HERE), 2),
        (("ls", "--cursor", "bogus", *HERE), 2),
        (("ls", "-u", "app.db"), 2),
        (("ls", "-u", "ftp://host/x"), 2),
        (("ls", "-u", "sqlite:///app.db?x=1"), 2),
        (("tail", "s-1", "--last", "1", "--after", "1", *HERE), 2),
        (("reap", "--batch", "0", *HERE), 2),
        (("reap", "--batch", "99999999999999999999", *HERE), 2),
        (("ls", "-u", "http://[::1"), 2),
        (("show", "s-1", "-u", "postgresql://me:secret@[::1"), 2),
        (("ls", "-u", "sqlite:///a%00.db"), 2),
        (("ls", "-u", "file:///a%00b"), 2),
        (("copy", "sqlite:///app.db", "sqlite://[x/a.db"), 2),
        (("doctor", "redis://[x"), 2),
        (("end", "s-1", "--yes", "--retain", "0", *HERE), 2),
        (("end", "s-1", "--yes", "--retain", "inf", *HERE), 2),
        (("show", "\x1b]0;x\x07", *HERE), 3),
        (("show", "[bold]x[/bold]", *HERE), 3),
        (("tail", "nope", *HERE), 3),
    ],
)
def test_what_goes_wrong_is_one_line_with_the_next_step(
    database: Path, sojourn: Runner, arguments: tuple[str, ...], code: int
) -> None:
    done = sojourn(*arguments)
    assert done.code == code
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("sojourn: ")
    assert ". try: " in line
    assert line.isprintable()


def test_a_password_is_not_repeated(tmp_path: Path, sojourn: Runner) -> None:
    for url in ("ftp://me:s3cret@host/x", "me:s3cret@host", "sqlite:///x.db?password=s3cret"):
        for command in ("ls", "conform", "bench"):
            done = sojourn(command, "-u", url)
            assert done.code == 2
            assert "s3cret" not in done.err + done.out


def test_an_unexpected_error_is_one_line_too(
    database: Path, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(looking, "labels_from", broken)
    done = sojourn("ls", *HERE)
    assert done == Done(
        1, "", "sojourn: RuntimeError: two lines. try: the same with --debug, to see where\n"
    )


@pytest.mark.parametrize("place", ["before", "behind"])
def test_debug_shows_where(database: Path, sojourn: Runner, place: str) -> None:
    command = ["show", "nope", *HERE]
    given = ["--debug", *command] if place == "before" else [*command, "--debug"]
    done = sojourn(*given)
    assert done.code == 3
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("sojourn: session 'nope'")


def test_debug_can_be_an_id(database: Path, sojourn: Runner) -> None:
    done = sojourn("show", *HERE, "--", "--debug")
    assert done.err == "sojourn: session '--debug': no such session. try: sojourn ls\n"


# --- which store ----------------------------------------------------------------------------------


def test_the_nearest_url_wins(
    tmp_path: Path, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*arguments: str) -> str:
        return sojourn(*arguments).err.partition(". try")[0].rpartition(" ")[2]

    assert asked("ls") == "sojourn.db"
    (tmp_path / "sojourn.toml").write_text('url = "sqlite:///toml.db"\n')
    assert asked("ls") == "toml.db"
    monkeypatch.setenv("SOJOURN_URL", "sqlite:///environment.db")
    assert asked("ls") == "environment.db"
    assert asked("-u", "sqlite:///before.db", "ls") == "before.db"
    assert asked("-u", "sqlite:///before.db", "ls", "-u", "sqlite:///own.db") == "own.db"


def test_no_store_was_named(tmp_path: Path, sojourn: Runner) -> None:
    done = sojourn("ls")
    assert done.code == 2
    assert "try: --url sqlite:///app.db, or set SOJOURN_URL" in done.err
    assert not list(tmp_path.iterdir())


def test_the_app_comes_from_the_environment_too(
    database: Path, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_APP", "shop")
    monkeypatch.setenv("SOJOURN_URL", "sqlite:///app.db")
    assert "s-1 " in sojourn("ls").out
    assert "s-1 " not in sojourn("--app", "other", "ls").out


def test_an_empty_option_is_no_default(database: Path, sojourn: Runner) -> None:
    """It comes of a variable that was not set: then the wrong store, or app, would be meant."""
    for given in (("--app", ""), ("--url", "")):
        done = sojourn("forget", "ada", "--yes", *given)
        assert (done.code, done.out) == (2, "")
        assert f"setting '{given[0][2:]}' (argument)" in done.err
    assert sojourn("conform", "", "--list").code == 0
    assert sojourn("conform", "", "--url", str(database)).code == 2


# --- around it ------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Return the names of all commands."""
    return list(build().commands)


def test_help_names_every_command(sojourn: Runner) -> None:
    done = sojourn("--help")
    assert done.code == 0
    assert {"ls", "show", "tail", "end", "delete", "forget", "reap", "fork"} <= set(commands())
    for name in commands():
        assert f" {name} " in done.out
    bare = sojourn()
    assert (bare.code, bare.out.strip(), bare.err) == (2, done.out.strip(), "")


def test_version(sojourn: Runner) -> None:
    assert sojourn("--version") == Done(0, f"sojourn {version('sojourn')}\n", "")


def test_the_script_is_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"sojourn": "sojourn.__main__:main"}
    assert callable(__main__.main)


def test_without_its_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "sojourn.cli.program")
    monkeypatch.setitem(sys.modules, "typer", None)
    assert __main__.main() == 2
    assert capsys.readouterr().err == (
        'sojourn: the command line needs typer. try: pip install "sojourn[cli]"\n'
    )


def test_another_module_that_is_missing_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sojourn.cli.program", None)
    with pytest.raises(ModuleNotFoundError, match="program"):
        __main__.main()


def test_a_shell_completes(tmp_path: Path) -> None:
    typed = {"COMP_WORDS": "sojourn ls --ano", "COMP_CWORD": "2"}
    done = piped(tmp_path, _SOJOURN_COMPLETE="complete_bash", **typed)
    assert done.out.split() == ["--anonymous"]


def test_a_terminal_without_unicode_gets_ascii(
    database: Path, monkeypatch: pytest.MonkeyPatch, sojourn: Runner
) -> None:
    done = piped(
        database.parent, "show", "agent-1", *HERE, PYTHONUTF8="0", PYTHONIOENCODING="ascii"
    )
    assert done.code == 0
    assert "CREATED -SPAWN-> SPAWNING -ACTIVATE-> [ACTIVE]" in done.out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_reads_back_whatever_the_encoding(
    database: Path, sojourn: Runner, encoding: str
) -> None:
    """It is ASCII where the stream is not UTF-8: such letters are no reason for it to be none."""
    id = "é 多 \U0001f600"
    assert sojourn("fork", "s-1", "--id", id, *HERE).code == 0
    given = {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    done = piped(database.parent, "show", id, "--json", *HERE, **given)
    assert json.loads(done.out)["id"] == id
    assert (id in done.out) == (encoding == "utf-8")
    done = piped(database.parent, "ls", "--json", "--all", *HERE, **given)
    assert id in [json.loads(line)["id"] for line in done.out.splitlines()]


def test_ctrl_c_while_it_works_is_130(
    database: Path, sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(work: asyncio.Future[None]) -> None:
        work.close()  # type: ignore[attr-defined]  # it is a coroutine
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run", interrupted)
    assert sojourn("ls", *HERE) == Done(130, "", "")


# --- streams that are not there -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", ["", "--help", "ls --help", "--version", "conform --list", "doctor memory://"]
)
def test_a_reader_that_went_away_is_141(tmp_path: Path, arguments: str) -> None:
    """Also where typer and rich have an answer of their own."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*PROGRAM, *arguments.split()],
            stdout=write,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=surroundings(),
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_end_of_another_reason_is_not_taken_for_that(
    sojourn: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object, **__: object) -> None:
        signal = SystemExit(ExitCode.TERMINATED)
        signal.__context__ = BrokenPipeError()
        raise signal

    monkeypatch.setattr(looking, "labels_from", ended)
    with pytest.raises(SystemExit) as caught:
        sojourn("ls", "-u", "memory://")
    assert caught.value.code == 143


@pytest.mark.parametrize("command", ["ls", "ls --json", "--version", "--help", "export -"])
def test_a_full_disk_behind_stdout_is_told(database: Path, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, *HERE, *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=database.parent,
            env=surroundings(),
            timeout=SECONDS,
            check=False,
        )
    told = "sojourn: <stdout>: No space left on device. try: again, once there is space\n"
    assert (done.returncode, done.stderr.decode()) == (5, told)


@pytest.mark.parametrize("command", ["ls --json", "ls", "--version", "export all"])
def test_a_closed_stdout_is_told(database: Path, command: str) -> None:
    done = closed(1, database.parent, *command.split(), "-u", "sqlite:///app.db")
    told = "sojourn: there is nowhere to write to: stdout is closed. try: the same with > /dev/null"
    assert done == Done(2, "", f"{told}\n")
    assert not (database.parent / "all").exists()


def test_a_closed_stderr_takes_only_the_remarks(database: Path) -> None:
    done = closed(2, database.parent, "ls", *HERE, "--all")
    assert done.code == 0
    assert "s-1 " in done.out
    assert closed(2, database.parent, "show", "nope", *HERE) == Done(3, "", "")


@pytest.mark.parametrize(
    ("command", "code"),
    [("show nope", 3), ("ls --limit 1", 0), ("bogus", 2), ("show nope --debug", 3)],
)
def test_an_exit_code_does_not_depend_on_who_reads_the_remarks(
    database: Path, command: str, code: int
) -> None:
    read, write = os.pipe()
    os.close(read)
    with Path("/dev/full").open("wb") as full, os.fdopen(write, "wb") as unread:
        for stream in (full, unread):
            done = subprocess.run(
                [*PROGRAM, *HERE, *command.split()],
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=database.parent,
                env=surroundings(),
                timeout=SECONDS,
                check=False,
            )
            assert (done.returncode, bool(done.stdout)) == (code, code == 0)


def closed(stream: int, folder: Path, *arguments: str) -> Done:
    """Run a command one of whose streams is closed."""
    shell = ["/bin/sh", "-c", f'exec "$@" {stream}>&-', "sh", *PROGRAM, *arguments]
    done = subprocess.run(
        shell,
        cwd=folder,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_closed_stdin_is_told(tmp_path: Path) -> None:
    shell = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *PROGRAM, "import", "-", "-u", "memory://"]
    done = subprocess.run(
        shell, cwd=tmp_path, env=surroundings(), capture_output=True, text=True, check=False
    )
    told = "sojourn: there is nothing to read: stdin is closed. try: a file\n"
    assert (done.returncode, done.stderr) == (2, told)


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
def test_a_terminal_of_no_size_is_none(database: Path, name: str) -> None:
    """Some surroundings set it so: a result must not be cut to nothing."""
    for command in ("ls", "show s-1", "ls --help"):
        given = (*HERE, *command.split())
        done, usual = piped(database.parent, *given, **{name: "0"}), piped(database.parent, *given)
        assert (done.code, done.err) == (0, "")
        assert len(done.out.splitlines()) == len(usual.out.splitlines()) > 1


def test_a_wish_for_no_colours_is_not_taken_for_one(tmp_path: Path) -> None:
    """`PY_COLORS=0`, as tools for tests set it, does not colour what goes into a pipe."""
    done = piped(tmp_path, "--help", PY_COLORS="0")
    assert done.code == 0
    assert "\x1b" not in done.out

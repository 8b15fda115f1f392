"""Every example in the documentation runs, and prints what it is said to print."""

from __future__ import annotations

import argparse
import ast
import asyncio
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from types import ModuleType
from typing import TYPE_CHECKING

import apsw
import pytest
from tests.docs.pages import PAGES, ROOT, Block, blocks_of, shares_folder

from sojourn import Event, Expiry, SessionManager
from sojourn.cli.program import build
from sojourn.demo.__main__ import parse
from sojourn.testing.simulator import __main__ as simulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 60
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHOWN = {"mermaid", "text"}
"""Languages of blocks that are drawings or lists, not examples."""


def of_language(*languages: str) -> list[Block]:
    """Return the blocks in these languages."""
    return [block for block in BLOCKS if block.language in languages]


def each(*languages: str) -> pytest.MarkDecorator:
    """Make one test of each block in these languages."""
    found = [block for block in of_language(*languages) if not shares_folder(block.page)]
    return pytest.mark.parametrize("block", found, ids=[str(block) for block in found])


def test_every_block_is_checked_by_something() -> None:
    """A block in a language that nothing here runs would be an example that nobody tried."""
    # PostgreSQL's statements are run with the tests of its store.
    known = {"python", "python test", "py", "sql", "postgresql", "sh", *SHOWN}
    assert {block.language for block in BLOCKS} <= known
    assert all(block.page.parent.name == "reference" for block in of_language("py"))  # compared
    assert len(of_language("python")) >= 20
    assert any(block.output for block in BLOCKS)


@each("python")
def test_an_example_runs(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It raises nothing, in a folder of its own, and prints exactly what it is said to print."""
    monkeypatch.chdir(tmp_path)
    run(block)
    printed = capsys.readouterr().out
    assert printed == (block.output or "")


GROWING = [page for page in PAGES if shares_folder(page)]


@pytest.mark.parametrize("page", GROWING, ids=lambda page: page.name)
def test_examples_that_build_on_one_another_run_in_order(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one folder, commands too; each prints what it is said to, where … is anything."""
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(page):
        if block.language == "python":
            run(block)
            printed = capsys.readouterr().out
        else:
            assert block.language == "sh", f"{block} has nothing that runs it"
            printed = "".join(
                perform(shlex.split(line), tmp_path) for line in block.text.splitlines()
            )
        assert is_like(printed, block.output or ""), f"{block} printed:\n{printed}"


def perform(words: list[str], folder: Path) -> str:
    """Run a command of ours and return what it prints; of another, see that it is one."""
    if words[0] != "sojourn":
        COMMANDS[words[0]](words, folder)
        return ""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_like(printed: str, said: str) -> bool:
    """Return whether a text is what was said, where … stands for anything within a line."""
    return re.fullmatch(re.escape(said).replace("…", ".*"), printed) is not None


def test_what_is_printed_is_compared_line_by_line() -> None:
    """An ellipsis hides nothing beyond its line."""
    assert is_like("1 a\n2 b\n", "1 …\n2 b\n")
    assert not is_like("1 a\n2 c\n", "1 …\n2 b\n")
    assert not is_like("1 a\n2 b\n", "1 …\n")


def run(block: Block) -> None:
    """Run a block of Python as a module in which `await` may stand at the top."""
    text = "\n" * block.line + block.text  # lines in tracebacks are those of the page
    code = compile(
        text, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    module = ModuleType("example")
    sys.modules[module.__name__] = module  # frameworks look up what an annotation means there
    try:
        made = eval(code, vars(module))  # noqa: S307 - the examples are ours
        if inspect.iscoroutine(made):

            async def bounded() -> None:
                async with asyncio.timeout(SECONDS):
                    await made

            asyncio.run(bounded())
    finally:
        del sys.modules[module.__name__]


def test_a_wrong_example_would_be_found(tmp_path: Path) -> None:
    """The runner awaits, lets through what an example raises, and knows what it is to print."""
    page = tmp_path / "page.md"
    page.write_text("```python\nawait nothing()\n```\n\n```output\n1\n```\n\n```sql\nx\n```\n")
    first, second = blocks_of(page)
    assert first.output == "1\n"
    assert (second.language, second.line, second.output) == ("sql", 9, None)
    with pytest.raises(NameError, match="nothing") as caught:
        run(first)
    assert caught.traceback[-1].lineno == 1  # counted from 0: the second line of the page


@each("python test")
def test_an_example_of_a_test_file_passes(block: Block, tmp_path: Path) -> None:
    """A test file that is shown passes, for a store that keeps the laws."""
    (tmp_path / "test_example.py").write_text(block.text)
    (tmp_path / "my_store.py").write_text(
        "from sojourn.stores.memory import MemoryStore as MyStore\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with sessions in several phases, events, state in all tiers, and documents."""
    path = tmp_path / "app.db"

    async def fill() -> None:
        async with SessionManager.open(f"sqlite:///{path}", app="shop") as sessions:
            session = await sessions.create(
                id="s-1",
                user="u-1",
                state={"cart": ["tea"], "user:theme": "dark", "app:motd": "hi"},
                expiry=Expiry(idle=1800),
                labels={"channel": "web"},
            )
            await sessions.append(session, Event(kind="message", body={"text": "hi"}))
            await sessions.documents(session.id).put("notes", "one", b"text")

    asyncio.run(fill())
    return path


@each("sql")
def test_an_example_of_sql_runs(block: Block, database: Path) -> None:
    """Each statement that is shown returns rows of a file with a little of everything."""
    with apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY) as db:
        for statement in filter(str.strip, block.text.split(";")):
            assert db.execute(statement).fetchall(), statement


@each("sh")
def test_an_example_of_a_command_is_one(block: Block, database: Path) -> None:
    """Each command that is shown exists, with the options that are shown."""
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        program = " ".join(words[:3]) if words[0] == "python" else words[0]
        assert program in COMMANDS, line
        COMMANDS[program](words, database)


def _make(words: list[str], _database: Path) -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[1] in targets


def _pip(words: list[str], _database: Path) -> None:
    """It cannot be installed from inside its own tests; `.` has to be installable, though."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[:2] == ["pip", "install"]
    where, _, extras = words[2].rstrip("]").partition("[")
    assert where == "."
    assert set(filter(None, extras.split(","))) <= set(known)


def _demo(words: list[str], _database: Path) -> None:
    assert isinstance(parse(words[3:]), argparse.Namespace)


def _simulator(words: list[str], _database: Path) -> None:
    assert isinstance(simulator.parse(words[3:]), argparse.Namespace)


def _sqlite3(words: list[str], database: Path) -> None:
    with apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY) as db:
        assert db.execute(words[-1]).fetchall()


def _sojourn(words: list[str], _database: Path) -> None:
    """Parse it as the program would, and run nothing."""
    context = build().make_context("sojourn", words[1:], resilient_parsing=False)
    name, command, rest = build().resolve_command(
        context, [*context._protected_args, *context.args]
    )
    assert command.make_context(name, rest).params is not None


COMMANDS: dict[str, Callable[[list[str], Path], None]] = {
    "make": _make,
    "pip": _pip,
    "python -m sojourn.demo": _demo,
    "python -m sojourn.testing.simulator": _simulator,
    "sojourn": _sojourn,
    "sqlite3": _sqlite3,
}
"""What is done about each command that may be shown."""

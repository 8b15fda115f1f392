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
from typing import TYPE_CHECKING

import apsw
import pytest
from tests.docs.pages import PAGES, ROOT, Block, blocks_of

from sojourn import Event, Expiry, SessionManager
from sojourn.demo.__main__ import parse

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
    found = of_language(*languages)
    return pytest.mark.parametrize("block", found, ids=[str(block) for block in found])


def test_every_block_is_checked_by_something() -> None:
    """A block in a language that nothing here runs would be an example that nobody tried."""
    known = {"python", "python test", "sql", "sh", *SHOWN}
    assert {block.language for block in BLOCKS} <= known
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


def run(block: Block) -> None:
    """Run a block of Python as a module in which `await` may stand at the top."""
    text = "\n" * block.line + block.text  # lines in tracebacks are those of the page
    code = compile(
        text, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    names: dict[str, object] = {"__name__": "example"}
    made = eval(code, names)  # noqa: S307 - the examples are ours
    if inspect.iscoroutine(made):

        async def bounded() -> None:
            async with asyncio.timeout(SECONDS):
                await made

        asyncio.run(bounded())


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
    assert words == ["pip", "install", "."]
    assert (ROOT / "pyproject.toml").exists()


def _demo(words: list[str], _database: Path) -> None:
    assert isinstance(parse(words[3:]), argparse.Namespace)


def _sqlite3(words: list[str], database: Path) -> None:
    with apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY) as db:
        assert db.execute(words[-1]).fetchall()


COMMANDS: dict[str, Callable[[list[str], Path], None]] = {
    "make": _make,
    "pip": _pip,
    "python -m sojourn.demo": _demo,
    "sqlite3": _sqlite3,
}
"""What is done about each command that may be shown."""

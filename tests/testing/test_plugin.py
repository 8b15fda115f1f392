"""The pytest face as a third party sees it: a small test file, in a pytest run of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sojourn.store import SupportsBackup
from sojourn.stores.memory import MemoryStore
from sojourn.testing import LAWS
from sojourn.testing.plugin import StoreLaws

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
from sojourn.store import SupportsBackup, SupportsLease
from sojourn.stores.memory import MemoryStore
from sojourn.testing.plugin import StoreLaws

class Mine(MemoryStore):
    async def count(self, query):
        return {count}

class TestMine(StoreLaws):
    without = ({without})

    def make_store(self, folder):
        return Mine()
"""


def run_pytest(folder: Path, source: str, *options: str) -> str:
    """Run pytest on one file in a folder of its own and return what it prints."""
    (folder / "test_mine.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers"]
    done = subprocess.run(
        [*command, *options, "test_mine.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return done.stdout + done.stderr


def python(program: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_a_small_file_checks_a_store(tmp_path: Path) -> None:
    source = FILE.format(count="await super().count(query)", without="SupportsBackup,")
    output = run_pytest(tmp_path, source, "-q")
    lacking = [law for law in LAWS.values() if law.needs and law.needs.__name__ in ABSENT]
    assert f"{len(LAWS) - len(lacking) + 1} passed" in output, output
    assert "skipped" not in output
    assert "warning" not in output


ABSENT = ("Reopen", "SupportsBackup")
"""What the memory store of these tests can not do."""


def test_a_broken_law_fails_its_own_test_and_says_how(tmp_path: Path) -> None:
    source = FILE.format(count="0", without="SupportsBackup,")
    output = run_pytest(tmp_path, source, "-k", "a_count_is_not_a_page or lists_of_the_unknown")
    assert "1 failed, 1 passed" in output, output
    assert "test_law[a_count_is_not_a_page]" in output
    assert "the count with a limit: expected 7, got 0" in output
    assert LAWS["a_count_is_not_a_page"].text in output
    assert "Traceback" not in output


def test_an_ability_that_is_neither_there_nor_left_out_fails(tmp_path: Path) -> None:
    source = FILE.format(count="0", without="")
    output = run_pytest(tmp_path, source, "-k", "a_backup_overwrites_nothing")
    assert "the store has no SupportsBackup; name it in `without`" in output


def test_an_ability_that_is_left_out_though_it_is_there_fails(tmp_path: Path) -> None:
    source = FILE.format(count="0", without="SupportsLease, SupportsBackup")
    output = run_pytest(tmp_path, source, "-k", "without_is_so or lease")
    assert "1 failed" in output
    assert "has SupportsLease: strike it off `without`" in output


def test_laws_carry_the_numbers_of_their_behaviours(tmp_path: Path) -> None:
    source = FILE.format(count="0", without="SupportsBackup,")
    output = run_pytest(tmp_path, source, "--collect-only", "-q", "-m", "behaviour")
    marked = [law.name for law in LAWS.values() if law.behaviours and law.noun != "durability"]
    for name in marked:
        assert f"test_law[{name}]" in output
    assert f"{len(marked)}/" in output
    assert "behaviour(number)" in run_pytest(tmp_path, source, "--markers")


def test_loading_the_plugin_loads_no_laws_and_no_backend() -> None:
    program = (
        "import sys, sojourn.testing.plugin;"
        "print([name for name in sys.modules if name in"
        " ('apsw', 'sojourn.testing.laws', 'sojourn.stores.memory', 'sojourn.stores.sqlite')])"
    )
    assert python(program) == "[]"


def test_importing_the_package_needs_no_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None;"
        "import sojourn.testing as t;"
        "print(all(getattr(t, name) is not None for name in t.__all__))"
    )
    assert python(program) == "True"


def test_what_has_to_be_overridden_says_so(tmp_path: Path) -> None:
    class Mine(StoreLaws):
        pass

    with pytest.raises(NotImplementedError, match="Mine does not override make_store"):
        Mine().make_store(tmp_path)
    with pytest.raises(NotImplementedError, match="Mine does not override reopen_store"):
        Mine().reopen_store(tmp_path)


class TestMadeByACoroutine(StoreLaws):
    """A store that takes an await to make."""

    without = (SupportsBackup,)

    async def make_store(self, folder: Path) -> MemoryStore:  # noqa: ARG002 - it needs none
        return MemoryStore()

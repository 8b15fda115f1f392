"""The style of the code base as tests: what linters do not check, or check less strictly."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "sojourn"
TESTS = ROOT / "tests"

MAX_BODY = 40
"""Lines of a function without its docstring."""

MAX_FILE = 500
"""Lines of a module without its docstrings."""

RATCHET: dict[str, tuple[int, str]] = {}
"""Functions that want to be longer: `path::qualified.name` to (lines, reason).

They may shrink and not grow; one that shrank gets its new number, one that fits is struck off.
"""

VAGUE_NAMES = {"base", "common", "helpers", "misc", "utils"}
"""Names that say nothing about what belongs in a module."""

CODE_RUNNERS = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}
"""Modules whose decoding can run code, or that build on one that can."""

DIRECTIVE = re.compile(r"\bnoqa\b|type:\s*ignore")
CODED_DIRECTIVE = re.compile(
    r"\b(?:ruff:\s*)?noqa:\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*"
    r"|type:\s*ignore\[[a-z0-9-]+(?:\s*,\s*[a-z0-9-]+)*\]"
)
REASON = re.compile(r"[A-Za-z]{2,}\W+[A-Za-z]{2,}")

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAP_LINE = re.compile(r"^\s*(?:src/sojourn/)?([\w/]+\.py)\s{2,}(\S.*?)\s*$", re.MULTILINE)

MODULES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))
TEST_FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))


def for_each(paths: Iterable[str]) -> Callable[[Callable[[str], None]], Callable[[], None]]:
    """Make one test of a check of each file: two thousand tests would cost more than the checks."""

    def decorate(check: Callable[[str], None]) -> Callable[[], None]:
        def test() -> None:
            for path in paths:
                check(path)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


every_module = for_each(MODULES)
every_test_file = for_each(TEST_FILES)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_there_is_something_to_check() -> None:
    assert "errors.py" in MODULES
    assert Path(__file__).name in TEST_FILES


# ----------------------------------------------------------------------------------------- size


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Yield every function with its qualified name, those inside classes and functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield f"{prefix}{node.name}", node
        if isinstance(node, Function | ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def body_lines(function: Function) -> int:
    """Count the lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    first = body[0].lineno
    if isinstance(body[0], Function | ast.ClassDef):
        first = min([first, *(decorator.lineno for decorator in body[0].decorator_list)])
    return (function.end_lineno or first) - first + 1


def lengths(module: str) -> dict[str, int]:
    """Return the length of every function of a module, by `path::qualified.name`."""
    return {f"{module}::{name}": body_lines(node) for name, node in functions(parse(SRC / module))}


@every_module
def test_functions_are_short(module: str) -> None:
    for name, lines in lengths(module).items():
        allowed, _ = RATCHET.get(name, (MAX_BODY, ""))
        assert lines <= allowed, f"{name} has {lines} lines, {allowed} are allowed"


def test_the_ratchet_only_tightens() -> None:
    known = {name: lines for module in MODULES for name, lines in lengths(module).items()}
    for name, (allowed, reason) in RATCHET.items():
        assert reason, f"{name} is excepted without a reason"
        assert name in known, f"{name} is gone: strike it off the ratchet"
        assert known[name] > MAX_BODY, f"{name} fits by now: strike it off the ratchet"
        assert known[name] >= allowed, f"{name} shrank: lower its number to {known[name]}"


@every_module
def test_files_are_short(module: str) -> None:
    text = read(SRC / module)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = (
        (ast.get_docstring(node) or "").splitlines()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, documented)
    )
    lines = len(text.splitlines()) - sum(map(len, docstrings))
    assert lines <= MAX_FILE, f"{module} has {lines} lines: split it by what it is about"


@every_module
def test_names_say_what_belongs_inside(module: str) -> None:
    for part in Path(module).with_suffix("").parts:
        assert part.strip("_") not in VAGUE_NAMES


# ------------------------------------------------------------------------------ what is banned


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every imported name, dotted in full: `from time import sleep` is `time.sleep`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of a plain or dotted name, by what the file's imports say it is."""
    known = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } | {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, dot, rest = ast.unparse(node.func).partition(".")
            yield known.get(head, head) + dot + rest, node


@every_module
def test_stored_data_cannot_run_code(module: str) -> None:
    tree = parse(SRC / module)
    for line, name in imports(tree):
        assert name.partition(".")[0] not in CODE_RUNNERS, f"{module}:{line} imports {name}"
    for name, node in calls(tree):
        assert name not in {"eval", "exec"}, f"{module}:{node.lineno} calls {name}"


@every_module
def test_nothing_blocks_the_loop_by_sleeping(module: str) -> None:
    for name, node in calls(parse(SRC / module)):
        assert name != "time.sleep", f"{module}:{node.lineno} sleeps: wait for the thing itself"


@every_test_file
def test_tests_do_not_sleep(file: str) -> None:
    for name, node in calls(parse(TESTS / file)):
        where = f"{file}:{node.lineno}"
        assert name != "time.sleep", f"{where} sleeps: wait for the thing itself"
        if name == "asyncio.sleep" and node.args and isinstance(node.args[0], ast.Constant):
            assert node.args[0].value == 0, f"{where} sleeps: wait for the thing itself"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(1)",
        "import time as clock\nclock.sleep(1)",
        "from time import sleep\nsleep(1)",
        "from time import sleep as nap\nnap(1)",
    ],
)
def test_a_sleep_is_found_under_any_name(source: str) -> None:
    assert "time.sleep" in {name for name, _ in calls(ast.parse(source))}


# ------------------------------------------------------------------------- reasons for exceptions


@for_each([f"src/sojourn/{m}" for m in MODULES] + [f"tests/{f}" for f in TEST_FILES])
def test_a_silenced_check_names_its_code_and_its_reason(path: str) -> None:
    for line, comment in comments(ROOT / path):
        assert excused(comment), f"{path}:{line} needs a code and a reason: {comment}"


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments of a file with their line numbers."""
    for token in tokenize.generate_tokens(io.StringIO(read(path)).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def excused(comment: str) -> bool:
    """Tell whether each directive in a comment has a code, and something like a reason follows."""
    if not DIRECTIVE.search(comment):
        return True
    rest = CODED_DIRECTIVE.sub("", comment)
    return not DIRECTIVE.search(rest) and REASON.search(rest) is not None


@pytest.mark.parametrize(
    ("comment", "fine"),
    [
        ("# plain words", True),
        ("# noqa", False),
        ("# noqa: S608", False),
        ("# noqa: S608 - the table name is ours", True),
        ("# noqa: S608, E501 - the table name is ours", True),
        ("# type: ignore", False),
        ("# type: ignore[arg-type]", False),
        ("# type: ignore[arg-type]  # apsw's stub is too narrow", True),
        ("# type: ignore[arg-type]  # noqa: S608", False),
        ("# type: ignore  # noqa: S608 - the table name is ours", False),
    ],
)
def test_what_counts_as_a_reason(comment: str, fine: bool) -> None:
    assert excused(comment) is fine


# ------------------------------------------------------------------------- the map of the modules


def summary(module: str) -> str:
    """Return the first line of a module's docstring, empty if it has none."""
    return (ast.get_docstring(parse(SRC / module)) or "").partition("\n")[0]


def is_empty_package(module: str) -> bool:
    """Tell whether a module is an `__init__` without anything in it."""
    return Path(module).name == "__init__.py" and not read(SRC / module).strip()


def test_every_module_starts_with_a_summary() -> None:
    for module in MODULES:
        if not is_empty_package(module):
            first, _, rest = (ast.get_docstring(parse(SRC / module)) or "").partition("\n")
            assert first.endswith("."), f"{module} has no one-line summary"
            assert not rest or rest.startswith("\n"), f"{module}: the summary is one line"


def test_the_map_in_architecture_equals_the_modules() -> None:
    drawn = [
        line
        for block in FENCE.findall(read(ROOT / "ARCHITECTURE.md"))
        for line in MAP_LINE.findall(block)
    ]
    there = {
        module: summary(module).rstrip(".") for module in MODULES if not is_empty_package(module)
    }
    twice = [path for path, count in Counter(path for path, _ in drawn).items() if count > 1]
    assert not twice, f"on the map more than once: {twice}"
    assert {path: text.rstrip(".") for path, text in drawn} == there


# ----------------------------------------------------------------------------------------- reading


def read(path: Path) -> str:
    """Return a file's text."""
    return path.read_text(encoding="utf-8")


def parse(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(read(path), filename=str(path))

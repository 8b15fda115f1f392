"""The direction of imports: the contracts in pyproject.toml, and what they cannot say."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grimp

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "sojourn"
MODULES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))

CORE = {"msgspec", "sojourn"}
"""What any module may import beyond the standard library."""

ALLOWED = {
    "cli": {"rich", "typer"},
    "dishka": {"dishka"},
    "stores/postgres": {"asyncpg"},
    "stores/redis": {"hiredis", "redis"},
    "stores/sqlite": {"apsw"},
    "telemetry/opentelemetry": {"opentelemetry"},
    "telemetry/prometheus": {"prometheus_client"},
    "taskiq": {"taskiq"},
    "testing": {"hypothesis", "pytest"},
    "web/django": {"django"},
    "web/flask": {"flask", "werkzeug"},
    "web/dishka": {"dishka"},
    "web/litestar": {"litestar"},
    "web/litestar_store": {"litestar"},
    "web/starlette": {"starlette"},
    "web/starsessions": {"starsessions"},
}
"""What the modules below a folder may import as well."""

FACE_USERS = {"sojourn.demo"}
"""Who may import from the package itself: everyone else names the module, as the floors demand."""

NEVER_LOADED = [
    "anyio",
    "apsw",
    "asyncpg",
    "dishka",
    "django",
    "flask",
    "hypothesis",
    "langgraph",
    "litestar",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "pytest",
    "hiredis",
    "redis",
    "rich",
    "sqlite3",
    "starlette",
    "starsessions",
    "taskiq",
    "typer",
    "uvicorn",
    "websockets",
]


def python(program: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_contract_is_kept() -> None:
    python(
        "import sys; from importlinter.cli import lint_imports;"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True, no_logo=True))"
    )


def loaded_by_the_package() -> set[str]:
    """Return the top-level names of the modules that `import sojourn` loads."""
    program = (
        "import json, sys; before = set(sys.modules); import sojourn;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    return set(json.loads(python(program)))


def test_importing_the_package_loads_no_client_and_no_framework() -> None:
    loaded = loaded_by_the_package()
    assert "sojourn" in loaded
    assert loaded.isdisjoint(NEVER_LOADED)


def test_importing_the_package_loads_nothing_third_party_but_msgspec() -> None:
    # msgspec looks for typing_extensions, which only the tools of developers bring.
    optional = {"typing_extensions"}
    assert loaded_by_the_package() - sys.stdlib_module_names - optional <= CORE


def test_only_the_demo_imports_from_the_public_face() -> None:
    # The layers contract does not see imports of the package itself, which leads to every floor.
    graph = grimp.build_graph("sojourn", cache_dir=None)
    users = graph.find_modules_that_directly_import("sojourn")
    assert {user for user in users if not user.startswith("sojourn.demo.")} <= FACE_USERS


def test_a_module_imports_only_what_its_folder_may() -> None:
    for module in MODULES:
        allowed = set(CORE)
        for folder, extra in ALLOWED.items():
            if module == f"{folder}.py" or module.startswith(f"{folder}/"):
                allowed |= extra
        known = allowed | sys.stdlib_module_names
        for line, name in imported(SRC / module):
            assert name in known, f"{module}:{line} imports {name}"


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the top-level name of every import in a file, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno} imports relatively: name the module"
            yield node.lineno, (node.module or "").partition(".")[0]

"""Each module about a framework says what to install where that is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("sojourn.web.starlette", "starlette", "web"),
        ("sojourn.web.litestar", "litestar", "litestar"),
        ("sojourn.web.litestar_store", "litestar", "litestar"),
        ("sojourn.web.starsessions", "starsessions", "starsessions"),
        ("sojourn.web.dishka", "dishka", "dishka"),
        ("sojourn.taskiq", "taskiq", "taskiq"),
    ],
)
def test_without_its_package_a_module_says_what_to_install(
    module: str, package: str, extra: str
) -> None:
    """And the middleware itself does without any of them."""
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import sojourn.web, sojourn.web.identity, sojourn.arq\n"
        f"try:\n    import {module}\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert f'pip install "sojourn[{extra}]"' in done.stdout

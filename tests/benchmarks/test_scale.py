"""The comparison of few with many runs, on what the store itself finds nothing wrong with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.scale import main
from tests.servers.postgres import require_programs

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_every_call_is_measured_on_both_sides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_programs()
    figures = main(["--quick", "--folder", str(tmp_path)])
    kept = json.loads((tmp_path / "figures" / "scale.json").read_bytes())
    assert [each["name"] for each in kept["figures"]] == [figure.name for figure in figures]
    assert {"create", "get", "append", "sweep batch"} <= {figure.name for figure in figures}
    shown = capsys.readouterr().out
    for figure in figures:
        assert figure.ratio > 0
        assert figure.line() in shown

"""The gate beside the file is for whoever the file is for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sojourn.gate import SUFFIX, Gate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_whoever_may_write_the_file_may_take_its_gate(tmp_path: Path, mode: int) -> None:
    """Found when a group shares a file: its second member could not open the first one's gate."""
    path = tmp_path / "app.db"
    path.touch()
    path.chmod(mode)
    Gate(str(path)).close()
    assert (tmp_path / f"app.db{SUFFIX}").stat().st_mode & 0o777 == mode


def test_a_visit_of_root_does_not_lock_out_the_owner(tmp_path: Path) -> None:
    """Found with the command line: run once as root, it left a gate that was root's alone."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = tmp_path / "app.db"
    path.touch()
    os.chown(path, 12345, 23456)
    Gate(str(path)).close()
    gate = (tmp_path / f"app.db{SUFFIX}").stat()
    assert (gate.st_uid, gate.st_gid) == (12345, 23456)


def test_a_gate_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path, gate = tmp_path / "app.db", tmp_path / f"app.db{SUFFIX}"
    path.touch()
    path.chmod(0o600)
    gate.touch()
    gate.chmod(0o640)
    Gate(str(path)).close()
    assert gate.stat().st_mode & 0o777 == 0o640

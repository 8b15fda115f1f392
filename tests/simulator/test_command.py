"""`python -m sojourn.testing.simulator`: replay one seed, try many, and say how it went."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sojourn.testing import Run, Violation, simulate
from sojourn.testing.simulator import __main__ as command

if TYPE_CHECKING:
    from collections.abc import Callable


def wrong_from(seed: int) -> Callable[[int], Run]:
    """Return a simulation that breaks a promise at one seed."""

    def simulated(given: int) -> Run:
        broken = (Violation("not_resurrected", "session 's1' is back"),) if given == seed else ()
        return Run(given, ("a line",), "0123456789abcdef0", broken, 3)

    return simulated


def test_a_seed_is_replayed_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seed", "7"]) == 0
    printed = capsys.readouterr().out.splitlines()
    run = simulate(7)
    assert printed[:-1] == list(run.trace)
    assert printed[-1] == str(run)
    assert printed[-1].startswith("seed 7: ok, ")


def test_a_seed_that_fails_is_told_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "simulate", wrong_from(7))
    assert command.main(["--seed", "7"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "a line",
        "seed 7: 1 violations, 3 operations, 1 lines, 0123456789abcdef",
        "  not_resurrected: session 's1' is back",
    ]


def test_many_seeds_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one is included; what fails is told with how to replay it."""
    monkeypatch.setattr(command, "simulate", wrong_from(3))
    assert command.main(["--seeds", "1..3"]) == 1
    printed = capsys.readouterr()
    assert "replay: python -m sojourn.testing.simulator --seed 3" in printed.out
    assert printed.out.endswith("3 seeds, 1 with violations\n")
    assert printed.err == ""


def test_how_far_it_is_is_written_over_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "simulate", wrong_from(-1))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert command.main(["--seeds", "1..2"]) == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "\r1/2 seeds, 0 with violations\033[K\r2/2 seeds, 0 with violations\033[K\r\033[K"
    )
    assert printed.out == "2 seeds, 0 with violations\n"


def test_how_far_it_is_is_a_line_now_and_then_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "simulate", wrong_from(-1))
    monkeypatch.setattr(command, "EVERY_SECONDS", 0)
    assert command.main(["--seeds", "1..2"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "1/2 seeds, 0 with violations"


@pytest.mark.parametrize("text", ["5", "5..", "..5", "5-9", "9..5", "a..b", ""])
def test_what_is_no_range_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--seeds", text])
    assert caught.value.code == 2
    assert "like 0..999" in capsys.readouterr().err


def test_one_of_the_two_is_needed() -> None:
    for arguments in ([], ["--seed", "1", "--seeds", "1..2"]):
        with pytest.raises(SystemExit) as caught:
            command.main(arguments)
        assert caught.value.code == 2


def test_it_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sojourn.testing.simulator", "--seeds", "0..2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "3 seeds, 0 with violations\n"), done.stderr

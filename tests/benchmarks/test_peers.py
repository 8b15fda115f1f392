"""The comparison with peers runs without them, judges by its rounds, and writes its page."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from benchmarks.peers import contest
from benchmarks.peers.__main__ import main
from benchmarks.peers.chart import Bar, bars
from benchmarks.peers.comparisons import QUICK, Comparison, Contestant, Target
from benchmarks.peers.contest import Outcome, Standing, missing
from benchmarks.peers.page import lines, surroundings, write
from benchmarks.peers.places import Places
from benchmarks.peers.program import all_of
from benchmarks.rounds import Side, measured, turns
from tests.servers.postgres import require_programs

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.sample import Sample


def test_every_comparison_runs_without_the_peers_and_is_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_programs()
    page = tmp_path / "RESULTS.md"
    arguments = ["--quick", "--alone", "--folder", str(tmp_path), "--write", str(page)]
    outcomes = main(arguments)
    shown, written = capsys.readouterr().out, page.read_text(encoding="utf-8")
    kept = json.loads((tmp_path / "figures" / "peers.json").read_bytes())
    assert {"date", "commit", "cpu", "packages", "sizes", "settings"} <= kept.keys()
    assert [each.comparison for each in outcomes] == all_of(QUICK)
    for outcome, facts in zip(outcomes, kept["comparisons"], strict=True):
        comparison = outcome.comparison
        alone = [each.label for each in comparison.contestants if each.needs is None]
        assert [standing.label for standing in outcome.standings] == alone
        assert [each["label"] for each in facts["contestants"]] == alone
        assert comparison.what in shown
        for standing in outcome.standings:
            assert f"| {standing.label} |" in written
            for sample in standing.samples:
                assert 0 < sample["p50"] <= sample["p99"] <= sample["seconds"]
                assert sample["rss"] > 1_000_000
        assert [each["target"] for each in facts["targets"]] == [
            target.at_least for target in comparison.targets
        ]
        chart = ET.parse(tmp_path / "charts" / f"{comparison.name}.svg")  # noqa: S314 - our own file
        assert len(chart.findall("{*}rect")) == len(alone)


def test_only_the_named_comparisons_run(tmp_path: Path) -> None:
    options = ["--quick", "--alone", "--folder", str(tmp_path), "--rounds", "2"]
    (outcome,) = main([*options, "--only", "checkpoints-in-memory"])
    assert outcome.comparison.name == "checkpoints-in-memory"
    assert [len(standing.samples) for standing in outcome.standings] == [2, 2]


@pytest.mark.parametrize("wrong", [["--only", "nothing"], ["--rounds", "0"]])
def test_a_wrong_option_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "--alone", *wrong])
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.skipif(find_spec("langgraph") is not None, reason="the peers are installed")
def test_missing_peers_are_named_with_the_way_to_install_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"langgraph.*pip install -r benchmarks/requirements"):
        main(["--quick", "--folder", str(tmp_path), "--only", "checkpoints"])


def test_only_what_is_missing_is_named() -> None:
    needs = ("json", "no_such_package_here", "no_such_package_here.inner", None)
    contestants = [Contestant(str(need), "work", {}, needs=need) for need in needs]
    comparison = Comparison("c", "what", "settings", contestants, [])
    assert missing([comparison]) == ["no_such_package_here", "no_such_package_here.inner"]


class _Quick(Side):
    """A side that measures nothing, and says who it is."""

    def run(self) -> Sample:
        return {"name": float(self.name)}


def test_sides_take_turns_there_and_back() -> None:
    order: list[tuple[int, int]] = []
    sides = [_Quick(name, dict) for name in "123"]
    rounds = list(turns(sides, 2, lambda place, number: order.append((number, place))))
    assert order == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
    assert rounds == [[{"name": 1}, {"name": 2}, {"name": 3}]] * 2


def test_those_who_are_measured_in_one_process_are_compared_turn_by_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    turns = iter([[(1, 2), (1, 30)], [(2, 8)]])

    def made_up(work: str, keywords: dict[str, Any]) -> list[list[Sample]]:
        asked.append((work, keywords))
        return [[_sample(mine), _sample(theirs)] for mine, theirs in next(turns)]

    monkeypatch.setattr(contest, "measured", made_up)
    ours, peer = Contestant("ours", "x", {"kind": "a"}), Contestant("theirs", "x", {"kind": "b"})
    absent = Contestant("absent", "x", {}, needs="somebody")
    comparison = Comparison(
        "c", "do it", "Alike.", [ours, peer, absent], [Target("ours", "theirs", 1)], together="all"
    )
    told: list[str] = []
    with Places(tmp_path) as places:
        outcome = contest.run(comparison, places, 2, alone=True, tell=told.append)
    assert asked == [("all", {"those": [{"kind": "a"}, {"kind": "b"}]})] * 2
    assert len(told) == 2 * contest.runs_of(comparison, alone=True)
    assert [verdict.ratio for verdict in outcome.verdicts] == [4]


def test_sites_are_asked_in_turns() -> None:
    """Each turn has a sample for every site, in their order."""
    bare = {"kind": "bare", "count": 1_600, "warm": 20}
    found = measured("peers.visits.together", {"those": [bare, {**bare, "kind": "sojourn"}]})
    assert [[sample["operations"] for sample in turn] for turn in found] == [[800, 800]] * 2


def _sample(seconds: float, refused: int = 0) -> Sample:
    return {
        "operations": 100,
        "refused": refused,
        "seconds": seconds,
        "cpu": seconds / 2,
        "p50": seconds / 100,
        "p99": seconds / 50,
        "rss": 50e6,
    }


def _outcome(at_least: float) -> Outcome:
    """Return rounds in which the peer takes 2, 30 and 4 times as long."""
    ours, peer = Contestant("Sojourn", "x", {}), Contestant("ADK <some> & more", "y", {})
    targets = [Target("Sojourn", peer.label, at_least), Target("Sojourn", "nobody", 1)]
    comparison = Comparison("c", "do it", "Alike.", [ours, peer], targets)
    quick = Standing(ours, [_sample(1), _sample(1), _sample(2)])
    slow = Standing(peer, [_sample(2), _sample(30, 3), _sample(8)])
    return Outcome(comparison, [quick, slow])


@pytest.mark.parametrize(("at_least", "said"), [(4, "met"), (4.1, "NOT met")])
def test_a_ratio_is_the_median_of_the_rounds_and_decides_a_target(
    at_least: float, said: str, tmp_path: Path
) -> None:
    outcome = _outcome(at_least)
    reached, absent = outcome.verdicts
    assert (reached.ratio, absent.ratio, absent.met) == (4, None, None)
    assert lines(outcome)[-2].endswith(f": 4.00 x, {said}")
    write(tmp_path / "page.md", [outcome], surroundings(QUICK))
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert f"| 4.00 x | {said} |" in page
    assert "refused 3 operations of all rounds" in page


def test_a_chart_draws_to_scale_and_escapes_what_it_says() -> None:
    items = [Bar("a < b", 50, "50", "ours"), Bar("c & d", 200, "200", "peer")]
    chart = ET.fromstring(bars("One & two", "a second", items))  # noqa: S314 - our own text
    short, long = (float(bar.attrib["width"]) for bar in chart.findall("{*}rect"))
    assert long == pytest.approx(4 * short, rel=0.01)
    assert {"a < b", "c & d", "One & two"} <= {each.text for each in chart.findall("{*}text")}
    style = chart.find("{*}style")
    assert style is not None
    assert "prefers-color-scheme: dark" in (style.text or "")

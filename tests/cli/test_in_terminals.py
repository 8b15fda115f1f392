"""Every command in a real terminal, 80 and 200 columns wide."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import LONG
from tests.cli.terminals import WIDTHS, Shown, in_terminals, terminal

from sojourn import Event, SessionManager

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Runner

URL = ("-u", "sqlite:///app.db", "--app", "shop")


@pytest.fixture
def both(database: Path) -> Path:
    """A folder with a store for the terminal of each width, and one for both."""
    for columns in WIDTHS:
        shutil.copy(database, database.with_name(f"{columns}.db"))
    return database.parent


EACH = ("-u", "sqlite:///{columns}.db", "--app", "shop")


def fits(shown: dict[int, Shown]) -> None:
    """Nothing was wrapped by the terminal, and nothing in the data was obeyed by it."""
    for columns, one in shown.items():
        assert one.code == 0, one.screen.text
        assert not one.screen.wrapped, (columns, one.screen.text)
        assert "\x1b]0" not in one.raw
        assert "\x1b[2J" not in one.raw


def test_ls_shows_what_there_is_room_for(both: Path) -> None:
    shown = in_terminals(both, "ls", *URL)
    fits(shown)
    narrow, wide = (shown[columns].screen for columns in WIDTHS)
    assert narrow.lines[0].split() == ["ID", "PHASE", "USER", "LAST", "ACTIVE", "EXPIRES"]
    assert wide.lines[0].split()[-2:] == ["LABELS", "CREATED"]
    assert "channel=web place=[red]" in wide.text
    for screen in (narrow, wide):
        (row,) = (line for line in screen.lines if line.startswith("s-1 "))
        assert row.split()[1:4] == ["OPEN", "u-1", "12"]
        generated = [line for line in screen.lines if re.match("[0-9a-f]{32} ", line)]
        assert len(generated) == 3
        cut = next(line for line in screen.lines if line.startswith("s-long")).split()[0]
        head, _, tail = cut.partition("…")
        assert LONG.startswith(head)
        assert LONG.endswith(tail)
        assert len(tail) >= 10


def test_ls_wide_cuts_nothing(both: Path) -> None:
    shown = in_terminals(both, "ls", "--wide", *URL)
    assert all(LONG in one.screen.text.replace("\n", "") for one in shown.values())


def test_show_draws_phase_state_timeline_and_children(both: Path) -> None:
    shown = in_terminals(both, "show", "s-1", *URL)
    fits(shown)
    for one in shown.values():
        text = one.screen.text
        assert "[OPEN] ─END─▶ ENDING ─FINISH─▶ ENDED" in text
        assert re.search(r"^cart +\[\"tea\", \{\"price\": 10+\}\]$", text, re.MULTILINE)
        assert r"\u001b]0;pwned" in text
        assert re.search(r"^theme +\"dark\"$", text, re.MULTILINE)
        assert re.search(r"^motd +\"hi\"$", text, re.MULTILINE)
        assert "events (10, last number 12)" in text
        assert re.search(r"^ +12  .*message user +line 11", text, re.MULTILINE)
        assert re.search(r"^agent-1 +ACTIVE", text, re.MULTILINE)
        assert "[red]" in text
        assert re.search(r"^notes +one +text/plain +4 ", text, re.MULTILINE)


def test_show_draws_the_long_lifecycle_as_it_fits(both: Path) -> None:
    shown = in_terminals(both, "show", "agent-1", *URL)
    fits(shown)
    narrow, wide = (shown[columns].screen.text for columns in WIDTHS)
    assert "CREATED ─▶ SPAWNING ─▶ [ACTIVE] ─▶ TERMINATING ─▶ CLEANED" in narrow
    assert "CREATED ─SPAWN─▶ SPAWNING ─ACTIVATE─▶ [ACTIVE] ─TERMINATE─▶ TERMINATING" in wide


def test_tail_without_following(both: Path) -> None:
    shown = in_terminals(both, "tail", "s-1", "--no-follow", "-n", "4", *URL)
    fits(shown)
    for one in shown.values():
        rows = [line for line in one.screen.lines if line]
        assert [int(row.split()[0]) for row in rows] == [9, 10, 11, 12]


def test_tail_follows_until_the_session_ends(database: Path) -> None:
    async def talk(text: str) -> None:
        async with SessionManager.open(f"sqlite:///{database}", app="shop") as sessions:
            session = await sessions.require("s-1")
            await sessions.append(session, Event(kind="message", author="ann", body=text))

    async def end() -> None:
        async with SessionManager.open(f"sqlite:///{database}", app="shop") as sessions:
            await sessions.end("s-1")

    with terminal(database.parent, "tail", "s-1", *URL) as one:
        one.wait_for("line 11")
        asyncio.run(talk("live \x1b[31m words"))
        one.wait_for(r"live \x1b[31m words")
        asyncio.run(end())
        assert one.finish() == 0
        assert "sojourn: session 's-1' is over" in one.screen.text


def test_ctrl_c_ends_tail_cleanly(database: Path) -> None:
    with terminal(database.parent, "tail", "s-1", "-n", "1", *URL) as one:
        one.wait_for("line 11")
        one.type("\x03")
        assert one.finish() == 130, one.screen.text
        assert "Traceback" not in one.screen.text


def test_sigterm_ends_tail_cleanly(database: Path) -> None:
    with terminal(database.parent, "tail", "s-1", "-n", "1", *URL) as one:
        one.wait_for("line 11")
        os.kill(one.process.pid, signal.SIGTERM)
        assert one.finish() == 143, one.screen.text
        assert "Traceback" not in one.screen.text


def test_end_asks_first(both: Path) -> None:
    shown = in_terminals(both, "end", "agent-1", *EACH, typed="y\n")
    fits(shown)
    for one in shown.values():
        assert "end session 'agent-1' of nobody (ACTIVE, event 0)" in one.screen.text
        assert "ended agent-1" in one.screen.text


def test_delete_asks_first_and_takes_no_for_an_answer(both: Path) -> None:
    shown = in_terminals(both, "delete", "s-1", *EACH, typed="y\n")
    fits(shown)
    for one in shown.values():
        assert "and its 1 children?" in one.screen.text
        assert "deleted s-1" in one.screen.text
    with terminal(both, "delete", "s-1", *URL) as asked:
        asked.wait_for("[y/N]")
        asked.type("\n")
        assert asked.finish() == 1
        assert "not confirmed, nothing was done" in asked.screen.text


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x04", 1)])
def test_leaving_a_question_does_nothing(
    database: Path, sojourn: Runner, key: str, code: int
) -> None:
    with terminal(database.parent, "delete", "s-1", *URL) as asked:
        asked.wait_for("[y/N]")
        asked.type(key)
        assert asked.finish() == code, asked.screen.text
        assert "Traceback" not in asked.screen.text
    assert sojourn("show", "s-1", *URL).code == 0


def test_forget_asks_first(both: Path) -> None:
    shown = in_terminals(both, "forget", "u-1", *EACH, typed="yes\n")
    fits(shown)
    assert all("forgot u-1: 1 sessions" in one.screen.text for one in shown.values())


def test_reap_shows_its_progress_and_counts(both: Path) -> None:
    shown = in_terminals(both, "reap", "--batch", "2", *EACH)
    fits(shown)
    for one in shown.values():
        assert "swept: 5 sessions ended" in one.screen.text
        assert re.search(r"sweeping .* 5/\?", one.screen.text)


def test_fork_writes_the_id(both: Path) -> None:
    shown = in_terminals(both, "fork", "s-1", "--at", "3", "--id", "copy", *EACH)
    fits(shown)
    assert all(one.screen.lines[0] == "copy" for one in shown.values())


def test_doctor_gives_a_table_and_advice(both: Path) -> None:
    shown = in_terminals(both, "doctor", "sqlite:///{columns}.db")
    fits(shown)
    for one in shown.values():
        assert re.search(r"^integrity +ok", one.screen.text, re.MULTILINE)
        assert re.search(r"^due in shop +LOOK +5 sessions wait", one.screen.text, re.MULTILINE)
        assert "try: run a Reaper in the application" in one.screen.text


def test_conform_reports_law_by_law(tmp_path: Path) -> None:
    law = "a_backup_overwrites_nothing"
    shown = in_terminals(tmp_path, "conform", "sqlite:///none.db", "--law", law)
    fits(shown)
    for one in shown.values():
        assert f"  kept    {law}" in one.screen.lines
        assert re.search(r"checking laws .* 1/1", one.screen.text)
    assert not list(tmp_path.iterdir())


def test_bench_gives_a_table(tmp_path: Path) -> None:
    shown = in_terminals(tmp_path, "bench", "memory://", "--seconds", "0.01")
    fits(shown)
    for one in shown.values():
        assert re.search(r"^append +64 +[\d,]+ +[\d.]+ +[\d.]+$", one.screen.text, re.MULTILINE)
    assert not list(tmp_path.iterdir())


def test_demo_checks_what_is_there(tmp_path: Path) -> None:
    for one in in_terminals(tmp_path, "demo", "--check", "--folder", "none").values():
        assert one.code == 2
        assert "there is nothing from an earlier run in none" in one.screen.text


@pytest.mark.soak
def test_demo_runs(tmp_path: Path) -> None:
    shown = in_terminals(tmp_path, "demo", "--messages", "4", "--folder", "run-{columns}")
    assert all(one.code == 0 for one in shown.values())
    assert all("Nothing was lost." in one.screen.text for one in shown.values())

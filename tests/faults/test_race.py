"""Two processes race strict saves of one session: each revision has one winner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.faults.processes import Worker
from tests.faults.soak import Progress, count, scaled

from sojourn import SessionManager

SAVES = count(100, 1000)


def prepare(url: str) -> int:
    async def create() -> int:
        async with SessionManager.open(url) as sessions:
            session = await sessions.create(id="s", state={"count": 0, "winners": []})
            return session.revision

    return asyncio.run(create())


def outcome(url: str) -> tuple[int, dict[str, Any], list[str]]:
    async def read() -> tuple[int, dict[str, Any], list[str]]:
        async with SessionManager.open(url) as sessions:
            session = await sessions.require("s")
            found: Any = sessions.store
            return session.revision, dict(session.state), await found.check()

    return asyncio.run(read())


@scaled
@pytest.mark.xdist_group("processes")
@pytest.mark.behaviour(45)
@pytest.mark.behaviour(106)
def test_each_revision_is_won_once_by_one_of_two_processes(shared_url: str) -> None:
    """Strict saves that conflict are refused and tried anew: none is lost, none wins twice."""
    progress = Progress("race of strict saves", SAVES)
    first = prepare(shared_url)
    each = str(SAVES // 2)
    with (
        Worker("race", shared_url, "s", each, "left") as left,
        Worker("race", shared_url, "s", each, "right") as right,
    ):
        assert (left.hear(), right.hear()) == ("ready", "ready")
        left.say()
        right.say()
        told = [left.hear(), right.hear()]
    won = sorted(told[0]["won"] + told[1]["won"])
    conflicts = told[0]["conflicts"] + told[1]["conflicts"]
    progress.figure("race", saves=SAVES, conflicts=conflicts, lost=SAVES - len(set(won)))
    assert won == list(range(first + 1, first + 1 + SAVES))
    assert conflicts > 0, "the two never met: this was no race"
    revision, state, problems = outcome(shared_url)
    assert (revision, state["count"], problems) == (first + SAVES, SAVES, [])

"""Servers that make their manager first and fork then: each worker opens it for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
WORKERS, ROUNDS, EACH = 4, 25, 3

PROGRAM = f"""
import asyncio, os, sys, traceback
from sojourn import Event, SessionManager

sessions = SessionManager.open(sys.argv[1])  # as gunicorn does with --preload

async def prepare():
    async with SessionManager.open(sys.argv[1]) as others:
        await others.create(id="shared")

async def work():
    made = []
    async with sessions:
        for _ in range({ROUNDS}):
            made += await asyncio.gather(*(sessions.create() for _ in range({EACH})))
            await asyncio.gather(
                sessions.append("shared", Event(kind="n")),
                *(sessions.append(one, Event(kind="n")) for one in made[-{EACH}:]),
            )
        for one in made:
            assert len(await sessions.events(one.id)) == 1, one.id

def forked():
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(work())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

asyncio.run(prepare())
workers = [forked() for _ in range({WORKERS})]
assert [os.waitpid(pid, 0)[1] for pid in workers] == [0] * {WORKERS}

async def look():
    async with SessionManager.open(sys.argv[1]) as others:
        assert len(await others.events("shared")) == {WORKERS * ROUNDS}
        assert await others.count() == 1 + {WORKERS * ROUNDS * EACH}
        assert await others.store.check() == []

asyncio.run(look())
"""


@pytest.mark.parametrize("url", ["sqlite", "file", "postgres", "redis"], indirect=True)
def test_what_forked_workers_write_is_there(url: str) -> None:
    """Whatever a store has of its own, to be told from others by, is not shared by a fork."""
    command = [sys.executable, "-c", PROGRAM, url]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr

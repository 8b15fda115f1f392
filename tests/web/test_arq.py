"""arq: jobs work in the session that they were enqueued in; with a real worker, of its own process.

arq holds redis-py below what the store is tested with, so it is installed into a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.servers.redis import Servers

from sojourn import (
    Ended,
    InvalidQuery,
    NotFound,
    OutOfScope,
    SessionManager,
    current_session,
)
from sojourn.arq import ARGUMENT, carried, in_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.redis import Server

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0.28.0"
FOLDER = ROOT / "build" / f"arq-{VERSION}"

PROGRAM = """
import asyncio, json, sys
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker
from sojourn import SessionManager, current_session
from sojourn.arq import carried, in_session

url, settings = sys.argv[1], RedisSettings(port=int(sys.argv[2]))

async def add(ctx, key):
    session = current_session()
    session.state[key] = True
    return session.id

async def fail(ctx):
    current_session().state["never"] = True
    raise ValueError("a bug")

async def look(ctx):
    return None if current_session() is None else current_session().id

async def main():
    async with SessionManager.open(url) as sender, SessionManager.open(url) as sessions:
        await sender.create(id="s1")
        pool = await create_pool(settings)
        async with sender.scope("s1"):
            named = carried()
        sent = [
            await pool.enqueue_job("add", "a", **named),
            await pool.enqueue_job("add", "b", **named),
            await pool.enqueue_job("fail", **named),
            await pool.enqueue_job("look"),
            await pool.enqueue_job("look", **named),
        ]
        worker = Worker(
            [in_session(add), in_session(fail), in_session(look)],
            redis_pool=pool, burst=True, poll_delay=0.01, ctx={"sessions": sessions},
            handle_signals=False,
        )
        await worker.main()
        told = []
        for job in sent:
            info = await job.result_info()
            told.append(info.result if info.success else repr(info.result))
        state = dict((await sender.require("s1")).state)
        print(json.dumps({"told": told, "state": state, "live": len(sessions.scopes.live())}))
        await worker.close()

asyncio.run(main())
"""


def installed() -> Path:
    """Return the folder with arq in it; skip the test, or fail it in CI, if it can not be had."""
    if not (FOLDER / "arq").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        part = FOLDER.with_name(f"{FOLDER.name}.{os.getpid()}")  # whole, or not there
        command = [*pip, "--target", str(part), f"arq=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = f"arq can not be installed: {done.stderr[-500:]}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        with contextlib.suppress(OSError):  # another worker was faster
            part.rename(FOLDER)
    return FOLDER


@pytest.fixture
def server() -> Iterator[Server]:
    """A Redis for arq's queue."""
    servers = Servers()
    try:
        yield servers.add()
    finally:
        servers.stop()


@pytest.mark.xdist_group("processes")
def test_a_job_of_a_real_worker_works_in_its_session(server: Server, tmp_path: Path) -> None:
    folder = installed()
    url = f"sqlite:///{tmp_path / 's.db'}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, str(server.port)],
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["told"] == ["s1", "s1", "ValueError('a bug')", None, "s1"]
    assert told["state"] == {"a": True, "b": True}
    assert told["live"] == 0


async def work(ctx: dict[Any, Any], key: str) -> str:
    """Set a key of the ambient session."""
    session = current_session()
    assert session is not None
    session.state[key] = True
    return session.id


async def test_a_job_is_resumed_by_its_argument_alone() -> None:
    async with SessionManager.open("memory://") as sessions:
        session = await sessions.create(id="s1")
        job = in_session(work)
        assert job.__name__ == "work"  # by which arq finds it
        assert await job({"sessions": sessions}, "a", **carried(session)) == "s1"
        assert dict((await sessions.require("s1")).state) == {"a": True}
        with pytest.raises(InvalidQuery, match="on_startup"):
            await job({}, "a", **carried(session))
        gone = carried(session)
        await sessions.end("s1")
        with pytest.raises((Ended, NotFound)):
            await job({"sessions": sessions}, "a", **gone)
        assert set(gone) == {ARGUMENT}
    with pytest.raises(OutOfScope):
        carried()
    with pytest.raises(InvalidQuery, match="async"):
        in_session(lambda _ctx: None)  # type: ignore[arg-type, return-value]  # without types

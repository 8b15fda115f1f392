"""langgraph's checkpoint savers. A step is one `put` and one `get_tuple` of the latest."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from benchmarks.peers import material
from benchmarks.peers.timing import awaited_in_turn, in_turn

if TYPE_CHECKING:
    from benchmarks.sample import Sample

_THREAD: Any = {"configurable": {"thread_id": "thread", "checkpoint_ns": ""}}


def _wanted(number: int) -> Any:
    return {**empty_checkpoint(), **material.checkpoint(number)}


def sync_sqlite(path: str, *, count: int, warm: int) -> Sample:
    """The synchronous saver: every call in the caller's own thread."""
    with SqliteSaver.from_conn_string(path) as saver:
        saver.setup()
        measured = _in_turn(saver, count, warm)
        _check_settings(path, warm + count)
        return measured


def memory(*, count: int, warm: int) -> Sample:
    """The saver in memory."""
    return _in_turn(InMemorySaver(), count, warm)


def _in_turn(saver: Any, count: int, warm: int) -> Sample:
    wanted = [_wanted(number) for number in range(warm + count)]
    parent = [_THREAD]

    def step(number: int) -> None:
        versions = wanted[number]["channel_versions"]
        parent[0] = saver.put(parent[0], wanted[number], material.METADATA, versions)
        _check(saver.get_tuple(_THREAD), wanted[number])

    return in_turn(step, count=count, warm=warm)


async def async_sqlite(path: str, *, count: int, warm: int) -> Sample:
    """The asynchronous saver, on aiosqlite."""
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        await saver.setup()
        measured = await _awaited_in_turn(saver, count, warm)
        _check_settings(path, warm + count)
        return measured


def sync_postgres(path: str, *, count: int, warm: int) -> Sample:
    """The synchronous saver, on psycopg and one connection."""
    with PostgresSaver.from_conn_string(path) as saver:
        saver.setup()
        return _in_turn(saver, count, warm)


async def async_postgres(path: str, *, count: int, warm: int) -> Sample:
    """The asynchronous saver, on psycopg and one connection."""
    async with AsyncPostgresSaver.from_conn_string(path) as saver:
        await saver.setup()
        return await _awaited_in_turn(saver, count, warm)


async def _awaited_in_turn(saver: Any, count: int, warm: int) -> Sample:
    wanted = [_wanted(number) for number in range(warm + count)]
    parent = [_THREAD]

    async def step(number: int) -> None:
        versions = wanted[number]["channel_versions"]
        parent[0] = await saver.aput(parent[0], wanted[number], material.METADATA, versions)
        _check(await saver.aget_tuple(_THREAD), wanted[number])

    return await awaited_in_turn(step, count=count, warm=warm)


def _check(found: Any, wanted: Any) -> None:
    assert found.checkpoint["id"] == wanted["id"]
    assert found.checkpoint["channel_values"] == wanted["channel_values"]


def _check_settings(path: str, rows: int) -> None:
    """See that it is as durable as the others: it sets WAL itself, FULL is the default."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM checkpoints").fetchone() == (rows,)

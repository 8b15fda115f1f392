"""Synaptic's examples of a checkpointer over the session's own store, against the public face."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.checkpoints.contents import ids, is_clean

from sojourn import Event, SessionManager

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sojourn import Checkpoints

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]
    Node = Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]


class Graph:
    """The smallest thing that wants a checkpointer: nodes in a row, resumed where it stopped."""

    def __init__(self, nodes: dict[str, Node], checkpointer: Checkpoints) -> None:
        self._nodes = nodes
        self._checkpointer = checkpointer

    async def invoke(self, state: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the nodes that are left, with a checkpoint after each."""
        latest = await self._checkpointer.latest()
        left = list(self._nodes)
        if latest is not None:
            state = json.loads(latest.body or b"")
            left = left[left.index(latest.metadata["node"]) + 1 :]
        for name in left:
            state = await self._nodes[name](state or {})
            latest = await self._checkpointer.save(
                json.dumps(state).encode(),
                parent=latest,
                content_type="application/json",
                metadata={"node": name},
            )
        return state or {}


async def plan(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "plan": "read, then write"}


async def write(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "text": "done"}


async def fail(state: dict[str, Any]) -> dict[str, Any]:
    raise ConnectionError("the model is away")


async def test_the_checkpointer_interface(opened: Opener) -> None:
    """`manager.checkpointer()`, given to a graph: every step is kept, with where it came from."""
    async with opened() as manager:
        session = await manager.create()
        checkpointer = manager.checkpoints(session)
        graph = Graph({"plan": plan, "write": write}, checkpointer)
        state = await graph.invoke({"question": "?"})
        assert state == {"question": "?", "plan": "read, then write", "text": "done"}
        latest = await checkpointer.latest()
        assert latest is not None
        nodes = [item.metadata["node"] for item in await checkpointer.lineage(latest)]
        assert nodes == ["write", "plan"]


async def test_a_graph_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """`Using FileStore for Persistence`: another process picks up the last checkpoint."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with SessionManager.open(url) as manager:
        session = await manager.create()
        first = Graph({"plan": plan, "write": fail}, manager.checkpoints(session.id))
        with pytest.raises(ConnectionError):
            await first.invoke({"question": "?"})
    async with SessionManager.open(url) as manager:
        again = Graph({"plan": fail, "write": write}, manager.checkpoints(session.id))
        assert (await again.invoke())["text"] == "done"


async def test_shared_store_access(opened: Opener) -> None:
    """Messages and checkpoints of a session lie in one store, out of each other's way."""
    async with opened() as manager:
        session = await manager.create()
        history = manager.history(session)
        await history.append({"role": "user", "content": "Hello"})
        checkpoint = await manager.checkpoints(session).save(b"graph state")
        await history.append({"role": "assistant", "content": "Hi there!"})
        assert len(await history.load()) == 2
        assert await ids(manager.checkpoints(session)) == [checkpoint.id]
        assert checkpoint.seq == 1  # it knows where the conversation stood


@pytest.mark.behaviour(19)
async def test_deleting_a_session_removes_all_of_it(opened: Opener) -> None:
    """`delete_session` removes metadata, messages and checkpoints, however many there are."""
    async with opened() as manager:
        for id in ("gone", "stays"):
            await manager.create(id=id)
            await manager.append(id, Event(kind="message", body="Hello"))
            checkpointer = manager.checkpoints(id)
            for size in (10, 20_000, 20_000):
                await checkpointer.save(b"x" * size)
        await manager.delete("gone")
        assert await manager.get("gone") is None
        await manager.create(id="gone")
        assert await is_clean(manager, "gone")
        assert len(await ids(manager.checkpoints("stays"))) == 3


@pytest.mark.behaviour(104)
async def test_what_a_checkpointer_promises(opened: Opener) -> None:
    """Latest by default, exact by id, unknown is none, in order, threads apart, facts kept."""
    async with opened() as manager:
        one = manager.checkpoints(await manager.create(id="thread-1"))
        two = manager.checkpoints(await manager.create(id="thread-2"))
        for number in range(3):
            await one.save(
                b"state %d" % number,
                id=f"cp-{2 - number}",
                parent=f"cp-{3 - number}" if number else None,
                metadata={"next_node": f"n{number}"},
            )
        await two.save(b"other", id="cp-0")
        latest = await one.latest()
        assert latest is not None
        assert (latest.id, latest.parent, latest.body) == ("cp-0", "cp-1", b"state 2")
        assert latest.metadata == {"next_node": "n2"}
        exact = await one.get("cp-2")
        assert exact is not None
        assert exact.body == b"state 0"
        assert await one.get("unknown") is None
        oldest_first = (await ids(one))[::-1]
        assert oldest_first == ["cp-2", "cp-1", "cp-0"]
        assert await ids(two) == ["cp-0"]
        await one.save(b"anew", id="cp-1")
        assert sorted(await ids(one)) == ["cp-0", "cp-1", "cp-2"]

"""Ourocodus' usage, against the public face: a relay's sessions, from creation to cleanup."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sojourn import (
    Event,
    InvalidTransition,
    NotFound,
    Phase,
    RoleTaken,
    Session,
    SessionManager,
    Trigger,
)
from sojourn.testing import FakeClock, SequenceIds

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


class Worktrees:
    """What a session holds outside: freed by the cleaner, once it really ends."""

    def __init__(self) -> None:
        self.cleaned: list[tuple[str, str]] = []

    async def clean(self, session: Session, reason: str, /) -> None:
        """Note that the worktree of a session was removed, and why."""
        self.cleaned.append((session.state["worktree"], reason))


async def create(sessions: SessionManager, role: str) -> Session:
    """Its `Create`: a session for an agent's role, of which one lives at a time."""
    return await sessions.create(lifecycle="agent", labels={"role": role}, exclusive=["role"])


async def attach(sessions: SessionManager, id: str, worktree: str) -> None:
    """Its `AttachAgent`: the move first, and only then what comes with it."""
    await sessions.apply(id, Trigger.ACTIVATE)
    await sessions.append(
        id, Event(kind="attached", delta={"worktree": worktree}), state={"messages": 0}
    )


@pytest.mark.behaviour(8)
@pytest.mark.behaviour(119)
async def test_the_lifecycle(opened: Opener) -> None:
    """Its six steps, with the clock, the ids and the cleaner passed in."""
    clock, worktrees = FakeClock(), Worktrees()
    async with opened(clock=clock, ids=SequenceIds("relay-"), cleaners=[worktrees]) as sessions:
        # 1. Create session (CREATED state)
        session = await create(sessions, "auth")
        assert (session.id, session.phase) == ("relay-1", Phase.CREATED)
        assert session.created_at == session.active_at
        # 2. Begin spawning (CREATED to SPAWNING)
        assert await sessions.apply(session.id, Trigger.SPAWN) is Phase.SPAWNING
        # 3. Attach the client after the spawn succeeded (SPAWNING to ACTIVE)
        await attach(sessions, session.id, "/path/to/worktree")
        assert (await sessions.require(session.id)).phase is Phase.ACTIVE
        # 4. Track activity
        clock.advance(5)
        beat = await sessions.heartbeat(session.id)
        assert (beat - session.active_at).total_seconds() == 5
        for number in range(1, 4):
            body = {"text": f"message {number}"}
            await sessions.append(session.id, Event(kind="message", body=body))
        assert len(await sessions.events(session.id, kind="message")) == 3
        # 5. Begin termination (ACTIVE to TERMINATING): read, but not written any more
        phase = await sessions.apply(session.id, Trigger.TERMINATE, reason="user requested")
        assert phase is Phase.TERMINATING
        assert worktrees.cleaned == []
        # 6. Complete the cleanup (TERMINATING to CLEANED, removed from the store)
        assert await sessions.finish(session.id)
        assert worktrees.cleaned == [("/path/to/worktree", "user requested")]
        assert await sessions.get(session.id) is None
        assert not await sessions.finish(session.id)
        assert len(worktrees.cleaned) == 1


async def test_querying(opened: Opener) -> None:
    """By id, by role, all, by state, both filters, count."""
    async with opened() as sessions:
        auth, docs = await create(sessions, "auth"), await create(sessions, "docs")
        await sessions.apply(auth.id, Trigger.SPAWN)
        await attach(sessions, auth.id, "/w/auth")

        async def ids(**filters: object) -> set[str]:
            page = await sessions.list(**filters)  # type: ignore[arg-type]  # any of its filters
            return {session.id for session in page.items}

        found = await sessions.get(auth.id)
        assert found is not None
        assert found.id == auth.id
        assert await sessions.get("unknown") is None
        assert await ids(labels={"role": "auth"}) == {auth.id}
        assert await ids() == {auth.id, docs.id}
        assert await ids(phase=Phase.ACTIVE) == {auth.id}
        assert await ids(phase=Phase.ACTIVE, labels={"role": "docs"}) == set()
        assert await sessions.count() == 2


@pytest.mark.behaviour(118)
@pytest.mark.behaviour(122)
async def test_one_agent_a_role(opened: Opener) -> None:
    """Ten at once: one is made, the others are told who it is; cleaned, the role is free."""
    async with opened() as sessions:
        made = await asyncio.gather(
            *(create(sessions, "auth") for _ in range(10)), return_exceptions=True
        )
        (winner,) = [one for one in made if isinstance(one, Session)]
        refused = [one for one in made if isinstance(one, RoleTaken)]
        assert [error.holder for error in refused] == [winner.id] * 9
        assert winner.id in str(refused[0])
        await sessions.end(winner.id)
        assert (await create(sessions, "auth")).id != winner.id


@pytest.mark.behaviour(111)
@pytest.mark.behaviour(113)
async def test_what_the_machine_does_not_allow_changes_nothing(opened: Opener) -> None:
    """Attaching before the spawn: refused with phase, trigger and reason, and nothing is kept."""
    async with opened() as sessions:
        session = await create(sessions, "auth")
        with pytest.raises(InvalidTransition) as caught:
            await attach(sessions, session.id, "/path/to/worktree")
        assert (caught.value.phase, caught.value.trigger) == (Phase.CREATED, Trigger.ACTIVATE)
        assert str(caught.value).startswith("invalid transition: phase=CREATED trigger=ACTIVATE")
        again = await sessions.require(session.id)
        assert (again.phase, dict(again.state), again.revision) == (Phase.CREATED, {}, 1)
        with pytest.raises(InvalidTransition):
            await sessions.finish(session.id)


@pytest.mark.behaviour(112)
@pytest.mark.behaviour(117)
async def test_terminating_twice_and_what_is_unknown(opened: Opener) -> None:
    """Terminating is idempotent; ending the unknown is fine, a heartbeat of it is not."""
    async with opened() as sessions:
        session = await create(sessions, "auth")
        for _ in range(2):
            assert await sessions.apply(session.id, Trigger.TERMINATE) is Phase.TERMINATING
        assert not await sessions.end("unknown")
        with pytest.raises(NotFound):
            await sessions.heartbeat("unknown")


@pytest.mark.behaviour(120)
async def test_a_user_with_several_agents(opened: Opener) -> None:
    """What it moved to later: a container with children; one fails, and the others go on."""
    worktrees = Worktrees()
    async with opened(cleaners=[worktrees]) as sessions:
        user = await sessions.create(user="u-1", state={"worktree": "none"})
        agents = {
            role: await sessions.create(
                parent=user.id,
                lifecycle="agent",
                state={"worktree": f"/w/{role}"},
                labels={"workspace": user.id, "role": role},
                exclusive=["workspace", "role"],
            )
            for role in ("auth", "docs", "tests")
        }
        for agent in agents.values():
            await sessions.apply(agent.id, Trigger.SPAWN)
        await sessions.apply(agents["auth"].id, Trigger.TERMINATE, reason="spawn failed")
        await sessions.apply(agents["docs"].id, Trigger.ACTIVATE)
        assert (await sessions.require(user.id)).phase is Phase.OPEN
        assert (await sessions.require(agents["docs"].id)).phase is Phase.ACTIVE
        assert (await sessions.require(agents["auth"].id)).reason == "spawn failed"
        await sessions.end(user.id)
        assert {worktree for worktree, _ in worktrees.cleaned} == {
            "/w/auth",
            "/w/docs",
            "/w/tests",
            "none",
        }
        assert await sessions.count() == 0

"""The agent lifecycle through the manager: moves, refusals, heartbeats, exclusive roles."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    Ended,
    EndFailed,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    InvalidTransition,
    NotFound,
    Phase,
    Reaper,
    RoleTaken,
    Session,
    SessionManager,
    Trigger,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

WAY: dict[Phase, list[Trigger]] = {
    Phase.CREATED: [],
    Phase.SPAWNING: [Trigger.SPAWN],
    Phase.ACTIVE: [Trigger.SPAWN, Trigger.ACTIVATE],
    Phase.TERMINATING: [Trigger.SPAWN, Trigger.ACTIVATE, Trigger.TERMINATE],
    Phase.CLEANED: [Trigger.SPAWN, Trigger.ACTIVATE],
}
"""How an agent gets into each phase; the last one by an end whose record is kept."""

LEGAL: dict[tuple[Phase, Trigger], Phase] = {
    (Phase.CREATED, Trigger.SPAWN): Phase.SPAWNING,
    (Phase.CREATED, Trigger.TERMINATE): Phase.TERMINATING,
    (Phase.SPAWNING, Trigger.ACTIVATE): Phase.ACTIVE,
    (Phase.SPAWNING, Trigger.TERMINATE): Phase.TERMINATING,
    (Phase.ACTIVE, Trigger.TERMINATE): Phase.TERMINATING,
    (Phase.TERMINATING, Trigger.TERMINATE): Phase.TERMINATING,
}
"""The moves that `apply` makes; the seventh, CLEAN, is `finish`'s."""

TRIGGERS = (Trigger.SPAWN, Trigger.ACTIVATE, Trigger.TERMINATE, Trigger.CLEAN)

ROLE: dict[str, Any] = {
    "lifecycle": "agent",
    "labels": {"workspace": "w1", "role": "coder", "colour": "red"},
    "exclusive": ("workspace", "role"),
}


async def agent_in(sessions: SessionManager, phase: Phase, id: str = "a1") -> Session:
    """Create an agent, bring it into a phase, and return it."""
    await sessions.create(id=id, lifecycle="agent", state={"k": 1}, labels={"role": "coder"})
    for trigger in WAY[phase]:
        await sessions.apply(id, trigger)
    if phase is Phase.CLEANED:
        await sessions.end(id, retain=60)
    return await sessions.require(id)


# -------------------------------------------------------------------------------------- the machine


@pytest.mark.behaviour(111)
@pytest.mark.behaviour(113)
@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("phase", WAY)
async def test_the_machine_pair_by_pair(opened: Opener, phase: Phase, trigger: Trigger) -> None:
    """A legal pair moves the phase; any other raises `InvalidTransition` and changes nothing."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        before = await agent_in(sessions, phase)
        clock.advance(1)
        if (phase, trigger) in LEGAL:
            assert await sessions.apply("a1", trigger, reason="why") is LEGAL[phase, trigger]
            after = await sessions.require("a1")
            assert (after.phase, after.reason) == (LEGAL[phase, trigger], "why")
            assert after.revision == before.revision + 1
            return
        with pytest.raises(InvalidTransition) as refused:
            await sessions.apply("a1", trigger, reason="why")
        assert (refused.value.phase, refused.value.trigger) == (phase, trigger)
        assert str(refused.value) == (
            f"invalid transition: phase={phase} trigger={trigger} reason={refused.value.reason}"
        )
        assert refused.value.reason
        assert (await sessions.require("a1")).header == before.header


@pytest.mark.behaviour(112)
async def test_terminating_twice_is_fine(opened: Opener) -> None:
    """TERMINATE is idempotent: it stays TERMINATING, ends once, and then accepts nothing."""
    async with opened() as sessions:
        await agent_in(sessions, Phase.TERMINATING)
        assert await sessions.apply("a1", Trigger.TERMINATE) is Phase.TERMINATING
        assert await sessions.finish("a1") is True
        with pytest.raises(NotFound):
            await sessions.apply("a1", Trigger.TERMINATE)


async def test_clean_is_reached_only_through_finish(opened: Opener) -> None:
    """`apply` refuses CLEAN and FINISH even where the table has them: hooks come first."""
    ran: list[str] = []
    async with opened() as sessions:

        @sessions.on_end
        async def note(session: Session, _reason: str) -> None:
            ran.append(session.id)

        await agent_in(sessions, Phase.TERMINATING)
        await sessions.create(id="web")
        await sessions.apply("web", Trigger.END)
        for id, trigger in (("a1", Trigger.CLEAN), ("web", Trigger.FINISH)):
            with pytest.raises(InvalidTransition, match="use finish"):
                await sessions.apply(id, trigger)
            assert ran == []
        for id in ("a1", "web"):
            assert await sessions.finish(id) is True
        assert ran == ["a1", "web"]


async def test_each_preset_has_its_own_triggers(opened: Opener) -> None:
    """An agent has no END and an open session no SPAWN, and the reason says so."""
    async with opened() as sessions:
        await sessions.create(id="agent", lifecycle="agent")
        await sessions.create(id="web")
        for id, trigger in (("agent", Trigger.END), ("web", Trigger.SPAWN)):
            with pytest.raises(InvalidTransition, match="no such trigger"):
                await sessions.apply(id, trigger)


async def test_a_session_starts_in_the_first_phase_of_its_preset(opened: Opener) -> None:
    """OPEN by default, CREATED for an agent; an unknown preset is refused, naming the known."""
    async with opened() as sessions:
        assert (await sessions.create()).phase is Phase.OPEN
        assert (await sessions.create(lifecycle="agent")).phase is Phase.CREATED
        with pytest.raises(InvalidQuery, match="open, agent"):
            await sessions.create(lifecycle="robot")
        assert await sessions.count() == 2


@pytest.mark.parametrize("trigger", [Trigger.SPAWN, Trigger.CLEAN])
async def test_applying_to_what_is_not_there(opened: Opener, trigger: Trigger) -> None:
    """Unknown is `NotFound` whatever the trigger; so is what was deleted."""
    async with opened() as sessions:
        await agent_in(sessions, Phase.CREATED)
        await sessions.delete("a1")
        for id in ("a1", "unknown"):
            with pytest.raises(NotFound):
                await sessions.apply(id, trigger)


async def test_a_trigger_may_be_named_by_its_text_and_must_exist(opened: Opener) -> None:
    """`"SPAWN"` is a trigger, `"JUMP"` is `InvalidQuery`, and nothing was changed by it."""
    spawn: Any = "SPAWN"
    jump: Any = "JUMP"
    async with opened() as sessions:
        await agent_in(sessions, Phase.CREATED)
        assert await sessions.apply("a1", spawn) is Phase.SPAWNING
        with pytest.raises(InvalidQuery, match="JUMP"):
            await sessions.apply("a1", jump)
        assert (await sessions.require("a1")).phase is Phase.SPAWNING


@pytest.mark.parametrize("phase", [Phase.CREATED, Phase.SPAWNING, Phase.ACTIVE])
async def test_an_agent_can_be_ended_from_any_live_phase(opened: Opener, phase: Phase) -> None:
    """`end` terminates and cleans it, and the hooks see it terminating."""
    seen: list[Phase] = []
    async with opened() as sessions:

        @sessions.on_end
        async def note(session: Session, _reason: str) -> None:
            seen.append(session.phase)

        await agent_in(sessions, phase)
        assert await sessions.end("a1", retain=60) is True
        assert seen == [Phase.TERMINATING]
        assert (await sessions.require("a1")).phase is Phase.CLEANED


async def test_an_expired_agent_is_terminated_and_cleaned(opened: Opener) -> None:
    """The reaper takes an agent down its own preset's path."""
    clock = FakeClock()
    seen: list[Phase] = []
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def note(session: Session, _reason: str) -> None:
            seen.append(session.phase)

        await sessions.create(id="a1", lifecycle="agent", expiry=Expiry(idle=10))
        clock.advance(10)
        assert await Reaper(sessions).sweep() == 1
        assert seen == [Phase.TERMINATING]


@pytest.mark.behaviour(28)
async def test_sessions_are_found_by_phase_and_label(opened: Opener) -> None:
    """Both filters together are ANDed, in lists and counts, and follow each move."""
    async with opened() as sessions:
        await agent_in(sessions, Phase.CREATED, "created")
        await agent_in(sessions, Phase.ACTIVE, "active")
        await agent_in(sessions, Phase.TERMINATING, "terminating")
        await sessions.create(id="other", lifecycle="agent", labels={"role": "critic"})
        found = await sessions.list(phase=Phase.CREATED, labels={"role": "coder"})
        assert [s.id for s in found.items] == ["created"]
        assert await sessions.count(phase=[Phase.ACTIVE, Phase.TERMINATING]) == 2
        await sessions.apply("created", Trigger.SPAWN)
        assert await sessions.count(phase=Phase.CREATED, labels={"role": "coder"}) == 0
        assert await sessions.count(labels={"role": "coder"}) == 3


# --------------------------------------------------------------------------------------- heartbeats


@pytest.mark.behaviour(119)
@pytest.mark.parametrize("phase", [p for p in WAY if p is not Phase.CLEANED])
async def test_a_heartbeat_notes_the_clocks_time(opened: Opener, phase: Phase) -> None:
    """In any phase that is not over: `active_at` is the injected now; the revision stays."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        before = await agent_in(sessions, phase)
        clock.advance(7)
        at = await sessions.heartbeat("a1")
        assert (at - before.active_at).total_seconds() == 7
        after = await sessions.require("a1")
        assert (after.active_at, after.revision, after.phase) == (at, before.revision, phase)


@pytest.mark.behaviour(117)
async def test_a_heartbeat_of_nobody_fails(opened: Opener) -> None:
    """Unknown: `NotFound`; cleaned: `Ended`; malformed: `InvalidId`. None of them creates."""
    async with opened() as sessions:
        await agent_in(sessions, Phase.CLEANED)
        with pytest.raises(NotFound):
            await sessions.heartbeat("unknown")
        with pytest.raises(Ended):
            await sessions.heartbeat("a1")
        with pytest.raises(InvalidId):
            await sessions.heartbeat("")
        assert await sessions.get("unknown") is None


@pytest.mark.behaviour(119)
async def test_a_hundred_parallel_events_and_heartbeats_are_all_counted(opened: Opener) -> None:
    """Nothing is lost between two managers: 100 events have 100 numbers, and revisions agree."""
    async with opened() as here, opened() as there:
        await here.create(id="a1", lifecycle="agent")
        both = [here, there]
        await asyncio.gather(
            *(both[n % 2].append("a1", Event(kind="message", body=n)) for n in range(100)),
            *(both[n % 2].heartbeat("a1") for n in range(100)),
        )
        found = await here.require("a1", events=200)
        assert [event.seq for event in found.events] == list(range(1, 101))
        assert sorted(event.body for event in found.events) == list(range(100))
        assert found.revision == 101


# -------------------------------------------------------------------------------------------- roles


@pytest.mark.behaviour(118)
async def test_a_second_live_holder_of_a_role_is_refused(opened: Opener) -> None:
    """`RoleTaken` names the holder and the role; nothing of the second session is stored."""
    async with opened() as sessions:
        await sessions.create(id="first", **ROLE)
        with pytest.raises(RoleTaken, match="'first'") as refused:
            await sessions.create(id="second", state={"app:k": 1}, **ROLE)
        assert refused.value.holder == "first"
        assert refused.value.claim == {"workspace": "w1", "role": "coder"}
        assert await sessions.get("second") is None
        assert await sessions.app_state() == {}
        assert await sessions.count() == 1


@pytest.mark.behaviour(118)
@pytest.mark.parametrize("how", ["end", "retain", "delete", "forget"])
async def test_a_role_is_free_once_its_holder_is_gone(opened: Opener, how: str) -> None:
    """Cleaned (kept to be read or not), deleted or forgotten: the next one gets the role."""
    async with opened() as sessions:
        await sessions.create(id="first", user="u1", **ROLE)
        ways: dict[str, Callable[[], Any]] = {
            "end": lambda: sessions.end("first"),
            "retain": lambda: sessions.end("first", retain=60),
            "delete": lambda: sessions.delete("first"),
            "forget": lambda: sessions.forget("u1"),
        }
        await ways[how]()
        second = await sessions.create(id="second", **ROLE)
        with pytest.raises(RoleTaken) as refused:
            await sessions.create(id="third", **ROLE)
        assert refused.value.holder == second.id


@pytest.mark.behaviour(118)
async def test_a_role_is_held_until_its_holder_is_clean(opened: Opener) -> None:
    """Terminating is not clean: while its end fails the role stays taken, then it is free."""
    broken = True
    async with opened() as sessions:

        @sessions.on_end
        async def maybe(_session: Session, _reason: str) -> None:
            if broken:
                raise OSError("still running")

        await sessions.create(id="first", **ROLE)
        with pytest.raises(EndFailed):
            await sessions.end("first")
        with pytest.raises(RoleTaken):
            await sessions.create(id="second", **ROLE)
        broken = False
        await sessions.end("first")
        await sessions.create(id="second", **ROLE)


async def test_a_role_is_the_combination_of_its_labels(opened: Opener) -> None:
    """Another workspace, another role, another app, or no claim: none of these is taken."""
    async with opened() as sessions, opened(app="other") as others:
        await sessions.create(id="first", **ROLE)
        labels = ROLE["labels"]
        await sessions.create(**{**ROLE, "labels": {**labels, "role": "critic"}})
        await sessions.create(**{**ROLE, "labels": {**labels, "workspace": "w2"}})
        await sessions.create(**{**ROLE, "exclusive": ()})
        await others.create(**ROLE)
        with pytest.raises(RoleTaken):
            await sessions.create(**{**ROLE, "labels": {**labels, "colour": "blue"}})
        with pytest.raises(RoleTaken):
            await sessions.create(**{**ROLE, "exclusive": ("role", "workspace")})


async def test_an_exclusive_label_stays_as_it_was_created(opened: Opener) -> None:
    """It cannot be changed or removed, which would free or steal a role; other labels can."""
    async with opened() as sessions:
        session = await sessions.create(**ROLE)
        for patch in ({"role": "critic"}, {"workspace": None}):
            with pytest.raises(InvalidId, match="exclusive"):
                await sessions.label(session, patch)
        await sessions.label(session, {"role": "coder", "colour": "blue"})
        assert dict(session.labels) == {**ROLE["labels"], "colour": "blue"}


@pytest.mark.parametrize("exclusive", [("shift",), "role"])
async def test_a_claim_names_labels_of_the_session(opened: Opener, exclusive: Any) -> None:
    """A label that is not there, or a bare string, is `InvalidId` and nothing is stored."""
    async with opened() as sessions:
        with pytest.raises(InvalidId, match="exclusive"):
            await sessions.create(**{**ROLE, "exclusive": exclusive})
        assert await sessions.count() == 0


async def test_a_role_of_an_expired_holder_is_freed_by_finishing_it(opened: Opener) -> None:
    """Its hooks run before the next holder starts; if they fail, the role is still taken."""
    clock, broken = FakeClock(), True
    ended: list[str] = []
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def note(session: Session, reason: str) -> None:
            if broken:
                raise OSError("not now")
            ended.append(f"{session.id} {reason}")

        await sessions.create(id="first", expiry=Expiry(idle=10), **ROLE)
        clock.advance(10)
        with pytest.raises(RoleTaken) as refused:
            await sessions.create(id="second", **ROLE)
        assert isinstance(refused.value.__cause__, EndFailed)
        broken = False
        await sessions.create(id="second", **ROLE)
        assert ended == ["first expired"]


@pytest.mark.behaviour(122)
async def test_of_ten_at_once_one_gets_the_role(opened: Opener) -> None:
    """Ten creates in two managers: exactly one session, and every refusal names it."""
    async with opened() as here, opened() as there:
        outcomes = await asyncio.gather(
            *((here, there)[number % 2].create(**ROLE) for number in range(10)),
            return_exceptions=True,
        )
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Session)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, RoleTaken)]
        assert [loser.holder for loser in losers] == [winner.id] * 9
        assert await here.count() == 1

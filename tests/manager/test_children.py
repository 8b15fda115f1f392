"""Children: sessions under another session, with a life of their own and no longer one than its."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sojourn import (
    Ended,
    EndFailed,
    Expiry,
    NotFound,
    Phase,
    Reaper,
    Session,
    SessionManager,
    Trigger,
)
from sojourn.limits import END_CLAIM_SECONDS
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


class Recorder:
    """An end hook that notes the ids in order, and fails for those in `broken`."""

    def __init__(self, *broken: str) -> None:
        self.ended: list[str] = []
        self.broken = set(broken)

    async def __call__(self, session: Session, _reason: str) -> None:
        if session.id in self.broken:
            raise OSError(f"{session.id} resists")
        self.ended.append(session.id)


async def a_family(sessions: SessionManager, lifecycle: str = "open") -> None:
    """Create `parent` with the children `a` and `b`, and `grandchild` under `a`."""
    await sessions.create(id="parent", lifecycle=lifecycle)
    await sessions.create(id="a", parent="parent", lifecycle=lifecycle)
    await sessions.create(id="b", parent="parent", lifecycle=lifecycle)
    await sessions.create(id="grandchild", parent="a", lifecycle=lifecycle)


async def phases(sessions: SessionManager) -> dict[str, Phase]:
    """Return the phase of every session that is there, by id."""
    return {s.id: s.phase for s in (await sessions.list(order="created")).items}


async def test_children_are_listed_and_counted_by_parent(opened: Opener) -> None:
    """`parent=` finds direct children only, of this incarnation of the parent."""
    async with opened() as sessions:
        await a_family(sessions)
        found = await sessions.list(parent="parent", order="created")
        assert [(s.id, s.parent) for s in found.items] == [("a", "parent"), ("b", "parent")]
        assert await sessions.count(parent="parent") == 2
        assert await sessions.count(parent="b") == 0


async def test_a_child_needs_a_live_parent(opened: Opener) -> None:
    """Unknown: `NotFound`; expired or ended: `Ended`; and no child is stored."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="expired", expiry=Expiry(idle=10))
        await sessions.create(id="ended")
        await sessions.end("ended", retain=60)
        clock.advance(10)
        with pytest.raises(NotFound, match="no such parent"):
            await sessions.create(id="child", parent="unknown")
        for parent in ("expired", "ended"):
            with pytest.raises(Ended):
                await sessions.create(id="child", parent=parent)
        assert await sessions.get("child", expired=True) is None


@pytest.mark.behaviour(120)
async def test_a_childs_failure_is_its_own(opened: Opener) -> None:
    """A child that fails to start is ended with its reason; parent and siblings are untouched."""
    async with opened() as sessions:
        await a_family(sessions, "agent")
        for trigger in (Trigger.SPAWN, Trigger.ACTIVATE):
            await sessions.apply("parent", trigger)
        await sessions.apply("b", Trigger.SPAWN)
        await sessions.apply("a", Trigger.SPAWN)
        await sessions.end("a", reason="could not start", retain=60)
        found = await sessions.require("a")
        assert (found.phase, found.reason) == (Phase.CLEANED, "could not start")
        assert await phases(sessions) == {
            "parent": Phase.ACTIVE,
            "a": Phase.CLEANED,
            "b": Phase.SPAWNING,
        }


async def test_deleting_a_parent_deletes_its_family(opened: Opener) -> None:
    """Children and grandchildren go with it, with what they own; a stranger stays."""
    async with opened() as sessions:
        await a_family(sessions)
        await sessions.create(id="stranger")
        await sessions.documents("grandchild").put("c", "k", b"x")
        assert await sessions.delete("parent") is True
        assert await phases(sessions) == {"stranger": Phase.OPEN}
        assert await sessions.count() == 1
        await sessions.create(id="parent")
        assert await sessions.count(parent="parent") == 0
        await sessions.create(id="grandchild")
        assert await sessions.documents("grandchild").list("c") == []


async def test_deleting_a_child_leaves_the_rest(opened: Opener) -> None:
    """Deletion goes down, never up or sideways."""
    async with opened() as sessions:
        await a_family(sessions)
        await sessions.delete("a")
        assert set(await phases(sessions)) == {"parent", "b"}
        assert await sessions.count(parent="parent") == 1


@pytest.mark.behaviour(120)
async def test_an_end_goes_through_the_children_first(opened: Opener) -> None:
    """Hooks of grandchildren run before those of children, these before those of the parent."""
    hook = Recorder()
    async with opened() as sessions:
        sessions.on_end(hook)
        await a_family(sessions)
        assert await sessions.end("parent") is True
        assert sorted(hook.ended) == ["a", "b", "grandchild", "parent"]
        assert hook.ended.index("grandchild") < hook.ended.index("a")
        assert hook.ended[-1] == "parent"
        assert await phases(sessions) == {}


@pytest.mark.behaviour(120)
async def test_children_end_in_parallel(opened: Opener) -> None:
    """Three children whose hooks wait for each other all end."""
    party = asyncio.Barrier(3)
    async with opened() as sessions:
        await sessions.create(id="parent")
        for number in range(3):
            await sessions.create(id=f"child {number}", parent="parent")

        @sessions.on_end
        async def meet(session: Session, _reason: str) -> None:
            if session.parent:
                await party.wait()

        assert await sessions.end("parent") is True
        assert await phases(sessions) == {}


@pytest.mark.behaviour(120)
async def test_a_child_that_hangs_is_given_its_time_and_no_more(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The siblings end, the end of the parent fails in bounded time, naming the child's cause."""
    monkeypatch.setattr("sojourn.ending.HOOK_SECONDS", 0.02)
    async with opened() as sessions:
        await a_family(sessions)

        @sessions.on_end
        async def hang(session: Session, _reason: str) -> None:
            if session.id == "b":
                await asyncio.Event().wait()

        with pytest.raises(EndFailed) as failed:
            await sessions.end("parent")
        (cause,) = failed.value.causes
        assert isinstance(cause, EndFailed)
        assert (failed.value.id, cause.id) == ("parent", "b")
        assert [type(part) for part in cause.causes] == [TimeoutError]
        assert await phases(sessions) == {"parent": Phase.ENDING, "b": Phase.ENDING}


async def test_a_child_that_fails_holds_its_parent_back_until_it_succeeds(opened: Opener) -> None:
    """The parent stays ending and whole, its own hook has not run, and the reaper ends both."""
    clock, hook = FakeClock(), Recorder("grandchild")
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await a_family(sessions)
        with pytest.raises(EndFailed, match="grandchild resists"):
            await sessions.end("parent")
        assert hook.ended == ["b"]
        assert await phases(sessions) == dict.fromkeys(("parent", "a", "grandchild"), Phase.ENDING)
        with pytest.raises(Ended):
            await sessions.create(parent="parent")

        hook.broken.clear()
        clock.advance(1)
        assert await Reaper(sessions).sweep() > 0
        assert hook.ended == ["b", "grandchild", "a", "parent"]
        assert await phases(sessions) == {}


@pytest.mark.parametrize("how", ["finish", "reaper"])
async def test_the_second_half_of_an_end_goes_through_the_children_too(
    opened: Opener, how: str
) -> None:
    """An end begun by `apply` skips no child's hooks, whoever finishes it."""
    clock, hook = FakeClock(), Recorder()
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await a_family(sessions)
        await sessions.apply("parent", Trigger.END)
        if how == "finish":
            assert await sessions.finish("parent") is True
        else:
            clock.advance(END_CLAIM_SECONDS)
            assert await Reaper(sessions).sweep() == 1
        assert sorted(hook.ended) == ["a", "b", "grandchild", "parent"]
        assert hook.ended[-1] == "parent"


async def test_no_child_slips_in_while_its_parent_ends(opened: Opener) -> None:
    """From the moment that its children are ended, the parent takes no new ones."""
    hook = Recorder()
    refused: list[str] = []
    async with opened() as sessions:
        sessions.on_end(hook)

        @sessions.on_end
        async def have_another(session: Session, _reason: str) -> None:
            if session.parent:
                with pytest.raises(Ended):
                    await sessions.create(id="late", parent="parent")
                refused.append(session.id)

        await sessions.create(id="parent")
        await sessions.create(id="child", parent="parent")
        await sessions.end("parent")
        assert refused == ["child"]
        assert hook.ended == ["child", "parent"]


async def test_a_parent_that_expires_takes_its_children_down_the_end_path(opened: Opener) -> None:
    """The reaper runs the hooks of children that have not expired themselves, children first."""
    clock, hook = FakeClock(), Recorder()
    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        await sessions.create(id="parent", expiry=Expiry(idle=10))
        await sessions.create(id="child", parent="parent")
        clock.advance(10)
        assert await Reaper(sessions).sweep() == 1
        assert hook.ended == ["child", "parent"]
        assert await phases(sessions) == {}


async def test_a_parent_that_was_used_again_keeps_its_children(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Used between the reaper's look and its step, the parent lives, and so do its children."""
    clock, hook = FakeClock(), Recorder()
    async with opened(clock=clock) as sessions, opened(clock=FakeClock()) as others:
        sessions.on_end(hook)
        await sessions.create(id="parent", expiry=Expiry(idle=10))
        await sessions.create(id="child", parent="parent")
        clock.advance(10)
        (due,) = await sessions.ending.due(10)
        assert due.id == "parent"
        monkeypatch.setattr(others._context._clock, "_now", clock.now() - 1)
        await others.heartbeat("parent")
        assert await sessions.ending.finish_due(due) is False
        assert hook.ended == []
        assert set(await phases(sessions)) == {"parent", "child"}


async def test_retained_children_go_with_their_parent(opened: Opener) -> None:
    """An ended child that is kept to be read is removed when its parent is."""
    hook = Recorder()
    async with opened() as sessions:
        sessions.on_end(hook)
        await sessions.create(id="parent")
        await sessions.create(id="child", parent="parent")
        await sessions.end("child", retain=60)
        await sessions.end("parent")
        assert hook.ended == ["child", "parent"]
        assert await phases(sessions) == {}


async def test_a_deep_family_can_be_ended(opened: Opener) -> None:
    """Depth is no obstacle: every session of a long line ends, the youngest first."""
    hook = Recorder()
    async with opened() as sessions:
        sessions.on_end(hook)
        await sessions.create(id="0")
        for number in range(1, 40):
            await sessions.create(id=f"{number}", parent=f"{number - 1}")
        assert await sessions.end("0") is True
        assert hook.ended == [f"{number}" for number in reversed(range(40))]

"""What is ambient: in nested scopes, tasks, generators, and after the scope is left."""

from __future__ import annotations

import asyncio
import gc
import weakref
from itertools import permutations, product
from typing import TYPE_CHECKING

import pytest

from sojourn import Scope, Session, SessionManager, current_scope, current_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


def ambient() -> str | None:
    """Return the id of the session that is ambient here."""
    session = current_session()
    return None if session is None else session.id


async def numbers(sessions: SessionManager, id: str) -> AsyncIterator[str | None]:
    """Yield twice what is ambient inside a scope, for whoever asks."""
    async with sessions.scope(id):
        yield ambient()
        yield ambient()


# --------------------------------------------------------------------------------- ids and parents


@pytest.mark.behaviour(139)
async def test_a_scope_has_an_id_of_its_own_and_a_parent(opened: Opener) -> None:
    """Also when it works in the same session, and on the same copy, as the one around it."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        assert current_scope() is None
        async with sessions.scope("s1") as outer_copy:
            outer = current_scope()
            assert isinstance(outer, Scope)
            assert outer.session is outer_copy
            assert (outer.parent, outer.parent_id) == (None, None)
            async with sessions.scope(outer_copy) as same_copy, outer.child() as own_copy:
                inner = current_scope()
                assert inner is not None
                middle = inner.parent
                assert middle is not None
                assert middle.parent is outer
                assert (same_copy is outer_copy, own_copy is outer_copy) == (True, False)
                assert (inner.parent_id, middle.parent_id) == (middle.id, outer.id)
                assert len({outer.id, middle.id, inner.id}) == 3
                assert repr(inner) == f"<Scope {inner.id} of session 's1'>"
            assert current_scope() is outer
            assert (inner.left, middle.left, outer.left) == (True, True, False)
            assert repr(inner).endswith(" left>")


async def test_a_child_shows_what_is_stored_and_saves_its_own(opened: Opener) -> None:
    """Its copy does not have what the outer one has not saved; both are merged per key."""
    async with opened() as sessions:
        await sessions.create(id="s1", state={"a": 0, "b": 0})
        async with sessions.scope("s1") as outer:
            outer.state["a"] = 1
            scope = current_scope()
            assert scope is not None
            async with scope.child() as inner:
                assert dict(inner.state) == {"a": 0, "b": 0}
                inner.state["b"] = 1
            assert dict((await sessions.require("s1")).state) == {"a": 0, "b": 1}
        assert dict((await sessions.require("s1")).state) == {"a": 1, "b": 1}


async def test_any_nesting_keeps_the_innermost_ambient(opened: Opener) -> None:
    """Entered (true) and left (false) in any nested order: the stack says what is ambient."""
    async with opened() as sessions:
        for way in product((True, False), repeat=6):
            await walk(sessions, way)
            assert ambient() is None
        assert sessions.scopes.live() == frozenset()


async def walk(sessions: SessionManager, way: tuple[bool, ...]) -> None:
    stack: list[tuple[str, AbstractAsyncContextManager[Session]]] = []
    for number, enter in enumerate(way):
        if enter:
            scope = sessions.scope(sessions.new(id=f"s{number}"))
            stack.append(((await scope.__aenter__()).id, scope))
        elif stack:
            await stack.pop()[1].__aexit__(None, None, None)
        assert ambient() == (stack[-1][0] if stack else None)
    while stack:
        await stack.pop()[1].__aexit__(None, None, None)


async def test_scopes_that_are_left_out_of_order_leave_the_others_alone(opened: Opener) -> None:
    """What is ambient is the one entered last of those that are not left, however they are left."""
    async with opened() as sessions:
        for order in permutations(range(4)):
            scopes = [sessions.scope(sessions.new(id=f"s{number}")) for number in range(4)]
            for scope in scopes:
                await scope.__aenter__()
            live = list(range(4))
            for number in order:
                await scopes[number].__aexit__(None, None, None)
                live.remove(number)
                assert ambient() == (f"s{live[-1]}" if live else None)
        assert sessions.scopes.live() == frozenset()


# ------------------------------------------------------------------------------------ tasks, gather


async def test_gathered_work_sees_the_scope_around_it_and_its_own(opened: Opener) -> None:
    """Each has its own inner scope; the outer one is untouched by any of them."""
    party = asyncio.Barrier(3)
    async with opened() as sessions:
        for id in ("outer", "s0", "s1", "s2"):
            await sessions.create(id=id)

        async def work(number: int) -> list[str | None]:
            seen = [ambient()]
            async with sessions.scope(f"s{number}"):
                await party.wait()
                seen.append(ambient())
                await party.wait()
            return [*seen, ambient()]

        async with sessions.scope("outer"):
            found = await asyncio.gather(*(work(number) for number in range(3)))
            assert found == [["outer", f"s{number}", "outer"] for number in range(3)]
            assert ambient() == "outer"


async def test_work_that_outlives_its_scope_sees_no_session(opened: Opener) -> None:
    """What it would change on the copy of a scope that is left, nobody would save."""
    left = asyncio.Event()
    async with opened() as sessions:
        await sessions.create(id="outer")
        await sessions.create(id="inner")
        seen: list[str | None] = []

        async def linger() -> None:
            seen.append(ambient())
            await left.wait()
            seen.append(ambient())

        async with sessions.scope("outer"):
            async with sessions.scope("inner"):
                task = asyncio.create_task(linger())
                await asyncio.sleep(0)
            left.set()
            await task
            assert seen == ["inner", "outer"]
            left.clear()
            task = asyncio.create_task(linger())
            await asyncio.sleep(0)
        left.set()
        await task
        assert seen[2:] == ["outer", None]


async def test_a_cancelled_task_leaves_its_scopes(opened: Opener) -> None:
    """All of them, and only its own."""
    async with opened() as sessions:
        for id in ("outer", "s1", "s2"):
            await sessions.create(id=id)
        inside = asyncio.Event()

        async def work() -> None:
            async with sessions.scope("s1"), sessions.scope("s2"):
                inside.set()
                await asyncio.Event().wait()

        async with sessions.scope("outer"):
            task = asyncio.create_task(work())
            await inside.wait()
            assert sessions.scopes.live() == {"outer", "s1", "s2"}
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert sessions.scopes.live() == {"outer"}
            assert ambient() == "outer"


async def test_work_that_starts_work_does_not_keep_all_that_went_before(opened: Opener) -> None:
    """Each task starts the next one inside its scope: what is over is forgotten."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        seen: list[weakref.ref[Scope]] = []
        alive: list[int] = []
        over = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def work(left: int) -> None:
            async with sessions.scope("s1"):
                scope = current_scope()
                assert scope is not None
                seen.append(weakref.ref(scope))
                if left:
                    begun = asyncio.Event()
                    task = asyncio.create_task(next_one(begun, left - 1))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    await begun.wait()
                else:
                    while len(tasks) > 1:  # the earlier ones are on their way out
                        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    gc.collect()
                    alive.append(sum(scope() is not None for scope in seen))
                    over.set()

        async def next_one(begun: asyncio.Event, left: int) -> None:
            async with sessions.scope("s1"):
                begun.set()
            await work(left)

        await work(20)
        await over.wait()
        assert alive[0] <= 3


# --------------------------------------------------------------------------------------- generators


async def test_a_scope_in_a_generator_is_over_when_the_generator_is(opened: Opener) -> None:
    """Run to its end, closed early, or broken off."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        assert [seen async for seen in numbers(sessions, "s1")] == ["s1", "s1"]
        assert ambient() is None
        generator = numbers(sessions, "s1")
        assert await anext(generator) == "s1"
        await generator.aclose()  # type: ignore[attr-defined]  # it is an async generator
        assert ambient() is None
        assert sessions.scopes.live() == frozenset()


async def test_generators_that_take_turns_each_leave_their_own(opened: Opener) -> None:
    """The one that was begun first ends first: the other one's session stays ambient."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        await sessions.create(id="s2")
        first, second = numbers(sessions, "s1"), numbers(sessions, "s2")
        assert (await anext(first), await anext(second)) == ("s1", "s2")
        assert await anext(first) == "s2"  # a generator shares the context of its consumer
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        assert sessions.scopes.live() == {"s2"}
        assert await anext(second) == "s2"
        with pytest.raises(StopAsyncIteration):
            await anext(second)
        assert ambient() is None


async def test_a_generator_that_another_task_closes_leaves_its_scope(opened: Opener) -> None:
    """In another context than it was entered in: nothing stays ambient, nothing stays live."""
    async with opened() as sessions:
        await sessions.create(id="outer")
        await sessions.create(id="s1")
        async with sessions.scope("outer"):
            generator = numbers(sessions, "s1")
            assert await anext(generator) == "s1"
            closing = asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]  # it is an async generator
            await closing
            assert ambient() == "outer"
            assert sessions.scopes.live() == {"outer"}
            async with sessions.scope("s1"):
                assert ambient() == "s1"
            assert ambient() == "outer"
        assert ambient() is None


async def test_a_generator_that_was_let_go_of_leaves_its_scope(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collected, it is closed by the loop; its changes are not saved, as its body was cut short."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def changing() -> AsyncIterator[int]:
            async with sessions.scope("s1") as s:
                s.state["k"] = "cut short"
                yield 1

        async for _ in changing():
            break
        closed = asyncio.Event()
        leave = sessions.scopes._leave

        def noting(scope: Scope) -> bool:
            closed.set()
            return leave(scope)

        monkeypatch.setattr(sessions.scopes, "_leave", noting)
        gc.collect()
        await closed.wait()
        assert sessions.scopes.live() == frozenset()
        assert ambient() is None
        assert "k" not in (await sessions.require("s1")).state

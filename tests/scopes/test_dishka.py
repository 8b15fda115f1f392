"""The provider in real dishka containers: whose session, which copy, and what a close means."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from dishka import (
    STRICT_VALIDATION,
    AsyncContainer,
    Provider,
    from_context,
    make_async_container,
    provide,
)
from dishka import Scope as Span
from dishka.exceptions import ExitError

from sojourn import (
    Closed,
    Ended,
    InvalidQuery,
    NotFound,
    OutOfScope,
    Scope,
    Session,
    SessionManager,
    current_scope,
    current_session,
)
from sojourn.dishka import SessionId, SojournProvider
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


class Oops(Exception):
    """What a handler raises."""


class Request:
    """What a web framework hands in."""

    def __init__(self, session: str) -> None:
        self.session = session


class FromRequest(Provider):
    """Says which session a request is of."""

    request = from_context(provides=Request, scope=Span.SESSION)

    @provide(scope=Span.SESSION, override=True)
    def session_id(self, request: Request) -> SessionId:
        return SessionId(request.session)


class Cart:
    """A service that works in the session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, item: str) -> None:
        self.session.state.setdefault("cart", []).append(item)
        self.session.state["cart"] = [*self.session.state["cart"]]


class Services(Provider):
    """Provides the service, to each request anew."""

    cart = provide(Cart, scope=Span.REQUEST)


def container_of(sessions: SessionManager | str, *more: Provider, **given: Any) -> AsyncContainer:
    """Return a container with the provider, checked as strictly as dishka can."""
    return make_async_container(
        SojournProvider(sessions, **given), *more, validation_settings=STRICT_VALIDATION
    )


def named(id: str) -> dict[Any, Any]:
    """Return the context that names a session."""
    return {SessionId: SessionId(id)}


# ------------------------------------------------------------------------------------- the session


async def test_a_session_scope_works_in_the_session_of_its_id(opened: Opener) -> None:
    """One copy for all requests inside; ambient; saved when the scope is closed, not before."""
    async with opened() as sessions:
        await sessions.create(id="s1", state={"cart": []})
        container = container_of(sessions, Services())
        async with container(context=named("s1"), scope=Span.SESSION) as session_scope:
            session = await session_scope.get(Session)
            assert session is current_session()
            assert sessions.scopes.live() == {"s1"}
            for item in ("tea", "salt"):
                async with session_scope() as request_scope:
                    cart = await request_scope.get(Cart)
                    assert cart.session is session
                    cart.add(item)
            assert (await sessions.require("s1")).state["cart"] == []
        assert (await sessions.require("s1")).state["cart"] == ["tea", "salt"]
        assert current_session() is None
        assert sessions.scopes.live() == frozenset()
        await container.close()


async def test_a_request_that_enters_directly_passes_its_context_on(opened: Opener) -> None:
    """As web frameworks do: the SESSION scope in between is entered by itself."""
    async with opened() as sessions:
        await sessions.create(id="s1", state={"cart": []})
        container = container_of(sessions, Services(), FromRequest())
        async with container(context={Request: Request("s1")}) as request_scope:
            (await request_scope.get(Cart)).add("tea")
        assert (await sessions.require("s1")).state["cart"] == ["tea"]
        await container.close()


async def test_without_an_id_it_is_the_ambient_session(opened: Opener) -> None:
    """Whoever made it ambient saves it; where none is, the error says so."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        container = container_of(sessions)
        async with sessions.scope("s1") as s:
            async with container() as request_scope:
                assert await request_scope.get(Session) is s
                s.state["k"] = 1
            assert "k" not in (await sessions.require("s1")).state
        assert (await sessions.require("s1")).state["k"] == 1
        async with container() as request_scope:
            with pytest.raises(OutOfScope, match="SessionId"):
                await request_scope.get(Session)
        await container.close()


async def test_two_containers_at_the_same_time_have_their_own_sessions(opened: Opener) -> None:
    """Each task sees its own, and its own copy."""
    party = asyncio.Barrier(2)
    async with opened() as sessions:
        container = container_of(sessions)

        async def handle(id: str) -> None:
            await sessions.create(id=id)
            async with container(context=named(id)) as request_scope:
                session = await request_scope.get(Session)
                await party.wait()
                assert current_session() is session
                assert session.id == id

        await asyncio.gather(handle("s1"), handle("s2"))
        await container.close()


async def test_a_session_that_is_missing_or_over_is_not_provided(opened: Opener) -> None:
    """The error is the manager's own; nothing stays ambient."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        await sessions.end("s1", retain=60)
        container = container_of(sessions)
        for id, error in (("unknown", NotFound), ("s1", Ended)):
            async with container(context=named(id)) as request_scope:
                with pytest.raises(error):
                    await request_scope.get(Session)
        assert current_session() is None
        await container.close()


# ----------------------------------------------------------------------------------------- failures


@pytest.mark.behaviour(127)
async def test_a_container_that_is_closed_with_an_error_saves_nothing(opened: Opener) -> None:
    """Neither the session's copy nor the request's; the error is the handler's own."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        container = container_of(sessions)

        async def handle() -> None:
            async with container(context=named("s1")) as request_scope:
                (await request_scope.get(Session)).state["a"] = 1
                (await request_scope.get(Scope)).session.state["b"] = 1
                raise Oops

        with pytest.raises(Oops):
            await handle()
        assert dict((await sessions.require("s1")).state) == {}
        assert sessions.scopes.live() == frozenset()
        assert current_session() is None
        await container.close()


async def test_a_save_that_fails_is_told_in_the_way_of_the_container(opened: Opener) -> None:
    """Dishka gathers what went wrong while closing."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        container = container_of(sessions)

        async def handle() -> None:
            async with container(context=named("s1")) as request_scope:
                (await request_scope.get(Session)).state["k"] = "too late"
                await sessions.end("s1")

        with pytest.raises(ExitError) as caught:
            await handle()
        assert caught.group_contains(Ended)
        await container.close()


async def test_a_cancelled_handler_leaves_its_scopes(opened: Opener) -> None:
    """Nothing is saved, nothing stays live."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        container = container_of(sessions)
        inside = asyncio.Event()

        async def handle() -> None:
            async with container(context=named("s1")) as request_scope:
                (await request_scope.get(Session)).state["k"] = 1
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(handle())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "k" not in (await sessions.require("s1")).state
        assert sessions.scopes.live() == frozenset()
        await container.close()


async def test_a_container_that_was_never_closed_leaves_its_scopes_in_the_end(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let go of, its generators are closed by the loop, and with them the scopes."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        container = container_of(sessions)
        left = asyncio.Semaphore(0)
        leave = sessions.scopes._leave

        def noting(scope: Scope) -> bool:
            left.release()
            return leave(scope)

        monkeypatch.setattr(sessions.scopes, "_leave", noting)

        async def handle() -> None:
            request_scope = container(context=named("s1"))
            await request_scope.get(Session)
            await request_scope.get(Scope)

        await asyncio.create_task(handle())
        gc.collect()
        await left.acquire()
        await left.acquire()
        assert sessions.scopes.live() == frozenset()
        await container.close()


# --------------------------------------------------------------------------------------- requests


async def test_a_request_has_a_scope_of_its_own_inside_the_session(opened: Opener) -> None:
    """With a copy of its own that is saved at the end of the request, as on a socket."""
    async with opened() as sessions:
        await sessions.create(id="s1", state={"n": 0})
        container = container_of(sessions)
        async with container(context=named("s1"), scope=Span.SESSION) as session_scope:
            session = await session_scope.get(Session)
            outer = current_scope()
            assert outer is not None
            seen: list[str] = []
            for number in (1, 2):
                async with session_scope() as request_scope:
                    scope = await request_scope.get(Scope)
                    assert scope is current_scope()
                    assert scope.parent is outer
                    assert scope.session is not session
                    scope.session.state["n"] += 1
                    seen.append(scope.id)
                assert (await sessions.require("s1")).state["n"] == number
            assert len(set(seen)) == 2
        assert (await sessions.require("s1")).state["n"] == 2
        await container.close()


async def test_a_session_that_is_not_stored_yet_has_one_copy_for_all(opened: Opener) -> None:
    """A visitor's first request: the request's scope works on that copy, and saves it."""
    async with opened() as sessions:
        container = container_of(sessions)
        async with sessions.scope(sessions.new(id="s1")) as s:
            async with container() as request_scope:
                assert (await request_scope.get(Scope)).session is s
                s.state["k"] = 1
            assert (await sessions.require("s1")).state["k"] == 1
        await container.close()


# ------------------------------------------------------------------------------------ the manager


async def test_a_manager_that_was_given_is_not_closed(opened: Opener) -> None:
    """It is whoever's made it."""
    async with opened() as sessions:
        container = container_of(sessions)
        assert await container.get(SessionManager) is sessions
        await container.close()
        await sessions.create(id="s1")


async def test_a_manager_of_a_url_is_opened_and_closed_with_the_container(url: str) -> None:
    """With the collaborators that were given."""
    clock = FakeClock()
    container = container_of(url, app="shop", clock=clock)
    sessions = await container.get(SessionManager)
    assert (sessions.app, sessions.now()) == ("shop", clock.now())
    await sessions.create(id="s1")
    async with container(context=named("s1")) as request_scope:
        assert (await request_scope.get(Session)).id == "s1"
    await container.close()
    with pytest.raises(Closed):
        await sessions.get("s1")


async def test_what_is_no_manager_is_refused(opened: Opener) -> None:
    """At once, naming what is wrong."""
    with pytest.raises(InvalidQuery, match="sessions"):
        SojournProvider(None)  # type: ignore[arg-type]  # what a caller without types may do
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match="clock"):
            SojournProvider(sessions, clock=FakeClock())


def test_without_dishka_it_says_what_to_install() -> None:
    """And the rest of the library does without it."""
    program = (
        "import sys; sys.modules['dishka'] = None\n"
        "import sojourn\n"
        "try:\n    import sojourn.dishka\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert 'pip install "sojourn[dishka]"' in done.stdout

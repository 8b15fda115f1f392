"""Zarichney's usage, against the public face: scopes of requests and jobs, reuse, persistence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    Background,
    EndFailed,
    Event,
    Expiry,
    NotOwner,
    OutOfScope,
    Reaper,
    SessionManager,
    current_scope,
    current_session,
    parallel_map,
)
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import Session

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

HOUR = Expiry(idle=3600)


class Llm:
    """A service: it works in the session that is ambient, whoever called it."""

    def __init__(self, sessions: SessionManager) -> None:
        self._sessions = sessions

    async def say(self, text: str) -> None:
        """Add to the conversation."""
        session = current_session()
        assert session is not None
        event = Event(kind="message", author="llm", body={"text": text})
        await self._sessions.append(session, event)


class Repositories:
    """Where orders and conversations are persisted when their session ends."""

    def __init__(self, sessions: SessionManager, *, broken: bool = False) -> None:
        self._sessions = sessions
        self.broken = broken
        self.orders: list[str] = []
        self.conversations: list[list[str]] = []
        sessions.on_end(self.persist)

    async def persist(self, session: Session, _reason: str) -> None:
        """The end hook: nothing is removed before this is through; raising has it tried again."""
        if self.broken:
            raise OSError("repository is down")
        if "order" in session.state:
            self.orders.append(session.state["order"])
        messages = await self._sessions.events(session.id, kind="message", expired=True)
        if messages:
            self.conversations.append([event.body["text"] for event in messages])


# --------------------------------------------------------------------------------- the middleware


async def handle(
    sessions: SessionManager,
    handler: Callable[[], Awaitable[Any]],
    *,
    user: str | None = None,
    api_key: str | None = None,
) -> Any:
    """Its middleware: by user, else by API key, else a session for this one request."""
    if user is not None:
        async with sessions.scope(await sessions.get_or_create(user=user, expiry=HOUR)):
            return await handler()
    if api_key is not None:
        async with sessions.scope(await sessions.get_or_create(key=api_key, expiry=HOUR)):
            return await handler()
    async with sessions.scope(sessions.new(expiry=HOUR), end=True):
        return await handler()


async def ambient() -> tuple[str, str]:
    """Return the ids of the session and the scope that the handler runs in."""
    scope = current_scope()
    assert scope is not None
    return scope.session.id, scope.id


@pytest.mark.behaviour(124)
@pytest.mark.behaviour(128)
async def test_a_request_finds_its_session(opened: Opener) -> None:
    """The same for the same user or key; the anonymous one is of one request and ends with it."""
    async with opened() as sessions:
        of_user = [await handle(sessions, ambient, user="u-1") for _ in range(2)]
        of_key = [await handle(sessions, ambient, api_key="k-1") for _ in range(2)]
        of_nobody = [await handle(sessions, ambient) for _ in range(2)]
        assert of_user[0][0] == of_user[1][0] != (await handle(sessions, ambient, user="u-2"))[0]
        assert of_key[0][0] == of_key[1][0]
        assert of_nobody[0][0] != of_nobody[1][0]
        assert len({scope for _, scope in of_user + of_key + of_nobody}) == 6
        assert await sessions.count() == 3
        assert sessions.scopes.live() == frozenset()


@pytest.mark.behaviour(128)
async def test_twenty_first_requests_of_a_user_make_one_session(opened: Opener) -> None:
    """Find, then create, made two of them there."""
    async with opened() as sessions:
        found = await asyncio.gather(*(handle(sessions, ambient, user="u-1") for _ in range(20)))
        assert len({session for session, _ in found}) == 1
        assert len({scope for _, scope in found}) == 20


@pytest.mark.behaviour(127)
async def test_a_handler_that_raises_leaves_its_scope(opened: Opener) -> None:
    """Its exception is what propagates, and the session of the user lives on."""

    async def broken() -> None:
        raise ZeroDivisionError

    async with opened() as sessions:
        session, _ = await handle(sessions, ambient, user="u-1")
        for user in ("u-1", None):
            with pytest.raises(ZeroDivisionError):
                await handle(sessions, broken, user=user)
        assert await sessions.get(session) is not None
        assert sessions.scopes.live() == frozenset()
        assert current_session() is None


# ------------------------------------------------------------------- accessing and extending state


async def test_accessing_session_data_in_a_service(opened: Opener) -> None:
    """Its five steps are one: the session is ambient. Outside of any scope it is none."""

    async def service() -> str:
        session = current_session()
        if session is None:
            raise OutOfScope("the service")
        session.state["visits"] = session.state.get("visits", 0) + 1
        return session.id

    async with opened() as sessions:
        await handle(sessions, service, user="u-1")
        id = await handle(sessions, service, user="u-1")
        assert (await sessions.require(id)).state["visits"] == 2
        with pytest.raises(OutOfScope):
            await service()


async def test_sessions_survive_a_restart(url: str) -> None:
    """Volatile there: "session state is lost on application restart"."""
    async with SessionManager.open(url) as before, SessionManager.open(url) as after:
        session, _ = await handle(before, ambient, user="u-1")
        await before.append(session, Event(kind="message", body={"text": "hi"}))
        await before.close()
        again, _ = await handle(after, ambient, user="u-1")
        assert again == session
        assert len(await after.events(session)) == 1


# ------------------------------------------------------------------------ reuse of anonymous ones


@pytest.mark.behaviour(138)
async def test_jobs_may_share_an_anonymous_session_when_they_ask_for_it(opened: Opener) -> None:
    """Its `FindReusableAnonymousSession`, else `CreateSession`: one call; and never a visitor's."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        visitor = await sessions.create(expiry=HOUR, state={"cart": ["private"]})

        async def job() -> str:
            shared = await sessions.get_or_create(reuse=True, expiry=HOUR)
            async with sessions.scope(shared) as session:
                session.state["jobs"] = session.state.get("jobs", 0) + 1
                return session.id

        first = await job()
        assert await job() == first != visitor.id
        assert (await sessions.require(first)).state["jobs"] == 2
        clock.advance(3600)
        assert await job() != first, "what expired is not revived"


@pytest.mark.behaviour(131)
async def test_attaching_by_order_checks_whose_it_is(opened: Opener) -> None:
    """The check that was left to do there."""
    async with opened() as sessions:
        order = await sessions.get_or_create(key="order-42", user="u-1")
        assert (await sessions.get_or_create(key="order-42", user="u-1")).id == order.id
        with pytest.raises(NotOwner):
            await sessions.get_or_create(key="order-42", user="u-2")


# --------------------------------------------------------------------------- persistence at the end


async def order_with_conversation(sessions: SessionManager, order: str | None) -> str:
    """Work in a session as a cookbook order does; return its id."""
    llm = Llm(sessions)
    state = {} if order is None else {"order": order}
    session = await sessions.create(expiry=HOUR, state=state)
    async with sessions.scope(session):
        await llm.say("one recipe")
        await llm.say("another")
    return session.id


@pytest.mark.behaviour(136)
async def test_ending_persists_everything_once(opened: Opener) -> None:
    """Order and conversation, although five end it at the same time; then it is gone."""
    async with opened() as sessions:
        repositories = Repositories(sessions)
        id = await order_with_conversation(sessions, "cookbook")
        assert any(await asyncio.gather(*(sessions.end(id) for _ in range(5))))
        assert repositories.orders == ["cookbook"]
        assert repositories.conversations == [["one recipe", "another"]]
        assert await sessions.get(id) is None


@pytest.mark.behaviour(58)
@pytest.mark.parametrize("order", ["cookbook", None])
async def test_expiring_persists_the_same(opened: Opener, order: str | None) -> None:
    """There the conversations of a session without an order were dropped."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        repositories = Repositories(sessions)
        id = await order_with_conversation(sessions, order)
        assert await Reaper(sessions).sweep() == 0
        clock.advance(3600)
        assert await sessions.get(id) is None
        assert repositories.conversations == []
        assert await Reaper(sessions).sweep() == 1
        assert repositories.orders == ([] if order is None else ["cookbook"])
        assert repositories.conversations == [["one recipe", "another"]]
        assert await sessions.get(id, expired=True) is None


async def test_nothing_is_lost_while_the_repository_is_down(opened: Opener) -> None:
    """There the session was removed first, and its data with it."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        repositories = Repositories(sessions, broken=True)
        id = await order_with_conversation(sessions, "cookbook")
        with pytest.raises(EndFailed):
            await sessions.end(id)
        assert (await sessions.require(id)).state["order"] == "cookbook"
        repositories.broken = False
        clock.advance(60)
        assert await Reaper(sessions).sweep() == 1
        assert (repositories.orders, len(repositories.conversations)) == (["cookbook"], 1)


@pytest.mark.behaviour(55)
async def test_a_session_at_work_is_not_swept(opened: Opener) -> None:
    """Live scopes were ignored there; here the sweep comes after the work."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create(expiry=HOUR)
        async with sessions.scope(session):
            clock.advance(3599)
            assert await Reaper(sessions).sweep() == 0
            await sessions.touch(session)  # as the scope does by itself while it lives
        clock.advance(3599)
        assert await Reaper(sessions).sweep() == 0
        clock.advance(1)
        assert await Reaper(sessions).sweep() == 1


# ----------------------------------------------------------------------------- background, parallel


@pytest.mark.behaviour(132)
@pytest.mark.behaviour(135)
async def test_background_work_joins_the_session_and_does_not_end_it(opened: Opener) -> None:
    """There a job ended, persisted and removed its parent's session under the user's feet."""
    async with opened() as sessions, Background(sessions, workers=1) as jobs:
        repositories, llm = Repositories(sessions), Llm(sessions)

        async def broken() -> None:
            raise ZeroDivisionError

        async def request() -> str:
            await jobs.submit(llm.say, "first")
            await jobs.submit(broken)
            await jobs.submit(llm.say, "second")
            return (await ambient())[0]

        id = await handle(sessions, request, user="u-1")
        await jobs.join()
        assert [event.body["text"] for event in await sessions.events(id)] == ["first", "second"]
        assert (await handle(sessions, ambient, user="u-1"))[0] == id
        assert repositories.conversations == []
        assert current_session() is None


@pytest.mark.behaviour(139)
async def test_parallel_work_has_child_scopes_of_its_own(opened: Opener) -> None:
    """Distinct, which they were not there, and closed, which they never were."""
    async with opened() as sessions:
        llm = Llm(sessions)

        async def recipe(name: str) -> str:
            await llm.say(name)
            return (await ambient())[1]

        async def request() -> list[str]:
            names = [f"recipe {number}" for number in range(10)]
            return await parallel_map(recipe, names, limit=3, child=True)

        scopes = await handle(sessions, request, user="u-1")
        assert len(set(scopes)) == 10
        session = await sessions.find(user="u-1")
        assert session is not None
        assert len(await sessions.events(session.id, kind="message")) == 10
        assert sessions.scopes.live() == frozenset()

"""Races between requests of one session, on every store: nothing is lost, nobody comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.faults.soak import SOAK, count
from tests.web.browser import Browser, Site

from sojourn.web import SessionMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from sojourn import SessionManager
    from sojourn.web import WebSession

    Open: TypeAlias = "Callable[[], AbstractAsyncContextManager[Street]]"

ROUNDS = count(10, 1_000)

pytestmark = [pytest.mark.soak] if SOAK else []


class Meeting:
    """Two requests that wait for each other in the middle of their work."""

    def __init__(self) -> None:
        self.here = asyncio.Event()
        self.go = asyncio.Event()

    async def wait(self) -> None:
        """Say that one is here, and go on when told."""
        self.here.set()
        await self.go.wait()


class Street:
    """A site whose slow pages stop in the middle, until they are told to go on."""

    def __init__(self, sessions: SessionManager) -> None:
        self.sessions = sessions
        self.meeting = Meeting()
        pages = Site(slow=self.slow, glance=self.glance, other=self.other)
        self.app = SessionMiddleware(pages, sessions=sessions)

    async def slow(self, session: WebSession) -> object:
        """Read, wait, write."""
        session["slow"] = session.get("slow", 0) + 1
        await self.meeting.wait()
        return None

    async def glance(self, session: WebSession) -> object:
        """Read all of it, wait, write nothing."""
        seen = dict(session)
        await self.meeting.wait()
        return seen

    async def other(self, session: WebSession) -> object:
        """Write another key."""
        session["other"] = session.get("other", 0) + 1
        return None

    async def beside(self, browser: Browser, slow: str, *paths: str) -> None:
        """Ask for the other pages while the slow one waits in the middle."""
        self.meeting = Meeting()
        late = asyncio.ensure_future(browser.copy().get(slow))
        await self.meeting.here.wait()
        for path in paths:
            assert (await browser.get(path)).status == 200
        self.meeting.go.set()
        assert (await late).status == 200


@pytest.fixture
def street(
    opened: Callable[..., AbstractAsyncContextManager[SessionManager]],
) -> Callable[[], AbstractAsyncContextManager[Street]]:
    """How to open a site on each kind of store."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def open_street() -> AsyncIterator[Street]:
        async with opened() as sessions:
            yield Street(sessions)

    return open_street


async def test_two_writers_of_different_keys_both_survive(street: Open) -> None:
    async with street() as here:
        browser = Browser(here.app)
        await browser.get("/login")
        for round_ in range(1, ROUNDS + 1):
            await here.beside(browser, "/slow", "/other")
            assert (await browser.get("/read")).json == {
                "user": "ada",
                "slow": round_,
                "other": round_,
            }


async def test_a_reader_undoes_nothing(street: Open) -> None:
    async with street() as here:
        browser = Browser(here.app)
        await browser.get("/login")
        for round_ in range(1, ROUNDS + 1):
            await here.beside(browser, "/glance", "/other", "/write")
            assert (await browser.get("/read")).json == {
                "user": "ada",
                "n": round_,
                "other": round_,
            }


async def test_a_logout_beside_a_slow_request_stays_one(street: Open) -> None:
    async with street() as here:
        for _ in range(ROUNDS):
            browser = Browser(here.app)
            await browser.get("/login")
            before = browser.copy()
            await here.beside(browser, "/slow", "/logout")
            assert (await before.get("/read")).json == {"user": None}
        assert await here.sessions.count() == 0


async def test_a_rotation_beside_a_slow_request_keeps_the_data(street: Open) -> None:
    async with street() as here:
        browser = Browser(here.app)
        await browser.get("/login")
        for round_ in range(1, ROUNDS + 1):
            before = browser.copy()
            await here.beside(browser, "/slow", "/rotate")
            assert (await browser.get("/read")).json == {"user": "ada", "slow": round_}
            assert (await before.get("/read")).json == {"user": None}


async def test_logins_at_once_leave_each_browser_logged_in(street: Open) -> None:
    """Whichever cookie arrives last, it is a good one; the token before is dead."""
    async with street() as here:
        for _ in range(ROUNDS):
            browser = Browser(here.app)
            await browser.get("/write")
            tabs = [browser.copy() for _ in range(3)]
            await asyncio.gather(*(tab.get("/login") for tab in tabs))
            for tab in tabs:
                assert (await tab.get("/read")).json["user"] == "ada"
            assert (await browser.get("/read")).json == {"user": None}


async def test_renewals_at_once_are_one(
    opened: Callable[..., AbstractAsyncContextManager[SessionManager]],
) -> None:
    """Of many requests whose token is due, one gets the new one; all are served."""
    async with opened() as sessions:
        app = SessionMiddleware(Site(), sessions=sessions, renew_after=0.000001, grace=60)
        browser = Browser(app)
        await browser.get("/login")
        for _ in range(ROUNDS):
            tabs = [browser.copy() for _ in range(5)]
            answers = await asyncio.gather(*(tab.get("/read") for tab in tabs))
            assert [answer.json["user"] for answer in answers] == ["ada"] * 5
            renewed = [tab for tab in tabs if tab.token != browser.token]
            assert len(renewed) == 1
            browser = renewed[0]


async def test_counting_up_at_once_counts_each(street: Open) -> None:
    async def add(session: WebSession) -> object:
        return await session.incr("views")

    async def first(session: WebSession) -> object:
        return await session.compare_and_set("winner", None, "somebody")

    async with street() as here:
        here.app.app.pages.update(add=add, first=first)  # type: ignore[attr-defined]  # the Site
        browser = Browser(here.app)
        await browser.get("/login")
        for round_ in range(1, max(2, ROUNDS // 10)):
            answers = await asyncio.gather(*(browser.copy().get("/add") for _ in range(5)))
            top = round_ * 5
            assert sorted(answer.json for answer in answers) == list(range(top - 4, top + 1))
        answers = await asyncio.gather(*(browser.copy().get("/first") for _ in range(5)))
        assert sorted(answer.json for answer in answers) == [False] * 4 + [True]


async def test_random_tokens_write_nothing(street: Open) -> None:
    from sojourn.web.tokens import Tokens

    async with street() as here:
        tokens = Tokens()
        for _ in range(count(500, 100_000)):
            visitor = Browser(here.app, cookies={"__Host-sid": tokens.write(tokens.issue())})
            assert (await visitor.get("/read")).json == {"user": None}
        assert await here.sessions.count() == 0

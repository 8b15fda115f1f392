"""Ending sessions of a user: all that can be ended are, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.browser import Browser, Site

from sojourn import AuthNeeded, EndFailed, SessionManager, Unavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web import Cap, SessionMiddleware, Source, devices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn import Session
    from sojourn.web import Notice, WebSession


async def oidc(session: WebSession) -> object:
    """Log Ada in, as an identity provider says."""
    await session.login("ada", labels={"sid": "idp-7"})
    return None


async def others(session: WebSession) -> object:
    """End the other ones."""
    return await session.revoke_others()


class Street:
    """A site with browsers in which Ada is logged in, each some seconds after the one before."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.store = FaultyStore(MemoryStore())
        self.sessions = SessionManager(self.store, clock=self.clock)
        self.notices: list[Notice] = []
        pages = Site(oidc=oidc, others=others, **options.pop("pages", {}))
        options = {"on_notice": [self.notices.append], "sessions": self.sessions, **options}
        self.app = SessionMiddleware(pages, **options)

    async def browsers(self, number: int) -> list[Browser]:
        """Return browsers that are logged in."""
        made = [Browser(self.app) for _ in range(number)]
        for browser in made:
            self.clock.advance(1)
            await browser.get("/oidc")
        return made

    async def users(self, browsers: list[Browser]) -> list[str | None]:
        """Return who is logged in, in each of them."""
        return [(await each.get("/read")).json["user"] for each in browsers]


ENDS: dict[str, Callable[[Street, Browser], Awaitable[object]]] = {
    "revoke_all": lambda street, _: street.app.devices.revoke_all("ada"),
    "revoke_everybody": lambda street, _: street.app.devices.revoke_everybody(),
    "labelled": lambda street, _: street.app.devices.labelled({"sid": "idp-7"}),
    "revoke_others": lambda _, browser: browser.get("/others"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_an_end_that_fails_stops_none_of_the_others(how: str) -> None:
    street = Street()
    first, *rest = await street.browsers(25)
    left: list[str] = []

    async def hook(session: Session, _reason: str) -> None:
        if not left or session.id in left:
            left[:] = [session.id]
            raise OSError("the printer is on fire")

    street.sessions.on_end(hook)
    with pytest.raises(EndFailed, match="printer"):
        await ENDS[how](street, first)
    stays = ["ada" if how == "revoke_others" else None]
    assert await street.users([first, *rest]) == stays + [None] * 24
    ended = [notice for notice in street.notices if notice.kind == "ended"]
    assert len(ended) == len({notice.session for notice in ended}) == 25 - (stays == ["ada"])


@pytest.mark.parametrize("how", ENDS)
async def test_a_session_that_is_used_between_two_pages_is_ended_too(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    street = Street()
    last, *rest = reversed(await street.browsers(4))
    monkeypatch.setattr(devices, "MAX_PAGE", 1)
    listed = street.sessions.list

    async def beside(**given: Any) -> object:
        page = await listed(**given)
        street.clock.advance(1)
        for browser in rest:
            oldest = browser.token.partition(".")[0]
            if await street.sessions.get(oldest) is not None:
                await street.sessions.heartbeat(oldest)
        return page

    monkeypatch.setattr(street.sessions, "list", beside)
    await ENDS[how](street, last)
    assert await street.users(rest) == [None] * 3


CALLS: dict[str, Callable[[Street, Browser], Awaitable[object]]] = {
    **ENDS,
    "revoke": lambda street, browser: street.app.devices.revoke(browser.token.partition(".")[0]),
    "of": lambda street, _: street.app.devices.of("ada"),
}


@pytest.mark.parametrize(
    ("how", "verb"),
    [
        *((how, verb) for how in ENDS for verb in ("list", "get", "commit")),
        ("revoke", "get"),
        ("revoke", "commit"),
        ("of", "list"),
    ],
)
async def test_a_store_that_hangs_is_given_up(how: str, verb: str) -> None:
    street = Street(timeout=0.05)
    browser, *_ = await street.browsers(3)
    held = street.store.delay(verb, until=asyncio.Event(), times=None, nth=1 + (verb == "get"))
    with pytest.raises(Unavailable, match=r"within 0\.05 s"):
        await CALLS[how](street, browser)
    assert held.hits


@pytest.mark.parametrize("how", ENDS)
async def test_a_store_that_fails_in_the_middle_is_told(how: str) -> None:
    street = Street()
    browsers = await street.browsers(25)
    street.store.fail("commit", times=None, nth=4)
    with pytest.raises(Unavailable):
        await ENDS[how](street, browsers[0])
    assert street.store.calls["commit"] == 20  # it is not asked for each of them


async def test_one_failure_of_the_store_leaves_one_session() -> None:
    street = Street()
    browsers = await street.browsers(25)
    street.store.fail("commit", nth=4)
    with pytest.raises(Unavailable):
        await street.app.devices.revoke_all("ada")
    assert len(await street.app.devices.of("ada")) == 1
    assert await street.app.devices.revoke_all("ada") == 1
    assert await street.users(browsers) == [None] * 25


async def test_a_notice_of_an_end_says_who_asked_for_it() -> None:
    async def one(session: WebSession) -> object:
        (other,) = [each.id for each in await session.devices() if not each.current]
        return await session.revoke(other)

    street = Street(pages={"one": one})
    mine, _ = await street.browsers(2)
    assert (await mine.get("/one")).json is True
    await street.browsers(1)
    assert (await mine.get("/others")).json == 1
    await street.app.devices.revoke_all("ada")
    by_user, by_user_too, by_nobody = [each for each in street.notices if each.kind == "ended"]
    assert by_user.source == by_user_too.source == Source("192.0.2.7", "Firefox")
    assert by_nobody.source == Source()


async def test_devices_are_listed_the_one_used_last_first() -> None:
    street = Street()
    first, *_ = await street.browsers(3)
    street.clock.advance(600)
    await first.get("/read")
    listed = await street.app.devices.of("ada")
    assert listed[0].id == first.token.partition(".")[0]
    assert [each.active_at for each in listed] == sorted(
        (each.active_at for each in listed), reverse=True
    )


async def test_hooks_that_take_longer_than_a_call_keep_nobody_logged_in() -> None:
    """Each session is over before its hooks run, so all are told as ended."""
    street = Street(timeout=0.05)
    browsers = await street.browsers(25)
    go = asyncio.Event()

    @street.sessions.on_end
    async def slow(_session: Session, _reason: str) -> None:
        await go.wait()

    assert await street.app.devices.revoke_all("ada") == 25
    assert set(await street.users(browsers)) == {None}
    assert [notice.kind for notice in street.notices].count("ended") == 25
    go.set()


async def test_a_clock_that_is_ahead_makes_no_login_recent() -> None:
    """It gives the order of logins, not their time."""
    street = Street(cap=Cap(5), pages={"careful": careful})
    ahead = SessionManager(street.store, clock=FakeClock(street.clock.now() / 1_000_000 + 300))
    fast = Browser(SessionMiddleware(Site(), sessions=ahead, cap=Cap(5)))
    await fast.get("/login")
    (browser,) = await street.browsers(1)
    street.clock.advance(301)
    assert (await browser.get("/careful")).json == "log in again"


async def careful(session: WebSession) -> str:
    """Ask for a login of the last five minutes."""
    try:
        session.require_recent_auth(300)
    except AuthNeeded:
        return "log in again"
    return "come in"

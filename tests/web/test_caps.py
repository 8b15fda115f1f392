"""Caps: how many sessions a user may have, and what a login does that is one too many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.browser import Browser, Site

from sojourn import InvalidSetting, Reaper, Session, SessionManager
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.testing.faults import Call, Delay, Fault
from sojourn.web import Cap, Notice, SessionMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    Opener: TypeAlias = "Callable[..., AbstractAsyncContextManager[SessionManager]]"


class Shop:
    """A site whose users may have so many sessions, on a store in which things go wrong."""

    def __init__(self, cap: Cap, **options: Any) -> None:
        self.clock = FakeClock()
        self.store = FaultyStore(MemoryStore())
        self.sessions = SessionManager(self.store, clock=self.clock)
        self.notices: list[Notice] = []
        pages = Site(**options.pop("pages", {}))
        options.setdefault("on_notice", [self.notices.append])
        self.app = SessionMiddleware(pages, sessions=self.sessions, cap=cap, **options)

    async def logged_in(self) -> Browser:
        """Return a browser whose user is Ada."""
        browser = Browser(self.app)
        self.clock.advance(1)
        assert (await browser.get("/login")).status == 200
        return browser

    async def users(self, *browsers: Browser) -> list[str | None]:
        """Return who is logged in, in each of them."""
        return [(await each.get("/read")).json["user"] for each in browsers]


@pytest.mark.parametrize(
    "given", [(1, "end_oldest"), (0,), (-1,), (True,), (1.5,), ("2",), (None,)]
)
def test_a_cap_that_could_not_be_kept_is_refused(given: Any) -> None:
    with pytest.raises(InvalidSetting, match="Cap"):
        Cap(*given)


async def test_a_number_alone_is_no_cap() -> None:
    async with SessionManager.open("memory://") as sessions:
        with pytest.raises(InvalidSetting, match="give a Cap, not 3"):
            SessionMiddleware(Site(), sessions=sessions, cap=3)  # type: ignore[arg-type]  # that is the test


# --- what comes after a login ------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_a_login_whose_cap_meets_a_failing_hook_is_one(
    caplog: pytest.LogCaptureFixture, *, known: bool
) -> None:
    shop = Shop(Cap(1))
    fails = True

    async def hook(_session: Session, _reason: str) -> None:
        if fails:
            raise OSError("the printer is on fire")

    shop.sessions.on_end(hook)
    first = await shop.logged_in()
    second = Browser(shop.app)
    if known:
        await second.get("/write")
    before = dict(second.cookies)
    assert (await second.get("/login")).status == 200
    assert second.cookies != before
    assert await shop.users(first, second) == [None, "ada"]
    assert [each.kind for each in shop.notices[-3:-1]] == ["ended", "failed"]
    assert "printer" in caplog.text
    assert first.token.partition(".")[0] not in caplog.text
    assert await shop.sessions.count() == 2  # the first is ending
    fails = False
    shop.clock.advance(5)
    assert await Reaper(shop.sessions).sweep() == 1
    assert await shop.users(second) == ["ada"]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("verb", ["list", "commit", "delete"])
async def test_a_login_whose_cap_meets_a_failing_store_is_one(verb: str, *, known: bool) -> None:
    shop = Shop(Cap(1), timeout=0.05)
    await shop.logged_in()
    second = Browser(shop.app)
    if known:
        await second.get("/write")

    def after_login(call: Call) -> list[Fault]:
        wrong = call.verb == verb and any(each.kind == "login" for each in shop.notices[before:])
        return [Delay(asyncio.Event())] if wrong else []

    before = len(shop.notices)
    shop.store.follow(after_login)
    assert (await second.get("/login")).status == 200
    shop.store.follow(None)
    assert await shop.users(second) == ["ada"]
    assert "failed" in [each.kind for each in shop.notices[before:]]
    await shop.logged_in()  # what is beyond the cap is ended with the next login
    assert len(await shop.app.devices.of("ada")) == 1


# --- logins at once ----------------------------------------------------------------------------


def meeting(app: SessionMiddleware, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many logins be stored before any of them looks for what is beyond the cap."""
    barrier, keep = asyncio.Barrier(number), app.devices.keep_newest

    async def together(*given: Any, **named: Any) -> None:
        await barrier.wait()
        await keep(*given, **named)

    monkeypatch.setattr(app.devices, "keep_newest", together)


@pytest.mark.parametrize(("most", "at_once"), [(1, 2), (2, 4), (3, 3)])
async def test_of_logins_at_once_so_many_stay(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, most: int, at_once: int
) -> None:
    async with opened() as sessions:
        app = SessionMiddleware(Site(), sessions=sessions, cap=Cap(most))
        meeting(app, at_once, monkeypatch)
        for _round in range(3):
            browsers = [Browser(app) for _ in range(at_once)]
            await asyncio.gather(*(each.get("/login") for each in browsers))
            users = [(await each.get("/read")).json["user"] for each in browsers]
            assert users.count("ada") == most
            assert len(await app.devices.of("ada")) == most


async def test_of_logins_in_two_processes_the_newest_stay(opened: Opener) -> None:
    async with opened() as one, opened() as other:
        apps = [SessionMiddleware(Site(), sessions=each, cap=Cap(2)) for each in (one, other)]
        for _round in range(3):
            browsers = [Browser(app) for app in apps * 3]
            await asyncio.gather(*(each.get("/login") for each in browsers))
            users = [(await each.get("/read")).json["user"] for each in browsers]
            assert users.count("ada") == 2


async def test_a_login_counts_as_newer_whatever_the_clock_says(opened: Opener) -> None:
    early, late = FakeClock(1_000_000), FakeClock(1_000_010)
    async with opened(clock=late) as one, opened(clock=early) as other:
        apps = [SessionMiddleware(Site(), sessions=each, cap=Cap(1)) for each in (one, other)]
        first, second = [Browser(app) for app in apps]
        await first.get("/login")
        await second.get("/login")
        users = [(await each.get("/read")).json["user"] for each in (first, second)]
        assert users == [None, "ada"]


@pytest.mark.parametrize(("path", "left"), [("/login", ["ada", None]), ("/write", [None, "ada"])])
async def test_a_session_is_ended_as_its_user_last_logged_in(
    path: str, left: list[str | None]
) -> None:
    """One that is logged in again is the newest then; one that is only written to is not."""
    shop = Shop(Cap(1))
    first, second = await shop.logged_in(), Browser(shop.app)
    go = asyncio.Event()
    shop.clock.advance(1)
    end = shop.store.delay("commit", until=go, when=lambda call: _is_end(call.asked))
    login = asyncio.ensure_future(second.get("/login"))
    await end.met()
    shop.clock.advance(1)
    assert (await first.get(path)).status == 200
    go.set()
    assert (await login).status == 200
    assert await shop.users(first, second) == left


def _is_end(asked: object) -> bool:
    return getattr(asked, "move", None) is not None

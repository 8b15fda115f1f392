"""Caps: how many sessions a user may have, and what a login does that is one too many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.browser import Browser, Site

from sojourn import (
    InvalidSetting,
    Reaper,
    Session,
    SessionManager,
    TooManySessions,
    Unavailable,
)
from sojourn.store import Create
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.testing.faults import Call, Delay, Fault
from sojourn.web import Cap, Notice, SessionMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from sojourn.web import WebSession

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
    shop = Shop(Cap(1), timeout=0.3)
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
    told = "ended" if verb == "delete" else "failed"  # what is to be deleted has ended before
    assert told in [each.kind for each in shop.notices[before:]]
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


async def test_a_session_that_is_written_to_all_the_time_stays_for_a_while() -> None:
    shop = Shop(Cap(1))
    first = await shop.logged_in()
    id = first.token.partition(".")[0]

    def busy(call: Call) -> list[Fault]:
        return [Written()] if call.verb == "commit" and _is_end(call.asked) else []

    class Written(Fault):
        async def before(self, call: Call) -> None:
            del call
            session = await shop.sessions.require(id)
            session.state["n"] = session.state.get("n", 0) + 1
            await shop.sessions.save(session)

    shop.store.follow(busy)
    second = await shop.logged_in()
    assert await shop.users(first, second) == ["ada", "ada"]
    assert shop.notices[-1].kind == "failed"
    shop.store.follow(None)
    third = await shop.logged_in()
    assert await shop.users(first, second, third) == [None, None, "ada"]


def _is_end(asked: object) -> bool:
    return getattr(asked, "move", None) is not None


# --- a cap that refuses ------------------------------------------------------------------------


async def bob(session: WebSession) -> object:
    """Log Bob in."""
    await session.login("bob")
    return None


@pytest.mark.parametrize(("most", "at_once"), [(1, 2), (2, 4)])
async def test_of_logins_at_once_the_others_are_refused(
    opened: Opener, most: int, at_once: int
) -> None:
    async with opened() as one, opened() as other:
        cap = Cap(most, "refuse")
        apps = [SessionMiddleware(Site(), sessions=each, cap=cap) for each in (one, other)]
        for _round in range(3):
            browsers = [Browser(app) for app in apps * (at_once // 2)]
            answers = await asyncio.gather(
                *(each.get("/login") for each in browsers), return_exceptions=True
            )
            refused = [each for each in answers if isinstance(each, BaseException)]
            assert [type(each) for each in refused] == [TooManySessions] * (at_once - most)
            users = [(await each.get("/read")).json["user"] for each in browsers]
            assert users.count("ada") == await one.count() == most
            assert await apps[0].devices.revoke_all("ada") == most


async def test_a_user_at_the_cap_can_log_in_again_where_they_are() -> None:
    shop = Shop(Cap(1, "refuse"))
    browser = await shop.logged_in()
    before = browser.copy()
    assert (await browser.get("/login")).status == 200
    assert await shop.users(before, browser) == [None, "ada"]
    with pytest.raises(TooManySessions):
        await before.get("/login")  # its token is dead: this would be one more
    assert await shop.sessions.count() == 1


@pytest.mark.parametrize("path", ["/write", "/login"])
async def test_two_tabs_that_log_in_at_once_are_no_way_around_a_cap(path: str) -> None:
    meeting = asyncio.Barrier(2)

    async def enter(session: WebSession) -> object:
        await meeting.wait()
        await session.login("ada")
        return None

    shop = Shop(Cap(1, "refuse"), pages={"enter": enter})
    browser = Browser(shop.app)
    await browser.get(path)
    tabs = [browser.copy(), browser.copy()]
    answers = await asyncio.gather(*(tab.get("/enter") for tab in tabs), return_exceptions=True)
    assert [isinstance(each, TooManySessions) for each in answers].count(True) == 1
    assert sorted(map(str, await shop.users(*tabs))) == ["None", "ada"]
    assert await shop.sessions.count() == 1


async def test_a_rotation_beside_a_login_is_no_way_around_a_cap() -> None:
    shop = Shop(Cap(1, "refuse"))
    browser = await shop.logged_in()
    tab = browser.copy()
    go = asyncio.Event()
    listed = shop.store.delay("list", until=go, applied=True)
    login = asyncio.ensure_future(tab.get("/login"))
    await listed.met()
    await browser.get("/rotate")
    go.set()
    with pytest.raises(TooManySessions):
        await login
    assert await shop.users(browser, tab) == ["ada", None]
    assert await shop.sessions.count() == 1


async def test_a_login_that_is_refused_logs_nobody_out() -> None:
    shop = Shop(Cap(1, "refuse"), pages={"bob": bob})
    ada, other = await shop.logged_in(), Browser(shop.app)
    await other.get("/bob")
    with pytest.raises(TooManySessions):
        await ada.get("/bob")
    assert await shop.users(ada, other) == ["ada", "bob"]
    await other.get("/logout")
    await ada.get("/bob")
    assert await shop.users(ada) == ["bob"]


@pytest.mark.parametrize("known", [True, False])
async def test_a_login_that_is_stored_at_once_is_told_by_any_response(*, known: bool) -> None:
    async def enter(session: WebSession) -> object:
        await session.login("ada", remember=True)
        assert session.user == "ada"
        assert await shop.sessions.count(user="ada") == 1
        return 500, "failed"

    shop = Shop(Cap(1, "refuse"), pages={"enter": enter})
    browser = Browser(shop.app)
    if known:
        await browser.get("/write")
    answer = await browser.get("/enter")
    assert answer.status == 500
    assert "Max-Age" in answer.all("set-cookie")[0]
    assert await shop.users(browser) == ["ada"]


async def test_a_guard_is_seen_by_nobody_and_goes_at_once() -> None:
    shop = Shop(Cap(1, "refuse"))
    seen: list[Create] = []

    def look(call: Call) -> list[Fault]:
        if call.verb == "create" and isinstance(call.asked, Create):
            seen.append(call.asked)
        return []

    shop.store.follow(look)
    await shop.logged_in()
    guard, login = seen
    assert login.header.id not in guard.header.id
    assert guard.header.id.startswith("cap:")
    assert "ada" not in repr(guard)
    assert (guard.session, guard.header.user, guard.header.labels) == (None, None, {})
    assert await shop.sessions.get(guard.header.id) is None
    stranger = Browser(shop.app, cookies={"__Host-sid": f"{guard.header.id}.x"})
    assert await shop.users(stranger) == [None]


@pytest.mark.parametrize("applied", [True, False])
async def test_a_login_that_is_cut_off_leaves_no_guard(*, applied: bool) -> None:
    shop = Shop(Cap(1, "refuse"))
    shop.store.cancel("create", applied=applied)
    with pytest.raises(asyncio.CancelledError):
        await Browser(shop.app).get("/login")
    assert await shop.sessions.count() == 0
    await shop.logged_in()


@pytest.mark.parametrize("hook_fails", [True, False])
async def test_a_guard_that_was_left_is_in_the_way_for_a_while(*, hook_fails: bool) -> None:
    shop = Shop(Cap(3, "refuse"), timeout=0.3)

    async def hook(session: Session, _reason: str) -> None:
        if hook_fails and session.user is None:
            raise KeyError("cart")

    shop.sessions.on_end(hook)
    shop.store.fail("delete", times=None)
    await shop.logged_in()
    shop.store.heal()
    assert len(await shop.app.devices.of("ada")) == 1
    assert await shop.sessions.count() == 2
    with pytest.raises(Unavailable):
        await Browser(shop.app).get("/login")
    shop.clock.advance(1)
    await shop.logged_in()
    assert await shop.sessions.count(user="ada") == await shop.sessions.count() == 2


@pytest.mark.parametrize("verb", ["create", "list"])
@pytest.mark.parametrize("hangs", [True, False])
async def test_a_login_without_a_guard_stores_nothing(verb: str, *, hangs: bool) -> None:
    async def enter(session: WebSession) -> object:
        with pytest.raises(Unavailable):
            await session.login("bob")
        shop.store.heal()
        return session.user

    shop = Shop(Cap(1, "refuse"), timeout=0.3, pages={"enter": enter})
    ada, stranger = await shop.logged_in(), Browser(shop.app)
    for browser, user in ((ada, "ada"), (stranger, None)):
        if hangs:
            shop.store.delay(verb, until=asyncio.Event(), times=None)
        else:
            shop.store.fail(verb, times=None)
        assert (await browser.get("/enter")).json == user
    assert await shop.users(ada, stranger) == ["ada", None]
    assert await shop.sessions.count() == 1


async def test_a_login_that_could_not_be_stored_is_not_stored_later() -> None:
    async def enter(session: WebSession) -> object:
        shop.store.fail("create", times=None, nth=2)
        with pytest.raises(Unavailable):
            await session.login("ada")
        shop.store.heal()
        return session.user

    shop = Shop(Cap(1, "refuse"), pages={"enter": enter})
    assert (await Browser(shop.app).get("/enter")).json is None
    assert await shop.sessions.count() == 0


async def test_a_login_that_held_its_guard_for_too_long_stores_nothing() -> None:
    shop = Shop(Cap(1, "refuse"))
    go = asyncio.Event()
    listed = shop.store.delay("list", until=go)
    login = asyncio.ensure_future(Browser(shop.app).get("/login"))
    await listed.met()
    shop.clock.advance(3.5 * 5)
    go.set()
    with pytest.raises(Unavailable, match="too long"):
        await login
    assert await shop.sessions.count() == 0

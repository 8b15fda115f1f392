"""The checklist of web sessions: each row that a library must do has a test with its number.

The numbers are those of OWASP's, ASVS's, NIST's and the cookie RFC's demands as gathered for this
project; each test says its demand in words.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.browser import Browser, Client, Site

from sojourn import AuthNeeded, Ended, Expiry, InvalidSetting, SessionManager, TooLarge, Unavailable
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web import Cookie, Header, SessionMiddleware
from sojourn.web.admission import Admission
from sojourn.web.cookies import MAX_COOKIE_BYTES
from sojourn.web.tokens import Tokens, digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from sojourn.web import Notice, WebSession

    Make: TypeAlias = "Callable[..., AbstractAsyncContextManager[Shop]]"

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}")


class Shop:
    """A site on a store, with what a test needs to look behind it."""

    def __init__(self, sessions: SessionManager, clock: FakeClock, **options: Any) -> None:
        self.sessions = sessions
        self.clock = clock
        self.notices: list[Notice] = []
        self.pages = Site(**options.pop("pages", {}))
        options.setdefault("on_notice", [self.notices.append])
        self.app = SessionMiddleware(self.pages, sessions=sessions, **options)

    def browser(self, **more: Any) -> Browser:
        """Return a browser that was never here."""
        return Browser(self.app, **more)

    async def logged_in(self, **more: Any) -> Browser:
        """Return a browser whose user is Ada."""
        browser = self.browser(**more)
        await browser.get("/login")
        return browser

    def kinds(self) -> list[str]:
        """Return what befell sessions, in order."""
        return [notice.kind for notice in self.notices]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
def make(clock: FakeClock) -> Callable[..., AbstractAsyncContextManager[Shop]]:
    """How to make a shop on a store in memory."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def shop(**options: Any) -> AsyncIterator[Shop]:
        store = options.pop("store", None)
        if store is not None:
            await store.open()
            yield Shop(SessionManager(store, clock=clock), clock, **options)
            await store.close()
            return
        async with SessionManager.open("memory://", clock=clock) as sessions:
            yield Shop(sessions, clock, **options)

    return shop


# --- ids ---------------------------------------------------------------------------------------


def test_01_an_id_has_128_random_bits_and_the_secret_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = secrets.token_urlsafe

    def noted(size: int) -> str:
        asked.append(size)
        return real(size)

    monkeypatch.setattr(secrets, "token_urlsafe", noted)
    Tokens().issue()
    assert min(asked) * 8 >= 128
    assert sum(asked) * 8 >= 384


def test_02_many_ids_hold_no_duplicate_and_no_constant_position() -> None:
    issued = [Tokens().write(Tokens().issue()) for _ in range(100_000)]
    assert len(set(issued)) == len(issued)
    assert all(TOKEN.fullmatch(text) for text in issued)
    for place in range(len(issued[0])):
        if place != 22:  # the dot
            assert len({text[place] for text in issued}) > 1


async def test_03_an_id_holds_no_user_time_or_counter(make: Make) -> None:
    """Two that were made at the same instant for the same user have nothing in common."""
    async with make() as shop:
        one, other = await shop.logged_in(), await shop.logged_in()
        same = sum(a == b for a, b in zip(one.token, other.token, strict=True))
        assert same < 20  # of 66: a 64th by chance, and the dot
        assert "ada" not in one.token


async def test_04_an_id_that_was_not_issued_is_never_adopted(make: Make) -> None:
    async with make() as shop:
        theirs = Tokens().write(Tokens().issue())
        browser = shop.browser(cookies={"__Host-sid": theirs})
        assert (await browser.get("/write")).json == 1
        assert browser.token != theirs
        assert browser.token.split(".")[0] != theirs.split(".")[0]
        assert "refused" in shop.kinds()


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "x" * 5_000,
        "../../etc/passwd",
        "' OR 1=1 --",
        "ÿþ",
        "a.b",
        "%00",
        "A" * 22 + "." + "A" * 43 + "\n",
        '"quoted"',
    ],
)
async def test_05_what_is_no_id_gives_an_anonymous_session(make: Make, value: str) -> None:
    async with make() as shop:
        answer = await shop.browser(cookies={"__Host-sid": value}).get("/read")
        assert (answer.status, answer.json) == (200, {"user": None})
        assert await shop.sessions.count() == 0


async def test_06_it_is_verified_at_the_server_in_constant_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hmac

    async with make() as shop:
        browser = await shop.logged_in()
        compared: list[str] = []
        real = hmac.compare_digest

        def noted(given: str, kept: str) -> bool:
            compared.append(kept)
            return real(given, kept)

        monkeypatch.setattr(hmac, "compare_digest", noted)
        assert (await browser.get("/read")).json["user"] == "ada"
        assert digest(browser.token.split(".")[1]) in compared
        id = browser.token.split(".")[0]
        browser.cookies["__Host-sid"] = f"{id}.{'A' * 43}"
        assert (await browser.get("/read")).json["user"] is None


def test_07_the_name_of_the_cookie_says_nothing() -> None:
    assert Cookie().name == "__Host-sid"


async def test_08_ids_and_tokens_are_in_no_log_no_repr_no_error(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    async def shown(session: WebSession) -> object:
        seen.append(repr(session))
        return repr(session)

    async with make(pages={"shown": shown}, keys=["k" * 32]) as shop:
        browser = await shop.logged_in()
        stale = browser.copy()
        await browser.get("/shown")
        await browser.get("/rotate")
        await stale.get("/read")
        other = shop.browser(cookies={"__Host-sid": "nonsense-that-is-secret"})
        await other.get("/read")
        text = "\n".join([caplog.text, *seen, *map(repr, shop.notices), repr(Tokens(["k" * 32]))])
        for token in (browser.token, stale.token):
            id, secret, signature = token.split(".")
            assert id not in text
            assert secret not in text
            assert signature not in text
        assert "nonsense-that-is-secret" not in text
        assert "k" * 32 not in text
        assert shop.notices[0].session is not None  # a hash stands for it
        assert shop.notices[0].session in caplog.text


async def test_09_the_store_has_only_a_hash_of_it(make: Make) -> None:
    async with make() as shop:
        browser = await shop.logged_in()
        id, secret = browser.token.split(".")
        dump = json.dumps(dict((await shop.sessions.require(id)).state))
        assert secret not in dump
        assert digest(secret) in dump


# --- rotation ----------------------------------------------------------------------------------


async def test_10_a_login_issues_a_new_token_and_ends_the_old_one(make: Make) -> None:
    async with make() as shop:
        browser = shop.browser()
        await browser.get("/write")
        before = browser.copy()
        await browser.get("/login")
        assert browser.token != before.token
        assert (await browser.get("/read")).json == {"user": "ada", "n": 1}
        assert (await before.get("/read")).json == {"user": None}
        again = browser.copy()
        await browser.get("/login")  # once more, by the same user
        assert (await again.get("/read")).json == {"user": None}


async def test_11_any_change_of_rights_can_rotate_in_one_call(make: Make) -> None:
    async with make() as shop:
        browser = await shop.logged_in()
        await browser.get("/write")
        before = browser.copy()
        await browser.get("/rotate")
        assert browser.token != before.token
        assert (await browser.get("/read")).json == {"user": "ada", "n": 1}
        assert (await before.get("/read")).json == {"user": None}
        assert await shop.sessions.count() == 1


async def test_12_a_token_renews_by_age_and_the_old_one_has_a_grace(make: Make) -> None:
    async with make(renew_after=60, grace=10) as shop:
        browser = await shop.logged_in()
        shop.clock.advance(59)
        assert not (await browser.get("/home")).all("set-cookie")
        shop.clock.advance(1)
        before = browser.copy()
        await browser.get("/home")
        assert browser.token != before.token
        assert (await before.get("/read")).json["user"] == "ada"
        assert not (await before.get("/read")).all("set-cookie")  # it is renewed already
        shop.clock.advance(10)
        assert (await before.get("/read")).json == {"user": None}
        assert (await browser.get("/read")).json["user"] == "ada"


async def test_13_a_request_on_the_old_token_neither_revives_it_nor_loses_data(make: Make) -> None:
    slow, go = asyncio.Event(), asyncio.Event()

    async def slowly(session: WebSession) -> object:
        slow.set()
        await go.wait()
        session["slow"] = True
        return None

    async with make(pages={"slowly": slowly}) as shop:
        browser = await shop.logged_in()
        tab = browser.copy()
        late = asyncio.ensure_future(tab.get("/slowly"))
        await slow.wait()
        await browser.get("/write")
        await browser.get("/rotate")
        go.set()
        assert not (await late).all("set-cookie")
        assert (await tab.get("/read")).json == {"user": None}
        assert (await browser.get("/read")).json == {"user": "ada", "n": 1, "slow": True}


async def test_14_a_failed_response_after_a_rotation_loses_nothing(make: Make) -> None:
    async def crash(session: WebSession) -> object:
        session.rotate()
        await session.login("ada")
        raise RuntimeError("crashed")

    async with make(pages={"crash": crash}) as shop:
        browser = await shop.logged_in()
        await browser.get("/write")
        assert (await browser.get("/fail")).status == 500
        assert (await browser.get("/read")).json == {"user": "ada", "n": 1}
        with pytest.raises(RuntimeError):
            await browser.get("/crash")
        assert (await browser.get("/read")).json == {"user": "ada", "n": 1}


# --- expiry ------------------------------------------------------------------------------------


async def test_15_the_idle_time_counts_at_the_server_and_use_resets_it(make: Make) -> None:
    async with make(expiry=Expiry(idle=100)) as shop:
        browser = await shop.logged_in()
        for _ in range(5):
            shop.clock.advance(99)
            assert (await browser.get("/home")).status == 200
        assert (await browser.get("/read")).json["user"] == "ada"
        shop.clock.advance(100)
        assert (await browser.get("/read")).json["user"] is None


async def test_16_the_absolute_lifetime_counts_whatever_the_use(make: Make) -> None:
    async with make(expiry=Expiry(idle=100, absolute=250)) as shop:
        browser = await shop.logged_in()
        for _ in range(4):
            shop.clock.advance(60)
            assert (await browser.get("/read")).json["user"] == "ada"
        shop.clock.advance(10)
        assert (await browser.get("/read")).json["user"] is None


async def test_17_past_a_deadline_it_is_unusable_at_once(make: Make) -> None:
    async with make(expiry=Expiry(idle=100)) as shop:
        browser = await shop.logged_in()
        shop.clock.advance(100)  # nothing has swept
        assert (await browser.get("/read")).json == {"user": None}
        assert shop.kinds()[-1] == "expired"
        assert await shop.app.devices.of("ada") == []


async def test_18_logging_in_again_resets_both_deadlines(make: Make) -> None:
    async with make(expiry=Expiry(idle=100, absolute=250)) as shop:
        browser = await shop.logged_in()
        for _ in range(3):
            shop.clock.advance(80)
            await browser.get("/home")
        await browser.get("/login")
        for _ in range(3):
            shop.clock.advance(80)
            assert (await browser.get("/read")).json["user"] == "ada"
        shop.clock.advance(10)
        assert (await browser.get("/read")).json["user"] is None


async def test_19_nothing_that_a_client_sends_moves_a_deadline(make: Make) -> None:
    async with make(expiry=Expiry(idle=100)) as shop:
        browser = await shop.logged_in()
        shop.clock.advance(100)
        date = ("date", "Thu, 01 Jan 1970 00:00:00 GMT")
        cookie = ("cookie", f"__Host-sid={browser.token}; Max-Age=9999999; Expires=never")
        assert (await browser.get("/read", date, cookie)).json == {"user": None}


# --- ending ------------------------------------------------------------------------------------


async def test_23_a_logout_removes_the_record_and_refuses_the_token_for_ever(make: Make) -> None:
    working, go = asyncio.Event(), asyncio.Event()
    late: list[str] = []

    async def work(session: WebSession) -> object:
        working.set()
        await go.wait()
        session["late"] = True
        try:
            await session.save()
        except Ended as error:
            late.append(type(error).__name__)
        return None

    async with make(pages={"work": work}) as shop:
        browser = await shop.logged_in()
        tab, after = browser.copy(), browser.copy()
        running = asyncio.ensure_future(tab.get("/work"))
        await working.wait()
        await browser.get("/logout")
        assert await shop.sessions.count() == 0
        go.set()
        answer = await running
        assert (answer.status, late) == (200, ["Ended"])
        assert await shop.sessions.count() == 0
        for each in (tab, after):
            assert (await each.get("/read")).json == {"user": None}


async def test_24_a_logout_clears_the_cookie_with_its_attributes(make: Make) -> None:
    cookie = Cookie(name="__Secure-sid", domain="example.com", path="/shop", partitioned=True)
    async with make(cookie=cookie) as shop:
        browser = await shop.logged_in()
        (line,) = (await browser.get("/logout")).all("set-cookie")
        name, value, *rest = re.split(r"=|; ", line, maxsplit=2)
        assert (name, value) == ("__Secure-sid", "")
        parts = set(rest[0].split("; "))
        assert {"Max-Age=0", "Domain=example.com", "Path=/shop", "Secure", "HttpOnly"} <= parts
        assert {"SameSite=Lax", "Partitioned"} <= parts


async def test_26_all_sessions_of_a_user_can_be_ended_in_one_call(make: Make) -> None:
    async with make() as shop:
        browsers = [await shop.logged_in() for _ in range(3)]
        assert await shop.app.devices.revoke_all("ada", reason="account disabled") == 3
        for browser in browsers:
            assert (await browser.get("/read")).json["user"] is None


async def test_27_all_other_sessions_can_be_ended(make: Make) -> None:
    async def others(session: WebSession) -> object:
        return await session.revoke_others(reason="password changed")

    async with make(pages={"others": others}) as shop:
        mine, *rest = [await shop.logged_in() for _ in range(3)]
        assert (await mine.get("/others")).json == 2
        assert (await mine.get("/read")).json["user"] == "ada"
        for browser in rest:
            assert (await browser.get("/read")).json["user"] is None


async def test_28_an_administrator_can_end_anybodys_and_everybodys(make: Make) -> None:
    async def bob(session: WebSession) -> object:
        await session.login("bob")
        return None

    async with make(pages={"bob": bob}) as shop:
        ada, other = await shop.logged_in(), shop.browser()
        await other.get("/bob")
        (session,) = await shop.app.devices.of("ada")
        assert await shop.app.devices.revoke(session.id)
        assert (await ada.get("/read")).json["user"] is None
        assert (await other.get("/read")).json["user"] == "bob"
        await ada.get("/login")
        assert await shop.app.devices.revoke_everybody() == 2
        for browser in (ada, other):
            assert (await browser.get("/read")).json["user"] is None


async def test_29_a_user_can_list_their_sessions_and_end_any(make: Make) -> None:
    async def revoke(session: WebSession) -> object:
        (other,) = [each.id for each in await session.devices() if not each.current]
        return await session.revoke(other)

    async def foreign(session: WebSession) -> object:
        await session.login("bob")
        return [await session.revoke(id) for id in ids]

    ids: list[str] = []
    async with make(pages={"revoke": revoke, "foreign": foreign}) as shop:
        mine = await shop.logged_in(agent="Firefox")
        other = await shop.logged_in(agent="Safari")
        listed = (await mine.get("/devices")).json
        ids += [each["id"] for each in listed]
        facts = {(each["agent"], each["address"], each["current"]) for each in listed}
        assert facts == {("Firefox", "192.0.2.7", True), ("Safari", "192.0.2.7", False)}
        assert (await shop.browser().get("/foreign")).json == [False, False]
        assert (await mine.get("/revoke")).json is True
        assert (await other.get("/read")).json["user"] is None
        assert (await mine.get("/read")).json["user"] == "ada"


async def test_30_an_end_reaches_open_sockets_within_a_bound(make: Make) -> None:
    async with make(socket_check=0.01) as shop:
        browser = await shop.logged_in()

        async def socket(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            last.append(await receive())

        last: list[Any] = []
        browser.app = SessionMiddleware(socket, sessions=shop.sessions, socket_check=0.01)
        client = Client(browser)
        assert (await client.next())["type"] == "websocket.accept"
        await shop.app.devices.revoke_all("ada")
        closed = await client.next()
        assert (closed["type"], closed["code"]) == ("websocket.close", 4401)
        await client.done()
        assert last[0]["type"] == "websocket.disconnect"


# --- the cookie --------------------------------------------------------------------------------


def test_38_secure_is_the_default(caplog: pytest.LogCaptureFixture) -> None:
    assert "; Secure" in Cookie().set("x")
    assert "; Secure" not in Cookie(name="sid", secure=False).set("x")


async def test_38_without_it_there_is_a_warning_outside_localhost(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async with make(cookie=Cookie(name="sid", secure=False)) as shop:
        browser = shop.browser()
        for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "app.localhost"):
            await browser.get("/home", ("host", host))
        assert "without Secure" not in caplog.text
        await browser.get("/home")
        await browser.get("/home")
        assert caplog.text.count("without Secure to shop.example") == 1


def test_39_the_name_has_a_prefix_unless_it_is_for_plain_http() -> None:
    assert Cookie().name.startswith("__Host-")
    with pytest.raises(InvalidSetting, match="__Host-sid"):
        Cookie(name="sid")
    with pytest.raises(InvalidSetting, match="__Secure-sid"):
        Cookie(name="sid", domain="example.com")
    assert Cookie(name="__Secure-sid", domain="example.com").domain == "example.com"


@pytest.mark.parametrize("bad", [{"secure": False}, {"path": "/x"}, {"domain": "example.com"}])
@pytest.mark.parametrize("name", ["__Host-sid", "__HOST-sid", "__hOsT-Http-sid"])
def test_40_and_41_a_host_cookie_is_refused_what_browsers_refuse(name: str, bad: Any) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(bad))):
        Cookie(name=name, **bad)


def test_42_the_newer_prefixes_are_known() -> None:
    assert Cookie(name="__Host-Http-sid").http_only
    assert Cookie(name="__Http-sid", path="/x").path == "/x"
    with pytest.raises(InvalidSetting, match="http_only"):
        Cookie(name="__Http-sid", http_only=False)


def test_43_scripts_can_not_read_it() -> None:
    assert "; HttpOnly" in Cookie().set("x")


def test_44_same_site_is_always_written_and_none_needs_secure() -> None:
    assert "; SameSite=Lax" in Cookie().set("x")
    assert "; SameSite=Strict" in Cookie(same_site="strict").set("x")
    assert "; SameSite=None" in Cookie(same_site="none").set("x")
    with pytest.raises(InvalidSetting, match="same_site"):
        Cookie(name="sid", secure=False, same_site="none")
    with pytest.raises(InvalidSetting, match="same_site"):
        Cookie(same_site="Lax")  # type: ignore[arg-type]  # what is refused


def test_45_partitioned_needs_secure() -> None:
    assert "; Partitioned" in Cookie(partitioned=True).set("x")
    with pytest.raises(InvalidSetting, match="partitioned"):
        Cookie(name="sid", secure=False, partitioned=True)


def test_46_a_cookie_that_browsers_would_drop_is_an_error_at_the_server() -> None:
    fits = "x" * (MAX_COOKIE_BYTES - len("__Host-sid"))
    assert fits in Cookie().set(fits)
    with pytest.raises(TooLarge):
        Cookie().set(fits + "x")


def test_47_there_is_no_domain_by_default() -> None:
    assert "Domain" not in Cookie().set("x")


async def test_48_the_cookie_ends_with_the_browser_unless_asked(make: Make) -> None:
    async def remember(session: WebSession) -> object:
        await session.login("ada", remember=True)
        return None

    async with make(pages={"remember": remember}, expiry=Expiry(idle=100, absolute=500)) as shop:
        (line,) = (await shop.browser().get("/login")).all("set-cookie")
        assert "max-age" not in line.lower()
        assert "expires" not in line.lower()
        (line,) = (await shop.browser().get("/remember")).all("set-cookie")
        assert "; Max-Age=500;" in line


async def test_49_and_50_one_set_cookie_with_a_name_and_no_attribute_twice(make: Make) -> None:
    async with make() as shop:
        browser = shop.browser()
        for path in ("/write", "/login", "/rotate", "/logout"):
            (line,) = (await browser.get(path)).all("set-cookie")
            pair, *attributes = line.split("; ")
            name, value = pair.split("=")
            assert name == "__Host-sid"
            assert value == "" or TOKEN.fullmatch(value)
            names = [each.split("=")[0] for each in attributes]
            assert len(names) == len(set(names))


async def test_51_several_lines_and_duplicates_are_handled(make: Make) -> None:
    """Another host of the domain may set a cookie of that name: the first valid one counts."""
    async with make() as shop:
        browser = await shop.logged_in()
        token, browser.cookies = browser.token, {}
        tossed = Tokens().write(Tokens().issue())
        for lines in (
            [f"__Host-sid={tossed}; __Host-sid={token}"],
            ["a=b", f"__Host-sid=; __Host-sid={tossed}", f"c=d; __Host-sid={token}"],
            [f'__Host-sid="{token}"'],
            [f" ;;__Host-sid={token};="],
        ):
            answer = await browser.get("/read", *[("cookie", line) for line in lines])
            assert answer.json["user"] == "ada"
        many = "; ".join([f"__Host-sid={tossed}"] * 50)
        assert (await browser.get("/read", ("cookie", many))).json["user"] is None


async def test_53_what_has_a_cookie_is_not_cached(make: Make) -> None:
    """And what read the session is cached for that cookie only."""
    async with make() as shop:
        browser = shop.browser()
        plain = await browser.get("/home")
        assert (plain.all("vary"), plain.all("cache-control")) == ([], [])
        set_ = await browser.get("/write")
        assert (set_.all("vary"), set_.all("cache-control")) == (["Cookie"], ["no-store"])
        read = await browser.get("/read")
        assert (read.all("vary"), read.all("cache-control")) == (["Cookie"], [])


async def test_54_a_token_is_refused_where_it_was_not_configured(make: Make) -> None:
    async with make() as shop:
        browser = await shop.logged_in()
        token, browser.cookies = browser.token, {}
        for request in (
            (f"/read?__Host-sid={token}&sid={token}",),
            ("/read", ("authorization", f"Bearer {token}")),
            ("/read", ("x-session-token", token)),
        ):
            assert (await browser.get(*request)).json["user"] is None
        app = SessionMiddleware(shop.pages, sessions=shop.sessions, header=Header())
        browser.app = app
        assert (await browser.get("/read", ("authorization", f"Bearer {token}"))).json["user"]
        assert (await browser.get("/read", ("cookie", f"__Host-sid={token}"))).json["user"] is None


# --- records and decoding ----------------------------------------------------------------------


async def test_58_what_befalls_sessions_is_told(make: Make) -> None:
    async with make(expiry=Expiry(idle=100)) as shop:
        browser = await shop.logged_in()
        stale = browser.copy()
        await browser.get("/rotate")
        await stale.get("/read")
        await browser.get("/logout")
        other = await shop.logged_in()
        await shop.app.devices.revoke_all("ada", reason="by the police")
        third = await shop.logged_in()
        shop.clock.advance(100)
        await third.get("/read")
        del other
        told = [(each.kind, each.reason) for each in shop.notices]
        assert told == [
            ("created", ""),
            ("login", ""),
            ("renewed", ""),
            ("refused", "unknown or replaced token"),
            ("logout", "logout"),
            ("created", ""),
            ("login", ""),
            ("ended", "by the police"),
            ("created", ""),
            ("login", ""),
            ("expired", ""),
        ]
        first = shop.notices[0]
        assert (first.source.address, first.source.agent) == ("192.0.2.7", "Firefox")
        assert first.session is not None
        assert re.fullmatch(r"[0-9a-f]{16}", first.session)


async def test_60_decoding_runs_no_code(make: Make) -> None:
    """What is stored is JSON and nothing else: a value that is not is refused when it is saved."""

    class Bomb:
        def __reduce__(self) -> Any:
            raise AssertionError("pickled")

    async def bomb(session: WebSession) -> object:
        session["bomb"] = Bomb()
        return None

    from sojourn import Unserializable

    async with make(pages={"bomb": bomb}) as shop:
        with pytest.raises(Unserializable):
            await shop.browser().get("/bomb")
        assert await shop.sessions.count() == 0


# --- options -----------------------------------------------------------------------------------


async def test_22_the_time_that_is_left_can_be_read(make: Make) -> None:
    async def left(session: WebSession) -> object:
        assert session.longest_at is not None
        assert session.time_left is not None
        return session.time_left.total_seconds()

    async with make(pages={"left": left}, expiry=Expiry(idle=100, absolute=150)) as shop:
        browser = await shop.logged_in()
        assert (await browser.get("/left")).json == 100
        shop.clock.advance(90)
        assert (await browser.get("/left")).json == 60


async def test_25_a_logout_can_clear_site_data(make: Make) -> None:
    async with make(clear_site_data=True) as shop:
        browser = await shop.logged_in()
        assert not (await browser.get("/read")).all("clear-site-data")
        assert (await browser.get("/logout")).all("clear-site-data") == [
            '"cache", "cookies", "storage"'
        ]


@pytest.mark.parametrize("rule", ["refuse", "end-oldest"])
async def test_31_there_can_be_a_cap(make: Make, rule: Any) -> None:
    from sojourn import TooManySessions
    from sojourn.web import Cap

    async with make(cap=Cap(2, rule)) as shop:
        first = await shop.logged_in()
        shop.clock.advance(1)
        second = await shop.logged_in()
        shop.clock.advance(1)
        third = shop.browser()
        if rule == "refuse":
            with pytest.raises(TooManySessions):
                await third.get("/login")
        else:
            await third.get("/login")
        users = [(await each.get("/read")).json["user"] for each in (first, second, third)]
        assert users == (["ada", "ada", None] if rule == "refuse" else [None, "ada", "ada"])


async def test_32_and_33_a_login_is_recorded_and_can_be_asked_for_again(make: Make) -> None:
    async def otp(session: WebSession) -> object:
        await session.login("ada", auth=["pwd", "otp"], level=2)
        return None

    async def strong(session: WebSession) -> object:
        try:
            auth = session.require_recent_auth(60, level=2)
        except AuthNeeded as error:
            return str(error)
        return list(auth.methods)

    async with make(pages={"otp": otp, "strong": strong}) as shop:
        browser = shop.browser()
        assert "nobody" in (await browser.get("/strong")).json
        await browser.get("/login")
        assert "level 0" in (await browser.get("/strong")).json
        await browser.get("/rotate")
        assert "level 0" in (await browser.get("/strong")).json
        await browser.get("/otp")
        assert (await browser.get("/strong")).json == ["pwd", "otp"]
        shop.clock.advance(61)
        assert "61" not in (await browser.get("/strong")).json
        assert "ago" in (await browser.get("/strong")).json


async def test_35_another_browser_with_the_token_is_noted_and_not_refused(make: Make) -> None:
    async with make() as shop:
        browser = await shop.logged_in(agent="Firefox")
        browser.agent = "curl"
        assert (await browser.get("/read")).json["user"] == "ada"
        assert shop.kinds()[-1] == "moved"


async def test_36_reading_creates_nothing(make: Make) -> None:
    async with make() as shop:
        answer = await shop.browser().get("/read")
        assert not answer.all("set-cookie")
        assert await shop.sessions.count() == 0


async def test_37_sessions_are_found_by_what_an_identity_provider_calls_them(make: Make) -> None:
    async def oidc(session: WebSession) -> object:
        await session.login("ada", labels={"sid": "idp-7"})
        return None

    async with make(pages={"oidc": oidc}) as shop:
        browser, other = shop.browser(), await shop.logged_in()
        await browser.get("/oidc")
        assert await shop.app.devices.labelled({"sid": "idp-7"}) == 1
        assert (await browser.get("/read")).json["user"] is None
        assert (await other.get("/read")).json["user"] == "ada"


async def test_37_the_labels_of_a_login_are_in_its_commit(make: Make) -> None:
    """Nothing can come between: a login that is stored is found by them."""

    async def oidc(session: WebSession) -> object:
        await session.login("ada", labels={"sid": "idp-7"})
        return None

    store = FaultyStore(MemoryStore())
    async with make(pages={"oidc": oidc}, store=store) as shop:
        known = shop.browser()
        await known.get("/write")
        for browser, verb in ((shop.browser(), "create"), (known, "commit")):
            before = store.calls.copy()
            await browser.get("/oidc")
            written = store.calls - before
            assert (written["create"] + written["commit"], written[verb]) == (1, 1)
        assert await shop.app.devices.labelled({"sid": "idp-7"}) == 2


async def test_56_there_is_a_token_against_forged_requests(make: Make) -> None:
    async def form(session: WebSession) -> object:
        return session.csrf_token

    given: list[Any] = []

    async def post(session: WebSession) -> object:
        return [session.check_csrf(each) for each in given]

    async with make(pages={"form": form, "post": post}) as shop:
        browser = await shop.logged_in()
        token = (await browser.get("/form")).json
        other = (await (await shop.logged_in()).get("/form")).json
        given += [token, other, "", None, "é", token[:-1]]
        assert (await browser.get("/post")).json == [True, False, False, False, False, False]
        await browser.get("/rotate")
        assert (await browser.get("/post")).json[0] is False
        assert (await shop.browser().get("/post")).json[0] is False
        anonymous = shop.browser()
        given[0] = (await anonymous.get("/form")).json
        assert (await anonymous.get("/post")).json[0] is True


async def test_59_refusals_are_counted_by_source(make: Make) -> None:
    async with make() as shop:
        for _ in range(3):
            await shop.browser(cookies={"__Host-sid": Tokens().write(Tokens().issue())}).get("/")
        notices = shop.app.admission.notices
        assert notices.refusals("192.0.2.7") == 3
        assert notices.refusals("192.0.2.8") == 0
        assert notices.counts["refused"] == 3


# --- the store is down -------------------------------------------------------------------------


async def test_a_route_says_what_happens_without_the_store(make: Make) -> None:
    async def seen(session: WebSession) -> object:
        try:
            session["n"] = 1
        except Unavailable:
            return [session.available, dict(session)]
        return "written"

    store = FaultyStore(MemoryStore())
    policy = {"/": "required", "/seen": "optional", "/home": "skip"}
    pages = {"seen": seen}
    async with make(store=store, policy=policy, pages=pages) as shop:
        browser = await shop.logged_in()
        store.fail("get", times=None)
        down = await browser.get("/read")
        assert (down.status, down.all("retry-after"), down.all("set-cookie")) == (503, ["5"], [])
        assert (await browser.get("/seen")).json == [False, {}]
        assert (await browser.get("/home")).status == 200
        assert (await shop.browser().get("/read")).status == 200  # no token: nothing was asked
        store.heal()
        assert (await browser.get("/read")).json["user"] == "ada"
        assert shop.app.admission.notices.counts["failed"] == 2


def test_an_admission_has_defaults() -> None:
    """The deadlines of somebody who asked for none are OWASP's for low risk."""
    from sojourn.web.admission import DEFAULT_EXPIRY

    assert (DEFAULT_EXPIRY.idle, DEFAULT_EXPIRY.absolute) == (1_800, 43_200)
    assert Admission is not None


# --- what code around expects of a mapping ------------------------------------------------------


async def test_a_session_is_true_while_it_holds_a_key_or_a_login(make: Make) -> None:
    """Code around asks `if request.session:`: a login without any key is something."""
    told: list[tuple[bool, int, dict[str, object]]] = []

    async def look(session: WebSession) -> object:
        told.append((bool(session), len(session), dict(session)))
        return None

    async def forget(session: WebSession) -> object:
        session.pop("n", None)
        return None

    async with make(pages={"look": look, "forget": forget}) as shop:
        browser = shop.browser()
        await browser.get("/look")  # nothing at all
        await browser.get("/write")
        await browser.get("/look")  # a key
        await browser.get("/forget")
        await browser.get("/look")  # stored, and empty
        await browser.get("/login")
        await browser.get("/look")  # a login
        await browser.get("/logout")
        await browser.get("/look")
    assert told == [
        (False, 0, {}),
        (True, 1, {"n": 1}),
        (False, 0, {}),
        (True, 0, {}),
        (False, 0, {}),
    ]


async def test_a_session_is_true_from_its_login_on(make: Make) -> None:
    told = []

    async def enter(session: WebSession) -> object:
        told.append(bool(session))
        await session.login("ada")
        told.append(bool(session))
        await session.logout()
        told.append(bool(session))
        return None

    async with make(pages={"enter": enter}) as shop:
        await shop.browser().get("/enter")
    assert told == [False, True, False]

"""The example of each framework in a real browser: what people do with tabs and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from tests.examples.chromium import Chromium, running_chromium
from tests.examples.shops import Bank, Shop

from examples.shop import PASSWORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext, Cookie, Page

pytestmark = pytest.mark.xdist_group("browser")

FRAMEWORKS = ("starlette", "fastapi", "litestar", "flask", "django")

SEEN_MS = 20_000
"""Longest wait for something to be seen on a page, on a busy machine."""

CLICK_ALL = """
async ([action, values, times]) => {
    const csrf = document.querySelector('input.csrf')
    const body = () => new URLSearchParams({[csrf.name]: csrf.value, ...values})
    const one = () => fetch(action, {method: 'POST', body: body(), redirect: 'manual'})
    window.clicks = Promise.all(Array.from({length: times}, one))
}
"""
"""Sends one form many times at once, and does not wait for it."""

expect.set_options(timeout=SEEN_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with running_chromium() as running:
        yield running


@pytest.fixture(scope="module")
def bank() -> Iterator[Bank]:
    with Bank().serving() as bank:
        yield bank


@pytest.fixture(scope="module", params=FRAMEWORKS)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bank: Bank
) -> Iterator[Shop]:
    """The shop of each framework. It stops when told to, and had nothing to complain of."""
    shop = Shop(request.param, tmp_path_factory.mktemp(request.param), bank)
    yield shop
    shop.stop()
    assert shop.said() == ""


@pytest.fixture
def profile(chromium: Chromium, shop: Shop) -> Iterator[Callable[[], BrowserContext]]:
    """How to get another browser, with cookies of its own; closed again at the end."""
    opened: list[BrowserContext] = []

    def open_profile() -> BrowserContext:
        context = chromium.profile(shop.url)
        context.set_default_timeout(SEEN_MS)
        opened.append(context)
        return context

    yield open_profile
    for context in opened:
        context.close()


@pytest.fixture
def browser(profile: Callable[[], BrowserContext]) -> BrowserContext:
    return profile()


# --- what a user does -----------------------------------------------------------------------------


def opened(browser: BrowserContext, path: str = "/") -> Page:
    """Return a new tab."""
    page = browser.new_page()
    page.goto(path)
    return page


def button(page: Page, name: str, *, wait: bool = True) -> None:
    """Press a button, and wait for an answer.

    As people do in the tab in front: a browser gives the others little time.
    """
    page.bring_to_front()
    page.get_by_role("button", name=name, exact=True).click(no_wait_after=not wait)


def fill_in(page: Page, name: str, password: str) -> None:
    """Say who it is."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)


def log_in(page: Page, name: str = "ada") -> None:
    """Log in, as far as the page after it."""
    page.goto("/login")
    fill_in(page, name, PASSWORDS[name])
    button(page, "Log in")
    expect(page.get_by_role("status")).to_have_text(f"Welcome, {name}.")


def keep_note(page: Page, text: str) -> None:
    """Keep a note for the parcel."""
    page.get_by_label("Note").fill(text)
    button(page, "Keep")
    expect(page.get_by_role("status")).to_have_text("Noted.")


def assert_logged_out(page: Page) -> None:
    """Check that the next page asks who it is."""
    page.goto("/devices")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert page.url.endswith("/login")


def session_cookie(browser: BrowserContext) -> Cookie:
    """Return the one cookie that there is."""
    (cookie,) = browser.cookies()
    return cookie


def assert_strict(cookie: Cookie) -> None:
    """Check that a cookie is as strict as can be, and goes with the browser."""
    assert cookie.get("name") == "__Host-sid"
    assert (cookie.get("secure"), cookie.get("httpOnly")) == (True, True)
    assert (cookie.get("sameSite"), cookie.get("path")) == ("Lax", "/")
    assert cookie.get("expires") == -1


def steal(browser: BrowserContext, shop: Shop, cookie: Cookie) -> None:
    """Put a cookie of another browser into this one."""
    # Devtools take such a name for https only; the browser sends it to localhost all the same.
    url = shop.url.replace("http:", "https:")
    browser.add_cookies([{"name": cookie["name"], "value": cookie["value"], "url": url}])
    assert session_cookie(browser)["value"] == cookie["value"]


@pytest.fixture(autouse=True)
def nobody_stays(shop: Shop) -> Iterator[None]:
    """Leave no session of the users behind for the next test."""
    yield
    shop.forget("ada", "grace")


# --- one browser ----------------------------------------------------------------------------------


def test_a_login_renews_the_cookie_and_keeps_the_cart(
    shop: Shop, browser: BrowserContext, profile: Callable[[], BrowserContext]
) -> None:
    page = opened(browser)
    button(page, "Add Tea")
    expect(page.get_by_role("status")).to_have_text("Tea is in the cart.")
    before = session_cookie(browser)
    assert_strict(before)
    assert page.evaluate("document.cookie") == ""

    log_in(page)
    after = session_cookie(browser)
    assert_strict(after)
    assert after["value"] != before["value"]
    expect(page.locator("#cart li")).to_have_text(["1 Tea"])
    page.reload()
    expect(page.get_by_role("status")).to_have_count(0)  # a message is for one page
    assert session_cookie(browser)["value"] == after["value"]

    thief = profile()
    steal(thief, shop, before)
    assert_logged_out(opened(thief))
    steal(thief, shop, after)
    expect(opened(thief).locator("#user")).to_have_text("ada")  # so a live one would do
    assert shop.sessions_of("ada") == 1


def test_only_the_password_logs_in_and_the_browser_remembers_if_asked(
    shop: Shop, browser: BrowserContext
) -> None:
    page = opened(browser, "/login")
    fill_in(page, "ada", PASSWORDS["grace"])
    button(page, "Log in")
    expect(page.get_by_role("status")).to_have_text("That is not the password.")
    assert shop.sessions_of("ada") == 0
    assert_logged_out(page)

    page.get_by_label("Stay logged in").check()
    fill_in(page, "ada", PASSWORDS["ada"])
    button(page, "Log in")
    expect(page.locator("#user")).to_have_text("ada")
    assert session_cookie(browser)["expires"] > 0  # it outlives the browser


def test_only_our_forms_count_and_the_cookie_is_dead_after_a_logout(
    shop: Shop, browser: BrowserContext, profile: Callable[[], BrowserContext]
) -> None:
    page = browser.new_page()
    log_in(page)
    kept = session_cookie(browser)
    page.locator("form[action='/logout'] input.csrf").evaluate("field => field.value = 'x'")
    with page.expect_response("**/logout") as refused:
        button(page, "Log out")
    assert refused.value.status == 403
    page.goto("/devices")
    expect(page.locator("#user")).to_have_text("ada")

    button(page, "Log out")
    expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert shop.sessions_of("ada") == 0
    thief = profile()
    steal(thief, shop, kept)
    assert_logged_out(thief.new_page())
    assert session_cookie(thief)["value"] != kept["value"]  # never adopted
    assert_logged_out(page)


# --- two tabs -------------------------------------------------------------------------------------


def test_two_tabs_write_at_once_and_both_survive(browser: BrowserContext) -> None:
    one, two = opened(browser), opened(browser)
    one.evaluate(CLICK_ALL, ["/add", {"good": "tea"}, 5])
    two.evaluate(CLICK_ALL, ["/add", {"good": "cup"}, 5])
    one.evaluate(CLICK_ALL.replace("window.clicks", "window.more"), ["/note", {"note": "ring"}, 1])
    for tab in (one, two):
        tab.evaluate("Promise.all([window.clicks, window.more])")

    one.reload()
    expect(one.locator("#cart li")).to_have_text(["5 Tea", "5 Cup"])
    expect(one.get_by_label("Note")).to_have_value("ring")


def test_a_tab_writes_while_the_other_one_works(shop: Shop, browser: BrowserContext) -> None:
    one, two = browser.new_page(), browser.new_page()
    log_in(one)
    button(one, "Add Tea")
    two.goto("/")
    with one.expect_response("**/pay") as paid, shop.bank.thinking() as bank:
        button(one, "Pay", wait=False)
        bank.wait_until_asked()
        keep_note(two, "ring twice")
        button(two, "Add Cup")
        expect(two.locator("#cart li")).to_have_text(["1 Tea", "1 Cup"])
    assert paid.value.status == 303
    expect(one.get_by_role("status")).to_have_text("Paid £4.50.")
    expect(one.locator("#cart li")).to_have_text(["1 Cup"])
    expect(one.get_by_label("Note")).to_have_value("ring twice")


def test_a_logout_stays_one_beside_a_slow_request(shop: Shop, browser: BrowserContext) -> None:
    one, two = browser.new_page(), browser.new_page()
    log_in(one)
    button(one, "Add Tea")
    two.goto("/")
    with one.expect_response("**/pay") as paid, shop.bank.thinking() as bank:
        button(one, "Pay", wait=False)
        bank.wait_until_asked()
        button(two, "Log out")
        expect(two.get_by_role("link", name="Log in")).to_be_visible()
        anonymous = session_cookie(browser)
    assert paid.value.status == 409
    assert "set-cookie" not in paid.value.all_headers()
    expect(one.get_by_role("heading")).to_have_text("Sorry")
    assert session_cookie(browser) == anonymous
    assert shop.sessions_of("ada") == 0
    assert_logged_out(one)
    assert_logged_out(two)


# --- two browsers ---------------------------------------------------------------------------------


def test_a_revoked_device_is_out_and_nobody_else(
    shop: Shop, profile: Callable[[], BrowserContext]
) -> None:
    desk, phone, hers = (profile().new_page() for _ in range(3))
    log_in(desk)
    log_in(phone)
    log_in(hers, "grace")
    desk.goto("/devices")
    expect(desk.locator("#devices li")).to_have_count(2)  # none of hers
    expect(desk.locator("#devices li[data-current]")).to_have_count(1)
    expect(desk.locator("#devices")).to_contain_text("Chrome")

    desk.bring_to_front()
    desk.locator("#devices").get_by_role("button", name="Log out").click()
    expect(desk.get_by_role("status")).to_have_text("That device is logged out.")
    expect(desk.locator("#devices li")).to_have_count(1)
    assert_logged_out(phone)
    assert shop.sessions_of("ada") == 1

    log_in(phone)
    button(desk, "Log out everywhere else")
    expect(desk.get_by_role("status")).to_have_text("Logged out elsewhere: 1.")
    assert_logged_out(phone)
    hers.goto("/devices")
    expect(hers.locator("#user")).to_have_text("grace")

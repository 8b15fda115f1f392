"""What is Flask's own: its values and messages, `permanent`, its configuration, its test client."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import flask
import pytest
from markupsafe import Markup

from sojourn import Expiry
from sojourn.errors import Ended, InvalidSetting, TooManySessions, Unserializable
from sojourn.testing import FakeClock
from sojourn.web import Cap, Cookie, Header
from sojourn.web.flask import Session, SojournSessions
from sojourn.web.websession import MAX_FLASHES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Shop:
    """An application whose one page does what a test says."""

    def __init__(self, **options: Any) -> None:
        self.app = flask.Flask("shop")
        self.app.testing = True
        self.sessions = SojournSessions(options.pop("url", "memory://"), **options)
        self.work: Callable[[Session], object] = dict
        self.app.add_url_rule("/", view_func=self.page)

    def open(self) -> Shop:
        """Keep the sessions; the configuration is as it is to be by now."""
        self.sessions.init_app(self.app)
        return self

    def page(self) -> Any:
        """Do it, and answer with what came of it."""
        found = self.work(flask.session)  # type: ignore[arg-type]  # it is ours
        return found if isinstance(found, flask.Response) else repr(found)

    def do(self, client: Any, work: Callable[[Any], object]) -> Any:
        """Ask for the page."""
        self.work = work
        return client.get("/", base_url="https://shop.test/")


@pytest.fixture
def shop() -> Iterator[Shop]:
    """One on a store in memory."""
    shop = Shop().open()
    yield shop
    shop.sessions.close()


def put(**values: Any) -> Callable[[Any], object]:
    return lambda session: session.update(values)


def merge(**values: Any) -> Callable[[Any], object]:
    def work(session: Any) -> None:
        session |= values

    return work


# --- values and messages -----------------------------------------------------------------------

VALUES = {
    "tuple": (1, ("a", b"b")),
    "bytes": b"\x00\xff",
    "markup": Markup("<b>"),
    "uuid": UUID(int=7),
    "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "nested": {"list": [1, 2.5, None, True, {"t": (1,)}]},
    "like a tag": {" t": [1]},
    "none": None,
    "big": 2**70,
    "nul": "a\x00b",
}


def test_values_come_back_as_flask_keeps_them(shop: Shop) -> None:
    client = shop.app.test_client()
    shop.do(client, put(**VALUES))
    seen: dict[str, Any] = {}
    shop.do(client, seen.update)
    assert seen == VALUES
    assert {key: type(value) for key, value in seen.items()} == {
        key: type(value) for key, value in VALUES.items()
    }


def test_several_keys_are_set_at_once_as_in_a_dict(shop: Shop) -> None:
    client = shop.app.test_client()
    shop.do(client, merge(a=(1,), b=2))
    assert shop.do(client, lambda session: dict(session) == {"a": (1,), "b": 2}).text == "True"


def test_what_can_not_be_kept_is_an_error_and_nothing_is_stored(shop: Shop) -> None:
    client = shop.app.test_client()
    shop.do(client, put(a=1))
    with pytest.raises(TypeError):
        shop.do(client, put(a=2, b=object()))
    with pytest.raises(Unserializable, match=r"session\.n"):
        shop.do(client, put(a=2, n=[float("nan")]))
    assert shop.do(client, dict).text == "{'a': 1}"


def test_a_reader_of_lists_writes_nothing(shop: Shop) -> None:
    client = shop.app.test_client()
    shop.do(client, put(t=[(1,)], d={"a": 1}))
    answer = shop.do(client, lambda session: (str(dict(session)), session.modified))
    assert answer.text.endswith("False)")


def test_messages_reach_the_next_page_once(shop: Shop) -> None:
    client = shop.app.test_client()

    def say(_session: object) -> None:
        flask.flash("saved")
        flask.flash(Markup("<b>bold</b>"), "loud")
        flask.flash("\x00odd", "info")

    def show(_session: object) -> object:
        return flask.get_flashed_messages(with_categories=True)

    shop.do(client, say)
    assert shop.do(client, show).text == (
        "[('message', 'saved'), ('loud', Markup('<b>bold</b>')), ('info', '\\x00odd')]"
    )
    assert shop.do(client, show).text == "[]"


def test_messages_of_two_requests_at_once_are_both_kept(shop: Shop) -> None:
    client, other = shop.app.test_client(), shop.app.test_client()
    shop.do(client, put(a=1))
    cookie = client.get_cookie("__Host-sid", domain="shop.test")
    assert cookie is not None
    other.set_cookie("__Host-sid", cookie.value, domain="shop.test")

    def say(_session: object) -> None:
        flask.flash("first")
        shop.do(other, lambda _session: flask.flash("second"))

    shop.do(client, say)
    text = shop.do(client, lambda _session: sorted(flask.get_flashed_messages())).text
    assert text == "['first', 'second']"


def test_messages_that_nobody_shows_do_not_break_pages(shop: Shop) -> None:
    client = shop.app.test_client()
    for number in range(MAX_FLASHES + 5):
        say: Callable[[Any], object] = partial(
            lambda text, _session: flask.flash(text), str(number)
        )
        assert shop.do(client, say).status_code == 200
    found = shop.do(client, lambda _session: flask.get_flashed_messages()).text
    assert found == repr([str(number) for number in range(5, MAX_FLASHES + 5)])


# --- permanent ---------------------------------------------------------------------------------


def test_a_permanent_session_outlives_the_browser() -> None:
    clock = FakeClock()
    shop = Shop(clock=clock, expiry=Expiry(idle=60)).open()
    shop.app.permanent_session_lifetime = timedelta(days=10)
    client = shop.app.test_client()

    def stay(session: Session) -> None:
        session.permanent = True

    assert shop.do(client, stay).headers.getlist("Set-Cookie") == []  # nothing to remember yet
    (line,) = shop.do(client, put(a=1)).headers.getlist("Set-Cookie")
    assert "Max-Age" not in line
    (line,) = shop.do(client, stay).headers.getlist("Set-Cookie")
    assert "Max-Age=864000" in line
    assert shop.do(client, stay).headers.getlist("Set-Cookie") == []
    clock.advance(9 * 86_400)
    assert shop.do(client, lambda session: (dict(session), session.permanent)).text == (
        "({'a': 1}, True)"
    )
    clock.advance(86_400)
    assert shop.do(client, dict).text == "{}"
    shop.sessions.close()


def test_a_login_can_be_remembered_and_one_is_not_by_itself(shop: Shop) -> None:
    # Row 48.
    client = shop.app.test_client()
    (line,) = shop.do(client, lambda s: s.login("u-1")).headers.getlist("Set-Cookie")
    assert "Max-Age" not in line
    (line,) = shop.do(client, lambda s: s.login("u-1", remember=True)).headers.getlist("Set-Cookie")
    assert "Max-Age=" in line
    (line,) = shop.do(client, lambda s: s.login("u-1")).headers.getlist("Set-Cookie")
    assert "Max-Age" not in line


# --- its configuration -------------------------------------------------------------------------


def test_flasks_configuration_decides_where_ours_does_not() -> None:
    shop = Shop()
    shop.app.config.update(
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_DOMAIN="shop.test",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_PARTITIONED=True,
    )
    shop.open()
    (line,) = shop.do(shop.app.test_client(), put(a=1)).headers.getlist("Set-Cookie")
    assert sorted(line.split("; ")[1:]) == [
        "Domain=shop.test",
        "Partitioned",
        "Path=/",
        "SameSite=Strict",
        "Secure",
    ]
    assert line.startswith("__Secure-shop=")
    shop.sessions.close()


def test_what_browsers_would_refuse_is_refused_at_the_start() -> None:
    # Row 40.
    shop = Shop()
    shop.app.config.update(SESSION_COOKIE_NAME="__Host-a", SESSION_COOKIE_DOMAIN="shop.test")
    with pytest.raises(InvalidSetting, match="domain"):
        shop.open()
    with pytest.raises(InvalidSetting, match="header"):
        SojournSessions("memory://", cookie=Cookie(), header=Header())
    shop.sessions.close()


def test_without_tls_it_works_and_another_machine_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Row 38.
    shop = Shop(cookie=Cookie(name="sid", secure=False)).open()
    client = shop.app.test_client()
    shop.work = put(a=1)
    assert client.get("/", base_url="http://localhost/").headers["Set-Cookie"].startswith("sid=")
    assert caplog.records == []
    for _ in range(2):
        client.get("/", base_url="http://shop.test/")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    shop.sessions.close()


def test_a_token_in_a_header_is_an_opt_in() -> None:
    # Row 54.
    shop = Shop(header=Header()).open()
    client = shop.app.test_client(use_cookies=False)
    answer = shop.do(client, put(a=1))
    token = answer.headers["X-Session-Token"]
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Vary"] == "Authorization"
    shop.work = dict
    assert client.get("/", headers={"Authorization": f"Bearer {token}"}).text == "{'a': 1}"
    assert client.get("/", headers={"Cookie": f"__Host-sid={token}"}).text == "{}"
    assert client.get(f"/?__Host-sid={token}").text == "{}"
    shop.sessions.close()


def test_a_path_can_do_without_a_session() -> None:
    shop = Shop(policy={"/": "skip"}).open()
    client = shop.app.test_client()
    assert shop.do(client, dict).text == "{}"
    with pytest.raises(RuntimeError, match="skip"):
        shop.do(client, put(a=1))
    with pytest.raises(RuntimeError, match="skip"):
        shop.do(client, merge(a=1))
    shop.sessions.close()


def test_one_session_more_than_allowed_ends_the_oldest() -> None:
    # Row 31.
    shop = Shop(cap=Cap(2)).open()
    clients = [shop.app.test_client() for _ in range(3)]
    for client in clients:
        shop.do(client, lambda session: session.login("u-1"))
    users = [shop.do(client, lambda session: session.user).text for client in clients]
    assert users == ["None", "'u-1'", "'u-1'"]
    shop.sessions.close()


@pytest.mark.parametrize("remember", [True, False])
def test_one_session_more_than_allowed_is_refused(*, remember: bool) -> None:
    # Row 31: the login is stored at once then, and is as long as any other.
    shop = Shop(cap=Cap(1, "refuse"), clock=FakeClock()).open()
    shop.app.permanent_session_lifetime = timedelta(days=10)
    first, second = shop.app.test_client(), shop.app.test_client()
    answer = shop.do(first, lambda session: session.login("u-1", remember=remember))
    max_age = f"Max-Age={10 * 86_400}"
    assert (max_age in answer.headers["Set-Cookie"]) == remember
    left = shop.do(first, lambda session: session.time_left.total_seconds() > 86_400)
    assert left.text == str(remember)
    with pytest.raises(TooManySessions):
        shop.do(second, lambda session: session.login("u-1"))
    shop.do(first, lambda session: session.login("u-1"))
    assert len(shop.sessions.devices.of("u-1")) == 1
    shop.sessions.close()


def test_a_logout_can_clear_the_site() -> None:
    # Row 25.
    shop = Shop(clear_site_data=True).open()
    client = shop.app.test_client()
    shop.do(client, lambda session: session.login("u-1"))
    answer = shop.do(client, lambda session: session.clear())
    assert "cookies" in answer.headers["Clear-Site-Data"]
    assert shop.sessions.devices.of("u-1") == []
    shop.sessions.close()


# --- the rich face -----------------------------------------------------------------------------


def test_a_login_is_known_with_when_and_how(shop: Shop) -> None:
    # Rows 22 and 32.
    client = shop.app.test_client()
    shop.do(client, lambda session: session.login("u-1", auth=("pwd", "otp"), level=2))

    def facts(session: Session) -> object:
        auth = session.require_recent_auth(60, level=2)
        assert session.auth == auth
        assert session.time_left is not None
        assert session.expires_at is not None
        assert session.longest_at is not None
        assert session.available
        assert session.id is not None
        assert not session.new
        return (session.user, auth.methods, auth.level)

    assert shop.do(client, facts).text == "('u-1', ('pwd', 'otp'), 2)"


def test_a_form_proves_that_it_is_ours(shop: Shop) -> None:
    # Row 56.
    client = shop.app.test_client()
    first = shop.do(client, lambda session: session.csrf_token).text.strip("'")
    assert shop.do(client, lambda session: session.check_csrf(first)).text == "True"
    shop.do(client, lambda session: session.rotate())
    assert shop.do(client, lambda session: session.check_csrf(first)).text == "False"


def test_atomic_changes_see_what_was_set_and_are_seen(shop: Shop) -> None:
    client = shop.app.test_client()

    def work(session: Session) -> object:
        session["a"] = 1
        found = [session.incr("n", 2), session.compare_and_set("a", 1, 5), session["a"]]
        return [*found, session.compare_and_set("a", 1, 6), session["n"]]

    assert shop.do(client, work).text == "[2, True, 5, False, 2]"
    assert shop.do(client, dict).text == "{'a': 5, 'n': 2}"


def test_a_late_save_says_that_the_session_is_over(shop: Shop) -> None:
    client = shop.app.test_client()
    shop.do(client, lambda session: session.login("u-1"))

    def late(session: Session) -> object:
        session["a"] = 1
        shop.sessions.devices.revoke_all("u-1")
        with pytest.raises(Ended):
            session.save()
        return "told"

    assert shop.do(client, late).status_code == 200
    assert shop.sessions.devices.of("u-1") == []


def test_saved_in_the_middle_of_a_request_that_fails_is_saved(shop: Shop) -> None:
    client = shop.app.test_client()

    def work(session: Session) -> object:
        session["a"] = 1
        session.save()
        session["b"] = 2
        return flask.Response("no", status=500)

    assert "Set-Cookie" in shop.do(client, work).headers
    assert shop.do(client, dict).text == "{'a': 1}"


def test_refresh_drops_what_was_not_saved(shop: Shop) -> None:
    client = shop.app.test_client()
    shop.do(client, put(a=1))

    def work(session: Session) -> object:
        session["a"] = 2
        session.refresh()
        return session["a"]

    assert shop.do(client, work).text == "1"


# --- its test client ---------------------------------------------------------------------------


def test_a_test_edits_a_session_and_logs_a_client_in(shop: Shop) -> None:
    client = shop.app.test_client()
    with client.session_transaction() as session:
        session["cart"] = ["tea"]
        session.login("u-1")  # type: ignore[attr-defined]  # it is ours
    shop.work = lambda session: (dict(session), session.user)
    assert client.get("/").text == "({'cart': ['tea']}, 'u-1')"
    with client.session_transaction() as session:
        assert session.pop("cart") == ["tea"]
    assert client.get("/").text == "({}, 'u-1')"


# --- event loops and processes -------------------------------------------------------------------


def test_an_async_view_has_its_session(shop: Shop) -> None:
    """Flask gives such a view a loop of its own, which may wait."""

    async def view() -> str:
        session: Any = flask.session
        await asyncio.sleep(0)
        found = f"{session.user} {session.incr('n')}"
        session.login("u-1")
        return found

    shop.app.add_url_rule("/async", view_func=view)
    client = shop.app.test_client()
    assert [client.get("/async").text for _ in range(2)] == ["None 1", "u-1 2"]


async def test_a_client_serves_tests_in_a_loop(shop: Shop) -> None:
    client = shop.app.test_client()
    shop.do(client, put(a=1))
    assert shop.do(client, dict).text == "{'a': 1}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_worker_serves_as_well(tmp_path: Path) -> None:
    """As a server does that loads the application before it forks."""
    shop = Shop(url=f"sqlite:///{tmp_path / 'sessions.db'}").open()
    client = shop.app.test_client()
    shop.do(client, put(a=1))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            shop.do(client, put(b=2))
            code = 0 if shop.do(client, dict).text == "{'a': 1, 'b': 2}" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shop.do(client, dict).text == "{'a': 1, 'b': 2}"
    shop.sessions.close()

"""What is Django's own: its engine, sync and async, middlewares, logins, its test client."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import auth
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils import timezone
from tests.web import django_project as project
from tests.web.wsgi_sites import django_site

from sojourn import blocking, current_session
from sojourn.errors import AuthNeeded, InvalidId, Unavailable, Unserializable, WouldBlock
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.django import SessionStore, SojournMiddleware, devices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

    from sojourn.web import Notice

SECURE: Any = {"secure": True}
"""How a test client asks over TLS."""


@pytest.fixture(autouse=True)
def store() -> Iterator[FaultyStore]:
    """A store in memory, behind a manager, behind Django."""
    faulty = FaultyStore(MemoryStore())
    with (
        blocking.SessionManager(faulty) as sessions,
        override_settings(SOJOURN_SESSIONS=sessions),
    ):
        yield faulty


def stored() -> int:
    """Return how many sessions there are."""
    from django.conf import settings

    return int(settings.SOJOURN_SESSIONS.count())


def made(**values: object) -> SessionStore:
    """Return a session that is stored."""
    session = SessionStore()
    session.update(values)
    session.save()
    return session


def again(session: SessionStore) -> SessionStore:
    """Return the session as the next request has it."""
    return SessionStore(session.session_key)


# --- the engine --------------------------------------------------------------------------------


def test_two_writers_of_different_keys_both_survive() -> None:
    first = made(a=1, b=1)
    second = again(first)
    assert second["b"] == 1
    first["a"] = 2
    first.save()
    second["b"] = 2
    second.save()
    assert dict(again(first).items()) == {"a": 2, "b": 2}


def test_values_are_those_of_djangos_json() -> None:
    session = made(tuple=(1, (2,)), nested={"a": [1.5, None, True]}, keys={1: "one"})
    assert dict(again(session).items()) == {
        "tuple": [1, [2]],
        "nested": {"a": [1.5, None, True]},
        "keys": {"1": "one"},
    }
    with pytest.raises(TypeError):
        made(a=object())
    with pytest.raises(Unserializable, match=r"session\.n"):
        made(n=[float("nan")])
    with pytest.raises(InvalidId, match="reserved"):
        made(**{"~token": "mine"})


def test_a_change_inside_a_value_counts_without_a_word() -> None:
    session = again(made(cart=["tea"]))
    session["cart"].append(("milk", 1))
    assert session.modified
    session.save()
    assert again(session)["cart"] == ["tea", ["milk", 1]]
    reader = again(session)
    assert reader["cart"]
    assert not reader.modified


def test_a_key_is_cycled_with_the_save() -> None:
    # Row 14.
    session = made(a=1)
    before = session.session_key
    again_ = again(session)
    again_.cycle_key()
    assert again_.session_key != before
    assert SessionStore(before)["a"] == 1  # the response may still fail
    promised = again_.session_key
    again_.save()
    assert again_.session_key == promised
    assert SessionStore(before).get("a") is None
    assert again(again_)["a"] == 1
    assert stored() == 1


def test_a_login_knows_the_key_that_it_leads_to() -> None:
    seen: list[str | None] = []

    def view(request: Any) -> HttpResponse:
        project.login(request)
        seen.append(request.session.session_key)
        return HttpResponse()

    request = RequestFactory().get("/", HTTP_COOKIE=f"__Host-sid={made(a=1).session_key}")
    response = SojournMiddleware(view)(request)
    assert response.cookies["__Host-sid"].value == seen[0]


Acts = list[str]


def requested(session: SessionStore, acts: Acts, status: int) -> HttpResponse:
    """Return the response of a view that does this to its session, one after the other."""

    def view(request: HttpRequest) -> HttpResponse:
        for act in acts:
            if act == "login":
                project.login(request)
            else:
                getattr(request.session, act)()
        request.session["late"] = True
        return HttpResponse(status=status)

    request = RequestFactory().get("/", HTTP_COOKIE=f"__Host-sid={session.session_key}")
    response: HttpResponse = SojournMiddleware(view)(request)
    return response


async def arequested(session: SessionStore, acts: Acts, status: int) -> HttpResponse:
    """Do the same in an event loop."""

    async def view(request: HttpRequest) -> HttpResponse:
        for act in acts:
            if act == "login":
                await auth.alogin(request, project.user(1), "tests.web.django_project.Anybody")
            else:
                await getattr(request.session, f"a{act}")()
        await request.session.aset("late", value=True)
        return HttpResponse(status=status)

    request = RequestFactory().get("/", HTTP_COOKIE=f"__Host-sid={session.session_key}")
    response: HttpResponse = await SojournMiddleware(view)(request)
    return response


def check_told(response: HttpResponse, session: SessionStore) -> None:
    """Check that a browser has a key that opens what was stored before the response failed."""
    told = response.cookies["__Host-sid"].value
    assert told != session.session_key
    found = SessionStore(told)
    assert (found["a"], found.get("late")) == (1, None)
    assert response.headers["Cache-Control"] == "no-store"


STORED = [
    ["cycle_key", "save"],
    ["login", "save"],
    ["keys", "create"],
    ["cycle_key", "save", "save"],
    ["cycle_key", "save", "cycle_key"],  # the second one is not stored, and not told
]


@pytest.mark.parametrize("acts", STORED, ids="-".join)
async def test_a_key_that_was_stored_is_told_though_the_response_fails(acts: Acts) -> None:
    # Row 14.
    session = await asyncio.to_thread(made, a=1)
    response = await asyncio.to_thread(requested, session, acts, 500)
    await asyncio.to_thread(check_told, response, session)
    session = await asyncio.to_thread(made, a=1)
    response = await arequested(session, acts, 503)
    await asyncio.to_thread(check_told, response, session)


@pytest.mark.parametrize("acts", [["cycle_key"], ["login"], ["save"]], ids="-".join)
async def test_a_key_that_was_not_stored_is_not_told_where_the_response_fails(acts: Acts) -> None:
    session = await asyncio.to_thread(made, a=1)
    for response in (
        await asyncio.to_thread(requested, session, acts, 500),
        await arequested(session, acts, 500),
    ):
        assert not response.cookies
    assert await again(session).aget("a") == 1


def test_a_key_that_was_stored_is_told_by_whoever_saves_nothing_more() -> None:
    session = made(a=1)

    def view(request: HttpRequest) -> HttpResponse:
        request.session.cycle_key()
        request.session.save()
        request.session.modified = False
        return HttpResponse()

    request = RequestFactory().get("/", HTTP_COOKIE=f"__Host-sid={session.session_key}")
    response = SojournMiddleware(view)(request)
    assert SessionStore(response.cookies["__Host-sid"].value)["a"] == 1


def test_a_key_that_was_stored_is_told_where_the_next_save_fails(store: FaultyStore) -> None:
    session = made(a=1)

    def view(request: HttpRequest) -> HttpResponse:
        request.session.cycle_key()
        request.session.save()
        request.session["late"] = True
        store.fail("commit", times=None)
        return HttpResponse()

    request = RequestFactory().get("/", HTTP_COOKIE=f"__Host-sid={session.session_key}")
    response = SojournMiddleware(view)(request)
    store.heal()
    assert response.status_code == 503
    check_told(response, session)


def test_a_key_that_was_stored_is_told_where_what_comes_after_a_login_fails(
    store: FaultyStore,
) -> None:
    session = made(a=1)
    with override_settings(SOJOURN_SESSIONS_PER_USER=2):
        store.fail("list", times=None, nth=2)
        response = requested(session, ["login"], 200)
        store.heal()
        assert response.status_code == 200
        assert SessionStore(response.cookies["__Host-sid"].value)["a"] == 1


def test_a_key_that_was_stored_and_is_dead_by_now_is_not_told() -> None:
    def flush(request: HttpRequest) -> HttpResponse:
        project.login(request)
        request.session.save()
        request.session.flush()
        return HttpResponse(status=500)

    def ended(request: HttpRequest) -> HttpResponse:
        project.login(request)
        request.session.save()
        SessionStore(request.session.session_key).flush()
        request.session["late"] = True
        return HttpResponse()

    for view in (flush, ended):
        assert not SojournMiddleware(view)(RequestFactory().get("/")).cookies
    assert stored() == 0


def test_a_late_save_of_an_ended_session_is_an_update_error() -> None:
    session = made(a=1)
    late = again(session)
    late["a"] = 2
    session.flush()
    with pytest.raises(UpdateError):
        late.save()
    assert stored() == 0


def test_a_save_beside_a_rotation_is_kept_and_says_that_the_key_is_dead() -> None:
    # Row 13.
    session = made(a=1)
    late = again(session)
    late["b"] = 2
    session.cycle_key()
    session.save()
    with pytest.raises(UpdateError, match="new key"):
        late.save()
    assert dict(again(session).items()) == {"a": 1, "b": 2}


def test_what_exists_is_not_created() -> None:
    session = made(a=1)
    with pytest.raises(CreateError):
        session.save(must_create=True)


def test_create_gives_a_key_of_its_own_and_keeps_the_values() -> None:
    session = made(a=1)
    before = session.session_key
    session.create()
    assert session.session_key != before
    assert again(session)["a"] == 1
    assert SessionStore(before)["a"] == 1


def test_clearing_without_a_look_drops_the_values_and_keeps_the_key() -> None:
    session = again(made(a=1, b=2))
    key = session.session_key
    session.clear()
    session["c"] = 3
    session.save()
    assert session.session_key == key
    assert dict(again(session).items()) == {"c": 3}
    gone = SessionStore("x" * 30)
    gone.clear()
    with pytest.raises(UpdateError):
        gone.save()


def test_expiry_is_kept_and_moves_the_deadline() -> None:
    # Rows 15, 17.
    clock = FakeClock(timezone.now())
    with override_settings(SOJOURN_SESSIONS=None, SOJOURN_URL="memory://", SOJOURN_CLOCK=clock):
        short = made(a=1)
        short.set_expiry(60)
        short.save()
        fixed = SessionStore()
        fixed["a"] = 1
        fixed.set_expiry(timezone.now() + timedelta(seconds=100))
        fixed.save()
        clock.advance(50)
        assert again(short)["a"] == 1
        clock.advance(55)
        assert again(short)["a"] == 1
        assert again(fixed).get("a") is None
        clock.advance(61)
        assert again(short).get("a") is None


def test_setting_an_expiry_again_and_again_does_not_move_the_longest_time() -> None:
    # Row 16.
    clock = FakeClock(timezone.now())
    with override_settings(
        SOJOURN_SESSIONS=None,
        SOJOURN_URL="memory://",
        SOJOURN_CLOCK=clock,
        SOJOURN_ABSOLUTE_AGE=100,
    ):
        session = made(a=1)
        for _ in range(9):
            clock.advance(11)
            session = again(session)
            session.set_expiry(60)
            session.save()
        clock.advance(2)
        assert again(session).get("a") is None


def test_clearsessions_removes_what_is_expired() -> None:
    clock = FakeClock(timezone.now())
    with override_settings(SOJOURN_SESSIONS=None, SOJOURN_URL="memory://d", SOJOURN_CLOCK=clock):
        made(a=1).save()
        clock.advance(15 * 86_400)
        live = made(a=2)
        call_command("clearsessions")
        assert again(live)["a"] == 2
        with blocking.SessionManager.open("memory://d", clock=FakeClock()) as sessions:
            assert sessions.count() == 1


def test_a_session_is_its_users_as_django_has_it() -> None:
    session = made(_auth_user_id="7", _auth_user_backend="some.module.Backend")
    (device,) = devices().of("7")
    assert device.auth is not None
    assert device.auth.methods == ("Backend",)
    assert session.user == "7"
    assert session.require_recent_auth(60).at > 0
    with pytest.raises(AuthNeeded):
        session.require_recent_auth(60, level=1)
    session = again(session)
    del session["_auth_user_id"]
    session["kept"] = 1
    session.save()
    assert devices().of("7") == []
    assert session.user is None
    assert again(session)["kept"] == 1
    assert stored() == 1


def test_settings_that_make_no_sense_are_refused() -> None:
    with (
        override_settings(SOJOURN_SESSIONS=None, SOJOURN_URL=""),
        pytest.raises(ImproperlyConfigured, match="SOJOURN_URL"),
    ):
        made(a=1)
    with (
        override_settings(SESSION_SERIALIZER="tests.web.django_project.Anybody"),
        pytest.raises(ImproperlyConfigured, match="JSON"),
    ):
        made(a=1)
    with (
        override_settings(SOJOURN_SESSIONS_PER_USER=0),
        pytest.raises(ImproperlyConfigured, match="SOJOURN_SESSIONS_PER_USER"),
    ):
        made(a=1)


# --- in an event loop --------------------------------------------------------------------------


async def test_the_engine_awaits() -> None:
    session = SessionStore()
    await session.aset("a", 1)
    await session.asave()
    other = again(session)
    assert await other.aget("a") == 1
    assert await other.aincr("n") == 1
    assert await other.acompare_and_set("a", 1, 2)
    await other.acycle_key()
    await other.asave()
    assert not await session.aexists(session.session_key)
    assert await other.aexists(other.session_key)
    assert await other.adevices() == []
    assert not await other.arevoke("unknown")
    assert await other.arevoke_others() == 0
    await other.aflush()
    assert not await other.aexists(session.session_key)
    await SessionStore.aclear_expired()


async def test_what_would_block_the_loop_says_so() -> None:
    session = SessionStore()
    await session.aset("a", 1)
    await session.asave()
    with pytest.raises(WouldBlock, match=r"request\.session would block .*: await .*aget"):
        again(session).get("a")
    with pytest.raises(WouldBlock, match="asave"):
        session.save()


async def test_what_is_ambient_in_an_async_view_can_be_read_once_it_was_awaited() -> None:
    from django.conf import settings

    session = SessionStore()
    await session.aset("a", 1)
    await session.asave()
    found: list[object] = []

    async def view(request: HttpRequest) -> HttpResponse:
        with pytest.raises(WouldBlock, match=r"await .*aget.*current_session\(\) can be read"):
            current_session()
        assert await request.session.aget("a") == 1
        ambient = current_session()
        found.extend([ambient is not None and ambient.id, request.session["a"]])
        return HttpResponse()

    request = RequestFactory().get("/", secure=True)
    request.META["HTTP_COOKIE"] = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
    await SojournMiddleware(view)(request)
    assert found == [session.id, 1]


async def test_many_at_once_are_awaited_in_their_own_loop() -> None:
    session = SessionStore()
    await session.aset("a", 1)
    await session.asave()
    found = await asyncio.gather(*(again(session).aincr("n") for _ in range(10)))
    assert sorted(found) == list(range(1, 11))


async def test_a_cancelled_call_is_over_when_it_returns(store: FaultyStore) -> None:
    session = SessionStore()
    await session.aset("a", 1)
    await session.asave()
    met, over = threading.Event(), threading.Event()

    async def held_back() -> None:
        met.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(100):
                await asyncio.sleep(0)
            over.set()

    store.delay("commit", until=held_back)
    await session.aset("a", 2)
    task = asyncio.ensure_future(session.asave())
    await asyncio.to_thread(met.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over.is_set()
    store.heal()
    assert await again(session).aget("a") == 1


async def test_requests_are_served_asynchronously() -> None:
    client = AsyncClient()
    assert (await client.get("/async/set?a=1", **SECURE)).status_code == 200
    assert (await client.get("/async/read", **SECURE)).content == b'{"a": "1"}'
    assert (await client.get("/async/login?user=3", **SECURE)).status_code == 200
    assert (await client.get("/async/devices", **SECURE)).content == b"1"
    assert (await client.get("/set?b=2", **SECURE)).status_code == 200  # a sync view, in a thread
    assert (await client.get("/async/incr", **SECURE)).content == b"1"
    assert (await client.get("/async/logout", **SECURE)).status_code == 200
    assert not client.cookies["__Host-sid"].value
    assert await asyncio.to_thread(stored) == 0


async def test_without_the_store_asynchronous_pages_are_503(store: FaultyStore) -> None:
    client = AsyncClient()
    await client.get("/async/set?a=1", **SECURE)
    store.fail("get", "commit", "create", times=None)
    assert (await client.get("/async/read", **SECURE)).status_code == 503
    assert (await AsyncClient().get("/async/set?a=1", **SECURE)).status_code == 503
    assert (await client.get("/untouched", **SECURE)).status_code == 200
    store.heal()
    assert (await client.get("/async/read", **SECURE)).content == b'{"a": "1"}'


# --- middlewares -------------------------------------------------------------------------------


@contextmanager
def plain_django() -> Iterator[None]:
    """Django's own session middleware in place of ours."""
    middleware = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    with override_settings(MIDDLEWARE=middleware):
        yield


def test_djangos_own_middleware_works_too() -> None:
    with plain_django():
        client = Client()
        client.get("/set?a=1", **SECURE)
        client.get("/push?item=tea", **SECURE)
        client.get("/append?item=milk", **SECURE)
        assert client.get("/read", **SECURE).json()["cart"] == ["tea", ["milk", 1]]
        client.get("/login?user=5", **SECURE)
        assert client.get("/whoami", **SECURE).json() == 5
        assert client.get("/login?user=5&status=500", **SECURE).status_code == 500
        assert client.get("/whoami", **SECURE).json() == 5
        client.get("/logout", **SECURE)
        assert stored() == 0


def test_ours_counts_as_djangos() -> None:
    """Django's admin looks for its own middleware or one made of it."""
    assert issubclass(SojournMiddleware, SessionMiddleware)


def test_a_late_write_is_dropped_and_the_page_goes_on() -> None:
    notices: list[Notice] = []
    with override_settings(SOJOURN_ON_NOTICE=[notices.append]):
        session = made(a=1)

        def view(request: Any) -> HttpResponse:
            request.session["a"] = 2
            again(session).flush()
            return HttpResponse("fine")

        request = RequestFactory().get("/", HTTP_COOKIE=f"__Host-sid={session.session_key}")
        response = SojournMiddleware(view)(request)
        assert response.status_code == 200
        assert not response.cookies
        assert "lost" in [notice.kind for notice in notices]
        assert stored() == 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"SESSION_COOKIE_SECURE": False}, "secure"),
        ({"SESSION_COOKIE_DOMAIN": "shop.test"}, "domain"),
        ({"SESSION_COOKIE_PATH": "/shop"}, "path"),
        (
            {
                "SESSION_COOKIE_NAME": "sid",
                "SESSION_COOKIE_SECURE": False,
                "SESSION_COOKIE_SAMESITE": "None",
            },
            "same_site",
        ),
        ({"SOJOURN_POLICY": "maybe"}, "policy"),
    ],
)
def test_what_browsers_would_refuse_is_refused_at_the_start(
    changed: dict[str, Any], reason: str
) -> None:
    # Row 40.
    with override_settings(**changed), pytest.raises(ImproperlyConfigured, match=reason):
        SojournMiddleware(lambda _request: HttpResponse())


def test_a_cookie_without_secure_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    # Row 38.
    with override_settings(SESSION_COOKIE_NAME="sid", SESSION_COOKIE_SECURE=False):
        client = Client()
        client.get("/read", headers={"host": "localhost"})
        assert caplog.records == []
        client.get("/read", headers={"host": "shop.test"})
        client.get("/read", headers={"host": "shop.test"})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_cookie_outlives_the_browser_where_django_says_so() -> None:
    with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=False):
        client = Client()
        client.get("/set?a=1", **SECURE)
        assert client.cookies["__Host-sid"]["max-age"] == 14 * 86_400


def test_every_request_can_be_saved_without_a_row_for_strangers() -> None:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        client = Client()
        client.cookies["__Host-sid"] = "x" * 40
        response = client.get("/untouched", **SECURE)
        assert response.status_code == 200
        assert stored() == 0
        assert not response.cookies["__Host-sid"].value


def test_a_logout_can_clear_the_site() -> None:
    # Row 25.
    with override_settings(SOJOURN_CLEAR_SITE_DATA=True):
        client = Client()
        client.get("/login", **SECURE)
        assert "cookies" in client.get("/logout", **SECURE).headers["Clear-Site-Data"]


def test_one_session_more_than_allowed_ends_the_oldest() -> None:
    # Row 31.
    with override_settings(SOJOURN_SESSIONS_PER_USER=2):
        clients = [Client() for _ in range(3)]
        for client in clients:
            client.get("/login?user=4", **SECURE)
        assert [client.get("/whoami", **SECURE).json() for client in clients] == [None, 4, 4]


def test_a_token_is_renewed_by_age_and_honoured_for_a_while() -> None:
    # Row 12.
    clock = FakeClock()
    with django_site("memory://", clock=clock, renew_after=60, grace=30) as site:
        visitor = site.visitor()
        visitor.get("/set", a=1)
        before = visitor.copy()
        clock.advance(61)
        assert visitor.get("/read").json == {"a": "1"}
        assert visitor.token != before.token
        assert before.get("/count", n=1).all("Set-Cookie") == []  # not the old one again
        clock.advance(31)
        assert before.get("/read").json == {}
        assert visitor.get("/read").json == {"a": "1", "n": 1}


def test_trouble_in_an_inner_middleware_is_503_as_well(store: FaultyStore) -> None:
    session = made(a=1)

    def inner(request: Any) -> HttpResponse:
        with pytest.raises(Unavailable):
            request.session.get("a")
        assert request.session.get("a") is None  # an error page may look again
        return HttpResponse(status=500)

    store.fail("get", times=None)
    request = RequestFactory().get("/", HTTP_COOKIE=f"__Host-sid={session.session_key}")
    response = SojournMiddleware(inner)(request)
    assert response.status_code == 503
    assert not response.cookies


# --- Django's test client ----------------------------------------------------------------------


def test_a_client_is_logged_in_and_its_session_edited() -> None:
    client = Client()
    client.force_login(project.user(9), backend="tests.web.django_project.Anybody")
    session = client.session
    session["cart"] = ["tea"]
    session.save()
    assert client.get("/whoami", **SECURE).json() == 9
    assert client.get("/read", **SECURE).json()["cart"] == ["tea"]
    client.logout()
    assert client.get("/whoami", **SECURE).json() is None
    assert stored() == 0


def test_reprs_show_no_token_and_no_value() -> None:
    # Row 8.
    session = made(password="hunter2")
    assert session.session_key is not None
    for text in (repr(session), repr(again(session)), repr(session._session)):
        assert session.session_key.partition(".")[2] not in text
        assert "hunter2" not in text


def test_a_former_key_does_not_come_back() -> None:
    # Row 13: whatever a request on the old key does, it makes no session of that key.
    session = made(a=1)
    late = again(session)
    assert late["a"] == 1
    before = session.session_key
    session.flush()
    for act in (late.save, late.cycle_key, late.save):
        try:
            act()
        except UpdateError:
            continue
    assert not SessionStore().exists(before)
    assert stored() == 0

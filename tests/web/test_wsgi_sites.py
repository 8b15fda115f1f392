"""What Flask and Django have in common: the same site in both, and the rows of the checklist."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.soak import count, scaled
from tests.web.wsgi_sites import COOKIE, SITES, Site

from sojourn import blocking
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from sojourn.web.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = count(5, 1_000)


@pytest.fixture(params=sorted(SITES))
def kind(request: pytest.FixtureRequest) -> str:
    """Which framework."""
    return str(request.param)


@pytest.fixture
def site(kind: str) -> Iterator[Site]:
    """A site on a store in memory."""
    with SITES[kind](f"memory://{kind}") as opened:
        yield opened


@pytest.fixture
def stored(kind: str, url: str) -> Iterator[Site]:
    """A site on a store of each kind."""
    with SITES[kind](url) as opened:
        yield opened


def rows(kind: str) -> int:
    """Return how many sessions are stored."""
    with blocking.SessionManager.open(f"memory://{kind}") as sessions:
        return sessions.count()


# --- a session as a mapping --------------------------------------------------------------------


def test_what_is_set_is_there_in_the_next_request(site: Site) -> None:
    visitor = site.visitor()
    assert visitor.get("/set", cart="tea", n=1).status == 200
    assert visitor.get("/read").json == {"cart": "tea", "n": "1"}
    assert site.visitor().get("/read").json == {}


def test_a_change_inside_a_value_is_kept(site: Site) -> None:
    visitor = site.visitor()
    visitor.get("/push", item="tea")
    visitor.get("/append", item="milk")
    assert visitor.get("/read").json == {"cart": ["tea", ["milk", 1]]}


def test_nobody_who_only_looks_gets_a_session(site: Site) -> None:
    # Row 36: reading never creates.
    visitor = site.visitor()
    for page in ("/read", "/untouched", "/devices"):
        assert visitor.get(page).all("Set-Cookie") == []
    assert rows(site.kind) == 0


def test_one_that_fails_stores_nothing(site: Site) -> None:
    visitor = site.visitor()
    assert visitor.get("/fail", a=1).all("Set-Cookie") == []
    visitor.get("/set", a=1)
    assert visitor.get("/fail", a=2).status == 500
    assert visitor.get("/read").json == {"a": "1"}


def test_a_stream_changes_the_session(site: Site) -> None:
    visitor = site.visitor()
    answer = visitor.get("/stream", late="yes")
    assert answer.text == "onetwo"
    assert visitor.get("/read").json == {"begun": True, "late": "yes"}


def test_the_session_is_ambient_in_its_request(site: Site) -> None:
    visitor = site.visitor()
    assert visitor.get("/ambient").json is None
    visitor.get("/set", a=1)
    assert visitor.get("/ambient").json == visitor.get("/id").json is not None


# --- tokens and cookies ------------------------------------------------------------------------


def test_the_cookie_is_as_strict_as_can_be(site: Site) -> None:
    # Rows 38, 39, 43, 44, 47, 48, 49.
    (line,) = site.visitor().get("/set", a=1).all("Set-Cookie")
    value, *attributes = line.split("; ")
    assert value.startswith(f"{COOKIE}=")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]


def test_what_is_told_is_kept_out_of_caches(site: Site) -> None:
    # Row 53.
    visitor = site.visitor()
    told = visitor.get("/set", a=1)
    assert told.all("Cache-Control") == ["no-store"]
    assert told.all("Vary") == ["Cookie"]
    read = visitor.get("/read")
    assert (read.all("Vary"), read.all("Cache-Control")) == (["Cookie"], [])
    assert visitor.get("/untouched").all("Vary") == []


def test_a_token_that_was_not_issued_here_is_never_adopted(site: Site) -> None:
    # Rows 4 and 5.
    tokens = Tokens()
    for token in ("x", "../../etc", "a" * 5_000, "' OR 1=1", tokens.write(tokens.issue())):
        visitor = site.visitor(token)
        assert visitor.get("/read").json == {}
        visitor = site.visitor(token)
        visitor.get("/set", a=1)
        assert visitor.token != token
        assert visitor.get("/read").json == {"a": "1"}
    assert "refused" in site.kinds()


def test_of_several_cookies_the_first_valid_one_counts(site: Site) -> None:
    # Row 51.
    visitor = site.visitor()
    visitor.get("/set", a=1)
    tossed = site.visitor(f"junk; {COOKIE}={visitor.token}")
    assert tossed.get("/read").json == {"a": "1"}


def test_only_a_hash_of_the_token_is_stored(site: Site) -> None:
    # Row 9.
    visitor = site.visitor()
    visitor.get("/set", a=1)
    assert visitor.token is not None
    id, _, secret = visitor.token.partition(".")
    with blocking.SessionManager.open(f"memory://{site.kind}") as sessions:
        session = sessions.require(id)
        assert secret not in str(dict(session.state))


def test_no_token_is_in_logs_and_reprs(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # Row 8.
    caplog.set_level(logging.DEBUG)
    visitor = site.visitor()
    visitor.get("/set", a=1)
    visitor.get("/login")
    visitor.get("/read")
    assert visitor.token is not None
    secret = visitor.token.partition(".")[2]
    assert secret not in caplog.text
    assert secret not in str(site.notices)


def test_random_tokens_write_nothing(site: Site) -> None:
    tokens = Tokens()
    for _ in range(count(100, 100_000)):
        site.visitor(tokens.write(tokens.issue())).get("/read")
    assert rows(site.kind) == 0


# --- logging in and out ------------------------------------------------------------------------


def test_a_login_replaces_the_token_and_keeps_the_cart(site: Site) -> None:
    # Rows 10 and 11.
    visitor = site.visitor()
    visitor.get("/set", cart="tea")
    before = visitor.copy()
    visitor.get("/login")
    assert visitor.token != before.token
    assert visitor.get("/read").json["cart"] == "tea"
    assert before.get("/read").json == {}
    (device,) = site.devices.of("1")
    assert device.id == visitor.get("/id").json


def test_another_login_of_the_same_user_replaces_the_token(site: Site) -> None:
    # Row 10: to authenticate again is a login.
    visitor = site.visitor()
    visitor.get("/login")
    before = visitor.copy()
    visitor.get("/login")
    assert before.get("/devices").json == []
    assert len(visitor.get("/devices").json) == 1


def test_a_login_as_somebody_else_gets_nothing_of_the_first(site: Site) -> None:
    visitor = site.visitor()
    visitor.get("/login", user=1)
    visitor.get("/set", secret="of 1")
    before = visitor.copy()
    visitor.get("/login", user=2)
    assert "secret" not in visitor.get("/read").json
    assert before.get("/read").json == {}
    assert site.devices.of("1") == []
    assert len(site.devices.of("2")) == 1


def test_a_response_that_fails_after_a_rotation_logs_nobody_out(site: Site) -> None:
    # Row 14.
    visitor = site.visitor()
    visitor.get("/login")
    assert visitor.get("/fail-rotate").status == 500
    assert visitor.get("/login", status=503).status == 503
    assert len(visitor.get("/devices").json) == 1


def test_a_logout_is_for_good(site: Site) -> None:
    # Rows 23 and 24.
    visitor = site.visitor()
    visitor.get("/login")
    before = visitor.copy()
    (line,) = visitor.get("/logout").all("Set-Cookie")
    attributes = {part.split("=")[0] for part in line.split("; ")}
    assert {"Path", "Secure", "Max-Age"} <= attributes
    assert "Domain" not in attributes
    assert visitor.token is None
    assert before.get("/read").json == {}
    assert rows(site.kind) == 0


def test_devices_are_listed_and_ended(site: Site) -> None:
    # Rows 26, 27, 28, 29.
    phone, laptop, other = site.visitor(), site.visitor(), site.visitor()
    for visitor, agent in ((phone, "phone"), (laptop, "laptop")):
        visitor.get("/login", agent=agent)
    other.get("/login", user=2)
    listed = laptop.get("/devices", agent="laptop").json
    assert sorted((agent, current) for _, agent, current in listed) == [
        ("laptop", True),
        ("phone", False),
    ]
    here = next(id for id, _, current in listed if current)
    gone = next(id for id, _, current in listed if not current)
    assert other.get("/revoke", id=gone).json is False
    assert laptop.get("/revoke", id=gone).json is True
    assert phone.get("/devices").json == []
    phone.get("/login", agent="phone")
    assert laptop.get("/revoke-others").json == 1
    assert [id for id, *_ in laptop.get("/devices").json] == [here]
    assert site.devices.revoke_all("1") == 1
    assert laptop.get("/devices").json == []
    assert site.devices.revoke_everybody() == 1
    assert other.get("/devices").json == []


def test_deadlines_are_the_servers(kind: str) -> None:
    # Rows 15, 16, 17, 19.
    clock = FakeClock()
    with SITES[kind](f"memory://{kind}", clock=clock) as site:
        visitor = site.visitor()
        visitor.get("/set", a=1)
        idle = 1_800 if kind == "flask" else 14 * 86_400
        for _ in range(3):
            clock.advance(idle * 0.6)
            assert visitor.get("/read").json == {"a": "1"}
        clock.advance(idle + 1)
        assert visitor.get("/read").json == {}
        assert "expired" in site.kinds()
        visitor.get("/set", a=2)
        absolute = 43_200 if kind == "flask" else 30 * 86_400
        for _ in range(int(absolute / (idle * 0.5)) + 1):
            clock.advance(idle * 0.5)
            visitor.get("/read")
        assert visitor.get("/read").json == {}


def test_incr_counts_each(site: Site) -> None:
    visitor = site.visitor()
    visitor.get("/set", a=1)
    assert [visitor.get("/incr").json for _ in range(3)] == [1, 2, 3]
    assert visitor.get("/read").json == {"a": "1", "n": 3}


@pytest.mark.parametrize("has_session", [True, False])
def test_a_stream_that_looks_first_issues_no_token(kind: str, *, has_session: bool) -> None:
    """Its headers are gone: none is renewed by age, and no session begins that nobody can open."""
    clock = FakeClock()
    with (
        blocking.SessionManager.open("memory://", clock=clock) as sessions,
        SITES[kind](sessions, renew_after=60, grace=1) as site,
    ):
        visitor = site.visitor()
        if has_session:
            visitor.get("/set", a=1)
        clock.advance(61)
        assert visitor.get("/stream-first").all("Set-Cookie") == []
        clock.advance(2)
        assert len(sessions.list().items) == int(has_session)
        if has_session:
            assert visitor.get("/read").json == {"a": "1", "late": True}


# --- while the store is down -------------------------------------------------------------------


@pytest.fixture
def faulty() -> FaultyStore:
    """A store that fails when it is told to."""
    return FaultyStore(MemoryStore())


def down(store: FaultyStore) -> Any:
    """Let every call of a store fail from now on."""
    return store.fail("get", "create", "commit", times=None)


def test_without_the_store_a_page_that_needs_its_session_is_503(
    kind: str, faulty: FaultyStore
) -> None:
    with blocking.SessionManager(faulty) as sessions, SITES[kind](sessions) as site:
        visitor = site.visitor()
        visitor.get("/set", a=1)
        down(faulty)
        for page in ("/read", "/set"):
            answer = visitor.get(page, b=1)
            assert (answer.status, answer.all("Cache-Control")) == (503, ["no-store"])
            assert answer.all("Retry-After")
            assert answer.all("Set-Cookie") == []
        assert site.visitor().get("/set", a=1).status == 503
        assert visitor.get("/untouched").status == 200
        assert site.visitor().get("/read").status == 200
        faulty.heal()
        assert visitor.get("/read").json == {"a": "1"}
        assert "failed" in site.kinds()


def test_a_refusal_brings_the_token_that_was_stored_before(kind: str, faulty: FaultyStore) -> None:
    """Else nobody has the session any more: the old one is dead."""
    with blocking.SessionManager(faulty) as sessions, SITES[kind](sessions) as site:
        visitor = site.visitor()
        visitor.get("/set", a=1)
        answer, late = site.beside(visitor, "/half", lambda: down(faulty))
        assert answer.status == 503
        assert late.token not in (None, visitor.token)
        faulty.heal()
        assert late.get("/read").json == {"a": "1"}


def test_without_the_store_an_optional_session_is_empty(kind: str, faulty: FaultyStore) -> None:
    with (
        blocking.SessionManager(faulty) as sessions,
        SITES[kind](sessions, policy="optional") as site,
    ):
        visitor = site.visitor()
        visitor.get("/set", a=1)
        down(faulty)
        assert visitor.get("/read").json == {}
        assert visitor.get("/set", b=1).status == 503
        faulty.heal()
        assert visitor.get("/read").json == {"a": "1"}


# --- races -------------------------------------------------------------------------------------


@scaled
def test_two_writers_of_different_keys_both_survive(stored: Site) -> None:
    visitor = stored.visitor()
    visitor.get("/login")
    for round_ in range(1, ROUNDS + 1):
        stored.beside(visitor, "/slow", lambda: visitor.get("/count", other=1))
        read = visitor.get("/read").json
        assert (read["n"], read["other"]) == (round_, round_)


@scaled
def test_a_reader_undoes_nothing(stored: Site) -> None:
    visitor = stored.visitor()
    visitor.get("/login")
    for round_ in range(1, ROUNDS + 1):
        stored.meeting.begin()
        stored.beside(visitor, "/slow", lambda: visitor.get("/count", n=1, m=1))
        assert visitor.get("/read").json["m"] == round_


@scaled
def test_a_logout_beside_a_slow_request_stays_one(stored: Site) -> None:
    # Rows 13 and 23.
    visitor = stored.visitor()
    for _ in range(ROUNDS):
        visitor.get("/login")
        before = visitor.copy()
        answer, late = stored.beside(visitor, "/slow", lambda: visitor.get("/logout"))
        assert answer.status == 200
        assert answer.all("Set-Cookie") == []
        for tab in (before, late):
            assert tab.get("/read").json == {}
    assert stored.kinds().count("lost") == ROUNDS
    assert stored.devices.of("1") == []


@scaled
def test_a_rotation_beside_a_slow_request_keeps_the_data(stored: Site) -> None:
    # Row 13.
    visitor = stored.visitor()
    visitor.get("/login")
    for round_ in range(1, ROUNDS + 1):
        before = visitor.copy()
        answer, _ = stored.beside(visitor, "/slow", lambda: visitor.get("/rotate"))
        assert answer.all("Set-Cookie") == []  # the old token must not come back
        assert visitor.token != before.token
        assert visitor.get("/read").json["n"] == round_
        assert before.get("/read").json == {}

"""No token is anywhere but with its browser: not in raw backends, logs, reprs, traces, notices."""

from __future__ import annotations

import asyncio
import logging
import traceback
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2
import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tests.servers.postgres import emptied
from tests.servers.redis import values_in

import sojourn
from sojourn import AuthNeeded, Ended, NotFound, SessionManager, open_store
from sojourn.telemetry import LoggingObserver, OpenTelemetryObserver
from sojourn.testing import FakeClock
from sojourn.web import Notice, SessionMiddleware, admission, tokens, websession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from sojourn.telemetry import Observer

    Raw = Callable[[SessionManager], Awaitable[list[bytes]]]

SITE = "https://shop.example"
COOKIE = "__Host-sid"
KEY = "k" * 32
RENEW_SECONDS = 600.0
WEB = Path(admission.__file__).parent
LIBRARY = Path(sojourn.__file__).parent

KINDS = ["memory", "sqlite", "file", "postgres"]
KINDS_AND_MARKS = [*KINDS, pytest.param("redis", marks=pytest.mark.xdist_group("redis"))]


# --- what there is to look for -------------------------------------------------------------------


def forms(secret: str) -> Iterator[bytes]:
    """Yield what somebody could write a secret as, on purpose or not, at any place in a text."""
    raw = urlsafe_b64decode(secret + "=")
    for data in (secret.encode(), raw):
        yield data
        yield data.hex().encode()
        yield data.hex().upper().encode()
        for before in range(3):  # its place in the text decides what it is in base 64
            for encoded in (b64encode, urlsafe_b64encode):
                text = encoded(b"\0" * before + data)
                yield text[4 if before else 0 : -4]


class Seen:
    """Every token that a browser was given or made up, and everything that it must not be in."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.made_up: list[str] = []
        self.put_out: dict[str, list[bytes]] = {}
        self.spans = InMemorySpanExporter()
        self.notices: list[Notice] = []

    def keep(self, where: str, *found: object) -> None:
        """Keep what was put out somewhere."""
        held = self.put_out.setdefault(where, [])
        held += [each if isinstance(each, bytes) else str(each).encode() for each in found]

    def leaks(self) -> set[tuple[str, str]]:
        """Return where which part of a token was found: never the id, always what proves it."""
        parts = {
            part: name
            for text in (*self.given, *self.made_up)
            for name, part in zip(("secret", "signature"), text.split(".")[1:], strict=False)
        }
        texts = {where: b"\n".join(dict.fromkeys(found)) for where, found in self.put_out.items()}
        return {
            (where, name)
            for part, name in parts.items()
            for form in forms(part)
            for where, text in texts.items()
            if form in text
        }


# --- the raw backends ----------------------------------------------------------------------------


def texts_within(value: Any, met: set[int]) -> Iterator[bytes]:
    """Yield every text that can be reached from an object of ours."""
    if isinstance(value, str | bytes | bytearray | msgspec.Raw):
        yield value.encode() if isinstance(value, str) else bytes(value)
    if id(value) in met:
        return
    met.add(id(value))
    inside: list[Any] = []
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "deque":
        inside = list(value)
    elif type(value).__module__.startswith("sojourn"):
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        names = [*getattr(value, "__dict__", ()), *getattr(value, "__struct_fields__", ()), *slots]
        inside = [getattr(value, name, None) for name in names]
    for each in inside:
        yield from texts_within(each, met)


async def in_memory(sessions: SessionManager) -> list[bytes]:
    """Return every text that the store holds."""
    return list(texts_within(sessions.store, set()))


def in_files(folder: Path, names: str = "*") -> Raw:
    """Return what reads all files of a folder: a database with its log and index, or records."""

    def all_of_them() -> list[bytes]:
        return [path.read_bytes() for path in sorted(folder.rglob(names)) if path.is_file()]

    async def read(_sessions: SessionManager) -> list[bytes]:
        return all_of_them()

    return read


def in_postgres(url: str, log: Path) -> Raw:
    """Return what reads every row of every table as text, and the server's log."""
    written = in_files(log.parent, log.name)

    async def read(sessions: SessionManager) -> list[bytes]:
        address = open_store(url)._address  # type: ignore[attr-defined]  # it is PostgreSQL's
        db = await asyncpg.connect(**address.arguments())
        try:
            tables = await db.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = $1", address.schema
            )
            rows = [
                row
                for (table,) in tables
                for row in await db.fetch(
                    f'SELECT t::text FROM "{address.schema}"."{table}" t'  # noqa: S608 - the names are our own
                )
            ]
        finally:
            await db.close()
        return [*await written(sessions), *(text.encode() for (text,) in rows)]

    return read


@pytest.fixture(params=KINDS_AND_MARKS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Raw]:
    """The URL of an empty store of each kind, and what reads all that is behind it."""
    kept = tmp_path / "kept"
    kept.mkdir()
    if request.param == "memory":
        return f"memory://{tmp_path.name}", in_memory
    if request.param == "sqlite":
        return f"sqlite:///{kept / 'sessions.db'}", in_files(kept)
    if request.param == "file":
        return f"file://{kept / 'sessions'}", in_files(kept)
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        url: str = server.url(schema="tokens")
        asyncio.run(emptied(url))
        return url, in_postgres(url, Path(server.folder) / "log")
    server = request.getfixturevalue("redis_server")

    async def in_redis(_sessions: SessionManager) -> list[bytes]:
        return values_in([server])

    return f"{server.url}?prefix={tmp_path.name}", in_redis


# --- a site, and a visit that goes through everything --------------------------------------------


class Shop:
    """An application whose pages show what objects look like, and fail in several ways."""

    def __init__(self, sessions: SessionManager, seen: Seen) -> None:
        self.sessions = sessions
        self.seen = seen
        names = (
            "look",
            "cart",
            "login",
            "step_up",
            "rotate",
            "logout",
            "weak",
            "late",
            "broken",
            "stale",
        )
        self.app = SessionMiddleware(
            Starlette(routes=[Route(f"/{name}", self.page) for name in names]),
            sessions=sessions,
            keys=[KEY],
            renew_after=RENEW_SECONDS,
            on_notice=[seen.notices.append],
        )

    async def page(self, request: Request) -> Response:
        """Do what the page's name says, and keep what everything looks like before and after."""
        self.note(request)
        try:
            await getattr(self, request.url.path.strip("/"))(request.session)
        finally:
            self.note(request)
        return PlainTextResponse("done")

    def note(self, request: Request) -> None:
        """Keep the reprs of whatever an application can get hold of."""
        web: Any = request.session
        shown = [web, web.session, web.plan, web.token, web.auth, self.app, self.app.transport]
        shown += [self.app.admission, self.app.admission.tokens, self.app.devices, self.sessions]
        shown += [self.app.admission.notices, web.source, self.sessions.store]
        if web.session is not None:
            shown += [web.session.state, dict(web.session.state), web.session.header]
        for each in shown:
            self.seen.keep("reprs", repr(each), f"{each}", f"{each!a}")

    async def look(self, session: Any) -> None:
        """Read."""
        session.get("cart")

    async def cart(self, session: Any) -> None:
        """Write, and ask for what forms send back."""
        session["cart"] = [*session.get("cart", []), "tea"]
        session.flash("thank you")
        assert session.csrf_token

    async def login(self, session: Any) -> None:
        """Log in."""
        await session.login("ada", auth="pwd")

    async def step_up(self, session: Any) -> None:
        """Log in again, stronger."""
        await session.login("ada", auth=("pwd", "otp"), level=2, remember=True)

    async def rotate(self, session: Any) -> None:
        """Get a new token; the old one counts for a while."""
        session.rotate(grace=30.0)

    async def logout(self, session: Any) -> None:
        """Log out."""
        await session.logout()

    async def weak(self, session: Any) -> None:
        """Ask for more than the login is."""
        session.require_recent_auth(300, level=9)

    async def broken(self, session: Any) -> None:
        """Fail in the middle, with a new token on its way."""
        session.rotate()
        raise RuntimeError("the page failed")

    async def late(self, session: Any) -> None:
        """Write to a session that is ended meanwhile."""
        session["cart"] = []
        await self.sessions.end(session.id)
        session.rotate()
        await session.save()

    async def stale(self, session: Any) -> None:
        """Save it as code without the web does, when it is gone."""
        session["cart"] = []
        await self.sessions.delete(session.id)
        await self.sessions.save(session.session)


class Visitor:
    """A browser that keeps every token that it was ever given."""

    def __init__(self, shop: Shop, seen: Seen) -> None:
        self.seen = seen
        self.token = ""
        transport = httpx2.ASGITransport(shop.app)
        self.client = httpx2.AsyncClient(transport=transport, base_url=SITE)

    async def get(self, page: str, token: str | None = None) -> int:
        """Ask for a page, with a token of one's own or another one; keep the one that comes."""
        sent = self.token if token is None else token
        self.client.cookies.clear()
        headers = {"cookie": f"{COOKIE}={sent}"} if sent else {}
        answer = await self.client.get(f"/{page}", headers=headers)
        for line in answer.headers.get_list("set-cookie"):
            self.token = SimpleCookie(line)[COOKIE].value
            self.seen.given += [self.token] if self.token else []
        self.seen.keep("pages", answer.content)
        return answer.status_code

    async def fails(self, page: str, error: type[Exception]) -> None:
        """Ask for a page that fails, and keep all that can be printed of that."""
        with pytest.raises(error) as raised:
            await self.get(page)
        self.seen.keep("exceptions", *traceback.format_exception(raised.value), repr(raised.value))
        held: BaseException | None = raised.value
        while held is not None:
            lines = traceback.TracebackException.from_exception(held, capture_locals=True)
            for frame in lines.stack:
                self.seen.keep("locals", *_locals_below_the_web(frame))
            held = held.__cause__ or held.__context__


def _locals_below_the_web(frame: traceback.FrameSummary) -> list[str]:
    """Return what error reports with locals show of our frames that have nothing to do with tokens.

    Those of `sojourn.web` hold the request itself, with its cookie, as those of any framework do.
    """
    path = Path(frame.filename)
    ours = path.is_relative_to(LIBRARY) and not path.is_relative_to(WEB)
    return list((frame.locals or {}).values()) if ours else []


async def visit(visitor: Visitor, clock: FakeClock) -> None:
    """Go through everything that gives out a token, takes one back or refuses one."""
    for page in ("cart", "login", "look", "rotate", "step_up", "cart"):
        assert await visitor.get(page) == 200
    before = visitor.token
    clock.advance(RENEW_SECONDS + 1)
    assert await visitor.get("look") == 200
    assert visitor.token != before, "it was renewed by itself"
    await visitor.get("look", before)  # in its grace
    id, _, _ = visitor.token.partition(".")
    issued = tokens.Tokens([KEY])
    forged = [issued.write(issued.issue(id)), issued.write(issued.issue())]
    forged += [tokens.Tokens(["x" * 32]).write(issued.issue(id)), forged[0].rpartition(".")[0]]
    visitor.seen.made_up += forged
    for token in forged:
        kept = visitor.token
        assert await visitor.get("look", token) == 200
        visitor.token = kept
    await visitor.fails("weak", AuthNeeded)
    await visitor.fails("broken", RuntimeError)
    await visitor.fails("late", Ended)
    visitor.token = ""
    assert await visitor.get("login") == 200
    await visitor.fails("stale", NotFound)
    visitor.token = ""
    for page in ("login", "cart"):
        assert await visitor.get(page) == 200
    dead = visitor.token
    assert await visitor.get("logout") == 200
    assert await visitor.get("look", dead) == 200
    for page in ("cart", "login"):  # one that is there still when the backend is looked at
        assert await visitor.get(page) == 200


async def seen_by_all(backend: tuple[str, Raw], caplog: pytest.LogCaptureFixture) -> Seen:
    """Go through a visit, and return all that was put out by then."""
    url, read = backend
    caplog.set_level(logging.DEBUG)
    seen, clock = Seen(), FakeClock()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(seen.spans))
    observers: list[Observer] = [OpenTelemetryObserver(tracer_provider=traces), LoggingObserver()]
    async with SessionManager.open(url, clock=clock, observers=observers) as sessions:
        visitor = Visitor(Shop(sessions, seen), seen)
        await visit(visitor, clock)
        seen.keep("raw", *await read(sessions))
    assert await visitor.get("look") == 503, "the store is closed by now"
    if read is not in_memory:
        seen.keep("raw", *await read(sessions))
    seen.keep("log", caplog.text, *(repr(vars(record)) for record in caplog.records))
    seen.keep("notices", *map(repr, seen.notices))
    seen.keep("spans", *(span.to_json() for span in seen.spans.get_finished_spans()))
    return seen


# --- and where it is -----------------------------------------------------------------------------


async def test_no_token_is_anywhere(
    backend: tuple[str, Raw], caplog: pytest.LogCaptureFixture
) -> None:
    seen = await seen_by_all(backend, caplog)
    assert len(set(seen.given)) >= 8, "each of these steps gave one out"
    assert all(text.count(".") == 2 for text in seen.given)
    assert seen.leaks() == set()
    # All of these were really looked at.
    everywhere = {"raw", "log", "notices", "spans", "reprs", "pages", "exceptions", "locals"}
    assert {where for where, found in seen.put_out.items() if any(found)} == everywhere
    assert {"renewed", "login", "logout", "refused"} <= {notice.kind for notice in seen.notices}
    id, secret, _ = seen.given[-1].split(".")
    assert any(id.encode() in each for each in seen.put_out["raw"])
    kept = tokens.digest(secret).encode()
    found = (kept, kept.hex().encode())
    assert any(form in each for each in seen.put_out["raw"] for form in found)


async def test_a_token_that_is_kept_is_found(
    backend: tuple[str, Raw], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the hash the store has the secret, and so has whoever looks at the state."""
    for module in (tokens, admission, websession):
        monkeypatch.setattr(module, "digest", str)
    leaks = (await seen_by_all(backend, caplog)).leaks()
    assert {("raw", "secret"), ("reprs", "secret")} <= leaks


@pytest.mark.parametrize("where", ["log", "notices", "spans", "exceptions"])
def test_a_token_is_found_in_any_form(where: str) -> None:
    """As it is, in hex, and in base 64 at any place of a text."""
    made = tokens.Tokens([KEY])
    text = made.write(made.issue())
    _, secret, _ = text.split(".")
    for shown in (
        text.encode(),
        secret.encode().hex().encode(),
        urlsafe_b64decode(secret + "="),
        *(b64encode(b"x" * many + text.encode()) for many in range(3)),
    ):
        seen = Seen()
        seen.given.append(text)
        seen.keep(where, b"before " + shown + b" after")
        assert (where, "secret") in seen.leaks()


def test_a_reply_does_not_show_its_token() -> None:
    assert repr(admission.Reply("a-token")) == str(admission.Reply("a-token")) == "<Reply a token>"
    assert repr(admission.Reply(erase=True)) == "<Reply erase>"
    assert repr(admission.NOTHING) == "<Reply nothing>"

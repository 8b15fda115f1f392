"""Flask: `app.session_interface = SojournSessions("sqlite:///app.db")`, and `session` is Sojourn's.

`pip install "sojourn[flask]"`. `flask.session` is what it always is, a mapping that takes what
Flask's own takes (tuples, bytes, `Markup`, UUIDs, datetimes), and has the verbs of a login beside
that: `session.login("u-1")`, `session.logout()`, `session.devices()`. Type checkers know of these
from `from sojourn.web.flask import session`, which is the same.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from sojourn import codec
from sojourn.errors import InvalidSetting, MissingExtra, SojournError, TooLarge, Unavailable
from sojourn.expiry import Expiry
from sojourn.scopes import lend, unlend
from sojourn.session import Merging
from sojourn.web import facts
from sojourn.web.admission import DEFAULT_EXPIRY, GRACE_SECONDS, NOTHING, TIMEOUT_SECONDS, Admission
from sojourn.web.blocking import Admissions, Devices, Face
from sojourn.web.cookies import SAME_SITE, Cookie, PlainWarning
from sojourn.web.facts import TokenFacts
from sojourn.web.notices import Notices, Source
from sojourn.web.policies import FAILURE, REFUSAL, RETRY_AFTER, UNAVAILABLE, Policies, Policy
from sojourn.web.tokens import Tokens
from sojourn.web.transports import CookieTransport, Header
from sojourn.web.values import Values
from sojourn.web.websession import MAX_FLASHES, Plan, WebSession

try:
    import flask
    from flask.sessions import (
        NullSession,
        SessionInterface,
        SessionMixin,
        session_json_serializer,
    )
    from werkzeug.exceptions import ServiceUnavailable
except ImportError as error:
    raise MissingExtra("sojourn.web.flask", "flask") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from contextvars import Token

    from sojourn.blocking.manager import SessionManager
    from sojourn.ports import Clock
    from sojourn.scopes import Lender
    from sojourn.web.admission import Reply
    from sojourn.web.caps import Cap
    from sojourn.web.notices import Listener
    from sojourn.web.transports import Transport

T = TypeVar("T")

FLASHES = "_flashes"
"""The key under which Flask keeps its messages. Here each message has a key of its own."""

ENCODED = "\x00"
"""What a stored message begins with that is more than plain text, and so kept as JSON."""

EXTENSION = "sojourn"
"""The name under which `init_app` notes itself."""


class SojournSessions(SessionInterface):
    """Keeps the sessions of a Flask application in any store: see `init_app`.

    A request that does not look at its session costs no call of the store, one that only reads
    writes nothing but a touch now and then, and what changed is stored key by key. A response with
    a status of 500 or more stores nothing.
    """

    def __init__(
        self,
        sessions: SessionManager | str,
        *,
        cookie: Cookie | None = None,
        header: Header | None = None,
        expiry: Expiry = DEFAULT_EXPIRY,
        keys: Sequence[str | bytes] = (),
        policy: Policy | Mapping[str, Policy] = "required",
        renew_after: float | None = None,
        grace: float = GRACE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        cap: Cap | None = None,
        keep_device: bool = True,
        on_notice: Sequence[Listener] = (),
        notice_key: bytes | None = None,
        clear_site_data: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Take a `sojourn.blocking.SessionManager`, or the URL of a store that is opened and swept.

        Without a `cookie` it is made of the application's `SESSION_COOKIE_…`, but it always has
        `Secure`, a name with a prefix (`__Host-sid`), and `SameSite=Lax` where Flask says nothing.
        On a machine without TLS give `Cookie(name="sid", secure=False)`. A session that is
        `permanent` lasts for `PERMANENT_SESSION_LIFETIME`, any other one for `expiry`. `clock` is
        for tests, with a URL. The rest is explained at `sojourn.web.SessionMiddleware`.

        Raises `InvalidSetting`, `InvalidQuery` for what makes no sense.
        """
        if cookie is not None and header is not None:
            raise InvalidSetting("header", "SojournSessions", "give a cookie or a header")
        make = partial(
            Admission,
            tokens=Tokens(keys),
            expiry=expiry,
            renew_after=renew_after,
            grace=grace,
            timeout=timeout,
            cap=cap,
            keep_device=keep_device,
            notices=Notices(on_notice, notice_key),
        )
        clocks = {} if clock is None else {"clock": clock}
        self.admissions = Admissions(sessions, make, **clocks)
        self.expiry = expiry
        self.clear_site_data = clear_site_data
        self._cookie = cookie
        self._header = header
        self._policies = Policies(policy)
        self._plain = PlainWarning(cookie)

    null_session_class = NullSession

    def init_app(self, app: flask.Flask) -> None:
        """Keep the sessions of this application, and make each ambient in its request.

        Raises `InvalidSetting` for a configuration that browsers would refuse.
        """
        self.transport(app)
        app.session_interface = self
        app.extensions[EXTENSION] = self
        app.teardown_request(_leave)

    @property
    def devices(self) -> Devices:
        """All users' sessions, for administrators: list them, end them."""
        return Devices(self.admissions)

    def close(self) -> None:
        """Close the store, if it was opened here. Twice is fine."""
        self.admissions.close()

    def transport(self, app: flask.Flask) -> Transport:
        """Return how tokens travel. Raises `InvalidSetting`."""
        if self._header is not None:
            return self._header
        return CookieTransport(self._cookie or self._configured_cookie(app))

    def _configured_cookie(self, app: flask.Flask) -> Cookie:
        config = app.config
        domain, path = self.get_cookie_domain(app), self.get_cookie_path(app)
        name: str = config["SESSION_COOKIE_NAME"]
        if name == flask.Flask.default_config["SESSION_COOKIE_NAME"]:
            name = "sid"
        if not name.startswith("__"):
            name = f"{'__Secure-' if domain or path != '/' else '__Host-'}{name}"
        same_site: str = config["SESSION_COOKIE_SAMESITE"] or SAME_SITE["lax"]
        http_only, partitioned = self.get_cookie_httponly(app), self.get_cookie_partitioned(app)
        return _cookie(name, domain, path, same_site.lower(), http_only, partitioned)

    def open_session(self, app: flask.Flask, request: flask.Request) -> Session | None:
        """Return the session of a request; it is read from the store when it is first used."""
        policy = self._policies.of(request.path)
        if policy == "skip":
            return None
        if self._plain.due:
            self._plain.look(request.host)
        transport = self.transport(app)
        name = transport.vary.decode().lower()
        line = request.headers.get(name)
        headers = [] if line is None else [(name.encode(), line.encode("latin-1", "replace"))]
        source = Source(request.remote_addr or "", request.headers.get("User-Agent", ""))
        session = Session(self, app, transport.presented(headers), source, policy)
        if app.extensions.get(EXTENSION) is self:
            flask.g.setdefault(EXTENSION, lend(cast("Lender", session)))
        return session

    def make_null_session(self, app: flask.Flask) -> NullSession:  # noqa: ARG002 - the shape is Flask's
        """Return what a request has whose policy is to have none: empty, and not to be written."""
        return NoSession()

    def save_session(
        self,
        app: flask.Flask,  # noqa: ARG002 - the shape is Flask's
        session: SessionMixin | None,
        response: flask.Response,
    ) -> None:
        """Store what changed, and tell the browser."""
        if isinstance(session, Session):
            session.settle(response)


@lru_cache
def _cookie(  # noqa: PLR0917 - made for the cache, which takes them as they stand
    name: str,
    domain: str | None,
    path: str,
    same_site: str,
    http_only: bool,  # noqa: FBT001 - made for the cache, as above
    partitioned: bool,  # noqa: FBT001 - made for the cache, as above
) -> Cookie:
    """Return a cookie, checked; the same one for the same configuration."""
    return Cookie(
        name=name,
        domain=domain,
        path=path,
        http_only=http_only,
        same_site=cast("Literal['lax', 'strict', 'none']", same_site),
        partitioned=partitioned,
    )


class NoSession(NullSession):
    """What stands in for a session where the policy of a path is `skip`."""

    def _refuse(self, *_arguments: object, **_options: object) -> Any:
        raise RuntimeError("this path has no session: its policy is 'skip'")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = update = setdefault = _refuse


class _Tagged:
    """Values as Flask's own sessions keep them: JSON, with tags for what that has no word for."""

    def packed(self, value: Any) -> Any:
        """Return a JSON value for a value. Raises `TypeError` for what Flask can not keep."""
        if codec.is_scalar(value):
            return value
        return json.loads(session_json_serializer.dumps(value))

    def unpacked(self, value: Any) -> Any:
        """Return the value that was packed."""
        return session_json_serializer.loads(json.dumps(value))


_TAGGED = _Tagged()


class Session(Face, Merging, SessionMixin):
    """What `flask.session` is: a mapping with the verbs of a login."""

    def __init__(
        self,
        interface: SojournSessions,
        app: flask.Flask,
        presented: list[str],
        source: Source,
        policy: Policy,
    ) -> None:
        """Made by `SojournSessions.open_session`."""
        self.accessed = False
        self._interface = interface
        self._admissions = interface.admissions
        self._app = app
        self._presented = presented
        self._source = source
        self._policy = policy
        self._kept: Values | None = None
        self._sealed = False
        """Whether the response has begun."""
        self._wish: bool | None = None
        """Whether it is to be remembered, where the application has said so."""

    def _held_values(self) -> Values:
        self.accessed = True
        if self._kept is None:
            self._kept = Values(self._admitted(), _TAGGED)
            if self._sealed:  # by a stream
                self._kept.web.seal()
        return self._kept

    def _admitted(self) -> WebSession:
        if not self._presented:
            return WebSession(self._admissions.here, self._source)
        try:
            return self._wait(lambda admission: admission.admit(self._presented, self._source))
        except SojournError as error:
            self._admissions.note_trouble(error, self._source)
            web = self._admissions.here.unavailable(self._source)
            self._kept = Values(web, _TAGGED)  # whoever shows the error page looks again
            if self._policy == "required":
                raise _refused() from error
            return web

    def _wait(self, work: Callable[[Admission], Awaitable[T]]) -> T:
        """Await `work(admission)`, in an async view too: its loop is there for it alone."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._admissions.run(work)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(copy_context().run, self._admissions.run, work).result()

    def _run(self, work: Callable[[Admission], Awaitable[T]]) -> T:
        try:
            return self._wait(work)
        except Unavailable as error:
            self._admissions.note_trouble(error, self._source)
            raise _refused() from error

    # --- the mapping ---------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`; `KeyError` when it is not there."""
        if key != FLASHES:
            return self._held_values()[key]
        waiting = self._held_values().web.flashes(keep=True)
        if not waiting:
            raise KeyError(key)
        return [(flash.category, _message(flash.text)) for flash in waiting]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a key; 503 without a store. The value is checked when it is saved."""
        values = self._held_values()
        if not values.web.available:
            raise _refused()
        if key == FLASHES:
            self._set_flashes(values.web, value)
        else:
            values[key] = value

    def __delitem__(self, key: str) -> None:
        """Remove a key; `KeyError` when it is not there."""
        values = self._held_values()
        if key != FLASHES:
            del values[key]
        elif not values.web.flashes():
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        """Return whether a key is there."""
        values = self._held_values()
        return bool(values.web.flashes(keep=True)) if key == FLASHES else key in values

    def __iter__(self) -> Iterator[str]:
        """Yield the keys."""
        values = self._held_values()
        yield from values
        if values.web.flashes(keep=True):
            yield FLASHES

    def __len__(self) -> int:
        """Return how many keys there are."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Show what it is, and nothing that is in it."""
        return "<Session>" if self._kept is None else repr(self._kept.web).replace("Web", "")

    def clear(self) -> None:
        """Drop everything, a login too: the session is ended with the response."""
        values = self._held_values()
        values.forget()
        values.web.clear()

    @staticmethod
    def _set_flashes(web: WebSession, messages: Sequence[tuple[str, str]]) -> None:
        """Keep messages: what is there and was handed out again stays as it is."""
        waiting = web.flashes(keep=True)
        given = [(category, _text(message)) for category, message in messages]
        if given[: len(waiting)] == [(flash.category, flash.text) for flash in waiting]:
            given = given[len(waiting) :]
        else:
            web.flashes()
        for category, text in given:
            try:
                web.flash(text, category)
            except TooLarge:  # nobody shows them: the oldest one goes, not the request
                for flash in web.flashes()[1 - MAX_FLASHES :]:
                    web.flash(flash.text, flash.category)
                web.flash(text, category)

    # --- what Flask asks of it -----------------------------------------------------------------

    @property
    def new(self) -> bool:  # type: ignore[override]  # Flask's own is a constant
        """Whether it is not stored yet."""
        return self._held_values().web.new

    @property
    def modified(self) -> bool:
        """Whether a save would write. Changes inside a value count, so nobody needs to set it."""
        return self._kept is not None and (self._kept.modified or self._kept.web.modified)

    @modified.setter
    def modified(self, _value: bool) -> None:
        pass

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser, and the session lasts as long as it."""
        if self._wish is not None:
            return self._wish
        web = self._held_values().web
        if web.plan is not None and web.plan.remember is not None:
            return web.plan.remember
        return _is_remembered(web)

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self._wish = bool(value)

    # --- logging in and out --------------------------------------------------------------------

    def login(
        self,
        user: str,
        *,
        auth: str | Sequence[str] = (),
        level: int = 0,
        remember: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Make it `user`'s: it gets a new token, and its deadlines begin anew.

        `auth` says how they logged in, `level` how strong that was; `remember` makes it
        `permanent`; `labels` find it again. The rest is explained at `WebSession.login`.
        """
        self._verb(
            lambda web: web.login(user, auth=auth, level=level, remember=remember, labels=labels)
        )

    def logout(self, *, reason: str = "logout") -> None:
        """End the session now, for every request: its token is refused from here on."""
        self._verb(lambda web: web.logout(reason=reason))

    # --- storing -------------------------------------------------------------------------------

    def save(self) -> None:
        """Store what changed now, rather than with the response.

        Raises `Ended` when the session was ended meanwhile (a logout in another tab): nothing was
        written.
        """
        web = self._fitted()
        self._run(lambda admission: admission.save(web))

    def settle(self, response: flask.Response) -> None:
        """Store what changed, and tell the browser: Flask does this with each response."""
        try:
            reply = self._settled(response)
        except Unavailable as error:
            self._admissions.note_trouble(error, self._source)
            _refuse(response)
            kept = self._kept
            reply = NOTHING if kept is None else self._admissions.here.reply(kept.web)
        told = self._interface.transport(self._app).told(reply)
        for name, value in told:
            response.headers.add(name.decode().title(), value.decode())
        if told:
            response.headers["Cache-Control"] = "no-store"
            if reply.erase and self._interface.clear_site_data:
                response.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'
        if told or self.accessed:
            response.vary.add(self._interface.transport(self._app).vary.decode().title())
        self._sealed = True
        if self._kept is not None:
            self._kept.web.seal()
        if response.is_streamed and response.status_code < FAILURE:
            response.call_on_close(self._settle_late)

    def _settled(self, response: flask.Response) -> Reply:
        if self._kept is None and not self._is_wished():
            return NOTHING
        web = self._held_values().web
        if response.status_code >= FAILURE:
            return self._admissions.here.reply(web)
        self._fitted()
        if not (web.modified or web.erase or web.issued):
            return NOTHING
        return self._wait(lambda admission: admission.settle(web))

    def _is_wished(self) -> bool:
        """Return whether a session that nobody looked at has to be opened all the same.

        Many applications say `permanent` in each request: that must not break a page.
        """
        if self._wish is None or not self._presented:
            return False
        try:
            self._held_values()
        except ServiceUnavailable:
            return False
        return True

    def _settle_late(self) -> None:
        """Store what a stream changed. Nobody is there to be told of an error."""
        if not self.modified:
            return
        try:
            web = self._fitted()
            self._wait(lambda admission: admission.settle(web))
        except SojournError as error:
            self._admissions.note_trouble(error, self._source)

    def _fitted(self) -> WebSession:
        """Return the session with all that was set, and with the lifetime that it is to have."""
        web = self._opened()
        if web.held is None:
            return web
        before, plan = _is_remembered(web), web.plan
        remember = before
        if self._wish is not None:
            remember = self._wish
        elif plan is not None and plan.remember is not None:
            remember = plan.remember
        if remember != before or (plan is not None and plan.remember is not None):
            plan = plan or Plan(firm=False, grace=GRACE_SECONDS)
            web.plan = plan = plan._replace(remember=remember)
        logs_in = plan is not None and plan.user is not None
        if web.issued is not None or remember != before or logs_in:  # it begins, or has just begun
            lifetime = self._app.permanent_session_lifetime.total_seconds()
            web.expiry = Expiry(absolute=lifetime) if remember else self._interface.expiry
        return web


session: Session = cast("Session", flask.session)
"""`flask.session` itself, with the type of what `SojournSessions` keeps there."""


def _is_remembered(web: WebSession) -> bool:
    kept = None if web.held is None else facts.read(web.held.state, facts.TOKEN, TokenFacts)
    return kept is not None and kept.remember


def _text(message: Any) -> str:
    """Return a message as it is kept: `Markup` and the like as JSON."""
    if type(message) is str and not message.startswith(ENCODED):
        return message
    return ENCODED + session_json_serializer.dumps(message)


def _message(text: str) -> Any:
    """Return the message that was kept."""
    if not text.startswith(ENCODED):
        return text
    return session_json_serializer.loads(text.removeprefix(ENCODED))


def _leave(_error: BaseException | None) -> None:
    """Make ambient again what was so before the request."""
    ambient: Token[Lender | None] | None = flask.g.pop(EXTENSION, None)
    if ambient is not None:
        unlend(ambient)


def _refused() -> ServiceUnavailable:
    """Return what answers a request that needs its session while the store is down."""
    response = flask.Response()
    _refuse(response)
    return ServiceUnavailable(response=response)


def _refuse(response: flask.Response) -> None:
    """Make a response the one that says that sessions are unavailable."""
    response.headers.clear()
    response.status_code = UNAVAILABLE
    response.set_data(REFUSAL)
    response.headers["Content-Type"] = "text/plain; charset=utf-8"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Retry-After"] = RETRY_AFTER.decode()

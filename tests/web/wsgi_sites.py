"""The same site in Flask and in Django, and visitors with a browser's cookies."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from tests.web.wsgi_pages import PAGES, SECONDS, Meeting
from werkzeug.test import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from werkzeug.test import TestResponse

    from sojourn.web import Notice
    from sojourn.web.blocking import Devices

COOKIE = "__Host-sid"


class Answer(NamedTuple):
    """What a visitor was answered."""

    status: int
    text: str
    headers: list[tuple[str, str]]

    @property
    def json(self) -> Any:
        """The text as a value."""
        return json.loads(self.text)

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value.strip() for key, value in self.headers if key.lower() == name.lower()]


class Visitor:
    """Somebody with a browser, as far as cookies go."""

    def __init__(self, app: Any, cookies: dict[str, str] | None = None) -> None:
        self._app = app
        self.cookies = dict(cookies or {})

    def copy(self) -> Visitor:
        """Return another tab, with the cookies as they are now."""
        return Visitor(self._app, self.cookies)

    @property
    def token(self) -> str | None:
        """The token that is held."""
        return self.cookies.get(COOKIE)

    def get(self, path: str, /, *, agent: str = "tests", **query: object) -> Answer:
        """Ask for a page."""
        headers = {"User-Agent": agent}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        client = Client(self._app, use_cookies=False)
        where = f"{path}?{urlencode(query)}" if query else path
        response = client.get(where, base_url="https://shop.test/", headers=headers)
        answer = Answer(response.status_code, _whole(response), list(response.headers))
        for line in answer.all("Set-Cookie"):
            self._keep(line)
        return answer

    def _keep(self, line: str) -> None:
        for name, morsel in SimpleCookie(line).items():
            if morsel["max-age"] == "0":
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = morsel.value


def _whole(response: TestResponse) -> str:
    text = response.text
    response.close()
    return text


class Site(NamedTuple):
    """A site that is open."""

    kind: str
    app: Any
    meeting: Meeting
    notices: list[Notice]
    devices: Devices

    def visitor(self, token: str | None = None) -> Visitor:
        """Return somebody who has not been here, or who brings a token."""
        return Visitor(self.app, {} if token is None else {COOKIE: token})

    def kinds(self) -> list[str]:
        """Return what befell sessions so far."""
        return [notice.kind for notice in self.notices]

    def beside(
        self, visitor: Visitor, slow: str, work: Callable[[], object]
    ) -> tuple[Answer, Visitor]:
        """Do something while a slow page waits in the middle; return its answer, and who asked."""
        self.meeting.begin()
        late = visitor.copy()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(late.get, slow, n=1)
            assert self.meeting.here.wait(SECONDS)
            try:
                work()
            finally:
                self.meeting.go.set()
            return answer.result(SECONDS), late


@contextmanager
def flask_site(sessions: Any, **options: Any) -> Iterator[Site]:
    """Open the site in Flask, on the URL of a store or a blocking manager."""
    import flask

    from sojourn.web.flask import SojournSessions

    app = flask.Flask("shop")
    notices: list[Notice] = []
    meeting = Meeting()
    keeper = SojournSessions(sessions, on_notice=[notices.append], **options)
    keeper.init_app(app)

    @app.get("/login")
    def login() -> tuple[str, int]:
        session: Any = flask.session
        session.login(flask.request.args.get("user", "1"), auth="pwd")
        return "{}", int(flask.request.args.get("status", "200"))

    @app.get("/logout")
    def logout() -> str:
        session: Any = flask.session
        session.logout()
        return "{}"

    @app.get("/ambient")
    def ambient() -> str:
        from sojourn import current_session

        found = current_session()
        return json.dumps(None if found is None else found.id)

    @app.get("/<name>")
    def page(name: str) -> Any:
        found = PAGES[name](flask.session, flask.request.args, meeting)
        if name.startswith("stream"):
            return flask.Response(flask.stream_with_context(found))
        return json.dumps(found), 500 if name.startswith("fail") else 200

    try:
        yield Site("flask", app, meeting, notices, keeper.devices)
    finally:
        keeper.close()


@contextmanager
def django_site(sessions: Any, **options: Any) -> Iterator[Site]:
    """Open the site in Django, on the URL of a store or a blocking manager."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings
    from tests.web import django_project

    from sojourn.web import django as adapter

    notices: list[Notice] = []
    where = "SOJOURN_URL" if isinstance(sessions, str) else "SOJOURN_SESSIONS"
    chosen = {f"SOJOURN_{name.upper()}": value for name, value in options.items()}
    chosen |= {"SOJOURN_SESSIONS": None, where: sessions, "SOJOURN_ON_NOTICE": [notices.append]}
    with override_settings(**chosen):
        yield Site("django", WSGIHandler(), django_project.meeting, notices, adapter.devices())


SITES = {"flask": flask_site, "django": django_site}

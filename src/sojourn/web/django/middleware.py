"""The middleware: in the place of Django's own, with what that leaves undone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.http import http_date

from sojourn.errors import InvalidSetting, SojournError
from sojourn.scopes import lend, unlend
from sojourn.web.cookies import Cookie, PlainWarning, presented
from sojourn.web.django.configuration import opened, setting
from sojourn.web.django.engine import SessionStore
from sojourn.web.notices import Source
from sojourn.web.policies import FAILURE, REFUSAL, RETRY_AFTER, UNAVAILABLE, Policies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from sojourn.scopes import Lender


class SojournMiddleware(SessionMiddleware):
    """Takes the place of Django's `SessionMiddleware`; it is configured by the same settings."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Raises `ImproperlyConfigured` for a cookie that browsers would refuse."""
        super().__init__(get_response)
        cookie = _checked_cookie()
        self._plain = PlainWarning(cookie)
        try:
            self._policies = Policies(setting("POLICY", "required"))
        except InvalidSetting as error:
            raise ImproperlyConfigured(str(error)) from error

    def __call__(self, request: HttpRequest) -> Any:
        """Serve a request; a coroutine where Django is asynchronous."""
        if self.async_mode:
            return self.__acall__(request)
        self.process_request(request)
        ambient = lend(cast("Lender", request.session))
        try:
            response = cast("HttpResponseBase", self.get_response(request))
            session = _session_of(request)
            kept = self._is_due(session, response) and session.settle()
            return self._told(request, response, kept=kept)
        finally:
            unlend(ambient)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self.process_request(request)
        ambient = lend(cast("Lender", request.session))
        try:
            response = await cast("Awaitable[HttpResponseBase]", self.get_response(request))
            session = _session_of(request)
            kept = self._is_due(session, response) and await session.asettle()
            return self._told(request, response, kept=kept)
        finally:
            unlend(ambient)

    def process_request(self, request: HttpRequest) -> None:
        """Give the request its session; it is read from the store when it is first used."""
        if self._plain.due:
            self._plain.look(request.META.get("HTTP_HOST", ""))
        line = request.META.get("HTTP_COOKIE", "")
        tokens = opened.get().here.tokens
        keys = presented(settings.SESSION_COOKIE_NAME, [line])
        keys.sort(key=lambda key: tokens.read(key) is None)  # what Django takes for none comes last
        session = SessionStore(keys[0] if keys else None)
        session.others = tuple(keys[1:])
        agent = request.META.get("HTTP_USER_AGENT", "")
        session.source = Source(request.META.get("REMOTE_ADDR", ""), agent)
        session.required = self._policies.of(request.path_info) == "required"
        request.session = session

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Answer 503 where a view needed its session while the store was down."""
        failed = _session_of(request).trouble is not None and isinstance(exception, SojournError)
        return _refusal() if failed else None

    def _is_due(self, session: SessionStore, response: HttpResponseBase) -> bool:
        """Return whether there is something to save; nothing of a request that failed is."""
        wanted = session.modified or settings.SESSION_SAVE_EVERY_REQUEST
        return response.status_code < FAILURE and wanted and not session.is_empty()

    def _told(
        self, request: HttpRequest, response: HttpResponseBase, *, kept: bool
    ) -> HttpResponseBase:
        """Return the response that tells the browser what became of the session."""
        session = _session_of(request)
        failed = response.status_code >= FAILURE
        if session.unsaved or (failed and session.required and session.trouble is not None):
            response, kept = _refusal(), False
        elif settings.SESSION_COOKIE_NAME in request.COOKIES and session.is_empty():
            _erase_cookie(response)
        key = session.session_key if kept else session.issued
        if key is not None:
            _set_cookie(session, key, response)
        elif session.accessed:
            patch_vary_headers(response, ("Cookie",))
        session.seal()
        if response.streaming and not failed:
            _settle_when_closed(session, response)
        return response


def _session_of(request: HttpRequest) -> SessionStore:
    return cast("SessionStore", request.session)


def _set_cookie(session: SessionStore, key: str, response: HttpResponseBase) -> None:
    age = None if session.get_expire_at_browser_close() else session.get_expiry_age()
    response.set_cookie(
        settings.SESSION_COOKIE_NAME,
        key,
        max_age=age,
        expires=None if age is None else http_date(time.time() + age),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=settings.SESSION_COOKIE_HTTPONLY,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    _keep_out_of_caches(response)


def _erase_cookie(response: HttpResponseBase) -> None:
    response.delete_cookie(
        settings.SESSION_COOKIE_NAME,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    if setting("CLEAR_SITE_DATA", default=False):
        response["Clear-Site-Data"] = '"cache", "cookies", "storage"'
    _keep_out_of_caches(response)


def _keep_out_of_caches(response: HttpResponseBase) -> None:
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ("Cookie",))


def _settle_when_closed(session: SessionStore, response: HttpResponseBase) -> None:
    """Store what a stream changes; its cookie is on its way by then."""
    close = response.close

    def closed() -> None:
        close()
        if session.modified and not session.is_empty():
            session.settle()

    response.close = closed  # type: ignore[method-assign]  # what a server calls at the end


def _refusal() -> HttpResponse:
    """Return the response that says that sessions are unavailable."""
    headers = {"Cache-Control": "no-store", "Retry-After": RETRY_AFTER.decode()}
    kind = "text/plain; charset=utf-8"
    return HttpResponse(REFUSAL, status=UNAVAILABLE, content_type=kind, headers=headers)


def _checked_cookie() -> Cookie | None:
    """Return the cookie of the settings as ours, `None` for one without a prefix, and `Secure`.

    Raises `ImproperlyConfigured` for what browsers refuse without a word.
    """
    name, secure = settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE
    if secure and not name.startswith("__"):
        return None  # fine for browsers; the documentation says what is better
    try:
        return Cookie(
            name=name,
            domain=settings.SESSION_COOKIE_DOMAIN,
            path=settings.SESSION_COOKIE_PATH,
            secure=secure,
            http_only=settings.SESSION_COOKIE_HTTPONLY,
            same_site=cast("Any", str(settings.SESSION_COOKIE_SAMESITE or "lax").lower()),
        )
    except InvalidSetting as error:
        raise ImproperlyConfigured(f"SESSION_COOKIE_…: {error}") from error

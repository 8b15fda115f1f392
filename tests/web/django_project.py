"""A Django project for tests, configured once; `override_settings` does the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

if not settings.configured:
    settings.configure(
        SECRET_KEY="for tests only, and of some length",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES={},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",  # for `clearsessions`
        ],
        MIDDLEWARE=[
            "sojourn.web.django.SojournMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        AUTHENTICATION_BACKENDS=[f"{__name__}.Anybody"],
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        SESSION_ENGINE="sojourn.web.django",
        SESSION_COOKIE_NAME="__Host-sid",
        SESSION_COOKIE_SECURE=True,
        SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
        SOJOURN_URL="memory://",
        USE_TZ=True,
    )
    django.setup()

from django.contrib import auth
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User, update_last_login
from django.contrib.auth.signals import user_logged_in
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from tests.web.wsgi_pages import PAGES, Meeting

user_logged_in.disconnect(update_last_login, dispatch_uid="update_last_login")

meeting = Meeting()
"""Where slow pages wait."""


class Anybody(BaseBackend):
    """Whoever asks to be a user is that user: there is no table of them."""

    def get_user(self, user_id: int) -> User:
        """Return that user."""
        return user(user_id)


def user(number: int) -> User:
    """Return the user of a number."""
    return User(pk=number, username=f"user {number}", password="unchanged")


def _json(value: object, status: int = 200) -> HttpResponse:
    return HttpResponse(json.dumps(value), status=status, content_type="application/json")


def page(request: HttpRequest, name: str) -> HttpResponseBase:
    """Serve one of the pages that both frameworks have."""
    found: Any = PAGES[name](request.session, request.GET, meeting)
    if name.startswith("stream"):
        return StreamingHttpResponse(iter(found))
    status = 500 if name.startswith("fail") else 200
    return _json(found, status)


async def apage(request: HttpRequest, name: str) -> HttpResponseBase:
    """Serve a page that awaits its session."""
    session: Any = request.session
    if name == "set":
        await session.aupdate(request.GET.dict())
    elif name == "incr":
        return _json(await session.aincr("n"))
    elif name == "login":
        await auth.alogin(request, user(int(request.GET["user"])), f"{__name__}.Anybody")
    elif name == "logout":
        await auth.alogout(request)
    elif name == "devices":
        return _json(len(await session.adevices()))
    return _json(dict(await session.aitems()))


def login(request: HttpRequest) -> HttpResponse:
    """Log somebody in as Django does it."""
    auth.login(request, user(int(request.GET.get("user", 1))), f"{__name__}.Anybody")
    return _json({}, int(request.GET.get("status", 200)))


def logout(request: HttpRequest) -> HttpResponse:
    """Log out as Django does it."""
    auth.logout(request)
    return _json({})


def whoami(request: HttpRequest) -> HttpResponse:
    """Say who Django thinks it is."""
    return _json(request.user.pk)


def ambient(request: HttpRequest) -> HttpResponse:
    """Say which session is ambient."""
    from sojourn import current_session

    found = current_session()
    return _json(None if found is None else found.id)


urlpatterns = [
    path("login", login),
    path("logout", logout),
    path("whoami", whoami),
    path("ambient", ambient),
    path("async/<name>", apage),
    path("<name>", page),
]

"""The example shop with Django: `python -m examples.django`."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, cast

from django.conf import settings
from django.contrib import auth, messages
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import path
from django.views.decorators.http import require_POST

from examples import bank, pages, place, shop
from sojourn import NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpRequest

    from sojourn.web.django import SessionStore

FORTNIGHT = 14 * 86_400


def configure(store: str, folder: Path) -> None:
    """Set Django up: sessions in the store with that URL, users in Django's own database."""
    settings.configure(
        SECRET_KEY=kept_secret(folder / "secret"),
        ALLOWED_HOSTS=["localhost", "127.0.0.1"],
        ROOT_URLCONF=__name__,
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "users.db"}
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        MIDDLEWARE=[
            "sojourn.web.django.SojournMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        SESSION_ENGINE="sojourn.web.django",
        SOJOURN_URL=store,
        SOJOURN_ABSOLUTE_AGE=FORTNIGHT,
        SOJOURN_SESSIONS_PER_USER=10,
        SESSION_COOKIE_NAME="__Host-sid",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_AGE=1_800,
        SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
        CSRF_USE_SESSIONS=True,
        CSRF_FAILURE_VIEW=f"{__name__}.refused",
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.ScryptPasswordHasher"],
        LOGIN_URL="/login",
        USE_TZ=True,
    )


# --- the shop -------------------------------------------------------------------------------------


def front(request: HttpRequest) -> HttpResponse:
    """Show goods and cart."""
    session = session_of(request)
    page = pages.shop(visitor(request), shop.cart(session), session.get("note", ""))
    return HttpResponse(page)


@require_POST
def add(request: HttpRequest) -> HttpResponse:
    """Put one more into the cart: in the store, so that of two clicks at once both count."""
    good = request.POST.get("good", "")
    if good in shop.GOODS:
        session_of(request).incr(shop.key(good))
        messages.info(request, f"{shop.GOODS[good].name} is in the cart.")
    return see_other("/")


@require_POST
def note(request: HttpRequest) -> HttpResponse:
    """Keep a note. Only this key is saved, whatever other tabs change meanwhile."""
    session_of(request)["note"] = request.POST.get("note", "")[: shop.MAX_NOTE]
    messages.info(request, "Noted.")
    return see_other("/")


@require_POST
def pay(request: HttpRequest) -> HttpResponse:
    """Pay what is in the cart now; the bank takes its time."""
    session = session_of(request)
    if session.user is None:
        return see_other("/login")
    bought = shop.cart(session)
    bank.charge(shop.total(bought))
    try:
        for good, count in bought.items():  # what was added meanwhile stays in the cart
            session.incr(shop.key(good), -count)
        session["paid"] = shop.total(bought)
        session.save()  # the middleware would do it, and drop it after a logout
    except (NotFound, UpdateError):
        return HttpResponse(pages.trouble(pages.LOGGED_OUT_MEANWHILE), status=409)
    messages.info(request, f"Paid {shop.price(shop.total(bought))}.")
    return see_other("/")


# --- logging in and out ---------------------------------------------------------------------------


def login(request: HttpRequest) -> HttpResponse:
    """Ask who it is, and log in: the cart stays, the cookie gets a new value."""
    if request.method != "POST":
        return HttpResponse(pages.login(visitor(request)))
    name = request.POST.get("name", "")
    user = auth.authenticate(request, username=name, password=request.POST.get("password"))
    if user is None:
        messages.error(request, "That is not the password.")
        return see_other("/login")
    auth.login(request, user)
    if "remember" in request.POST:
        request.session.set_expiry(FORTNIGHT)
    messages.info(request, f"Welcome, {name}.")
    return see_other("/")


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    """Log out, in all tabs of this browser."""
    auth.logout(request)
    return see_other("/")


# --- devices --------------------------------------------------------------------------------------


def devices(request: HttpRequest) -> HttpResponse:
    """Show where the user is logged in."""
    session = session_of(request)
    if session.user is None:
        return see_other("/login")
    return HttpResponse(pages.devices(visitor(request), session.devices()))


@require_POST
def revoke(request: HttpRequest) -> HttpResponse:
    """Log out one device. The id is no secret, and only one's own are ended."""
    found = session_of(request).revoke(request.POST.get("id", ""))
    text = "That device is logged out." if found else "That device is not logged in."
    messages.info(request, text)
    return see_other("/devices")


@require_POST
def revoke_others(request: HttpRequest) -> HttpResponse:
    """Log out all devices but this one."""
    messages.info(request, f"Logged out elsewhere: {session_of(request).revoke_others()}.")
    return see_other("/devices")


# --- what all pages need --------------------------------------------------------------------------


urlpatterns = [
    path("", front),
    path("add", add),
    path("note", note),
    path("pay", pay),
    path("login", login),
    path("logout", logout),
    path("devices", devices),
    path("devices/revoke", revoke),
    path("devices/revoke-others", revoke_others),
]


def session_of(request: HttpRequest) -> SessionStore:
    """Return the session of a request, with its verbs."""
    return cast("SessionStore", request.session)


def visitor(request: HttpRequest) -> pages.Visitor:
    """Return what every page shows of a session."""
    user = request.user.get_username() or None
    waiting = [(each.message, each.level_tag) for each in messages.get_messages(request)]
    return pages.Visitor(user, get_token(request), waiting, field="csrfmiddlewaretoken")


def see_other(page: str) -> HttpResponse:
    """Return a redirect to a page that is to be got."""
    return HttpResponseRedirect(page, status=303)


def refused(_: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001 - Django's own shape
    """Show why a form was refused."""
    return HttpResponse(pages.trouble(pages.STALE), status=403)


def kept_secret(file: Path) -> str:
    """Return the same secret in each run: with another one, Django logs everybody out."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(48))
    return file.read_text()


def application() -> ASGIHandler:
    """Return the shop, with its users in the database."""
    from django.core.asgi import get_asgi_application
    from django.core.management import call_command

    handler = get_asgi_application()
    from django.contrib.auth.models import User

    call_command("migrate", verbosity=0)
    for name, password in shop.PASSWORDS.items():
        if not User.objects.filter(username=name).exists():
            User.objects.create_user(name, password=password)
    return handler


if __name__ == "__main__":
    here = place.prepare("django")
    configure(here.store, here.folder)
    place.serve_asgi(application(), here)

"""The example shop with Flask: `python -m examples.flask`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

import flask
from flask import abort, flash, get_flashed_messages, redirect, request

from examples import bank, pages, place, shop
from sojourn import Expiry, NotFound
from sojourn.web import Cap
from sojourn.web.flask import SojournSessions, session

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException
    from werkzeug.wrappers import Response

pages_of_shop = flask.Blueprint("shop", __name__)


def application(sessions: SojournSessions) -> flask.Flask:
    """Return the shop, with sessions that somebody closes."""
    app = flask.Flask(__name__)
    sessions.init_app(app)
    app.register_blueprint(pages_of_shop)
    app.register_error_handler(403, refused)
    return app


# --- the shop -------------------------------------------------------------------------------------


@pages_of_shop.get("/")
def front() -> str:
    """Show goods and cart."""
    return pages.shop(visitor(), shop.cart(session), session.get("note", ""))


@pages_of_shop.post("/add")
def add() -> Response:
    """Put one more into the cart: in the store, so that of two clicks at once both count."""
    good = request.form.get("good", "")
    if good in shop.GOODS:
        session.incr(shop.key(good))
        flash(f"{shop.GOODS[good].name} is in the cart.", "info")
    return redirect("/", 303)


@pages_of_shop.post("/note")
def note() -> Response:
    """Keep a note. Only this key is saved, whatever other tabs change meanwhile."""
    session["note"] = request.form.get("note", "")[: shop.MAX_NOTE]
    flash("Noted.", "info")
    return redirect("/", 303)


@pages_of_shop.post("/pay")
def pay() -> Response | tuple[str, int]:
    """Pay what is in the cart now; the bank takes its time."""
    if session.user is None:
        return redirect("/login", 303)
    bought = shop.cart(session)
    bank.charge(shop.total(bought))
    try:
        for good, count in bought.items():  # what was added meanwhile stays in the cart
            session.incr(shop.key(good), -count)
        flash(f"Paid {shop.price(shop.total(bought))}.", "info")
        session.save()  # the response would do it, and drop it after a logout
    except NotFound:
        return pages.trouble(pages.LOGGED_OUT_MEANWHILE), 409
    return redirect("/", 303)


# --- logging in and out ---------------------------------------------------------------------------


@pages_of_shop.get("/login")
def login_page() -> str:
    """Ask who it is."""
    return pages.login(visitor())


@pages_of_shop.post("/login")
def login() -> Response:
    """Log in: the cart stays, the cookie gets a new value."""
    name = request.form.get("name", "")
    if not shop.may_log_in(name, request.form.get("password", "")):
        flash("That is not the password.", "error")
        return redirect("/login", 303)
    session.login(name, auth="pwd", remember="remember" in request.form)
    flash(f"Welcome, {name}.", "info")
    return redirect("/", 303)


@pages_of_shop.post("/logout")
def logout() -> Response:
    """Log out, in all tabs of this browser."""
    session.logout()
    return redirect("/", 303)


# --- devices --------------------------------------------------------------------------------------


@pages_of_shop.get("/devices")
def devices() -> Response | str:
    """Show where the user is logged in."""
    if session.user is None:
        return redirect("/login", 303)
    return pages.devices(visitor(), session.devices())


@pages_of_shop.post("/devices/revoke")
def revoke() -> Response:
    """Log out one device. The id is no secret, and only one's own are ended."""
    found = session.revoke(request.form.get("id", ""))
    flash("That device is logged out." if found else "That device is not logged in.", "info")
    return redirect("/devices", 303)


@pages_of_shop.post("/devices/revoke-others")
def revoke_others() -> Response:
    """Log out all devices but this one."""
    flash(f"Logged out elsewhere: {session.revoke_others()}.", "info")
    return redirect("/devices", 303)


# --- what all pages need --------------------------------------------------------------------------


def visitor() -> pages.Visitor:
    """Return what every page shows of a session."""
    waiting = cast("list[tuple[str, str]]", get_flashed_messages(with_categories=True))
    messages = [(text, category) for category, text in waiting]
    return pages.Visitor(session.user, session.csrf_token, messages)


@pages_of_shop.before_request
def check_form() -> None:
    """Refuse a form that none of our pages made."""
    if request.method == "POST" and not session.check_csrf(request.form.get("csrf_token")):
        abort(403, pages.STALE)


def refused(error: HTTPException) -> tuple[str, int]:
    """Show why a form was refused."""
    return pages.trouble(error.description or pages.STALE), 403


def main() -> None:
    """Run it until it is told to stop."""
    here = place.prepare("flask")
    expiry = Expiry(idle=1_800, absolute=43_200)
    with closing(SojournSessions(here.store, expiry=expiry, cap=Cap(10))) as sessions:
        place.serve_wsgi(application(sessions), here)


if __name__ == "__main__":
    main()

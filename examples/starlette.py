"""The example shop with Starlette: `python -m examples.starlette`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route

from examples import bank, pages, place, shop
from sojourn import Expiry, NotFound
from sojourn.web import Cap, SessionMiddleware

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from sojourn.web import WebSession


def application(store: str) -> Starlette:
    """Return the shop; its sessions are in the store with that URL."""
    sessions = Middleware(
        SessionMiddleware,
        sessions=store,
        expiry=Expiry(idle=1_800, absolute=43_200),
        cap=Cap(10),
    )
    routes = [
        Route("/", front),
        Route("/add", add, methods=["POST"]),
        Route("/note", note, methods=["POST"]),
        Route("/pay", pay, methods=["POST"]),
        Route("/login", login_page),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/devices", devices),
        Route("/devices/revoke", revoke, methods=["POST"]),
        Route("/devices/revoke-others", revoke_others, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[sessions], exception_handlers={403: refused})


# --- the shop -------------------------------------------------------------------------------------


async def front(request: Request) -> Response:
    """Show goods and cart."""
    session = session_of(request)
    page = pages.shop(visitor(session), shop.cart(session), session.get("note", ""))
    return HTMLResponse(page)


async def add(request: Request) -> Response:
    """Put one more into the cart: in the store, so that of two clicks at once both count."""
    session, form = session_of(request), await checked_form(request)
    good = str(form.get("good"))
    if good in shop.GOODS:
        await session.incr(shop.key(good))
        session.flash(f"{shop.GOODS[good].name} is in the cart.")
    return RedirectResponse("/", 303)


async def note(request: Request) -> Response:
    """Keep a note. Only this key is saved, whatever other tabs change meanwhile."""
    session, form = session_of(request), await checked_form(request)
    session["note"] = str(form.get("note"))[: shop.MAX_NOTE]
    session.flash("Noted.")
    return RedirectResponse("/", 303)


async def pay(request: Request) -> Response:
    """Pay what is in the cart now; the bank takes its time."""
    session = session_of(request)
    if session.user is None:
        return RedirectResponse("/login", 303)
    await checked_form(request)
    bought = shop.cart(session)
    await asyncio.to_thread(bank.charge, shop.total(bought))
    try:
        for good, count in bought.items():  # what was added meanwhile stays in the cart
            await session.incr(shop.key(good), -count)
        session.flash(f"Paid {shop.price(shop.total(bought))}.")
        await session.save()  # the middleware would do it, and drop it after a logout
    except NotFound:
        return HTMLResponse(pages.trouble(pages.LOGGED_OUT_MEANWHILE), 409)
    return RedirectResponse("/", 303)


# --- logging in and out ---------------------------------------------------------------------------


async def login_page(request: Request) -> Response:
    """Ask who it is."""
    return HTMLResponse(pages.login(visitor(session_of(request))))


async def login(request: Request) -> Response:
    """Log in: the cart stays, the cookie gets a new value."""
    session, form = session_of(request), await checked_form(request)
    name = str(form.get("name"))
    if not shop.may_log_in(name, str(form.get("password"))):
        session.flash("That is not the password.", "error")
        return RedirectResponse("/login", 303)
    await session.login(name, auth="pwd", remember="remember" in form)
    session.flash(f"Welcome, {name}.")
    return RedirectResponse("/", 303)


async def logout(request: Request) -> Response:
    """Log out, in all tabs of this browser."""
    await checked_form(request)
    await session_of(request).logout()
    return RedirectResponse("/", 303)


# --- devices --------------------------------------------------------------------------------------


async def devices(request: Request) -> Response:
    """Show where the user is logged in."""
    session = session_of(request)
    if session.user is None:
        return RedirectResponse("/login", 303)
    return HTMLResponse(pages.devices(visitor(session), await session.devices()))


async def revoke(request: Request) -> Response:
    """Log out one device. The id is no secret, and only one's own are ended."""
    session, form = session_of(request), await checked_form(request)
    found = await session.revoke(str(form.get("id")))
    session.flash("That device is logged out." if found else "That device is not logged in.")
    return RedirectResponse("/devices", 303)


async def revoke_others(request: Request) -> Response:
    """Log out all devices but this one."""
    session, _ = session_of(request), await checked_form(request)
    session.flash(f"Logged out elsewhere: {await session.revoke_others()}.")
    return RedirectResponse("/devices", 303)


# --- what all pages need --------------------------------------------------------------------------


def session_of(request: Request) -> WebSession:
    """Return the session of a request. `request.session` is the same, but typed as a dict."""
    session: WebSession = request.scope["session"]
    return session


def visitor(session: WebSession) -> pages.Visitor:
    """Return what every page shows of a session."""
    messages = [(flash.text, flash.category) for flash in session.flashes()]
    return pages.Visitor(session.user, session.csrf_token, messages)


async def checked_form(request: Request) -> FormData:
    """Return the form of a request if one of our pages made it."""
    form = await request.form()
    if not session_of(request).check_csrf(form.get("csrf_token")):
        raise HTTPException(403, pages.STALE)
    return form


async def refused(_: Request, error: Exception) -> Response:
    """Show why a form was refused."""
    text = error.detail if isinstance(error, HTTPException) else pages.STALE
    return HTMLResponse(pages.trouble(text), 403)


if __name__ == "__main__":
    here = place.prepare("starlette")
    place.serve_asgi(application(here.store), here)

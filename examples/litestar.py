"""The example shop with Litestar: `python -m examples.litestar`."""

import asyncio
from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Redirect

from examples import bank, pages, place, shop
from sojourn import Expiry, NotFound
from sojourn.web import Cap, WebSession
from sojourn.web.litestar import SessionPlugin, requires_csrf, requires_user, session_of

Here = Request[Any, Any, Any]
Fields = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]


def application(store: str) -> Litestar:
    """Return the shop; its sessions are in the store with that URL."""
    sessions = SessionPlugin(store, expiry=Expiry(idle=1_800, absolute=43_200), cap=Cap(10))
    return Litestar(
        [front, add, note, pay, login_page, login, logout, devices, revoke, revoke_others],
        plugins=[sessions],
        guards=[requires_csrf],  # every form of the shop proves that it is ours
        exception_handlers={401: to_login, 403: refused},
        openapi_config=None,
        logging_config=None,
    )


# --- the shop -------------------------------------------------------------------------------------


@get("/", media_type=MediaType.HTML)
async def front(request: Here) -> str:
    """Show goods and cart."""
    session = session_of(request)
    return pages.shop(visitor(session), shop.cart(session), session.get("note", ""))


@post("/add")
async def add(request: Here, data: Fields) -> Redirect:
    """Put one more into the cart: in the store, so that of two clicks at once both count."""
    session, good = session_of(request), data.get("good", "")
    if good in shop.GOODS:
        await session.incr(shop.key(good))
        session.flash(f"{shop.GOODS[good].name} is in the cart.")
    return Redirect("/", status_code=303)


@post("/note")
async def note(request: Here, data: Fields) -> Redirect:
    """Keep a note. Only this key is saved, whatever other tabs change meanwhile."""
    session = session_of(request)
    session["note"] = data.get("note", "")[: shop.MAX_NOTE]
    session.flash("Noted.")
    return Redirect("/", status_code=303)


@post("/pay", guards=[requires_user])
async def pay(request: Here) -> Response[Any]:
    """Pay what is in the cart now; the bank takes its time."""
    session = session_of(request)
    bought = shop.cart(session)
    await asyncio.to_thread(bank.charge, shop.total(bought))
    try:
        for good, count in bought.items():  # what was added meanwhile stays in the cart
            await session.incr(shop.key(good), -count)
        session.flash(f"Paid {shop.price(shop.total(bought))}.")
        await session.save()  # the middleware would do it, and drop it after a logout
    except NotFound:
        return html(pages.trouble(pages.LOGGED_OUT_MEANWHILE), 409)
    return Redirect("/", status_code=303)


# --- logging in and out ---------------------------------------------------------------------------


@get("/login", media_type=MediaType.HTML)
async def login_page(request: Here) -> str:
    """Ask who it is."""
    return pages.login(visitor(session_of(request)))


@post("/login")
async def login(request: Here, data: Fields) -> Redirect:
    """Log in: the cart stays, the cookie gets a new value."""
    session, name = session_of(request), data.get("name", "")
    if not shop.may_log_in(name, data.get("password", "")):
        session.flash("That is not the password.", "error")
        return Redirect("/login", status_code=303)
    await session.login(name, auth="pwd", remember="remember" in data)
    session.flash(f"Welcome, {name}.")
    return Redirect("/", status_code=303)


@post("/logout")
async def logout(request: Here) -> Redirect:
    """Log out, in all tabs of this browser."""
    await session_of(request).logout()
    return Redirect("/", status_code=303)


# --- devices --------------------------------------------------------------------------------------


@get("/devices", guards=[requires_user], media_type=MediaType.HTML)
async def devices(request: Here) -> str:
    """Show where the user is logged in."""
    session = session_of(request)
    return pages.devices(visitor(session), await session.devices())


@post("/devices/revoke")
async def revoke(request: Here, data: Fields) -> Redirect:
    """Log out one device. The id is no secret, and only one's own are ended."""
    session = session_of(request)
    found = await session.revoke(data.get("id", ""))
    session.flash("That device is logged out." if found else "That device is not logged in.")
    return Redirect("/devices", status_code=303)


@post("/devices/revoke-others")
async def revoke_others(request: Here) -> Redirect:
    """Log out all devices but this one."""
    session = session_of(request)
    session.flash(f"Logged out elsewhere: {await session.revoke_others()}.")
    return Redirect("/devices", status_code=303)


# --- what all pages need --------------------------------------------------------------------------


def visitor(session: WebSession) -> pages.Visitor:
    """Return what every page shows of a session."""
    messages = [(flash.text, flash.category) for flash in session.flashes()]
    return pages.Visitor(session.user, session.csrf_token, messages)


def html(page: str, status: int) -> Response[str]:
    """Return a page with a status of its own."""
    return Response(page, status_code=status, media_type=MediaType.HTML)


def to_login(_: Here, __: Exception) -> Redirect:
    """Ask who it is, where a page is only for those who are logged in."""
    return Redirect("/login", status_code=303)


def refused(_: Here, error: Exception) -> Response[str]:
    """Show why a form was refused."""
    return html(pages.trouble(str(getattr(error, "detail", error))), 403)


if __name__ == "__main__":
    here = place.prepare("litestar")
    place.serve_asgi(application(here.store), here)

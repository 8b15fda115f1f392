"""The example shop with FastAPI: `python -m examples.fastapi`."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from examples import bank, pages, place, shop
from sojourn import Expiry, NotFound
from sojourn.web import Cap, SessionMiddleware, WebSession
from sojourn.web.starlette import get_session, require_csrf, require_user

Session = Annotated[WebSession, Depends(get_session)]
User = Annotated[str, Depends(require_user)]
Text = Annotated[str, Form()]

# Every form of the shop proves that it is ours; requests that change nothing need not.
router = APIRouter(default_response_class=HTMLResponse, dependencies=[Depends(require_csrf)])


def application(store: str) -> FastAPI:
    """Return the shop; its sessions are in the store with that URL."""
    app = FastAPI(exception_handlers={401: to_login, 403: refused}, openapi_url=None)
    app.add_middleware(
        SessionMiddleware,
        sessions=store,
        expiry=Expiry(idle=1_800, absolute=43_200),
        cap=Cap(10),
    )
    app.include_router(router)
    return app


# --- the shop -------------------------------------------------------------------------------------


@router.get("/")
async def front(session: Session) -> str:
    """Show goods and cart."""
    return pages.shop(visitor(session), shop.cart(session), session.get("note", ""))


@router.post("/add")
async def add(session: Session, good: Text) -> RedirectResponse:
    """Put one more into the cart: in the store, so that of two clicks at once both count."""
    if good in shop.GOODS:
        await session.incr(shop.key(good))
        session.flash(f"{shop.GOODS[good].name} is in the cart.")
    return RedirectResponse("/", 303)


@router.post("/note")
async def note(session: Session, note: Text = "") -> RedirectResponse:
    """Keep a note. Only this key is saved, whatever other tabs change meanwhile."""
    session["note"] = note[: shop.MAX_NOTE]
    session.flash("Noted.")
    return RedirectResponse("/", 303)


@router.post("/pay", dependencies=[Depends(require_user)])
async def pay(session: Session) -> Response:
    """Pay what is in the cart now; the bank takes its time."""
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


@router.get("/login")
async def login_page(session: Session) -> str:
    """Ask who it is."""
    return pages.login(visitor(session))


@router.post("/login")
async def login(
    session: Session,
    name: Text,
    password: Text,
    remember: Text = "",
) -> RedirectResponse:
    """Log in: the cart stays, the cookie gets a new value."""
    if not shop.may_log_in(name, password):
        session.flash("That is not the password.", "error")
        return RedirectResponse("/login", 303)
    await session.login(name, auth="pwd", remember=bool(remember))
    session.flash(f"Welcome, {name}.")
    return RedirectResponse("/", 303)


@router.post("/logout")
async def logout(session: Session) -> RedirectResponse:
    """Log out, in all tabs of this browser."""
    await session.logout()
    return RedirectResponse("/", 303)


# --- devices --------------------------------------------------------------------------------------


@router.get("/devices", dependencies=[Depends(require_user)])
async def devices(session: Session) -> str:
    """Show where the user is logged in."""
    return pages.devices(visitor(session), await session.devices())


@router.post("/devices/revoke")
async def revoke(session: Session, id: Text) -> RedirectResponse:
    """Log out one device. The id is no secret, and only one's own are ended."""
    found = await session.revoke(id)
    session.flash("That device is logged out." if found else "That device is not logged in.")
    return RedirectResponse("/devices", 303)


@router.post("/devices/revoke-others")
async def revoke_others(session: Session) -> RedirectResponse:
    """Log out all devices but this one."""
    session.flash(f"Logged out elsewhere: {await session.revoke_others()}.")
    return RedirectResponse("/devices", 303)


# --- what all pages need --------------------------------------------------------------------------


def visitor(session: WebSession) -> pages.Visitor:
    """Return what every page shows of a session."""
    messages = [(flash.text, flash.category) for flash in session.flashes()]
    return pages.Visitor(session.user, session.csrf_token, messages)


async def to_login(_: Request, __: Exception) -> Response:
    """Ask who it is, where a page is only for those who are logged in."""
    return RedirectResponse("/login", 303)


async def refused(_: Request, error: Exception) -> Response:
    """Show why a form was refused."""
    text = error.detail if isinstance(error, HTTPException) else str(error)
    return HTMLResponse(pages.trouble(text), 403)


if __name__ == "__main__":
    here = place.prepare("fastapi")
    place.serve_asgi(application(here.store), here)

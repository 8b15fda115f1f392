"""The pages of the example shop: plain HTML, the same for all frameworks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from examples.shop import GOODS, MAX_NOTE, PASSWORDS, price, total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sojourn.web import DeviceSession

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
header { display: flex; gap: 1rem; align-items: baseline; border-bottom: 1px solid #ccc }
header strong { flex: 1 }
form { display: inline }
li { margin: .3rem 0 }
.flash { background: #eef6ee; border-left: .3rem solid #393; padding: .3rem .8rem }
.flash.error { background: #f9eeee; border-color: #a33 }
"""

STALE = "This form is out of date: it was made before a login or logout. Open the page again."

LOGGED_OUT_MEANWHILE = (
    "You logged out while the bank was at work. Nothing of this request was stored: "
    "a logout stays a logout."
)


class Visitor(NamedTuple):
    """What every page shows of a session.

    Who it is, what forms send back to prove that they are ours, messages that wait, with their
    categories, and what the framework calls the field of the proof.
    """

    user: str | None
    csrf: str
    messages: Sequence[tuple[str, str]] = ()
    field: str = "csrf_token"


def shop(visitor: Visitor, cart: Mapping[str, int], note: str) -> str:
    """Return the front page: goods, cart, a note for the parcel."""
    goods = "".join(
        f"<li>{escape(good.name)}, {price(good.price)} "
        f"{_form(visitor, '/add', 'Add', good=key, label=f'Add {good.name}')}</li>"
        for key, good in GOODS.items()
    )
    inside = "".join(
        f'<li data-good="{key}">{count} {escape(GOODS[key].name)}</li>'
        for key, count in cart.items()
    )
    sum_ = f'<p>Together <b id="total">{price(total(cart))}</b> '
    pay = _form(visitor, "/pay", "Pay") if visitor.user else '<a href="/login">Log in to pay</a>'
    body = f"""
<ul>{goods}</ul>
<h2>Cart</h2>
<ul id="cart">{inside or "<li>nothing yet</li>"}</ul>
{sum_ + pay + "</p>" if cart else ""}
<h2>Note for the parcel</h2>
<form method="post" action="/note">{_hidden(visitor)}
<input name="note" aria-label="Note" maxlength="{MAX_NOTE}" value="{escape(note)}">
<button>Keep</button></form>"""
    return _page("Shop", visitor, body)


def login(visitor: Visitor) -> str:
    """Return the page that asks who it is."""
    users = ", ".join(f"{name} / {password}" for name, password in PASSWORDS.items())
    body = f"""
<form method="post" action="/login">{_hidden(visitor)}
<p><label>Name <input name="name" autocomplete="username" required></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password" required>
</label></p>
<p><label><input name="remember" type="checkbox"> Stay logged in</label></p>
<p><button>Log in</button></p></form>
<p><small>Try {escape(users)}.</small></p>"""
    return _page("Log in", visitor, body)


def devices(visitor: Visitor, sessions: Sequence[DeviceSession]) -> str:
    """Return the page that shows where the user is logged in."""
    rows = "".join(_device(visitor, session) for session in sessions)
    body = f"""
<ul id="devices">{rows}</ul>
<p>{_form(visitor, "/devices/revoke-others", "Log out everywhere else")}</p>"""
    return _page("Where you are logged in", visitor, body)


def trouble(text: str) -> str:
    """Return a page that says what went wrong. It asks nothing of the session."""
    link = '<p><a href="/">To the shop</a> or <a href="/login">log in</a>.</p>'
    return _document("Sorry", f'<h1>Sorry</h1><p class="flash error">{escape(text)}</p>{link}')


def _device(visitor: Visitor, session: DeviceSession) -> str:
    where = f"{escape(session.agent or 'something')} at {escape(session.address or 'an address')}"
    since = f"since {session.created_at:%d %B, %H:%M} UTC"
    if session.current:
        return f"<li data-current>{where}, {since}: <b>this browser</b></li>"
    return (
        f"<li>{where}, {since} {_form(visitor, '/devices/revoke', 'Log out', id=session.id)}</li>"
    )


def _form(visitor: Visitor, action: str, button: str, *, label: str = "", **values: str) -> str:
    """Return a form that is only a button."""
    fields = "".join(
        f'<input type="hidden" name="{name}" value="{escape(value)}">'
        for name, value in values.items()
    )
    said = f' aria-label="{escape(label)}"' if label else ""
    return (
        f'<form method="post" action="{action}">{_hidden(visitor)}{fields}'
        f"<button{said}>{button}</button></form>"
    )


def _hidden(visitor: Visitor) -> str:
    """Return the field that proves a form to be ours."""
    return (
        f'<input type="hidden" class="csrf" name="{visitor.field}" value="{escape(visitor.csrf)}">'
    )


def _page(title: str, visitor: Visitor, body: str) -> str:
    if visitor.user is None:
        who = '<a href="/login">Log in</a>'
    else:
        who = (
            f'<span id="user">{escape(visitor.user)}</span> <a href="/devices">Devices</a> '
            + _form(visitor, "/logout", "Log out")
        )
    flashes = "".join(
        f'<p class="flash {escape(category)}" role="status">{escape(text)}</p>'
        for text, category in visitor.messages
    )
    header = f'<header><strong><a href="/">The example shop</a></strong> {who}</header>'
    return _document(title, f"{header}{flashes}<h1>{title}</h1>{body}")


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{body}</html>'
    )

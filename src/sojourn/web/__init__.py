"""Sessions for the web: `SessionMiddleware` for ASGI, and one module for each framework."""

from __future__ import annotations

from sojourn.web.admission import Admission
from sojourn.web.asgi import SessionMiddleware
from sojourn.web.caps import Cap
from sojourn.web.cookies import Cookie
from sojourn.web.devices import Devices, DeviceSession
from sojourn.web.facts import Auth, Flash
from sojourn.web.notices import Notice, Source
from sojourn.web.transports import Header
from sojourn.web.websession import WebSession

__all__ = [
    "Admission",
    "Auth",
    "Cap",
    "Cookie",
    "DeviceSession",
    "Devices",
    "Flash",
    "Header",
    "Notice",
    "SessionMiddleware",
    "Source",
    "WebSession",
]
